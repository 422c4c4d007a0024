//! Rounds, in which every contestant meets the same machine.

use anyhow::{Context, Result};

use crate::progress::Progress;

/// Measures every contestant once a round, in every second round in the opposite order: whoever goes first
/// may find the machine in another state. Answers each contestant's figures, in the order of the rounds.
///
/// # Errors
/// The first measurement that fails, with the contestant's name.
pub fn in_turns<C, R>(
    progress: &Progress,
    rounds: usize,
    contestants: &[(&str, C)],
    mut measure: impl FnMut(&C) -> Result<R>,
) -> Result<Vec<Vec<R>>> {
    let mut figures: Vec<Vec<R>> = contestants.iter().map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let (name, contestant) = &contestants[place];
            progress.step(&format!("round {} of {rounds}: {name}", round + 1));
            figures[place].push(measure(contestant).with_context(|| (*name).to_owned())?);
        }
    }
    Ok(figures)
}

/// The middle value, or the mean of the two in the middle; not a number where there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_alternates_and_figures_stay_with_their_contestant() -> Result<()> {
        let mut seen = Vec::new();
        let figures = in_turns(&Progress::silent(), 3, &[("a", 1), ("b", 2)], |who| {
            seen.push(*who);
            Ok(*who * 10)
        })?;
        assert_eq!(seen, [1, 2, 2, 1, 1, 2]);
        assert_eq!(figures, [[10; 3], [20; 3]]);
        Ok(())
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 9.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), 3.0);
        assert!(median(&[]).is_nan());
    }
}
