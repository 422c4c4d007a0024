//! The machine of one table in one run: names a step, takes its answer, tries again what failed in passing.
//! Which task comes next is in `plan`, what the table's status is in `close`.

use std::collections::HashMap;

use super::confirm::Mended;
use super::full_read::FullRead;
use super::ledger::Ledger;
use super::step::{Answer, Step};
use super::sweep::Swept;
use super::task::{BatchEnd, Part, Stage, Task, Until};
use super::window::Windows;
use super::{Event, Settings, TableInput, TableMemory};
use crate::fingerprint::Fingerprint;
use crate::short::ShortItem;
use crate::store::{Cursor, Failure, FailureKind, Outcome, PositionRange, TableVersion};

/// One table in one run.
#[derive(Debug)]
pub(super) struct Table {
    pub input: TableInput,
    pub memory: TableMemory,
    /// Whether what was remembered is of another plan: rows that were rejected under it may fit now.
    pub replanned: bool,
    /// The memory as it was last saved.
    pub saved: TableMemory,
    pub ledger: Ledger,
    /// The source's change token when the run began.
    pub token: Option<Vec<u8>>,
    pub local_max: Option<i64>,
    pub local_rows: Option<u64>,
    pub version: TableVersion,
    /// What [`Table::changes`] was when `version` was read.
    pub version_at: u64,
    /// Steps that may have changed the target, and failed: their answer may have been lost.
    lost: u64,
    /// The position below which no row of the source could appear any more when the run began.
    pub settled: Option<i64>,
    /// Where a tail was left, where there was no time or room for the rest of it.
    pub tail_left: Option<i64>,
    /// Whether the source reads all rows to find those of a range.
    pub scanned: bool,
    /// Whether the source keeps a manifest of its rows.
    pub kept: bool,
    /// What the passes of the run found, where it is.
    pub groups: Option<Vec<Vec<PositionRange>>>,
    /// The ranges that the comparison under way is about.
    pub group: Vec<PositionRange>,
    /// Pieces of the tail that were compared.
    pub tail_pieces: u32,
    /// Whether all rows are read in order because a sweep found that most are to be sent.
    pub rereading: bool,
    /// Whether rows are left to be read in order by a later run.
    pub unread: bool,
    /// Whether rows are passed by that the target has.
    pub passing_by: bool,
    /// All rows of the source, as the passes of the run found them.
    pub whole: Option<Fingerprint>,
    /// The same of a table that was compared row by row as a whole, at once.
    pub compared_whole: Option<Fingerprint>,
    /// What the windows of a sweep that began in this run hold so far.
    pub windows_hold: Option<Fingerprint>,
    /// All rows of the target at the end of the run, where it had to be asked for them.
    pub all_at_last: Option<Fingerprint>,
    /// Rows of a keyless table that the target has, and were not yet met when reading in order.
    pub passed_by: HashMap<ShortItem, u32>,
    /// The last row read in order.
    pub cursor: Option<Cursor>,
    /// Whether there may be more to read in order.
    pub reading: bool,
    /// Batches read in order.
    pub batches: u64,
    pub full_read: FullRead,
    /// What the batch under way ends with.
    pub batch_end: BatchEnd,
    /// Whether what the target has beyond the source was compared.
    pub beyond_done: bool,
    pub windows: Windows,
    /// How long the window under way took so far, and the source's part of it.
    pub window_took: (u64, u64),
    pub candidates: Vec<ShortItem>,
    /// How many candidates there may be.
    pub room: usize,
    /// Stretches that were mended: to be looked at again, and those of the round under way.
    pub unconfirmed: Vec<Mended>,
    pub confirming: Vec<Mended>,
    pub confirm_rounds: u32,
    /// Whether a stretch was confirmed only where it had differed: it no longer held what was read of it.
    pub moved: bool,
    /// Whether a difference is known that this run does not repair.
    pub pending: bool,
    /// Whether rows to delete were left to the next run, for lack of time or room.
    pub dropped: bool,
    /// Whether the source changed while the run went on.
    pub disturbed: bool,
    pub stop: bool,
    /// Rows that waited when they were last tried.
    pub waiting: usize,
    pub failed: Option<Failure>,
    /// Whether the run has nothing to do with it.
    pub left_out: bool,
    /// Where it was found to differ before the run began.
    pub looked: Option<Swept>,
    pub until: Until,
    pub stage: Stage,
    pub task: Task,
    tries: u32,
    pausing: Option<u64>,
    /// Whether it is to be saved that the last proof no longer stands.
    pub dropping_proof: bool,
}

