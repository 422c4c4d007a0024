//! A connection that waits for each answer, and comes back after it was lost.

use std::ops::ControlFlow;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Params, Row, Value as Raw};
use plimsoll_core::store::Outcome;
use tokio::runtime::{Builder, Runtime};

use super::error::failure;
use crate::failure::{Advise, passing, run as no_run};

/// How long a server may take to answer a new connection.
const CONNECT: Duration = Duration::from_secs(15);

/// What is left of an answer is read where it has about so many bytes at most: beyond, a new connection is cheaper.
const MOST_LEFT: u64 = 4 << 20;

/// A connection.
#[derive(Debug)]
pub struct Session {
    runtime: Runtime,
    opts: Opts,
    connection: Option<Conn>,
    /// Whether it is MariaDB, not MySQL.
    is_mariadb: bool,
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// A `Run` failure where the server lets nobody in by this name and password, or has no such database; `Passing` where
    /// it cannot be reached.
    pub fn open(opts: Opts) -> Outcome<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| no_run(format!("no runtime for the source's connection: {error}")))?;
        let mut session = Session { runtime, opts, connection: None, is_mariadb: false };
        session.connect()?;
        Ok(session)
    }

    /// Whether the server is MariaDB, not MySQL.
    pub fn is_mariadb(&self) -> bool {
        self.is_mariadb
    }

    /// Whether there is a connection.
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    fn connect(&mut self) -> Outcome<()> {
        let opts = self.opts.clone();
        let connecting = async { tokio::time::timeout(CONNECT, Conn::new(opts)).await };
        let mut connection = match self.runtime.block_on(connecting) {
            Ok(connection) => connection.map_err(|error| failure(&error))?,
            Err(_) => {
                let host = self.opts.ip_or_hostname();
                return Err(passing(format!("the local database at {host} does not answer"))
                    .advise("check host and port of mysql = \"..\" under [source]"));
            }
        };
        let version: Option<Option<String>> = self
            .runtime
            .block_on(connection.query_first("SELECT version()"))
            .map_err(|error| failure(&error))?;
        self.is_mariadb = version.flatten().is_some_and(|version| version.contains("MariaDB"));
        // A limit to how long statements may take ends none of ours half-way.
        let unlimited = match self.is_mariadb {
            true => "SET SESSION max_statement_time = 0",
            false => "SET SESSION max_execution_time = 0",
        };
        self.runtime.block_on(connection.query_drop(unlimited)).map_err(|error| failure(&error))?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Begins a snapshot: connects again where the connection was lost.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn begin(&mut self) -> Outcome<()> {
        const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";
        if self.connection.is_some() && self.run(BEGIN).is_ok() {
            return Ok(());
        }
        self.connection = None;
        self.connect()?;
        self.run(BEGIN)
    }

    /// Ends the snapshot.
    pub fn end(&mut self) {
        if self.connection.is_some()
            && let Err(error) = self.run("ROLLBACK")
        {
            tracing::debug!("the end of a snapshot: {error}");
            self.connection = None;
        }
    }

    fn run(&mut self, sql: &str) -> Outcome<()> {
        let connection = self.connection.as_mut().ok_or_else(|| passing("the connection was lost"))?;
        self.runtime.block_on(connection.query_drop(sql)).map_err(|error| failure(&error))
    }

    /// Hands the rows of a statement to `each` until there are no more or it breaks. Answers how many it was given, and
    /// whether it broke. Where it has at `most` so many rows and little is left, that is read then; else the connection is
    /// closed, and with it the snapshot.
    ///
    /// # Errors
    /// As the server says.
    pub fn stream(
        &mut self,
        sql: &str,
        values: Vec<Raw>,
        most: Option<u64>,
        each: &mut dyn FnMut(&Row) -> ControlFlow<()>,
    ) -> Outcome<(u64, bool)> {
        let Session { runtime, connection, .. } = self;
        let open =
            connection.as_mut().ok_or_else(|| passing("the connection to the local database was lost"))?;
        let values = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
        let streaming = async {
            let mut result = open.exec_iter(sql, values).await?;
            let mut rows = 0u64;
            while let Some(row) = result.next().await? {
                rows += 1;
                if each(&row).is_break() {
                    let left = most.map(|most| most.saturating_sub(rows).saturating_mul(size(&row)));
                    let is_little = left.is_some_and(|left| left <= MOST_LEFT);
                    if is_little {
                        result.drop_result().await?;
                    }
                    return Ok((rows, Some(is_little)));
                }
            }
            Ok((rows, None))
        };
        // Whether what was left when it broke was read.
        let outcome: mysql_async::Result<(u64, Option<bool>)> = runtime.block_on(streaming);
        let is_over = match &outcome {
            Ok((_, left_read)) => *left_read == Some(false),
            Err(error) => error.is_fatal(),
        };
        if is_over {
            // Without a farewell: it would first have to read all that is left.
            *connection = None;
        }
        outcome.map(|(rows, left_read)| (rows, left_read.is_some())).map_err(|error| failure(&error))
    }

    /// All rows of a statement that answers few.
    ///
    /// # Errors
    /// As the server says.
    pub fn rows(&mut self, sql: &str, values: &[&str]) -> Outcome<Vec<Row>> {
        if self.connection.is_none() {
            self.connect()?;
        }
        let values = values.iter().map(|value| Raw::from(*value)).collect();
        let mut rows = Vec::new();
        self.stream(sql, values, None, &mut |row| {
            rows.push(row.clone());
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }
}

/// About how many bytes a row took on its way.
fn size(row: &Row) -> u64 {
    let length = |place| match row.as_ref(place) {
        Some(Raw::Bytes(bytes)) => bytes.len() as u64 + 1,
        _ => 8,
    };
    (0..row.len()).map(length).sum()
}
