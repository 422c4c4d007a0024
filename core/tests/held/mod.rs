//! What the models' sides answer about ranges of rows that they hold.

use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::ranges::{RangeSummary, choose};
use plimsoll_core::short::ShortItem;
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::PositionRange;

/// Ranges, each with its rows by position.
pub type Held = Vec<(PositionRange, Vec<Item>)>;

fn summary(range: PositionRange, items: &[Item]) -> RangeSummary {
    let items = items.iter().filter(|item| range.contains(item.position));
    RangeSummary::new(range, &items.map(|item| item.digest).collect())
}

/// Each range in at most so many parts, of about as many rows each.
pub fn parts(held: Held, most: u32) -> Vec<RangeSummary> {
    let mut parts = Vec::new();
    for (range, items) in held {
        let mut points: Vec<(Dyadic, Fingerprint)> = Vec::new();
        for item in &items {
            match points.last_mut().filter(|(point, _)| point.contains(item.position)) {
                Some((_, held)) => held.insert(&item.digest),
                None => points.push((Dyadic::point(item.position), [item.digest].into_iter().collect())),
            }
        }
        let chosen = choose(&points, range, most as usize);
        parts.extend(chosen.into_iter().map(|part| summary(part, &items)));
    }
    parts
}

/// Each range as a whole.
pub fn wholes(held: Held) -> Vec<RangeSummary> {
    held.iter().map(|(range, items)| summary(*range, items)).collect()
}

/// Symbols of all rows.
pub fn sketch(held: &Held, ranges: &[PositionRange], first: u32, symbols: u32) -> Vec<u8> {
    let mut sketch = Sketch::new(ranges, first, symbols).expect("a sketch");
    held.iter().flat_map(|(_, items)| items).for_each(|item| sketch.add(&item.into()));
    sketch.pack()
}

/// All rows.
pub fn items(held: &Held) -> Vec<ShortItem> {
    held.iter().flat_map(|(_, items)| items).map(ShortItem::from).collect()
}
