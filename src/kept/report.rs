//! The functions for agents and people.

use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use plimsoll_core::store::PositionRange;
use serde_json::json;

use super::{Due, fold, rebuild};
use crate::access;
use crate::acts::Act;
use crate::argument::required;
use crate::datum::is_read_committed;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::table;

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A range of positions as SQL has it.
fn sql_range(range: PositionRange) -> pgrx::Range<i64> {
    use pgrx::datum::RangeBound::{Exclusive, Inclusive, Infinite};
    pgrx::Range::new(range.from.map_or(Infinite, Inclusive), range.to.map_or(Infinite, Exclusive))
}

#[pg_extern(sql = false)]
fn rebuild_manifest(database_id: Option<Uuid>, relation: Option<&str>) -> i64 {
    let rebuild = || {
        let (database, mut table) = table::open(database_id, relation)?;
        if !table.keep_manifest {
            return Err(fold::not_kept(&table));
        }
        if !is_read_committed() {
            return Err(Problem::new(state::NOT_IN_STATE, "a manifest is rebuilt at READ COMMITTED only"));
        }
        rebuild::rebuild(&database, &mut table).map(signed)
    };
    rebuild().or_raise()
}

#[pg_extern(sql = false)]
fn fold_manifest(database_id: Option<Uuid>, relation: Option<&str>) -> i64 {
    let fold = || {
        let (database, mut table) = table::open(database_id, relation)?;
        fold::fold_if_due(&database, &mut table, Due::Always).map(signed)
    };
    fold().or_raise()
}

#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "the columns of the answer, as pgrx reads them")]
fn check_manifest(
    database_id: Option<Uuid>,
    relation: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(range, pgrx::Range<i64>),
        name!(kept_rows, i64),
        name!(kept_fingerprint, Vec<u8>),
        name!(actual_rows, i64),
        name!(actual_fingerprint, Vec<u8>),
    ),
> {
    let check = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let wrong = rebuild::check(&database, &mut table)?;
        let rows = wrong.into_iter().map(|wrong| {
            let rebuild::Wrong { range, kept, actual } = wrong;
            (
                sql_range(range),
                signed(kept.row_count()),
                kept.sum().to_vec(),
                signed(actual.row_count()),
                actual.sum().to_vec(),
            )
        });
        Ok::<_, Problem>(rows.collect::<Vec<_>>())
    };
    TableIterator::new(check().or_raise())
}

#[pg_extern(sql = false)]
fn keep_manifest(relation: Option<Oid>, keep: Option<bool>) -> bool {
    keep_or_not(relation, keep).or_raise()
}

fn keep_or_not(relation: Option<Oid>, keep: Option<bool>) -> Answer<bool> {
    let user = access::authorise_admin()?;
    let oid = required(relation, "relation")?;
    let keep = required(keep, "keep")?;
    let (table_id, shown) = table::managed_by(oid, user)?;
    let kept = super::set_kept(oid, table_id, &shown, keep)?;
    Act::new("keep_manifest").relation(&shown).arguments(json!({ "keep": keep })).record()?;
    Ok(kept)
}
