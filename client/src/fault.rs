//! What tests let go wrong: named points at which the process ends as a power failure would end it, and a clock that is wrong.
//! Without the feature `fault-points`, which no release has, nothing of this is left.

use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable: a point's name, or `name:n` for its n-th time.
const VARIABLE: &str = "PLIMSOLL_FAULT";
/// The one that says by how many seconds the clock is ahead; negative: behind.
const CLOCK: &str = "PLIMSOLL_CLOCK_AHEAD";

/// Ends the process where `PLIMSOLL_FAULT` says this point.
#[inline(always)]
pub fn fault_point(name: &str) {
    if cfg!(feature = "fault-points") {
        strike(name);
    }
}

/// By how much the clock of the machine is to be taken for ahead of what it says, in microseconds.
#[inline(always)]
pub fn clock_ahead() -> i64 {
    if cfg!(feature = "fault-points") { seconds_ahead().saturating_mul(1_000_000) } else { 0 }
}

fn seconds_ahead() -> i64 {
    std::env::var(CLOCK).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

fn strike(name: &str) {
    static HITS: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var(VARIABLE) else { return };
    let (point, time) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point == name && Ok(HITS.fetch_add(1, Ordering::Relaxed) + 1) == time.parse() {
        // Nothing is flushed, closed or unlocked in order.
        std::process::abort();
    }
}
