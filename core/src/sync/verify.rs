//! `verify`: a full comparison that changes nothing and tells of each row that differs.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Settings;
use super::compare::Piece;
use super::places::{beyond, joined};
use super::report::{Difference, DifferenceKind, VerifyReport};
use super::step::{Answer, Sides, Step};
use super::survey::{KEYS_AT_ONCE, Keyed, Survey, unexpected};
use crate::manifest::Item;
use crate::short::ShortItem;
use crate::store::{BadRow, KeyId, Outcome, PositionRange, SourceKey, SourceRecord, TableId, TableShape};

/// How long `verify` waits before it reads differences a second time, in microseconds.
const SECOND_LOOK: u64 = 100_000;
/// Places that are looked at a second time together, at most.
const MOST_PLACES: usize = 4_096;
/// Rows that are known to have been told of, at most: where so many differ, one more or less says nothing.
const MOST_TOLD: usize = 100_000;

/// Rows that were seen to differ, once or twice.
#[derive(Default)]
struct Suspects {
    missing: Vec<Item>,
    excess: Vec<ShortItem>,
    bad: Vec<BadRow>,
    /// Where they stand.
    places: Vec<PositionRange>,
}

impl Suspects {
    fn add(&mut self, piece: Piece) {
        self.places.extend(piece.places);
        self.missing.extend(piece.missing);
        self.excess.extend(piece.excess);
        self.bad.extend(piece.bad);
    }

    fn rows(&self) -> usize {
        self.missing.len() + self.excess.len() + self.bad.len()
    }

    /// Leaves those that a second reading of the same places found too, and these bad ones.
    fn also_in(self, again: &Suspects, bad: Vec<BadRow>) -> Suspects {
        let (missing, excess) = (both(self.missing, &again.missing), both(self.excess, &again.excess));
        Suspects { missing, excess, bad, places: self.places }
    }
}

/// What both readings have in common; of equal rows as many as both have.
fn both<T: Eq + Hash>(mut first: Vec<T>, second: &[T]) -> Vec<T> {
    let mut copies: HashMap<&T, usize> = HashMap::new();
    second.iter().for_each(|item| *copies.entry(item).or_default() += 1);
    first.retain(|item| match copies.get_mut(item) {
        Some(copies) if *copies > 0 => {
            *copies -= 1;
            true
        }
        _ => false,
    });
    first
}

/// What is told of a comparison.
struct Telling<'a> {
    report: VerifyReport,
    on_difference: &'a mut dyn FnMut(Difference),
    /// Rows that the target would not take in earlier runs.
    rejected: HashSet<KeyId>,
    /// Rows of the source that were told of.
    told: HashSet<KeyId>,
}

impl Telling<'_> {
    /// Whether nothing was told of a row of the source so far; from now on it was.
    fn is_news(&mut self, row: KeyId) -> bool {
        match self.told.len() < MOST_TOLD {
            true => self.told.insert(row),
            false => !self.told.contains(&row),
        }
    }

    /// Tells of the rows of a keyless table, each copy of equal ones: none of them is another one altered.
    fn tell_keyless(&mut self, bad: Vec<BadRow>, mut keyed: Keyed) {
        for row in bad {
            self.tell_bad(row);
        }
        keyed.missing.sort_unstable_by(|a, b| (a.1.position, &a.0).cmp(&(b.1.position, &b.0)));
        for (key, item) in keyed.missing {
            let id = SourceKey::Encoded(key.clone()).id();
            let rejected = self.rejected.contains(&id);
            let kind = if rejected { DifferenceKind::Rejected } else { DifferenceKind::Missing };
            self.tell(kind, Some(item.position), key);
        }
        keyed.excess.sort_unstable_by(|a, b| (a.1.position, &a.0).cmp(&(b.1.position, &b.0)));
        for (key, item) in keyed.excess {
            self.tell(DifferenceKind::Excess, Some(item.position), key);
        }
    }

    fn tell_bad(&mut self, row: BadRow) {
        let (key_text, reason) = (Some(row.key_text), Some(row.message));
        let (kind, key) = (DifferenceKind::Rejected, encoded(row.key));
        self.tell_of(Difference { kind, position: row.position, key, key_text, reason });
    }

    fn tell(&mut self, kind: DifferenceKind, position: Option<i64>, key: Vec<u8>) {
        self.tell_of(Difference { kind, position, key, key_text: None, reason: None });
    }

    fn tell_of(&mut self, difference: Difference) {
        let kind = difference.kind;
        match kind {
            DifferenceKind::Missing => self.report.missing += 1,
            DifferenceKind::Excess => self.report.excess += 1,
            DifferenceKind::Altered => self.report.altered += 1,
            DifferenceKind::Rejected => self.report.rejected += 1,
        }
        (self.on_difference)(difference);
    }
}

