//! Login for shared roles: challenge and response, bound to the transaction and the effective user.
//!
//! ```text
//! agent   -> server   login_challenge()
//! server  -> agent    32 random bytes
//! agent   -> server   login(database_id, proof)          -- see plimsoll_core::token
//! server  -> agent    client_id, fingerprint_key, settings
//! ```

pub mod failed;
mod session;

use pgrx::prelude::*;
use pgrx::{IntoDatum, JsonB, Uuid};
pub use session::{database_of, is_logged_in, register_callbacks};

use crate::access::{self, no_such_database, suspended_database};
use crate::argument::required;
use crate::datum::{Parameter, Row, read_planned, with_newest_snapshot};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{identity, secret, token};

#[pg_extern(sql = false)]
fn login_challenge() -> Vec<u8> {
    challenge().or_raise()
}

fn challenge() -> Answer<Vec<u8>> {
    identity::refuse_restricted()?;
    let challenge = secret::random_bytes()?;
    session::set_challenge(challenge);
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
    let (challenge, tried) = session::begin_try();
    if tried {
        return Err(Problem::new(state::LOGIN_REFUSED, "this transaction has tried to log in already")
            .hint("Log in once, at the start of each transaction."));
    }
    let challenge = challenge.ok_or_else(|| {
        Problem::new(state::LOGIN_REFUSED, "there is no challenge to answer in this transaction")
            .hint("Call plimsoll.login_challenge() first, in the same transaction.")
    })?;
    let user = identity::effective_user();
    let Some(accepted) = token::accepting(database_id, proof, &challenge)? else {
        failed::record(&database_id, user, "no proof of a token that is good")?;
        return Err(no_such_database(&database_id).with_code(state::LOGIN_REFUSED).hint(
            "Check the database id and the token; an admin makes a new one with plimsoll.rotate_token.",
        ));
    };
    if accepted.suspended {
        failed::record(&database_id, user, "the database is suspended")?;
        return Err(suspended_database(&database_id));
    }
    session::set_login(database_id, user);
    accepted.note_old_token()
}

fn settings_of(database_id: Uuid) -> Answer<(String, Vec<u8>, JsonB)> {
    let database = access::authorise(database_id)?;
    let id = Parameter { type_oid: pg_sys::UUIDOID, datum: database_id.into_datum() };
    let mut key = Vec::new();
    let mut take = |row: &Row<'_>| {
        key = row.with_bytes(0, <[u8]>::to_vec).unwrap_or_default();
        Ok(true)
    };
    let sql = "SELECT d.fingerprint_key FROM plimsoll.database_record d
               WHERE d.database_id OPERATOR(pg_catalog.=) $1";
    identity::as_extension(|| with_newest_snapshot(|| read_planned(sql, &[id], &mut take)))?;
    Ok((database.client_id, key, JsonB(database.settings)))
}
