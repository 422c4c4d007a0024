//! What is remembered of two-way tables inside the local database, and how it is found there.
//!
//! | note | one for each | what it says |
//! |---|---|---|
//! | `plimsoll_two_way` | table | how far batches came, the batch under way, what the last conclusion answered |
//! | `plimsoll_base` | block of keys | what both sides last agreed on ([`super::block`]) |
//! | `plimsoll_open` | key that is left open | why, what both sides had, what they agreed on before |
//! | `plimsoll_closing` | key | its record on the remote side is still to be closed |
//! | `plimsoll_base_rows` | key | its columns' digests, and the row itself: only where rows are merged or kept |

use plimsoll_core::store::{BatchId, Failure, MemoryKey, Open, Outcome, PositionRange, Seen, ShortDigest};
use plimsoll_core::two_way::wire::{kind_of, number_of};

use crate::failure::{Advise, table as refused};
use crate::source::notes::{Cell, NoteColumn, NoteDialect, NoteType};
use crate::source::write::{Look, Transaction};

pub const TABLES: &str = "plimsoll_two_way";
pub const BASE: &str = "plimsoll_base";
pub const OPEN: &str = "plimsoll_open";
pub const CLOSING: &str = "plimsoll_closing";
pub const ROWS: &str = "plimsoll_base_rows";

/// The columns that name a key.
pub const KEY: [&str; 3] = ["relation", "place", "tail"];

/// Keys that wait for others: so many are tried again in a run.
const MOST_WAITING: usize = 4_096;
/// Bytes of what was seen of a key.
const SEEN: u32 = 17;

/// The statements that make the tables of notes: last the one by which they are known to be there, because where each is a
/// transaction of its own somebody may die between two.
pub fn definitions(dialect: NoteDialect) -> Vec<String> {
    use NoteType::{Bytes, Int, LongBytes, Text};
    let by_key = |table, others: &[NoteColumn<'_>]| {
        let key = [("relation", Int, false), ("place", Int, false), ("tail", Int, false)];
        dialect.create(table, &[&key, others].concat(), &KEY)
    };
    let tables = dialect.create(
        TABLES,
        &[
            ("relation", Int, false),
            ("name", Text(200), false),
            ("base_last", Int, false),
            ("rebuilding", Int, false),
            ("concluded", Int, false),
            ("answers", LongBytes, true),
            ("known", Int, false),
            ("pending_number", Int, true),
            ("pending", LongBytes, true),
            ("made_of_keys", Int, true),
            ("made_of_columns", Int, true),
            ("tried", Int, true),
            ("base_mark", Int, true),
            ("pending_mark", Int, true),
        ],
        &["relation"],
    );
    let blocks = [("relation", Int, false), ("lowest", Int, false), ("entries", LongBytes, false)];
    let mut base = vec![dialect.create(BASE, &blocks, &["relation", "lowest"])];
    match dialect {
        // A row beside its key takes a page of the file whole; within the key it would be cut in two.
        NoteDialect::Sqlite => base.iter_mut().for_each(|sql| *sql = sql.replace(" WITHOUT ROWID", "")),
        // Two blocks fill a page; nothing of them can be compressed.
        NoteDialect::Postgres => base.push(format!("ALTER TABLE {BASE} ALTER entries SET STORAGE MAIN")),
        NoteDialect::Mysql => {}
    }
    let mut all = base;
    all.push(by_key(
        OPEN,
        &[
            ("reason", Int, false),
            ("local_seen", Bytes(SEEN), false),
            ("remote_seen", Bytes(SEEN), false),
            ("base", Bytes(16), true),
        ],
    ));
    all.push(by_key(CLOSING, &[]));
    all.push(by_key(
        ROWS,
        &[("digest", Bytes(16), false), ("digests", LongBytes, true), ("content", LongBytes, true)],
    ));
    all.push(tables);
    all
}

/// Columns that the notes of older clients do not have.
pub const ADDED: [&str; 5] = ["made_of_keys", "made_of_columns", "tried", "base_mark", "pending_mark"];

/// The statement that adds one of them.
pub fn addition(dialect: NoteDialect, name: &str) -> String {
    format!("ALTER TABLE {TABLES} ADD COLUMN {name} {}", dialect.declared(NoteType::Int))
}

