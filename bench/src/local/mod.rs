//! The kinds of local databases that are replicated, each with the same bookings, and what they have themselves to dump
//! them into `psql \copy`.

mod mariadb;
mod postgres;
mod sqlite;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Result;

pub use mariadb::Maria;
pub use postgres::Postgres;
pub use sqlite::Sqlite;

use crate::bench::Bench;

/// A local database with the bookings.
pub trait Local {
    /// What the client's configuration says of it, under `[source]`.
    fn setting(&self) -> String;

    /// Which server it is, where it has one, and how many bytes the table takes.
    ///
    /// # Errors
    /// When the database does not tell.
    fn describe(&self, bench: &Bench<'_>) -> Result<String>;

    /// The ways to dump the rows with what everybody has; which tools are missing.
    fn dumps(&self, bench: &Bench<'_>) -> (Vec<Dump<'_>>, Vec<String>);

    /// Processor time in seconds that its server has used so far; `None` where it has none.
    ///
    /// # Errors
    /// When the server is gone.
    fn processor(&self) -> Result<Option<f64>>;
}

/// A way to dump the rows.
pub struct Dump<'l> {
    /// Its name in reports.
    pub name: &'static str,
    /// The options with which `\copy` reads what comes out.
    pub options: &'static str,
    /// Makes what is to be read.
    pub make: Box<dyn Fn() -> Result<Output> + 'l>,
}

/// What comes out of a dump.
pub enum Output {
    /// What a program, which is still to be run, writes.
    Pipe(Command),
    /// A file that was written.
    File(PathBuf),
}

/// Whether a program can be run.
fn runs(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
