//! Reconciliation finds exactly the true difference, at the cost that its table of cases names.
mod sides;

use std::collections::HashSet;
use std::sync::LazyLock;

use plimsoll_core::ranges::RangeSummary;
use plimsoll_core::reconcile::{Differences, Limits, find};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{Outcome, PositionRange, Summaries, TableId};
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sides::{Kept, Remote, assert_exact, row};

/// What finding a difference took.
#[derive(Debug)]
struct Cost {
    bytes: usize,
    trips: usize,
    /// Rows that the two sides had to read.
    local_read: u64,
    remote_read: u64,
}

fn compare(context: &str, mut local: Kept, mut remote: Kept) -> (Differences, Cost) {
    let mut counted = Remote::new(&mut remote);
    let differences =
        find(&mut local, &mut counted, 0, PositionRange::ALL, Limits::default()).expect("differences");
    let (bytes, trips, log) = (counted.bytes, counted.trips, std::mem::take(&mut counted.log));
    assert_eq!(differences.trips as usize, trips);
    let cost = Cost { bytes, trips, local_read: local.read, remote_read: remote.read };
    println!("{context}: {cost:?} {log:?}");
    assert_exact(&differences.found, local.rows(), remote.rows(), context);
    (differences, cost)
}

/// Rows at the positions from one to a million.
fn million() -> Kept {
    static ROWS: LazyLock<Kept> =
        LazyLock::new(|| Kept::new((1..=1_000_000).map(|position| row(position, 0)).collect()));
    ROWS.clone()
}

fn some(rng: &mut StdRng, count: usize) -> Vec<i64> {
    (1..=1_000_000).sample(rng, count)
}

fn without(positions: &[i64]) -> Kept {
    million().changed(positions, |_| None)
}

fn altered(positions: &[i64]) -> Kept {
    million().changed(positions, |item| Some(row(item.position, 1)))
}

#[test]
fn a_million_equal_rows_cost_one_small_trip() {
    let (_, cost) = compare("equal", million(), million());
    assert!(cost.trips == 1 && cost.bytes <= 200 && cost.local_read + cost.remote_read == 0, "{cost:?}");
}

#[test]
fn one_row_of_a_million() {
    for seed in 0..2 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let rows = some(rng, 1);
        // The first trip is the table version, which a run has anyway.
        let (_, cost) = compare("1 missing", million(), without(&rows));
        assert!(cost.bytes <= 1_024 && cost.trips <= 3, "{cost:?}");
        let (_, cost) = compare("1 excess", without(&rows), million());
        assert!(cost.bytes <= 1_400 && cost.trips <= 3, "{cost:?}");
        let (_, cost) = compare("1 altered", million(), altered(&rows));
        assert!(cost.bytes <= 1_400 && cost.trips <= 3, "{cost:?}");
    }
}

#[test]
fn a_hundred_scattered_rows_of_a_million() {
    for seed in 0..2 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let rows = some(rng, 100);
        let (_, cost) = compare("100 missing", million(), without(&rows));
        assert!(cost.bytes <= 8_192 && cost.local_read <= 250_000 && cost.remote_read <= 100_000, "{cost:?}");
        let (_, cost) = compare("100 excess", without(&rows), million());
        assert!(cost.bytes <= 12_000 && cost.local_read.max(cost.remote_read) <= 300_000, "{cost:?}");
        let (_, cost) = compare("100 altered", million(), altered(&rows));
        assert!(cost.bytes <= 16_000 && cost.local_read.max(cost.remote_read) <= 300_000, "{cost:?}");
    }
}

#[test]
fn a_thousand_scattered_rows_of_a_million() {
    let rng = &mut StdRng::seed_from_u64(5);
    let rows = some(rng, 1_000);
    let (_, cost) = compare("1,000 missing", million(), without(&rows));
    assert!(cost.bytes <= 48_000, "{cost:?}");
    let (_, cost) = compare("1,000 altered", million(), altered(&rows));
    assert!(cost.bytes <= 90_000, "{cost:?}");
}

#[test]
fn ten_thousand_rows_in_one_place_of_a_million() {
    for first in [1, 437_211, 990_001] {
        let rows: Vec<i64> = (first..first + 10_000).collect();
        let (_, cost) = compare("10,000 contiguous", million(), without(&rows));
        assert!(cost.bytes <= 2_200, "{cost:?}");
    }
    // Two such places, and one that a row in the middle cuts.
    let rows: Vec<i64> = (200_000..205_000).chain(205_001..210_000).chain(700_000..710_000).collect();
    let (_, cost) = compare("three places", million(), without(&rows));
    assert!(cost.bytes <= 6_000, "{cost:?}");
}

