//! Login for shared roles: challenge and response, bound to the transaction and the effective user.
//!
//! ```text
//! agent   -> server   login_challenge()
//! server  -> agent    32 random bytes
//! agent   -> server   login(database_id, proof)          -- see plimsoll_core::token
//! server  -> agent    client_id, fingerprint_key, settings
//! ```
//! The state lives in the backend's memory and is gone when the transaction ends, whichever way.

use std::cell::RefCell;

use pgrx::pg_sys::{self, Oid, SubTransactionId};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use plimsoll_core::token::StoredKey;

use crate::access::{self, no_such_database, suspended_database};
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::identity;

#[derive(Default)]
struct State {
    challenge: Option<[u8; 32]>,
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
    STATE.with_borrow(|state| {
        state.login.as_ref().is_some_and(|login| login.database_id == *database_id && login.user == user)
    })
}

/// The database that this transaction logged in to as this user.
pub fn database_of(user: Oid) -> Option<Uuid> {
    STATE.with_borrow(|state| {
        state.login.as_ref().filter(|login| login.user == user).map(|login| login.database_id)
    })
}

unsafe extern "C-unwind" fn at_transaction_event(
    event: pg_sys::XactEvent::Type,
    _argument: *mut std::ffi::c_void,
) {
    use pg_sys::XactEvent::{XACT_EVENT_PARALLEL_PRE_COMMIT, XACT_EVENT_PRE_COMMIT};
    // Deferred triggers still run at PRE_COMMIT; everything after it ends the login.
    if event != XACT_EVENT_PRE_COMMIT && event != XACT_EVENT_PARALLEL_PRE_COMMIT {
        STATE.with_borrow_mut(|state| *state = State::default());
    }
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

/// 32 random bytes.
pub fn random_bytes() -> Answer<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|_| Problem::new(state::INTERNAL, "the operating system gives no random bytes"))?;
    Ok(bytes)
}

#[pg_extern(sql = false)]
fn login_challenge() -> Vec<u8> {
    challenge().or_raise()
}

fn challenge() -> Answer<Vec<u8>> {
    identity::refuse_restricted()?;
    let challenge = random_bytes()?;
    STATE.with_borrow_mut(|state| state.challenge = Some(challenge));
    Ok(challenge.to_vec())
}

#[pg_extern(sql = false)]
fn login(
    database_id: Option<Uuid>,
    proof: Option<Vec<u8>>,
) -> TableIterator<'static, (name!(client_id, String), name!(fingerprint_key, Vec<u8>), name!(settings, JsonB))>
{
    let row = || {
        let database_id = required(database_id, "database_id")?;
        match proof {
            Some(proof) => log_in(database_id, &proof)?,
            None => drop(access::authorise(database_id)?),
        }
        settings_of(database_id)
    };
    TableIterator::once(row().or_raise())
}

fn log_in(database_id: Uuid, proof: &[u8]) -> Answer<()> {
    identity::refuse_restricted()?;
    let (challenge, tried) = STATE.with_borrow_mut(|state| {
        let tried = std::mem::replace(&mut state.tried, true);
        (state.challenge.take(), tried)
    });
    if tried {
        return Err(Problem::new(state::LOGIN_REFUSED, "this transaction has tried to log in already")
            .hint("Log in once, at the start of each transaction."));
    }
    let challenge = challenge.ok_or_else(|| {
        Problem::new(state::LOGIN_REFUSED, "there is no challenge to answer in this transaction")
            .hint("Call plimsoll.login_challenge() first, in the same transaction.")
    })?;
    let user = identity::effective_user();
    let kept = identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = client.select(
                "SELECT d.stored_key, d.suspended_at IS NOT NULL FROM plimsoll.database_record d
                 WHERE d.database_id OPERATOR(pg_catalog.=) $1",
                Some(1),
                &[database_id.into()],
            )?;
            if rows.is_empty() {
                return Ok(None);
            }
            let row = rows.first();
            Ok(Some((row.get::<Vec<u8>>(1)?.unwrap_or_default(), row.get::<bool>(2)?.unwrap_or(true))))
        })
    })?;
    // An unknown database costs the same work as a known one.
    let (stored, suspended) = kept.unwrap_or_else(|| (vec![0; 32], false));
    let stored = StoredKey(stored.try_into().unwrap_or([0; 32]));
    if !stored.accepts(proof, &challenge, database_id.as_bytes()) {
        identity::as_extension(|| {
            Spi::get_one::<i64>("SELECT pg_catalog.nextval('plimsoll.failed_logins')")?;
            Ok(())
        })?;
        let user = identity::role_name(user);
        pgrx::log!("plimsoll: failed login to database {database_id} by role \"{user}\"");
        return Err(no_such_database(&database_id).with_code(state::LOGIN_REFUSED).hint(
            "Check the database id and the token; an admin makes a new one with plimsoll.rotate_token.",
        ));
    }
    if suspended {
        return Err(suspended_database(&database_id));
    }
    // SAFETY: reads a counter of the backend.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    STATE.with_borrow_mut(|state| state.login = Some(Login { database_id, user, subtransaction }));
    Ok(())
}

fn settings_of(database_id: Uuid) -> Answer<(String, Vec<u8>, JsonB)> {
    let database = access::authorise(database_id)?;
    let key = identity::as_extension(|| {
        let key = Spi::get_one_with_args::<Vec<u8>>(
            "SELECT d.fingerprint_key FROM plimsoll.database_record d
             WHERE d.database_id OPERATOR(pg_catalog.=) $1",
            &[database_id.into()],
        )?;
        Ok(key.unwrap_or_default())
    })?;
    Ok((database.client_id, key, JsonB(database.settings)))
}
