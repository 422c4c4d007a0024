//! What a kind of database implements to be a source; the engine does the rest.
//!
//! A kind hands out rows of structured queries ([`Query`]) and tells of each value what it is for a managed column
//! ([`LocalRow`]). It knows nothing of batches, windows, cursors, digests or bad rows. It may be asynchronous
//! underneath: all methods block, and all are called on one thread, the one that reads ahead.

use std::ops::ControlFlow;

use plimsoll_core::Result;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::schema::position_of;
use plimsoll_core::store::{Outcome, PositionRange, TableId};
use plimsoll_core::value::{ColumnType, NumericBuf, Value};

use super::plan::TablePlan;
use super::postgres::nested::Nested;
use super::query::{Query, RawValue};

/// Room for the parts of one value that a row does not hold as they are needed. It is used again for each value.
#[derive(Debug, Default)]
pub struct Scratch {
    /// A numeric's digits.
    pub number: Option<NumericBuf>,
    /// A value in another form.
    pub bytes: Vec<u8>,
    /// A text in another form.
    pub text: String,
    /// A value put together from others.
    pub nested: Option<Nested>,
}

/// One row as the database hands it out. `place` counts the selected columns from 0; the query says which they are.
pub trait LocalRow {
    /// The value of a column as one of `column_type`, exactly; `None` is NULL. Whoever asks checks it with
    /// [`ColumnType::check`]: lengths, precision, characters that Postgres does not take are not looked at here.
    ///
    /// # Errors
    /// Where it is no value of that type. The message does not name the column.
    fn value<'v>(
        &'v self,
        place: usize,
        column_type: &ColumnType,
        scratch: &'v mut Scratch,
    ) -> Result<Option<Value<'v>>>;

    /// Where a row stands that has this version; `None` where the value is no version. Also for rows that cannot be
    /// encoded otherwise.
    fn position(&self, place: usize, column_type: &ColumnType, scratch: &mut Scratch) -> Option<i64> {
        position_of(&self.value(place, column_type, scratch).ok()??)
    }

    /// Appends the database's own bytes of a value, from which the same value can be bound again, and answers which
    /// class of values it is of, 1 to 15 as the kind counts them; 0, and nothing appended, is NULL.
    fn raw(&self, place: usize, bytes: &mut Vec<u8>) -> u8;

    /// A value for people: at most some 200 characters of it.
    fn shown(&self, place: usize) -> serde_json::Value;
}

/// A kind of database.
pub trait Kind: Send + 'static {
    /// A row of a statement's answer.
    type Row<'r>: LocalRow;

    /// A token that differs whenever the database may have changed since; `None` where none is to be had.
    ///
    /// # Errors
    /// Where the database is another one by now.
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>>;

    /// Begins a snapshot: all queries until [`end`](Self::end) see the same rows.
    ///
    /// # Errors
    /// As the database says.
    fn begin(&mut self) -> Outcome<()>;

    /// Ends the snapshot. What fails here shows at the next begin.
    fn end(&mut self);

    /// Whether a long snapshot holds up those who write: one pass over a table is made of several then.
    fn holds_up_writers(&self) -> bool {
        false
    }

    /// Hands the rows of a query to `each` until there are no more or it breaks.
    ///
    /// # Errors
    /// As the database says.
    fn stream(
        &mut self,
        query: &Query<'_>,
        each: &mut dyn FnMut(&Self::Row<'_>) -> ControlFlow<()>,
    ) -> Outcome<()>;

    /// Whether rows that were asked for and are not taken are read all the same.
    fn reads_what_was_asked(&self) -> bool {
        false
    }

    /// The number of rows of a table. May scan.
    ///
    /// # Errors
    /// As the database says.
    fn count(&mut self, table: TableId, plan: &TablePlan) -> Outcome<u64>;

    /// What all rows of a table are by a manifest that the database itself keeps, where digests of the plan's rows are
    /// the ones in it; `None` where it has none that can be trusted. No row is read. A statement of it may fail: the
    /// snapshot is ended then, and nothing else is asked in it.
    ///
    /// # Errors
    /// As the database says, where it may answer when asked again.
    fn kept(&mut self, table: TableId, plan: &TablePlan) -> Outcome<Option<Fingerprint>> {
        let _ = (table, plan);
        Ok(None)
    }

    /// Whether [`kept`](Self::kept) may answer. Not while one snapshot is held over many questions: one of them that fails would
    /// end it.
    fn use_kept(&mut self, use_it: bool) {
        let _ = use_it;
    }

    /// What ranges hold by that manifest, one answer each.
    ///
    /// # Errors
    /// As [`kept`](Self::kept).
    fn kept_ranges(
        &mut self,
        table: TableId,
        plan: &TablePlan,
        ranges: &[PositionRange],
    ) -> Outcome<Option<Vec<Fingerprint>>> {
        let _ = (table, plan, ranges);
        Ok(None)
    }

    /// Whether ranges of positions are found by an index; without one all rows are read for any number of ranges.
    fn finds_positions(&mut self, table: TableId, plan: &TablePlan) -> Outcome<bool> {
        let _ = table;
        Ok(plan.indexed)
    }

    /// The position below which no row can appear any more in a table whose rows stand at their version, as far as the
    /// database tells of transactions under way.
    fn settled(&mut self, table: TableId, plan: &TablePlan) -> Outcome<Option<i64>> {
        let _ = (table, plan);
        Ok(None)
    }

    /// A mark of the order in which rows that share a position come: a cursor with another mark is not gone on from,
    /// its position is read again.
    fn order_mark(&mut self, table: TableId, plan: &TablePlan) -> Outcome<u8> {
        let _ = (table, plan);
        Ok(0)
    }

    /// Rows came in another order than their positions'. Whether they come in order when they are asked for again.
    fn reorder(&mut self, table: TableId) -> bool {
        let _ = table;
        false
    }

    /// How the database may hold a value of the key column at this place of the plan, and whether it can hold it in no
    /// other way that is the same to the managed column.
    fn spellings(
        &self,
        table: TableId,
        plan: &TablePlan,
        place: usize,
        value: &Value<'_>,
    ) -> (Vec<RawValue>, bool);

    /// Whether two values of the key column at this place of the plan that the database's key tells apart are always two
    /// values of the managed column. `1.0` and `1.00` in a text column are one numeric.
    fn tells_apart(&self, plan: &TablePlan, place: usize) -> bool;
}
