//! Whose databases the views show.

use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{IntoDatum, Uuid};

use crate::datum::{Parameter, Row, read_planned, with_newest_snapshot};
use crate::error::{Answer, OrRaise};
use crate::{identity, login};

/// Begins with the few roles that the user is a member of, not with the grants, of which there may be thousands. Not
/// every membership passes rights on, so each role is asked about; owners of a database are members of a role of its
/// own without being listed. OFFSET 0 keeps the planner from reading all grants, or all databases, at once.
const GRANTED: &str = "
    WITH RECURSIVE belongs_to (role) AS (
        SELECT $2
        UNION SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
        UNION SELECT m.roleid FROM belongs_to b
            JOIN pg_catalog.pg_auth_members m ON m.member OPERATOR(pg_catalog.=) b.role)
    SELECT d.database_id
    FROM (
        SELECT $1
        UNION SELECT g.database_id FROM belongs_to b
            CROSS JOIN LATERAL (
                SELECT g.database_id FROM plimsoll.grant_record g
                WHERE g.role_name OPERATOR(pg_catalog.=) pg_catalog.pg_get_userbyid(b.role)
                    AND g.role_oid OPERATOR(pg_catalog.=) b.role
                OFFSET 0) g
            WHERE pg_catalog.pg_has_role($2, b.role, 'USAGE')) granted (database_id)
    CROSS JOIN LATERAL (
        SELECT d.database_id FROM plimsoll.database_record d
        WHERE d.database_id OPERATOR(pg_catalog.=) granted.database_id AND d.suspended_at IS NULL
        OFFSET 0) d";

/// The databases that the effective user may see: an admin all of them; others those granted to a role
/// they may act as and the one this transaction logged in to, while they are not suspended.
#[pg_extern(sql = false)]
fn visible_databases() -> SetOfIterator<'static, Uuid> {
    SetOfIterator::new(visible().or_raise())
}

/// The clients whose databases these are.
#[pg_extern(sql = false)]
fn visible_clients() -> SetOfIterator<'static, String> {
    SetOfIterator::new(clients().or_raise())
}

fn clients() -> Answer<Vec<String>> {
    let databases = Parameter { type_oid: pg_sys::UUIDARRAYOID, datum: visible()?.into_datum() };
    let mut clients = Vec::new();
    let mut take = |row: &Row<'_>| {
        clients.extend(row.text(0));
        Ok(true)
    };
    identity::as_extension(|| with_newest_snapshot(|| read_planned(CLIENTS, &[databases], &mut take)))?;
    Ok(clients)
}

const CLIENTS: &str = "SELECT DISTINCT d.client_id FROM plimsoll.database_record d
    WHERE d.database_id OPERATOR(pg_catalog.=) ANY ($1)";

fn visible() -> Answer<Vec<Uuid>> {
    identity::refuse_restricted()?;
    let user = identity::effective_user();
    let admin = identity::is_admin(user);
    let logged_in = login::database_of(user);
    let parameters = [
        Parameter { type_oid: pg_sys::UUIDOID, datum: logged_in.into_datum() },
        Parameter { type_oid: pg_sys::OIDOID, datum: user.into_datum() },
    ];
    let (sql, parameters) = if admin { (ALL, &[][..]) } else { (GRANTED, &parameters[..]) };
    let mut databases = Vec::new();
    let mut take = |row: &Row<'_>| {
        databases.extend(row.uuid(0).map(Uuid::from_bytes));
        Ok(true)
    };
    // As it is now, in a transaction that looks at an older state too.
    identity::as_extension(|| with_newest_snapshot(|| read_planned(sql, parameters, &mut take)))?;
    Ok(databases)
}

const ALL: &str = "SELECT d.database_id FROM plimsoll.database_record d";
