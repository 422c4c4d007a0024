//! Which task a table takes up next. Each stage either names a task or gives way to the next stage.

use super::Event;
use super::compare::Compare;
use super::excess::Excess;
use super::full_read::FullRead;
use super::kept::root;
use super::send::Send;
use super::step::{Answer, Step};
use super::table::Table;
use super::task::{Purpose, Stage, Task};
use super::window::{Windows, rows_of_window};
use super::{Seen, TableMemory, close};
use crate::digest::RowDigest;
use crate::manifest::Item;
use crate::reconcile::{Question, Reply};
use crate::store::{Cursor, PositionRange, TableVersion};

impl Table {
    /// Takes up the next task, or ends the part.
    pub(super) fn plan(&mut self, now: i64) {
        while matches!(self.task, Task::None) && self.stage != Stage::Over {
            let stage = self.stage;
            self.task = self.task_of(stage, now);
            if self.stage == stage && matches!(self.task, Task::None) {
                self.stage = self.after(stage);
            }
        }
    }

    /// The stage after this one.
    pub(super) fn after(&self, stage: Stage) -> Stage {
        match stage {
            Stage::Kept => Stage::Scanned,
            Stage::Scanned => Stage::Settled,
            Stage::Settled => Stage::Max,
            Stage::Max => Stage::Count,
            Stage::Count | Stage::Windows | Stage::Delete | Stage::Conclude | Stage::Over => Stage::Over,
            Stage::Known => Stage::Retry,
            Stage::Retry => Stage::TailStart,
            Stage::TailStart | Stage::Tail(_) => Stage::Beyond,
            Stage::Beyond => Stage::History,
            Stage::History => Stage::Held,
            Stage::Held => Stage::Upload,
            Stage::Upload => Stage::ReadUntil,
            Stage::ReadUntil => Stage::Version,
            Stage::Version => Stage::All,
            Stage::All => Stage::Recount,
            Stage::Recount => Stage::MaxAgain,
            Stage::MaxAgain => Stage::Weigh,
            Stage::Weigh => Stage::Windows,
            Stage::Waiting => Stage::Confirm,
            Stage::Confirm => Stage::LastToken,
            Stage::LastToken => Stage::LastMax,
            Stage::LastMax => Stage::LastVersion,
            Stage::LastVersion => Stage::LastAll,
            Stage::LastAll => Stage::LastCount,
            Stage::LastCount => Stage::Conclude,
        }
    }

