//! Short ways to make the core's failures: the one error type of the client.

use plimsoll_core::store::{Failure, FailureKind};

/// The run cannot go on, or cannot begin.
pub fn run(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Run, message)
}

/// One table cannot go on.
pub fn table(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Table, message)
}

/// It may work when tried again.
pub fn passing(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Passing, message)
}

/// Says what to do about a failure.
pub trait Advise {
    /// The same failure with a hint.
    fn advise(self, hint: impl Into<String>) -> Self;
}

impl Advise for Failure {
    fn advise(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
