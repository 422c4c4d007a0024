//! Who may touch what: every entry point passes through [`authorise`] before it does anything.

use pgrx::pg_sys::{self, Oid};
use pgrx::{IntoDatum, Uuid};
use plimsoll_core::digest::FingerprintKey;

use crate::datum::{Parameter, Row, lock_object, own_table, read_planned, with_newest_snapshot};
use crate::error::{Answer, Problem, state};
use crate::{identity, login};

/// A registered database whose use is authorised.
#[derive(Debug)]
pub struct Database {
    /// Its id.
    pub id: Uuid,
    /// The client it belongs to.
    pub client_id: String,
    /// From which its row digests are made.
    pub fingerprint_key: FingerprintKey,
    /// Options that differ from their defaults.
    pub settings: serde_json::Value,
    /// Whether the caller administers Plimsoll.
    pub admin: bool,
    /// The effective user who asked.
    pub user: Oid,
}

impl Database {
    /// A number among the database's options.
    pub fn number_option(&self, name: &str) -> Option<f64> {
        self.settings.get(name)?.as_f64()
    }
}

/// The one answer to "not yours" and "does not exist", so that neither tells of the other.
pub fn no_such_database(id: &Uuid) -> Problem {
    Problem::new(state::NOT_AUTHORISED, format!("no database {id}, or no right to use it"))
        .hint("Log in with its token, or have an admin run plimsoll.grant_database.")
}

/// Makes sure that the effective user may use the database: as an admin, by a role it was granted to, or
/// because this transaction logged in to it.
pub fn authorise(id: Uuid) -> Answer<Database> {
    identity::refuse_restricted()?;
    let user = identity::effective_user();
    let admin = identity::is_admin(user);
    let logged_in = login::is_logged_in(&id, user);
    let (database, roles, suspended) =
        identity::as_extension(|| load(id, user, admin))?.ok_or_else(|| no_such_database(&id))?;
    let granted = || {
        let mut granted_to = roles.iter().filter_map(Grantee::role);
        granted_to.any(|role| identity::may_act_as(user, role))
    };
    if !(admin || logged_in || granted()) {
        return Err(no_such_database(&id));
    }
    if suspended && !admin {
        return Err(suspended_database(&id));
    }
    Ok(database)
}

/// Makes sure that a database is registered.
pub fn check_registered(id: Uuid) -> Answer<()> {
    match load(id, Oid::INVALID, false)? {
        Some(_) => Ok(()),
        None => Err(no_such_database(&id)),
    }
}

/// What an agent of a suspended database is told.
pub fn suspended_database(id: &Uuid) -> Problem {
    Problem::new(state::LOGIN_REFUSED, format!("database {id} is suspended"))
        .hint("An admin resumes it with plimsoll.resume_database.")
}

/// To whom a database was granted.
struct Grantee {
    name: String,
    oid: Oid,
}

impl Grantee {
    /// The role, while it is the one that was meant: the name alone may be somebody else's by now, and the oid
    /// alone would let a dump grant it to whoever has the name.
    fn role(&self) -> Option<Oid> {
        identity::role_by_name(&self.name).filter(|role| *role == self.oid)
    }
}

type Loaded = (Database, Vec<Grantee>, bool);

/// Reads a database as it is now: a transaction that looks at an older state of everything else is told all the same
/// that the database was suspended, revoked or forgotten meanwhile.
fn load(id: Uuid, user: Oid, admin: bool) -> Answer<Option<Loaded>> {
    let parameter = Parameter { type_oid: pg_sys::UUIDOID, datum: id.into_datum() };
    let mut found: Option<Loaded> = None;
    let mut take = |row: &Row<'_>| {
        let grantee = row.text(4).zip(row.oid(5)).map(|(name, oid)| Grantee { name, oid });
        if let Some((_, roles, _)) = &mut found {
            roles.extend(grantee);
            return Ok(true);
        }
        let fingerprint_key = row.with_bytes(1, FingerprintKey::from_slice).flatten();
        let fingerprint_key = fingerprint_key
            .ok_or_else(|| Problem::new(state::INTERNAL, format!("database {id} has no fingerprint key")))?;
        let settings = row.text(2).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let client_id = row.text(0).unwrap_or_default();
        let database = Database { id, client_id, fingerprint_key, settings, admin, user };
        found = Some((database, grantee.into_iter().collect(), row.bool(3).unwrap_or(true)));
        Ok(true)
    };
    with_newest_snapshot(|| {
        read_planned(
            "SELECT d.client_id, d.fingerprint_key, d.settings::pg_catalog.text, d.suspended_at IS NOT NULL,
                    g.role_name::pg_catalog.text, g.role_oid
             FROM plimsoll.database_record d
             LEFT JOIN plimsoll.grant_record g ON g.database_id OPERATOR(pg_catalog.=) d.database_id
             WHERE d.database_id OPERATOR(pg_catalog.=) $1",
            &[parameter],
            &mut take,
        )
    })?;
    Ok(found)
}

/// Keeps the use of the database authorised until the transaction ends: whoever suspends, revokes or forgets it waits
/// for that, and whoever did so is not overlooked. Every call that writes rows or history begins with it.
pub fn keep_authorised(database: &Database) -> Answer<()> {
    lock(database.id, false)?;
    authorise(database.id).map(drop)
}

/// Waits until no transaction writes rows of the database, and lets none begin until this one has ended.
pub fn wait_for_writers(id: Uuid) -> Answer<()> {
    lock(id, true)
}

fn lock(id: Uuid, alone: bool) -> Answer<()> {
    let class = own_table(c"database_record")
        .ok_or_else(|| Problem::new(state::INTERNAL, "the extension's tables are gone"))?;
    let [a, b, c, d, ..] = *id.as_bytes();
    // Two databases with the same beginning wait for each other, which does no harm.
    lock_object(class, u32::from_be_bytes([a, b, c, d]), alone);
    Ok(())
}

/// Makes sure that the effective user administers Plimsoll.
pub fn authorise_admin() -> Answer<Oid> {
    identity::refuse_restricted()?;
    let user = identity::effective_user();
    if identity::is_admin(user) {
        return Ok(user);
    }
    Err(Problem::new(state::NOT_AUTHORISED, "only members of plimsoll_admin may do this"))
}
