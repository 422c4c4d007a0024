//! What travels between a two-way table's client and its remote side.
//!
//! ```text
//! acts     = version(1) count(varint) *act
//! act      = 0 expected row                                            -- store a row
//!          | 1 position(8) digest(16) key                              -- delete one
//!          | 2 kind(1) flags(1) memory-key seen seen                   -- record something: local, then remote side
//!            [key] [local row] [base digest(16)] [base row] [reason]   -- where flags 1, 2, 4, 8, 16 are set
//! expected = 0 | 1 digest(16)
//! seen     = 0 | 1 digest(16) | 2                                      -- absent, a row, one that cannot be read
//! reason   = key-text sqlstate ( 0 | 1 column ) message
//! answers  = version(1) count(varint) *answer
//! answer   = 0 | 1 | 2 | 3 reason | 4 reason                           -- done, changed, held, refused, waits
//! keys     = version(1) count(varint) *memory-key
//! choices  = version(1) count(varint) *( memory-key side(1) seen seen )
//! wanted   = version(1) count(varint) *( position(8) digest(16) content(1) )
//! fetched  = version(1) looked-for(varint) count(varint) *found
//! found    = 0 row | 1 position(8) digest(32) revision(8) key
//! memory-key = position(8) tail(8)
//! ```
//! Keys, rows and texts have their length in front, a varint; other numbers are little-endian.

mod cursor;
mod rows;
mod settles;

pub use rows::{
    Found, pack_choices, pack_fetched, pack_keys, pack_wanted, read_choices, read_fetched, read_keys,
    read_wanted,
};
pub use settles::{kind_of, number_of, pack_columns, pack_settles, read_columns, read_settles};

use cursor::{Cursor, begin, malformed};

use crate::error::Result;
use crate::reconcile::Side;
use crate::row::put_varint;
use crate::store::{Applied, Change, MemoryKey, OpenKind, Reason, Record, RemoteAct, Seen, ShortDigest};

const KEY: u8 = 1;
const LOCAL_ROW: u8 = 2;
const BASE: u8 = 4;
const BASE_ROW: u8 = 8;
const REASON: u8 = 16;

/// One act of a batch as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act<'a> {
    /// Store a row.
    Upsert {
        /// In wire form.
        row: &'a [u8],
        /// What the side has now.
        expected: Option<ShortDigest>,
    },
    /// Delete a row.
    Delete {
        /// Where it stands.
        position: i64,
        /// The encoded key.
        key: &'a [u8],
        /// What the side has now.
        expected: ShortDigest,
    },
    /// Record something.
    Record(Noted<'a>),
}

/// A [`Record`] as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noted<'a> {
    /// The key.
    pub key: MemoryKey,
    /// The encoded key, where it can be.
    pub encoded_key: Option<&'a [u8]>,
    /// What it is about.
    pub kind: OpenKind,
    /// What the local side has.
    pub local: Seen,
    /// What the remote side has.
    pub remote: Seen,
    /// The row of the local side in wire form.
    pub local_row: Option<&'a [u8]>,
    /// The digest of what both last agreed on.
    pub base: Option<ShortDigest>,
    /// That row itself in wire form, where it is kept.
    pub base_row: Option<&'a [u8]>,
    /// Why a row is not taken.
    pub reason: Option<Told<'a>>,
}

/// A [`Reason`] as it travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told<'a> {
    /// The key as a person reads it.
    pub key_text: &'a str,
    /// The SQLSTATE.
    pub sqlstate: &'a str,
    /// The column at fault.
    pub column: Option<&'a str>,
    /// What is wrong.
    pub message: &'a str,
}

impl<'a> From<&'a Reason> for Told<'a> {
    fn from(reason: &'a Reason) -> Self {
        Told {
            key_text: &reason.key_text,
            sqlstate: &reason.sqlstate,
            column: reason.column.as_deref(),
            message: &reason.message,
        }
    }
}

impl From<Told<'_>> for Reason {
    fn from(told: Told<'_>) -> Self {
        Reason {
            key_text: told.key_text.to_owned(),
            sqlstate: told.sqlstate.to_owned(),
            column: told.column.map(str::to_owned),
            message: told.message.to_owned(),
        }
    }
}