/// Looks for a column of the notes of tables.
///
/// # Errors
/// `Table` where it is not there.
pub fn probe(look: &mut dyn Look, column: &str) -> Outcome<()> {
    let sql = format!("SELECT {column} FROM {TABLES} WHERE relation = ?");
    look.query(&sql, &[Cell::Int(0)], &mut |_| Ok(()))
}

/// Which notes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever remembered here.
    Nothing,
    /// Some, of the added columns those that are marked here. Those of an older client do not say what the base is of, nor
    /// how far keys that wait were tried, nor the marks of batches.
    Some([bool; ADDED.len()]),
}

impl Found {
    /// All.
    pub const ALL: Found = Found::Some([true; ADDED.len()]);
    /// Without any added column.
    pub const OLDEST: Found = Found::Some([false; ADDED.len()]);
}

/// Of what rows the base is: two numbers, each another one where that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MadeOf {
    /// What keys are made of, and of which local table.
    pub keys: i64,
    /// What rows are made of.
    pub columns: i64,
}

/// What is remembered of a table as a whole.
#[derive(Debug, Clone, Default)]
pub struct Info {
    /// The last batch that is known to be applied.
    pub last: BatchId,
    /// Whether memory was lost, and not all keys were looked at since.
    pub rebuilding: bool,
    /// The number of the last conclusion.
    pub concluded: u64,
    /// What became of its changes.
    pub answers: Vec<u8>,
    /// How many keys the base has, about.
    pub known: i64,
    /// The batch that is on its way, and what is to be remembered of it.
    pub pending: Option<(BatchId, Vec<u8>)>,
    /// What keys of the base are made of, where that is known.
    pub made_of_keys: Option<i64>,
    /// What rows of the base are made of, where that is known and all of them are of the same.
    pub made_of_columns: Option<i64>,
    /// The position up to which keys that wait were tried.
    pub tried: Option<i64>,
}

pub fn damaged(what: &str) -> Failure {
    refused(format!("what is remembered in the local database is damaged: {what}")).advise(
        "drop its tables plimsoll_two_way and plimsoll_base: what both sides have is then compared without them, and \
         nothing is deleted that could be new",
    )
}

/// A number of ours, none of which has 64 bits, as notes hold it.
pub fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn whole(cell: Option<&Cell<'_>>) -> Outcome<i64> {
    match cell {
        Some(Cell::Int(number)) => Ok(*number),
        _ => Err(damaged("a number is none")),
    }
}

fn bytes<'c>(cell: Option<&Cell<'c>>) -> Outcome<Option<&'c [u8]>> {
    match cell {
        Some(Cell::Bytes(bytes)) => Ok(Some(bytes)),
        Some(Cell::Null) => Ok(None),
        _ => Err(damaged("bytes are none")),
    }
}

/// The tail of a key as notes hold it.
pub fn tail(key: &MemoryKey) -> i64 {
    i64::from_le_bytes(key.tail)
}

/// The cells that name a key.
pub fn key_cells<'c>(relation: i64, key: &MemoryKey) -> Vec<Cell<'c>> {
    vec![Cell::Int(relation), Cell::Int(key.position), Cell::Int(tail(key))]
}

