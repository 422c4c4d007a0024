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
}

type Pending<'f> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + 'f>>;

impl Server {
    /// A server that is not connected yet.
    ///
    /// # Errors
    /// A `Run` failure where this machine refuses what a connection needs.
    pub fn new(address: Address, login: Login) -> Outcome<Self> {
        Ok(Server { address, login, runtime: connection::runtime()?, client: None, fingerprint_key: None })
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
