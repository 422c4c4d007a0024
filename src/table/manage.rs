//! `manage_table`: what a table must have, each refusal with what to run.

use std::ffi::CStr;

use pgrx::Uuid;
use pgrx::datum::AnyElement;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::Spi;
use plimsoll_core::direction::Allowed;
use serde_json::json;

use super::catalog::{self, Registration};
use super::labels::Labels;
use super::roles::{self, Versions};
use super::{numbers, register};
use crate::acts::Act;
use crate::argument::{json, required};
use crate::datum::{Attribute, Codec, Held, hold, quoted, require_utf8, type_name};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{access, identity, kept};

/// Collations are compared by name in messages only; arrays of names arrive as C strings.
type Names<'a> = pgrx::Array<'a, &'a CStr>;

fn texts(names: &Names<'_>) -> Vec<String> {
    names.iter().flatten().map(|name| name.to_string_lossy().into_owned()).collect()
}

fn text(name: Option<&CStr>) -> Option<String> {
    name.map(|name| name.to_string_lossy().into_owned())
}

/// What columns begin with that statements of ours add to those of the table.
const OWN_COLUMNS: &str = "plimsoll ";

/// What the caller asked for.
struct Wish {
    key_columns: Option<Vec<String>>,
    version_column: Option<String>,
    modified_column: Option<String>,
    version_scope: String,
    server_columns: Vec<String>,
    tenant_columns: Vec<String>,
    superuser_allowed: bool,
    keep_manifest: bool,
    column_numbers: Vec<(String, i32)>,
    only_database: Option<Uuid>,
    /// `None`: as it was, or all.
    directions: Option<Allowed>,
}

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn manage_table(
    relation: Option<Oid>,
    key_columns: Option<Names<'_>>,
    version_column: Option<&CStr>,
    modified_column: Option<&CStr>,
    version_scope: Option<&str>,
    server_columns: Option<Names<'_>>,
    tenant_columns: Option<Names<'_>>,
    superuser_allowed: Option<bool>,
    keep_manifest: Option<bool>,
    column_numbers: Option<AnyElement>,
    database_id: Option<Uuid>,
    directions: Option<pgrx::Array<'_, &str>>,
) {
    let answer = || {
        let user = access::authorise_admin()?;
        let wish = Wish {
            key_columns: key_columns.as_ref().map(texts),
            version_column: text(version_column),
            modified_column: text(modified_column),
            version_scope: required(version_scope, "version_scope")?.to_owned(),
            server_columns: texts(&required(server_columns, "server_columns")?),
            tenant_columns: texts(&required(tenant_columns, "tenant_columns")?),
            superuser_allowed: required(superuser_allowed, "superuser_allowed")?,
            keep_manifest: required(keep_manifest, "keep_manifest")?,
            column_numbers: column_numbers.map_or(Ok(Vec::new()), read_column_numbers)?,
            only_database: database_id,
            directions: directions.as_ref().map(read_directions).transpose()?,
        };
        manage(user, required(relation, "relation")?, wish)
    };
    answer().or_raise();
}

/// Reads `{"column": number}`: the numbers that the columns have elsewhere.
fn read_column_numbers(value: AnyElement) -> Answer<Vec<(String, i32)>> {
    let wrong = || {
        Problem::new(
            state::BAD_ARGUMENT,
            "column_numbers must be an object of column names and numbers from 1 on",
        )
    };
    let value = json(value, "column_numbers")?;
    let members = value.as_object().ok_or_else(wrong)?;
    let member = |(name, number): (&String, &serde_json::Value)| {
        let number =
            number.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number > 0);
        Ok((name.clone(), number.ok_or_else(wrong)?))
    };
    members.iter().map(member).collect()
}

/// Reads words for the ways that are to be allowed.
pub fn read_directions(words: &pgrx::Array<'_, &str>) -> Answer<Allowed> {
    let wrong = |message: String| {
        let known = Allowed::WORDS.join(", ");
        Problem::new(state::BAD_ARGUMENT, message).hint(format!("The directions are {known}."))
    };
    let words: Option<Vec<&str>> = words.iter().collect();
    let words = words.ok_or_else(|| wrong("a direction is NULL".to_owned()))?;
    Allowed::of_words(words).map_err(|unknown| {
        let shown: String = unknown.chars().take(60).collect();
        wrong(format!("there is no direction \"{shown}\""))
    })
}

