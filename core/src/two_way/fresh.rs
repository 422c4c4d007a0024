//! Groups of ranges of which nothing is remembered, as in a first run: their rows are read ahead where no index leads to
//! them, so many as there is time for.

use std::collections::VecDeque;

use crate::store::PositionRange;

/// So many groups are read ahead before it is known how long one takes.
const FIRST_AHEAD: usize = 32;

/// What is left of them.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    groups: VecDeque<Vec<PositionRange>>,
    /// How many were taken, and when the first of them was, in microseconds of the local clock.
    taken: usize,
    began: i64,
}

impl Fresh {
    pub fn new(groups: Vec<Vec<PositionRange>>, now: i64) -> Self {
        Fresh { groups: groups.into(), taken: 0, began: now }
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The next one.
    pub fn take(&mut self) -> Option<Vec<PositionRange>> {
        let next = self.groups.pop_front()?;
        self.taken += 1;
        Some(next)
    }

    /// Those that are taken up after the one that was taken last, as far as that is likely: of a run that ends before, what
    /// was read ahead is read once more by the next one. So they are no more than were done already, but for a first few, and
    /// no more than there is time for at the rate so far.
    pub fn ahead(&self, now: i64, until: i64) -> &[Vec<PositionRange>] {
        let done = self.taken.saturating_sub(1);
        let (left, spent) = (until.saturating_sub(now).max(0), now.saturating_sub(self.began).max(1));
        let fits = match done {
            0 if left > 0 => FIRST_AHEAD,
            _ => usize::try_from(done as i128 * i128::from(left) / i128::from(spent)).unwrap_or(usize::MAX),
        };
        let next = self.groups.as_slices().0;
        &next[..next.len().min(fits).min(done.max(FIRST_AHEAD))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_read_ahead_than_there_is_time_for() {
        let groups = |count| (0..count).map(|at| vec![PositionRange::starting_at(at)]).collect::<Vec<_>>();
        let mut fresh = Fresh::new(groups(1_000), 100);
        assert_eq!(fresh.take(), Some(groups(1)[0].clone()));
        assert_eq!(fresh.ahead(100, 1_100), &groups(1 + FIRST_AHEAD as i64)[1..]);
        assert_eq!(fresh.ahead(1_100, 1_100).len(), 0, "the time is up");
        (0..100).for_each(|_| drop(fresh.take()));
        // A hundred were done in a thousand microseconds.
        for (left, ahead) in [(500, 50), (10, 1), (9, 0), (0, 0), (-5, 0), (1_000, 100), (50_000, 100)] {
            assert_eq!(fresh.ahead(1_100, 1_100 + left).len(), ahead, "{left}");
        }
        (0..850).for_each(|_| drop(fresh.take()));
        assert_eq!(fresh.ahead(2_000, i64::MAX).len(), 49, "no more are left");
        assert!(!fresh.is_empty());
        while fresh.take().is_some() {}
        assert!(fresh.is_empty() && fresh.ahead(2_000, i64::MAX).is_empty());
    }
}
