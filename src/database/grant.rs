//! Databases granted to roles. A grant is to one role, known by its name and its oid: whoever gets a name that
//! somebody else had does not get what was granted with it.

use std::ffi::CStr;

use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use serde_json::json;

use super::execute;
use crate::acts::Act;
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{access, identity};

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
        // What was granted to another role of this name.
        execute(
            "DELETE FROM plimsoll.grant_record WHERE database_id OPERATOR(pg_catalog.=) $1
                 AND role_name OPERATOR(pg_catalog.=) $2::pg_catalog.name AND role_oid IS DISTINCT FROM $3",
            &[database.id.into(), role.as_ref().into(), role_id.into()],
        )?;
        execute(
            "INSERT INTO plimsoll.grant_record (database_id, role_name, granted_by)
             VALUES ($1, $2::pg_catalog.name, $3::pg_catalog.name)
             ON CONFLICT (database_id, role_name) DO NOTHING",
            &[database.id.into(), role.as_ref().into(), identity::role_name(user).into()],
        )
    })?;
    let groups = ["plimsoll_admin", "plimsoll_agent", "plimsoll_reader"];
    let mut members = groups.iter().filter_map(|group| identity::role_by_name(group));
    if groups.contains(&role.as_ref()) {
        pgrx::warning!(
            "every member of \"{role}\", whosever agent it is, may use database {} now",
            database.id
        );
    } else if !members.any(|group| identity::may_act_as(role_id, group)) {
        pgrx::notice!(
            "role \"{role}\" may not call Plimsoll's functions yet: GRANT plimsoll_agent (or plimsoll_reader) TO it"
        );
    }
    Act::new("grant_database").database(database.id).arguments(json!({ "role": role })).record()
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
    Act::new("revoke_database").database(database.id).arguments(json!({ "role": role })).record()
}

/// The oid of the role with this name: what a grant keeps beside the name. A dump does not have it, so rows that are
/// restored are for the role that has the name then.
#[pg_extern(sql = false)]
fn role_oid(name: Option<&CStr>) -> Option<Oid> {
    identity::role_by_name(&name?.to_string_lossy())
}