#[test]
fn what_one_side_lacks_altogether_costs_no_more_than_its_rows() {
    let (_, cost) = compare("remote empty", million(), Kept::new(Vec::new()));
    assert!(cost.bytes <= 500, "{cost:?}");
    // Its rows come a page at a time, also where there is no other side to ask how they lie.
    let (mut local, mut empty) = (million(), Kept::new(Vec::new()));
    let mut near = Remote::new(&mut local);
    find(&mut near, &mut empty, 0, PositionRange::ALL, Limits::default()).expect("differences");
    assert!(near.log.iter().all(|(_, bytes)| *bytes <= 500_000 * 17 + 100), "{:?}", near.log);
    let (_, cost) = compare("local empty", Kept::new(Vec::new()), million());
    assert!(cost.bytes <= 1_000_000 * 18 + 100_000, "{cost:?}");
}

/// Sets of rows of the kinds that peers got wrong: at both ends of the axis and beyond the largest position,
/// ties, crowds, clusters, copies.
fn rows(rng: &mut StdRng) -> Vec<ShortItem> {
    let count = [0, 1, 2, 10, 100, 1_000, 5_000].into_iter().choose(rng).unwrap_or(0);
    let kind = rng.random_range(0..6);
    let mut rows = Vec::new();
    for place in 0..count {
        let position = match kind {
            0 => place,
            1 => 7,
            2 => i64::MAX - place,
            3 => [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX][rng.random_range(0..7)],
            // Clusters at powers of two and their neighbours.
            4 => (1i64 << rng.random_range(0..62)) + rng.random_range(-2..3),
            _ => rng.random(),
        };
        rows.push(row(position, rng.random_range(0..3)));
    }
    if rng.random_bool(0.3) {
        let copies: Vec<_> = rows.iter().filter(|_| rng.random_bool(0.1)).copied().collect();
        rows.extend(copies);
    }
    rows
}

fn damage(rng: &mut StdRng, rows: &[ShortItem]) -> Vec<ShortItem> {
    let mut damaged = rows.to_vec();
    for _ in 0..rng.random_range(0..4) {
        let rate = [0.001, 0.01, 0.3, 1.0].into_iter().choose(rng).unwrap_or(0.1);
        let length = damaged.len();
        match rng.random_range(0..7) {
            0 => damaged.retain(|_| !rng.random_bool(rate)),
            // In place: the counts stay equal.
            1 => damaged
                .iter_mut()
                .filter(|_| rng.random_bool(rate))
                .for_each(|item| *item = row(item.position, 9)),
            2 => {
                let first = rng.random_range(0..=length);
                damaged.drain(first..rng.random_range(first..=length));
            }
            3 => damaged.extend(rows.iter().filter(|_| rng.random_bool(rate)).copied()),
            4 => {
                let first = rng.random();
                damaged
                    .extend((0..rng.random_range(0..300)).map(|at| row(i64::saturating_add(first, at), 8)));
            }
            5 => damaged.extend([i64::MIN, i64::MAX].map(|position| row(position, 7))),
            // Moved to another position.
            _ => {
                for item in &mut damaged {
                    if rng.random_bool(rate) {
                        *item = row(rng.random_range(-9..9_000), 6);
                    }
                }
            }
        }
    }
    damaged
}

fn limits(rng: &mut StdRng) -> Limits {
    Limits {
        room: if rng.random_bool(0.3) { rng.random_range(1..500) } else { usize::MAX },
        local_rows: [0, 100, 400_000].into_iter().choose(rng).unwrap_or(0),
        early_rows: [0, 50, 1 << 16].into_iter().choose(rng).unwrap_or(0),
        symbols: rng.random_bool(0.8),
    }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `PLIMSOLL_PAIRS` says how many pairs are made, `PLIMSOLL_SEED` replays one.
#[test]
fn random_pairs_are_told_apart_exactly() {
    let seeds = match env("PLIMSOLL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..env("PLIMSOLL_PAIRS").unwrap_or(if cfg!(debug_assertions) { 500 } else { 5_000 }),
    };
    for seed in seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let local = rows(rng);
        let remote = if rng.random_bool(0.1) { rows(rng) } else { damage(rng, &local) };
        let (limits, context) = (limits(rng), format!("PLIMSOLL_SEED={seed}"));
        let (mut ours, mut theirs) = (Kept::new(local), Kept::new(remote));
        let range = PositionRange {
            from: rng.random_bool(0.2).then(|| rng.random_range(-100..100)),
            to: rng.random_bool(0.2).then(|| rng.random_range(100..3_000)),
        };
        let mut counted = Remote::new(&mut theirs);
        let found = find(&mut ours, &mut counted, 0, range, limits).expect(&context).found;
        assert!(counted.trips <= 60, "{context}: {} trips", counted.trips);
        let inside = |rows: &[ShortItem]| -> Vec<ShortItem> {
            rows.iter().filter(|item| range.contains(item.position)).copied().collect()
        };
        assert_exact(&found, &inside(ours.rows()), &inside(theirs.rows()), &context);
        if let Some(end) = found.end {
            assert!(range.contains(end) && range.from != Some(end), "{context}: cut at {end}");
        }
        let first = found.remote_only.first().map(|item| item.position);
        let crowd = found.remote_only.iter().all(|item| Some(item.position) == first);
        assert!(found.remote_only.len() <= limits.room || crowd, "{context}: more than there is room for");
    }
}

