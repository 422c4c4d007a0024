//! Registered databases: register, token, suspend, forget, grants, options. For admins only.

use std::ffi::CStr;

use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use plimsoll_core::token::Token;

use crate::access::{self, no_such_database};
use crate::argument::{name, required};
use crate::datum::is_read_committed;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{delete, identity, kept, lease, login, setting, table};

/// Characters in the name of a client or database.
const NAME_LIMIT: usize = 200;

#[pg_extern(sql = false)]
fn register_database(
    client_id: Option<&str>,
    database_name: Option<&str>,
) -> TableIterator<'static, (name!(database_id, Uuid), name!(token, String))> {
    TableIterator::once(register(client_id, database_name).or_raise())
}

fn register(client_id: Option<&str>, database_name: Option<&str>) -> Answer<(Uuid, String)> {
    let user = access::authorise_admin()?;
    let client_id = name(required(client_id, "client_id")?, "client_id", NAME_LIMIT)?;
    let database_name = name(required(database_name, "database_name")?, "database_name", NAME_LIMIT)?;
    let database_id = random_uuid()?;
    let token = Token::from_random(&login::random_bytes()?);
    let fingerprint_key = login::random_bytes()?;
    let registered = insert(user, database_id, (client_id, database_name), &fingerprint_key, &token)?;
    if registered == 0 {
        let message = format!("client \"{client_id}\" has a database \"{database_name}\" already");
        return Err(Problem::new(state::DUPLICATE, message).hint(
            "Choose another name; plimsoll.rotate_token makes a new token for the one that is registered.",
        ));
    }
    Ok((database_id, token.reveal().to_owned()))
}

#[pg_extern(sql = false)]
fn adopt_database(
    database_id: Option<Uuid>,
    client_id: Option<&str>,
    database_name: Option<&str>,
    fingerprint_key: Option<&[u8]>,
) {
    adopt(database_id, client_id, database_name, fingerprint_key).or_raise();
}

/// Registers a database under the id and the key that it has on another server, so that both sides make the same
/// digests. It gets no token that anybody knows: roles are granted it.
fn adopt(
    database_id: Option<Uuid>,
    client_id: Option<&str>,
    database_name: Option<&str>,
    fingerprint_key: Option<&[u8]>,
) -> Answer<()> {
    let user = access::authorise_admin()?;
    let database_id = required(database_id, "database_id")?;
    let client_id = name(required(client_id, "client_id")?, "client_id", NAME_LIMIT)?;
    let database_name = name(required(database_name, "database_name")?, "database_name", NAME_LIMIT)?;
    let fingerprint_key = required(fingerprint_key, "fingerprint_key")?;
    if fingerprint_key.len() != 32 {
        let message = format!("fingerprint_key has {} bytes; it must have 32", fingerprint_key.len());
        return Err(Problem::new(state::BAD_ARGUMENT, message)
            .hint("It is what plimsoll.login answers on the other server."));
    }
    let token = Token::from_random(&login::random_bytes()?);
    // Rows of this id may be on their way already; what is not committed yet was not counted for it.
    kept::wait_for_writers()?;
    let adopted = insert(user, database_id, (client_id, database_name), fingerprint_key, &token)?;
    if adopted == 0 {
        let message =
            format!("database {database_id}, or \"{database_name}\" of \"{client_id}\", is registered");
        return Err(Problem::new(state::DUPLICATE, message).hint("See plimsoll.databases."));
    }
    kept::tell_databases_changed()
}

/// Writes a registration; how many rows it became: none where the id or the client's name for it is taken.
fn insert(
    user: Oid,
    database_id: Uuid,
    (client_id, database_name): (&str, &str),
    fingerprint_key: &[u8],
    token: &Token,
) -> Answer<usize> {
    identity::as_extension(|| {
        execute(
            "INSERT INTO plimsoll.database_record
                 (database_id, client_id, database_name, fingerprint_key, stored_key, registered_by)
             VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.name)
             ON CONFLICT DO NOTHING",
            &[
                database_id.into(),
                client_id.into(),
                database_name.into(),
                fingerprint_key.to_vec().into(),
                token.stored_key().0.to_vec().into(),
                identity::role_name(user).into(),
            ],
        )
    })
}

/// A random UUID (version 4).
fn random_uuid() -> Answer<Uuid> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&login::random_bytes()?[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Uuid::from_bytes(bytes))
}

