//! The wish to stop: SIGINT or SIGTERM once ends the run after the current batch, twice at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_core::store::Outcome;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::failure::run as no_run;

/// How often a pause looks whether it should end.
const LOOK: Duration = Duration::from_millis(50);

/// Whether the process was asked to stop.
#[derive(Debug, Clone)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens to the signals from now on.
    ///
    /// # Errors
    /// A `Run` failure where the system refuses that.
    pub fn listen() -> Outcome<Stop> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag unset and sets it, a second one exits.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))
                .and_then(|_| flag::register(signal, Arc::clone(&asked)))
                .map_err(|error| no_run(format!("signals cannot be caught: {error}")))?;
        }
        Ok(Stop(asked))
    }

    /// Nobody asks.
    #[cfg(test)]
    pub fn never() -> Stop {
        Stop(Arc::default())
    }

    /// Whether it was asked.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits, or less where it is asked to stop meanwhile.
    pub fn pause(&self, duration: Duration) {
        let end = Instant::now() + duration;
        while !self.asked() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }
}
