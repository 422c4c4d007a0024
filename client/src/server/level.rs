//! A table of one server made level with the same table of another, at a cost that goes with what differs. The
//! local one is right.
//!
//! ```text
//! roots equal: done, without a scan of either
//! else reconcile: rows of the local side alone    -> sent
//!                 rows of the remote side alone   -> deleted, by position and digest
//! ```

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::ranges::RangeSummary;
use plimsoll_core::reconcile::{Found, Limits, find_between};
use plimsoll_core::row::{key_of, position_in};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{Outcome, PositionRange, Refusal, SourceRow, Summaries, TableId, Target};

use super::agent::malformed;
use super::summaries::{Call, ReadOnly, keys_of, rows_of, version_of};
use crate::failure::run as no_run;

/// Rows that are sent, or deleted, in one call.
const ROWS_A_CALL: usize = 5_000;

/// A few blocks of the local side: as many rows are read at once, beyond it is asked for what its blocks hold.
const EARLY_ROWS: u64 = 1 << 13;

/// How often a comparison begins anew: rows may change while it is made.
const ROUNDS: u32 = 3;

/// What making level took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Levelled {
    /// Whether the roots were equal in the end: row count and sum of all digests.
    pub level: bool,
    /// Rows found that only the local side had; an altered row counts on both sides.
    pub local_only: u64,
    /// Rows found that only the remote side had.
    pub remote_only: u64,
    /// Rows stored on the remote side, new or changed.
    pub stored: u64,
    /// Rows deleted there.
    pub deleted: u64,
    /// Rows left as they are, because the guard against destruction is spent: the replica is on hold.
    pub held: u64,
    /// Rows not deleted, because other rows refer to them.
    pub blocked: u64,
    /// Rows not stored, and why.
    pub refused: Vec<Refusal>,
}

/// What all rows of a table amount to on two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// On the local side.
    pub local: RangeSummary,
    /// On the remote side.
    pub remote: RangeSummary,
    /// Whether row count and whole digest sum are the same.
    pub equal: bool,
}

/// What all rows of a table are on one side, from its kept manifest, or from a scan.
fn root<S: Call + Summaries>(side: &mut S, table: TableId) -> Outcome<(RangeSummary, Option<Fingerprint>)> {
    let version = version_of(side, table)?;
    if let Some((count, sum)) = version.row_count.zip(version.sum) {
        let fingerprint = Fingerprint::from_parts(count, sum);
        return Ok((RangeSummary::new(PositionRange::ALL, &fingerprint), Some(fingerprint)));
    }
    let answer = side.summaries(table, &[PositionRange::ALL])?;
    let summary = answer.first().ok_or_else(|| malformed("what a table holds", "it has no range"))?;
    Ok((*summary, None))
}

/// Compares the roots of two sides: one question to each.
///
/// # Errors
/// As the servers say.
pub fn roots<L, R>(local: &mut L, remote: &mut R, table: TableId) -> Outcome<Roots>
where
    L: Call + Summaries,
    R: Call + Summaries,
{
    let (local, whole) = root(local, table)?;
    let (remote, theirs) = root(remote, table)?;
    let equal = match whole.zip(theirs) {
        Some((whole, theirs)) => whole == theirs,
        None => local.agrees(&remote),
    };
    Ok(Roots { local, remote, equal })
}

/// Makes the remote table level with the local one, and says whether it is. `schema` is the table's as the
/// remote side describes it; the local side numbers its columns alike.
///
/// # Errors
/// As the servers say. What was sent before stays.
pub fn level<R: Call + Summaries + Target>(
    local: &mut ReadOnly<'_>,
    schema: &TableSchema,
    remote: &mut R,
    table: TableId,
) -> Outcome<Levelled> {
    let mut levelled = Levelled::default();
    let limits = Limits { early_rows: EARLY_ROWS, ..Limits::default() };
    let mut roots = self::roots(local, remote, table)?;
    for _ in 0..ROUNDS {
        if roots.equal {
            break;
        }
        let found = find_between(local, remote, table, roots.local, roots.remote, limits)?.found;
        levelled.local_only += found.local_only.len() as u64;
        levelled.remote_only += found.remote_only.len() as u64;
        repair(local, schema, remote, table, &found, &mut levelled)?;
        roots = self::roots(local, remote, table)?;
    }
    levelled.level = roots.equal;
    Ok(levelled)
}

/// Sends what only the local side has, then deletes what still only the remote side has: an altered row is not
/// there any more once its new content is stored.
fn repair<R: Call + Target>(
    local: &mut ReadOnly<'_>,
    schema: &TableSchema,
    remote: &mut R,
    table: TableId,
    found: &Found,
    levelled: &mut Levelled,
) -> Outcome<()> {
    for items in found.local_only.chunks(ROWS_A_CALL) {
        let rows = source_rows(local, table, schema, items)?;
        if !rows.is_empty() {
            let uploaded = remote.upload(table, &rows)?;
            levelled.stored += uploaded.inserted + uploaded.updated;
            levelled.held += uploaded.held;
            levelled.refused.extend(uploaded.refused);
        }
    }
    let mut planned = found.remote_only.len() as u64;
    for items in found.remote_only.chunks(ROWS_A_CALL) {
        let keyed = keys_of(remote, table, items)?;
        if !keyed.is_empty() {
            let deleted = remote.delete(table, &keyed, planned)?;
            levelled.deleted += deleted.deleted;
            levelled.held += deleted.held;
            levelled.blocked += deleted.blocked.len() as u64;
        }
        planned -= items.len() as u64;
    }
    Ok(())
}

/// The rows that short items of a server stand for, as a source hands them over; rows that changed meanwhile are
/// left out.
///
/// # Errors
/// As the server says, and rows that do not fit the schema.
pub fn source_rows(
    side: &mut ReadOnly<'_>,
    table: TableId,
    schema: &TableSchema,
    items: &[ShortItem],
) -> Outcome<Vec<SourceRow>> {
    let rows = rows_of(side, table, items)?;
    let key = side.fingerprint_key().and_then(FingerprintKey::from_slice);
    let key = key.ok_or_else(|| no_run("the local server answered no fingerprint key"))?;
    let mut digester = Digester::new(key);
    let source_row = |row: Vec<u8>| {
        let item = Item { position: position_in(&row, schema)?, digest: digester.digest(&row)? };
        Ok(SourceRow { item, key: key_of(&row, schema)?, row })
    };
    let rows: plimsoll_core::Result<Vec<_>> = rows.into_iter().map(source_row).collect();
    rows.map_err(|error| malformed("a row of the local server", error))
}