/// Runs a statement that changes the extension's tables; the number of rows it touched.
fn execute(statement: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Answer<usize> {
    Spi::connect_mut(|client| Ok(client.update(statement, None, arguments)?.len()))
}

#[pg_extern(sql = false)]
fn rotate_token(database_id: Option<Uuid>) -> String {
    rotate(database_id).or_raise()
}

fn rotate(database_id: Option<Uuid>) -> Answer<String> {
    access::authorise_admin()?;
    let database_id = required(database_id, "database_id")?;
    let token = Token::from_random(&login::random_bytes()?);
    change(
        database_id,
        "UPDATE plimsoll.database_record SET stored_key = $2 WHERE database_id OPERATOR(pg_catalog.=) $1",
        &[database_id.into(), token.stored_key().0.to_vec().into()],
    )?;
    Ok(token.reveal().to_owned())
}

/// Changes one database's row, which must be there.
fn change(database_id: Uuid, statement: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Answer<()> {
    match identity::as_extension(|| execute(statement, arguments))? {
        0 => Err(no_such_database(&database_id)),
        _ => Ok(()),
    }
}

#[pg_extern(sql = false)]
fn suspend_database(database_id: Option<Uuid>) {
    set_suspended(database_id, true).or_raise();
}

#[pg_extern(sql = false)]
fn resume_database(database_id: Option<Uuid>) {
    set_suspended(database_id, false).or_raise();
}

fn set_suspended(database_id: Option<Uuid>, suspended: bool) -> Answer<()> {
    access::authorise_admin()?;
    let database_id = required(database_id, "database_id")?;
    if suspended {
        access::wait_for_writers(database_id)?;
    }
    change(
        database_id,
        "UPDATE plimsoll.database_record
         SET suspended_at = CASE WHEN $2 THEN COALESCE(suspended_at, pg_catalog.clock_timestamp()) END
         WHERE database_id OPERATOR(pg_catalog.=) $1",
        &[database_id.into(), suspended.into()],
    )
}

#[pg_extern(sql = false)]
fn forget_database(database_id: Option<Uuid>) -> i64 {
    forget(database_id).or_raise()
}

/// Deletes the database's rows in every managed table, children before parents, then its registration.
fn forget(database_id: Option<Uuid>) -> Answer<i64> {
    access::authorise_admin()?;
    let database = access::authorise(required(database_id, "database_id")?)?;
    if !is_read_committed() {
        let message = "a database is not forgotten by a transaction that looks at an older state";
        return Err(Problem::new(state::NOT_IN_STATE, message)
            .hint("Call it in a transaction of isolation level READ COMMITTED."));
    }
    // A step of its agent that is under way ends first, and no other begins.
    access::wait_for_writers(database.id)?;
    lease::lock(&database)?;
    // A table that was renamed still holds rows: leaving it out would leave them behind, of nobody.
    let tables = table::all_as_registered(&database)?;
    let mut order: Vec<(u32, usize)> = table::ranks(&tables)?.into_iter().zip(0..).collect();
    order.sort_unstable();
    let mut removed = 0;
    for (_, index) in order.into_iter().rev() {
        removed += delete::delete_everything(&database, &tables[index])?;
    }
    kept::forget(database.id)?;
    change(
        database.id,
        "DELETE FROM plimsoll.database_record WHERE database_id OPERATOR(pg_catalog.=) $1",
        &[database.id.into()],
    )?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}

#[pg_extern(sql = false)]
fn grant_database(database_id: Option<Uuid>, role: Option<&CStr>) {
    grant(database_id, role).or_raise();
}

fn grant(database_id: Option<Uuid>, role: Option<&CStr>) -> Answer<()> {
    let user = access::authorise_admin()?;
    let database = access::authorise(required(database_id, "database_id")?)?;
    let role = required(role, "role")?.to_string_lossy();
    let Some(role_id) = identity::role_by_name(&role) else {
        return Err(Problem::new(state::NO_ROLE, format!("role \"{role}\" does not exist"))
            .hint("Make it with CREATE ROLE, then grant it the database."));
    };
    identity::as_extension(|| {
        execute(
            "INSERT INTO plimsoll.grant_record (database_id, role_name, granted_by)
             VALUES ($1, $2::pg_catalog.name, $3::pg_catalog.name)
             ON CONFLICT (database_id, role_name) DO NOTHING",
            &[database.id.into(), role.as_ref().into(), identity::role_name(user).into()],
        )
    })?;
    let groups = ["plimsoll_admin", "plimsoll_agent", "plimsoll_reader"];
    let mut groups = groups.iter().filter_map(|group| identity::role_by_name(group));
    if !groups.any(|group| identity::may_act_as(role_id, group)) {
        pgrx::notice!(
            "role \"{role}\" may not call Plimsoll's functions yet: GRANT plimsoll_agent (or plimsoll_reader) TO it"
        );
    }
    Ok(())
}

#[pg_extern(sql = false)]
fn revoke_database(database_id: Option<Uuid>, role: Option<&CStr>) {
    revoke(database_id, role).or_raise();
}

/// The role need not exist any more.
fn revoke(database_id: Option<Uuid>, role: Option<&CStr>) -> Answer<()> {
    access::authorise_admin()?;
    let database = access::authorise(required(database_id, "database_id")?)?;
    let role = required(role, "role")?.to_string_lossy();
    access::wait_for_writers(database.id)?;
    let revoked = identity::as_extension(|| {
        execute(
            "DELETE FROM plimsoll.grant_record WHERE database_id OPERATOR(pg_catalog.=) $1
                 AND role_name OPERATOR(pg_catalog.=) $2::pg_catalog.name",
            &[database.id.into(), role.as_ref().into()],
        )
    })?;
    if revoked == 0 {
        let message = format!("database {} is not granted to role \"{role}\"", database.id);
        return Err(Problem::new(state::BAD_ARGUMENT, message)
            .hint("plimsoll.databases shows to whom each database is granted."));
    }
    Ok(())
}

#[pg_extern(sql = false)]
fn set_option(database_id: Option<Uuid>, option: Option<&str>, value: Option<&str>) {
    set(database_id, option, value).or_raise();
}

fn set(database_id: Option<Uuid>, option: Option<&str>, value: Option<&str>) -> Answer<()> {
    access::authorise_admin()?;
    let database = access::authorise(required(database_id, "database_id")?)?;
    let settings = setting::changed(&database.settings, required(option, "option")?, value)?;
    change(
        database.id,
        "UPDATE plimsoll.database_record SET settings = $2 WHERE database_id OPERATOR(pg_catalog.=) $1",
        &[database.id.into(), JsonB(settings).into()],
    )
}