/// Words as arguments of statements have them.
pub fn words_of(allowed: Allowed) -> Vec<String> {
    allowed.words().into_iter().map(str::to_owned).collect()
}

/// The relation with this oid, locked so that it stays what it is until the transaction ends.
pub fn relation_of(oid: Oid) -> Answer<Held> {
    hold(oid)
        .ok_or_else(|| Problem::new(state::NOT_MANAGED, format!("no relation has the oid {}", oid.to_u32())))
}

/// A table that cannot be managed as it is.
pub fn unfit(message: String) -> Problem {
    Problem::new(state::UNFIT_TABLE, message)
}

/// Whether the caller may hand this relation over, and whether it is one that can be.
fn check_relation(relation: &Held, oid: Oid, user: Oid, superuser_allowed: bool) -> Answer<()> {
    let shown = relation.shown();
    let owner = identity::role_name(relation.owner);
    if !identity::may_act_as(user, relation.owner) {
        return Err(Problem::new(state::NOT_AUTHORISED, format!("table {shown} belongs to \"{owner}\""))
            .hint("Only its owner, or a member of its owner, hands a table over."));
    }
    let kind = match relation.kind {
        b'r' | b'p' => None,
        b'v' => Some("a view"),
        b'm' => Some("a materialized view"),
        b'f' => Some("a foreign table"),
        _ => Some("no table"),
    };
    if let Some(kind) = kind {
        return Err(unfit(format!("{shown} is {kind}; only ordinary and partitioned tables can be managed")));
    }
    if relation.persistence == b't' {
        return Err(unfit(format!("{shown} is a temporary table")));
    }
    if relation.is_partition {
        return Err(unfit(format!("{shown} is a partition")).hint("Manage the table it is a partition of."));
    }
    if relation.schema == "plimsoll"
        || relation.schema == "pg_catalog"
        || relation.schema == "information_schema"
    {
        return Err(unfit(format!("{shown} is a system table")));
    }
    if identity::is_superuser(relation.owner) && !superuser_allowed {
        return Err(unfit(format!("{shown} belongs to the superuser \"{owner}\""))
            .detail("Work on its rows runs with its owner's rights.")
            .hint(format!(
                "CREATE ROLE ... NOLOGIN; ALTER TABLE {shown} OWNER TO that role; or pass superuser_allowed => true."
            )));
    }
    let subscribed = Spi::get_one_with_args::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid OPERATOR(pg_catalog.=) $1)",
        &[oid.into()],
    )?;
    if subscribed == Some(true) {
        return Err(unfit(format!("{shown} is the target of a logical subscription")));
    }
    check_rules(oid, &shown)
}

/// A rule does something else than what a statement says, or more, without telling it how many rows that was.
fn check_rules(oid: Oid, shown: &str) -> Answer<()> {
    let rule = Spi::get_one_with_args::<String>(
        "SELECT (SELECT pg_catalog.min(r.rulename::pg_catalog.text) FROM pg_catalog.pg_rewrite r
                 WHERE r.ev_class OPERATOR(pg_catalog.=) $1)",
        &[oid.into()],
    )?;
    match rule {
        None => Ok(()),
        Some(rule) => Err(unfit(format!("rule \"{rule}\" rewrites statements on {shown}"))
            .hint(format!("Use a trigger instead, then DROP RULE {} ON {shown};", quoted(&rule)))),
    }
}

/// The attribute of a column that is there.
pub fn find<'a>(attributes: &'a [Attribute], column: &str, what: &str, shown: &str) -> Answer<&'a Attribute> {
    attributes.iter().find(|attribute| attribute.name == column).ok_or_else(|| {
        Problem::new(state::NO_COLUMN, format!("table {shown} has no {what} column \"{column}\""))
    })
}

/// The attribute of a column that is written and never NULL.
pub fn find_not_null<'a>(
    attributes: &'a [Attribute],
    column: &str,
    what: &str,
    shown: &str,
) -> Answer<&'a Attribute> {
    let attribute = find(attributes, column, what, shown)?;
    if attribute.generated {
        return Err(unfit(format!("{what} column \"{column}\" of {shown} is generated"))
            .hint("It must be one that can be written."));
    }
    if attribute.not_null {
        return Ok(attribute);
    }
    Err(unfit(format!("{what} column \"{column}\" of {shown} takes NULL"))
        .hint(format!("ALTER TABLE {shown} ALTER COLUMN {} SET NOT NULL;", quoted(column))))
}