/// The encoded key; nothing where there is none.
fn encoded(key: SourceKey) -> Vec<u8> {
    match key {
        SourceKey::Encoded(key) => key,
        SourceKey::Raw(_) | SourceKey::Long(_) => Vec::new(),
    }
}

/// Compares all rows of a table.
pub(super) fn verify(
    sides: &mut Sides<'_>,
    settings: &Settings,
    table: (TableId, TableShape),
    on_difference: &mut dyn FnMut(Difference),
) -> Outcome<VerifyReport> {
    let mut survey = Survey::new(sides, settings, table);
    let Answer::Rejected(rejected) = survey.ask(Step::Rejected)? else { return Err(unexpected()) };
    let rejected = rejected.into_iter().map(|row| row.key_id).collect();
    let (report, told) = (VerifyReport::default(), HashSet::new());
    let mut telling = Telling { report, on_difference, rejected, told };
    let mut suspects = Suspects::default();
    let (mut rest, rows) = survey.begin()?;
    telling.report.rows += rows;
    loop {
        survey.stopping()?;
        let Some(piece) = survey.next(&mut rest)? else { break };
        telling.report.rows += piece.rows;
        suspects.add(piece);
        let full = suspects.places.len() > MOST_PLACES || suspects.rows() > settings.max_excess_rows;
        if full || rest.is_none() {
            survey.look_again(std::mem::take(&mut suspects), &mut telling)?;
        }
    }
    let mut report = telling.report;
    report.level = report.missing + report.excess + report.altered + report.rejected == 0;
    Ok(report)
}

impl Survey<'_, '_> {
    /// Tells of the rows that still differ after a pause: some may have been on their way.
    fn look_again(&mut self, mut first: Suspects, telling: &mut Telling<'_>) -> Outcome<()> {
        if first.rows() == 0 {
            return Ok(());
        }
        self.sides.world.pause(SECOND_LOOK);
        let mut again = Suspects::default();
        let mut places = joined(first.places.clone());
        while !places.is_empty() {
            self.stopping()?;
            let piece = self.piece(places.clone())?;
            places = beyond(&places, piece.range.to);
            again.add(piece);
        }
        let bad = self.still_bad(std::mem::take(&mut first.bad))?;
        self.tell(first.also_in(&again, bad), telling)
    }

