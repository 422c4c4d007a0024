//! Failed logins: each is a line of the server's log and advances a counter. Both survive the rollback that follows.

use pgrx::Uuid;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;

use crate::datum::{Row, read_planned};
use crate::error::{Answer, OrRaise};
use crate::{access, identity};

/// Records that a login was refused.
///
/// # Errors
/// Where the counter is gone.
pub fn record(database_id: &Uuid, user: Oid, why: &str) -> Answer<()> {
    let address = identity::as_extension(|| {
        count()?;
        client_address()
    })?;
    let user = identity::role_name(user);
    let address = address.unwrap_or_else(|| "a local socket".to_owned());
    pgrx::log!("plimsoll: failed login to database {database_id} by role \"{user}\" from {address}: {why}");
    Ok(())
}

/// Advances the counter, a sequence, which no rollback sets back. A transaction that was begun READ ONLY counts too;
/// on a standby nothing can be.
fn count() -> Answer<()> {
    // SAFETY: reads the state of the backend.
    if unsafe { pg_sys::RecoveryInProgress() } {
        return Ok(());
    }
    let _writable = Writable::begin();
    Spi::get_one::<i64>("SELECT pg_catalog.nextval('plimsoll.failed_logins')")?;
    Ok(())
}

/// Lets a transaction write that was begun READ ONLY.
struct Writable {
    read_only: bool,
}

impl Writable {
    fn begin() -> Self {
        // SAFETY: a variable of the backend, set back by `drop`, and by the end of the (sub)transaction.
        unsafe {
            let read_only = pg_sys::XactReadOnly;
            pg_sys::XactReadOnly = false;
            Writable { read_only }
        }
    }
}

impl Drop for Writable {
    fn drop(&mut self) {
        // SAFETY: the value was read when the scope began.
        unsafe { pg_sys::XactReadOnly = self.read_only };
    }
}

/// From where this session is connected; `None` for a socket.
pub fn client_address() -> Answer<Option<String>> {
    let mut address = None;
    read_planned("SELECT pg_catalog.host(pg_catalog.inet_client_addr())", &[], &mut |row| {
        address = row.text(0);
        Ok(true)
    })?;
    Ok(address)
}

#[pg_extern(sql = false)]
fn failed_login_count() -> i64 {
    failed().or_raise()
}

fn failed() -> Answer<i64> {
    access::authorise_admin()?;
    let mut count = 0;
    let sql = "SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM plimsoll.failed_logins s";
    let mut take = |row: &Row<'_>| {
        count = row.int8(0).unwrap_or(0);
        Ok(true)
    };
    identity::as_extension(|| read_planned(sql, &[], &mut take))?;
    Ok(count)
}
