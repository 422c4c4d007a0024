//! Tables that a subscription writes to: what it applies fires no trigger of a statement.

use pgrx::pg_guard;
use pgrx::pg_sys::{self, Datum};
use pgrx::spi::Spi;

use crate::error::{Answer, OrRaise};
use crate::identity;

/// The version of the calling convention, as Postgres asks for it beside each function.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_kept_subscription_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// `plimsoll.kept_subscription()`, an event trigger before a subscription is altered or dropped: afterwards the
/// catalogue does not say any more which tables it wrote to.
///
/// # Safety
/// Called by Postgres.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn kept_subscription_wrapper(_fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    distrust_subscribed().or_raise();
    Datum::from(0usize)
}

/// Puts the manifests of all tables that any subscription writes to out of use.
fn distrust_subscribed() -> Answer<()> {
    identity::as_extension(|| {
        Ok(Spi::run(
            "UPDATE plimsoll.kept_head h SET definition = ''
             FROM plimsoll.table_record t
             WHERE t.table_id OPERATOR(pg_catalog.=) h.table_id AND EXISTS (
                 SELECT FROM pg_catalog.pg_subscription_rel s
                 JOIN pg_catalog.pg_class c
                     ON c.oid OPERATOR(pg_catalog.=) COALESCE(
                         pg_catalog.pg_partition_root(s.srrelid)::pg_catalog.oid, s.srrelid)
                 JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
                 WHERE c.oid OPERATOR(pg_catalog.=) t.relation_oid
                    OR (n.nspname OPERATOR(pg_catalog.=) t.schema_name
                        AND c.relname OPERATOR(pg_catalog.=) t.table_name))",
        )?)
    })
}
