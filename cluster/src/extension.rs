//! Puts the built extension into a server's directories.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{Installation, Workspace};

/// The extension's name.
pub const EXTENSION: &str = "plimsoll";

/// Installs the release build into an installation, and answers the files written.
///
/// # Errors
/// When it is not built, or when the directories cannot be written; the message says what to run instead.
pub fn install(workspace: &Workspace, target: &Installation) -> Result<Vec<PathBuf>> {
    let library = workspace.release_artefact(&format!("lib{EXTENSION}.so"));
    if !library.exists() {
        bail!("{} is missing: build the extension first", library.display());
    }
    let extension_dir = target.share_dir.join("extension");
    let control = format!("{EXTENSION}.control");
    let mut files = vec![
        (library, target.module_dir.join(format!("{EXTENSION}.so"))),
        (workspace.root.join(&control), extension_dir.join(&control)),
    ];
    let scripts = workspace.root.join("sql");
    for entry in fs::read_dir(&scripts).with_context(|| format!("cannot list {}", scripts.display()))? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with(&format!("{EXTENSION}--")) && text.ends_with(".sql") {
            files.push((scripts.join(&name), extension_dir.join(&name)));
        }
    }
    for (from, to) in &files {
        if let Err(error) = copy_into_place(from, to) {
            if error.kind() == ErrorKind::PermissionDenied {
                bail!("{}", privileged_instructions(&files));
            }
            return Err(error).with_context(|| format!("cannot write {}", to.display()));
        }
    }
    Ok(files.into_iter().map(|(_, to)| to).collect())
}

/// What somebody with the rights can do instead.
fn privileged_instructions(files: &[(PathBuf, PathBuf)]) -> String {
    let commands: String = files
        .iter()
        .map(|(from, to)| format!("\n  sudo install -m 644 '{}' '{}'", from.display(), to.display()))
        .collect();
    format!("the server's directories are not ours to write; everything is built, so run:{commands}")
}

/// Copies a file so that a reader sees the old one or the new one, whole: a running server has the library
/// mapped. A file that is the same already is left alone.
fn copy_into_place(from: &Path, to: &Path) -> std::io::Result<()> {
    let content = fs::read(from)?;
    if fs::read(to).is_ok_and(|found| found == content) {
        return Ok(());
    }
    let directory = to.parent().unwrap_or(Path::new("/"));
    let file = tempfile::NamedTempFile::new_in(directory)?;
    fs::write(file.path(), &content)?;
    fs::set_permissions(file.path(), Permissions::from_mode(0o644))?;
    file.persist(to).map_err(|error| error.error)?;
    Ok(())
}
