//! Support for tests against a running Postgres: a private server with the extension in it ([`TestCluster`]),
//! databases and roles in it, and the client's binary run as a user would ([`ClientHome`]).
//!
//! Everything here panics when it does not work: a test that cannot be set up has failed.

mod client;
mod cluster;

pub use client::{ClientHome, Finished, Running};
pub use cluster::{Login, Registered, TestCluster, shared};
