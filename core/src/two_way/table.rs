//! The machine of one table in a run.

use std::collections::{BTreeSet, VecDeque};

use super::batch::{Batch, Judge};
use super::begin::Foretold;
use super::chunk::Chunk;
use super::decide::Rules;
use super::fresh::Fresh;
use super::group::{Group, Unit};
use super::origin::Brought;
use super::report::{Memory, Report};
use super::step::{Answer, Step};
use super::sweep::{Sweep, Swept};
use super::{Revisions, Settings, Table};
use crate::passes::{are_of, groups};
use crate::reconcile::{Limits, Question, Reconcile, Reply, Side};
use crate::store::{
    Applied, BaseInfo, BatchId, Choice, Conclusion, Made, MemoryKey, Pending, PositionRange, Recollection,
    RemoteMemory,
};
use crate::sync::{Status, joined, point};
use crate::value::datetime::UNIX_EPOCH;

/// How often keys that changed while they were decided upon, and keys that waited, are looked at again in a run.
const ROUNDS: u32 = 2;
/// So many of them at most.
const MOST_AGAIN: usize = 4_096;

#[derive(Debug)]
pub(super) enum State {
    Token,
    Remembered,
    Recall,
    /// Whether the batch that was on its way was applied.
    Settle(Pending),
    /// Whether the remote side came by the last batch of the base to what it has now.
    Locate(BatchId),
    /// What is remembered of it.
    Settled(Conclusion),
    /// A batch of nothing, so that the remote side knows the number that is remembered here next.
    Mark(Box<State>),
    Begin(BaseInfo),
    Begun(Option<BaseInfo>),
    /// The local side was restored: all records are closed, then what was left open is forgotten here.
    CloseAll,
    ForgetOpen,
    Sweep(Box<Sweep>),
    States(Vec<PositionRange>),
    Summaries(Box<Group>),
    Reconcile(Box<Group>, Box<Reconcile>),
    Fetch(Box<Chunk>),
    Lookup(Box<Chunk>),
    Prepare(Box<Batch>, Pending),
    Apply(Box<Batch>, BatchId),
    Conclude(Box<Batch>, Conclusion),
    Close,
    Closed,
    Complete,
    Done,
}

/// Brings both sides of a table level, as far as the time goes.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) table: &'a Table,
    pub(super) settings: &'a Settings,
    pub(super) state: State,
    pub report: Report,
    pub memory: Memory,
    pub(super) token: Option<Vec<u8>>,
    pub(super) remote: RemoteMemory,
    pub(super) recalled: Recollection,
    /// The number of the last batch.
    pub(super) number: u64,
    pub(super) lost: bool,
    /// Whether the remote side is as it was before the base, or went on from there without it.
    pub(super) rewound: bool,
    /// What is left to do.
    pub(super) fresh: Fresh,
    pub(super) groups: VecDeque<Vec<PositionRange>>,
    pub(super) units: VecDeque<Unit>,
    /// Keys whose local rows there was no room for, with what was fetched for them.
    pub(super) later: Option<Chunk>,
    pub(super) records: Vec<Brought>,
    pub(super) forced: BTreeSet<MemoryKey>,
    pub(super) again: BTreeSet<MemoryKey>,
    pub(super) rounds: u32,
    pub(super) closing: BTreeSet<MemoryKey>,
    pub(super) closing_now: Vec<MemoryKey>,
    pub(super) swept: Swept,
    /// What a dry run takes the memory to be.
    pub(super) foretold: Foretold,
    /// The time by the local clock, in microseconds since the Unix epoch, and by how much it is ahead of the remote side's.
    now: i64,
    ahead: i64,
    /// When nothing new is taken up any more, by the local clock.
    until: i64,
    /// Whether it is known what may be relied on: what was left by an earlier run is done.
    pub(super) begun: bool,
    /// Whether the remote side knows a number of this run: without it, a remote side that was set back to before the run
    /// would not be noticed by the next one.
    pub(super) marked: bool,
    /// Whether records are to be closed, and the remote side knows no number of after their keys were settled.
    pub(super) closes_unmarked: bool,
    /// Whether this run closed all records.
    pub(super) records_closed: bool,
    /// How many rows each side is to delete yet, about, local first.
    pub(super) planned: [u64; 2],
    /// Whether keys were decided upon.
    pub(super) worked: bool,
    /// Whether part of the work was left.
    pub(super) left: bool,
    /// Whether the remote side did not take a record.
    pub(super) unrecorded: bool,
    pub(super) stop: bool,
}

