//! Secrets: made at random, and written without being a parameter of any statement. What logs and plans show of
//! statements has their parameters in it, those of nested ones too; it has no answers of functions.

use std::cell::Cell;

use pgrx::prelude::*;

use crate::error::{Answer, Problem, state};

/// Bytes of each secret.
pub const LENGTH: usize = 32;

type Secret = [u8; LENGTH];

thread_local! {
    /// What `held_secret()` answers while [`hold`] runs. A backend has one thread.
    static HELD: Cell<Option<Secret>> = const { Cell::new(None) };
}

/// 32 random bytes.
///
/// # Errors
/// `INTERNAL` where the operating system has none.
pub fn random_bytes() -> Answer<Secret> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes)
        .map_err(|_| Problem::new(state::INTERNAL, "the operating system gives no random bytes"))?;
    Ok(bytes)
}

/// Runs `work`, whose statement reads the secret as `plimsoll.held_secret()`.
pub fn hold<T>(secret: &Secret, work: impl FnOnce() -> T) -> T {
    struct Forgotten;
    impl Drop for Forgotten {
        fn drop(&mut self) {
            HELD.set(None);
        }
    }
    HELD.set(Some(*secret));
    let _forgotten = Forgotten;
    work()
}

/// For statements of the extension alone: nobody else may call it.
#[pg_extern(sql = false)]
fn held_secret() -> Option<Vec<u8>> {
    HELD.get().map(|secret| secret.to_vec())
}
