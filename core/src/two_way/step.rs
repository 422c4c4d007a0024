//! The steps that the machine names, the answers it is told, and the one way to carry a step out. Each step is one call
//! of a side: one short snapshot or one transaction.

use crate::reconcile::{self, Question, Reply};
use crate::store::{
    Applied, BaseInfo, BatchId, Conclusion, Fetched, LocalHeld, LocalSide, LocalStates, MemoryKey, Outcome,
    Pending, PositionRange, Recollection, RemoteAct, RemoteMemory, RemoteSide, Settled, SourceKey,
    SourceRecord, TableId, Wanted,
};

/// What is to be done next. A step that failed in passing is named again as it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Step<'a> {
    /// Local: what differs whenever it may have changed.
    Token,
    /// Local: what is remembered.
    Recall,
    /// Local: forget all, begin a base.
    BeginBase(BaseInfo),
    /// Local: all keys were looked at.
    CompleteBase,
    /// Local: forget what was left open; the last batch.
    ForgetOpen(BatchId),
    /// Local: what ranges hold, and what is remembered of them.
    Held(&'a [PositionRange]),
    /// Local: the rows and the memory of ranges.
    States {
        /// Of these.
        ranges: &'a [PositionRange],
        /// Of which they are asked for next.
        later: &'a [Vec<PositionRange>],
    },
    /// Local: the rows with these keys.
    Lookup {
        /// The keys.
        keys: &'a [SourceKey],
        /// How much at most.
        bytes: usize,
    },
    /// Local: save a batch before it is sent.
    Prepare(&'a Pending),
    /// Local: make changes, remember what came of them.
    Conclude(&'a Conclusion),
    /// Local: records were closed.
    Closed(&'a [MemoryKey]),
    /// Remote: what is remembered; a run begins.
    Remembered {
        /// Whether it changes nothing.
        dry_run: bool,
    },
    /// Remote: a base was begun.
    BaseBegun,
    /// Remote: whether a batch was applied.
    Settle(BatchId),
    /// Remote: what it holds in ranges.
    Ask(Question<'a>),
    /// Remote: rows.
    Fetch {
        /// Which.
        wanted: &'a [Wanted],
        /// How much at most.
        bytes: usize,
    },
    /// Remote: carry a batch out.
    Apply {
        /// Its number.
        number: u64,
        /// What it does.
        acts: &'a [RemoteAct],
        /// About how many rows are still to be deleted.
        planned: u64,
    },
    /// Remote: close records.
    Close(&'a [MemoryKey]),
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    Done,
    Token(Option<Vec<u8>>),
    Recalled(Recollection),
    Held(Vec<LocalHeld>),
    States(LocalStates),
    Found(Vec<Option<SourceRecord>>),
    Applied(Vec<Applied>),
    Remembered(RemoteMemory),
    Settled(Settled),
    Reply(Reply),
    Fetched(Fetched),
}

/// Carries a step out.
pub(super) fn carry_out(
    local: &mut dyn LocalSide,
    remote: &mut dyn RemoteSide,
    table: TableId,
    step: Step<'_>,
) -> Outcome<Answer> {
    let done = |(): ()| Answer::Done;
    match step {
        Step::Token => local.change_token().map(Answer::Token),
        Step::Recall => local.recall(table).map(Answer::Recalled),
        Step::BeginBase(info) => local.begin_base(table, info).map(done),
        Step::CompleteBase => local.complete_base(table).map(done),
        Step::ForgetOpen(last) => local.forget_open(table, last).map(done),
        Step::Held(ranges) => local.held(table, ranges).map(Answer::Held),
        Step::States { ranges, later } => local.states(table, ranges, later).map(Answer::States),
        Step::Lookup { keys, bytes } => local.lookup(table, keys, bytes).map(Answer::Found),
        Step::Prepare(pending) => local.prepare(table, pending).map(done),
        Step::Conclude(conclusion) => local.conclude(table, conclusion).map(Answer::Applied),
        Step::Closed(keys) => local.closed(table, keys).map(done),
        Step::Remembered { dry_run } => remote.remembered(table, dry_run).map(Answer::Remembered),
        Step::BaseBegun => remote.base_begun(table).map(done),
        Step::Settle(batch) => remote.settle(table, batch).map(Answer::Settled),
        Step::Ask(question) => reconcile::ask(remote, table, question).map(Answer::Reply),
        Step::Fetch { wanted, bytes } => remote.fetch(table, wanted, bytes).map(Answer::Fetched),
        Step::Apply { number, acts, planned } => {
            remote.apply(table, number, acts, planned).map(Answer::Applied)
        }
        Step::Close(keys) => remote.close(table, keys).map(done),
    }
}
