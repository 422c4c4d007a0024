//! What a backend remembers of a login. It is memory of the backend alone, gone when the transaction ends, whichever
//! way.

use std::cell::RefCell;

use pgrx::Uuid;
use pgrx::pg_sys::{self, Oid, SubTransactionId};

use crate::secret::LENGTH;

#[derive(Default)]
struct State {
    challenge: Option<[u8; LENGTH]>,
    login: Option<Login>,
    /// A login was tried in this transaction: a second one is refused.
    tried: bool,
}

struct Login {
    database_id: Uuid,
    user: Oid,
    subtransaction: SubTransactionId,
}

thread_local! {
    // A backend has one thread.
    static STATE: RefCell<State> = RefCell::default();
}

/// Whether this transaction logged in to the database as this user.
pub fn is_logged_in(database_id: &Uuid, user: Oid) -> bool {
    database_of(user).is_some_and(|database| database == *database_id)
}

/// The database that this transaction logged in to as this user.
pub fn database_of(user: Oid) -> Option<Uuid> {
    STATE.with_borrow(|state| {
        state.login.as_ref().filter(|login| login.user == user).map(|login| login.database_id)
    })
}

/// Remembers the challenge that the next proof must answer, in the place of any other.
pub fn set_challenge(challenge: [u8; LENGTH]) {
    STATE.with_borrow_mut(|state| state.challenge = Some(challenge));
}

/// Begins a try: the challenge, which is of no use afterwards, and whether there was a try before.
pub fn begin_try() -> (Option<[u8; LENGTH]>, bool) {
    STATE.with_borrow_mut(|state| {
        let tried = std::mem::replace(&mut state.tried, true);
        (state.challenge.take(), tried)
    })
}

/// Remembers that this transaction logged in.
pub fn set_login(database_id: Uuid, user: Oid) {
    // SAFETY: reads a counter of the backend.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    STATE.with_borrow_mut(|state| state.login = Some(Login { database_id, user, subtransaction }));
}

/// Whatever happens to the transaction ends the login. Before a commit the last code of users has run (deferred
/// triggers, cursors) when this is called; what may still run some (indexes of temporary tables that are emptied)
/// finds nobody logged in.
unsafe extern "C-unwind" fn at_transaction_event(
    _event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    STATE.with_borrow_mut(|state| *state = State::default());
}

unsafe extern "C-unwind" fn at_subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    ended: SubTransactionId,
    parent: SubTransactionId,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::SubXactEvent::{SUBXACT_EVENT_ABORT_SUB, SUBXACT_EVENT_COMMIT_SUB};
    STATE.with_borrow_mut(|state| {
        if state.login.as_ref().is_none_or(|login| login.subtransaction != ended) {
            return;
        }
        match event {
            SUBXACT_EVENT_ABORT_SUB => state.login = None,
            SUBXACT_EVENT_COMMIT_SUB => {
                if let Some(login) = &mut state.login {
                    login.subtransaction = parent;
                }
            }
            _ => {}
        }
    });
}

/// Called once when the library is loaded.
pub fn register_callbacks() {
    // SAFETY: the callbacks are functions of this library, which a backend never unloads, and they raise
    // nothing: they only change memory of their own.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_event), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_event), std::ptr::null_mut());
    }
}