    /// The one step of a stage that asks one thing.
    pub(super) fn question(&self) -> Option<Step<'_>> {
        match self.stage {
            Stage::Kept => Some(Step::Kept),
            Stage::Scanned => Some(Step::IsScanned),
            Stage::Settled => Some(Step::Settled),
            Stage::Max | Stage::MaxAgain | Stage::LastMax => Some(Step::MaxPosition),
            Stage::Count | Stage::Recount | Stage::LastCount => Some(Step::CountRows),
            Stage::Known => Some(Step::Rejected),
            Stage::TailStart => {
                let (upto, rows) = (self.tail_top()?, self.ledger.settings.tail_rows.max(1));
                Some(Step::TailStart { upto, rows })
            }
            Stage::History => Some(Step::BatchHistory),
            Stage::Held => Some(Step::Ask(Question::Items(&[PositionRange::ALL]))),
            Stage::Version | Stage::LastVersion => Some(Step::TableVersion),
            Stage::ReadUntil | Stage::LastToken => Some(Step::ChangeToken),
            Stage::All | Stage::LastAll => Some(Step::Fingerprint(PositionRange::ALL)),
            Stage::Confirm => Some(self.confirming.last()?.question()),
            _ => None,
        }
    }

    /// Takes the answer to the stage's question and goes on; `false` where it is none.
    pub(super) fn answered(&mut self, answer: Answer) -> bool {
        let stage = self.stage;
        self.stage = self.after(stage);
        match (stage, answer) {
            (Stage::Kept, Answer::Kept(held)) => {
                self.kept = held.is_some();
                self.local_rows = held.map(|held| held.row_count());
            }
            (Stage::Scanned, Answer::Scanned(scanned)) => self.scanned = scanned,
            (Stage::Settled, Answer::Position(settled)) => self.settled = settled,
            (Stage::Max, Answer::Position(max)) => self.local_max = max,
            (Stage::Count | Stage::Recount | Stage::LastCount, Answer::Count(rows)) => {
                self.local_rows = Some(rows);
            }
            (Stage::Known, Answer::Rejected(rows)) => {
                for mut row in rows {
                    if self.replanned {
                        // Unlike any content: the row is tried again.
                        row.source_digest = RowDigest([0; 32]);
                    }
                    self.ledger.load_rejected(row);
                }
                for stale in &self.memory.stale {
                    if self.ledger.is_known(&stale.key_id) {
                        let item = Item { position: stale.position, digest: RowDigest(stale.digest) };
                        self.ledger.keep(item, stale.key_id);
                    }
                }
            }
            (Stage::TailStart, Answer::Position(from)) => {
                let to = self.tail_top().and_then(|top| top.checked_add(1));
                // What was not settled at the last run may have come meanwhile.
                let from =
                    from.map(|from| self.memory.unsettled.map_or(from, |unsettled| from.min(unsettled)));
                self.stage = Stage::Tail(PositionRange { from, to });
            }
            (Stage::History, Answer::History(history)) => self.ledger.load_history(history),
            (Stage::Held, Answer::Reply(Reply::Items(items))) => self.hold(items),
            (Stage::Version | Stage::LastVersion, Answer::Version(version)) => {
                let hashed = self.input.shape.hashed;
                let max_position = version.max_position.filter(|_| !hashed);
                self.version = TableVersion { max_position, ..version };
                self.version_at = self.changes();
            }
            (Stage::ReadUntil, Answer::Token(token)) => self.read_until(&token),
            (Stage::All, Answer::Fingerprint(remote)) => self.full_read.remote = Some(remote),
            (Stage::LastAll, Answer::Fingerprint(remote)) => self.all_at_last = Some(remote),
            (Stage::Confirm, answer) => return self.checked(&answer),
            (Stage::LastToken, Answer::Token(token)) => self.disturbed |= token != self.token,
            (Stage::MaxAgain | Stage::LastMax, Answer::Position(max)) => {
                self.disturbed |= max != self.local_max;
                self.local_max = max;
            }
            _ => return false,
        }
        true
    }

    fn task_of(&mut self, stage: Stage, now: i64) -> Task {
        let hashed = self.input.shape.hashed;
        match stage {
            Stage::Kept => Task::Ask,
            Stage::Scanned if hashed => Task::Ask,
            Stage::Settled | Stage::Max if !hashed => Task::Ask,
            Stage::LastToken => Task::Ask,
            Stage::Count if self.needs_count() => Task::Ask,
            Stage::Known if self.input.rejected > 0 => Task::Ask,
            Stage::Retry if !self.stop => {
                self.stage = self.after(stage);
                let keys = self.ledger.known_keys(false);
                task(Send::keys(keys, &mut self.ledger), Task::Send)
            }
            // What it would find is found by comparing manifests.
            Stage::TailStart if self.both_keep() => Task::None,
            Stage::TailStart if self.tail_top().is_some() && !self.stop => Task::Ask,
            Stage::Tail(range) => {
                self.stage = self.after(stage);
                // Rows that are not settled may be very many, while a transaction goes on for hours.
                if self.stop || (self.tail_pieces > 0 && now >= self.until.slot) {
                    self.tail_left = lower(self.tail_left, range.from);
                    return Task::None;
                }
                self.tail_pieces += 1;
                self.compare(vec![range], Purpose::Tail(range))
            }
            Stage::Beyond if !hashed => self.beyond(),
            Stage::History => {
                // Where the tail begins next time: what was not settled when this run began, and what was left.
                let before = self.memory.unsettled.filter(|_| self.stop || self.both_keep());
                let left = lower(self.tail_left, before);
                self.memory.unsettled =
                    self.settled.map(|settled| left.map_or(settled, |left| left.min(settled)));
                if !self.local_is_ahead() {
                    return Task::None;
                }
                self.reading = true;
                self.cursor = if hashed {
                    let goes_on = self.reading_goes_on() && !self.rereading;
                    self.memory.reading.take().filter(|_| goes_on).map(|reading| reading.cursor)
                } else {
                    self.reference().map(|position| Cursor { position, key: None })
                };
                self.full_read = FullRead::new(now);
                Task::Ask
            }
            Stage::Held if self.asks_for_held() => Task::Ask,
            Stage::Upload => self.read_on(now),
            Stage::ReadUntil if self.may_be_full_read() => Task::Ask,
            Stage::Version | Stage::LastVersion if self.version_at != self.changes() => Task::Ask,
            Stage::All if self.asks_for_all() => Task::Ask,
            Stage::Recount if self.recount_may_help(self.version_at > 0) => Task::Ask,
            // Rows that arrived meanwhile explain the difference, and the next run sends them.
            Stage::MaxAgain if !hashed && self.recount_may_help(self.version_at > 0) => Task::Ask,
            Stage::Weigh => {
                self.weigh(now);
                Task::None
            }
            // Rows that are still to be read in order are missing, and would be found one window after the other.
            Stage::Windows if hashed && self.unread => Task::None,
            Stage::Windows if self.looked.is_some() => self.pass_found(now),
            Stage::Windows if self.scanned || self.groups.is_some() || (self.both_keep() && !self.unread) => {
                self.pass(now)
            }
            Stage::Windows => self.window(now),
            Stage::Delete => {
                self.stage = self.after(stage);
                self.delete()
            }
            Stage::Waiting => {
                self.stage = self.after(stage);
                if self.stop || now >= self.until.run {
                    return Task::None;
                }
                let keys = self.ledger.known_keys(true);
                self.waiting = keys.len();
                task(Send::keys(keys, &mut self.ledger), Task::Waiting)
            }
            Stage::Confirm => self.confirm(now),
            Stage::LastMax if !hashed && (self.disturbed || self.token.is_none()) => Task::Ask,
            Stage::LastAll if self.asks_for_whole() => Task::Ask,
            Stage::LastCount if self.recount_may_help(self.disturbed) => Task::Ask,
            Stage::Conclude => {
                self.stage = Stage::Over;
                close::conclude(self, now);
                let status = self.ledger.report.status;
                self.ledger.events.push(Event::Finished { status });
                self.remember(self.memory.clone()).unwrap_or(Task::None)
            }
            _ => Task::None,
        }
    }

    /// How far the target is, or what was skipped beyond: uploads go on from there. An empty replica that
    /// remembers no rejected row has lost more than its highest rows.
    pub(super) fn reference(&self) -> Option<i64> {
        match self.version.max_position {
            None if self.ledger.counts() == (0, 0) => None,
            remote => remote.max(self.memory.skipped_to),
        }
    }

    /// The branch, by highest position alone.
    fn local_is_ahead(&self) -> bool {
        if self.input.shape.hashed {
            return self.lacks_most();
        }
        self.local_max > self.reference()
    }

    /// About how many rows the run will send.
    pub(super) fn expected_rows(&self) -> Option<u64> {
        if !self.local_is_ahead() {
            return Some(0);
        }
        Some(self.local_rows?.saturating_sub(self.version.row_count?))
    }

    fn needs_count(&mut self) -> bool {
        if self.kept {
            return false;
        }
        // Without a token nothing tells of rows that went.
        let known = self.memory.seen.as_ref().filter(|seen| self.token.is_some() && seen.token == self.token);
        self.local_rows = known.and_then(|seen| seen.local_rows);
        self.local_rows.is_none()
    }

    /// Whether the counts differ while the source's was not made just now.
    fn recount_may_help(&self, moved: bool) -> bool {
        (moved || self.token.is_none()) && !close::counts_agree(self) && !self.stop
    }

    /// Prepares the windows: how many, and whether the whole table is to be compared in this run.
    fn weigh(&mut self, now: i64) {
        let seen = self.memory.seen.as_ref();
        let undisturbed = |seen: &Seen| {
            seen.same_source(self.token.as_deref(), self.local_max) && seen.same_target(&self.input.version)
        };
        self.memory.sweep_quiet &= seen.is_some_and(undisturbed);
        if self.input.shape.hashed && self.token.is_none() {
            // Nothing says that the source is as it was.
            (self.memory.sweep_quiet, self.memory.proof) = (false, None);
        }
        if self.may_be_written() {
            (self.memory.sweep_quiet, self.memory.proof) = (false, None);
        }
        let rows = self.local_rows.or(self.version.row_count).unwrap_or(0);
        let settings = &self.ledger.settings;
        let until = now.saturating_add_unsigned(self.until.windows);
        self.windows = Windows::new(&self.memory, settings, rows, now, until);
        self.windows.counts = self.counts();
        if self.input.on_hold {
            self.windows.hold();
        }
        if self.conclude_full_read() {
            self.memory.sweep_token = self.token.clone();
            self.remember_sweep(true, now);
        } else if self.must_sweep(now) {
            self.windows.force(&self.memory, self.until.slot);
        }
    }

    /// Whether the whole table is to be compared: equal highest positions with unequal counts, or a digest
    /// sum that someone else changed.
    fn must_sweep(&self, now: i64) -> bool {
        if self.input.shape.hashed {
            return self.sweep_is_due(now) && !self.input.on_hold;
        }
        let counts = self.counts();
        let seen = self.memory.seen.as_ref();
        let freed =
            self.memory.blocked && seen.is_none_or(|seen| seen.token != self.token || seen.token.is_none());
        let differ = !close::counts_agree(self) && (self.memory.swept_for != counts || freed);
        let sums = self.memory.seen.as_ref().and_then(|seen| seen.remote_sum).zip(self.input.version.sum);
        let changed = sums.is_some_and(|(then, now)| then != now);
        (differ || changed || self.was_released()) && !self.local_is_ahead() && !self.input.on_hold
    }

    /// Whether others may have written to the target since the last run, and nothing tells.
    pub(super) fn may_be_written(&self) -> bool {
        self.ledger.settings.others_write && root(&self.input.version).is_none()
    }

    /// Whether rows were held at the last sweep, and no longer are.
    pub(super) fn was_released(&self) -> bool {
        self.memory.held && !self.input.on_hold
    }

    /// The row counts of both sides.
    pub(super) fn counts(&self) -> Option<(u64, u64)> {
        self.local_rows.zip(self.version.row_count)
    }

    /// The last position of the tail: no further than both sides reach.
    fn tail_top(&self) -> Option<i64> {
        Some(self.reference()?.min(self.local_max?))
    }

    pub(super) fn compare(&mut self, ranges: Vec<PositionRange>, purpose: Purpose) -> Task {
        let settings = &self.ledger.settings;
        let rows = match purpose {
            Purpose::Group => settings.max_window_rows.max(1),
            _ => rows_of_window(&self.memory, settings),
        };
        let room = self.room.saturating_sub(self.candidates.len());
        self.window_took = (0, 0);
        Task::Compare(Compare::new(ranges, rows, room), purpose)
    }

    /// Where the target is ahead, all it has beyond the source's highest position is compared.
    fn beyond(&mut self) -> Task {
        self.stage = self.after(Stage::Beyond);
        if std::mem::replace(&mut self.beyond_done, true) || self.stop {
            return Task::None;
        }
        if self.version.max_position <= self.local_max {
            return Task::None;
        }
        let range = match self.local_max {
            Some(max) => PositionRange::beyond(max),
            None => Some(PositionRange::ALL),
        };
        // What one comparison leaves of the range comes next, as a tail.
        range.map_or(Task::None, |range| self.compare(vec![range], Purpose::Tail(range)))
    }

    /// The next window, while there is time, and room for what it may find.
    fn window(&mut self, now: i64) -> Task {
        if std::mem::take(&mut self.ledger.newly_rejected) {
            self.memory.sweep_settled = false;
            self.memory.refused_copies = None;
            self.memory.stale_known = false;
        }
        if self.ledger.holder_gone {
            self.windows.force(&self.memory, self.until.slot);
        }
        // The position is not saved beyond a difference before it is mended.
        if self.unconfirmed.is_empty()
            && let Some(task) = self.remember(self.memory.clone())
        {
            return task;
        }
        let full = self.candidates.len() >= self.room;
        if self.stop || full || !self.windows.wants_more(&self.memory, now) {
            self.dropped |= full;
            self.stage = self.after(Stage::Windows);
            return Task::None;
        }
        let range = self.begin_sweep(now);
        self.compare(vec![range], Purpose::Window)
    }

    pub(super) fn delete(&mut self) -> Task {
        if self.stop {
            self.dropped |= !self.candidates.is_empty();
            self.candidates.clear();
        }
        let excess = Excess::new(std::mem::take(&mut self.candidates), &mut self.ledger);
        if excess.step().is_some() { Task::Excess(excess) } else { Task::None }
    }

    /// The task of saving this, where it was not saved already.
    pub(super) fn remember(&self, memory: TableMemory) -> Option<Task> {
        (memory != self.saved).then(|| Task::Remember(Box::new(memory)))
    }
}

/// The lower of two positions, where there are any.
pub(super) fn lower(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}

fn task(send: Send, make: impl FnOnce(Send) -> Task) -> Task {
    if send.step().is_some() { make(send) } else { Task::None }
}