fn key_of(cells: &[Cell<'_>]) -> Outcome<MemoryKey> {
    let (position, tail) = (whole(cells.first())?, whole(cells.get(1))?);
    Ok(MemoryKey { position, tail: tail.to_le_bytes() })
}

fn pack_seen(seen: Seen) -> Vec<u8> {
    match seen {
        Seen::Absent => vec![0],
        Seen::Row(digest) => [&[1], &digest[..]].concat(),
        Seen::Unreadable => vec![2],
    }
}

fn seen(bytes: Option<&[u8]>) -> Outcome<Seen> {
    match bytes {
        Some([0]) => Ok(Seen::Absent),
        Some([2]) => Ok(Seen::Unreadable),
        Some([1, digest @ ..]) => digest_of(digest).map(Seen::Row),
        _ => Err(damaged("what a side had of a key")),
    }
}

pub fn digest_of(bytes: &[u8]) -> Outcome<ShortDigest> {
    bytes.try_into().map_err(|_| damaged("a digest of another length"))
}

impl Info {
    /// Says of which rows the base is: all of them are.
    pub fn is_made_of(&mut self, now: MadeOf) {
        (self.made_of_keys, self.made_of_columns) = (Some(now.keys), Some(now.columns));
    }

    /// Says that some of what is remembered is of rows as they are made now. Where the rest is of others it is of two
    /// kinds from here on, whatever columns there are later.
    pub fn is_partly_made_of(&mut self, now: MadeOf) {
        self.made_of_columns = self.made_of_columns.filter(|columns| *columns == now.columns);
    }
}

/// What is remembered of a table; `None`: nothing.
pub fn info(look: &mut dyn Look, found: Found, relation: i64) -> Outcome<Option<Info>> {
    let Found::Some(added) = found else { return Ok(None) };
    let later: Vec<&str> =
        ADDED.iter().zip(added).map(|(name, added)| if added { *name } else { "NULL" }).collect();
    let later = later.join(", ");
    let sql = format!(
        "SELECT base_last, rebuilding, concluded, answers, known, pending_number, pending, {later} FROM {TABLES} \
         WHERE relation = ?"
    );
    let mut found = None;
    look.query(&sql, &[Cell::Int(relation)], &mut |cells| {
        let number = |at: usize| whole(cells.get(at)).map(i64::unsigned_abs);
        let some = |at: usize| match cells.get(at) {
            Some(Cell::Int(number)) => Some(*number),
            _ => None,
        };
        // An older client's batches have none: the remote side knows of no such one.
        let mark = |at: usize| some(at).unwrap_or_default();
        let pending = match some(5) {
            Some(number) => {
                let batch = BatchId { number: number.unsigned_abs(), mark: mark(11) };
                Some((batch, bytes(cells.get(6))?.unwrap_or_default().to_vec()))
            }
            None => None,
        };
        found = Some(Info {
            last: BatchId { number: number(0)?, mark: mark(10) },
            rebuilding: number(1)? != 0,
            concluded: number(2)?,
            answers: bytes(cells.get(3))?.unwrap_or_default().to_vec(),
            known: whole(cells.get(4))?,
            pending,
            made_of_keys: some(7),
            made_of_columns: some(8),
            tried: some(9),
        });
        Ok(())
    })?;
    Ok(found)
}

/// Remembers a table as a whole.
pub fn put_info(transaction: &mut dyn Transaction, relation: i64, name: &str, info: &Info) -> Outcome<()> {
    let others = [
        "name",
        "base_last",
        "rebuilding",
        "concluded",
        "answers",
        "known",
        "pending_number",
        "pending",
        "made_of_keys",
        "made_of_columns",
        "tried",
        "base_mark",
        "pending_mark",
    ];
    let some = |number: Option<i64>| number.map_or(Cell::Null, Cell::Int);
    let pending = info.pending.as_ref();
    let row = vec![
        Cell::Int(relation),
        Cell::Text(name),
        Cell::Int(int(info.last.number)),
        Cell::Int(i64::from(info.rebuilding)),
        Cell::Int(int(info.concluded)),
        Cell::Bytes(&info.answers),
        Cell::Int(info.known),
        pending.map_or(Cell::Null, |(batch, _)| Cell::Int(int(batch.number))),
        pending.map_or(Cell::Null, |(_, settles)| Cell::Bytes(settles)),
        some(info.made_of_keys),
        some(info.made_of_columns),
        some(info.tried),
        Cell::Int(info.last.mark),
        some(pending.map(|(batch, _)| batch.mark)),
    ];
    transaction.notes().put(transaction, TABLES, &["relation"], &others, &[row])
}

/// Forgets which keys were left open, but that some were undecided, and whose records are to be closed.
pub fn forget_open(transaction: &mut dyn Transaction, relation: i64) -> Outcome<()> {
    let Open { kind, local, remote } = Open::ONCE_UNDECIDED;
    let (local, remote) = (pack_seen(local), pack_seen(remote));
    let (relation, undecided) = (Cell::Int(relation), Cell::Int(number_of(kind).into()));
    transaction.execute(&format!("DELETE FROM {CLOSING} WHERE relation = ?"), &[relation])?;
    let sql = format!("DELETE FROM {OPEN} WHERE relation = ? AND reason <> ?");
    transaction.execute(&sql, &[relation, undecided])?;
    let sql = format!("UPDATE {OPEN} SET local_seen = ?, remote_seen = ? WHERE relation = ?");
    transaction.execute(&sql, &[Cell::Bytes(&local), Cell::Bytes(&remote), relation])?;
    Ok(())
}

/// Forgets all of a table.
pub fn forget(transaction: &mut dyn Transaction, relation: i64) -> Outcome<()> {
    for table in [TABLES, BASE, OPEN, CLOSING, ROWS] {
        transaction.execute(&format!("DELETE FROM {table} WHERE relation = ?"), &[Cell::Int(relation)])?;
    }
    Ok(())
}

/// Adds that keys are of a range.
fn within(range: PositionRange, sql: &mut String, cells: &mut Vec<Cell<'_>>) {
    for (end, condition) in [(range.from, " AND place >= ?"), (range.to, " AND place < ?")] {
        if let Some(end) = end {
            *sql += condition;
            cells.push(Cell::Int(end));
        }
    }
}

/// A key that was left open.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The key.
    pub key: MemoryKey,
    /// Why, and what both sides had.
    pub open: Open,
    /// What they agreed on before.
    pub base: Option<ShortDigest>,
}

