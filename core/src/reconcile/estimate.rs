//! How many rows are expected to differ: by row counts, and by how many of the parts of a divided range do.

use super::region::Region;

/// How many places of damage each of the differing parts is expected to have, where damage fell anywhere and
/// `differing` of `parts` were hit.
pub(super) fn places(differing: usize, parts: usize) -> f64 {
    if differing == 0 || parts == 0 {
        return 1.0;
    }
    // Where all were hit it may be by any number; half a part is taken to have been missed.
    let hit = (differing as f64).min(parts as f64 - 0.5) / parts as f64;
    (-(1.0 - hit).ln() / hit).max(1.0)
}

/// Whether rows were altered, and not just lost or added: the row counts of many differing ranges agree.
pub(super) fn altered(open: &[Region]) -> bool {
    let even = open.iter().filter(|region| region.surplus() == 0).count();
    even * 8 > open.len()
}

/// How many rows of a range are expected on one side alone. A row that was altered is two.
pub(super) fn expected(region: &Region, altered: bool) -> f64 {
    let least = match (altered, region.surplus()) {
        (true, _) => 2.0 * region.places,
        (false, 0) => 2.0,
        (false, _) => 1.0,
    };
    least.max(region.surplus() as f64)
}

/// How many symbols so many rows are expected to take. For very few, as many as rarely fail.
pub(super) fn symbols(expected: f64) -> f64 {
    (1.5 * expected).ceil() + (4.0 + 2.0 * expected).min(20.0).ceil()
}
