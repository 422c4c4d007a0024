//! `protect_table`: row-level security for people and applications that read a managed table themselves.
//!
//! Two policies on the table and on each of its partitions:
//! ```text
//! plimsoll_roles     permissive     the group roles may read rows, and write them where asked for
//! plimsoll_tenants   restrictive    agents and readers: only rows of databases that plimsoll.databases shows them
//! ```
//! The second one holds whatever else the owner permits. What it compares with is found once a statement, and
//! compared in a way that an index on the tenant columns serves.

use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::Spi;
use serde_json::json;

use super::catalog::{self, Registration};
use super::unmanage::{check_owner, managed_by};
use crate::acts::Act;
use crate::argument::required;
use crate::datum::{Attribute, Held, depend_on_extension, hold, quoted};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{access, identity};

const ROLES: &str = "plimsoll_roles";
const TENANTS: &str = "plimsoll_tenants";

/// What the comment on a policy ends with where `protect_table` switched row-level security on.
const WAS_OFF: &str = "row-level security was off before";
const WAS_ON: &str = "row-level security was on before";

#[pg_extern(sql = false)]
fn protect_table(relation: Option<Oid>, writable: Option<bool>) {
    protect(relation, writable).or_raise();
}

#[pg_extern(sql = false)]
fn unprotect_table(relation: Option<Oid>) {
    unprotect(relation).or_raise();
}

fn protect(relation: Option<Oid>, writable: Option<bool>) -> Answer<()> {
    let user = access::authorise_admin()?;
    let oid = required(relation, "relation")?;
    let writable = required(writable, "writable")?;
    let (table_id, name) = managed_by(oid, user)?;
    identity::as_extension(|| {
        let registration = catalog::registration_by_id(table_id)?;
        for member in members(oid, user)? {
            let was_on = drop_policies(&member)?;
            make_policies(&member, &tenant_condition(&registration, &member)?, writable, was_on)?;
        }
        Ok(())
    })?;
    Act::new("protect_table").relation(&name).arguments(json!({ "writable": writable })).record()
}

fn unprotect(relation: Option<Oid>) -> Answer<()> {
    let user = access::authorise_admin()?;
    let oid = required(relation, "relation")?;
    let (_, name) = managed_by(oid, user)?;
    identity::as_extension(|| {
        for member in members(oid, user)? {
            if !drop_policies(&member)? && is_on(&member)? && !has_policies(&member)? {
                Spi::run(&format!("ALTER TABLE ONLY {} DISABLE ROW LEVEL SECURITY", member.shown()))?;
            }
        }
        Ok(())
    })?;
    Act::new("unprotect_table").relation(&name).record()
}

/// The table and all that inherit from it, held, each of which the user must own.
fn members(oid: Oid, user: Oid) -> Answer<Vec<Held>> {
    let oids = Spi::get_one_with_args::<Vec<Oid>>(
        "WITH RECURSIVE tree (oid) AS (
             SELECT $1 UNION
             SELECT i.inhrelid FROM tree t
             JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
         SELECT pg_catalog.array_agg(tree.oid ORDER BY tree.oid) FROM tree",
        &[oid.into()],
    )?;
    let held = oids.unwrap_or_default().into_iter().filter_map(hold).filter(Held::is_table);
    held.map(|member| {
        check_owner(user, member.owner, &member.shown())?;
        Ok(member)
    })
    .collect()
}

/// Drops our policies; whether row-level security is on without them.
fn drop_policies(member: &Held) -> Answer<bool> {
    let (name, on) = (member.shown(), is_on(member)?);
    let mut was_on = on;
    for policy in [ROLES, TENANTS] {
        let Some(oid) = policy_of(member, policy)? else { continue };
        let comment = Spi::get_one_with_args::<String>(
            "SELECT pg_catalog.obj_description($1, 'pg_policy')",
            &[oid.into()],
        )?;
        was_on &= !comment.unwrap_or_default().ends_with(WAS_OFF);
        Spi::run(&format!("DROP POLICY {policy} ON {name}"))?;
    }
    Ok(was_on)
}

fn policy_of(member: &Held, policy: &str) -> Answer<Option<Oid>> {
    Ok(Spi::get_one_with_args::<Oid>(
        "SELECT (SELECT p.oid FROM pg_catalog.pg_policy p
                 WHERE p.polrelid OPERATOR(pg_catalog.=) $1 AND p.polname OPERATOR(pg_catalog.=) $2::pg_catalog.name)",
        &[member.oid.into(), policy.into()],
    )?)
}

fn is_on(member: &Held) -> Answer<bool> {
    let on = Spi::get_one_with_args::<bool>(
        "SELECT c.relrowsecurity FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) $1",
        &[member.oid.into()],
    )?;
    Ok(on.unwrap_or(false))
}

