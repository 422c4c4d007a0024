//! Dyadic ranges of the position axis: all positions that share their top bits.
//!
//! Two dyadic ranges are either disjoint or one holds the other. Boundaries drawn on one side of a replica
//! therefore never cross those of the other side, whatever order rows arrived in.

use std::cmp::Ordering;

use crate::store::PositionRange;

/// The level of a single position.
const POINT: u8 = 64;

/// All positions that share their top `level` bits, in offset binary (the order of unsigned numbers).
/// Level 0 is the whole axis, level 64 one position. Ordered by first position, a range before its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dyadic {
    first: i64,
    level: u8,
}

/// A position in offset binary, whose unsigned order is the axis' order.
fn offset(position: i64) -> u64 {
    (position as u64) ^ (1 << 63)
}

fn position(offset: u64) -> i64 {
    (offset ^ (1 << 63)) as i64
}

/// The bits below the top `level`.
fn below(level: u8) -> u64 {
    u64::MAX.checked_shr(u32::from(level)).unwrap_or(0)
}

impl Dyadic {
    /// The whole axis.
    pub const ALL: Dyadic = Dyadic { first: i64::MIN, level: 0 };

    /// The range of a level (64 where it is beyond) that `position` lies in.
    pub fn of(position: i64, level: u8) -> Dyadic {
        let level = level.min(POINT);
        Dyadic { first: self::position(offset(position) & !below(level)), level }
    }

    /// The range of one position.
    pub fn point(position: i64) -> Dyadic {
        Dyadic { first: position, level: POINT }
    }

    /// The range with this first position and level; `None` where there is none such.
    pub fn new(first: i64, level: u8) -> Option<Dyadic> {
        (level <= POINT && offset(first) & below(level) == 0).then_some(Dyadic { first, level })
    }

    /// The smallest range with both positions.
    pub fn enclosing(one: i64, other: i64) -> Dyadic {
        Dyadic::of(one, (offset(one) ^ offset(other)).leading_zeros() as u8)
    }

    /// The first position.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// The last position.
    pub fn last(&self) -> i64 {
        position(offset(self.first) | below(self.level))
    }

    /// How many top bits its positions share, 0 to 64.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Whether it is a single position.
    pub fn is_point(&self) -> bool {
        self.level == POINT
    }

    /// Whether `position` lies in it.
    pub fn contains(&self, position: i64) -> bool {
        (self.first..=self.last()).contains(&position)
    }

    /// Whether all of `other` lies in it.
    pub fn contains_range(&self, other: &Dyadic) -> bool {
        self.level <= other.level && self.contains(other.first)
    }

    /// Whether it shares a position with a range.
    pub fn meets(&self, range: &PositionRange) -> bool {
        range.from.is_none_or(|from| from <= self.last())
            && range.to.is_none_or(|to| self.first < to)
            && range.from.zip(range.to).is_none_or(|(from, to)| from < to)
    }

    /// Whether all of it lies in a range.
    pub fn lies_in(&self, range: &PositionRange) -> bool {
        range.contains(self.first) && range.contains(self.last())
    }

    /// The range of one level less that holds it; `None` for the whole axis.
    pub fn parent(&self) -> Option<Dyadic> {
        Some(Dyadic::of(self.first, self.level.checked_sub(1)?))
    }

    /// Its lower and upper half; `None` for one position.
    pub fn halves(&self) -> Option<(Dyadic, Dyadic)> {
        if self.is_point() {
            return None;
        }
        let level = self.level + 1;
        let upper = offset(self.first) | (below(self.level) ^ below(level));
        Some((Dyadic { first: self.first, level }, Dyadic { first: position(upper), level }))
    }

    /// The same positions half-open, with an open end where it reaches an end of the axis.
    pub fn range(&self) -> PositionRange {
        let from = (self.first != i64::MIN).then_some(self.first);
        PositionRange { from, to: self.last().checked_add(1) }
    }

    /// The fewest ranges that together make up `range`, in order: at most 126.
    pub fn cover(range: PositionRange) -> Vec<Dyadic> {
        let mut cover = Vec::new();
        let mut pending = vec![Dyadic::ALL];
        while let Some(candidate) = pending.pop() {
            if candidate.lies_in(&range) {
                cover.push(candidate);
            } else if let Some((lower, upper)) = candidate.halves().filter(|_| candidate.meets(&range)) {
                pending.extend([upper, lower]);
            }
        }
        cover
    }
}

impl Ord for Dyadic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.first.cmp(&other.first).then(self.level.cmp(&other.level))
    }
}

impl PartialOrd for Dyadic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
