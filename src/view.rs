//! Whose databases the views show.

use pgrx::Uuid;
use pgrx::prelude::*;

use crate::error::{Answer, OrRaise};
use crate::{identity, login};

/// The databases that the effective user may see: an admin all of them; others those granted to a role
/// they may act as and the one this transaction logged in to, while they are not suspended.
#[pg_extern(sql = false)]
fn visible_databases() -> SetOfIterator<'static, Uuid> {
    SetOfIterator::new(visible().or_raise())
}

fn visible() -> Answer<Vec<Uuid>> {
    identity::refuse_restricted()?;
    let user = identity::effective_user();
    let admin = identity::is_admin(user);
    let logged_in = login::database_of(user);
    identity::as_extension(|| {
        Spi::connect(|client| {
            let rows = if admin {
                client.select("SELECT d.database_id FROM plimsoll.database_record d", None, &[])?
            } else {
                client.select(
                    "SELECT d.database_id FROM plimsoll.database_record d
                     WHERE d.suspended_at IS NULL AND d.database_id OPERATOR(pg_catalog.=) ANY (
                         SELECT $1 UNION SELECT g.database_id FROM plimsoll.grant_record g
                         JOIN pg_catalog.pg_roles r ON r.rolname OPERATOR(pg_catalog.=) g.role_name
                         WHERE pg_catalog.pg_has_role($2, r.oid, 'USAGE'))",
                    None,
                    &[logged_in.into(), user.into()],
                )?
            };
            let mut databases = Vec::with_capacity(rows.len());
            for row in rows {
                databases.extend(row.get::<Uuid>(1)?);
            }
            Ok(databases)
        })
    })
}
