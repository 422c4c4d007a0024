//! The remote side, over plain SQL. Unnamed statements only, every name qualified, one transaction per call.
//!
//! | direction | message |
//! |---|---|
//! | to | `BEGIN`, `plimsoll.login_challenge()` (with a token) |
//! | from | a challenge |
//! | to | `plimsoll.login(database, proof)`, kept batch records, the call's own statement, `COMMIT` |
//! | from | the answer |
//!
//! What stands in one line is sent without waiting: a call is two round trips with a token, one without. There,
//! once the fingerprint key is known, a call of one statement goes without `BEGIN` and `COMMIT` around it.

pub mod address;
mod agent;
mod batch;
pub mod connection;
mod error;
mod lease;
mod level;
mod numbers;
mod parts;
mod refused;
mod session;
mod source;
mod summaries;
mod target;
mod tls;
mod two_way;
mod windows;

pub use agent::{RemoteTable, Run, RunBegin, RunEnd, TableNews, to_hex};
pub(crate) use agent::{TABLE_SCHEMA, schema};
pub(crate) use error::Place;
pub use lease::{Keeper, Lease, Term};
pub use level::{Levelled, Roots, level, roots, source_rows};
pub(crate) use session::cell;
pub use session::{Login, Server};
pub use source::{ServerSource, SourceTable};
pub use summaries::{Call, ReadOnly, keys_of, rows_of, version_of};
pub(crate) use target::range_text;
pub use target::{Replica, RunTarget};
pub use two_way::TwoWayRemote;
