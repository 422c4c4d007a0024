//! Who may touch what: every entry point passes through [`authorise`] before it does anything.

use pgrx::Uuid;
use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;
use plimsoll_core::digest::FingerprintKey;

use crate::datum::select_planned;
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
        let mut granted_to = roles.iter().filter_map(|role| identity::role_by_name(role));
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

type Loaded = (Database, Vec<String>, bool);

fn load(id: Uuid, user: Oid, admin: bool) -> Answer<Option<Loaded>> {
    Spi::connect(|client| {
        let rows = select_planned(
            client,
            "SELECT d.client_id, d.fingerprint_key, d.settings, d.suspended_at IS NOT NULL,
                    ARRAY(SELECT g.role_name::pg_catalog.text FROM plimsoll.grant_record g
                          WHERE g.database_id OPERATOR(pg_catalog.=) d.database_id)
             FROM plimsoll.database_record d WHERE d.database_id OPERATOR(pg_catalog.=) $1",
            Some(1),
            &[id.into()],
        )?;
        if rows.is_empty() {
            return Ok(None);
        }
        let row = rows.first();
        let key = row.get::<Vec<u8>>(2)?.unwrap_or_default();
        let fingerprint_key = FingerprintKey::from_slice(&key)
            .ok_or_else(|| Problem::new(state::INTERNAL, format!("database {id} has no fingerprint key")))?;
        let settings = row.get::<pgrx::JsonB>(3)?.map_or(serde_json::Value::Null, |settings| settings.0);
        let client_id = row.get::<String>(1)?.unwrap_or_default();
        let database = Database { id, client_id, fingerprint_key, settings, admin, user };
        let roles = row.get::<Vec<String>>(5)?.unwrap_or_default();
        Ok(Some((database, roles, row.get::<bool>(4)?.unwrap_or(false))))
    })
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
