//! Run after run, until asked to stop.

use std::time::{Duration, Instant};

use plimsoll_core::store::Outcome;

use super::{RunOptions, RunResult, open_state, run_once, server_of};
use crate::config::Config;
use crate::progress::Progress;
use crate::stop::Stop;

/// The longest pause between failed runs, unless runs are farther apart anyway.
const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// Makes a run every `interval` until asked to stop, and hands each outcome to `report`. Runs that fail
/// are tried again after pauses that double.
///
/// # Errors
/// Where not even the first run could be tried: a wrong setting, no token, another process at work.
pub fn keep_running(
    config: &Config,
    options: &RunOptions,
    interval: Duration,
    stop: &Stop,
    progress: &mut Progress,
    report: &mut dyn FnMut(Outcome<RunResult>),
) -> Outcome<()> {
    let mut server = server_of(config)?;
    let mut state = open_state(config)?;
    let mut options = RunOptions { interval: Some(interval), ..options.clone() };
    let mut failures = 0u32;
    while !stop.asked() {
        let started = Instant::now();
        let outcome = run_once(config, &mut server, &mut state, &options, stop, progress);
        let failed = match &outcome {
            Ok(result) => result.failure.is_some(),
            Err(_) => true,
        };
        failures = if failed { failures.saturating_add(1) } else { 0 };
        // Approval is given once, not to every later run.
        options.allow_mass_delete &= failed;
        report(outcome);
        stop.pause(pause(interval, failures).saturating_sub(started.elapsed()));
    }
    Ok(())
}

/// From the start of a run to the start of the next.
fn pause(interval: Duration, failures: u32) -> Duration {
    let doubled = interval.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16)));
    doubled.min(LONGEST_BACKOFF.max(interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_runs_come_less_often_but_never_stop() {
        let minute = Duration::from_secs(60);
        let pauses: Vec<u64> = [0, 1, 2, 3, 9, 4_000_000].map(|n| pause(minute, n).as_secs()).to_vec();
        assert_eq!(pauses, [60, 60, 120, 240, 900, 900]);
        assert_eq!(pause(Duration::from_secs(7200), 5).as_secs(), 7200);
    }
}
