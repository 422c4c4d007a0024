//! Rows that only the target has: their keys are asked of the target and looked up on the source right
//! before the delete. A key that the source has is sent instead of deleted. A row that is there as before when the source's
//! was sent, and is still the source's, may be one of several of its key: it is deleted where the other one is found.
//!
//! A keyless table's rows have nothing to be looked up by. There both sides are asked once more what they have at
//! those positions, the source right before the deletes, and only copies beyond the source's count are deleted. The source
//! may read all its rows for that, so the rows of several deletes are judged together.

use std::collections::{HashMap, HashSet};

use super::Event;
use super::ledger::Ledger;
use super::places::{joined, point};
use super::send::{Send, take_front};
use super::step::{Answer, Step};
use crate::manifest::KeyedItem;
use crate::reconcile::{Question, Reply};
use crate::short::ShortItem;
use crate::store::{
    BatchKind, BatchRecord, Failure, PositionRange, SourceKey, SourceRecord, SourceWindow, Surplus,
    TableShape,
};

/// So many deletes' rows of a keyless table are judged together: a delete is soon after it was judged, and a pass over a
/// large source seldom.
const DELETES_AT_ONCE: usize = 20;
/// Bytes of the keys of such rows, about: a keyless row is its own key.
const KEY_BYTES_AT_ONCE: usize = 4 << 20;
/// Positions that the target is asked about at once.
const PLACES_AT_ONCE: usize = 1_000;

#[derive(Debug)]
enum State {
    Keys,
    Lookup {
        keyed: Vec<KeyedItem>,
        keys: Vec<SourceKey>,
    },
    /// What the target has at these positions, which hold the rows; of the first ones it is known.
    Remote {
        places: Vec<PositionRange>,
        known: usize,
        remote: Vec<ShortItem>,
    },
    /// What the source has there.
    Local {
        places: Vec<PositionRange>,
        remote: Vec<ShortItem>,
    },
    Delete(Vec<KeyedItem>),
    Surplus(Vec<Surplus>),
    Send(Box<Send>),
    Done,
}

/// Deals with rows that a comparison of this run found on the target alone.
#[derive(Debug)]
pub(super) struct Excess {
    rest: Vec<ShortItem>,
    chunk: Vec<ShortItem>,
    /// Rows of a keyless table that are judged together, or were, and are to be deleted.
    keyed: Vec<KeyedItem>,
    send: Vec<SourceRecord>,
    /// Rows beside each of which there should be another one of its key.
    surplus: Vec<Surplus>,
    /// Rows looked up so far, and how many of them the source did not have.
    looked_up: (u64, u64),
    state: State,
}

