//! What becomes of one key: a total function of what both sides have of it and what they last agreed on.

use serde::{Deserialize, Serialize};

use crate::reconcile::Side;
use crate::store::{OpenKind, Seen, ShortDigest};

/// Who wins where both sides changed a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The row with the higher revision.
    #[default]
    Newest,
    /// The local side.
    Local,
    /// The remote side.
    Remote,
    /// A person: it is recorded, and both sides keep what they have.
    Ask,
}

/// What decides beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Who wins a conflict.
    pub policy: Policy,
    /// The highest revision that is not of the future: with stamps, the present and as much as clocks may differ by.
    /// `None` for numbers.
    pub latest: Option<i64>,
}

/// What a side has of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowState {
    /// No row.
    Absent,
    /// A row.
    Row {
        /// Its digest.
        digest: ShortDigest,
        /// Its revision: a number, or a stamp in microseconds. Looked at only where both sides have a row that the
        /// other one's base is not.
        revision: i64,
    },
    /// A row that no encoding holds.
    Unreadable,
}

impl RowState {
    fn seen(&self) -> Seen {
        match *self {
            RowState::Absent => Seen::Absent,
            RowState::Row { digest, .. } => Seen::Row(digest),
            RowState::Unreadable => Seen::Unreadable,
        }
    }
}

/// A key to be decided upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// What the local side has.
    pub local: RowState,
    /// What the remote side has.
    pub remote: RowState,
    /// What both last agreed on; `None`: that neither has it, or on nothing yet.
    pub base: Option<ShortDigest>,
    /// Whether memory was lost: without a base nothing is known of the key.
    pub lost: bool,
    /// Whether the base may be of other columns: where neither side has it, it says that the key was there, no more.
    pub altered: bool,
    /// Whether both rows changed in different columns, and are to be merged.
    pub merges: bool,
    /// The side that a person chose for exactly this pair.
    pub chosen: Option<Side>,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing: both have the same, or neither has it.
    Agree,
    /// What this side has, a row or none, is copied to the other.
    Copy(Side),
    /// The changes of both become one row.
    Merge,
    /// Both keep what they have.
    Leave(OpenKind),
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decision {
    /// What is done.
    pub verdict: Verdict,
    /// Whether both sides had changed it, each without knowledge of the other.
    pub conflict: bool,
    /// Whether a revision of the future was part of a conflict.
    pub future: bool,
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Decision { verdict, conflict: false, future: false }
    }
}

/// Decides.
///
/// | what both have | then |
/// |---|---|
/// | the same | they agree, whatever the base says |
/// | a row that cannot be read, on either side | it is left |
/// | one is what the base says | the other one's state is copied to it, whatever the revisions say |
/// | one side alone has it, no base | it is new there, and copied |
/// | each something else | a conflict |
///
/// Where it is not known which side changed a key, because memory was lost or the base is of other columns, nothing is
/// deleted and nothing comes back: what one side alone has is undecided; of two rows the higher revision wins whatever the
/// policy says, because most such pairs are no conflict, and under [`Policy::Ask`] a person decides.
///
/// Of a delete and an update the update wins under [`Policy::Newest`]: a delete has no revision to be measured by, and an
/// unwanted row can be deleted again, while a lost one is lost.
pub fn decide(case: &Case, rules: &Rules) -> Decision {
    let (local, remote) = (case.local.seen(), case.remote.seen());
    let base = Seen::from(case.base);
    match (local, remote) {
        (Seen::Unreadable, _) => return Verdict::Leave(OpenKind::Rejected(Side::Local)).into(),
        (_, Seen::Unreadable) => return Verdict::Leave(OpenKind::Rejected(Side::Remote)).into(),
        _ if local == remote => return Verdict::Agree.into(),
        _ => {}
    }
    if let Some(side) = case.chosen {
        return Verdict::Copy(side).into();
    }
    let one_sided = local == Seen::Absent || remote == Seen::Absent;
    let unknown = match case.base {
        None => case.lost,
        Some(_) => case.altered && local != base && remote != base,
    };
    if unknown && one_sided {
        return Verdict::Leave(OpenKind::Undecided).into();
    }
    // Without a base the side that has no row is the one that is as it was.
    if local == base {
        return Verdict::Copy(Side::Remote).into();
    }
    if remote == base {
        return Verdict::Copy(Side::Local).into();
    }
    conflict(case, rules, unknown)
}

/// Both sides changed, to different states; or it is unknown which of them did.
fn conflict(case: &Case, rules: &Rules, unknown: bool) -> Decision {
    let revision = |state: &RowState| match *state {
        RowState::Row { digest, revision } => Some((revision, digest)),
        RowState::Absent | RowState::Unreadable => None,
    };
    let (local, remote) = (revision(&case.local), revision(&case.remote));
    let is_future = |(revision, _): (i64, ShortDigest)| rules.latest.is_some_and(|latest| revision > latest);
    let future = local.into_iter().chain(remote).any(is_future);
    if case.merges && local.is_some() && remote.is_some() && case.base.is_some() {
        return Decision { verdict: Verdict::Merge, conflict: false, future };
    }
    let verdict = match rules.policy {
        Policy::Ask if unknown => return Verdict::Leave(OpenKind::Undecided).into(),
        Policy::Local | Policy::Remote if unknown => Verdict::Copy(newer(local, remote, is_future)),
        Policy::Local => Verdict::Copy(Side::Local),
        Policy::Remote => Verdict::Copy(Side::Remote),
        Policy::Ask => Verdict::Leave(OpenKind::Conflict),
        Policy::Newest => Verdict::Copy(newer(local, remote, is_future)),
    };
    Decision { verdict, conflict: true, future }
}

/// The side with the higher revision; a row wins against none, and one of the future only against another such.
fn newer(
    local: Option<(i64, ShortDigest)>,
    remote: Option<(i64, ShortDigest)>,
    is_future: impl Fn((i64, ShortDigest)) -> bool,
) -> Side {
    // Equal revisions: the greater digest, so that both orders of asking give the same answer.
    let rank = |row: Option<(i64, ShortDigest)>| row.map(|row| (!is_future(row), row));
    if rank(local) > rank(remote) { Side::Local } else { Side::Remote }
}

/// Which of two rows of a conflict is the newer one.
pub(super) fn newer_of(local: (i64, ShortDigest), remote: (i64, ShortDigest), rules: &Rules) -> Side {
    newer(Some(local), Some(remote), |(revision, _)| rules.latest.is_some_and(|latest| revision > latest))
}

#[cfg(test)]
mod tests;
