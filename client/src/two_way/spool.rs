//! Rows that were read in one pass, until they are asked for. No index leads to a hash: each group of ranges by itself would
//! take a pass over the table, and each row whose content is needed a search of its own.
//!
//! They wait in a temporary file without a name, about as many bytes as the rows have as they are sent. Each group has
//! blocks of its own in it, which are read when the group is asked for, once.
//!
//! A group is told as it was in that pass only where nothing is remembered of it at its turn, nor was in between: so what is
//! told is all of one moment, that of the pass, and the run does what it would do had all local changes since come right
//! after the group was read, at its turn. Such changes may come at any moment: what is decided is conditional on what was
//! told wherever it changes a row, and becomes the base where it does not. And without a base no row is deleted, whatever
//! was told. One by one:
//!
//! | since the pass the row was | then |
//! |---|---|
//! | inserted | the other side's row of that key, if any, is to be stored where none is: it is not, and both are looked at again, as they are now. Else the next run finds it new |
//! | updated | what it was is sent, or agreed on, and is the base: the next run sends what it is. Another row is stored in place of what it was alone, else both are looked at again |
//! | deleted | the same; the next run deletes what was sent, as the application did |
//! | given another key | deleted and inserted |
//! | doubled: another row has its key once encoded | as updated; the next run tells of it |
//! | a double, and is none any more | groups with doubles are read at their turn: which of them is told depends on the others |
//!
//! Where there is a base the same holds, but a row that was deleted and came back would be deleted on the other side and come
//! back there, without what is in columns of which this side knows nothing: such groups are read at their turn.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use plimsoll_core::digest::RowDigest;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    LocalContent, LocalRow, PositionRange, Reason, SourceKey, SourceRecord, SourceRow, TableId,
};
use plimsoll_core::two_way::wire::{pack_columns, read_columns};

use super::base::place_of;

/// Bytes that a group collects before they are written.
const BLOCK: usize = 1 << 14;
/// Groups at most, each of which takes a block of memory while the pass goes on.
const MOST_GROUPS: usize = 1_024;
/// Bytes of a row that waits with its content.
const MOST_CONTENT: usize = 2_048;

/// How a temporary file is made.
pub type MakeFile = fn() -> io::Result<File>;

/// A group of ranges.
#[derive(Debug, Default)]
struct Group {
    ranges: Vec<PositionRange>,
    /// Where its blocks begin in the file, and how long they are.
    blocks: Vec<(u64, usize)>,
    /// What is not written yet.
    bytes: Vec<u8>,
}

/// Rows of some groups of ranges.
#[derive(Debug)]
pub struct Spool {
    table: TableId,
    file: File,
    length: u64,
    groups: Vec<Group>,
    /// All ranges in order, and the group of each.
    ranges: Vec<PositionRange>,
    group_of: Vec<usize>,
    /// The rows of the group that was taken out last, and where each begins by its key.
    content: Vec<u8>,
    places: HashMap<Vec<u8>, usize>,
}

impl Spool {
    /// For these groups, the first of those that are given.
    ///
    /// # Errors
    /// Where no temporary file can be made.
    pub fn new(
        table: TableId,
        first: &[PositionRange],
        later: &[Vec<PositionRange>],
        file: MakeFile,
    ) -> io::Result<Spool> {
        let groups = std::iter::once(first).chain(later.iter().map(Vec::as_slice)).take(MOST_GROUPS);
        let groups: Vec<Group> =
            groups.map(|ranges| Group { ranges: ranges.to_vec(), ..Group::default() }).collect();
        let mut all: Vec<(PositionRange, usize)> = Vec::new();
        for (group, Group { ranges, .. }) in groups.iter().enumerate() {
            all.extend(ranges.iter().map(|range| (*range, group)));
        }
        all.sort_by_key(|(range, _)| range.from);
        let (ranges, group_of) = all.into_iter().unzip();
        Ok(Spool {
            table,
            file: file()?,
            length: 0,
            groups,
            ranges,
            group_of,
            content: Vec::new(),
            places: HashMap::new(),
        })
    }

    /// The ranges of which rows are put in, which ascend and may meet.
    pub fn ranges(&self) -> &[PositionRange] {
        &self.ranges
    }

    /// Puts a row in, with its content where it has one.
    pub fn put(&mut self, row: &LocalRow, content: Option<&SourceRow>) -> io::Result<()> {
        // One that stands nowhere is of the range that is open below.
        let place = match row.position {
            Some(position) => place_of(&self.ranges, position),
            None => self.ranges.first().filter(|range| range.from.is_none()).map(|_| 0),
        };
        let Some(group) = place.and_then(|place| self.group_of.get(place)).copied() else { return Ok(()) };
        let bytes = &mut self.groups[group].bytes;
        put_row(bytes, row, content.filter(|content| content.row.len() <= MOST_CONTENT));
        if bytes.len() >= BLOCK { self.write(group) } else { Ok(()) }
    }

    fn write(&mut self, group: usize) -> io::Result<()> {
        let group = &mut self.groups[group];
        if !group.bytes.is_empty() {
            self.file.write_all(&group.bytes)?;
            group.blocks.push((self.length, group.bytes.len()));
            self.length += group.bytes.len() as u64;
        }
        // Its room may be another group's.
        group.bytes.clear();
        Ok(())
    }

    /// All rows are in.
    pub fn finish(&mut self) -> io::Result<()> {
        for group in 0..self.groups.len() {
            self.write(group)?;
            self.groups[group].bytes = Vec::new();
        }
        Ok(())
    }

