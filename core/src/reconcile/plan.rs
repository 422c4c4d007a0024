//! What is asked next: the question that brings what is still open to its end at the least cost. Bytes beyond
//! the network count most, then rows that a side must read, then trips.

use super::Limits;
use super::estimate::{altered, expected, symbols};
use super::region::Region;
use crate::sketch::{MOST_SYMBOLS, Sketch};
use crate::store::PositionRange;

/// Rows that symbols are made of without dividing the range first, where few differences are expected.
const GUESS_ROWS: u64 = 1 << 16;
const GUESS_DIFFERENCES: u64 = 8;
/// Beyond so many rows, ranges are divided further before the rows are read.
const SCAN_ROWS: u64 = 200_000;
/// What a side knows of so many rows without reading them: a block of the kept manifest.
const BLOCK_ROWS: u64 = 1_024;
/// Ranges of a few blocks are not divided just to read fewer rows.
const FEW_BLOCKS: u64 = 4;
/// Parts for each place of damage that is expected, when ranges are divided so that fewer rows are read.
const PARTS_PER_PLACE: f64 = 5.0;
/// Bytes that a range must be expected to cost before it is divided to save some of them.
const WORTH_DIVIDING: f64 = 1_200.0;
const FIRST_FAN_OUT: u64 = 32;
/// How often a range is divided at most.
const MOST_ROUNDS: u32 = 10;
/// Parts of one answer at most.
const MOST_PARTS: u64 = 4_096;
/// Rows asked for at once: of the remote side, of the local one.
const PAGE_ROWS: u64 = 1 << 14;
const LOCAL_PAGE_ROWS: u64 = 500_000;
const FEWEST_IN_PAGE: u64 = 1_000;
/// Bytes of a row in a list, and of a part in a range manifest; of a question and its answer beside them.
const ITEM_BYTES: f64 = 18.0;
const TRIP_BYTES: f64 = 200.0;

/// The next question; regions are named by their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    Done,
    Divide {
        regions: Vec<usize>,
        most: u32,
    },
    /// The local side divides what it alone has rows of.
    DivideLocal {
        regions: Vec<usize>,
        most: u32,
    },
    LocalItems(Vec<usize>),
    RemoteItems(Vec<usize>),
    /// The first so many symbols over all of them.
    Sketch {
        symbols: u32,
    },
}

/// What the open regions are expected to cost.
struct Costs {
    altered: bool,
    /// Rows expected to differ, for each region.
    expected: Vec<f64>,
    /// Bytes of a symbol; beyond all bounds where there are none.
    symbol: f64,
}

impl Costs {
    fn new(open: &[Region], limits: &Limits) -> Self {
        let altered = altered(open);
        let ends = open.first().zip(open.last());
        let span = ends.map(|(first, last)| PositionRange { from: first.range.from, to: last.range.to });
        let symbol = Sketch::packed_len(span.as_slice(), 1) - 1;
        let expected = open.iter().map(|region| expected(region, altered)).collect();
        Costs { altered, expected, symbol: if limits.symbols { symbol as f64 } else { f64::INFINITY } }
    }

    fn sketch(&self, at: usize) -> f64 {
        1.5 * self.expected[at] * self.symbol
    }

    fn places(&self) -> f64 {
        self.expected.iter().sum::<f64>() / if self.altered { 2.0 } else { 1.0 }
    }
}

fn items(region: &Region) -> f64 {
    region.remote.rows as f64 * ITEM_BYTES
}

/// What to ask next of what is open. `failures`: how often the symbols at hand did not suffice.
pub(super) fn next(open: &[Region], limits: &Limits, failures: u32) -> Plan {
    if open.is_empty() {
        return Plan::Done;
    }
    let unread: Vec<usize> = (0..open.len()).filter(|at| open[*at].items.is_none()).collect();
    let unread_rows: u64 = unread.iter().map(|at| open[*at].local.rows).sum();
    if !unread.is_empty() && unread_rows <= limits.local_rows.min(limits.early_rows) {
        return Plan::LocalItems(unread);
    }
    if let Some(plan) = lacking(open, &unread) {
        return plan;
    }
    let costs = Costs::new(open, limits);
    if let Some(plan) = divide(open, &costs, limits, failures) {
        return plan;
    }
    if !unread.is_empty() && unread_rows <= limits.local_rows {
        return Plan::LocalItems(page(open, unread, LOCAL_PAGE_ROWS));
    }
    let all = || (0..open.len()).collect::<Vec<usize>>();
    if failures == 0 {
        let cheap = |at: &usize| open[*at].remote.rows <= 8 || items(&open[*at]) <= costs.sketch(*at);
        let small: Vec<usize> = all().into_iter().filter(cheap).collect();
        let saved: f64 = small.iter().map(|at| costs.sketch(*at) - items(&open[*at])).sum();
        if small.len() == open.len() || saved > TRIP_BYTES {
            return rows_of(open, small, limits);
        }
    }
    let factor = f64::from(1u32 << (if failures < 3 { failures } else { 2 * failures - 2 }).min(20));
    let wanted = symbols(costs.expected.iter().sum()) * factor;
    let rows: f64 = open.iter().map(items).sum();
    let share = if failures == 0 { 1.0 } else { 0.5 };
    if wanted > f64::from(MOST_SYMBOLS) || wanted * costs.symbol > rows * share {
        return rows_of(open, all(), limits);
    }
    Plan::Sketch { symbols: wanted as u32 }
}

