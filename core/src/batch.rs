//! How large the next batch is: from how long earlier ones took to a number of rows.
//!
//! A batch takes a fixed time and a time per row, `t = a + b*n`. Both are fitted to the history with weights
//! that decay, and the next batch is as large as fits the target duration. Taking `n * target / t` instead
//! would decay to one row wherever the fixed part alone exceeds the target.

use crate::store::{BatchKind, BatchLimit, BatchRecord};

/// Rows of the first batch, when nothing is known.
pub const FIRST_BATCH_ROWS: usize = 1_000;

/// What each older batch counts for, as a share of the one after it.
const DECAY: f64 = 0.8;
/// Batches looked at.
const LOOKED_AT: usize = 30;
/// Above this share of the target the fixed part dominates: smaller batches would cost more, not less.
const FIXED_SHARE: f64 = 0.5;

/// Bounds and aim of batch sizing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchAim {
    /// How long a batch should take, in microseconds.
    pub target_micros: u64,
    /// Rows at most.
    pub max_rows: usize,
    /// Encoded bytes at most.
    pub max_bytes: usize,
}

/// The size of the next batch, from the history of uploads, newest first. Entries of other kinds and empty
/// ones say nothing.
pub fn next_batch(history: &[BatchRecord], aim: &BatchAim) -> BatchLimit {
    let uploads: Vec<&BatchRecord> =
        history.iter().filter(|b| b.kind == BatchKind::Upload && b.rows > 0).take(LOOKED_AT).collect();
    let max_rows = aim.max_rows.max(1);
    let bytes = aim.max_bytes.max(1);
    // A short batch (the last of a table) says nothing of how large one may be: the largest of the latest
    // counts.
    let Some(latest) = uploads.iter().take(5).max_by_key(|batch| batch.rows) else {
        return BatchLimit { rows: FIRST_BATCH_ROWS.min(max_rows), bytes };
    };
    let target = aim.target_micros.max(1) as f64;
    let short_of_rows = (latest.micros as f64) < target / 2.0;
    let latest = latest.rows as f64;
    let (fixed, per_row) = fit(&uploads);
    let ideal = if per_row > 0.0 { (target - fixed) / per_row } else { f64::INFINITY };
    let rows = if ideal >= latest {
        let base = if short_of_rows { FIRST_BATCH_ROWS as f64 } else { 0.0 };
        ideal.min(base.max(latest * 2.0))
    } else if fixed >= target * FIXED_SHARE {
        latest
    } else {
        ideal.max(latest / 2.0)
    };
    BatchLimit { rows: (rows as usize).clamp(1, max_rows), bytes }
}

/// The fixed part and the part per row, in microseconds; neither is negative.
fn fit(uploads: &[&BatchRecord]) -> (f64, f64) {
    let (mut weight, mut weights) = (1.0, 0.0);
    let (mut n, mut t, mut nn, mut nt) = (0.0, 0.0, 0.0, 0.0);
    for batch in uploads {
        let (rows, micros) = (batch.rows as f64, batch.micros as f64);
        weights += weight;
        n += weight * rows;
        t += weight * micros;
        nn += weight * rows * rows;
        nt += weight * rows * micros;
        weight *= DECAY;
    }
    let (mean_n, mean_t) = (n / weights, t / weights);
    let variance = nn / weights - mean_n * mean_n;
    // Batches of one size do not tell the fixed part from the rest: all of it counts as per row, until the
    // next batch has another size.
    if variance <= mean_n * mean_n * 1e-6 {
        return (0.0, mean_t / mean_n);
    }
    let per_row = (nt / weights - mean_n * mean_t) / variance;
    if per_row <= 0.0 {
        return (mean_t, 0.0);
    }
    let fixed = mean_t - per_row * mean_n;
    if fixed <= 0.0 { (0.0, nt / nn) } else { (fixed, per_row) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIM: BatchAim = BatchAim { target_micros: 1_000_000, max_rows: 100_000, max_bytes: 8 << 20 };

    fn upload(rows: u64, micros: u64) -> BatchRecord {
        BatchRecord { kind: BatchKind::Upload, rows, bytes: rows * 100, micros }
    }

    /// Runs the sizing against a server that takes `fixed + per_row * n`, and answers the sizes it chose.
    fn sizes(fixed: u64, per_row: u64, batches: usize) -> Vec<usize> {
        let mut history = Vec::new();
        let mut sizes = Vec::new();
        for _ in 0..batches {
            let rows = next_batch(&history, &AIM).rows;
            sizes.push(rows);
            history.insert(0, upload(rows as u64, fixed + per_row * rows as u64));
        }
        sizes
    }

    #[test]
    fn the_first_batch_has_a_thousand_rows() {
        assert_eq!(next_batch(&[], &AIM), BatchLimit { rows: 1_000, bytes: 8 << 20 });
        let other = BatchRecord { kind: BatchKind::Delete, ..upload(7, 7) };
        assert_eq!(next_batch(&[other], &AIM).rows, 1_000);
    }

    #[test]
    fn a_batch_grows_to_the_target_and_never_more_than_twice_at_once() {
        let sizes = sizes(5_000, 50, 20);
        for pair in sizes.windows(2) {
            assert!(pair[1] <= pair[0] * 2, "{sizes:?}");
        }
        let last = *sizes.last().expect("sizes");
        let micros = 5_000 + 50 * last;
        assert!((900_000..=1_100_000).contains(&micros), "{micros} us with {sizes:?}");
    }

    #[test]
    fn a_fixed_cost_above_the_target_does_not_decay_to_one_row() {
        let sizes = sizes(3_000_000, 20, 40);
        assert!(sizes.iter().all(|rows| *rows >= 400), "{sizes:?}");
    }

    #[test]
    fn a_slow_server_gets_smaller_batches() {
        let sizes = sizes(1_000, 10_000, 20);
        let last = *sizes.last().expect("sizes");
        assert!((80..=120).contains(&last), "{sizes:?}");
    }

    #[test]
    fn bounds_in_rows_hold() {
        let sizes = sizes(10, 1, 40);
        assert_eq!(*sizes.last().expect("sizes"), 100_000);
        assert!(next_batch(&[upload(10, 100_000_000)], &AIM).rows >= 1);
    }

    #[test]
    fn old_batches_fade() {
        let mut history: Vec<BatchRecord> = (0..15).map(|i| upload(1_000 + i, 100_000)).collect();
        history.extend((0..15).map(|i| upload(1_000 + i * 50, 900_000 + i * 40_000)));
        assert!(next_batch(&history, &AIM).rows >= 1_900);
    }

    #[test]
    fn runs_that_send_a_few_rows_each_do_not_make_batches_small() {
        let history = [upload(3, 5_000), upload(2, 4_800), upload(3, 5_100), upload(3, 5_000)];
        assert!(next_batch(&history, &AIM).rows >= 500);
    }

    #[test]
    fn a_short_last_batch_does_not_make_the_next_one_short() {
        let history = [upload(3, 5_000), upload(8_000, 405_000), upload(4_000, 205_000)];
        assert!(next_batch(&history, &AIM).rows >= 8_000);
    }
}
