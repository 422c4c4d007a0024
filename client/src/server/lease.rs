//! The lease of a run under way. What is written on the server, the server fences: each call renews the lease, or is
//! refused because another run followed. What is written on the local side no server sees: who writes there asks here first.
//! Meanwhile a thread renews the lease of a run that reads for long, over a connection that is made when it is needed.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use plimsoll_core::store::{FailureKind, Outcome};
use tokio_postgres::types::Type;

use super::error::Place;
use super::session::Server;
use crate::failure::{passing, run as no_run};

/// The local side is written only where the lease was renewed within this part of its time.
const GOOD_FOR: u32 = 3;
/// A transaction that is open is committed where it was renewed within this part: the thread renews it meanwhile.
const STANDS_FOR: u32 = 2;
/// The thread renews it after this part, and looks so often within that whether it is time.
const RENEWED_AFTER: u32 = 4;
/// It looks no more often than that.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);

/// A moment by two clocks: one may be set, the other stands still while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Moment(Instant, SystemTime);

impl Moment {
    fn now() -> Self {
        Moment(Instant::now(), SystemTime::now())
    }

    /// By the clock that says more; for ever ago where one was set back.
    fn age(&self) -> Duration {
        self.1.elapsed().map_or(Duration::MAX, |by_the_calendar| by_the_calendar.max(self.0.elapsed()))
    }
}

/// How long the server leaves a run its lease without a sign.
#[derive(Debug, Clone, Copy)]
pub struct Term {
    lasts: Duration,
    renewed: Moment,
}

impl Term {
    /// To be made before the lease is asked for.
    pub(super) fn asked() -> Self {
        Term { lasts: Duration::ZERO, renewed: Moment::now() }
    }

    /// With what the server answered, in seconds.
    pub(super) fn of(self, seconds: f64) -> Self {
        Term { lasts: Duration::try_from_secs_f64(seconds).unwrap_or_default(), ..self }
    }
}

struct Kept {
    run_id: i64,
    lasts: Duration,
    /// For renewals alone: whatever another connection holds open, they are committed.
    server: Mutex<Server>,
    /// Before the last renewal was sent; `None`: it is known to be over.
    renewed: Mutex<Option<Moment>>,
    ended: Mutex<bool>,
    end: Condvar,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn is_younger(&self, than: Duration) -> bool {
        locked(&self.renewed).is_some_and(|renewed| renewed.age() < than)
    }

    /// Renews it where the last time is so long ago.
    fn renew(&self, after: Duration) -> Outcome<()> {
        if self.is_younger(after) {
            return Ok(());
        }
        let mut server = locked(&self.server);
        // The other thread may have been at it.
        if self.is_younger(after) {
            return Ok(());
        }
        let asked = Moment::now();
        let outcome = server.renew_lease(self.run_id);
        match &outcome {
            Ok(()) => *locked(&self.renewed) = Some(asked),
            Err(failure) if failure.kind == FailureKind::Run => *locked(&self.renewed) = None,
            // It stands until it is too old.
            Err(_) => {}
        }
        outcome
    }

    /// Renews it again and again.
    fn keep(&self) {
        let after = self.lasts / RENEWED_AFTER;
        let pause = (after / RENEWED_AFTER).max(SHORTEST_PAUSE);
        loop {
            let ended = locked(&self.ended);
            let waited = self.end.wait_timeout_while(ended, pause, |ended| !*ended);
            if *waited.unwrap_or_else(PoisonError::into_inner).0 {
                return;
            }
            match self.renew(after) {
                Ok(()) => {}
                Err(failure) if failure.kind == FailureKind::Run => return,
                Err(failure) => tracing::debug!("the lease was not renewed: {failure}"),
            }
        }
    }
}

/// The lease as those know it who write the local side.
#[derive(Clone, Default)]
pub struct Lease(Option<Arc<Kept>>);

impl Lease {
    /// That of somebody who writes nothing.
    pub fn none() -> Self {
        Lease::default()
    }

    /// Makes sure that no other run of this database has begun, and that none will for a while: to be called before a local
    /// transaction. It asks the server only where that is long ago.
    ///
    /// # Errors
    /// `Run` where another run followed: nothing may be written. `Passing` where the server cannot be asked.
    pub fn hold_on(&self) -> Outcome<()> {
        match &self.0 {
            Some(kept) => kept.renew(kept.lasts / GOOD_FOR),
            None => Ok(()),
        }
    }

    /// Makes sure of the same, without asking the server: to be called before a local transaction is committed, whose locks
    /// others may be waiting for.
    ///
    /// # Errors
    /// `Run` where another run is known to have followed. `Passing` where nobody could ask the server for too long: what was
    /// done is to be rolled back, and tried again.
    pub fn stands(&self) -> Outcome<()> {
        let Some(kept) = &self.0 else { return Ok(()) };
        let renewed = *locked(&kept.renewed);
        match renewed {
            Some(renewed) if renewed.age() < kept.lasts / STANDS_FOR => Ok(()),
            Some(_) => Err(passing("the lease could not be renewed for a while: nothing is committed here")),
            None => Err(no_run("the run is over: another one of this database followed, or it was ended")),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.0.as_ref().map(|kept| kept.run_id)).finish()
    }
}

/// Keeps the lease of a run until this is dropped.
#[derive(Debug)]
pub struct Keeper(Lease);

impl Keeper {
    /// Of a run that `term` was answered to when it began.
    ///
    /// # Errors
    /// A `Run` failure where the system starts no thread, or no network.
    pub fn new(server: &Server, run_id: i64, term: Term) -> Outcome<Self> {
        let kept = Arc::new(Kept {
            run_id,
            lasts: term.lasts,
            server: Mutex::new(server.again()?),
            renewed: Mutex::new(Some(term.renewed)),
            ended: Mutex::new(false),
            end: Condvar::new(),
        });
        let of_thread = Arc::clone(&kept);
        // Nobody waits for the thread: what it does after the end changes nothing.
        std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || of_thread.keep())
            .map_err(|error| no_run(format!("no thread for the lease: {error}")))?;
        Ok(Keeper(Lease(Some(kept))))
    }

    /// For somebody who writes nothing.
    pub fn none() -> Self {
        Keeper(Lease::none())
    }

    /// What it keeps.
    pub fn lease(&self) -> Lease {
        self.0.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(kept) = &self.0.0 {
            *locked(&kept.ended) = true;
            kept.end.notify_all();
        }
    }
}

impl Server {
    /// Renews the lease of a run.
    ///
    /// # Errors
    /// `Run` where it is over: another run followed, or it was ended.
    fn renew_lease(&mut self, run_id: i64) -> Outcome<()> {
        self.call(Place::Run, "SELECT plimsoll.renew_lease($1)", vec![(&run_id, Type::INT8)]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_as_old_as_the_clock_says_that_says_more() {
        let hour = Duration::from_secs(3600);
        let (instant, time) = (Instant::now(), SystemTime::now());
        assert!(Moment(instant, time).age() < hour);
        // The machine slept, and its clock was set back.
        assert!(Moment(instant, time - hour).age() >= hour);
        assert_eq!(Moment(instant, time + hour).age(), Duration::MAX);
        if let Some(long_ago) = instant.checked_sub(Duration::from_secs(5)) {
            assert!(Moment(long_ago, time).age() >= Duration::from_secs(5));
        }
    }
}