impl Table {
    pub fn new(mut input: TableInput, memory: TableMemory, settings: &Settings) -> Self {
        if input.shape.hashed {
            input.version.max_position = None;
        }
        let ledger = Ledger::new(settings.clone(), input.shape);
        Table {
            version: input.version,
            replanned: memory.plan != input.plan,
            saved: memory.clone(),
            memory: memory.under(input.plan),
            input,
            ledger,
            token: None,
            local_max: None,
            local_rows: None,
            version_at: 0,
            lost: 0,
            settled: None,
            tail_left: None,
            scanned: false,
            kept: false,
            groups: None,
            group: Vec::new(),
            tail_pieces: 0,
            rereading: false,
            unread: false,
            passing_by: false,
            whole: None,
            compared_whole: None,
            windows_hold: None,
            all_at_last: None,
            passed_by: HashMap::new(),
            cursor: None,
            reading: false,
            batches: 0,
            full_read: FullRead::default(),
            batch_end: BatchEnd::default(),
            beyond_done: false,
            windows: Windows::default(),
            window_took: (0, 0),
            candidates: Vec::new(),
            room: 0,
            unconfirmed: Vec::new(),
            confirming: Vec::new(),
            confirm_rounds: 0,
            moved: false,
            pending: false,
            dropped: false,
            disturbed: false,
            stop: false,
            waiting: 0,
            failed: None,
            left_out: false,
            looked: None,
            until: Until::default(),
            stage: Stage::Over,
            task: Task::None,
            tries: 0,
            pausing: None,
            dropping_proof: false,
        }
    }

    /// Begins a part of the run.
    pub fn begin(&mut self, part: Part, now: i64) {
        if self.failed.is_some() || self.left_out {
            return;
        }
        self.stage = match part {
            Part::Look => Stage::Kept,
            Part::Level => {
                let expected = self.expected_rows();
                self.ledger.events.push(Event::Started { expected_rows: expected });
                Stage::Known
            }
            Part::Delete => Stage::Delete,
            Part::Close => Stage::Waiting,
        };
        self.task = Task::None;
        self.plan(now);
    }

