//! Who is asking, and whose rights a piece of work runs with. All switching of users is here.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use crate::error::{Answer, Problem, state};

/// The effective user: what `SET ROLE` and definer functions made of the session's.
pub fn effective_user() -> Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetUserId() }
}

/// The user whose session this is: who connected, or whom a superuser made of them.
pub fn session_user() -> Oid {
    // SAFETY: reads a variable of the backend.
    unsafe { pg_sys::GetSessionUserId() }
}

/// The name of a role.
pub fn role_name(role: Oid) -> String {
    // SAFETY: with `noerr` the answer is null or a NUL-terminated string in the current context.
    let name = unsafe { pg_sys::GetUserNameFromId(role, true) };
    if name.is_null() {
        return role.to_u32().to_string();
    }
    // SAFETY: not null, so a NUL-terminated string.
    unsafe { std::ffi::CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

/// The role with this name, if there is one.
pub fn role_by_name(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: a NUL-terminated string that outlives the call; with `missing_ok` nothing is raised.
    let role = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
    (role != pg_sys::InvalidOid).then_some(role)
}

/// Whether `user` may act as `role`: is it, inherits it, or is a superuser.
pub fn may_act_as(user: Oid, role: Oid) -> bool {
    // SAFETY: looks roles up in the catalogue; unknown ones are members of nothing.
    unsafe { pg_sys::has_privs_of_role(user, role) }
}

/// Whether a role is a superuser.
pub fn is_superuser(role: Oid) -> bool {
    // SAFETY: looks the role up in the catalogue.
    unsafe { pg_sys::superuser_arg(role) }
}

/// Whether the effective user manages tables and databases.
pub fn is_admin(user: Oid) -> bool {
    is_superuser(user) || role_by_name("plimsoll_admin").is_some_and(|admin| may_act_as(user, admin))
}

/// Refuses to work inside an operation that someone else restricted: an admin who maintains a hostile
/// table must not lend its owner's code the admin's rights.
pub fn refuse_restricted() -> Answer<()> {
    // SAFETY: reads a variable of the backend.
    if unsafe { pg_sys::InSecurityRestrictedOperation() } {
        return Err(Problem::new(
            state::NOT_AUTHORISED,
            "Plimsoll's functions cannot be called within a security-restricted operation",
        ));
    }
    Ok(())
}

/// The owner of the extension's own tables.
fn extension_owner() -> Answer<Oid> {
    // SAFETY: a look-up by name in the catalogue's cache; the tuple is read before it is released.
    let owner = unsafe {
        let cache = pg_sys::SysCacheIdentifier::NAMESPACENAME as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(c"plimsoll".as_ptr()));
        (!tuple.is_null()).then(|| {
            let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
            pg_sys::ReleaseSysCache(tuple);
            owner
        })
    };
    owner.ok_or_else(|| Problem::new(state::INTERNAL, "the schema \"plimsoll\" is gone"))
}

/// Restores user and security context, whichever way the scope is left.
struct Restored {
    user: Oid,
    context: i32,
}

impl Restored {
    fn switch_to(user: Oid, flags: u32) -> Self {
        let mut saved = Restored { user: pg_sys::InvalidOid, context: 0 };
        // SAFETY: the pointers are to locals; `Drop` sets back what was read, and an abort of the
        // (sub)transaction does so too.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut saved.user, &mut saved.context);
            pg_sys::SetUserIdAndSecContext(user, saved.context | flags as i32);
        }
        saved
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        // SAFETY: the values were read from the backend when the scope began.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

/// Runs `work` on the extension's own tables, with its owner's rights.
pub fn as_extension<T>(work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    let owner = extension_owner()?;
    let _restored = Restored::switch_to(owner, pg_sys::SECURITY_LOCAL_USERID_CHANGE);
    work()
}

/// Runs `work` on a managed table's rows, as its owner: no further than the owner may go, in a context
/// that lets the table's own code (triggers, defaults, checks) change no setting and leave nothing behind.
/// Row-level security does not apply to an owner here, FORCEd or not: the tenant predicate is in the
/// statement.
pub fn as_owner<T>(owner: Oid, work: impl FnOnce() -> Answer<T>) -> Answer<T> {
    let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE
        | pg_sys::SECURITY_RESTRICTED_OPERATION
        | pg_sys::SECURITY_NOFORCE_RLS;
    let _restored = Restored::switch_to(owner, flags);
    let _settings = Settings::keep();
    let _hidden = TemporarySchema::hide();
    work()
}

/// Hides the session's temporary relations: a table that a trigger names without its schema would otherwise be
/// found among them, and the triggers that the caller gave it would run with the owner's rights.
struct TemporarySchema {
    schema: Oid,
    toast_schema: Oid,
}

impl TemporarySchema {
    fn hide() -> Self {
        let mut hidden = TemporarySchema { schema: pg_sys::InvalidOid, toast_schema: pg_sys::InvalidOid };
        // SAFETY: the pointers are to locals; what was read is set back by `drop`. Both only change which
        // schemas names are looked up in, and no temporary relation can be made meanwhile.
        unsafe {
            pg_sys::GetTempNamespaceState(&mut hidden.schema, &mut hidden.toast_schema);
            if hidden.schema != pg_sys::InvalidOid {
                pg_sys::SetTempNamespaceState(pg_sys::InvalidOid, pg_sys::InvalidOid);
            }
        }
        hidden
    }
}

impl Drop for TemporarySchema {
    fn drop(&mut self) {
        if self.schema != pg_sys::InvalidOid {
            // SAFETY: the values were read when the scope began; nothing is raised.
            unsafe { pg_sys::SetTempNamespaceState(self.schema, self.toast_schema) };
        }
    }
}

/// Undoes settings that code of the table's owner changed: left as they are, a `search_path` set by a trigger
/// would be the caller's afterwards, who may be a superuser.
struct Settings {
    level: i32,
}

impl Settings {
    fn keep() -> Self {
        // SAFETY: the level is closed by `drop`, or by the abort that an ERROR leads to.
        Settings { level: unsafe { pg_sys::NewGUCNestLevel() } }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes the level opened by `keep`; levels within it are closed already.
            unsafe { pg_sys::AtEOXact_GUC(false, self.level) };
        }
    }
}