    /// Those that no encoding holds now either, whatever has become of their content and position.
    fn still_bad(&mut self, rows: Vec<BadRow>) -> Outcome<Vec<BadRow>> {
        let keys: Vec<_> = rows.iter().map(|row| row.key.clone()).collect();
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS_AT_ONCE) {
            self.stopping()?;
            found.extend(
                self.lookup(keys)?.into_iter().map(|found| matches!(found, Some(SourceRecord::Bad(_)))),
            );
        }
        Ok(rows.into_iter().zip(found).filter_map(|(row, is_bad)| is_bad.then_some(row)).collect())
    }

    fn tell(&mut self, suspects: Suspects, telling: &mut Telling<'_>) -> Outcome<()> {
        let keyed = self.keys(&suspects.missing, &suspects.excess)?;
        if self.ledger.shape.keyless {
            telling.tell_keyless(suspects.bad, keyed);
            return Ok(());
        }
        let mut excess: HashMap<Vec<u8>, Item> = keyed.excess.into_iter().collect();
        for row in suspects.bad {
            telling.is_news(row.key.id());
            if let SourceKey::Encoded(key) = &row.key {
                excess.remove(key);
            }
            telling.tell_bad(row);
        }
        let mut missing: Vec<_> = keyed.missing;
        let mut doubles = self.doubles(&missing)?;
        missing.sort_unstable_by(|a, b| (a.1.position, &a.0).cmp(&(b.1.position, &b.0)));
        for (key, item) in missing {
            // Its key is what the target has for another row: that one is not altered by it.
            if let Some(double) = doubles.get_mut(&item).and_then(Vec::pop) {
                if telling.is_news(double.key.id()) {
                    telling.tell_bad(double);
                }
                continue;
            }
            let altered = excess.remove(&key).is_some();
            let id = SourceKey::Encoded(key.clone()).id();
            if !telling.is_news(id) {
                continue;
            }
            let kind = if telling.rejected.contains(&id) {
                DifferenceKind::Rejected
            } else if altered {
                DifferenceKind::Altered
            } else {
                DifferenceKind::Missing
            };
            telling.tell(kind, Some(item.position), key);
        }
        self.tell_excess(excess, telling)
    }

    /// Tells of rows that the target had both times and the source had not, whatever it has of them by now: a row that
    /// changes all the time is never the same at two looks.
    fn tell_excess(&mut self, excess: HashMap<Vec<u8>, Item>, telling: &mut Telling<'_>) -> Outcome<()> {
        let mut excess: Vec<_> = excess.into_iter().collect();
        excess.sort_unstable_by(|a, b| (a.1.position, &a.0).cmp(&(b.1.position, &b.0)));
        let keys: Vec<_> = excess.iter().map(|(key, _)| SourceKey::Encoded(key.clone())).collect();
        for (rows, keys) in excess.chunks(KEYS_AT_ONCE).zip(keys.chunks(KEYS_AT_ONCE)) {
            let found = self.lookup(keys)?;
            for ((key, item), (id, found)) in rows.iter().zip(keys.iter().map(SourceKey::id).zip(found)) {
                let (kind, position) = match found {
                    None => (DifferenceKind::Excess, Some(item.position)),
                    Some(SourceRecord::Row(row)) if row.item == *item => continue,
                    // Told of where the source has it.
                    Some(_) if telling.told.len() >= MOST_TOLD || !telling.is_news(id) => continue,
                    Some(SourceRecord::Bad(bad)) => (DifferenceKind::Rejected, bad.position),
                    Some(SourceRecord::Row(row)) if telling.rejected.contains(&id) => {
                        (DifferenceKind::Rejected, Some(row.item.position))
                    }
                    Some(SourceRecord::Row(row)) => (DifferenceKind::Altered, Some(row.item.position)),
                };
                telling.tell(kind, position, key.clone());
            }
        }
        Ok(())
    }

    /// Of rows that the target lacks, those in whose place it has another row: both have one key once they are encoded.
    fn doubles(&mut self, missing: &[(Vec<u8>, Item)]) -> Outcome<HashMap<Item, Vec<BadRow>>> {
        let mut doubles: HashMap<Item, Vec<BadRow>> = HashMap::new();
        if missing.is_empty() {
            return Ok(doubles);
        }
        // All at once: for each question the source may read all its keys.
        let keys: Vec<_> = missing.iter().map(|(key, _)| SourceKey::Encoded(key.clone())).collect();
        let Answer::Sharing(records) = self.ask(Step::Sharing(&keys))? else { return Err(unexpected()) };
        for record in records {
            if let SourceRecord::Bad(bad) = record
                && let Some(position) = bad.position
            {
                let item = Item { position, digest: bad.source_digest };
                doubles.entry(item).or_default().push(*bad);
            }
        }
        Ok(doubles)
    }
}