impl<'a> Act<'a> {
    /// An act, with the base's row of what it records, where that is kept.
    pub fn of(act: &'a RemoteAct, base_row: Option<&'a [u8]>) -> Self {
        match act {
            RemoteAct::Change(Change::Upsert { row, expected }) => {
                Act::Upsert { row: &row.row, expected: *expected }
            }
            RemoteAct::Change(Change::Delete { position, key, expected }) => {
                Act::Delete { position: *position, key, expected: *expected }
            }
            RemoteAct::Record(record) => Act::Record(Noted::of(record, base_row)),
        }
    }
}

impl<'a> Noted<'a> {
    fn of(record: &'a Record, base_row: Option<&'a [u8]>) -> Self {
        Noted {
            key: record.key,
            encoded_key: record.encoded_key.as_deref(),
            kind: record.kind,
            local: record.local,
            remote: record.remote,
            local_row: record.local_row.as_ref().map(|row| row.row.as_slice()),
            base: record.base,
            base_row,
            reason: record.reason.as_ref().map(Told::from),
        }
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_seen(out: &mut Vec<u8>, seen: Seen) {
    match seen {
        Seen::Absent => out.push(0),
        Seen::Row(digest) => {
            out.push(1);
            out.extend_from_slice(&digest);
        }
        Seen::Unreadable => out.push(2),
    }
}

fn put_key(out: &mut Vec<u8>, key: &MemoryKey) {
    out.extend_from_slice(&key.position.to_le_bytes());
    out.extend_from_slice(&key.tail);
}

fn put_told(out: &mut Vec<u8>, told: &Told<'_>) {
    put_bytes(out, told.key_text.as_bytes());
    put_bytes(out, told.sqlstate.as_bytes());
    match told.column {
        None => out.push(0),
        Some(column) => {
            out.push(1);
            put_bytes(out, column.as_bytes());
        }
    }
    put_bytes(out, told.message.as_bytes());
}

const KINDS: [OpenKind; 6] = [
    OpenKind::Conflict,
    OpenKind::Undecided,
    OpenKind::Rejected(Side::Local),
    OpenKind::Rejected(Side::Remote),
    OpenKind::Waiting(Side::Local),
    OpenKind::Waiting(Side::Remote),
];

fn put_act(out: &mut Vec<u8>, act: &Act<'_>) {
    match act {
        Act::Upsert { row, expected } => {
            out.push(0);
            put_seen(out, (*expected).into());
            put_bytes(out, row);
        }
        Act::Delete { position, key, expected } => {
            out.push(1);
            out.extend_from_slice(&position.to_le_bytes());
            out.extend_from_slice(expected);
            put_bytes(out, key);
        }
        Act::Record(noted) => put_noted(out, noted),
    }
}

fn put_noted(out: &mut Vec<u8>, noted: &Noted<'_>) {
    out.push(2);
    out.push(KINDS.iter().position(|kind| *kind == noted.kind).unwrap_or_default() as u8);
    let flags = [
        (noted.encoded_key.is_some(), KEY),
        (noted.local_row.is_some(), LOCAL_ROW),
        (noted.base.is_some(), BASE),
        (noted.base_row.is_some(), BASE_ROW),
        (noted.reason.is_some(), REASON),
    ];
    out.push(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
    put_key(out, &noted.key);
    put_seen(out, noted.local);
    put_seen(out, noted.remote);
    noted.encoded_key.iter().chain(&noted.local_row).for_each(|bytes| put_bytes(out, bytes));
    if let Some(base) = &noted.base {
        out.extend_from_slice(base);
    }
    if let Some(row) = noted.base_row {
        put_bytes(out, row);
    }
    if let Some(reason) = &noted.reason {
        put_told(out, reason);
    }
}

/// Packs acts.
pub fn pack_acts<'a>(acts: impl ExactSizeIterator<Item = Act<'a>>) -> Vec<u8> {
    let mut bytes = begin(acts.len());
    acts.for_each(|act| put_act(&mut bytes, &act));
    bytes
}

/// How many bytes an act takes in [`pack_acts`].
pub fn packed_len(act: &Act<'_>) -> usize {
    let mut bytes = Vec::new();
    put_act(&mut bytes, act);
    bytes.len()
}

/// Packed acts, read one by one. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Acts<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

/// The acts of a batch.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_acts(bytes: &[u8]) -> Result<Acts<'_>> {
    let (cursor, left) = Cursor::new(bytes, 3)?;
    Ok(Acts { cursor, left })
}

impl<'a> Acts<'a> {
    /// How many acts are left.
    pub fn left(&self) -> usize {
        self.left
    }