/// The registration that the wish amounts to, with every requirement checked.
fn checked(relation: &Held, oid: Oid, wish: &Wish) -> Answer<Registration> {
    let shown = relation.shown();
    let attributes = relation.attributes();
    if wish.tenant_columns.len() > 2 || wish.tenant_columns.is_empty() != wish.only_database.is_some() {
        return Err(Problem::new(
            state::BAD_ARGUMENT,
            "tenant_columns takes a database column, or client and database",
        )
        .detail("A table of one database needs none of them: then database_id says which.")
        .hint("Leave both out for the columns client_id and database_id."));
    }
    for (place, column) in wish.tenant_columns.iter().enumerate() {
        let attribute = find_not_null(&attributes, column, "tenant", &shown)?;
        use pg_sys::{INT2OID, INT4OID, INT8OID, TEXTOID, UUIDOID, VARCHAROID};
        // The last one holds the database's id.
        let (fit, types) = if place + 1 == wish.tenant_columns.len() {
            ([TEXTOID, VARCHAROID, UUIDOID].contains(&attribute.type_oid), "text, varchar or uuid")
        } else {
            let fit = [TEXTOID, VARCHAROID, UUIDOID, INT2OID, INT4OID, INT8OID].contains(&attribute.type_oid);
            (fit, "text, varchar, uuid or an integer")
        };
        if !fit {
            let kind = type_name(attribute.type_oid);
            return Err(unfit(format!("tenant column \"{column}\" of {shown} has type {kind}"))
                .hint(format!("Use {types}.")));
        }
    }
    let version_column = wish.version_column.clone();
    let version = version_column.as_deref();
    let key_columns = roles::key(oid, &shown, wish.key_columns.as_deref(), &wish.tenant_columns, version)?;
    for column in &key_columns {
        find_not_null(&attributes, column, "key", &shown)?;
        if wish.tenant_columns.contains(column) {
            return Err(Problem::new(
                state::BAD_ARGUMENT,
                format!("column \"{column}\" is key and tenant column"),
            ));
        }
    }
    let versions = Versions { column: version, scope: &wish.version_scope };
    let placed_by = roles::placing_key(&attributes, &shown, &key_columns, &versions)?;
    if let Some(column) = &wish.modified_column {
        let attribute = find(&attributes, column, "modified", &shown)?;
        if ![pg_sys::TIMESTAMPOID, pg_sys::TIMESTAMPTZOID].contains(&attribute.type_oid) {
            let kind = type_name(attribute.type_oid);
            return Err(unfit(format!(
                "modified column \"{column}\" of {shown} has type {kind}, no timestamp"
            )));
        }
    }
    let mut server_columns = wish.server_columns.clone();
    for column in &server_columns {
        find(&attributes, column, "server", &shown)?;
        let is_version = version_column.as_ref() == Some(column);
        if key_columns.contains(column) || is_version || wish.tenant_columns.contains(column) {
            return Err(Problem::new(
                state::BAD_ARGUMENT,
                format!("column \"{column}\" cannot be a server column: it is key, version or tenant"),
            ));
        }
    }
    for attribute in attributes.iter().filter(|a| a.generated && !wish.server_columns.contains(&a.name)) {
        pgrx::notice!("generated column \"{}\" of {shown} is taken as a server column", attribute.name);
        server_columns.push(attribute.name.clone());
    }
    for attribute in &attributes {
        if !server_columns.contains(&attribute.name) && !wish.tenant_columns.contains(&attribute.name) {
            if attribute.name.starts_with(OWN_COLUMNS) {
                let message =
                    format!("column \"{}\" of {shown} has a name of Plimsoll's own", attribute.name);
                return Err(unfit(message).hint("Rename it, or name it among server_columns."));
            }
            Codec::new(attribute.type_oid, attribute.typmod)
                .map_err(|problem| problem.in_column(&attribute.name, &shown))?;
        }
    }
    let is_sent = |name: &String| !server_columns.contains(name) && !wish.tenant_columns.contains(name);
    let sent: Vec<String> = attributes.iter().map(|a| a.name.clone()).filter(is_sent).collect();
    let placed_by = placed_by.map_or_else(|| roles::placing_all(&shown, &sent), Ok)?;
    let registration = Registration {
        table_id: 0,
        schema_name: relation.schema.clone(),
        table_name: relation.name.clone(),
        relation_oid: oid,
        owner_name: identity::role_name(relation.owner),
        tenant_columns: wish.tenant_columns.clone(),
        key_columns,
        version_column,
        modified_column: wish.modified_column.clone(),
        server_columns,
        superuser_allowed: wish.superuser_allowed,
        keep_manifest: wish.keep_manifest,
        only_database: wish.only_database,
        allowed: wish.directions.unwrap_or(Allowed::ALL),
        placed_by,
        labels: Labels::default(),
    };
    catalog::key_equalities(oid, &registration)?;
    Ok(registration)
}