impl Excess {
    pub fn new(items: Vec<ShortItem>, ledger: &mut Ledger) -> Self {
        let mut excess = Excess {
            rest: items,
            chunk: Vec::new(),
            keyed: Vec::new(),
            send: Vec::new(),
            surplus: Vec::new(),
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
            State::Remote { places, known, .. } => {
                Some(Step::Ask(Question::Items(next_places(places, *known))))
            }
            State::Local { places, .. } => Some(Step::ReadWindows { ranges: places, rows: u64::MAX }),
            State::Delete(rows) => Some(Step::Delete { rows, planned: self.planned(rows.len()) }),
            State::Surplus(rows) => Some(Step::DeleteSurplus { rows, planned: self.planned(rows.len()) }),
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
        u64::try_from(rest)
            .unwrap_or(u64::MAX)
            .saturating_add((now + self.keyed.len() + self.surplus.len()) as u64)
    }

    /// Rows not yet dealt with.
    pub fn left(&self) -> usize {
        self.rest.len() + self.chunk.len() + self.keyed.len() + self.surplus.len()
    }

    /// Before a step is tried again: what was looked up a while ago says nothing of a delete now.
    pub fn look_again(&mut self, shape: TableShape) {
        match &mut self.state {
            State::Delete(keyed) if shape.keyless => {
                self.keyed.append(keyed);
                self.state = self.judging();
            }
            State::Delete(keyed) => self.state = looking_up(std::mem::take(keyed)),
            State::Local { .. } => self.state = self.judging(),
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
                if ledger.shape.keyless {
                    self.keyed.extend(keyed);
                    if self.gather(ledger) {
                        return Ok(true);
                    }
                } else if !keyed.is_empty() {
                    self.state = looking_up(keyed);
                    return Ok(true);
                }
            }
            (State::Remote { places, known, mut remote }, Answer::Reply(Reply::Items(items))) => {
                let known = known + next_places(&places, known).len();
                remote.extend(items);
                self.state = match known < places.len() {
                    true => State::Remote { places, known, remote },
                    false => State::Local { places, remote },
                };
                return Ok(true);
            }
            (State::Local { places, remote }, Answer::Windows(windows)) => {
                if !windows.iter().map(|window| window.range).eq(places) {
                    return Ok(false);
                }
                self.leave_surplus(remote, &windows);
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
            (State::Delete(_) | State::Surplus(_), Answer::Deleted(deleted)) => {
                ledger.report.deleted += deleted.deleted;
                ledger.report.held += deleted.held;
                ledger.report.blocked += deleted.blocked.len() as u64;
                ledger.blocked_by = ledger.blocked_by.take().or(deleted.why);
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
                    self.keyed.clear();
                    self.surplus.clear();
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
        let (mut gone, mut sent) = (Vec::new(), HashSet::new());
        let (mut answered, mut surplus) = (Vec::new(), Vec::new());
        self.looked_up.0 += keyed.len() as u64;
        for (row, found) in keyed.into_iter().zip(found) {
            let Some(record) = found else {
                gone.push(row);
                continue;
            };
            let bad = matches!(record, SourceRecord::Bad(_));
            let stays = bad || ledger.unchanged(&record).is_some();
            // What the guard held back was offered once; offered again it would be counted again.
            if ledger.settings.keys_repeat && ledger.report.held > 0 && !stays {
                continue;
            }
            if let SourceRecord::Row(local) = &record
                && ledger.settings.keys_repeat
                && !stays
            {
                let (id, digest) = (SourceKey::Encoded(row.key.clone()).id(), local.item.digest);
                if ledger.is_answered(id, row.item, digest) {
                    surplus.push((id, row.item));
                    self.surplus.push(Surplus { row, stored: digest });
                    continue;
                }
                answered.push((id, row.item, digest));
                // Of several of one key each is made the source's in its turn.
                if local.item != row.item && !sent.insert(id) {
                    continue;
                }
            }
            let as_is = matches!(&record, SourceRecord::Row(local) if local.item == row.item);
            if as_is {
                continue;
            }
            if stays {
                ledger.keep(row.item, SourceKey::Encoded(row.key).id());
                // It is known, and no news.
                ledger.report.found_excess = ledger.report.found_excess.saturating_sub(1);
            }
            self.send.push(record);
        }
        self.looked_up.1 += (gone.len() + surplus.len()) as u64;
        surplus.iter().for_each(|(id, item)| ledger.forget_answer(*id, *item));
        answered.into_iter().for_each(|(id, item, digest)| ledger.answer(id, item, digest));
        gone
    }

    /// Leaves the rows of which the target has more copies than the source, as often as it has more and they are listed.
    fn leave_surplus(&mut self, remote: Vec<ShortItem>, windows: &[SourceWindow]) {
        let mut surplus: HashMap<ShortItem, i64> = HashMap::new();
        remote.into_iter().for_each(|item| *surplus.entry(item).or_default() += 1);
        let local = windows.iter().flat_map(|window| &window.items);
        local.for_each(|item| *surplus.entry(item.into()).or_default() -= 1);
        self.looked_up.0 += self.keyed.len() as u64;
        self.keyed.retain(|row| {
            let left = surplus.entry(ShortItem::from(&row.item)).or_default();
            *left -= 1;
            *left >= 0
        });
        self.looked_up.1 += self.keyed.len() as u64;
    }

    /// Goes on to more rows of a keyless table that are judged together, or to judge them; `false` where there are none.
    fn gather(&mut self, ledger: &Ledger) -> bool {
        let rows = ledger.settings.delete_rows.max(1);
        let bytes: usize = self.keyed.iter().map(|row| row.key.len()).sum();
        let full = self.keyed.len() >= rows.saturating_mul(DELETES_AT_ONCE) || bytes >= KEY_BYTES_AT_ONCE;
        if !full && !self.rest.is_empty() {
            self.chunk = take_front(&mut self.rest, rows);
            self.state = State::Keys;
        } else if !self.keyed.is_empty() {
            self.state = self.judging();
        }
        !matches!(self.state, State::Done)
    }

    /// How it is found out which of a keyless table's rows the source has not, or less often.
    fn judging(&self) -> State {
        let places = joined(self.keyed.iter().map(|row| point(row.item.position)).collect());
        State::Remote { places, known: 0, remote: Vec::new() }
    }

    fn settle(&mut self, ledger: &mut Ledger) {
        if !self.send.is_empty() {
            let send = Send::records(std::mem::take(&mut self.send), ledger);
            if send.step().is_some() {
                self.state = State::Send(Box::new(send));
                return;
            }
        }
        let rows = ledger.settings.delete_rows.max(1);
        self.state = if !self.surplus.is_empty() {
            State::Surplus(take_front(&mut self.surplus, rows))
        } else if !self.keyed.is_empty() {
            State::Delete(take_front(&mut self.keyed, rows))
        } else if !self.rest.is_empty() {
            self.chunk = take_front(&mut self.rest, rows);
            State::Keys
        } else {
            State::Done
        };
    }
}

/// As many places as may be asked about at once, behind those of which it is known.
fn next_places(places: &[PositionRange], known: usize) -> &[PositionRange] {
    let rest = places.get(known..).unwrap_or_default();
    &rest[..rest.len().min(PLACES_AT_ONCE)]
}

/// How it is found out which of these rows the source has not.
fn looking_up(keyed: Vec<KeyedItem>) -> State {
    let keys = keyed.iter().map(|row| SourceKey::Encoded(row.key.clone())).collect();
    State::Lookup { keyed, keys }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::RowDigest;
    use crate::manifest::Item;
    use crate::store::{Deleted, SourceRow, Uploaded};
    use crate::sync::Settings;

    /// Rows of the target as they are seen: all the same where no encoding holds them.
    fn unreadable(key: u8) -> KeyedItem {
        KeyedItem { item: Item { position: 7, digest: RowDigest([0; 32]) }, key: vec![key] }
    }

    fn found(key: u8, content: u8) -> Option<SourceRecord> {
        let item = Item { position: i64::from(content), digest: RowDigest([content; 32]) };
        Some(SourceRecord::Row(SourceRow { item, key: vec![key], row: vec![key, content] }))
    }

    fn ledger() -> Ledger {
        Ledger::new(Settings { keys_repeat: true, ..Settings::default() }, TableShape::default())
    }

    fn tell(excess: &mut Excess, ledger: &mut Ledger, answer: Answer) {
        assert!(excess.tell(answer, 1, ledger).expect("no failure"), "{excess:?}");
    }

    /// These rows are looked up; what is done about them then.
    fn looked_up(rows: &[KeyedItem], found: Vec<Option<SourceRecord>>, ledger: &mut Ledger) -> Excess {
        let items = rows.iter().map(|row| ShortItem::from(&row.item)).collect();
        let mut excess = Excess::new(items, ledger);
        tell(&mut excess, ledger, Answer::Keys(rows.to_vec()));
        tell(&mut excess, ledger, Answer::Found(found));
        excess
    }

    fn sent(excess: &Excess) -> Vec<u8> {
        match excess.step() {
            Some(Step::Upload(rows)) => rows.iter().map(|row| row.key[0]).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_that_look_alike_are_each_made_the_sources() {
        let (rows, mut ledger) = ([1, 2, 3].map(unreadable), ledger());
        let mut excess = looked_up(&rows, vec![found(1, 10), found(2, 20), found(3, 30)], &mut ledger);
        assert_eq!(sent(&excess), [1, 2, 3]);
        tell(&mut excess, &mut ledger, Answer::Uploaded(Uploaded { updated: 3, ..Uploaded::default() }));
        assert_eq!(excess.step(), None);
    }

    #[test]
    fn what_is_still_there_when_it_was_sent_goes_beside_the_row_that_was_sent() {
        let (rows, mut ledger) = ([1, 1, 2].map(unreadable), ledger());
        // One row for two that are one on the source.
        let mut excess = looked_up(&rows, vec![found(1, 10), found(1, 10), found(2, 20)], &mut ledger);
        assert_eq!(sent(&excess), [1, 2]);
        tell(&mut excess, &mut ledger, Answer::Uploaded(Uploaded { updated: 2, ..Uploaded::default() }));
        let excess = looked_up(&rows[1..2], vec![found(1, 10)], &mut ledger);
        let stored = RowDigest([10; 32]);
        let surplus = [Surplus { row: unreadable(1), stored }];
        assert_eq!(excess.step(), Some(Step::DeleteSurplus { rows: &surplus, planned: 1 }));
        // It was not deleted, and stands alone for all that is known.
        let mut excess = looked_up(&rows[1..2], vec![found(1, 10)], &mut ledger);
        assert_eq!(sent(&excess), [1]);
        tell(&mut excess, &mut ledger, Answer::Uploaded(Uploaded { updated: 1, ..Uploaded::default() }));
        // The source's row is another one by now, which was not sent.
        let mut excess = looked_up(&rows[1..2], vec![found(1, 11)], &mut ledger);
        assert_eq!(sent(&excess), [1]);
        tell(&mut excess, &mut ledger, Answer::Uploaded(Uploaded::default()));
        let mut excess = looked_up(&rows[1..2], vec![found(1, 11)], &mut ledger);
        tell(&mut excess, &mut ledger, Answer::Deleted(Deleted { held: 1, ..Deleted::default() }));
        assert_eq!((excess.step(), ledger.report.held), (None, 1));
    }

    #[test]
    fn a_source_whose_keys_do_not_repeat_on_the_target_is_sent_each_time() {
        let (row, mut ledger) = ([unreadable(1)], ledger());
        ledger.settings.keys_repeat = false;
        for _ in 0..3 {
            assert_eq!(sent(&looked_up(&row, vec![found(1, 10)], &mut ledger)), [1]);
        }
    }
}