/// The keys that are open in a range.
pub fn each_open(
    look: &mut dyn Look,
    relation: i64,
    range: PositionRange,
    each: &mut dyn FnMut(Opened) -> Outcome<()>,
) -> Outcome<()> {
    let mut sql =
        format!("SELECT place, tail, reason, local_seen, remote_seen, base FROM {OPEN} WHERE relation = ?");
    let mut cells = vec![Cell::Int(relation)];
    within(range, &mut sql, &mut cells);
    look.query(&sql, &cells, &mut |cells| {
        let number = whole(cells.get(2))?;
        let kind = u8::try_from(number).ok().and_then(kind_of);
        let kind = kind.ok_or_else(|| damaged("a key is left open for an unknown reason"))?;
        let (local, remote) = (seen(bytes(cells.get(3))?)?, seen(bytes(cells.get(4))?)?);
        let base = bytes(cells.get(5))?.map(digest_of).transpose()?;
        each(Opened { key: key_of(cells)?, open: Open { kind, local, remote }, base })
    })
}

/// Leaves keys open.
pub fn put_open(transaction: &mut dyn Transaction, relation: i64, opened: &[Opened]) -> Outcome<()> {
    let seen: Vec<_> =
        opened.iter().map(|opened| (pack_seen(opened.open.local), pack_seen(opened.open.remote))).collect();
    let rows: Vec<Vec<Cell<'_>>> = opened
        .iter()
        .zip(&seen)
        .map(|(opened, (local, remote))| {
            let mut cells = key_cells(relation, &opened.key);
            cells.extend([
                Cell::Int(i64::from(number_of(opened.open.kind))),
                Cell::Bytes(local),
                Cell::Bytes(remote),
                opened.base.as_ref().map_or(Cell::Null, |base| Cell::Bytes(base)),
            ]);
            cells
        })
        .collect();
    let others = ["reason", "local_seen", "remote_seen", "base"];
    transaction.notes().put(transaction, OPEN, &KEY, &others, &rows)
}

/// Puts keys on one of the lists that name nothing else.
pub fn list(
    transaction: &mut dyn Transaction,
    table: &str,
    relation: i64,
    keys: &[MemoryKey],
) -> Outcome<()> {
    let rows: Vec<_> = keys.iter().map(|key| key_cells(relation, key)).collect();
    transaction.notes().put(transaction, table, &KEY, &[], &rows)
}

/// Takes keys out of a table.
pub fn remove(
    transaction: &mut dyn Transaction,
    table: &str,
    relation: i64,
    keys: &[MemoryKey],
) -> Outcome<()> {
    let rows: Vec<_> = keys.iter().map(|key| key_cells(relation, key)).collect();
    transaction.notes().remove(transaction, table, &KEY, &rows)
}

/// How many keys are open.
pub fn count_open(look: &mut dyn Look, relation: i64) -> Outcome<u64> {
    let mut count = 0;
    let sql = format!("SELECT COUNT(*) FROM {OPEN} WHERE relation = ?");
    look.query(&sql, &[Cell::Int(relation)], &mut |cells| {
        count = whole(cells.first())?.unsigned_abs();
        Ok(())
    })?;
    Ok(count)
}

