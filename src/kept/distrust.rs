//! What happens to tables without any trigger of a statement, told by triggers of events: it puts manifests out of
//! use until they are rebuilt.

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum};
use pgrx::spi::Spi;

use crate::error::{Answer, OrRaise};
use crate::identity;

/// The calling convention that Postgres asks for beside each function.
const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// The version of the calling convention of the function beside it.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_kept_subscription_wrapper() -> &'static pg_sys::Pg_finfo_record {
    &V1
}

/// The version of the calling convention of the function beside it.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_kept_rewrite_wrapper() -> &'static pg_sys::Pg_finfo_record {
    &V1
}

/// `plimsoll.kept_subscription()`, before a subscription is altered or dropped: what it applies fires no trigger of
/// a statement, and afterwards the catalogue does not say any more which tables it wrote to.
///
/// # Safety
/// Called by Postgres.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn kept_subscription_wrapper(_fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    distrust("SELECT s.srrelid FROM pg_catalog.pg_subscription_rel s").or_raise();
    Datum::from(0usize)
}

/// `plimsoll.kept_rewrite()`, before ALTER TABLE writes a table anew: values may change with it; and one that is
/// made unlogged loses its rows in a crash, of which nothing tells once it is logged again.
///
/// # Safety
/// Called by Postgres.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn kept_rewrite_wrapper(_fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    distrust("SELECT pg_catalog.pg_event_trigger_table_rewrite_oid()").or_raise();
    Datum::from(0usize)
}

/// Puts the manifests of managed tables out of use that are, or have as a partition, what a query answers.
fn distrust(relations: &str) -> Answer<()> {
    identity::as_extension(|| {
        Ok(Spi::run(&format!(
            "UPDATE plimsoll.kept_head h SET definition = ''
             FROM plimsoll.table_record t
             WHERE t.table_id OPERATOR(pg_catalog.=) h.table_id AND EXISTS (
                 SELECT FROM ({relations}) AS r (oid)
                 JOIN pg_catalog.pg_class c
                     ON c.oid OPERATOR(pg_catalog.=) COALESCE(
                         pg_catalog.pg_partition_root(r.oid)::pg_catalog.oid, r.oid)
                 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                 WHERE c.oid OPERATOR(pg_catalog.=) t.relation_oid
                    OR (n.nspname OPERATOR(pg_catalog.=) t.schema_name
                        AND c.relname OPERATOR(pg_catalog.=) t.table_name))"
        ))?)
    })
}
