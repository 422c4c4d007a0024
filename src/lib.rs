//! The Plimsoll extension: the part that sits on the shared Postgres.
//!
//! | room | what lives there |
//! |---|---|
//! | `access`, `identity`, `login` | who is asking, what they may touch, whose rights work runs with |
//!
//! SQL names, privileges and settings of all functions are in `sql/`. A function that SQL calls is a thin
//! shim: it authorises, calls a typed inner function, and raises its problem.

mod access;
mod datum;
mod error;
mod identity;
mod login;
mod manifest;
mod table;
mod version;

::pgrx::pg_module_magic!(name, version);

/// Called by Postgres when the library is loaded into a backend.
#[pgrx::pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    login::register_callbacks();
}
