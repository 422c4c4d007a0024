//! From decisions to what is done on either side, and what is remembered of it.

use super::chunk::{Ready, Theirs};
use super::decide::{Case, Policy, RowState, Rules, Verdict, decide};
use super::merge::{Changed, Merging};
use super::origin::{Brought, Origin};
use super::report::Report;
use crate::manifest::Item;
use crate::reconcile::Side;
use crate::short::ShortItem;
use crate::store::{
    Applied, Base, BatchId, Change, Choice, ColumnDigests, Conclusion, LocalContent, MemoryEntry, MemoryKey,
    Open, OpenKind, RemoteAct, Seen, Settle, SourceKey, SourceRow,
};

/// An act on the remote side.
#[derive(Debug, Clone)]
struct There {
    origin: Origin,
    /// What follows on the local side once it is done: the other half of a merged row.
    then: Option<(Change, Settle)>,
}

/// What is done together.
#[derive(Debug, Clone, Default)]
pub(super) struct Batch {
    /// What the remote side does, and what is remembered of each act once it is done.
    pub acts: Vec<RemoteAct>,
    pub settles: Vec<Settle>,
    there: Vec<There>,
    /// What the local side does.
    here: Vec<(Origin, (Change, Settle))>,
    /// What needs no change.
    agreed: Vec<Settle>,
    /// Positions of keys that changed while they were decided upon.
    pub moved: Vec<MemoryKey>,
    /// Keys that wait for others from now on.
    pub waiting: Vec<MemoryKey>,
    /// Records that the next batch brings.
    pub records: Vec<Brought>,
    /// Keys whose records are closed, and those that are left open from now on.
    pub closing: Vec<MemoryKey>,
    pub opened: Vec<MemoryKey>,
    /// How many keys more are open than before, and how many less.
    pub opened_new: u64,
    pub closed_old: u64,
    /// Records that were refused, and whether one of them was of a key that is undecided.
    pub unrecorded: u64,
    pub leaves_undecided: bool,
    /// The origins of the local changes of [`Batch::conclusion`].
    concluding: Vec<Origin>,
}

/// What decides, beside the keys themselves.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub rules: Rules,
    pub merging: Option<&'a Merging>,
    pub lost: bool,
    /// Whether what is remembered may be of other columns.
    pub altered: bool,
    pub choices: &'a [Choice],
    /// Whether the run closed all records, those of choices too.
    pub records_closed: bool,
    /// Whether the guard of a side is spent, local first: nothing more is deleted there.
    pub held: [bool; 2],
}

fn at(side: Side) -> usize {
    usize::from(side == Side::Remote)
}