impl<'a> Machine<'a> {
    pub fn new(table: &'a Table, settings: &'a Settings, memory: Memory) -> Self {
        Machine {
            table,
            settings,
            state: State::Token,
            report: Report::default(),
            memory,
            token: None,
            remote: RemoteMemory::default(),
            recalled: Recollection::default(),
            number: 0,
            lost: false,
            rewound: false,
            fresh: Fresh::default(),
            groups: VecDeque::new(),
            units: VecDeque::new(),
            later: None,
            records: Vec::new(),
            forced: BTreeSet::new(),
            again: BTreeSet::new(),
            rounds: 0,
            closing: BTreeSet::new(),
            closing_now: Vec::new(),
            swept: Swept::default(),
            foretold: Foretold::default(),
            now: 0,
            ahead: 0,
            until: i64::MAX,
            begun: false,
            marked: false,
            closes_unmarked: false,
            records_closed: false,
            planned: [0; 2],
            worked: false,
            left: false,
            unrecorded: false,
            stop: false,
        }
    }

    /// What is to be done next.
    pub fn step(&self) -> Option<Step<'_>> {
        let bytes = self.settings.batch_bytes;
        Some(match &self.state {
            State::Token => Step::Token,
            State::Remembered => Step::Remembered { dry_run: self.settings.dry_run },
            State::Recall => Step::Recall,
            State::Settle(pending) => Step::Settle(pending.batch),
            State::Locate(batch) => Step::Settle(*batch),
            State::Settled(conclusion) => Step::Conclude(conclusion),
            State::Mark(_) => Step::Apply { number: self.number, acts: &[], planned: 0 },
            State::Begin(info) => Step::BeginBase(*info),
            State::Begun(_) => Step::BaseBegun,
            State::CloseAll => Step::BaseBegun,
            State::ForgetOpen => Step::ForgetOpen(self.batch()),
            State::Sweep(sweep) => return sweep.step(),
            State::States(ranges) => Step::States { ranges, later: self.fresh.ahead(self.now, self.until) },
            State::Summaries(group) => Step::Ask(Question::Summaries(&group.ranges)),
            State::Reconcile(_, machine) => Step::Ask(machine.step()?.1),
            State::Fetch(chunk) => Step::Fetch { wanted: &chunk.wanted, bytes },
            State::Lookup(chunk) => Step::Lookup { keys: &chunk.keys, bytes },
            State::Prepare(_, pending) => Step::Prepare(pending),
            State::Apply(batch, id) => Step::Apply {
                number: id.number,
                acts: &batch.acts,
                planned: self.planned[1].max(batch.deletes_there()),
            },
            State::Conclude(_, conclusion) => Step::Conclude(conclusion),
            State::Close => Step::Close(&self.closing_now),
            State::Closed => Step::Closed(&self.closing_now),
            State::Complete => Step::CompleteBase,
            State::Done => return None,
        })
    }

    /// Takes nothing new up after this time by the local clock, in microseconds since the Unix epoch.
    pub fn work_until(&mut self, until: i64) {
        self.until = until;
    }

    /// Tells the time by the local clock, in microseconds since the Unix epoch.
    pub fn time_is(&mut self, now: i64) {
        self.now = now;
    }

    /// What decides now. Stamps of either side are measured by the remote side's clock, the one that all local databases
    /// share: by its own no clock is ever ahead, and a slow one takes right stamps of others for those of the future.
    fn rules(&self) -> Rules {
        let present = self.now.saturating_sub(self.ahead).saturating_sub(UNIX_EPOCH);
        let latest = present.saturating_add_unsigned(self.settings.allowed_skew);
        let latest = (self.table.revisions == Revisions::Stamps).then_some(latest);
        Rules { policy: self.table.policy, latest }
    }

    /// Takes up nothing new: what is on its way is brought to its end.
    pub fn stop(&mut self) {
        self.stop = true;
        if self.between() {
            self.left = true;
            self.next();
        }
    }

    /// Whether a run may stop here: nothing is on its way.
    pub fn between(&self) -> bool {
        matches!(self.state, State::Sweep(_) | State::States(_) | State::Fetch(_) | State::Lookup(_))
    }

    /// Takes an answer; `false` where it is none to the step named.
    pub fn tell(&mut self, answer: Answer) -> bool {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Token, Answer::Token(token)) => {
                self.token = token;
                self.state = State::Remembered;
            }
            (State::Remembered, Answer::Remembered(remote)) => {
                self.ahead = remote.clock.map_or(0, |clock| self.now.saturating_sub(clock));
                self.remote = remote;
                self.state = State::Recall;
            }
            (State::Recall, Answer::Recalled(recalled)) => {
                self.recalled = recalled;
                self.recall();
            }
            (State::Settle(pending), Answer::Settled(settled)) => return self.settle(pending, settled),
            (State::Locate(_), Answer::Settled(settled)) => self.located(settled),
            // What is remembered is another now.
            (State::Settled(_), Answer::Applied(_)) => self.state = State::Recall,
            (State::Mark(then), Answer::Applied(applied)) if applied.is_empty() => self.state = *then,
            (State::Begin(_), Answer::Done) if !self.remote.begun => self.state = State::Begun(None),
            (State::Begun(then), Answer::Done) => {
                self.records_closed = true;
                match then {
                    Some(info) => self.state = State::Begin(info),
                    None => self.sweep(),
                }
            }
            (State::CloseAll, Answer::Done) => {
                self.records_closed = true;
                self.state = State::ForgetOpen;
            }
            (State::Begin(_) | State::ForgetOpen, Answer::Done) => self.sweep(),
            (State::Sweep(mut sweep), mut answer) => {
                if let Answer::Held(held) = &mut answer {
                    self.foretold.change_sums(held);
                }
                let understood = sweep.tell(answer);
                match sweep.step() {
                    Some(_) => self.state = State::Sweep(sweep),
                    None => self.swept(sweep.finish()),
                }
                return understood;
            }
            (State::States(ranges), Answer::States(mut states)) => {
                self.foretold.change(&ranges, &mut states);
                self.state = State::Summaries(Box::new(Group::new(ranges, states)));
            }
            (State::Summaries(group), Answer::Reply(Reply::Summaries(remote))) => {
                if !are_of(&remote, &group.ranges) {
                    return false;
                }
                let machine = Reconcile::of_rows(&group.guesses(), &remote, Limits::default());
                return self.reconcile(group, Box::new(machine));
            }
            (State::Reconcile(group, mut machine), Answer::Reply(reply)) => {
                return machine.tell(reply) && self.reconcile(group, machine);
            }
            (State::Fetch(mut chunk), Answer::Fetched(fetched)) => {
                if !chunk.fetched(fetched, &mut self.units) {
                    return false;
                }
                self.look_up(chunk);
            }
            (State::Lookup(mut chunk), Answer::Found(found)) => {
                let Some(later) = chunk.found(found) else { return false };
                self.later = (!later.is_empty()).then(|| Chunk::resume(later));
                self.decide(*chunk);
            }
            (State::Prepare(batch, pending), Answer::Done) => {
                self.state = State::Apply(batch, pending.batch);
            }
            (State::Apply(batch, id), Answer::Applied(applied)) => {
                let deletes = batch.deletes_there();
                self.planned[1] = self.planned[1].saturating_sub(deletes);
                return self.conclude(batch, id, applied);
            }
            (State::Conclude(mut batch, conclusion), Answer::Applied(applied)) => {
                if !batch.concluded(&conclusion, applied, &mut self.report) {
                    return false;
                }
                self.planned[0] = self.planned[0].saturating_sub(conclusion.deletes());

                self.worked |= self.begun;
                self.done(*batch);
                if self.begun { self.next() } else { self.close_old() }
            }
            (State::Close, Answer::Done) => self.state = State::Closed,
            (State::Closed, Answer::Done) => {
                self.closing_now.clear();
                if self.begun { self.next() } else { self.begin() }
            }
            (State::Complete, Answer::Done) => self.finish(),
            _ => return false,
        }
        true
    }
}

