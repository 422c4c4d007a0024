//! Rows that only the target has: their keys are asked of the target and looked up on the source right
//! before the delete. A key that the source has is sent instead of deleted.
//!
//! A keyless table's rows have nothing to be looked up by. There both sides are asked once more what they have at
//! those positions, the source right before the delete, and only copies beyond the source's count are deleted.

use std::collections::HashMap;

use super::Event;
use super::ledger::Ledger;
use super::places::{joined, point};
use super::send::Send;
use super::step::{Answer, Step};
use crate::manifest::KeyedItem;
use crate::reconcile::{Question, Reply};
use crate::short::ShortItem;
use crate::store::{
    BatchKind, BatchRecord, Failure, PositionRange, SourceKey, SourceRecord, SourceWindow, TableShape,
};

#[derive(Debug)]
enum State {
    Keys,
    Lookup {
        keyed: Vec<KeyedItem>,
        keys: Vec<SourceKey>,
    },
    /// What the target has at these positions, which hold the rows.
    Remote {
        keyed: Vec<KeyedItem>,
        places: Vec<PositionRange>,
    },
    /// What the source has there.
    Local {
        keyed: Vec<KeyedItem>,
        places: Vec<PositionRange>,
        remote: Vec<ShortItem>,
    },
    Delete(Vec<KeyedItem>),
    Send(Box<Send>),
    Done,
}

/// Deals with rows that a comparison of this run found on the target alone.
#[derive(Debug)]
pub(super) struct Excess {
    rest: Vec<ShortItem>,
    chunk: Vec<ShortItem>,
    send: Vec<SourceRecord>,
    /// Rows looked up so far, and how many of them the source did not have.
    looked_up: (u64, u64),
    state: State,
}

impl Excess {
    pub fn new(items: Vec<ShortItem>, ledger: &mut Ledger) -> Self {
        let mut excess = Excess {
            rest: items,
            chunk: Vec::new(),
            send: Vec::new(),
            looked_up: (0, 0),
            state: State::Done,
        };
        excess.settle(ledger);
        excess
    }

