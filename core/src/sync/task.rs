//! The parts and stages of a run for one table, and the tasks it takes up in them.

use super::TableMemory;
use super::compare::Compare;
use super::excess::Excess;
use super::kept::KeptSweep;
use super::send::Send;
use super::sweep::Sweep;
use crate::store::{BatchLimit, Cursor, KeyId, PositionRange};

/// A part of the run through which all tables go before the next part begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// How far the source is.
    Look,
    /// Send and compare. Parents first.
    Level,
    /// Delete. Children first.
    Delete,
    /// Send what waited, confirm what was mended, conclude. Parents first.
    Close,
}

/// What comes next within a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Kept,
    Scanned,
    Settled,
    Max,
    Count,
    Known,
    Retry,
    TailStart,
    Tail(PositionRange),
    Beyond,
    History,
    Held,
    Upload,
    ReadUntil,
    Version,
    All,
    Recount,
    MaxAgain,
    Weigh,
    Windows,
    Delete,
    Waiting,
    Confirm,
    LastToken,
    LastMax,
    LastVersion,
    LastAll,
    LastCount,
    Conclude,
    Over,
}

/// Why a stretch is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Tail(PositionRange),
    Window,
    /// Ranges that a pass over all rows found to differ.
    Group,
    Confirm,
}

/// What the table is doing.
#[derive(Debug)]
pub(super) enum Task {
    None,
    /// One step whose answer the stage knows what to do with.
    Ask,
    Compare(Compare, Purpose),
    Sweep(Sweep),
    KeptSweep(KeptSweep),
    Send(Send),
    /// Rows read in order; the cursor moves on behind them.
    Upload(Send),
    Read(BatchLimit),
    Waiting(Send),
    Excess(Excess),
    Remember(Box<TableMemory>),
}

/// How long the parts of the run may take, as points in time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Until {
    /// The end of the table's uploads.
    pub upload: i64,
    /// The end of all that the table sends and compares.
    pub slot: i64,
    /// How long its windows may take in any case, in microseconds.
    pub windows: u64,
    /// The end of the part that closes the run.
    pub run: i64,
}

/// What a batch read in order ends with.
#[derive(Debug, Default)]
pub(super) struct BatchEnd {
    /// The last row's identity and position.
    pub last: Option<(KeyId, i64)>,
    /// Where to go on.
    pub next: Option<Cursor>,
}
