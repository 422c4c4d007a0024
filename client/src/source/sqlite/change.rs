//! Whether the database file may have changed: its file change counter, and in WAL mode the log's index.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// How much of the database's header tells: the change counter stands at byte 24, the version that last
/// wrote it at byte 92.
const HEADER: usize = 100;
/// Both copies of the WAL index header: they hold a counter, the last frame and its checksum.
const WAL_INDEX: usize = 96;
/// The WAL's own header: its salts change with each restart of the log.
const WAL_HEADER: usize = 32;

/// A token that differs whenever a transaction was committed since. It is read from the files, so it costs
/// no snapshot.
///
/// # Errors
/// Where the database file cannot be read.
pub fn change_token(database: &Path) -> std::io::Result<Vec<u8>> {
    let mut token = Vec::with_capacity(HEADER + WAL_INDEX + WAL_HEADER + 64);
    add(&mut token, database, HEADER)?;
    for (suffix, length) in [("-wal", WAL_HEADER), ("-shm", WAL_INDEX)] {
        match add(&mut token, &beside(database, suffix), length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => token.push(0),
            Err(error) => return Err(error),
        }
    }
    Ok(token)
}

/// Size, time of change and first bytes of a file. The index in shared memory has no time worth keeping:
/// readers touch it.
fn add(token: &mut Vec<u8>, path: &Path, length: usize) -> std::io::Result<()> {
    let mut first = Vec::with_capacity(length);
    File::open(path)?.take(length as u64).read_to_end(&mut first)?;
    token.push(1);
    if length != WAL_INDEX {
        let metadata = fs::metadata(path)?;
        token.extend_from_slice(&metadata.len().to_le_bytes());
        let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        token.extend_from_slice(&changed.unwrap_or_default().as_nanos().to_le_bytes());
    }
    token.extend_from_slice(&first);
    Ok(())
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
