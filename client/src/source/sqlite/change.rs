//! Whether the database file may have changed: its file change counter, and in WAL mode the log's index.

use std::fs::{self, File, Metadata};
use std::io::{ErrorKind, Read, Result, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

/// How much of the database's header tells: the change counter stands at byte 24, the version that last
/// wrote it at byte 92.
const HEADER: usize = 100;
/// Both copies of the WAL index header: they hold a counter, the last frame and its checksum.
const WAL_INDEX: usize = 96;
/// The WAL's own header: its salts change with each restart of the log.
const WAL_HEADER: usize = 32;

/// All files that were opened here. Who closes a file gives up all locks that its process has on it (POSIX), through whichever
/// descriptor: those of every SQLite connection to it. Without them another program takes the WAL away from under a connection,
/// and what that commits is lost, or writes beside it. So a file is closed once no database is open in this process at all.
static OPENED: Mutex<Opened> = Mutex::new(Opened { databases: 0, files: Vec::new() });

#[derive(Debug)]
struct Opened {
    /// Databases that are open in this process.
    databases: usize,
    files: Vec<File>,
}

fn opened() -> MutexGuard<'static, Opened> {
    // Nothing is left half-way where somebody panics.
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The files of a database that tell. To be made before any connection to it, and dropped after it.
#[derive(Debug)]
pub struct ChangeFiles {
    database: PathBuf,
    /// What the file was when it was opened.
    identity: Option<(u64, u64)>,
}

impl Drop for ChangeFiles {
    fn drop(&mut self) {
        let mut opened = opened();
        opened.databases -= 1;
        if opened.databases == 0 {
            opened.files.clear();
        }
    }
}

impl ChangeFiles {
    /// Those of a database file.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(database: &Path) -> Result<Self> {
        opened().databases += 1;
        let mut files = ChangeFiles { database: database.to_owned(), identity: None };
        let found = opened().read(database, |file| Ok(identity(&file.metadata()?)));
        files.identity = found?;
        Ok(files)
    }

    /// Whether another file bears the name by now.
    ///
    /// # Errors
    /// Where there is none.
    pub fn is_replaced(&self) -> Result<bool> {
        Ok(self.identity != identity(&fs::metadata(&self.database)?))
    }

    /// A token that differs whenever a transaction was committed since. It is read from the files, so it costs
    /// no snapshot. An empty log is like none: whoever opens a database to read it makes one anew.
    ///
    /// # Errors
    /// Where the database file cannot be read.
    pub fn token(&self) -> Result<Vec<u8>> {
        let mut token = Vec::with_capacity(HEADER + WAL_INDEX + WAL_HEADER + 64);
        let mut opened = opened();
        opened.read(&self.database, |file| add(&mut token, file, HEADER))?;
        for (suffix, length) in [("-wal", WAL_HEADER), ("-shm", WAL_INDEX)] {
            let path = beside(&self.database, suffix);
            match opened.read(&path, |file| add(&mut token, file, length)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => token.push(0),
                Err(error) => return Err(error),
            }
        }
        Ok(token)
    }
}

/// Size, time of change and first bytes of a file that has any. The index in shared memory has no time worth keeping:
/// readers touch it.
fn add(token: &mut Vec<u8>, file: &mut File, length: usize) -> Result<()> {
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

impl Opened {
    /// Does something with the file of this name, which is opened once.
    fn read<T>(&mut self, path: &Path, work: impl FnOnce(&mut File) -> Result<T>) -> Result<T> {
        let Some(wanted) = identity(&fs::metadata(path)?) else { return work(&mut File::open(path)?) };
        let is_it = |file: &File| file.metadata().is_ok_and(|metadata| identity(&metadata) == Some(wanted));
        let at = match self.files.iter().position(is_it) {
            Some(at) => at,
            None => {
                self.files.push(File::open(path)?);
                self.files.len() - 1
            }
        };
        work(&mut self.files[at])
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
