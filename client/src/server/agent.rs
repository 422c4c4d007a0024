//! The calls that concern a run as a whole: its begin and end, schemas, holds, reports.

use std::collections::BTreeMap;

use plimsoll_core::direction::Direction;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::{Failure, FailureKind, Outcome, TableVersion};
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::error::Place;
use super::lease::Term;
use super::session::{Server, Statement, cell};
use crate::failure::{Advise, run as no_run, table as refused};
use crate::fault::fault_point;

/// The protocol that this client speaks.
const PROTOCOL: i32 = 1;

/// The columns of a managed table, as [`schema`] reads them.
pub(crate) const TABLE_SCHEMA: &str =
    "SELECT column_number, column_name, column_type, not_null, is_key, is_version, is_modified, places
     FROM plimsoll.table_schema($1, $2)";

/// A run that the server began.
#[derive(Debug)]
pub struct Run {
    /// Its number.
    pub run_id: i64,
    /// The managed tables and what they say of themselves.
    pub tables: Vec<RemoteTable>,
    /// How long it has its lease.
    pub term: Term,
}

/// What the server is told when a run begins.
#[derive(Debug, Default)]
pub struct RunBegin {
    /// Who runs.
    pub agent_id: String,
    /// The highest local position of each table that is sent.
    pub local_versions: Map<String, Json>,
    /// Which way each table goes.
    pub directions: BTreeMap<String, Direction>,
    /// The id of the local database, where that is written to.
    pub side_id: Option<Uuid>,
    /// Whether the run only looks.
    pub dry_run: bool,
}

/// Why a table may not go its way in a run.
#[derive(Debug, Clone, Deserialize)]
struct Refusal {
    sqlstate: String,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

/// SQLSTATE where another local database has the place of this one.
const TAKEN: &str = "55006";

/// A managed table at the begin of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct RemoteTable {
    /// `schema.table`
    pub relation: String,
    row_count: Option<u64>,
    max_version: Option<i64>,
    max_modified: Option<i64>,
    fingerprint: Option<String>,
    /// Whether the server keeps the replica's manifest: `kept`, `untrusted` until it is rebuilt, or `off`.
    manifest: Option<String>,
    /// Rows remembered as rejected or waiting.
    #[serde(default)]
    pub rejected: u64,
    /// Why nothing destructive happens, where that is so.
    pub hold: Option<Json>,
    /// Parents before the tables that refer to them.
    #[serde(default)]
    pub rank: u32,
    refused: Option<Refusal>,
}

impl RemoteTable {
    /// Why the table may not go its way in this run, where that is so.
    pub fn refusal(&self) -> Option<Failure> {
        let Refusal { sqlstate, message, detail, hint } = self.refused.clone()?;
        let message = match detail {
            Some(detail) => format!("{message}: {}", detail.trim_end_matches('.')),
            None => message,
        };
        Some(Failure { kind: FailureKind::Table, sqlstate: Some(sqlstate), message, hint })
    }

