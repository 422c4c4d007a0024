//! Whether the database file may have changed: its file change counter, and in WAL mode the log's index.

use std::fs::{self, File, Metadata};
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// How much of the database's header tells: the change counter stands at byte 24, the version that last
/// wrote it at byte 92.
const HEADER: usize = 100;
/// Both copies of the WAL index header: they hold a counter, the last frame and its checksum.
const WAL_INDEX: usize = 96;
/// The WAL's own header: its salts change with each restart of the log.
const WAL_HEADER: usize = 32;

/// The files that tell, kept open: who closes a file gives up all locks that its process has on it (POSIX), and those of
/// SQLite keep others from taking the WAL away under a connection, which would then read an old state for ever. To be
/// dropped after the connection.
#[derive(Debug)]
pub struct ChangeFiles {
    database: PathBuf,
    /// The database first.
    open: Vec<File>,
}

impl ChangeFiles {
    /// Those of a database file.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(database: &Path) -> Result<Self> {
        Ok(ChangeFiles { open: vec![File::open(database)?], database: database.to_owned() })
    }

    /// Whether another file bears the name by now.
    ///
    /// # Errors
    /// Where there is none.
    pub fn is_replaced(&self) -> Result<bool> {
        let now = fs::metadata(&self.database)?;
        let opened = self.open.first().map(File::metadata).transpose()?;
        Ok(opened.is_some_and(|opened| identity(&opened) != identity(&now)))
    }

    /// A token that differs whenever a transaction was committed since. It is read from the files, so it costs
    /// no snapshot. An empty log is like none: whoever opens a database to read it makes one anew.
    ///
    /// # Errors
    /// Where the database file cannot be read.
    pub fn token(&mut self) -> Result<Vec<u8>> {
        let mut token = Vec::with_capacity(HEADER + WAL_INDEX + WAL_HEADER + 64);
        let database = self.database.clone();
        self.add(&mut token, &database, HEADER)?;
        for (suffix, length) in [("-wal", WAL_HEADER), ("-shm", WAL_INDEX)] {
            match self.add(&mut token, &beside(&database, suffix), length) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => token.push(0),
                Err(error) => return Err(error),
            }
        }
        Ok(token)
    }

    /// Size, time of change and first bytes of a file that has any. The index in shared memory has no time worth keeping:
    /// readers touch it.
    fn add(&mut self, token: &mut Vec<u8>, path: &Path, length: usize) -> Result<()> {
        let file = self.file(path)?;
        let mut first = Vec::with_capacity(length);
        file.seek(SeekFrom::Start(0))?;
        file.take(length as u64).read_to_end(&mut first)?;
        token.push(u8::from(!first.is_empty()));
        if first.is_empty() {
            return Ok(());
        }
        if length != WAL_INDEX {
            let metadata = file.metadata()?;
            token.extend_from_slice(&metadata.len().to_le_bytes());
            let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            token.extend_from_slice(&changed.unwrap_or_default().as_nanos().to_le_bytes());
        }
        token.extend_from_slice(&first);
        Ok(())
    }

    /// The file of this name, opened once.
    fn file(&mut self, path: &Path) -> Result<&mut File> {
        let wanted = identity(&fs::metadata(path)?);
        let is_it = |file: &File| file.metadata().is_ok_and(|metadata| identity(&metadata) == wanted);
        let at = match self.open.iter().position(is_it).filter(|_| wanted.is_some()) {
            Some(at) => at,
            None => {
                if wanted.is_none() {
                    self.open.truncate(1);
                }
                self.open.push(File::open(path)?);
                self.open.len() - 1
            }
        };
        self.open.get_mut(at).ok_or_else(|| Error::from(ErrorKind::NotFound))
    }
}

/// What a file stays while its name may pass to another one.
#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

/// Not told by this system; closing a file releases no lock of others there.
#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
