//! A connection that logs in anew with each transaction, and comes back when it was lost.

use std::future::Future;
use std::pin::Pin;

use plimsoll_core::store::{Failure, FailureKind, Outcome};
use plimsoll_core::token::Token;
use tokio::runtime::Runtime;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::address::Address;
use super::connection;
use super::error::{Place, failure};
use crate::failure::passing;
use crate::fault::fault_point;

/// As whom transactions are made.
#[derive(Debug, Clone)]
pub struct Login {
    /// The database.
    pub database_id: Uuid,
    /// Its token; none where the role itself was granted the database.
    pub token: Option<Token>,
}

/// A statement's parameter and its type.
pub type Parameter<'p> = (&'p (dyn ToSql + Sync), Type);

/// One statement of a transaction.
pub struct Statement<'p> {
    /// The SQL, every name qualified.
    pub sql: &'p str,
    /// Its parameters.
    pub parameters: Vec<Parameter<'p>>,
}

/// The server, connected when it is needed.
#[derive(Debug)]
pub struct Server {
    address: Address,
    login: Login,
    runtime: Runtime,
    client: Option<Client>,
    /// What the last login answered.
    fingerprint_key: Option<Vec<u8>>,
    /// One transaction for all calls, where one was begun.
    held: Option<Held>,
}

/// What a transaction that all calls belong to is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It reads: all calls see one snapshot.
    Read,
    /// It writes, and sees what others commit meanwhile.
    Write,
}

/// A transaction that all calls belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Open,
    /// A statement of it failed, or the connection: it can only be rolled back.
    Lost,
}

type Pending<'f> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + 'f>>;

impl Server {
    /// A server that is not connected yet.
    ///
    /// # Errors
    /// A `Run` failure where this machine refuses what a connection needs.
    pub fn new(address: Address, login: Login) -> Outcome<Self> {
        Ok(Server {
            address,
            login,
            runtime: connection::runtime()?,
            client: None,
            fingerprint_key: None,
            held: None,
        })
    }

