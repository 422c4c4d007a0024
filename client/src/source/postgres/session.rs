//! The connection, and the transaction of a call.

use std::collections::HashMap;
use std::pin::pin;

use futures_util::TryStreamExt;
use plimsoll_core::store::Outcome;
use self_cell::{MutBorrow, self_cell};
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Error, IsolationLevel, Row, Statement, Transaction};

use super::error::{connect_failure, failure};
use super::row::Bound;
use crate::failure::{Advise, passing, run as no_run};
use crate::server::address::Address;
use crate::server::connection::{connect, runtime};
use crate::source::write::{Mode, Savepoint};

/// What each transaction sets for itself, so that neither the role's settings nor a pooler's matter: names mean the
/// catalogue's alone; rows that a policy hides are an error; values are written in one way; waiting has an end; an order
/// that an index has is taken from the index.
const SETTINGS: &str = "SET LOCAL search_path = pg_catalog; SET LOCAL row_security = off;
    SET LOCAL datestyle = 'ISO, YMD'; SET LOCAL intervalstyle = 'postgres'; SET LOCAL timezone = 'UTC';
    SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL quote_all_identifiers = off;
    SET LOCAL statement_timeout = '30min'; SET LOCAL lock_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = '5min';
    SET LOCAL enable_sort = off; SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_custom_plan;
    SET LOCAL synchronize_seqscans = off";

/// The oldest server that is read, as `server_version_num` says it.
const OLDEST: i32 = 140_000;

/// A transaction, until it is committed.
type Open<'c> = Option<Transaction<'c>>;

self_cell! {
    /// A transaction and the connection it is made over.
    struct Begun {
        owner: MutBorrow<Client>,
        #[not_covariant]
        dependent: Open,
    }
}

/// What names and local times mean to statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// The catalogue's alone; times are in UTC.
    Catalogue,
    /// What the role's own settings say: what the application's triggers, and notes, are run with.
    Application,
}

impl Names {
    fn setting(self) -> &'static str {
        match self {
            Names::Catalogue => "SET LOCAL search_path = pg_catalog; SET LOCAL timezone = 'UTC'",
            Names::Application => "SET LOCAL search_path TO DEFAULT; SET LOCAL timezone TO DEFAULT",
        }
    }
}

/// A statement's rows, in portions or all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetch {
    /// All there are.
    All,
    /// So many first; whoever is handed a row says how many come with the next portion.
    Portions(i32),
}

/// What becomes of a statement's further rows.
pub enum Next {
    /// They are handed out; so many come with the next portion.
    Rows(i32),
    /// Nobody wants them.
    Stop,
}

/// The local server, connected when it is needed.
pub struct Session {
    address: Address,
    runtime: Runtime,
    client: Option<Client>,
    begun: Option<Begun>,
    /// The statements of this transaction.
    statements: HashMap<String, Statement>,
    /// What names mean in it; when each savepoint was set, and now.
    names: Vec<Names>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({})", self.address.display())
    }
}

impl Session {
    /// A session that is connected.
    ///
    /// # Errors
    /// What the server says to the attempt; a `Run` failure where it is too old.
    pub fn open(address: Address) -> Outcome<Self> {
        let runtime = runtime()?;
        let mut session = Session {
            address,
            runtime,
            client: None,
            begun: None,
            statements: HashMap::new(),
            names: Vec::new(),
        };
        let version = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4";
        let version: i32 =
            session.catalogue(async |client| client.query_typed_one(version, &[]).await?.try_get(0))?;
        if version < OLDEST {
            let message = format!("the local database is Postgres {}", version / 10_000);
            return Err(no_run(message).advise("Postgres 14 is the oldest that is read"));
        }
        Ok(session)
    }

    /// The role that reads.
    pub fn role(&self) -> &str {
        self.address.config.get_user().unwrap_or_default()
    }

