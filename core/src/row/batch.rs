//! An upload: version byte, row count, then each row with its length in front.

use super::{put_varint, take_varint};
use crate::ENCODING_VERSION;
use crate::error::{Error, ErrorKind, Result};

/// The most rows in one upload.
pub const MAX_BATCH_ROWS: u32 = 1_000_000;

const HEADER: usize = 5;

/// Collects encoded rows into one upload.
#[derive(Debug, Clone)]
pub struct BatchWriter {
    bytes: Vec<u8>,
    rows: u32,
}

impl Default for BatchWriter {
    fn default() -> Self {
        BatchWriter { bytes: vec![ENCODING_VERSION, 0, 0, 0, 0], rows: 0 }
    }
}

impl BatchWriter {
    /// An empty upload.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row in wire form.
    pub fn push(&mut self, row: &[u8]) {
        put_varint(&mut self.bytes, row.len() as u64);
        self.bytes.extend_from_slice(row);
        self.rows += 1;
    }

    /// How many rows it has.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// How long it is, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The upload's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[1..HEADER].copy_from_slice(&self.rows.to_le_bytes());
        self.bytes
    }
}

/// Hands the upload of these rows, in wire form, to `put` piece by piece: what [`BatchWriter`] makes of them.
pub fn put_batch<'r>(rows: impl ExactSizeIterator<Item = &'r [u8]>, mut put: impl FnMut(&[u8])) {
    put(&[ENCODING_VERSION]);
    put(&u32::try_from(rows.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut length = Vec::with_capacity(10);
    for row in rows {
        length.clear();
        put_varint(&mut length, row.len() as u64);
        put(&length);
        put(row);
    }
}

/// Takes an upload apart into rows, in order. Ends after the first error.
#[derive(Debug, Clone)]
pub struct BatchReader<'a> {
    bytes: &'a [u8],
    at: usize,
    left: u32,
    failed: bool,
}

impl<'a> BatchReader<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// `Malformed` where the version is another, or the count exceeds the bytes or [`MAX_BATCH_ROWS`].
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let malformed = |what: String| Err(Error::new(ErrorKind::Malformed, what).at(0));
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return malformed("an upload shorter than its header".to_owned());
        };
        let [version, count @ ..] = *header;
        if version != ENCODING_VERSION {
            return malformed(format!("encoding version {version}, where {ENCODING_VERSION} is known"));
        }
        let left = u32::from_le_bytes(count);
        if left > MAX_BATCH_ROWS || left as usize > bytes.len() - HEADER {
            return malformed(format!("an upload that cannot hold the {left} rows it says"));
        }
        Ok(BatchReader { bytes, at: HEADER, left, failed: false })
    }

    /// How many rows are still to come.
    pub fn rows_left(&self) -> u32 {
        self.left
    }

    fn step(&mut self) -> Result<&'a [u8]> {
        let start = self.at;
        let rest = &self.bytes[start..];
        let (length, after) = take_varint(rest).map_err(|error| error.at(start))?;
        match usize::try_from(length).ok().and_then(|length| after.get(..length)) {
            Some(row) => {
                self.at = start + (rest.len() - after.len()) + row.len();
                self.left -= 1;
                Ok(row)
            }
            None => {
                let message = format!("a row of {length} bytes where {} are left", after.len());
                Err(Error::new(ErrorKind::Malformed, message).at(start))
            }
        }
    }
}

impl<'a> Iterator for BatchReader<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.left == 0 {
            if self.at == self.bytes.len() {
                return None;
            }
            self.failed = true;
            let left = self.bytes.len() - self.at;
            return Some(Err(
                Error::new(ErrorKind::Malformed, format!("{left} bytes after the last row")).at(self.at)
            ));
        }
        let row = self.step();
        self.failed = row.is_err();
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // One more: an error may follow the last row.
        (0, Some(self.left as usize + 1))
    }
}