    /// What is to be done next; `None` at the end of the part.
    pub fn step(&self) -> Option<Step<'_>> {
        if self.failed.is_some() {
            return None;
        }
        if let Some(pause) = self.pausing {
            return Some(Step::Pause(pause));
        }
        if self.dropping_proof {
            return Some(Step::Remember(&self.saved));
        }
        if let Some(record) = self.ledger.records.first() {
            return Some(Step::RecordBatch(*record));
        }
        match &self.task {
            Task::None => None,
            Task::Ask => self.question(),
            Task::Compare(compare, _) => compare.step(),
            Task::Sweep(sweep) => sweep.step(),
            Task::KeptSweep(sweep) => sweep.step(),
            Task::Send(send) | Task::Upload(send) | Task::Waiting(send) => send.step(),
            Task::Read(limit) => Some(Step::ReadBatch { after: self.cursor.as_ref(), limit: *limit }),
            Task::Excess(excess) => excess.step(),
            Task::Remember(memory) => Some(Step::Remember(memory)),
        }
    }

    /// Takes what came of the step last named. `took` is in microseconds.
    ///
    /// # Errors
    /// A failure that ends the whole run.
    pub fn tell(&mut self, outcome: Outcome<Answer>, took: u64, now: i64) -> Result<(), Failure> {
        match outcome {
            Ok(answer) => {
                if self.pausing.take().is_some() {
                    return Ok(());
                }
                self.tries = 0;
                if std::mem::take(&mut self.dropping_proof) {
                    return Ok(());
                }
                if !self.ledger.records.is_empty() {
                    self.ledger.records.remove(0);
                    return Ok(());
                }
                match self.take(answer, took, now) {
                    Ok(true) => {}
                    Ok(false) => self.fail(Failure::new(
                        FailureKind::Table,
                        format!("table {}: a step was answered with something else", self.input.name),
                    )),
                    Err(failure) => self.fail(failure),
                }
            }
            Err(failure) => {
                let is_change = |step: Step<'_>| matches!(step, Step::Upload(_)) || step.deletes().is_some();
                self.lost += u64::from(self.step().is_some_and(is_change));
                match failure.kind {
                    FailureKind::Run => return Err(failure),
                    FailureKind::Table => self.fail(failure),
                    FailureKind::Passing => self.try_again(failure),
                }
            }
        }
        Ok(())
    }

    /// Stops after the batch under way.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    fn fail(&mut self, failure: Failure) {
        self.task = Task::None;
        self.stage = Stage::Over;
        self.failed = Some(failure);
    }

    fn try_again(&mut self, failure: Failure) {
        self.tries += 1;
        if self.tries >= self.ledger.settings.max_tries.max(1) || self.stop {
            return self.fail(failure);
        }
        let factor = 1u64.checked_shl(self.tries - 1).unwrap_or(u64::MAX);
        let pause = self.ledger.settings.retry_pause.saturating_mul(factor);
        self.ledger.events.push(Event::Retrying { failure, pause });
        self.pausing = Some(pause);
        if let Task::Excess(excess) = &mut self.task {
            excess.look_again(self.ledger.shape);
        }
    }

    /// Gives the answer to the task under way, and goes on to the next where it is done.
    fn take(&mut self, answer: Answer, took: u64, now: i64) -> Result<bool, Failure> {
        let understood = match (std::mem::replace(&mut self.task, Task::None), answer) {
            (Task::Ask, answer) => self.answered(answer),
            (Task::Compare(mut compare, purpose), answer) => {
                self.window_took.0 += took;
                if matches!(answer, Answer::Window(_)) {
                    self.window_took.1 = took;
                }
                let understood = compare.tell(answer, &self.ledger);
                if compare.step().is_some() {
                    self.task = Task::Compare(compare, purpose);
                    return Ok(understood);
                }
                self.compared(compare.finish(), purpose, now);
                understood
            }
            (Task::Sweep(mut sweep), answer) => {
                self.memory.sweep_took = self.memory.sweep_took.saturating_add(took);
                let understood = sweep.tell(answer, &self.ledger);
                if sweep.step().is_some() {
                    self.task = Task::Sweep(sweep);
                    return Ok(understood);
                }
                self.swept(sweep.finish());
                understood
            }
            (Task::KeptSweep(mut sweep), answer) => {
                self.memory.sweep_took = self.memory.sweep_took.saturating_add(took);
                let understood = sweep.tell(answer, &self.ledger);
                if sweep.step().is_some() {
                    self.task = Task::KeptSweep(sweep);
                    return Ok(understood);
                }
                self.swept_as_kept(sweep.finish());
                understood
            }
            (Task::Read(_), Answer::Batch(batch)) => {
                self.read(batch);
                true
            }
            (Task::Send(mut send), answer) => {
                let understood = send.tell(answer, took, &mut self.ledger)?;
                if send.step().is_some() {
                    self.task = Task::Send(send);
                    return Ok(understood);
                }
                understood
            }
            (Task::Upload(mut send), answer) => {
                let understood = send.tell(answer, took, &mut self.ledger)?;
                if send.step().is_some() {
                    self.task = Task::Upload(send);
                    return Ok(understood);
                }
                self.batch_is_done();
                understood
            }
            (Task::Waiting(mut send), answer) => {
                let understood = send.tell(answer, took, &mut self.ledger)?;
                if send.step().is_some() {
                    self.task = Task::Waiting(send);
                    return Ok(understood);
                }
                // Where some arrived, others may fit now.
                if self.ledger.counts().1 < self.waiting as u64 {
                    self.stage = Stage::Waiting;
                }
                understood
            }
            (Task::Excess(mut excess), answer) => {
                let understood = excess.tell(answer, took, &mut self.ledger)?;
                let late = excess.between() && (self.stop || now >= self.until.run);
                if late {
                    self.dropped |= excess.left() > 0;
                } else if excess.step().is_some() {
                    self.task = Task::Excess(excess);
                    return Ok(understood);
                }
                understood
            }
            (Task::Remember(memory), Answer::Done) => {
                self.saved = *memory;
                true
            }
            _ => false,
        };
        if understood {
            self.plan(now);
        }
        Ok(understood)
    }

    /// Grows whenever the target may have been changed.
    pub fn changes(&self) -> u64 {
        let report = &self.ledger.report;
        report.inserted + report.updated + report.deleted + self.lost
    }
}