impl Batch {
    /// Brings records of what an earlier batch could not do.
    pub fn bring(&mut self, records: Vec<Brought>) {
        for Brought { record, settle, origin } in records {
            self.there(RemoteAct::Record(Box::new(record)), settle, origin, None);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.acts.is_empty() && self.here.is_empty() && self.agreed.is_empty()
    }

    /// Rows that the remote side is asked to delete.
    pub fn deletes_there(&self) -> u64 {
        let is_delete = |act: &&RemoteAct| matches!(act, RemoteAct::Change(Change::Delete { .. }));
        self.acts.iter().filter(is_delete).count() as u64
    }

    /// Decides upon a key.
    pub fn add(&mut self, ready: Ready, judge: &Judge<'_>, report: &mut Report) {
        let key = ready.known.key;
        if ready.moved || self.judge(ready, judge, report).is_none() {
            self.moved.push(key);
        }
    }

    /// `None` where a row that is needed is not at hand: it changed meanwhile.
    fn judge(&mut self, ready: Ready, judge: &Judge<'_>, report: &mut Report) -> Option<()> {
        let (local, remote) = (ready.known.local_seen(), ready.theirs.seen());
        let remembered = ready.known.entry.as_ref().and_then(|entry| entry.open);
        let was_unknown = remembered.is_some_and(|open| open.kind == OpenKind::Undecided);
        let was_once = remembered == Some(Open::ONCE_UNDECIDED);
        let open = remembered.filter(|_| !was_once);
        if !ready.known.forced && open.is_some_and(|open| (open.local, open.remote) == (local, remote)) {
            // It was left as it is, and came here with another key of its position.
            return Some(());
        }
        let base = ready.known.entry.as_ref().and_then(|entry| entry.base.clone());
        let base_digest = base.as_ref().map(|base| base.digest);
        let changed_both = Seen::from(base_digest) != local && Seen::from(base_digest) != remote;
        if matches!(ready.theirs, Theirs::Known(_))
            && changed_both
            && local != remote
            && local.digest().is_some()
        {
            return None;
        }
        let columns = |row: &[u8]| match judge.merging {
            Some(merging) => merging.columns(row).unwrap_or_default(),
            None => ColumnDigests::new(),
        };
        let merged = self.merged(&ready, &base, changed_both, judge);
        let key = ready.known.key;
        let choice = judge.choices.iter().filter(|_| ready.known.forced).find(|choice| choice.key == key);
        let chosen =
            choice.map(|choice| ((choice.local, choice.remote) == (local, remote)).then_some(choice.side));
        let asks = judge.rules.policy == Policy::Ask;
        let has_both = local != Seen::Absent && remote != Seen::Absent;
        let case = Case {
            local: state(local, ready.revision()),
            remote: state(remote, ready.theirs.row().map_or(0, |row| row.revision)),
            base: base_digest,
            // What was undecided still is where the columns changed alone, a row came to the other one, a person is to
            // decide, or nobody knows what both sides had then. Else a row that somebody still works with is no deleted
            // one.
            lost: judge.lost || (was_unknown && (judge.altered || has_both || asks || was_once)),
            altered: judge.altered,
            merges: merged.is_some(),
            chosen: chosen.flatten(),
        };
        let decision = decide(&case, &judge.rules);
        let their_row = ready
            .theirs
            .row()
            .and_then(|row| Some(SourceRow { item: row.item, key: row.key.clone(), row: row.row.clone()? }));
        let our_columns = || match ready.known.local.as_ref().map(|row| &row.content) {
            Some(LocalContent::Row { columns, .. }) => columns.clone(),
            _ => ColumnDigests::new(),
        };
        let encoded_key = match (ready.known.local.as_ref().map(|row| &row.key), ready.theirs.row()) {
            (Some(SourceKey::Encoded(key)), _) => Some(key.clone()),
            (_, Some(row)) => Some(row.key.clone()),
            _ => None,
        };
        let ours = local.digest().map(|digest| Base { digest, columns: our_columns() });
        // A base of other columns says nothing once the columns are known again: of a key that is left open then, the side
        // that lost has what both had.
        let is_known = [local, remote].iter().any(|seen| seen.digest() == base_digest);
        let base = match decision.verdict {
            Verdict::Copy(from) if judge.altered && base.is_some() && !is_known => match from {
                Side::Local => remote.digest().map(|digest| Base { digest, columns: ColumnDigests::new() }),
                Side::Remote => ours.clone(),
            },
            _ => base,
        };
        let origin = Origin {
            key,
            encoded_key,
            local,
            remote,
            base,
            open,
            chosen: chosen.map(|side| side.is_some() && !judge.records_closed),
            decision,
        };
        match decision.verdict {
            Verdict::Agree => {
                let settle = origin.agreed(ours);
                let known = ready.known.entry.unwrap_or(MemoryEntry { key, base: None, open: None });
                if settle.closes || settle.entry != known {
                    self.agreed.push(settle);
                }
            }
            Verdict::Leave(kind) => {
                let reason = match ready.known.local.map(|row| row.content) {
                    Some(LocalContent::Bad(reason)) => Some(*reason),
                    _ => None,
                };
                if let Some((record, settle)) = origin.left(kind, ready.ours, reason) {
                    self.there(RemoteAct::Record(Box::new(record)), settle, origin, None);
                }
            }
            Verdict::Copy(from) => {
                let row = if from == Side::Local { ready.ours } else { their_row };
                let (state, target) = if from == Side::Local { (local, remote) } else { (remote, local) };
                let to = from.other();
                let change = match (state.digest(), target.digest()) {
                    (Some(_), expected) => Change::Upsert { row: row?, expected },
                    (None, Some(expected)) => {
                        if judge.held[at(to)] {
                            *held(report, to) += 1;
                            return Some(());
                        }
                        Change::Delete { position: key.position, key: origin.encoded_key.clone()?, expected }
                    }
                    (None, None) => return Some(()),
                };
                let base = match (from, &change) {
                    (_, Change::Delete { .. }) => None,
                    (Side::Local, _) => ours,
                    (Side::Remote, Change::Upsert { row, .. }) => Some(based(&row.item, columns(&row.row))),
                };
                let settle = origin.agreed(base);
                match to {
                    Side::Remote => self.there(RemoteAct::Change(change), settle, origin, None),
                    Side::Local => self.here.push((origin, (change, settle))),
                }
            }
            Verdict::Merge => {
                let row = merged?;
                let digest = ShortItem::from(&row.item).digest;
                let settle = origin.agreed(Some(based(&row.item, columns(&row.row))));
                let (at_local, at_remote) = (local.digest(), remote.digest());
                let change = |expected| Change::Upsert { row: row.clone(), expected };
                if at_remote == Some(digest) {
                    self.here.push((origin, (change(at_local), settle)));
                } else if at_local == Some(digest) {
                    self.there(RemoteAct::Change(change(at_remote)), settle, origin, None);
                } else {
                    // Once the remote side has the merged row it has what the local side changed: that is the base until
                    // the local side has the merged row too.
                    let (first, then) = (origin.agreed(ours), (change(at_local), settle));
                    self.there(RemoteAct::Change(change(at_remote)), first, origin, Some(then));
                }
            }
        }
        Some(())
    }

    /// One row out of both, where both changed other columns.
    fn merged(
        &self,
        ready: &Ready,
        base: &Option<Base>,
        changed: bool,
        judge: &Judge<'_>,
    ) -> Option<SourceRow> {
        let (merging, ours, theirs) = (judge.merging?, ready.ours.as_ref()?, ready.theirs.row()?);
        let base = base.as_ref().filter(|base| changed && !base.columns.is_empty())?;
        let row = SourceRow { item: theirs.item, key: theirs.key.clone(), row: theirs.row.clone()? };
        let local = Changed { row: ours, revision: ready.revision() };
        let remote = Changed { row: &row, revision: theirs.revision };
        merging.merge(&base.columns, local, remote, &judge.rules).ok().flatten()
    }

    fn there(&mut self, act: RemoteAct, settle: Settle, origin: Origin, then: Option<(Change, Settle)>) {
        self.acts.push(act);
        self.settles.push(settle);
        self.there.push(There { origin, then });
    }

    /// Takes what became of the acts. What the local side does then; `None` where the answer is none.
    pub fn applied(
        &mut self,
        batch: BatchId,
        applied: Vec<Applied>,
        report: &mut Report,
    ) -> Option<Conclusion> {
        if applied.len() != self.acts.len() {
            return None;
        }
        let settled = self.take_agreed();
        let mut conclusion =
            Conclusion { batch: Some(batch), applied: true, settled, ..Conclusion::default() };
        let here = std::mem::take(&mut self.here);
        for (origin, change) in here {
            self.concluding.push(origin);
            conclusion.changes.push(change);
        }
        let acts = std::mem::take(&mut self.acts).into_iter().zip(std::mem::take(&mut self.settles));
        for (((act, settle), there), applied) in acts.zip(std::mem::take(&mut self.there)).zip(applied) {
            if self.came(Side::Remote, &act, &there.origin, &settle, applied, report) {
                if let Some(then) = there.then {
                    self.concluding.push(there.origin.after(&then));
                    conclusion.changes.push(then);
                }
                conclusion.settled.push(settle);
            }
        }
        Some(conclusion)
    }

    /// Takes what became of the local changes; `false` where the answer is none.
    pub fn concluded(&mut self, conclusion: &Conclusion, applied: Vec<Applied>, report: &mut Report) -> bool {
        if applied.len() != conclusion.changes.len() {
            return false;
        }
        let origins = std::mem::take(&mut self.concluding);
        for (((change, settle), origin), applied) in conclusion.changes.iter().zip(origins).zip(applied) {
            let act = RemoteAct::Change(change.clone());
            self.came(Side::Local, &act, &origin, settle, applied, report);
        }
        true
    }

    /// Counts what would be done.
    pub fn count(&self, report: &mut Report) {
        for ((act, settle), there) in self.acts.iter().zip(&self.settles).zip(&self.there) {
            count(Side::Remote, act, &there.origin, settle, report);
            report.received += u64::from(there.then.is_some());
        }
        for (origin, (change, settle)) in &self.here {
            count(Side::Local, &RemoteAct::Change(change.clone()), origin, settle, report);
        }
    }

    fn take_agreed(&mut self) -> Vec<Settle> {
        let agreed = std::mem::take(&mut self.agreed);
        agreed.iter().for_each(|settle| self.opened_or_closed(settle, settle.closes));
        agreed
    }

    /// Keeps in mind what is to be closed, and how many keys are open.
    fn opened_or_closed(&mut self, settle: &Settle, was_open: bool) {
        let key = settle.entry.key;
        match settle.entry.open {
            Some(open) => {
                self.opened.push(key);
                self.opened_new += u64::from(!was_open);
                if matches!(open.kind, OpenKind::Waiting(_)) {
                    self.waiting.push(key);
                }
            }
            None if settle.closes => {
                self.closing.push(key);
                self.closed_old += u64::from(was_open);
            }
            None => {}
        }
    }

    /// Counts what became of a change of `side`. Whether it is done.
    fn came(
        &mut self,
        side: Side,
        act: &RemoteAct,
        origin: &Origin,
        settle: &Settle,
        applied: Applied,
        report: &mut Report,
    ) -> bool {
        match applied {
            Applied::Done => {
                count(side, act, origin, settle, report);
                self.opened_or_closed(settle, origin.open.is_some());
                true
            }
            Applied::Changed => {
                self.moved.push(origin.key);
                false
            }
            Applied::Held => {
                *held(report, side) += 1;
                false
            }
            // Nothing says more of it than the record would have: it is decided upon again by the next run.
            Applied::Refused { .. } if let RemoteAct::Record(record) = act => {
                self.unrecorded += 1;
                self.leaves_undecided |= record.kind == OpenKind::Undecided;
                false
            }
            Applied::Refused { waits: true, .. } if origin.chosen == Some(true) => {
                // What was decided is done once it can be: the record stays as it is.
                report.waiting += 1;
                false
            }
            Applied::Refused { waits, reason } => {
                let kind = if waits { OpenKind::Waiting(side) } else { OpenKind::Rejected(side) };
                let row = match act {
                    RemoteAct::Change(Change::Upsert { row, .. }) if side == Side::Remote => {
                        Some(row.clone())
                    }
                    _ => None,
                };
                if let Some((record, settle)) = origin.left(kind, row, Some(*reason)) {
                    // What was decided was not done.
                    let decision = Verdict::Leave(kind).into();
                    self.records.push(Brought {
                        record,
                        settle,
                        origin: Origin { decision, ..origin.clone() },
                    });
                }
                false
            }
        }
    }
}

fn state(seen: Seen, revision: i64) -> RowState {
    match seen {
        Seen::Absent => RowState::Absent,
        Seen::Row(digest) => RowState::Row { digest, revision },
        Seen::Unreadable => RowState::Unreadable,
    }
}

fn based(item: &Item, columns: ColumnDigests) -> Base {
    Base { digest: ShortItem::from(item).digest, columns }
}

fn held(report: &mut Report, side: Side) -> &mut u64 {
    if side == Side::Local { &mut report.held_here } else { &mut report.held_there }
}

fn count(side: Side, act: &RemoteAct, origin: &Origin, settle: &Settle, report: &mut Report) {
    let counter = match (act, side, settle.entry.open.map(|open| open.kind)) {
        (RemoteAct::Change(Change::Upsert { .. }), Side::Remote, _) => &mut report.sent,
        (RemoteAct::Change(Change::Upsert { .. }), Side::Local, _) => &mut report.received,
        (RemoteAct::Change(Change::Delete { .. }), Side::Remote, _) => &mut report.deleted_there,
        (RemoteAct::Change(Change::Delete { .. }), Side::Local, _) => &mut report.deleted_here,
        (RemoteAct::Record(_), _, Some(OpenKind::Undecided)) => &mut report.undecided,
        (RemoteAct::Record(_), _, Some(OpenKind::Rejected(_))) => &mut report.rejected,
        (RemoteAct::Record(_), _, Some(OpenKind::Waiting(_))) => &mut report.waiting,
        (RemoteAct::Record(_), _, Some(OpenKind::Conflict) | None) => &mut report.recorded,
    };
    *counter += 1;
    report.conflicts += u64::from(origin.decision.conflict);
    report.future_stamps += u64::from(origin.decision.future);
    report.merged += u64::from(origin.decision.verdict == Verdict::Merge);
}
