//! Sends rows and deals with those that are not stored: rejected rows are recorded and passed by, waiting
//! rows are tried together with the row that holds the value they need, and else recorded to be tried again.

mod rejection;
mod sharing;

use std::collections::{HashMap, HashSet, VecDeque};

use super::Event;
use super::ledger::Ledger;
use super::step::{Answer, Step};
use crate::manifest::Item;
use crate::store::{
    BadRow, BatchKind, BatchRecord, Failure, FailureKind, KeyId, Refusal, Rejection, SourceKey, SourceRecord,
    SourceRow, TWICE_IN_UPLOAD, Uploaded,
};

/// How often holders of unique values are sought for one batch: the longest chain of swapped values.
const MAX_ROUNDS: u32 = 32;

/// Where the rows come from.
#[derive(Debug)]
enum Work {
    /// They were read.
    Records,
    /// They stand for these items of a window.
    Items(Vec<Item>),
    /// They have these keys: rows that were not stored before.
    Keys(Vec<SourceKey>),
}

#[derive(Debug)]
enum State {
    Items(Vec<Item>),
    Keys(Vec<SourceKey>),
    Upload,
    Holders(Vec<SourceKey>),
    /// Whether the missing rows in the queue share their keys with others.
    Sharing(Vec<SourceKey>),
    Reject,
    Clear,
    Done,
}

/// Sends rows, in batches.
#[derive(Debug)]
pub(super) struct Send {
    work: Work,
    /// Rows read and not yet dealt with.
    queue: VecDeque<SourceRecord>,
    batch: Vec<SourceRow>,
    /// For each row taken from the queue with the batch, in order: whether it can be uploaded.
    order: Vec<bool>,
    /// Uploads made of the batch, with the rows that joined it.
    round: u32,
    /// Keys of the rows uploaded in those.
    tried: HashSet<Vec<u8>>,
    waiting: Vec<(SourceRow, Refusal)>,
    /// Keys that several rows of an upload had.
    twice: Vec<SourceKey>,
    rejections: Vec<Rejection>,
    /// Rows of a keyless table that were rejected.
    rejected: HashSet<KeyId>,
    clear: Vec<KeyId>,
    state: State,
    stopping: Option<Failure>,
}

impl Send {
    /// Sends rows that were read.
    pub fn records(records: Vec<SourceRecord>, ledger: &mut Ledger) -> Self {
        let mut send = Self::empty(Work::Records);
        send.admit(records, false, ledger);
        send.settle(ledger);
        send
    }

    /// Sends the rows that these items of a window stand for, and records those that no encoding holds.
    pub fn items(items: Vec<Item>, bad: Vec<BadRow>, ledger: &mut Ledger) -> Self {
        let mut send = Self::empty(Work::Items(items));
        // They stand apart from their neighbours here, so they are none "in a row".
        bad.iter().for_each(|bad| ledger.note_bad(bad));
        let bad = bad.into_iter().map(|bad| SourceRecord::Bad(Box::new(bad)));
        let new = bad.filter(|record| ledger.unchanged(record).is_none());
        send.rejections.extend(new.filter_map(|record| match record {
            SourceRecord::Bad(bad) => Some(rejection::unreadable(*bad)),
            SourceRecord::Row(_) => None,
        }));
        send.settle(ledger);
        send
    }

    /// Looks again at rows that were not stored: those that changed or wait are sent, those that are gone
    /// are forgotten.
    pub fn keys(keys: Vec<SourceKey>, ledger: &mut Ledger) -> Self {
        let mut send = Self::empty(Work::Keys(keys));
        send.settle(ledger);
        send
    }

    fn empty(work: Work) -> Self {
        Send {
            work,
            queue: VecDeque::new(),
            batch: Vec::new(),
            order: Vec::new(),
            round: 0,
            tried: HashSet::new(),
            waiting: Vec::new(),
            twice: Vec::new(),
            rejections: Vec::new(),
            rejected: HashSet::new(),
            clear: Vec::new(),
            state: State::Done,
            stopping: None,
        }
    }