    fn take_client(&mut self) -> Outcome<Client> {
        match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => Ok(client),
            None => connect(&self.runtime, &self.address).map_err(connect_failure),
        }
    }

    /// Begins a snapshot; one that was begun before ends.
    ///
    /// # Errors
    /// What the server says; `Passing` where it does not answer.
    pub fn begin(&mut self) -> Outcome<()> {
        self.begin_as(Mode::Snapshot)
    }

    /// Begins a transaction; one that was begun before is rolled back.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_as(&mut self, mode: Mode) -> Outcome<()> {
        self.end();
        let client = self.take_client()?;
        let runtime = &self.runtime;
        let begun = Begun::try_new(MutBorrow::new(client), |client| {
            runtime.block_on(async {
                let transaction = client.borrow_mut().build_transaction();
                let level = match mode {
                    Mode::Writing => IsolationLevel::ReadCommitted,
                    Mode::Snapshot => IsolationLevel::RepeatableRead,
                };
                let is_read = mode == Mode::Snapshot;
                let transaction = transaction.isolation_level(level).read_only(is_read).start().await?;
                transaction.batch_execute(SETTINGS).await.map(|()| Some(transaction))
            })
        });
        self.begun = Some(begun.map_err(|error| failure(&error, self.role(), None))?);
        self.names = vec![Names::Catalogue];
        Ok(())
    }

    /// Ends the snapshot.
    pub fn end(&mut self) {
        self.statements.clear();
        let was_begun = self.begun.is_some();
        self.client = self.begun.take().map(|begun| begun.into_owner().into_inner()).or(self.client.take());
        if was_begun {
            // The rollback is sent at once, and not waited for: until then nobody could alter the table.
            self.runtime.block_on(tokio::task::yield_now());
        }
    }

    /// Reads from the catalogue, in a snapshot of its own.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn catalogue<T>(&mut self, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Outcome<T> {
        self.begin()?;
        let answer = self.ask(work);
        self.end();
        answer
    }

    /// Asks something in the snapshot that was begun.
    ///
    /// # Errors
    /// What the server says: the snapshot is no good any more. No snapshot was begun: `Passing`.
    pub fn ask<T>(&self, work: impl AsyncFnOnce(&Client) -> Result<T, Error>) -> Outcome<T> {
        let Some(begun) = &self.begun else {
            return Err(passing("no snapshot of the local database was begun"));
        };
        begun.with_dependent(|_, transaction| match transaction {
            Some(transaction) => {
                let answer = self.runtime.block_on(work(transaction.client()));
                answer.map_err(|error| failure(&error, self.role(), None))
            }
            None => Err(passing("no snapshot of the local database was begun")),
        })
    }

    /// Hands the rows of a statement to `each`.
    ///
    /// # Errors
    /// What the server says. No snapshot was begun: `Passing`.
    pub fn rows(
        &mut self,
        sql: &str,
        parameters: &[Bound<'_>],
        fetch: Fetch,
        relation: &str,
        mut each: impl FnMut(&Row) -> Next,
    ) -> Outcome<()> {
        let Session { runtime, begun: Some(begun), statements, address, .. } = self else {
            return Err(passing("no snapshot of the local database was begun"));
        };
        let answer = begun.with_dependent(|_, transaction| {
            runtime.block_on(async {
                let Some(transaction) = transaction else { return Ok(()) };
                let statement = match statements.get(sql) {
                    Some(statement) => statement.clone(),
                    None => {
                        let statement = transaction.prepare(sql).await?;
                        statements.insert(sql.to_owned(), statement.clone());
                        statement
                    }
                };
                let Fetch::Portions(mut portion) = fetch else {
                    let mut rows = pin!(transaction.query_raw(&statement, parameters).await?);
                    while let Some(row) = rows.try_next().await? {
                        if let Next::Stop = each(&row) {
                            break;
                        }
                    }
                    return Ok(());
                };
                let portal = transaction.bind_raw(&statement, parameters).await?;
                loop {
                    let (asked, mut got) = (portion, 0);
                    let mut rows = pin!(transaction.query_portal_raw(&portal, asked).await?);
                    while let Some(row) = rows.try_next().await? {
                        got += 1;
                        match each(&row) {
                            Next::Rows(next) => portion = next.max(1),
                            Next::Stop => return Ok(()),
                        }
                    }
                    if got < asked {
                        return Ok(());
                    }
                }
            })
        });
        let role = address.config.get_user().unwrap_or_default();
        answer.map_err(|error: Error| failure(&error, role, Some(relation)))
    }

    /// Has names mean this from here on in the transaction.
    ///
    /// # Errors
    /// What the server says.
    pub fn name_by(&mut self, names: Names) -> Outcome<()> {
        if self.names.last().is_none_or(|now| *now == names) {
            return Ok(());
        }
        self.ask(async |client| client.batch_execute(names.setting()).await)?;
        if let Some(now) = self.names.last_mut() {
            *now = names;
        }
        Ok(())
    }

    /// Sets, undoes or releases a savepoint.
    ///
    /// # Errors
    /// What the server says.
    pub fn savepoint(&mut self, act: Savepoint) -> Outcome<()> {
        let sql = match act {
            Savepoint::Set => "SAVEPOINT plimsoll",
            Savepoint::Undo => "ROLLBACK TO SAVEPOINT plimsoll",
            Savepoint::Release => "RELEASE SAVEPOINT plimsoll",
        };
        self.ask(async |client| client.batch_execute(sql).await)?;
        // What was set since is unset when it is undone.
        let now = self.names.pop().unwrap_or(Names::Catalogue);
        match act {
            Savepoint::Set => self.names.extend([now, now]),
            Savepoint::Undo => {
                let then = self.names.last().copied().unwrap_or(now);
                self.names.push(then);
            }
            Savepoint::Release => {
                self.names.pop();
                self.names.push(now);
            }
        }
        Ok(())
    }

    /// Runs a statement, and hands the rows that it answers to `each`. The number of rows that it changed.
    ///
    /// # Errors
    /// The server's own, for the caller to look at.
    pub fn change(
        &mut self,
        sql: &str,
        parameters: &[Bound<'_>],
        mut each: impl FnMut(&Row),
    ) -> Result<u64, Error> {
        let Session { runtime, begun: Some(begun), statements, .. } = self else { return Ok(0) };
        begun.with_dependent(|_, transaction| {
            runtime.block_on(async {
                let Some(transaction) = transaction else { return Ok(0) };
                let statement = match statements.get(sql) {
                    Some(statement) => statement.clone(),
                    None => {
                        let statement = transaction.prepare(sql).await?;
                        statements.insert(sql.to_owned(), statement.clone());
                        statement
                    }
                };
                let mut rows = pin!(transaction.query_raw(&statement, parameters).await?);
                while let Some(row) = rows.try_next().await? {
                    each(&row);
                }
                Ok(rows.rows_affected().unwrap_or_default())
            })
        })
    }

    /// Commits.
    ///
    /// # Errors
    /// What the server says; `Passing` where its answer was lost, with a message that says so.
    pub fn commit(&mut self) -> Outcome<()> {
        // What was put off is done now, by the application's own triggers.
        self.name_by(Names::Application)?;
        let Some(mut begun) = self.begun.take() else { return Err(passing("no transaction was begun")) };
        self.statements.clear();
        let runtime = &self.runtime;
        let committed = begun.with_dependent_mut(|_, transaction| match transaction.take() {
            Some(transaction) => runtime.block_on(transaction.commit()),
            None => Ok(()),
        });
        self.client = Some(begun.into_owner().into_inner());
        committed.map_err(|error| match failure(&error, self.role(), None) {
            failure if error.as_db_error().is_some() => failure,
            failure => passing(format!(
                "{}; whether what was written to the local database is there is not known",
                failure.message
            )),
        })
    }
}
