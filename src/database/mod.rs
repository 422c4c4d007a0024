//! Registered databases: register, suspend, forget, grants, options. For admins only.

mod grant;

use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use serde_json::json;

use crate::access::{self, no_such_database};
use crate::acts::Act;
use crate::argument::{name, required};
use crate::datum::is_read_committed;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{delete, identity, kept, lease, secret, setting, table, token};

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
    let registered = insert(user, database_id, (client_id, database_name), &secret::random_bytes()?)?;
    if registered == 0 {
        let message = format!("client \"{client_id}\" has a database \"{database_name}\" already");
        return Err(Problem::new(state::DUPLICATE, message).hint(
            "Choose another name; plimsoll.rotate_token makes a new token for the one that is registered.",
        ));
    }
    let token = token::add(database_id)?;
    Act::new("register_database")
        .database(database_id)
        .arguments(json!({ "client_id": client_id, "database_name": database_name }))
        .record()?;
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
/// digests. It has no token until one is made with `rotate_token`: roles are granted it.
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
    let fingerprint_key = fingerprint_key.try_into().map_err(|_| {
        let message =
            format!("fingerprint_key has {} bytes; it must have {}", fingerprint_key.len(), secret::LENGTH);
        Problem::new(state::BAD_ARGUMENT, message)
            .hint("It is what plimsoll.login answers on the other server.")
    })?;
    // Rows of this id may be on their way already; what is not committed yet was not counted for it.
    kept::wait_for_writers()?;
    let adopted = insert(user, database_id, (client_id, database_name), fingerprint_key)?;
    if adopted == 0 {
        let message =
            format!("database {database_id}, or \"{database_name}\" of \"{client_id}\", is registered");
        return Err(Problem::new(state::DUPLICATE, message).hint("See plimsoll.databases."));
    }
    kept::tell_databases_changed()?;
    Act::new("adopt_database")
        .database(database_id)
        .arguments(json!({ "client_id": client_id, "database_name": database_name }))
        .record()
}

/// Writes a registration; how many rows it became: none where the id or the client's name for it is taken.
fn insert(
    user: Oid,
    database_id: Uuid,
    (client_id, database_name): (&str, &str),
    fingerprint_key: &[u8; secret::LENGTH],
) -> Answer<usize> {
    identity::as_extension(|| {
        secret::hold(fingerprint_key, || {
            execute(
                "INSERT INTO plimsoll.database_record
                     (database_id, client_id, database_name, fingerprint_key, registered_by)
                 VALUES ($1, $2, $3, plimsoll.held_secret(), $4::pg_catalog.name)
                 ON CONFLICT DO NOTHING",
                &[
                    database_id.into(),
                    client_id.into(),
                    database_name.into(),
                    identity::role_name(user).into(),
                ],
            )
        })
    })
}

/// A random UUID (version 4).
fn random_uuid() -> Answer<Uuid> {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&secret::random_bytes()?[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Uuid::from_bytes(bytes))
}

/// Runs a statement that changes the extension's tables; the number of rows it touched.
fn execute(statement: &str, arguments: &[pgrx::datum::DatumWithOid]) -> Answer<usize> {
    Spi::connect_mut(|client| Ok(client.update(statement, None, arguments)?.len()))
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
    )?;
    Act::new(if suspended { "suspend_database" } else { "resume_database" }).database(database_id).record()
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
    Act::new("forget_database")
        .database(database.id)
        .arguments(json!({ "client_id": database.client_id }))
        .outcome(json!({ "rows": removed }))
        .record()?;
    Ok(i64::try_from(removed).unwrap_or(i64::MAX))
}

#[pg_extern(sql = false)]
fn set_option(database_id: Option<Uuid>, option: Option<&str>, value: Option<&str>) {
    set(database_id, option, value).or_raise();
}

fn set(database_id: Option<Uuid>, option: Option<&str>, value: Option<&str>) -> Answer<()> {
    access::authorise_admin()?;
    let database = access::authorise(required(database_id, "database_id")?)?;
    let option = required(option, "option")?;
    let settings = setting::changed(&database.settings, option, value)?;
    change(
        database.id,
        "UPDATE plimsoll.database_record SET settings = $2 WHERE database_id OPERATOR(pg_catalog.=) $1",
        &[database.id.into(), JsonB(settings).into()],
    )?;
    Act::new("set_option")
        .database(database.id)
        .arguments(json!({ "option": option, "value": value }))
        .record()
}