    pub fn step(&self) -> Option<Step<'_>> {
        match &self.state {
            State::Items(items) => Some(Step::RowsOf(items)),
            State::Keys(keys) | State::Holders(keys) => Some(Step::Lookup(keys)),
            State::Sharing(keys) => Some(Step::Sharing(keys)),
            State::Upload => Some(Step::Upload(&self.batch)),
            State::Reject => Some(Step::Reject(&self.rejections)),
            State::Clear => Some(Step::ClearRejected(&self.clear)),
            State::Done => None,
        }
    }

    /// Takes an answer; `Ok(false)` where it is none to the step named.
    ///
    /// # Errors
    /// Too many rejections in a row; they are recorded by then.
    pub fn tell(&mut self, answer: Answer, took: u64, ledger: &mut Ledger) -> Result<bool, Failure> {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Items(_), Answer::Rows(rows)) => {
                let keys = rows.iter().map(|row| SourceKey::Encoded(row.key.clone())).collect();
                self.admit(rows.into_iter().map(SourceRecord::Row).collect(), false, ledger);
                // Where several rows have one key, all but one are missing for ever.
                if !self.queue.is_empty() && !ledger.shape.keyless {
                    self.state = State::Sharing(keys);
                    return Ok(true);
                }
            }
            (State::Keys(keys), Answer::Found(found)) => {
                // A row that was found by its own key and is known by the encoded one now is another to the ledger.
                let gone = keys.iter().zip(&found).filter(|(key, found)| match found {
                    Some(SourceRecord::Row(_)) => matches!(key, SourceKey::Raw(_)) && !ledger.shape.keyless,
                    Some(SourceRecord::Bad(_)) => false,
                    None => true,
                });
                self.clear.extend(gone.map(|(key, _)| key.id()).filter(|id| ledger.is_known(id)));
                let found: Vec<SourceRecord> = found.into_iter().flatten().collect();
                found.iter().for_each(|record| ledger.note_found(record));
                // Which rows of a keyless table the target lacks, and how many of equal ones, windows alone tell.
                if !ledger.shape.keyless {
                    self.admit(found, true, ledger);
                }
            }
            (State::Upload, Answer::Uploaded(uploaded)) => {
                if let Some(next) = self.uploaded(uploaded, took, ledger) {
                    self.state = next;
                    return Ok(true);
                }
            }
            (State::Holders(_), Answer::Found(found)) => {
                ledger.holder_gone |= found.iter().any(Option::is_none);
                // A keyless row never lets go of a value, and would be added once more.
                let found = if ledger.shape.keyless { Vec::new() } else { found };
                // A holder whose present content was rejected cannot let go of the value.
                let movable =
                    |record: &SourceRecord| ledger.unchanged(record).is_none_or(|known| known.waits);
                let joined: Vec<SourceRow> = found
                    .into_iter()
                    .flatten()
                    .filter(movable)
                    .filter_map(|found| match found {
                        SourceRecord::Row(row) => Some(row),
                        SourceRecord::Bad(_) => None,
                    })
                    .collect();
                if !joined.is_empty() {
                    self.batch = self.waiting.drain(..).map(|(row, _)| row).chain(joined).collect();
                    self.state = State::Upload;
                    return Ok(true);
                }
            }
            (State::Sharing(_), Answer::Sharing(records)) => self.choose(records, ledger),
            (State::Reject, Answer::Done) => {
                for rejection in std::mem::take(&mut self.rejections) {
                    ledger.events.push(Event::Rejected {
                        key_text: rejection.key_text,
                        message: rejection.message,
                        waits: rejection.rejected.waits,
                    });
                    ledger.newly_rejected |= !ledger.is_known(&rejection.rejected.key_id);
                    ledger.note_rejected(rejection.rejected);
                }
            }
            (State::Clear, Answer::Done) => {
                for id in std::mem::take(&mut self.clear) {
                    ledger.forget_rejected(&id);
                }
            }
            _ => return Ok(false),
        }
        self.settle(ledger);
        if matches!(self.state, State::Done)
            && let Some(failure) = self.stopping.take()
        {
            return Err(failure);
        }
        Ok(true)
    }

    /// Takes rows up: those whose content was refused before are not sent again.
    fn admit(&mut self, mut records: Vec<SourceRecord>, again: bool, ledger: &Ledger) {
        let untried = |record: &SourceRecord| match record {
            SourceRecord::Row(row) => ledger.shape.keyless && !ledger.is_refused(&row.item),
            SourceRecord::Bad(_) => false,
        };
        let read = matches!(self.work, Work::Records);
        let is_double = |record: &SourceRecord| match record {
            SourceRecord::Row(row) => read && ledger.is_double(&row.item),
            SourceRecord::Bad(_) => false,
        };
        records.retain(|record| {
            !is_double(record)
                && ledger.unchanged(record).is_none_or(|known| known.waits && (again || untried(record)))
        });
        self.queue = records.into();
    }

    /// Goes to the next thing to be done.
    fn settle(&mut self, ledger: &mut Ledger) {
        if !self.twice.is_empty() {
            self.state = State::Sharing(std::mem::take(&mut self.twice));
            return;
        }
        self.state = if !self.take_batch(ledger).is_empty() {
            self.round = 0;
            self.tried.clear();
            State::Upload
        } else {
            for (row, refusal) in std::mem::take(&mut self.waiting) {
                let rejection = rejection::refused(row, refusal);
                // One that waits as before is remembered already.
                if ledger.knows(&rejection.rejected) {
                    ledger.note_refused(&rejection.rejected);
                } else {
                    self.rejections.push(rejection);
                }
            }
            // Equal rows without a key are remembered once.
            let mut ids = HashSet::new();
            self.rejections.retain(|rejection| ids.insert(rejection.rejected.key_id));
            self.clear.retain(|id| !ids.contains(id));
            if !self.rejections.is_empty() {
                State::Reject
            } else if !self.clear.is_empty() {
                State::Clear
            } else if self.stopping.is_some() {
                State::Done
            } else {
                let rows = ledger.fetch_rows();
                match &mut self.work {
                    Work::Items(items) if !items.is_empty() => State::Items(take_front(items, rows)),
                    Work::Keys(keys) if !keys.is_empty() => State::Keys(take_front(keys, rows)),
                    _ => State::Done,
                }
            }
        };
    }

    fn take_batch(&mut self, ledger: &mut Ledger) -> &[SourceRow] {
        self.batch.clear();
        self.order.clear();
        // What was refused is dealt with before more is sent.
        if !self.waiting.is_empty() || !self.rejections.is_empty() || self.stopping.is_some() {
            return &self.batch;
        }
        let limit = ledger.next_batch();
        let mut bytes = 0;
        while let Some(record) = self.queue.pop_front() {
            match record {
                SourceRecord::Bad(bad) => {
                    ledger.note_bad(&bad);
                    if self.is_news(bad.key.id(), ledger) {
                        self.order.push(false);
                        self.rejections.push(rejection::unreadable(*bad));
                    }
                }
                SourceRecord::Row(row) => {
                    bytes += row.row.len();
                    if !self.batch.is_empty() && (bytes > limit.bytes || self.batch.len() >= limit.rows) {
                        self.queue.push_front(SourceRecord::Row(row));
                        break;
                    }
                    self.order.push(true);
                    self.batch.push(row);
                }
            }
        }
        if self.batch.is_empty() {
            for _ in 0..std::mem::take(&mut self.order).len() {
                self.count_rejection(ledger);
            }
        }
        &self.batch
    }

    /// Whether a row that is rejected was not met before: of a keyless table's equal rows one counts.
    fn is_news(&mut self, row: KeyId, ledger: &Ledger) -> bool {
        !ledger.shape.keyless || self.rejected.insert(row)
    }

    fn count_rejection(&mut self, ledger: &mut Ledger) {
        // Rows that were rejected before say nothing of the others.
        if matches!(self.work, Work::Keys(_)) {
            return;
        }
        ledger.rejected_in_a_row += 1;
        if ledger.rejected_in_a_row >= ledger.settings.max_rejections_in_a_row && self.stopping.is_none() {
            let latest =
                self.rejections.last().map(|rejection| format!(", the latest because {}", rejection.message));
            let mut failure = Failure::new(
                FailureKind::Table,
                format!(
                    "{} rows in a row were rejected{}",
                    ledger.rejected_in_a_row,
                    latest.unwrap_or_default()
                ),
            );
            failure.hint = Some("compare the columns of both sides, then run again".to_owned());
            self.stopping = Some(failure);
        }
    }

    /// Takes the result of an upload in; answers the state to go to, where it is not the usual next.
    fn uploaded(&mut self, uploaded: Uploaded, took: u64, ledger: &mut Ledger) -> Option<State> {
        let batch = std::mem::take(&mut self.batch);
        let (rows, bytes) = (batch.len() as u64, batch.iter().map(|row| row.row.len() as u64).sum());
        let clean = uploaded.refused.is_empty() && uploaded.held == 0;
        ledger.report.inserted += uploaded.inserted;
        ledger.report.updated += uploaded.updated;
        ledger.report.unchanged += uploaded.unchanged;
        ledger.report.held += uploaded.held;
        ledger.sent_rows += rows;
        ledger.events.push(Event::Uploaded { rows, bytes, total_rows: ledger.sent_rows });
        let mut refused: HashMap<usize, Refusal> =
            uploaded.refused.into_iter().map(|refusal| (refusal.ordinal, refusal)).collect();
        let mut order = std::mem::take(&mut self.order).into_iter();
        let may_clear = uploaded.held == 0 && ledger.knows_any();
        for (ordinal, row) in batch.into_iter().enumerate() {
            for _ in order.by_ref().take_while(|is_row| !is_row) {
                self.count_rejection(ledger);
            }
            let refusal = if refused.is_empty() { None } else { refused.remove(&ordinal) };
            match refusal {
                None => {
                    ledger.rejected_in_a_row = 0;
                    // An identity costs a hash.
                    let id = may_clear.then(|| SourceKey::Encoded(row.key).id());
                    self.clear.extend(id.filter(|id| ledger.is_known(id)));
                }
                Some(refusal) if refusal.sqlstate == TWICE_IN_UPLOAD => {
                    self.twice.push(SourceKey::Encoded(row.key));
                }
                Some(refusal) if refusal.waits => self.waiting.push((row, refusal)),
                Some(refusal) => {
                    let rejection = rejection::refused(row, refusal);
                    let is_news = self.round == 0 && self.is_news(rejection.rejected.key_id, ledger);
                    self.rejections.push(rejection);
                    if is_news {
                        self.count_rejection(ledger);
                    }
                }
            }
        }
        for _ in order {
            self.count_rejection(ledger);
        }
        // What a batch with refused rows took says nothing of the next one.
        if clean {
            ledger.add_batch(BatchRecord { kind: BatchKind::Upload, rows, bytes, micros: took });
        }
        self.holders().map(State::Holders)
    }

    /// The rows that hold values which waiting rows need, and were not yet sent with them.
    fn holders(&mut self) -> Option<Vec<SourceKey>> {
        self.tried.extend(self.waiting.iter().map(|(row, _)| row.key.clone()));
        self.round += 1;
        let mut holders = Vec::new();
        for (_, refusal) in &self.waiting {
            if let Some(holder) = &refusal.holder
                && self.tried.insert(holder.clone())
            {
                holders.push(SourceKey::Encoded(holder.clone()));
            }
        }
        (!holders.is_empty() && self.round < MAX_ROUNDS).then_some(holders)
    }
}

/// Takes so many off the front of a list.
pub(super) fn take_front<T>(list: &mut Vec<T>, count: usize) -> Vec<T> {
    let rest = list.split_off(count.min(list.len()));
    std::mem::replace(list, rest)
}