impl Machine<'_> {
    fn swept(&mut self, swept: Swept) {
        self.report.compared = swept.rows;
        let [gone_here, gone_there] = swept.gone;
        self.planned = [gone_there, gone_here];
        let waiting = std::mem::take(&mut self.recalled.waiting);
        self.report.tried_again = waiting.len() as u64;
        let chosen = self.remote.choices.iter().map(|choice: &Choice| choice.key);
        self.forced = waiting.into_iter().chain(chosen).collect();
        let differing = &swept.differing;
        let is_covered = |key: &&MemoryKey| {
            let beyond =
                differing.partition_point(|before| before.range.to.is_some_and(|to| to <= key.position));
            differing.get(beyond).is_some_and(|differing| differing.range.contains(key.position))
        };
        let apart: Vec<_> =
            self.forced.iter().filter(|key| !is_covered(key)).map(|key| point(key.position)).collect();
        let of = |fresh: bool, rows: u64| {
            let some = differing.iter().filter(|differing| differing.fresh == fresh);
            groups(some.map(|differing| (differing.range, differing.rows)).collect(), rows)
        };
        self.fresh = Fresh::new(of(true, self.settings.fresh_rows), self.now);
        self.groups = of(false, self.settings.group_rows).into();
        self.groups.extend(places(apart));
        self.swept = swept;
        self.next();
    }

    fn reconcile(&mut self, group: Box<Group>, machine: Box<Reconcile>) -> bool {
        match machine.step() {
            Some((Side::Remote, _)) => self.state = State::Reconcile(group, machine),
            Some((Side::Local, _)) => return false,
            None => {
                self.units = group.units(machine.finish(), &self.forced);
                self.next();
            }
        }
        true
    }

    /// Names what comes next when nothing is on its way.
    fn next(&mut self) {
        if self.stop {
            self.left |= !(self.units.is_empty() && self.groups.is_empty() && self.later.is_none());
            self.left |= !self.fresh.is_empty();
            self.fresh = Fresh::default();
            self.left |= !self.again.is_empty();
            (self.later, self.rounds) = (None, ROUNDS);
            self.units.clear();
            self.groups.clear();
        }
        if let Some(chunk) = self.later.take() {
            return self.look_up(Box::new(chunk));
        }
        if !self.units.is_empty() {
            let chunk = Chunk::take(&mut self.units, self.settings.batch_rows);
            if !chunk.wanted.is_empty() {
                self.state = State::Fetch(Box::new(chunk));
                return;
            }
            let mut chunk = chunk;
            chunk.fetched(Default::default(), &mut self.units);
            return self.look_up(Box::new(chunk));
        }
        if !self.records.is_empty() {
            return self.send(Batch::default());
        }
        if let Some(ranges) = self.fresh.take().or_else(|| self.groups.pop_front()) {
            self.state = State::States(ranges);
            return;
        }
        if !self.again.is_empty() && self.rounds < ROUNDS {
            self.rounds += 1;
            let again = std::mem::take(&mut self.again);
            self.groups = places(again.iter().map(|key| point(key.position)).collect()).into();
            return self.next();
        }
        if !self.closing.is_empty() {
            return self.close();
        }
        let all_seen = !self.left && self.again.is_empty();
        if (self.lost || self.altered()) && all_seen && !self.settings.dry_run {
            (self.lost, self.recalled.made) = (false, Made::AsBefore);
            self.state = State::Complete;
            return;
        }
        self.finish();
    }

    fn look_up(&mut self, chunk: Box<Chunk>) {
        if chunk.keys.is_empty() { self.decide(*chunk) } else { self.state = State::Lookup(chunk) }
    }

    fn decide(&mut self, chunk: Chunk) {
        let judge = Judge {
            rules: self.rules(),
            merging: self.table.merging.as_ref(),
            lost: self.report.memory_lost,
            altered: self.altered(),
            choices: &self.remote.choices,
            records_closed: self.records_closed,
            held: [self.report.held_here > 0, self.report.held_there > 0],
        };
        let mut batch = Batch::default();
        for ready in chunk.ready {
            batch.add(ready, &judge, &mut self.report);
        }
        self.send(batch);
    }

    fn send(&mut self, mut batch: Batch) {
        batch.bring(std::mem::take(&mut self.records));
        if self.settings.dry_run {
            batch.count(&mut self.report);
        } else if !batch.is_empty() {
            // Also one that brings the remote side nothing has a number there, after all that was read of it: where that is set
            // back to before what this side took from it, it does not know the number.
            return self.prepare(batch);
        }
        self.done(batch);
        self.next();
    }

    pub(super) fn next_serial(&mut self) -> u64 {
        self.recalled.concluded += 1;
        self.recalled.concluded
    }

    /// The batch of this run that was numbered last.
    pub(super) fn batch(&self) -> BatchId {
        BatchId { number: self.number, mark: self.remote.mark }
    }

    pub(super) fn prepare(&mut self, batch: Batch) {
        self.number += 1;
        (self.marked, self.closes_unmarked) = (true, false);
        let pending = Pending { batch: self.batch(), settles: batch.settles.clone() };
        self.state = State::Prepare(Box::new(batch), pending);
    }

    fn conclude(&mut self, mut batch: Box<Batch>, id: BatchId, applied: Vec<Applied>) -> bool {
        let Some(mut conclusion) = batch.applied(id, applied, &mut self.report) else { return false };
        conclusion.serial = self.next_serial();
        conclusion.planned = self.planned[0].max(conclusion.deletes());
        self.state = State::Conclude(batch, conclusion);
        true
    }

    fn done(&mut self, batch: Batch) {
        for key in &batch.opened {
            self.closing.remove(key);
        }
        let is_done = |key: &MemoryKey| batch.closing.contains(key) || batch.opened.contains(key);
        self.remote.choices.retain(|choice| !is_done(&choice.key));
        self.closes_unmarked |= !batch.closing.is_empty();
        self.closing.extend(batch.closing);
        self.forced.extend(&batch.waiting);
        let again = batch.moved.into_iter().chain(batch.waiting);
        for key in again {
            if self.again.len() < MOST_AGAIN {
                self.again.insert(key);
            } else {
                self.left = true;
            }
        }
        self.records.extend(batch.records);
        self.report.rejected += batch.unrecorded;
        self.unrecorded |= batch.unrecorded > 0;
        // What is undecided would be new once all are said to be seen.
        self.left |= batch.leaves_undecided;
        self.report.open = (self.report.open + batch.opened_new).saturating_sub(batch.closed_old);
    }

    /// Says what came of it.
    pub(super) fn finish(&mut self) {
        self.state = State::Done;
        self.report.moved = self.again.len() as u64;
        self.left |= self.unrecorded;
        self.report.concluded = !self.left;
        let report = &mut self.report;
        // A dry run mends nothing of what it finds.
        let unmended = self.settings.dry_run && report.changed() + report.merged + report.conflicts > 0;
        let differs = self.left || unmended || report.moved + report.held_here + report.held_there > 0;
        let remote = self.remote.version.row_count.zip(self.remote.version.sum);
        let ours = (self.swept.whole.row_count(), self.swept.whole.sum());
        // What was kept in mind is dropped where a sweep begins.
        let is_quiet = self.memory.token.is_some();
        let found_settled = report.changed() == 0 && self.swept.differing.is_empty();
        let found_equal = found_settled && remote == Some(ours);
        report.status = if differs {
            Status::Different
        } else if report.open > 0 {
            Status::LevelExcept(report.open)
        } else if is_quiet || found_equal {
            Status::Level
        } else {
            Status::CountsAgree
        };
        if !differs
            && !is_quiet
            && found_settled
            && (found_equal || report.open > 0)
            && !self.settings.dry_run
        {
            self.memory = Memory { token: self.token.clone(), remote, open: report.open };
        }
    }
}

/// Single positions as groups of ranges that do not meet.
fn places(points: Vec<PositionRange>) -> Vec<Vec<PositionRange>> {
    joined(points).chunks(MOST_AGAIN / 4).map(<[PositionRange]>::to_vec).collect()
}
