//! Named points at which tests end the process as a power failure would. Without the feature `fault-points`,
//! which no release has, nothing of this is left.

use std::sync::atomic::{AtomicU32, Ordering};

/// The environment variable: a point's name, or `name:n` for its n-th time.
const VARIABLE: &str = "PLIMSOLL_FAULT";

/// Ends the process where `PLIMSOLL_FAULT` says this point.
#[inline(always)]
pub fn fault_point(name: &str) {
    if cfg!(feature = "fault-points") {
        strike(name);
    }
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
