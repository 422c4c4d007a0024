//! Support for tests against a running Postgres: a private server with the extension in it ([`TestCluster`]),
//! databases and roles in it, the client's binary run as a user would ([`ClientHome`]), both brought together
//! ([`Site`], [`Agent`]), and a judge of equality that shares nothing with the product ([`Comparison`]).
//!
//! Everything here panics when it does not work: a test that cannot be set up has failed.

mod client;
mod cluster;
mod compare;
mod local;
mod plan;
mod pooler;
mod site;

pub use client::{ClientHome, Finished, Running, faulty_client};
pub use cluster::{Login, Registered, TestCluster, shared};
pub use compare::{Comparison, assert_equal, line};
pub use local::{Kind, LocalDatabase, LocalSession, end_connections};
pub use plan::{compares_with_evaluated, gives_workers_values};
pub use pooler::Pooler;
pub use site::{Agent, LOCAL, Site, table_of};
