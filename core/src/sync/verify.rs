//! `verify`: a full comparison that changes nothing and tells of each row that differs.

use std::collections::HashSet;
use std::hash::Hash;

use super::Settings;
use super::compare::Piece;
use super::places::{beyond, joined, point};
use super::report::{Difference, DifferenceKind, VerifyReport};
use super::step::{Answer, Sides, Step};
use super::survey::{KEYS_AT_ONCE, Survey, unexpected};
use crate::manifest::Item;
use crate::short::ShortItem;
use crate::store::{BadRow, KeyId, Outcome, PositionRange, SourceKey, TableId};

/// How long `verify` waits before it reads differences a second time, in microseconds.
const SECOND_LOOK: u64 = 100_000;
/// Places that are looked at a second time together, at most.
const MOST_PLACES: usize = 4_096;

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
        self.places.extend(piece.bad.iter().map(|bad| match bad.position {
            Some(position) => point(position),
            // The source tells of rows that stand nowhere where the axis begins.
            None => PositionRange { from: None, to: i64::MIN.checked_add(1) },
        }));
        self.missing.extend(piece.missing);
        self.excess.extend(piece.excess);
        self.bad.extend(piece.bad);
    }

    fn rows(&self) -> usize {
        self.missing.len() + self.excess.len() + self.bad.len()
    }

    /// Leaves those that a second reading of the same places found too.
    fn also_in(self, again: &Suspects) -> Suspects {
        let bad: HashSet<_> = again.bad.iter().map(|row| (row.key.id(), row.source_digest)).collect();
        Suspects {
            missing: both(self.missing, &again.missing),
            excess: both(self.excess, &again.excess),
            bad: self
                .bad
                .into_iter()
                .filter(|row| bad.contains(&(row.key.id(), row.source_digest)))
                .collect(),
            places: self.places,
        }
    }
}

/// What both readings have in common.
fn both<T: Eq + Hash>(first: Vec<T>, second: &[T]) -> Vec<T> {
    let second: HashSet<&T> = second.iter().collect();
    first.into_iter().filter(|item| second.contains(item)).collect()
}

/// What is told of a comparison.
struct Telling<'a> {
    report: VerifyReport,
    on_difference: &'a mut dyn FnMut(Difference),
    /// Rows that the target would not take in earlier runs.
    rejected: HashSet<KeyId>,
}

impl Telling<'_> {
    fn tell(&mut self, kind: DifferenceKind, position: Option<i64>, key: Vec<u8>, key_text: Option<String>) {
        match kind {
            DifferenceKind::Missing => self.report.missing += 1,
            DifferenceKind::Excess => self.report.excess += 1,
            DifferenceKind::Altered => self.report.altered += 1,
            DifferenceKind::Rejected => self.report.rejected += 1,
        }
        (self.on_difference)(Difference { kind, position, key, key_text });
    }
}

/// Compares all rows of a table.
pub(super) fn verify(
    sides: &mut Sides<'_>,
    settings: &Settings,
    table: TableId,
    on_difference: &mut dyn FnMut(Difference),
) -> Outcome<VerifyReport> {
    let mut survey = Survey::new(sides, settings, table);
    let Answer::Rejected(rejected) = survey.ask(Step::Rejected)? else { return Err(unexpected()) };
    let rejected = rejected.into_iter().map(|row| row.key_id).collect();
    let mut telling = Telling { report: VerifyReport::default(), on_difference, rejected };
    let mut suspects = Suspects::default();
    let mut range = PositionRange::ALL;
    loop {
        survey.stopping()?;
        let piece = survey.window(range)?;
        telling.report.rows += piece.rows;
        let rest = piece.range.to;
        suspects.add(piece);
        let full = suspects.places.len() > MOST_PLACES || suspects.rows() > settings.max_excess_rows;
        if full || rest.is_none() {
            survey.look_again(std::mem::take(&mut suspects), &mut telling)?;
        }
        match rest {
            Some(from) => range = PositionRange::starting_at(from),
            None => break,
        }
    }
    let mut report = telling.report;
    report.level = report.missing + report.excess + report.altered + report.rejected == 0;
    Ok(report)
}

impl Survey<'_, '_> {
    /// Tells of the rows that still differ after a pause: some may have been on their way.
    fn look_again(&mut self, first: Suspects, telling: &mut Telling<'_>) -> Outcome<()> {
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
        self.tell(first.also_in(&again), telling)
    }

    fn tell(&mut self, suspects: Suspects, telling: &mut Telling<'_>) -> Outcome<()> {
        let mut keyed = self.keys(&suspects.missing, &suspects.excess)?;
        for row in suspects.bad {
            let key = match row.key {
                SourceKey::Encoded(key) => key,
                SourceKey::Raw(_) => Vec::new(),
            };
            keyed.excess.remove(&key);
            telling.tell(DifferenceKind::Rejected, row.position, key, Some(row.key_text));
        }
        let mut missing: Vec<_> = keyed.missing.into_iter().collect();
        missing.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        for (key, position) in missing {
            let altered = keyed.excess.remove(&key).is_some();
            let kind = if telling.rejected.contains(&SourceKey::Encoded(key.clone()).id()) {
                DifferenceKind::Rejected
            } else if altered {
                DifferenceKind::Altered
            } else {
                DifferenceKind::Missing
            };
            telling.tell(kind, Some(position), key, None);
        }
        let mut excess: Vec<_> = keyed.excess.into_iter().collect();
        excess.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        let keys: Vec<_> = excess.iter().map(|(key, _)| SourceKey::Encoded(key.clone())).collect();
        for (rows, keys) in excess.chunks(KEYS_AT_ONCE).zip(keys.chunks(KEYS_AT_ONCE)) {
            let found = self.lookup(keys)?;
            for ((key, position), found) in rows.iter().zip(found) {
                // A key that the source has elsewhere is told of there, once.
                if found.is_none() {
                    telling.tell(DifferenceKind::Excess, Some(*position), key.clone(), None);
                }
            }
        }
        Ok(())
    }
}
