//! A relocated copy of an installation. Postgres finds its share and module directories relative to its own
//! executable as long as the executable's path ends as it did where it was compiled, so real copies of the
//! programs and links to everything else make a server of our own that an extension can be added to.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{Installation, Workspace};

/// A relocated copy of a server.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The copy, as its own `pg_config` describes it.
    pub installation: Installation,
}

impl Stage {
    /// Makes the stage of an installation, or opens it where it is up to date; extensions that were installed
    /// since then are added.
    ///
    /// # Errors
    /// When it cannot be written, or when the copy still looks for its files at the original's place.
    pub fn prepare(workspace: &Workspace, original: &Installation) -> Result<Self> {
        let root = workspace.private.join(format!("server-{}", original.major));
        let _lock = lock(&workspace.private.join("stage.lock"))?;
        let stamp = stamp(original)?;
        let layout = Layout::of(original, &root)?;
        let stamp_file = root.join("made-from");
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            layout.link_extensions(original)?;
            return Self::open(&layout);
        }
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        layout.build(original).with_context(|| format!("cannot stage a server in {}", root.display()))?;
        let stage = Self::open(&layout)?;
        fs::write(&stamp_file, stamp)?;
        Ok(stage)
    }

    fn open(layout: &Layout) -> Result<Self> {
        let installation = Installation::from_pg_config(&layout.bin_dir.join("pg_config"))?;
        for (found, expected) in
            [(&installation.module_dir, &layout.module_dir), (&installation.share_dir, &layout.share_dir)]
        {
            if fs::canonicalize(found).ok() != fs::canonicalize(expected).ok() {
                bail!(
                    "the staged server looks for its files in {} instead of {}: it cannot be relocated",
                    found.display(),
                    expected.display()
                );
            }
        }
        Ok(Stage { installation })
    }
}

/// Where the parts of a stage lie.
struct Layout {
    root: PathBuf,
    bin_dir: PathBuf,
    module_dir: PathBuf,
    share_dir: PathBuf,
    /// Where `libpq` goes when the programs look for it relative to themselves.
    library_dir: Option<PathBuf>,
}

impl Layout {
    fn of(original: &Installation, root: &Path) -> Result<Self> {
        let prefix = common_prefix([&original.bin_dir, &original.module_dir, &original.share_dir]);
        let place = |path: &Path| path.strip_prefix(&prefix).map(|tail| root.join(tail));
        let beside = original.bin_dir.parent().map(|parent| parent.join("lib"));
        let library_dir = match beside {
            Some(beside) if beside == original.library_dir => Some(place(&beside)?),
            _ => None,
        };
        Ok(Layout {
            root: root.to_owned(),
            bin_dir: place(&original.bin_dir)?,
            module_dir: place(&original.module_dir)?,
            share_dir: place(&original.share_dir)?,
            library_dir,
        })
    }

    fn build(&self, original: &Installation) -> Result<()> {
        // Programs find themselves through links, so only real copies are relocated.
        make_directory(&self.root, &self.bin_dir)?;
        for entry in fs::read_dir(&original.bin_dir)? {
            let entry = entry?;
            if fs::metadata(entry.path())?.is_file() {
                let copy = self.bin_dir.join(entry.file_name());
                fs::copy(entry.path(), &copy)?;
                fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
            }
        }
        if let Some(library_dir) = &self.library_dir {
            self.link_entries(&original.library_dir, library_dir, &[])?;
        }
        self.link_entries(&original.share_dir, &self.share_dir, &["extension"])?;
        self.link_extensions(original)
    }

    fn link_extensions(&self, original: &Installation) -> Result<()> {
        self.link_entries(&original.module_dir, &self.module_dir, &[])?;
        self.link_entries(&original.share_dir.join("extension"), &self.share_dir.join("extension"), &[])
    }

    /// Links every entry of a directory into one of ours, except some and those that are there already.
    fn link_entries(&self, from: &Path, to: &Path, except: &[&str]) -> Result<()> {
        make_directory(&self.root, to)?;
        for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
            let entry = entry?;
            let place = to.join(entry.file_name());
            if !except.iter().any(|name| entry.file_name() == *name) && fs::symlink_metadata(&place).is_err()
            {
                symlink(entry.path(), &place)?;
            }
        }
        Ok(())
    }
}

/// Makes a directory under `root` that the server's user can enter whatever our umask says.
fn make_directory(root: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for made in directory.ancestors().take_while(|parent| parent.starts_with(root)) {
        fs::set_permissions(made, Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// What a stage was made from: it is made anew when this changes.
fn stamp(original: &Installation) -> Result<String> {
    let postgres = original.program("postgres");
    let found = fs::metadata(&postgres).with_context(|| format!("{} is missing", postgres.display()))?;
    let modified = found.modified()?.duration_since(std::time::UNIX_EPOCH)?.as_secs();
    Ok(format!("{}\n{}\n{} {modified}\n", original.version, postgres.display(), found.len()))
}

/// Holds an exclusive lock until it is dropped.
fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.lock()?;
    Ok(file)
}

fn common_prefix<const N: usize>(paths: [&PathBuf; N]) -> PathBuf {
    let mut prefix = paths[0].clone();
    while !paths.iter().all(|path| path.starts_with(&prefix)) && prefix.pop() {}
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation(bin: &str, module: &str, share: &str, library: &str) -> Installation {
        Installation {
            pg_config: "pg_config".into(),
            version: "PostgreSQL 15.1".into(),
            major: 15,
            bin_dir: bin.into(),
            module_dir: module.into(),
            share_dir: share.into(),
            library_dir: library.into(),
            header_dir: "/usr/include".into(),
        }
    }

    #[test]
    fn the_tail_of_every_path_is_kept() -> Result<()> {
        let debian = installation(
            "/usr/lib/postgresql/15/bin",
            "/usr/lib/postgresql/15/lib",
            "/usr/share/postgresql/15",
            "/usr/lib/x86_64-linux-gnu",
        );
        let layout = Layout::of(&debian, Path::new("/s"))?;
        assert_eq!(layout.bin_dir, Path::new("/s/lib/postgresql/15/bin"));
        assert_eq!(layout.module_dir, Path::new("/s/lib/postgresql/15/lib"));
        assert_eq!(layout.share_dir, Path::new("/s/share/postgresql/15"));
        assert_eq!(layout.library_dir, None);
        let own = installation("/opt/pg/bin", "/opt/pg/lib", "/opt/pg/share", "/opt/pg/lib");
        let layout = Layout::of(&own, Path::new("/s"))?;
        assert_eq!(layout.bin_dir, Path::new("/s/bin"));
        assert_eq!(layout.module_dir, Path::new("/s/lib"));
        assert_eq!(layout.library_dir.as_deref(), Some(Path::new("/s/lib")));
        Ok(())
    }
}
