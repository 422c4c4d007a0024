//! A private Postgres server for tests, the demo and benchmarks; and a private MariaDB, for tests of that source.
//!
//! - [`Installation`]: the machine's Postgres, as its `pg_config` describes it. It is only read.
//! - [`Stage`]: a relocated copy of it that our extension can be put into, because up to Postgres 17 an
//!   extension's files must lie beside the server's own.
//! - [`Cluster`]: one running server of a stage, with its own data, port and socket.
//! - [`Site`]: a database in it with an agent's place, for the demo and the benchmarks.
//! - [`Workspace`]: where the repository keeps all of that, and the built artefacts.
//! - [`MariaDb`]: a running MariaDB server, and [`MariaSession`]: a connection to it.
//! - [`Runner`]: the operating-system user that the server runs as; `initdb` and `postgres` refuse root.

mod cluster;
mod extension;
mod installation;
mod mariadb;
mod remains;
mod runner;
mod site;
mod stage;
mod workspace;

pub use cluster::{Cluster, Options, StopMode};
pub use extension::{EXTENSION, install};
pub use installation::Installation;
pub use mariadb::{MariaDb, MariaSession};
pub use remains::sweep;
pub use runner::Runner;
pub use site::Site;
pub use stage::Stage;
pub use workspace::Workspace;
pub use {anyhow, mysql_async, postgres};