    pub fn step(&self) -> Option<Step<'_>> {
        match &self.state {
            State::Keys => Some(Step::KeysOf(&self.chunk)),
            State::Lookup { keys, .. } => Some(Step::Lookup(keys)),
            State::Remote { places, .. } => Some(Step::Ask(Question::Items(places))),
            State::Local { places, .. } => Some(Step::ReadWindows { ranges: places, rows: u64::MAX }),
            State::Delete(rows) => Some(Step::Delete { rows, planned: self.planned(rows.len()) }),
            State::Send(send) => send.step(),
            State::Done => None,
        }
    }

    /// Whether it stands between two chunks, where a run may stop.
    pub fn between(&self) -> bool {
        matches!(self.state, State::Keys)
    }

    /// How many rows are still to be deleted, with the `now` at hand: of the rest as large a share as of what
    /// was looked up so far.
    fn planned(&self, now: usize) -> u64 {
        let (looked_up, gone) = self.looked_up;
        let rest = u128::from(gone) * self.rest.len() as u128 / u128::from(looked_up.max(1));
        u64::try_from(rest).unwrap_or(u64::MAX).saturating_add(now as u64)
    }

    /// Rows not yet dealt with.
    pub fn left(&self) -> usize {
        self.rest.len() + self.chunk.len()
    }

    /// Before a step is tried again: what was looked up a while ago says nothing of a delete now.
    pub fn look_again(&mut self, shape: TableShape) {
        match &mut self.state {
            State::Delete(keyed) | State::Local { keyed, .. } => {
                let keyed = std::mem::take(keyed);
                self.state = judging(keyed, shape);
            }
            _ => {}
        }
    }

    /// Takes an answer; `Ok(false)` where it is none to the step named.
    ///
    /// # Errors
    /// As [`Send::tell`].
    pub fn tell(&mut self, answer: Answer, took: u64, ledger: &mut Ledger) -> Result<bool, Failure> {
        match (std::mem::replace(&mut self.state, State::Done), answer) {
            (State::Keys, Answer::Keys(keyed)) => {
                self.chunk.clear();
                if !keyed.is_empty() {
                    self.state = judging(keyed, ledger.shape);
                    return Ok(true);
                }
            }
            (State::Remote { keyed, places }, Answer::Reply(Reply::Items(remote))) => {
                self.state = State::Local { keyed, places, remote };
                return Ok(true);
            }
            (State::Local { keyed, places, remote }, Answer::Windows(windows)) => {
                if !windows.iter().map(|window| window.range).eq(places) {
                    return Ok(false);
                }
                let gone = self.surplus(keyed, remote, &windows);
                if !gone.is_empty() {
                    self.state = State::Delete(gone);
                    return Ok(true);
                }
            }
            (State::Lookup { keyed, .. }, Answer::Found(found)) => {
                if found.len() != keyed.len() {
                    return Ok(false);
                }
                let gone = self.judge(keyed, found, ledger);
                if !gone.is_empty() {
                    self.state = State::Delete(gone);
                    return Ok(true);
                }
            }
            (State::Delete(_), Answer::Deleted(deleted)) => {
                ledger.report.deleted += deleted.deleted;
                ledger.report.held += deleted.held;
                ledger.report.blocked += deleted.blocked.len() as u64;
                ledger.events.push(Event::Deleted { rows: deleted.deleted });
                ledger.add_batch(BatchRecord {
                    kind: BatchKind::Delete,
                    rows: deleted.deleted,
                    bytes: 0,
                    micros: took,
                });
                // The guard is spent: asking for more would change nothing.
                if deleted.held > 0 {
                    self.rest.clear();
                }
            }
            (State::Send(mut send), answer) => {
                let understood = send.tell(answer, took, ledger)?;
                if send.step().is_some() {
                    self.state = State::Send(send);
                    return Ok(understood);
                }
            }
            _ => return Ok(false),
        }
        self.settle(ledger);
        Ok(true)
    }

    /// Sorts the target's rows into those to be deleted, answered, those to be sent, and those that stay.
    fn judge(
        &mut self,
        keyed: Vec<KeyedItem>,
        found: Vec<Option<SourceRecord>>,
        ledger: &mut Ledger,
    ) -> Vec<KeyedItem> {
        let mut gone = Vec::new();
        self.looked_up.0 += keyed.len() as u64;
        for (row, found) in keyed.into_iter().zip(found) {
            let Some(record) = found else {
                gone.push(row);
                continue;
            };
            let as_is = matches!(&record, SourceRecord::Row(local) if local.item == row.item);
            if as_is {
                continue;
            }
            let bad = matches!(record, SourceRecord::Bad(_));
            if bad || ledger.unchanged(&record).is_some() {
                ledger.keep(row.item, SourceKey::Encoded(row.key).id());
                // It is known, and no news.
                ledger.report.found_excess = ledger.report.found_excess.saturating_sub(1);
            }
            self.send.push(record);
        }
        self.looked_up.1 += gone.len() as u64;
        gone
    }

    /// The rows of which the target has more copies than the source, as often as it has more and they are listed.
    fn surplus(
        &mut self,
        keyed: Vec<KeyedItem>,
        remote: Vec<ShortItem>,
        windows: &[SourceWindow],
    ) -> Vec<KeyedItem> {
        let mut surplus: HashMap<ShortItem, i64> = HashMap::new();
        remote.into_iter().for_each(|item| *surplus.entry(item).or_default() += 1);
        let local = windows.iter().flat_map(|window| &window.items);
        local.for_each(|item| *surplus.entry(item.into()).or_default() -= 1);
        self.looked_up.0 += keyed.len() as u64;
        let mut gone = keyed;
        gone.retain(|row| {
            let left = surplus.entry(ShortItem::from(&row.item)).or_default();
            *left -= 1;
            *left >= 0
        });
        self.looked_up.1 += gone.len() as u64;
        gone
    }

    fn settle(&mut self, ledger: &mut Ledger) {
        if !self.send.is_empty() {
            let send = Send::records(std::mem::take(&mut self.send), ledger);
            if send.step().is_some() {
                self.state = State::Send(Box::new(send));
                return;
            }
        }
        if self.rest.is_empty() {
            self.state = State::Done;
            return;
        }
        let rest = self.rest.split_off(ledger.settings.delete_rows.max(1).min(self.rest.len()));
        self.chunk = std::mem::replace(&mut self.rest, rest);
        self.state = State::Keys;
    }
}

/// How it is found out which of these rows the source has not.
fn judging(keyed: Vec<KeyedItem>, shape: TableShape) -> State {
    if shape.keyless {
        let places = joined(keyed.iter().map(|row| point(row.item.position)).collect());
        return State::Remote { keyed, places };
    }
    let keys = keyed.iter().map(|row| SourceKey::Encoded(row.key.clone())).collect();
    State::Lookup { keyed, keys }
}
