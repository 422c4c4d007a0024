//! What fails in passing outside of the core's algorithm is tried again as it does there.

use std::time::Duration;

use plimsoll_core::store::{FailureKind, Outcome};
use plimsoll_core::sync::Settings;

use crate::stop::Stop;

/// How often calls are made again, and after what pauses.
pub struct Patience<'p> {
    stop: &'p Stop,
    most_tries: u32,
    /// Before the second try, in microseconds; it doubles.
    pause: u64,
    /// A call failed to the end: those after it are made once.
    spent: bool,
}

impl<'p> Patience<'p> {
    /// That of a run with these settings.
    pub fn new(settings: &Settings, stop: &'p Stop) -> Self {
        Patience { stop, most_tries: settings.max_tries, pause: settings.retry_pause, spent: false }
    }

    /// Makes a call, and makes it again where it fails in passing.
    ///
    /// # Errors
    /// Those of the last try.
    pub fn with<T>(&mut self, mut call: impl FnMut() -> Outcome<T>) -> Outcome<T> {
        let mut pause = self.pause;
        for _ in 1..self.most_tries {
            match call() {
                Err(failure) if failure.kind == FailureKind::Passing && !self.spent && !self.stop.asked() => {
                    let waits = Duration::from_micros(pause);
                    tracing::warn!("{failure}; trying again in {}", humantime::format_duration(waits));
                    self.stop.pause(waits);
                    pause = pause.saturating_mul(2);
                }
                answer => return answer,
            }
        }
        let last = call();
        self.spent |= last.as_ref().is_err_and(|failure| failure.kind == FailureKind::Passing);
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{passing, table};

    fn patience(stop: &Stop) -> Patience<'_> {
        Patience::new(&Settings { max_tries: 4, retry_pause: 1, ..Settings::default() }, stop)
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let stop = Stop::never();
        let mut tries = 0;
        let found = patience(&stop).with(|| {
            tries += 1;
            if tries < 4 { Err(passing("locked")) } else { Ok(tries) }
        });
        assert_eq!(found, Ok(4));
        let mut tries = 0;
        let refused = patience(&stop).with(|| {
            tries += 1;
            Err::<(), _>(table("no such column"))
        });
        assert_eq!((refused.map_err(|failure| failure.kind), tries), (Err(FailureKind::Table), 1));
    }

    #[test]
    fn it_ends_and_those_after_are_tried_once() {
        let stop = Stop::never();
        let mut patience = patience(&stop);
        let mut tries = 0;
        for expected in [4, 5] {
            let failed = patience.with(|| {
                tries += 1;
                Err::<(), _>(passing("locked"))
            });
            assert_eq!(
                (failed.map_err(|failure| failure.kind), tries),
                (Err(FailureKind::Passing), expected)
            );
        }
    }
}
