//! Bytes read one part after the other.

use crate::ENCODING_VERSION;
use crate::error::{Error, ErrorKind, Result};
use crate::row::{put_varint, take_varint};
use crate::store::{MemoryKey, Seen};

/// Where reading goes on.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

pub(super) fn malformed<T>(what: &str) -> Result<T> {
    Err(Error::new(ErrorKind::Malformed, what))
}

/// The beginning of a list.
pub(super) fn begin(count: usize) -> Vec<u8> {
    let mut bytes = vec![ENCODING_VERSION];
    put_varint(&mut bytes, count as u64);
    bytes
}

impl<'a> Cursor<'a> {
    /// A list of items, each of which takes so many bytes at least; how many it has.
    pub fn new(bytes: &'a [u8], least: usize) -> Result<(Self, usize)> {
        let mut cursor = Cursor::versioned(bytes)?;
        let count = cursor.count(least)?;
        Ok((cursor, count))
    }

    /// What begins with the version.
    pub fn versioned(bytes: &'a [u8]) -> Result<Self> {
        match bytes.split_first() {
            Some((&ENCODING_VERSION, rest)) => Ok(Cursor { rest }),
            _ => malformed("a list of another kind or version"),
        }
    }

    /// How many items follow, each of which takes so many bytes at least.
    pub fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.number()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / least => {
                if count == 0 && !self.rest.is_empty() {
                    malformed("bytes after an empty list")
                } else {
                    Ok(count)
                }
            }
            _ => malformed("the bytes end inside a list"),
        }
    }

    pub fn number(&mut self) -> Result<u64> {
        let (number, rest) = take_varint(self.rest)?;
        self.rest = rest;
        Ok(number)
    }

    pub fn byte(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return malformed("the bytes end inside a list");
        };
        self.rest = rest;
        Ok(*array)
    }

    /// Bytes with their length in front.
    pub fn sized(&mut self) -> Result<&'a [u8]> {
        let length = self.number()?;
        let parts = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((bytes, rest)) = parts else { return malformed("the bytes end inside a list") };
        self.rest = rest;
        Ok(bytes)
    }

    pub fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.sized()?)
            .map_err(|_| Error::new(ErrorKind::Malformed, "a text that is not UTF-8"))
    }

    pub fn key(&mut self) -> Result<MemoryKey> {
        Ok(MemoryKey { position: i64::from_le_bytes(self.array()?), tail: self.array()? })
    }

    pub fn seen(&mut self) -> Result<Seen> {
        match self.byte()? {
            0 => Ok(Seen::Absent),
            1 => self.array().map(Seen::Row),
            2 => Ok(Seen::Unreadable),
            _ => malformed("what was seen is of another kind"),
        }
    }

    /// Makes sure that nothing follows.
    pub fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { malformed("bytes after the last item") }
    }
}
