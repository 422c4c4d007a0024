//! A connection that waits for each answer, and comes back after it was lost.

use std::ops::ControlFlow;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, Params, Row, Value as Raw};
use plimsoll_core::store::Outcome;
use tokio::runtime::{Builder, Runtime};

use super::error::failure;
use crate::failure::{Advise, passing, run as no_run};
use crate::source::write::{Mode, Savepoint};

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
    /// Whether it is written to.
    is_written: bool,
    /// Whether a transaction must go on whatever becomes of a statement's rows.
    is_held: bool,
    /// How many savepoints are set.
    savepoints: u32,
}

/// What sessions that write are set to: what a column does not hold is an error, and numbers are stored as they are given.
const WRITING: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', \
     foreign_key_checks = 1, unique_checks = 1, innodb_lock_wait_timeout = 10";

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// A `Run` failure where the server lets nobody in by this name and password, or has no such database; `Passing` where
    /// it cannot be reached.
    pub fn open(opts: Opts, is_written: bool) -> Outcome<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| no_run(format!("no runtime for the source's connection: {error}")))?;
        let mut session = Session {
            runtime,
            opts,
            connection: None,
            is_mariadb: false,
            is_written,
            is_held: false,
            savepoints: 0,
        };
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
        if self.is_written {
            self.runtime.block_on(connection.query_drop(WRITING)).map_err(|error| failure(&error))?;
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Begins a snapshot: connects again where the connection was lost.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn begin(&mut self) -> Outcome<()> {
        self.begin_by(&["START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"])
    }

    /// Begins a transaction in which all that follows is done; one that was begun before is rolled back.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub fn begin_as(&mut self, mode: Mode) -> Outcome<()> {
        self.end();
        let begin: &[&str] = match mode {
            Mode::Snapshot => &["START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"],
            // Without the gaps between rows being locked.
            Mode::Writing => {
                &["SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "START TRANSACTION READ WRITE"]
            }
        };
        self.begin_by(begin)?;
        (self.is_held, self.savepoints) = (true, 0);
        Ok(())
    }

    fn begin_by(&mut self, begin: &[&str]) -> Outcome<()> {
        if self.connection.is_some() && begin.iter().try_for_each(|sql| self.run(sql)).is_ok() {
            return Ok(());
        }
        self.connection = None;
        self.connect()?;
        begin.iter().try_for_each(|sql| self.run(sql))
    }

    /// Ends the snapshot.
    pub fn end(&mut self) {
        self.is_held = false;
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
        let Session { runtime, connection, is_held, .. } = self;
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
                    let is_little = *is_held || left.is_some_and(|left| left <= MOST_LEFT);
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

    /// Has what is begun next be kept whatever becomes of a statement's rows, or not.
    pub fn stay(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Whether all that is done belongs to one transaction.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// Sets, undoes or releases a savepoint.
    ///
    /// # Errors
    /// As the server says.
    pub fn savepoint(&mut self, act: Savepoint) -> Outcome<()> {
        // One of the same name would take the place of the one before.
        if act == Savepoint::Set {
            self.savepoints += 1;
        }
        let number = self.savepoints;
        match act {
            Savepoint::Set => self.run(&format!("SAVEPOINT plimsoll_{number}")),
            Savepoint::Undo => self.run(&format!("ROLLBACK TO SAVEPOINT plimsoll_{number}")),
            Savepoint::Release => {
                self.savepoints = number.saturating_sub(1);
                self.run(&format!("RELEASE SAVEPOINT plimsoll_{number}"))
            }
        }
    }

    /// Commits.
    ///
    /// # Errors
    /// As the server says; `Passing` where its answer was lost, with a message that says so.
    pub fn commit(&mut self) -> Outcome<()> {
        self.is_held = false;
        let connection = self.connection.as_mut().ok_or_else(|| passing("the connection was lost"))?;
        let Err(error) = self.runtime.block_on(connection.query_drop("COMMIT")) else { return Ok(()) };
        self.connection = None;
        match error {
            Error::Server(_) => Err(failure(&error)),
            error => Err(passing(format!(
                "{}; whether what was written to the local database is there is not known",
                failure(&error).message
            ))),
        }
    }

    /// Runs a statement, and hands the rows that it answers to `each`. The number of rows that it changed.
    ///
    /// # Errors
    /// The server's own, for the caller to look at.
    pub fn change(
        &mut self,
        sql: &str,
        values: Vec<Raw>,
        mut each: impl FnMut(&Row),
    ) -> mysql_async::Result<u64> {
        let Session { runtime, connection: Some(open), .. } = self else {
            return Err(Error::Driver(mysql_async::DriverError::ConnectionClosed));
        };
        let values = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
        runtime.block_on(async {
            let mut result = open.exec_iter(sql, values).await?;
            while let Some(row) = result.next().await? {
                each(&row);
            }
            let changed = result.affected_rows();
            result.drop_result().await?;
            Ok(changed)
        })
    }

    /// Runs a statement that answers nothing, outside of any transaction.
    ///
    /// # Errors
    /// As the server says.
    pub fn define(&mut self, sql: &str) -> Outcome<()> {
        if self.connection.is_none() {
            self.connect()?;
        }
        self.run(sql)
    }

    /// All rows of a statement that answers few.
    ///
    /// # Errors
    /// As the server says.
    pub fn rows(&mut self, sql: &str, values: &[&str]) -> Outcome<Vec<Row>> {
        // A new connection is in no transaction: what is held is lost with the old one.
        if self.connection.is_none() && !self.is_held {
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