    /// The rows of a group, once; `None` where it is none of those that were put in and not taken out yet.
    pub fn take(&mut self, table: TableId, ranges: &[PositionRange]) -> io::Result<Option<Vec<LocalRow>>> {
        self.forget();
        let group = self.groups.iter_mut().find(|group| group.ranges == ranges);
        let Some(group) = group.filter(|_| table == self.table).map(std::mem::take) else { return Ok(None) };
        for (from, length) in &group.blocks {
            let begin = self.content.len();
            self.content.resize(begin + length, 0);
            self.file.seek(SeekFrom::Start(*from))?;
            self.file.read_exact(&mut self.content[begin..])?;
        }
        let mut cursor = Cursor(&self.content);
        let mut rows = Vec::new();
        while !cursor.0.is_empty() {
            let place = self.content.len() - cursor.0.len();
            let row = cursor.row().ok_or_else(damaged)?;
            if let (SourceKey::Encoded(key), LocalContent::Row { .. }) = (&row.key, &row.content) {
                self.places.insert(key.clone(), place);
            }
            rows.push(row);
        }
        Ok(Some(rows))
    }

    /// Forgets the group that was taken out last.
    pub fn forget(&mut self) {
        self.places.clear();
        self.content.clear();
    }

    /// A row of the group that was taken out last; `None` where it is not here with its content.
    pub fn row(&self, table: TableId, key: &SourceKey) -> Option<SourceRecord> {
        let SourceKey::Encoded(bytes) = key else { return None };
        let place = self.places.get(bytes).filter(|_| table == self.table)?;
        Cursor(&self.content[*place..]).content().map(SourceRecord::Row)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a temporary file holds something else than was written to it")
}

/// A row with its content.
const WHOLE: u8 = 0;
/// A row without.
const KNOWN: u8 = 1;
/// One that cannot be encoded.
const BAD: u8 = 2;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_row(out: &mut Vec<u8>, row: &LocalRow, content: Option<&SourceRow>) {
    out.push(match (&row.content, content) {
        (LocalContent::Bad(_), _) => BAD,
        (_, Some(_)) => WHOLE,
        (_, None) => KNOWN,
    });
    out.push(u8::from(row.position.is_some()));
    out.extend_from_slice(&row.position.unwrap_or_default().to_le_bytes());
    let (kind, key) = match &row.key {
        SourceKey::Encoded(key) => (0, key.as_slice()),
        SourceKey::Raw(key) => (1, key.as_slice()),
        SourceKey::Long(id) => (2, id.as_slice()),
    };
    out.push(kind);
    put_bytes(out, key);
    match &row.content {
        LocalContent::Bad(reason) => {
            out.push(u8::from(reason.column.is_some()));
            let texts = [&reason.key_text, &reason.sqlstate, &reason.message];
            texts.iter().for_each(|text| put_bytes(out, text.as_bytes()));
            put_bytes(out, reason.column.as_deref().unwrap_or_default().as_bytes());
        }
        LocalContent::Row { digest, revision, columns } => {
            out.extend_from_slice(digest);
            out.extend_from_slice(&revision.to_le_bytes());
            let packed = if columns.is_empty() { Vec::new() } else { pack_columns(columns) };
            put_bytes(out, &packed);
            if let Some(content) = content {
                out.extend_from_slice(&content.item.digest.0);
                put_bytes(out, &content.row);
            }
        }
    }
}

/// What is still to be read.
struct Cursor<'b>(&'b [u8]);

impl<'b> Cursor<'b> {
    fn take(&mut self, bytes: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn sized(&mut self) -> Option<&'b [u8]> {
        let length = u64::from_le_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.sized()?.to_vec()).ok()
    }

    /// What a row begins with: its kind, where it stands, its key.
    fn head(&mut self) -> Option<(u8, Option<i64>, SourceKey)> {
        let (kind, stands) = (self.byte()?, self.byte()? == 1);
        let position = i64::from_le_bytes(self.array()?);
        let (key_kind, key) = (self.byte()?, self.sized()?);
        let key = match key_kind {
            0 => SourceKey::Encoded(key.to_vec()),
            1 => SourceKey::Raw(key.to_vec()),
            _ => SourceKey::Long(key.try_into().ok()?),
        };
        Some((kind, stands.then_some(position), key))
    }

    fn row(&mut self) -> Option<LocalRow> {
        let (kind, position, key) = self.head()?;
        if kind == BAD {
            let has_column = self.byte()? == 1;
            let (key_text, sqlstate, message) = (self.text()?, self.text()?, self.text()?);
            let column = Some(self.text()?).filter(|_| has_column);
            let reason = Reason { key_text, sqlstate, column, message };
            return Some(LocalRow { position, key, content: LocalContent::Bad(Box::new(reason)) });
        }
        let (digest, revision) = (self.array()?, i64::from_le_bytes(self.array()?));
        let columns = match self.sized()? {
            [] => Vec::new(),
            packed => read_columns(packed).ok()?,
        };
        if kind == WHOLE {
            self.array::<32>()?;
            self.sized()?;
        }
        Some(LocalRow { position, key, content: LocalContent::Row { digest, revision, columns } })
    }

    /// A row with its content, where that is here.
    fn content(&mut self) -> Option<SourceRow> {
        let (WHOLE, Some(position), SourceKey::Encoded(key)) = self.head()? else { return None };
        let _: ([u8; 16], [u8; 8], &[u8]) = (self.array()?, self.array()?, self.sized()?);
        let digest = RowDigest(self.array()?);
        let row = self.sized()?.to_vec();
        Some(SourceRow { item: Item { position, digest }, key, row })
    }
}