fn manage(user: Oid, oid: Oid, wish: Wish) -> Answer<()> {
    require_utf8()?;
    let table_id = identity::as_extension(|| {
        let relation = relation_of(oid)?;
        check_relation(&relation, oid, user, wish.superuser_allowed)?;
        if wish.keep_manifest {
            // What is written by another registration, and not committed yet, may be counted for nobody.
            Spi::run(&format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", relation.shown()))?;
        }
        let registration = checked(&relation, oid, &wish)?;
        warn(oid, &relation.shown(), &registration)?;
        if let Some(database_id) = wish.only_database {
            access::check_registered(database_id)?;
        }
        let (directions, user) = (wish.directions.map(words_of), identity::role_name(user));
        let table_id = register::register(&registration, &wish.version_scope, directions, &user)?;
        // The wish names columns as they are called now.
        let attributes = relation.attributes();
        numbers::rename(table_id, &numbers::of(table_id, oid, &attributes)?, &attributes)?;
        numbers::take(table_id, &relation.shown(), &wish.column_numbers)?;
        numbers::complete(table_id, oid)?;
        Ok(table_id)
    })?;
    let (registration, table) = identity::as_extension(|| {
        let mut registration = catalog::registration_by_id(table_id)?;
        let table = catalog::load(&registration)?;
        registration.labels = Labels::of(table.schema.columns(), &registration.placed_by);
        register::settle_labels(table_id, &registration.labels)?;
        Ok((registration, table))
    })?;
    register::ensure_position_index(&table, &registration)?;
    kept::set_kept(oid, table_id, &registration.name(), wish.keep_manifest)?;
    let mut act = Act::new("manage_table");
    if let Some(database_id) = registration.only_database {
        act = act.database(database_id);
    }
    act.relation(&registration.name())
        .arguments(json!({
            "tenant_columns": registration.tenant_columns,
            "key_columns": registration.key_columns,
            "version_column": registration.version_column,
            "modified_column": registration.modified_column,
            "version_scope": wish.version_scope,
            "placed_by": registration.placed_by,
            "server_columns": registration.server_columns,
            "superuser_allowed": registration.superuser_allowed,
            "keep_manifest": wish.keep_manifest,
            "directions": registration.allowed.words(),
        }))
        .record()
}

/// Says what may make rows wait or be refused later.
fn warn(oid: Oid, shown: &str, registration: &Registration) -> Answer<()> {
    let warnings: Vec<String> = Spi::connect(|client| {
        let rows = client.select(
            "SELECT pg_catalog.format('unique index %I may make rows wait for each other; DEFERRABLE constraints need not',
                                      c.relname)
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
             WHERE i.indrelid OPERATOR(pg_catalog.=) $1 AND i.indisunique AND i.indimmediate AND NOT i.indisprimary
               AND NOT (SELECT pg_catalog.bool_and(a.attname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($2))
                        FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) AS k (attnum)
                        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) i.indrelid
                             AND a.attnum OPERATOR(pg_catalog.=) k.attnum)
             UNION ALL
             SELECT pg_catalog.format('trigger %I runs BEFORE each row: a row that it changes or skips is rejected', t.tgname)
             FROM pg_catalog.pg_trigger t
             WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND NOT t.tgisinternal
               AND (t.tgtype::pg_catalog.int4 OPERATOR(pg_catalog.&) 3) OPERATOR(pg_catalog.=) 3
               AND t.tgfoid OPERATOR(pg_catalog.<>) 'plimsoll.stamp_trigger()'::pg_catalog.regprocedure",
            None,
            &[
                oid.into(),
                registration.tenant_columns.iter().chain(&registration.key_columns).cloned().collect::<Vec<_>>().into(),
            ],
        )?;
        rows.map(|row| Ok::<_, Problem>(row.get(1)?.unwrap_or_default())).collect::<Answer<_>>()
    })?;
    for warning in warnings {
        pgrx::warning!("{shown}: {warning}");
    }
    Ok(())
}
