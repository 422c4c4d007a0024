//! The guard against destruction: how many rows of a table may be deleted or set back to an older version within
//! [`HOURS`] before a person must agree. Counted over a sliding time, so that neither many small runs nor runs that begin
//! anew get further than one large one.

/// The hours over which touched rows are counted.
pub const HOURS: u32 = 24;
/// The share of a table that may be touched, where nothing else is set.
pub const FRACTION: f64 = 0.2;
/// Rows that are free on top, at most this many and at most the same share.
const FREE: f64 = 1_000.0;

/// What is known of a table that rows are to be taken from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weight {
    /// The largest number of rows that it had within [`HOURS`].
    pub largest: u64,
    /// Rows touched within [`HOURS`].
    pub touched: u64,
    /// Rows added to a table without a key since it was last level: each may be the newer version of one that is to be
    /// deleted, because there an altered row is one that goes and one that comes. 0 for tables with a key.
    pub replacing: u64,
    /// The share of the table that may be touched, 0 to 1.
    pub fraction: f64,
}

impl Weight {
    /// Whether `planned` rows more may be touched.
    pub fn allows(&self, planned: u64) -> bool {
        let share = self.largest as f64 * self.fraction.clamp(0.0, 1.0);
        let lost = self.touched.saturating_add(planned.saturating_sub(self.replacing));
        lost as f64 <= share + share.min(FREE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(largest: u64) -> Weight {
        Weight { largest, touched: 0, replacing: 0, fraction: FRACTION }
    }

    #[track_caller]
    fn assert_most(weight: Weight, most: u64) {
        assert!(weight.allows(most), "{weight:?} does not allow {most}");
        assert!(!weight.allows(most + 1), "{weight:?} allows {}", most + 1);
    }

    #[test]
    fn a_share_and_some_rows_on_top_are_free() {
        assert_most(weight(0), 0);
        assert_most(weight(1), 0);
        assert_most(weight(10), 4);
        assert_most(weight(5_000), 2_000);
        assert_most(weight(100_000), 21_000);
        assert_most(Weight { fraction: 1.0, ..weight(300) }, 600);
        assert_most(Weight { fraction: 0.0, ..weight(300) }, 0);
    }

    #[test]
    fn what_was_touched_before_counts() {
        assert_most(Weight { touched: 20_000, ..weight(100_000) }, 1_000);
        assert!(!Weight { touched: 21_001, ..weight(100_000) }.allows(0));
    }

    #[test]
    fn rows_that_are_replaced_are_not_lost() {
        assert_most(Weight { replacing: 1, ..weight(1) }, 1);
        assert_most(Weight { replacing: 50, ..weight(10) }, 54);
        assert!(Weight { replacing: u64::MAX, touched: 4, ..weight(10) }.allows(u64::MAX));
        assert!(!Weight { replacing: u64::MAX, touched: 5, ..weight(10) }.allows(1), "what was lost before");
    }
}
