//! Carries a reconciliation out over two sides.

use super::{Found, Limits, Question, Reconcile, Reply, Side};
use crate::ranges::RangeSummary;
use crate::store::{Failure, FailureKind, Outcome, PositionRange, Summaries, TableId};

/// How two sides differ in a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// The rows.
    pub found: Found,
    /// How often the remote side was asked.
    pub trips: u32,
}

/// Finds how two sides differ in a range. Neither is changed.
///
/// # Errors
/// The first failure of a side, and answers that are none to what was asked.
pub fn find(
    local: &mut dyn Summaries,
    remote: &mut dyn Summaries,
    table: TableId,
    range: PositionRange,
    limits: Limits,
) -> Outcome<Differences> {
    let ours = whole(local.summaries(table, &[range])?, range)?;
    let theirs = whole(remote.summaries(table, &[range])?, range)?;
    let found = find_between(local, remote, table, ours, theirs, limits)?;
    Ok(Differences { trips: found.trips + 1, ..found })
}

/// Finds how two sides differ in a range of which both have told what they hold. Neither is changed.
///
/// # Errors
/// As [`find`].
pub fn find_between(
    local: &mut dyn Summaries,
    remote: &mut dyn Summaries,
    table: TableId,
    ours: RangeSummary,
    theirs: RangeSummary,
    limits: Limits,
) -> Outcome<Differences> {
    let mut differences = Differences::default();
    let mut machine = Reconcile::new(ours, theirs, limits);
    while let Some((side, question)) = machine.step() {
        let reply = match side {
            Side::Local => ask(local, table, question)?,
            Side::Remote => {
                differences.trips += 1;
                ask(remote, table, question)?
            }
        };
        if !machine.tell(reply) {
            return Err(unexpected());
        }
    }
    differences.found = machine.finish();
    Ok(differences)
}

/// Asks a side.
pub(crate) fn ask(side: &mut dyn Summaries, table: TableId, question: Question<'_>) -> Outcome<Reply> {
    Ok(match question {
        Question::RangeManifest { ranges, most } => {
            Reply::Summaries(side.range_manifest(table, ranges, most)?)
        }
        Question::Summaries(ranges) => Reply::Summaries(side.summaries(table, ranges)?),
        Question::Sketch { ranges, first, symbols } => {
            Reply::Sketch(side.sketch(table, ranges, first, symbols)?)
        }
        Question::Items(ranges) => Reply::Items(side.items(table, ranges)?),
    })
}

fn whole(summaries: Vec<RangeSummary>, range: PositionRange) -> Outcome<RangeSummary> {
    match summaries.as_slice() {
        [whole] if whole.range == range => Ok(*whole),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Failure {
    Failure::new(FailureKind::Table, "a question about ranges was answered with something else")
}