/// How many keys are open and recorded so: not those that were undecided at another time.
pub fn count_recorded(look: &mut dyn Look, relation: i64) -> Outcome<u64> {
    let Open { kind, local, .. } = Open::ONCE_UNDECIDED;
    let local = pack_seen(local);
    let mut count = count_open(look, relation)?;
    let sql = format!("SELECT COUNT(*) FROM {OPEN} WHERE relation = ? AND reason = ? AND local_seen = ?");
    let cells = [Cell::Int(relation), Cell::Int(number_of(kind).into()), Cell::Bytes(&local)];
    look.query(&sql, &cells, &mut |cells| {
        count -= whole(cells.first())?.unsigned_abs();
        Ok(())
    })?;
    Ok(count)
}

/// Keys that wait for others, so many of them as are tried again in a run: those behind the position that was tried last,
/// then from the beginning, so that each has its turn.
pub fn waiting(look: &mut dyn Look, relation: i64, tried: Option<i64>) -> Outcome<Vec<MemoryKey>> {
    use plimsoll_core::reconcile::Side::{Local, Remote};
    use plimsoll_core::store::OpenKind::Waiting;
    let reasons = [number_of(Waiting(Local)), number_of(Waiting(Remote))].map(i64::from);
    let tried = tried.unwrap_or(i64::MIN);
    let mut waiting = Vec::new();
    for there in [">", "<="] {
        let room = MOST_WAITING - waiting.len();
        let condition =
            format!(" AND reason IN (?, ?) AND place {there} ? ORDER BY place, tail LIMIT {room}");
        let cells = [Cell::Int(reasons[0]), Cell::Int(reasons[1]), Cell::Int(tried)];
        waiting.extend(keys(look, OPEN, relation, &condition, &cells)?);
    }
    Ok(waiting)
}

/// Keys of a list.
pub fn keys(
    look: &mut dyn Look,
    table: &str,
    relation: i64,
    condition: &str,
    cells: &[Cell<'_>],
) -> Outcome<Vec<MemoryKey>> {
    let mut keys = Vec::new();
    let sql = format!("SELECT place, tail FROM {table} WHERE relation = ?{condition}");
    let cells = [&[Cell::Int(relation)], cells].concat();
    look.query(&sql, &cells, &mut |cells| {
        keys.push(key_of(cells)?);
        Ok(())
    })?;
    Ok(keys)
}

/// What is kept of a row beside its digest.
#[derive(Debug, Clone)]
pub struct KeptRow {
    /// The key.
    pub key: MemoryKey,
    /// The digest of the row.
    pub digest: ShortDigest,
    /// The digests of its columns, packed.
    pub digests: Option<Vec<u8>>,
    /// The row in wire form.
    pub content: Option<Vec<u8>>,
}

impl KeptRow {
    fn cells(&self, relation: i64) -> Vec<Cell<'_>> {
        let mut cells = key_cells(relation, &self.key);
        cells.push(Cell::Bytes(&self.digest));
        let others = [&self.digests, &self.content];
        cells.extend(others.map(|bytes| bytes.as_deref().map_or(Cell::Null, Cell::Bytes)));
        cells
    }
}

/// What is kept of the rows of a range; their content only where it is wanted.
pub fn each_row(
    look: &mut dyn Look,
    relation: i64,
    range: PositionRange,
    with_content: bool,
    each: &mut dyn FnMut(KeptRow) -> Outcome<()>,
) -> Outcome<()> {
    let content = if with_content { "content" } else { "NULL" };
    let mut sql = format!("SELECT place, tail, digest, digests, {content} FROM {ROWS} WHERE relation = ?");
    let mut cells = vec![Cell::Int(relation)];
    within(range, &mut sql, &mut cells);
    look.query(&sql, &cells, &mut |cells| {
        let digest = digest_of(bytes(cells.get(2))?.unwrap_or_default())?;
        let digests = bytes(cells.get(3))?.map(<[u8]>::to_vec);
        let content = match with_content {
            true => bytes(cells.get(4))?.map(<[u8]>::to_vec),
            false => None,
        };
        each(KeptRow { key: key_of(cells)?, digest, digests, content })
    })
}

/// Keeps rows.
pub fn put_rows(transaction: &mut dyn Transaction, relation: i64, kept: &[KeptRow]) -> Outcome<()> {
    let rows: Vec<Vec<Cell<'_>>> = kept.iter().map(|row| row.cells(relation)).collect();
    transaction.notes().put(transaction, ROWS, &KEY, &["digest", "digests", "content"], &rows)
}
