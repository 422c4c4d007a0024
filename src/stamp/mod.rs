//! `stamp_versions`: a trigger that raises the version of a row when an application changes it, so that the two-way sync
//! can tell which side is newer.
//!
//! Rows that a sync stores keep the versions they come with. That a sync is at work is known from this backend's own
//! memory, which nothing but the code that stores such rows can set: a setting could be set, or left set, by any
//! application. It says which table is written to and how deep in triggers; what a trigger of the table's owner changes
//! meanwhile, here or elsewhere, is an application's change.

mod trigger;

use std::cell::{Cell, RefCell};

use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::Spi;
use plimsoll_core::value::ColumnType;
use serde_json::json;

use crate::acts::Act;
use crate::argument::required;
use crate::datum::{Held, hold, now, quoted, trigger_depth};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::table::{self, managed_by};
use crate::{access, identity};

/// Its name: triggers before a row fire by name, and this one must see what others made of it.
const TRIGGER: &str = "zz_plimsoll_stamp";

struct Active {
    number: u64,
    table: Oid,
    depth: i32,
}

thread_local! {
    static ACTIVE: RefCell<Vec<Active>> = const { RefCell::new(Vec::new()) };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Rows of a sync are being stored in a table, until this is dropped, whichever way that comes about.
#[must_use]
pub struct Syncing {
    number: u64,
}

impl Syncing {
    /// From now on, by statements of this backend that no trigger makes.
    pub fn begin(table: Oid) -> Syncing {
        let number = NUMBER.get() + 1;
        NUMBER.set(number);
        ACTIVE.with_borrow_mut(|list| list.push(Active { number, table, depth: trigger_depth() }));
        Syncing { number }
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        ACTIVE.with_borrow_mut(|list| list.retain(|active| active.number != self.number));
    }
}

/// Whether the row that a trigger is told of is one that a sync stores in this table.
fn is_synced(table: Oid) -> bool {
    ACTIVE.with_borrow(|list| {
        list.iter().any(|active| active.table == table && active.depth + 1 == trigger_depth())
    })
}

/// Whether versions of the type can be raised.
fn is_raised(column_type: &ColumnType) -> bool {
    matches!(
        column_type,
        ColumnType::Int2
            | ColumnType::Int4
            | ColumnType::Int8
            | ColumnType::Timestamp(_)
            | ColumnType::Timestamptz(_)
    )
}

/// The next version above another: one more, or the present where that is later. `None` where the type has none.
pub fn next_version(column_type: &ColumnType, previous: Option<i64>) -> Option<i64> {
    let number =
        |most: i64| previous.map_or(Some(1), |previous| previous.checked_add(1)).filter(|next| *next <= most);
    match column_type {
        ColumnType::Int2 => number(i16::MAX.into()),
        ColumnType::Int4 => number(i32::MAX.into()),
        ColumnType::Int8 => number(i64::MAX),
        ColumnType::Timestamp(digits) | ColumnType::Timestamptz(digits) => {
            let unit = 10i64.pow(6u32.saturating_sub(u32::from(*digits)));
            let now = now();
            let now = now - now.rem_euclid(unit);
            match previous {
                // Nothing is later than infinity.
                Some(i64::MAX) => None,
                Some(previous) if previous >= now => (previous - previous.rem_euclid(unit)).checked_add(unit),
                _ => Some(now),
            }
        }
        _ => None,
    }
}

/// The function of the trigger; `None` where the extension is not there.
pub fn trigger_function() -> Option<Oid> {
    crate::datum::own_function(c"stamp_trigger")
}

#[pg_extern(sql = false)]
fn stamp_versions(relation: Option<Oid>) {
    stamp(relation).or_raise();
}

#[pg_extern(sql = false)]
fn unstamp_versions(relation: Option<Oid>) -> bool {
    unstamp(relation).or_raise()
}

fn stamp(relation: Option<Oid>) -> Answer<()> {
    let user = access::authorise_admin()?;
    let oid = required(relation, "relation")?;
    let (_, name) = managed_by(oid, user)?;
    let table = table::resolve(&name)?;
    let version = table.schema.version().ok_or_else(|| {
        Problem::new(state::UNFIT_TABLE, format!("rows of {name} have no version"))
            .hint("SELECT plimsoll.manage_table(..., version_column => ...) first.")
    })?;
    if !is_raised(&version.column_type) {
        let message =
            format!("versions of {name} are of type {}: no trigger can raise them", version.column_type);
        return Err(Problem::new(state::UNFIT_TABLE, message)
            .hint("A version that is stamped is a whole number or a timestamp."));
    }
    drop_triggers(oid)?;
    identity::as_extension(|| {
        Spi::run(&format!(
            "CREATE TRIGGER {TRIGGER} BEFORE INSERT OR UPDATE ON {name}
             FOR EACH ROW EXECUTE FUNCTION plimsoll.stamp_trigger()"
        ))?;
        Spi::run(&format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {TRIGGER}"))?;
        Spi::run(&format!("ALTER TRIGGER {TRIGGER} ON {name} DEPENDS ON EXTENSION plimsoll"))?;
        match hold(oid).filter(is_partitioned) {
            // Whoever makes a partition makes its triggers.
            Some(held) => allow(held.owner, true),
            None => Ok(()),
        }
    })?;
    Act::new("stamp_versions").relation(&name).arguments(json!({ "version_column": version.name })).record()
}

fn unstamp(relation: Option<Oid>) -> Answer<bool> {
    let user = access::authorise_admin()?;
    let oid = required(relation, "relation")?;
    let (_, name) = managed_by(oid, user)?;
    let dropped = drop_triggers(oid)?;
    Act::new("unstamp_versions").relation(&name).outcome(json!({ "dropped": dropped })).record()?;
    Ok(dropped)
}

fn is_partitioned(held: &Held) -> bool {
    held.kind == pg_sys::RELKIND_PARTITIONED_TABLE
}

/// Lets a role make triggers of the function, or takes that back.
fn allow(owner: Oid, allowed: bool) -> Answer<()> {
    let role = quoted(&identity::role_name(owner));
    let (verb, to) = if allowed { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
    Ok(Spi::run(&format!("{verb} EXECUTE ON FUNCTION plimsoll.stamp_trigger() {to} {role}"))?)
}

/// Whether a role has a partitioned table whose versions are stamped.
fn stamps_partitions(owner: Oid) -> Answer<bool> {
    let found = Spi::get_one_with_args::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_trigger g
             JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) g.tgrelid
             WHERE g.tgfoid OPERATOR(pg_catalog.=) 'plimsoll.stamp_trigger()'::pg_catalog.regprocedure
                 AND c.relowner OPERATOR(pg_catalog.=) $1 AND c.relkind OPERATOR(pg_catalog.=) 'p')",
        &[owner.into()],
    )?;
    Ok(found.unwrap_or(false))
}

/// Drops the trigger of a table, and with it those of its partitions; whether there was one.
pub fn drop_triggers(relation: Oid) -> Answer<bool> {
    let Some(held) = hold(relation) else { return Ok(false) };
    identity::as_extension(|| {
        let names = Spi::get_one_with_args::<Vec<String>>(
            "SELECT pg_catalog.array_agg(g.tgname::pg_catalog.text) FROM pg_catalog.pg_trigger g
             WHERE g.tgrelid OPERATOR(pg_catalog.=) $1 AND g.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid
                 AND g.tgfoid OPERATOR(pg_catalog.=) 'plimsoll.stamp_trigger()'::pg_catalog.regprocedure",
            &[relation.into()],
        )?
        .unwrap_or_default();
        for name in &names {
            Spi::run(&format!("DROP TRIGGER {} ON {}", quoted(name), held.shown()))?;
        }
        if is_partitioned(&held) && !names.is_empty() && !stamps_partitions(held.owner)? {
            allow(held.owner, false)?;
        }
        Ok(!names.is_empty())
    })
}
