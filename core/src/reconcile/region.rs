//! A range that differs, and the rows of a side in it.

use super::Found;
use crate::short::ShortItem;
use crate::store::PositionRange;

/// What a side holds in a range: how many rows, and their digest sum, shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Held {
    pub rows: u64,
    pub sum: u64,
}

/// A range of which both sides told what they hold.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub range: PositionRange,
    pub local: Held,
    pub remote: Held,
    /// The local rows, where they were read.
    pub items: Option<Rows>,
    /// How often it was divided so far.
    pub rounds: u32,
    /// Whether the remote side could not divide it.
    pub stuck: bool,
    /// How many places of damage it is expected to have, by how many of its neighbours have any.
    pub places: f64,
}

impl Region {
    pub fn new(range: PositionRange, local: Held, remote: Held) -> Self {
        Region { range, local, remote, items: None, rounds: 0, stuck: false, places: 1.0 }
    }

    /// Rows of the side that has more.
    pub fn rows(&self) -> u64 {
        self.local.rows.max(self.remote.rows)
    }

    /// By how many rows one side has more.
    pub fn surplus(&self) -> u64 {
        self.local.rows.abs_diff(self.remote.rows)
    }
}

/// Whether `inner` lies in `outer`.
pub(super) fn within(inner: &PositionRange, outer: &PositionRange) -> bool {
    let from = outer.from.is_none_or(|outer| inner.from.is_some_and(|inner| outer <= inner));
    from && outer.to.is_none_or(|outer| inner.to.is_some_and(|inner| inner <= outer))
}

/// Ranges in order, one for each stretch of them that has no gap.
pub(super) fn join(ranges: impl Iterator<Item = PositionRange>) -> Vec<PositionRange> {
    let mut joined: Vec<PositionRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.to.is_some() && last.to == range.from => last.to = range.to,
            _ => joined.push(range),
        }
    }
    joined
}

/// Rows of one side, by position and digest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows(Vec<ShortItem>);

impl Rows {
    /// The rows, in whatever order they come.
    pub fn new(mut items: Vec<ShortItem>) -> Self {
        items.sort_unstable();
        Rows(items)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows in order.
    pub fn iter(&self) -> impl Iterator<Item = &ShortItem> {
        self.0.iter()
    }

    /// Those of a range.
    pub fn slice(&self, range: PositionRange) -> &[ShortItem] {
        let begin = range.from.map_or(0, |from| self.0.partition_point(|item| item.position < from));
        let end = range.to.map_or(self.0.len(), |to| self.0.partition_point(|item| item.position < to));
        self.0.get(begin..end).unwrap_or_default()
    }

    pub(super) fn within(&self, range: PositionRange) -> Rows {
        Rows(self.slice(range).to_vec())
    }

    pub(super) fn held(&self) -> Held {
        let sum = self.0.iter().fold(0u64, |sum, item| sum.wrapping_add(item.low()));
        Held { rows: self.0.len() as u64, sum }
    }

    /// The one run of rows without which these would be what the remote side holds, by count and sum; where
    /// it has none, that is all of them.
    pub(super) fn run(&self, local: Held, remote: Held) -> Option<&[ShortItem]> {
        let missing = usize::try_from(local.rows.checked_sub(remote.rows)?).ok()?;
        if missing == 0 || missing > self.0.len() {
            return None;
        }
        let wanted = local.sum.wrapping_sub(remote.sum);
        let (first, _) = self.0.split_at(missing);
        let mut sum = first.iter().fold(0u64, |sum, item| sum.wrapping_add(item.low()));
        for begin in 0..=self.0.len() - missing {
            if sum == wanted {
                return self.0.get(begin..begin + missing);
            }
            let next = self.0.get(begin + missing).map_or(0, ShortItem::low);
            sum = sum.wrapping_sub(self.0[begin].low()).wrapping_add(next);
        }
        None
    }

    /// Adds the rows that only one of both sides has. Equal rows count one by one.
    pub(super) fn compare(&self, remote: &Rows, found: &mut Found) {
        let (mut local, mut remote) = (self.0.iter().peekable(), remote.0.iter().peekable());
        loop {
            let order = match (local.peek(), remote.peek()) {
                (Some(a), Some(b)) => a.cmp(b),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => return,
            };
            if order.is_le() {
                let item = local.next();
                found.local_only.extend(item.filter(|_| order.is_lt()));
            }
            if order.is_ge() {
                let item = remote.next();
                found.remote_only.extend(item.filter(|_| order.is_gt()));
            }
        }
    }
}
