//! Where the repository keeps private servers and finds what it built.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::Runner;

/// The directories of one checkout.
#[derive(Debug, Clone)]
pub struct Workspace {
    /// The repository's root.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
    /// Where stages and clusters live; the server's user can reach it.
    pub private: PathBuf,
}

impl Workspace {
    /// The checkout that this crate was compiled in. Private servers live in `target/private`, or, where the
    /// server's user cannot reach that, in a directory of ours under `/var/tmp`.
    ///
    /// # Errors
    /// When no such directory can be made.
    pub fn find(runner: &Runner) -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("the crate lies in no workspace")?
            .to_owned();
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => root.join(directory),
            None => root.join("target"),
        };
        let inside = target.join("private");
        make_open_directory(&inside)?;
        let private = if runner.reaches(&inside) { inside } else { outside(&root)? };
        Ok(Workspace { root, target, private })
    }

    /// Whether private servers had to be kept outside `target`.
    pub fn is_outside(&self) -> bool {
        !self.private.starts_with(&self.target)
    }

    /// A release build's artefact, such as `libplimsoll.so`.
    pub fn release_artefact(&self, name: &str) -> PathBuf {
        self.target.join("release").join(name)
    }
}

/// A directory under `/var/tmp` that is ours alone to write: its name can be guessed, so whoever made it first
/// is checked.
fn outside(root: &Path) -> Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    root.hash(&mut hasher);
    let name = format!("plimsoll-{}-{:08x}", geteuid(), hasher.finish() as u32);
    let directory = Path::new("/var/tmp").join(name);
    make_open_directory(&directory)?;
    let found = std::fs::symlink_metadata(&directory)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
        bail!("{} exists and is not a directory of ours: remove it", directory.display());
    }
    Ok(directory)
}

/// Makes a directory that others can enter but not write.
fn make_open_directory(directory: &Path) -> Result<()> {
    if !directory.is_dir() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}
