//! Which ways a managed table may go: what an administrator allows, and what two-way asks of the table itself.

use pgrx::Array;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use plimsoll_core::direction::{Unfit, fits_two_way};
use serde_json::json;

use super::catalog::{self, Registration};
use super::manage::{read_directions, words_of};
use super::unmanage::managed_by;
use super::{ManagedTable, register};
use crate::acts::Act;
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{access, identity};

#[pg_extern(sql = false)]
fn set_directions(relation: Option<Oid>, directions: Option<Array<'_, &str>>) {
    let answer = || {
        let user = access::authorise_admin()?;
        let allowed = read_directions(&required(directions, "directions")?)?;
        let (table_id, name) = managed_by(required(relation, "relation")?, user)?;
        let before = identity::as_extension(|| {
            let before = catalog::registration_by_id(table_id)?.allowed;
            register::write_directions(table_id, words_of(allowed))?;
            Ok(before)
        })?;
        Act::new("set_directions")
            .relation(&name)
            .arguments(json!({ "directions": allowed.words() }))
            .outcome(json!({ "before": before.words() }))
            .record()
    };
    answer().or_raise();
}

/// Makes sure that rows of a table can change on both sides.
///
/// # Errors
/// `UNFIT_TABLE` with the reason, and what to run.
pub fn check_fits_two_way(table: &ManagedTable) -> Answer<()> {
    let Err(unfit) = fits_two_way(&table.schema) else { return Ok(()) };
    let registration = identity::as_extension(|| catalog::registration_by_id(table.table_id))?;
    let name = &table.name;
    let manage = |version: &str| manage_call(&registration, version);
    let hint = match &unfit {
        Unfit::NoKey => format!("ALTER TABLE {name} ADD PRIMARY KEY (...); then {}", manage("...")),
        Unfit::StandsAtVersion { column } => manage(column),
        Unfit::NoVersion | Unfit::VersionOfDatabase { .. } | Unfit::NoRevision { .. } => format!(
            "ALTER TABLE {name} ADD COLUMN revision bigint NOT NULL DEFAULT 1, on both sides, raised with each change; \
             then {}",
            manage("revision")
        ),
    };
    Err(Problem::new(state::UNFIT_TABLE, format!("{name} cannot go two ways: {unfit}")).hint(hint))
}

/// The call that manages a table as it is, but for a version that each row counts by itself.
fn manage_call(registration: &Registration, version: &str) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let names = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
        format!("ARRAY[{}]", names.join(", "))
    };
    let mut arguments = vec![literal(&registration.name())];
    if !registration.key_columns.is_empty() {
        arguments.push(format!("key_columns => {}", names(&registration.key_columns)));
    }
    arguments.push(format!("version_column => {}, version_scope => 'row'", literal(version)));
    if let Some(modified) = &registration.modified_column {
        arguments.push(format!("modified_column => {}", literal(modified)));
    }
    if !registration.server_columns.is_empty() {
        arguments.push(format!("server_columns => {}", names(&registration.server_columns)));
    }
    if registration.tenant_columns != ["client_id", "database_id"] {
        let tenant = match registration.tenant_columns.is_empty() {
            true => literal("{}"),
            false => names(&registration.tenant_columns),
        };
        arguments.push(format!("tenant_columns => {tenant}"));
    }
    if let Some(database_id) = registration.only_database {
        arguments.push(format!("database_id => {}", literal(&database_id.to_string())));
    }
    if registration.superuser_allowed {
        arguments.push("superuser_allowed => true".to_owned());
    }
    if !registration.keep_manifest {
        arguments.push("keep_manifest => false".to_owned());
    }
    format!("SELECT plimsoll.manage_table({});", arguments.join(", "))
}