    /// The same server on another connection, which is not made yet.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn again(&self) -> Outcome<Self> {
        Server::new(self.address.clone(), self.login.clone())
    }

    /// The database that is logged in to.
    pub fn database_id(&self) -> Uuid {
        self.login.database_id
    }

    /// The fingerprint key that the last login answered.
    pub fn fingerprint_key(&self) -> Option<&[u8]> {
        self.fingerprint_key.as_deref()
    }

    fn connect(&mut self) -> Outcome<()> {
        if self.client.as_ref().is_some_and(|client| !client.is_closed()) {
            return Ok(());
        }
        let client = connection::connect(&self.runtime, &self.address)?;
        self.client = Some(client);
        Ok(())
    }

    /// Runs statements in one transaction of their own, logged in, and answers the rows of each.
    ///
    /// # Errors
    /// What the server says, as it concerns `place`; `Passing` where the connection was lost, also when
    /// that left open whether the transaction was committed.
    pub fn transact(&mut self, place: Place, statements: &[Statement<'_>]) -> Outcome<Vec<Vec<Row>>> {
        if self.held.is_some() {
            return self.go_on(place, statements);
        }
        self.connect()?;
        let Some(client) = self.client.take() else { return Err(passing("no connection")) };
        let log_in = self.login.token.is_some() || self.fingerprint_key.is_none();
        let answer = self.runtime.block_on(transaction(&client, &self.login, log_in, place, statements));
        match answer {
            Ok((key, rows)) => {
                self.fingerprint_key = key.or(self.fingerprint_key.take());
                self.client = Some(client);
                Ok(rows)
            }
            Err(failure) => {
                // A transaction that failed is rolled back; a connection that cannot is thrown away.
                let clean = !client.is_closed()
                    && self.runtime.block_on(async { client.batch_execute("ROLLBACK").await }).is_ok();
                if clean {
                    self.client = Some(client);
                }
                Err(failure)
            }
        }
    }

    /// Begins a transaction that all calls belong to until [`Server::commit`] or [`Server::roll_back`]. It is logged in once.
    ///
    /// # Errors
    /// As [`Server::transact`].
    pub fn hold(&mut self, purpose: Purpose) -> Outcome<()> {
        self.roll_back();
        self.connect()?;
        let Some(client) = self.client.as_ref() else { return Err(passing("no connection")) };
        let begin = match purpose {
            Purpose::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Purpose::Write => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
        };
        self.held = Some(Held::Lost);
        let key = self.runtime.block_on(begin_held(client, &self.login, begin))?;
        self.fingerprint_key = Some(key);
        self.held = Some(Held::Open);
        fault_point("transaction-held");
        Ok(())
    }

    /// Commits that transaction.
    ///
    /// # Errors
    /// What the server says; `Passing` where the connection was lost, and it is not known whether it was committed.
    pub fn commit(&mut self) -> Outcome<()> {
        match self.held {
            None => return Ok(()),
            Some(Held::Lost) => return Err(lost()),
            Some(Held::Open) => self.held = Some(Held::Lost),
        }
        let Some(client) = self.client.as_ref() else { return Err(lost()) };
        fault_point("before-commit");
        let answer = self.runtime.block_on(client.batch_execute("COMMIT"));
        answer.map_err(|error| failure(&error, Place::Table))?;
        self.held = None;
        fault_point("snapshot-committed");
        Ok(())
    }

    /// Rolls that transaction back, where there is one.
    pub fn roll_back(&mut self) {
        if self.held.take().is_none() {
            return;
        }
        // A connection that cannot roll back is thrown away, and the server does it.
        self.client = self.client.take().filter(|client| {
            !client.is_closed() && self.runtime.block_on(client.batch_execute("ROLLBACK")).is_ok()
        });
    }

    /// Whether one transaction is open for all calls.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Makes a call that may be refused within the transaction that is held, without losing it: what the call did is undone.
    /// As [`Server::transact`], where none is.
    ///
    /// # Errors
    /// As [`Server::transact`].
    pub fn attempt(&mut self, place: Place, statements: &[Statement<'_>]) -> Outcome<Vec<Vec<Row>>> {
        if self.held.is_none() {
            return self.transact(place, statements);
        }
        let plain = |sql| Statement { sql, parameters: Vec::new() };
        // All at once: what follows a statement that fails fails for no reason of its own.
        let (before, after) =
            ([plain("SAVEPOINT plimsoll_attempt")], [plain("RELEASE SAVEPOINT plimsoll_attempt")]);
        match self.go_on(place, before.iter().chain(statements).chain(&after)) {
            Ok(mut answers) => {
                answers.pop();
                Ok(answers.split_off(1))
            }
            Err(failure) if failure.kind != FailureKind::Passing => {
                self.held = Some(Held::Open);
                self.go_on(place, &[plain("ROLLBACK TO SAVEPOINT plimsoll_attempt")])?;
                Err(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Runs statements in the transaction that is held.
    fn go_on<'s, 'p: 's>(
        &mut self,
        place: Place,
        statements: impl IntoIterator<Item = &'s Statement<'p>>,
    ) -> Outcome<Vec<Vec<Row>>> {
        if self.held == Some(Held::Lost) {
            return Err(lost());
        }
        let Some(client) = self.client.as_ref() else { return Err(lost()) };
        let steps = statements
            .into_iter()
            .map(|statement| -> Pending<'_> {
                Box::pin(client.query_typed(statement.sql, &statement.parameters))
            })
            .collect();
        let answer = self.runtime.block_on(pipelined(steps));
        answer.map_err(|(_, error)| {
            self.held = Some(Held::Lost);
            failure(&error, place)
        })
    }

    /// One statement in a transaction of its own.
    ///
    /// # Errors
    /// As [`Server::transact`].
    pub fn call(&mut self, place: Place, sql: &str, parameters: Vec<Parameter<'_>>) -> Outcome<Vec<Row>> {
        let mut answers = self.transact(place, &[Statement { sql, parameters }])?;
        Ok(answers.pop().unwrap_or_default())
    }
}

const CHALLENGE: &str = "SELECT plimsoll.login_challenge()";
const LOGIN: &str = "SELECT client_id, fingerprint_key FROM plimsoll.login($1, $2)";

/// How long a transaction that is held may wait for this client: while it reads the other side, and not for ever where it is
/// gone without a word.
const PATIENCE: &str = "SET LOCAL idle_in_transaction_session_timeout = '1h'";

fn lost() -> Failure {
    passing("the transaction of the snapshot was lost")
}

/// Begins a transaction and logs in; the fingerprint key.
async fn begin_held(client: &Client, login: &Login, begin: &'static str) -> Outcome<Vec<u8>> {
    let mut steps: Vec<Pending<'_>> = vec![simple(client, begin), simple(client, PATIENCE)];
    if login.token.is_some() {
        steps.push(Box::pin(client.query_typed(CHALLENGE, &[])));
    }
    let answers = pipelined(steps).await.map_err(|(_, error)| failure(&error, Place::Run))?;
    let proof = match &login.token {
        Some(token) => {
            let challenge: Vec<u8> = cell(answers.last().and_then(|rows| rows.first()), 0)?;
            Some(token.prove(&challenge, login.database_id.as_bytes()).to_vec())
        }
        None => None,
    };
    let parameters: [Parameter<'_>; 2] = [(&login.database_id, Type::UUID), (&proof, Type::BYTEA)];
    let rows = client.query_typed(LOGIN, &parameters).await.map_err(|error| failure(&error, Place::Run))?;
    cell(rows.first(), 1)
}

/// The fingerprint key, and each statement's rows.
type Answers = (Option<Vec<u8>>, Vec<Vec<Row>>);

async fn transaction(
    client: &Client,
    login: &Login,
    log_in: bool,
    place: Place,
    statements: &[Statement<'_>],
) -> Outcome<Answers> {
    let mut proof = None;
    let mut begun = false;
    if let Some(token) = &login.token {
        let steps: Vec<Pending<'_>> =
            vec![simple(client, "BEGIN"), Box::pin(client.query_typed(CHALLENGE, &[]))];
        let answers = pipelined(steps).await.map_err(|(_, error)| failure(&error, Place::Run))?;
        let challenge: Vec<u8> = cell(answers.last().and_then(|rows| rows.first()), 0)?;
        proof = Some(token.prove(&challenge, login.database_id.as_bytes()).to_vec());
        begun = true;
        fault_point("transaction-begun");
    }
    let login_parameters: [Parameter<'_>; 2] = [(&login.database_id, Type::UUID), (&proof, Type::BYTEA)];
    let mut steps: Vec<Pending<'_>> = Vec::with_capacity(statements.len() + 3);
    // A statement alone is a transaction: what begins and ends one would only be bytes on the wire.
    let alone = !begun && !log_in && statements.len() == 1;
    if !begun && !alone {
        steps.push(simple(client, "BEGIN"));
    }
    if log_in {
        steps.push(Box::pin(client.query_typed(LOGIN, &login_parameters)));
    }
    let own = steps.len();
    for statement in statements {
        steps.push(Box::pin(client.query_typed(statement.sql, &statement.parameters)));
    }
    if !alone {
        steps.push(simple(client, "COMMIT"));
    }
    match pipelined(steps).await {
        Ok(mut answers) => {
            fault_point("committed");
            let key = match log_in {
                true => Some(cell(answers.get(own - 1).and_then(|rows| rows.first()), 1)?),
                false => None,
            };
            answers.truncate(own + statements.len());
            Ok((key, answers.split_off(own)))
        }
        Err((step, error)) if step < own => Err(failure(&error, Place::Run)),
        Err((_, error)) => Err(failure(&error, place)),
    }
}

fn simple<'f>(client: &'f Client, sql: &'static str) -> Pending<'f> {
    Box::pin(async move { client.batch_execute(sql).await.map(|()| Vec::new()) })
}

/// Sends all without waiting, and answers all, or the first error and its step: what follows a failed statement fails
/// for no reason of its own.
async fn pipelined(mut steps: Vec<Pending<'_>>) -> Result<Vec<Vec<Row>>, (usize, Error)> {
    let mut answers: Vec<Option<Result<Vec<Row>, Error>>> = steps.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut waiting = false;
        for (step, answer) in steps.iter_mut().zip(&mut answers) {
            if answer.is_none() {
                match step.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *answer = Some(ready),
                    std::task::Poll::Pending => waiting = true,
                }
            }
        }
        fault_point("waiting-for-answers");
        if waiting { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    let numbered = answers.into_iter().flatten().enumerate();
    numbered.map(|(step, answer)| answer.map_err(|error| (step, error))).collect()
}

/// A column of an answer.
///
/// # Errors
/// A `Run` failure where the server answers something else than this client knows.
pub fn cell<'r, T: tokio_postgres::types::FromSql<'r>>(row: Option<&'r Row>, place: usize) -> Outcome<T> {
    let unknown = |why: String| Failure {
        hint: Some("the extension on the server may be of another version".to_owned()),
        ..Failure::new(FailureKind::Run, format!("an answer that this client does not understand: {why}"))
    };
    let row = row.ok_or_else(|| unknown("no row".to_owned()))?;
    row.try_get(place).map_err(|error| unknown(error.to_string()))
}