/// A side whose rows change between any two questions.
struct Moving {
    side: Kept,
    rng: StdRng,
    ever: HashSet<ShortItem>,
}

impl Moving {
    fn new(side: Kept, seed: u64) -> Self {
        let ever = side.rows().iter().copied().collect();
        Moving { side, rng: StdRng::seed_from_u64(seed), ever }
    }

    fn change(&mut self) {
        let rows = damage(&mut self.rng, self.side.rows());
        self.ever.extend(rows.iter().copied());
        self.side = Kept::new(rows);
    }
}

impl Summaries for Moving {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        self.change();
        self.side.range_manifest(table, ranges, most)
    }

    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        self.change();
        self.side.summaries(table, ranges)
    }

    fn sketch(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        first: u32,
        symbols: u32,
    ) -> Outcome<Vec<u8>> {
        self.change();
        self.side.sketch(table, ranges, first, symbols)
    }

    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        self.change();
        self.side.items(table, ranges)
    }
}

#[test]
fn sides_that_change_all_the_time_bring_it_to_an_end_and_no_row_that_never_was() {
    for seed in 0..300 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let base = rows(rng);
        let limits = limits(rng);
        let mut local = Moving::new(Kept::new(base.clone()), seed);
        let mut remote = Moving::new(Kept::new(damage(rng, &base)), !seed);
        let mut counted = Remote::new(&mut remote);
        let found = find(&mut local, &mut counted, 0, PositionRange::ALL, limits).expect("an end").found;
        assert!(counted.trips <= 80, "seed {seed}: {} trips", counted.trips);
        assert!(found.local_only.iter().all(|item| local.ever.contains(item)), "seed {seed}");
        assert!(found.remote_only.iter().all(|item| remote.ever.contains(item)), "seed {seed}");
    }
}

/// A side that answers with something else than was asked.
struct Hostile(Kept, StdRng);

impl Hostile {
    /// Parts of what was asked, as they are or not.
    fn spoil<T: Clone>(&mut self, mut answers: Vec<T>) -> Vec<T> {
        match self.1.random_range(0..4) {
            0 => answers.reverse(),
            1 => drop(answers.pop()),
            2 => answers.extend_from_within(..),
            _ => {}
        }
        answers
    }
}

impl Summaries for Hostile {
    fn range_manifest(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        most: u32,
    ) -> Outcome<Vec<RangeSummary>> {
        let parts = self.0.range_manifest(table, ranges, most)?;
        Ok(self.spoil(parts))
    }

    fn summaries(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeSummary>> {
        let mut parts = self.0.summaries(table, ranges)?;
        parts.iter_mut().for_each(|part| part.row_count = self.1.random());
        Ok(parts)
    }

    fn sketch(&mut self, _: TableId, _: &[PositionRange], _: u32, symbols: u32) -> Outcome<Vec<u8>> {
        Ok((0..symbols.min(1 << 16) * 25 + 1).map(|_| self.1.random()).collect())
    }

    fn items(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<ShortItem>> {
        let mut items = self.0.items(table, ranges)?;
        if self.1.random() {
            items.push(row(self.1.random(), 4));
        }
        Ok(self.spoil(items))
    }
}

#[test]
fn a_side_that_answers_nonsense_is_told_of_or_outlived() {
    for seed in 0..300 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let base = rows(rng);
        let mut local = Kept::new(base.clone());
        let mut remote = Hostile(Kept::new(damage(rng, &base)), StdRng::seed_from_u64(seed));
        let _ = find(&mut local, &mut remote, 0, PositionRange::ALL, limits(rng));
    }
}