/// The rows that the remote side has none beside, a page at a time.
fn lacking(open: &[Region], unread: &[usize]) -> Option<Plan> {
    let regions: Vec<usize> = unread.iter().copied().filter(|at| open[*at].remote.rows == 0).collect();
    let large = |at: &usize| {
        let region = &open[*at];
        region.local.rows > LOCAL_PAGE_ROWS && !region.stuck && region.rounds < MOST_ROUNDS
    };
    let large: Vec<usize> = regions.iter().copied().filter(large).collect();
    if !large.is_empty() {
        return Some(Plan::DivideLocal { regions: large, most: FIRST_FAN_OUT as u32 });
    }
    (!regions.is_empty()).then(|| Plan::LocalItems(page(open, regions, LOCAL_PAGE_ROWS)))
}

/// The first of these regions that have so many rows together, one at least.
fn page(open: &[Region], regions: Vec<usize>, most: u64) -> Vec<usize> {
    let mut rows = 0u64;
    let fits = |(place, at): &(usize, usize)| {
        rows = rows.saturating_add(open[*at].rows());
        *place == 0 || rows <= most
    };
    regions.into_iter().enumerate().take_while(fits).map(|(_, at)| at).collect()
}

/// The rows of these regions, a page at a time; the local ones first.
fn rows_of(open: &[Region], regions: Vec<usize>, limits: &Limits) -> Plan {
    let page = page(open, regions, page_rows(limits));
    let unread: Vec<usize> = page.iter().copied().filter(|at| open[*at].items.is_none()).collect();
    if unread.is_empty() { Plan::RemoteItems(page) } else { Plan::LocalItems(unread) }
}

fn page_rows(limits: &Limits) -> u64 {
    PAGE_ROWS.min((limits.room as u64).max(FEWEST_IN_PAGE))
}

/// Divides the regions for which that pays.
fn divide(open: &[Region], costs: &Costs, limits: &Limits, failures: u32) -> Option<Plan> {
    let rows: u64 = open.iter().map(Region::rows).sum();
    let fan_out = |at: usize| -> u64 {
        let region = &open[at];
        if region.stuck || region.rounds >= MOST_ROUNDS || region.remote.rows < 2 {
            return 0;
        }
        if region.local.rows == 0 {
            return if region.remote.rows > page_rows(limits) { FIRST_FAN_OUT } else { 0 };
        }
        let bytes = items(region).min(costs.sketch(at));
        let few = region.surplus() <= GUESS_DIFFERENCES && rows <= GUESS_ROWS;
        if region.rounds == 0 && (failures > 0 || !few) {
            return if bytes > TRIP_BYTES || !few || failures > 0 {
                (region.remote.rows / 16).clamp(8, FIRST_FAN_OUT)
            } else {
                0
            };
        }
        if bytes > WORTH_DIVIDING {
            return if bytes > 8.0 * WORTH_DIVIDING { 16 } else { 8 };
        }
        let parts = region.rows() / BLOCK_ROWS;
        if rows > SCAN_ROWS && parts > FEW_BLOCKS {
            let wanted = (PARTS_PER_PLACE * costs.places() / open.len() as f64).ceil() as u64;
            return wanted.clamp(2, FIRST_FAN_OUT).min(parts);
        }
        0
    };
    let wanted: Vec<(usize, u64)> =
        (0..open.len()).map(|at| (at, fan_out(at))).filter(|(_, parts)| *parts > 1).collect();
    let most = wanted.iter().map(|(_, parts)| *parts).max()?.min(MOST_PARTS / wanted.len() as u64);
    let regions = wanted.into_iter().map(|(at, _)| at).collect();
    (most > 1).then_some(Plan::Divide { regions, most: most as u32 })
}