    /// Whether that is because the replica is kept level with another local database.
    pub fn is_taken(&self) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.sqlstate == TAKEN)
    }

    /// Whether one scan of the rows on the server saves those that follow.
    pub fn wants_rebuild(&self) -> bool {
        self.manifest.as_deref() == Some("untrusted")
    }

    /// What it says of itself.
    pub fn version(&self) -> TableVersion {
        TableVersion {
            row_count: self.row_count,
            max_position: self.max_version,
            max_modified: self.max_modified,
            sum: self.fingerprint.as_deref().and_then(from_hex).and_then(|bytes| bytes.try_into().ok()),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All tables were dealt with.
    Finished,
    /// It was asked to stop.
    Stopped,
    /// It could not go on.
    Failed,
}

/// What a run tells the server of one table.
pub type TableNews = Json;

/// Bytes of hexadecimal digits.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix("\\x").unwrap_or(text);
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// Hexadecimal digits of bytes.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    /// Begins a run.
    ///
    /// # Errors
    /// A `Run` failure where another agent holds the lease, the caller is not authorised, or the server
    /// speaks another protocol.
    pub fn begin_run(&mut self, begin: &RunBegin) -> Outcome<Run> {
        let RunBegin { agent_id, local_versions, directions, side_id, dry_run } = begin;
        let database = self.database_id();
        let host = hostname();
        let (versions, directions) = (json!(local_versions), json!(directions));
        fault_point("before-begin");
        let asked = Term::asked();
        let rows = self.call(
            Place::Run,
            "SELECT run_id, tables,
                 pg_catalog.date_part('epoch', lease_until OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp())
             FROM plimsoll.begin_run($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            vec![
                (&database, Type::UUID),
                (&agent_id, Type::TEXT),
                (&env!("CARGO_PKG_VERSION"), Type::TEXT),
                (&PROTOCOL, Type::INT4),
                (&host, Type::TEXT),
                (&versions, Type::JSONB),
                (&directions, Type::JSONB),
                (side_id, Type::UUID),
                (dry_run, Type::BOOL),
            ],
        )?;
        fault_point("after-begin");
        let run_id = cell(rows.first(), 0)?;
        let tables: Json = cell(rows.first(), 1)?;
        let tables = serde_json::from_value(tables).map_err(|error| {
            no_run(format!("the server's list of tables cannot be read: {error}"))
                .advise("client and extension may be of different versions")
        })?;
        Ok(Run { run_id, tables, term: asked.of(cell(rows.first(), 2)?) })
    }

    /// Ends a run.
    ///
    /// # Errors
    /// As the server says.
    pub fn end_run(
        &mut self,
        run: i64,
        end: RunEnd,
        tables: &[TableNews],
        error: Option<&str>,
    ) -> Outcome<()> {
        let outcome = match end {
            RunEnd::Finished => "finished",
            RunEnd::Stopped => "stopped",
            RunEnd::Failed => "failed",
        };
        let tables = json!(tables);
        let sql = "SELECT plimsoll.end_run($1, $2, $3, $4)";
        let parameters = vec![
            (&run as _, Type::INT8),
            (&outcome as _, Type::TEXT),
            (&tables as _, Type::JSONB),
            (&error as _, Type::TEXT),
        ];
        fault_point("before-end");
        self.call(Place::Run, sql, parameters).map(|_| fault_point("after-end"))
    }

    /// Has the server make the manifest of a replica anew, with one scan of its rows there.
    ///
    /// # Errors
    /// As the server says.
    pub fn rebuild_manifest(&mut self, relation: &str) -> Outcome<()> {
        let database = self.database_id();
        let sql = "SELECT plimsoll.rebuild_manifest($1, $2)";
        let parameters = vec![(&database as _, Type::UUID), (&relation as _, Type::TEXT)];
        self.call(Place::Table, sql, parameters).map(drop)
    }

    /// The names of all managed tables.
    ///
    /// # Errors
    /// As the server says.
    pub fn managed_tables(&mut self) -> Outcome<Vec<String>> {
        let rows =
            self.call(Place::Run, "SELECT relation FROM plimsoll.tables WHERE is_there", Vec::new())?;
        rows.iter().map(|row| cell(Some(row), 0)).collect()
    }

    /// The managed tables without beginning a run.
    ///
    /// # Errors
    /// As the server says.
    pub fn table_versions(&mut self) -> Outcome<Vec<RemoteTable>> {
        let database = self.database_id();
        let sql = "SELECT relation, row_count, max_version FROM plimsoll.table_versions($1)";
        let rows = self.call(Place::Run, sql, vec![(&database, Type::UUID)])?;
        let table = |row| -> Outcome<RemoteTable> {
            let count: Option<i64> = cell(row, 1)?;
            Ok(RemoteTable {
                relation: cell(row, 0)?,
                row_count: count.map(i64::unsigned_abs),
                max_version: cell(row, 2)?,
                max_modified: None,
                fingerprint: None,
                manifest: None,
                rejected: 0,
                hold: None,
                rank: 0,
                refused: None,
            })
        };
        rows.iter().map(|row| table(Some(row))).collect()
    }

    /// The schemas of managed tables, in one transaction.
    ///
    /// # Errors
    /// As the server says. Each table's own answer may be a `Table` failure.
    pub fn table_schemas(&mut self, relations: &[&str]) -> Outcome<Vec<Outcome<TableSchema>>> {
        if relations.is_empty() {
            return Ok(Vec::new());
        }
        let database = self.database_id();
        let sql = TABLE_SCHEMA;
        let statements: Vec<_> = relations
            .iter()
            .map(|relation| {
                let parameters = vec![(&database as _, Type::UUID), (relation as _, Type::TEXT)];
                Statement { sql, parameters }
            })
            .collect();
        match self.transact(Place::Table, &statements) {
            Ok(answers) => {
                Ok(relations.iter().zip(answers).map(|(name, rows)| schema(name, &rows)).collect())
            }
            // One table may be at fault: each is asked for alone.
            Err(failure) if failure.kind == FailureKind::Table => {
                let mut schemas = Vec::with_capacity(relations.len());
                for relation in relations {
                    let parameters = vec![(&database as _, Type::UUID), (relation as _, Type::TEXT)];
                    schemas.push(match self.call(Place::Table, sql, parameters) {
                        Ok(rows) => schema(relation, &rows),
                        Err(failure) if failure.kind == FailureKind::Table => Err(failure),
                        Err(failure) => return Err(failure),
                    });
                }
                Ok(schemas)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Approves what a replica's hold planned.
    ///
    /// # Errors
    /// Where the administrator does not let this client do so.
    pub fn release_hold(&mut self, relation: &str) -> Outcome<()> {
        let database = self.database_id();
        let parameters = vec![(&database as _, Type::UUID), (&relation as _, Type::TEXT)];
        self.call(Place::Table, "SELECT plimsoll.release_hold($1, $2)", parameters).map(drop)
    }

    /// Lets another local database take the place of the one that a replica is kept level with.
    ///
    /// # Errors
    /// Where the administrator does not let this client do so.
    pub fn forget_side(&mut self, relation: &str) -> Outcome<()> {
        let database = self.database_id();
        let parameters = vec![(&database as _, Type::UUID), (&relation as _, Type::TEXT)];
        self.call(Place::Table, "SELECT plimsoll.forget_side($1, $2)", parameters).map(drop)
    }

    /// The replicas of this database as the server reports them, a JSON object each.
    ///
    /// # Errors
    /// As the server says.
    pub fn replicas(&mut self) -> Outcome<Vec<Json>> {
        let database = self.database_id();
        let sql = "SELECT pg_catalog.to_jsonb(r) FROM plimsoll.replicas AS r
                   WHERE r.database_id OPERATOR(pg_catalog.=) $1 ORDER BY 1";
        let rows = self.call(Place::Run, sql, vec![(&database, Type::UUID)])?;
        rows.iter().map(|row| cell(Some(row), 0)).collect()
    }
}

/// The schema that rows of `plimsoll.table_schema` describe.
///
/// # Errors
/// A `Table` failure where this client cannot read them.
pub(crate) fn schema(relation: &str, rows: &[Row]) -> Outcome<TableSchema> {
    let mut columns = Vec::with_capacity(rows.len());
    let (mut key, mut version, mut modified, mut placed_by) = (Vec::new(), None, None, Vec::new());
    for row in rows {
        let row = Some(row);
        let number: i32 = cell(row, 0)?;
        let name: String = cell(row, 1)?;
        let text: String = cell(row, 2)?;
        let column_type = text.parse().map_err(|error: plimsoll_core::Error| {
            refused(format!("column \"{name}\" of {relation}: {error}"))
                .advise("this client may be older than the extension")
        })?;
        if cell(row, 4)? {
            key.push(name.clone());
        }
        if cell(row, 5)? {
            version = Some(name.clone());
        }
        if cell(row, 6)? {
            modified = Some(name.clone());
        }
        if cell(row, 7)? {
            placed_by.push(name.clone());
        }
        columns.push(Column { number: number.unsigned_abs(), name, column_type, not_null: cell(row, 3)? });
    }
    let key: Vec<&str> = key.iter().map(String::as_str).collect();
    let placed_by: Vec<&str> = placed_by.iter().map(String::as_str).collect();
    let (version, modified) = (version.as_deref(), modified.as_deref());
    TableSchema::new(columns, &Roles { key: &key, version, modified, placed_by: &placed_by })
        .map_err(|error| refused(format!("the managed table {relation}: {error}")))
}

fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).or_else(|| std::env::var("COMPUTERNAME").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Text that is JSON as JSON, anything else as its text.
pub fn as_json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

/// Makes a failure of this client out of an answer that it cannot use.
pub fn malformed(what: &str, error: impl std::fmt::Display) -> Failure {
    refused(format!("{what} cannot be read: {error}"))
        .advise("client and extension may be of different versions")
}