    fn act(&mut self) -> Result<Act<'a>> {
        let cursor = &mut self.cursor;
        match cursor.byte()? {
            0 => {
                let expected = match cursor.seen()? {
                    Seen::Absent => None,
                    Seen::Row(digest) => Some(digest),
                    Seen::Unreadable => {
                        return malformed("a row that is stored over one that cannot be read");
                    }
                };
                Ok(Act::Upsert { row: cursor.sized()?, expected })
            }
            1 => {
                let (position, expected) = (i64::from_le_bytes(cursor.array()?), cursor.array()?);
                Ok(Act::Delete { position, key: cursor.sized()?, expected })
            }
            2 => cursor.noted().map(Act::Record),
            _ => malformed("an act of another kind"),
        }
    }
}

impl<'a> Iterator for Acts<'a> {
    type Item = Result<Act<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let act =
            self.act().and_then(|act| if self.left == 0 { self.cursor.end().map(|()| act) } else { Ok(act) });
        if act.is_err() {
            self.left = 0;
        }
        Some(act)
    }
}

impl<'a> Cursor<'a> {
    fn noted(&mut self) -> Result<Noted<'a>> {
        let Some(kind) = KINDS.get(usize::from(self.byte()?)) else {
            return malformed("a record of another kind");
        };
        let flags = self.byte()?;
        if flags >= REASON * 2 {
            return malformed("a record with something unknown");
        }
        let has = |flag: u8| flags & flag != 0;
        let (key, local, remote) = (self.key()?, self.seen()?, self.seen()?);
        let encoded_key = has(KEY).then(|| self.sized()).transpose()?;
        let local_row = has(LOCAL_ROW).then(|| self.sized()).transpose()?;
        let base = has(BASE).then(|| self.array()).transpose()?;
        let base_row = has(BASE_ROW).then(|| self.sized()).transpose()?;
        let reason = has(REASON).then(|| self.told()).transpose()?;
        Ok(Noted { key, encoded_key, kind: *kind, local, remote, local_row, base, base_row, reason })
    }

    fn told(&mut self) -> Result<Told<'a>> {
        let (key_text, sqlstate) = (self.text()?, self.text()?);
        let column = match self.byte()? {
            0 => None,
            1 => Some(self.text()?),
            _ => return malformed("a reason of another kind"),
        };
        Ok(Told { key_text, sqlstate, column, message: self.text()? })
    }
}

/// Packs what became of acts.
pub fn pack_applied(applied: &[Applied]) -> Vec<u8> {
    let mut bytes = begin(applied.len());
    for applied in applied {
        match applied {
            Applied::Done => bytes.push(0),
            Applied::Changed => bytes.push(1),
            Applied::Held => bytes.push(2),
            Applied::Refused { waits, reason } => {
                bytes.push(3 + u8::from(*waits));
                put_told(&mut bytes, &Told::from(&**reason));
            }
        }
    }
    bytes
}

/// Reads what became of acts.
///
/// # Errors
/// `Malformed` where the bytes are none.
pub fn read_applied(bytes: &[u8]) -> Result<Vec<Applied>> {
    let (mut cursor, count) = Cursor::new(bytes, 1)?;
    let mut applied = Vec::with_capacity(count.min(1 << 12));
    for _ in 0..count {
        applied.push(match cursor.byte()? {
            0 => Applied::Done,
            1 => Applied::Changed,
            2 => Applied::Held,
            kind @ (3 | 4) => Applied::Refused { waits: kind == 4, reason: Box::new(cursor.told()?.into()) },
            _ => return malformed("an answer of another kind"),
        });
    }
    cursor.end()?;
    Ok(applied)
}

#[cfg(test)]
mod tests;
