//! The Plimsoll extension: the part that sits on the shared Postgres.
//!
//! | room | what lives there |
//! |---|---|
//! | `access`, `identity`, `login` | who is asking, what they may touch, whose rights work runs with |
//! | `database`, `setting` | registered databases, their grants and options |
//! | `token`, `secret` | what is kept of tokens, how secrets are made and written |
//! | `acts` | the record of administrative acts |
//! | `run`, `lease`, `replica` | runs, whose turn it is, what a run finds and leaves of each replica |
//! | `direction`, `side` | which ways are allowed, which local database a replica is kept level with |
//! | `history`, `rejected`, `hold` | batches, rows that could not be stored, holds and their release |
//! | `table`, `version`, `manifest` | managed tables, what a replica says of itself, row manifests, downloads |
//! | `summary` | what ranges of a replica hold: fingerprints, sketches, items, and the rows these stand for |
//! | `kept` | kept manifests: what replicas hold, kept as rows change |
//! | `upload`, `delete`, `guard`, `cascade` | rows stored and deleted, and how many may be destroyed |
//! | `two_way` | batches of changes that depend on what is there, and what a person decides |
//! | `stamp` | versions raised where applications change rows |
//! | `datum` | between Postgres' memory and the core's values: where `unsafe` lives |
//! | `view`, `argument` | whose databases the views show; arguments as SQL hands them over |
//!
//! SQL names, privileges and settings of all functions are in `sql/`. A function that SQL calls is a thin
//! shim: it authorises, calls a typed inner function, and raises its problem.

mod access;
mod acts;
mod argument;
mod cascade;
mod database;
mod datum;
mod delete;
mod direction;
mod error;
mod guard;
mod history;
mod hold;
mod identity;
mod kept;
mod lease;
mod login;
mod manifest;
mod rejected;
mod replica;
mod run;
mod secret;
mod setting;
mod side;
mod stamp;
mod summary;
mod table;
mod token;
mod two_way;
mod upload;
mod version;
mod view;

::pgrx::pg_module_magic!(name, version);

/// Called by Postgres when the library is loaded into a backend.
#[pgrx::pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    login::register_callbacks();
    datum::register_hooks();
}