fn has_policies(member: &Held) -> Answer<bool> {
    let has = Spi::get_one_with_args::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid OPERATOR(pg_catalog.=) $1)",
        &[member.oid.into()],
    )?;
    Ok(has.unwrap_or(false))
}

fn make_policies(member: &Held, condition: &str, writable: bool, was_on: bool) -> Answer<()> {
    let name = member.shown();
    let command = if writable { "ALL" } else { "SELECT" };
    let before = if was_on { WAS_ON } else { WAS_OFF };
    for (policy, definition, purpose) in [
        (
            ROLES,
            format!(
                "AS PERMISSIVE FOR {command} TO plimsoll_admin, plimsoll_agent, plimsoll_reader USING (true)"
            ),
            "the group roles, as far as they are granted privileges",
        ),
        (
            TENANTS,
            format!("AS RESTRICTIVE FOR ALL TO plimsoll_agent, plimsoll_reader USING ({condition})"),
            "agents and readers use rows of the databases that plimsoll.databases shows them",
        ),
    ] {
        Spi::run(&format!("CREATE POLICY {policy} ON {name} {definition}"))?;
        Spi::run(&format!("COMMENT ON POLICY {policy} ON {name} IS 'Plimsoll: {purpose}; {before}'"))?;
        if let Some(oid) = policy_of(member, policy)? {
            depend_on_extension(pg_sys::Oid::from(POLICIES), oid);
        }
    }
    Spi::run(&format!("ALTER TABLE ONLY {name} ENABLE ROW LEVEL SECURITY"))?;
    Ok(())
}

/// `pg_catalog.pg_policy`, whose number is the same everywhere.
const POLICIES: u32 = 3256;

/// What says of a row that it belongs to a database that the reader may see. The tenant's values come as arrays,
/// each made once a statement.
fn tenant_condition(registration: &Registration, member: &Held) -> Answer<String> {
    let attributes = member.attributes();
    let attribute = |column: &String| {
        attributes.iter().find(|attribute| attribute.name == *column).ok_or_else(|| {
            let message = format!("table {} has no column \"{column}\" any more", member.shown());
            Problem::new(state::NO_COLUMN, message)
                .hint("Run plimsoll.manage_table with the columns it has, then this again.")
        })
    };
    let conditions = match registration.tenant_columns.as_slice() {
        [] => {
            let only = registration.only_database.map(|id| id.to_string()).unwrap_or_default();
            vec![is_any(&format!("'{only}'::pg_catalog.uuid"), "v.id", DATABASES)]
        }
        [database] => vec![database_condition(attribute(database)?)?],
        [client, database, ..] => {
            vec![client_condition(attribute(client)?)?, database_condition(attribute(database)?)?]
        }
    };
    Ok(conditions.join(" AND "))
}

const DATABASES: &str = "plimsoll.visible_databases() AS v (id)";
const CLIENTS: &str = "plimsoll.visible_clients() AS v (id)";

fn is_any(value: &str, item: &str, among: &str) -> String {
    format!("{value} OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT {item} FROM {among}))")
}

fn database_condition(column: &Attribute) -> Answer<String> {
    let item = match column.type_oid {
        pg_sys::UUIDOID => "v.id",
        pg_sys::TEXTOID | pg_sys::VARCHAROID => "v.id::pg_catalog.text",
        _ => return Err(unfit(column)),
    };
    Ok(is_any(&quoted(&column.name), item, DATABASES))
}

/// A client's id that the column's type does not hold stands for no row.
fn client_condition(column: &Attribute) -> Answer<String> {
    let item = match column.type_oid {
        pg_sys::TEXTOID | pg_sys::VARCHAROID => "v.id",
        pg_sys::UUIDOID => {
            "CASE WHEN v.id OPERATOR(pg_catalog.~) '^([0-9a-fA-F]{4}-?){7}[0-9a-fA-F]{4}$'
                  THEN v.id::pg_catalog.uuid END"
        }
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => {
            "CASE WHEN v.id OPERATOR(pg_catalog.~) '^-?[0-9]{1,19}$' THEN
                  CASE WHEN v.id::pg_catalog.numeric OPERATOR(pg_catalog.>=) -9223372036854775808
                        AND v.id::pg_catalog.numeric OPERATOR(pg_catalog.<=) 9223372036854775807
                       THEN v.id::pg_catalog.int8 END END"
        }
        _ => return Err(unfit(column)),
    };
    Ok(is_any(&quoted(&column.name), item, CLIENTS))
}

fn unfit(column: &Attribute) -> Problem {
    let message = format!("tenant column \"{}\" has another type than when it was managed", column.name);
    Problem::new(state::UNFIT_TABLE, message).hint("Run plimsoll.manage_table again.")
}
