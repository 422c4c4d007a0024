//! `unmanage_table`: by the table, or by the name it was registered under.

use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::Spi;

use super::catalog;
use super::manage::relation_of;
use crate::acts::Act;
use crate::argument::required;
use crate::datum::{hold_by_name, qualified};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{access, identity, kept, stamp};

#[pg_extern(sql = false)]
fn unmanage_table(relation: Oid) {
    unmanage(relation).or_raise();
}

/// Ends the management of a table: rows, index and history stay, the registration is kept aside so that
/// column numbers are the same when it is managed again.
fn unmanage(oid: Oid) -> Answer<()> {
    let user = access::authorise_admin()?;
    let relation = identity::as_extension(|| {
        let relation = relation_of(oid)?;
        check_owner(user, relation.owner, &relation.shown())?;
        end_management(&relation.schema, &relation.name)?;
        Ok(relation.shown())
    })?;
    kept::drop_triggers(oid)?;
    stamp::drop_triggers(oid)?;
    Act::new("unmanage_table").relation(&relation).record()
}

/// Number and name of the managed table that a relation is, which the user must own.
pub fn managed_by(oid: Oid, user: Oid) -> Answer<(i32, String)> {
    identity::as_extension(|| {
        let relation = relation_of(oid)?;
        check_owner(user, relation.owner, &relation.shown())?;
        let registration = catalog::registration_by_name(&relation.shown())?;
        Ok((registration.table_id, registration.name()))
    })
}

#[pg_extern(sql = false)]
fn unmanage_table_by_name(relation: Option<&str>) {
    unmanage_by_name(relation).or_raise();
}

/// As [`unmanage`], by the registered name: the table may have been renamed or dropped.
fn unmanage_by_name(relation: Option<&str>) -> Answer<()> {
    let user = access::authorise_admin()?;
    let relation = required(relation, "relation")?;
    let name = identity::as_extension(|| {
        let registration = catalog::registration_by_name(relation)?;
        let held = match hold_by_name(&registration.schema_name, &registration.table_name) {
            None => catalog::renamed(&registration)?,
            found => found,
        };
        if let Some(held) = &held {
            check_owner(user, held.owner, &registration.name())?;
        }
        end_management(&registration.schema_name, &registration.table_name)?;
        if let Some(held) = held {
            kept::drop_triggers(held.oid)?;
            stamp::drop_triggers(held.oid)?;
        }
        Ok(registration.name())
    })?;
    Act::new("unmanage_table").relation(&name).record()
}

/// Makes sure that a table is the user's.
pub fn check_owner(user: Oid, owner: Oid, shown: &str) -> Answer<()> {
    if identity::may_act_as(user, owner) {
        return Ok(());
    }
    Err(Problem::new(state::NOT_AUTHORISED, format!("table {shown} is not yours"))
        .hint("Only its owner, or a member of its owner, does this."))
}

fn end_management(schema: &str, table: &str) -> Answer<()> {
    let ended = Spi::get_one_with_args::<i32>(
        "WITH ended AS (
             UPDATE plimsoll.table_record t SET unmanaged_at = pg_catalog.now(), keep_manifest = false
             WHERE t.unmanaged_at IS NULL AND t.schema_name OPERATOR(pg_catalog.=) $1::pg_catalog.name
               AND t.table_name OPERATOR(pg_catalog.=) $2::pg_catalog.name RETURNING t.table_id)
         SELECT (SELECT e.table_id FROM ended e)",
        &[schema.into(), table.into()],
    )?;
    match ended {
        Some(table_id) => {
            kept::drop_data(table_id)?;
            kept::tell_registrations_changed()
        }
        None => {
            let shown = qualified(schema, table);
            Err(Problem::new(state::NOT_MANAGED, format!("{shown} is no managed table"))
                .hint("See plimsoll.tables."))
        }
    }
}
