//! The manifests that the local database keeps itself: where the extension is installed there, and manages a table for
//! this database, with its fingerprint key and its column numbers, what the extension knows of the rows is what reading
//! them all would tell. Every question proves that anew, in the snapshot that it is asked in.

use std::collections::{HashMap, HashSet};

use plimsoll_core::ENCODING_VERSION;
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::row::RowWriter;
use plimsoll_core::schema::{Axis, Column, TableSchema};
use plimsoll_core::store::{FailureKind, Outcome, PositionRange, TableId};
use plimsoll_core::value::{ColumnType, Value};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::catalogue::quoted;
use super::session::Session;
use crate::failure::table as refused;
use crate::names::identifier;
use crate::server::{TABLE_SCHEMA, range_text, schema};
use crate::source::plan::{Origin, TablePlan};

/// Whether the extension is there, and whether this role may use it.
const INSTALLED: &str = "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
     FROM pg_catalog.pg_extension e, pg_catalog.pg_namespace n
     WHERE e.extname = 'plimsoll' AND n.nspname = 'plimsoll'";

/// How it encodes rows, and the digest of a known one under the database's key: the key itself stays where it is.
const KEY: &str = "SELECT v.encoding_version,
         (SELECT plimsoll.fingerprint(l.fingerprint_key, $2::pg_catalog.text) FROM plimsoll.login($1) l)
     FROM plimsoll.version() v";

/// The managed table's name, where it holds this database's rows alone.
const MANAGED: &str = "SELECT t.relation FROM plimsoll.tables t
     WHERE t.database_id = $1 AND t.is_there
         AND t.relation = (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = $2::pg_catalog.text::pg_catalog.regclass)";

/// What all rows are; the sum is NULL where the manifest is off or untrusted.
const ROOT: &str = "SELECT v.row_count, v.fingerprint FROM plimsoll.table_version($1, $2) v";

/// What ranges hold.
const RANGES: &str = "SELECT f.row_count, f.fingerprint
     FROM pg_catalog.unnest($3::pg_catalog.text[]) WITH ORDINALITY r(range, place)
     CROSS JOIN LATERAL plimsoll.range_fingerprint($1, $2, r.range::pg_catalog.int8range) f
     ORDER BY r.place";

/// Columns that the extension's index has one by one; it has more as a row.
const MOST_ARGUMENTS: usize = 90;

/// The text of the row that proves the key.
const KNOWN: &str = "plimsoll";

/// What tells of the manifests of one database's tables.
#[derive(Debug)]
pub struct Keeper {
    database_id: Uuid,
    /// What the digest of the known row must be.
    known: [u8; 32],
    /// Whether the database as a whole keeps none.
    is_none: bool,
    /// Tables whose manifest is not used in this run.
    refused: HashSet<TableId>,
    /// Tables of whose manifest it was said that it is used.
    told: HashSet<TableId>,
    /// The positions of tables whose rows stand at a hash, as the extension's index over them has them.
    positions: HashMap<TableId, String>,
    /// Whether a statement failed, and the snapshot with it.
    failed: bool,
}

/// Why no manifest is used: of one table, or of none of the database's.
enum Refusal {
    Table(String),
    /// Nothing was set up: nobody waits for a word of it.
    NotInstalled,
    Database(String),
}

/// A manifest that is as it must be.
struct Kept {
    relation: String,
    root: Fingerprint,
    position: Option<String>,
}

impl Keeper {
    /// Of the tables that are managed under this id, with this key.
    pub fn new(database_id: Uuid, key: FingerprintKey) -> Self {
        let mut form = Vec::new();
        RowWriter::new(&mut form).field(1, &Value::Text(KNOWN));
        let known = Digester::new(key).digest_of_form(&form);
        Keeper {
            database_id,
            known: Fingerprint::from_iter([known]).sum(),
            is_none: false,
            refused: HashSet::new(),
            told: HashSet::new(),
            positions: HashMap::new(),
            failed: false,
        }
    }

    /// What all rows of a table are; `None` where no manifest tells.
    ///
    /// # Errors
    /// `Passing`, as the server says.
    pub fn root(
        &mut self,
        session: &Session,
        table: TableId,
        plan: &TablePlan,
    ) -> Outcome<Option<Fingerprint>> {
        Ok(self.kept(session, table, plan)?.map(|kept| kept.root))
    }

    /// What ranges of a table hold, in one snapshot with the proof that its manifest is as it must be.
    ///
    /// # Errors
    /// `Passing`, as the server says.
    pub fn ranges(
        &mut self,
        session: &Session,
        table: TableId,
        plan: &TablePlan,
        ranges: &[PositionRange],
    ) -> Outcome<Option<Vec<Fingerprint>>> {
        let Some(kept) = self.kept(session, table, plan)? else { return Ok(None) };
        let database = self.database_id;
        let ranges: Vec<String> = ranges.iter().map(|range| range_text(*range)).collect();
        let answer = session.ask(async |client| {
            let parameters: Parameters<'_> =
                &[(&database, Type::UUID), (&kept.relation, Type::TEXT), (&ranges, Type::TEXT_ARRAY)];
            client.query_typed(RANGES, parameters).await?.iter().map(held).collect::<Result<Vec<_>, _>>()
        });
        let held = answer.and_then(|held| {
            let all: Option<Vec<Fingerprint>> = held.into_iter().collect();
            all.filter(|all| all.len() == ranges.len())
                .ok_or_else(|| refused("what ranges hold cannot be read"))
        });
        match held {
            Ok(held) => Ok(Some(held)),
            Err(failure) => self.fall_back(table, plan, failure).map(|()| None),
        }
    }

    /// The position of a table's rows where it is a hash, as the index has it that the extension made: by it they are found.
    pub fn position(&self, table: TableId) -> Option<&String> {
        self.positions.get(&table)
    }

    /// Whether a statement has failed since this was asked last: the snapshot is no good any more.
    pub fn take_failed(&mut self) -> bool {
        std::mem::take(&mut self.failed)
    }

    fn kept(&mut self, session: &Session, table: TableId, plan: &TablePlan) -> Outcome<Option<Kept>> {
        if self.is_none || self.refused.contains(&table) {
            return Ok(None);
        }
        match self.look(session, plan) {
            Ok(Ok(kept)) => {
                self.positions.extend(kept.position.clone().map(|position| (table, position)));
                if self.told.insert(table) {
                    tracing::info!(
                        "\"{}\": the local database keeps a manifest of it: rows are read where it differs",
                        plan.table
                    );
                }
                Ok(Some(kept))
            }
            Ok(Err(refusal)) => {
                self.refuse(table, plan, &refusal);
                Ok(None)
            }
            Err(failure) => self.fall_back(table, plan, failure).map(|()| None),
        }
    }

    /// Goes on by reading rows after a failure that may come again.
    fn fall_back(
        &mut self,
        table: TableId,
        plan: &TablePlan,
        failure: plimsoll_core::store::Failure,
    ) -> Outcome<()> {
        self.failed = true;
        if failure.kind == FailureKind::Passing {
            return Err(failure);
        }
        let is_privilege = failure.sqlstate.as_deref() == Some("42501");
        let refusal = if is_privilege { Refusal::Database } else { Refusal::Table };
        self.refuse(table, plan, &refusal(failure.message));
        Ok(())
    }

    /// Says once why rows are read.
    fn refuse(&mut self, table: TableId, plan: &TablePlan, refusal: &Refusal) {
        match refusal {
            Refusal::Table(why) => {
                self.refused.insert(table);
                tracing::info!("\"{}\": rows are read, no local manifest is used: {why}", plan.table);
            }
            Refusal::Database(why) => {
                self.is_none = true;
                tracing::info!("rows are read, no local manifest is used: {why}");
            }
            Refusal::NotInstalled => {
                self.is_none = true;
                tracing::debug!("rows are read: the local database has no extension plimsoll");
            }
        }
    }

    /// Looks whether the manifest of a table says what rows of the plan would add up to.
    fn look(&self, session: &Session, plan: &TablePlan) -> Outcome<Result<Kept, Refusal>> {
        let database = self.database_id;
        let usable = session.ask(async |client| {
            client.query_typed(INSTALLED, &[]).await?.first().map(|row| row.try_get(0)).transpose()
        })?;
        match usable {
            None => return Ok(Err(Refusal::NotInstalled)),
            Some(false) => {
                let role = identifier(session.role());
                return Ok(Err(Refusal::Database(format!("GRANT plimsoll_reader TO {role} is missing"))));
            }
            Some(true) => {}
        }
        let (encoding, known) = session.ask(async |client| {
            let parameters: Parameters<'_> = &[(&database, Type::UUID), (&KNOWN, Type::TEXT)];
            let row = client.query_typed_one(KEY, parameters).await?;
            Ok((row.try_get::<_, i32>(0)?, row.try_get::<_, Option<Vec<u8>>>(1)?))
        })?;
        if encoding != i32::from(ENCODING_VERSION) {
            let why = "the local database has another version of the extension";
            return Ok(Err(Refusal::Database(why.to_owned())));
        }
        if known.as_deref() != Some(&self.known) {
            let why = "the local database has another fingerprint key for this database";
            return Ok(Err(Refusal::Database(why.to_owned())));
        }
        let name = plan.relation.strip_prefix("ONLY ").unwrap_or(&plan.relation);
        let relation: Option<String> = session.ask(async |client| {
            let parameters: Parameters<'_> = &[(&database, Type::UUID), (&name, Type::TEXT)];
            client.query_typed(MANAGED, parameters).await?.first().map(|row| row.try_get(0)).transpose()
        })?;
        let Some(relation) = relation else {
            return Ok(Err(Refusal::Table("it is not managed for this database there".to_owned())));
        };
        let of_table: Parameters<'_> = &[(&database, Type::UUID), (&relation, Type::TEXT)];
        let rows = session.ask(async |client: &Client| client.query_typed(TABLE_SCHEMA, of_table).await)?;
        let local = schema(&relation, &rows)?;
        if let Some(why) = misfit(plan, &local) {
            return Ok(Err(Refusal::Table(why)));
        }
        let root = session.ask(async |client| held(&client.query_typed_one(ROOT, of_table).await?))?;
        let Some(root) = root else {
            let why = format!(
                "its manifest is off or not trusted; SELECT plimsoll.rebuild_manifest('{database}', '{relation}') there"
            );
            return Ok(Err(Refusal::Table(why)));
        };
        Ok(Ok(Kept { relation, root, position: hash_of(&local) }))
    }
}

/// Parameters of a statement, with their types.
type Parameters<'p> = &'p [(&'p (dyn tokio_postgres::types::ToSql + Sync), Type)];

/// A row count and a sum; `None` where there is no sum.
fn held(row: &Row) -> Result<Option<Fingerprint>, Error> {
    let (rows, sum): (i64, Option<Vec<u8>>) = (row.try_get(0)?, row.try_get(1)?);
    let sum = sum.and_then(|sum| <[u8; 32]>::try_from(sum).ok());
    Ok(sum.map(|sum| Fingerprint::from_parts(rows.unsigned_abs(), sum)))
}

/// The hash at which the rows of a local managed table stand, as the extension's index has it; `None` where they stand at
/// their version, or the index has it otherwise.
fn hash_of(local: &TableSchema) -> Option<String> {
    if local.axis() != Axis::Hash || local.placed_by().len() > MOST_ARGUMENTS {
        return None;
    }
    let numbers: Vec<String> = local.placed_by().map(|column| column.number.to_string()).collect();
    let columns: Vec<String> = local.placed_by().map(|column| quoted(&column.name)).collect();
    let (numbers, columns) = (numbers.join(","), columns.join(", "));
    Some(format!("plimsoll_open.hash_position('{{{numbers}}}'::pg_catalog.int4[], {columns})"))
}

/// Why digests and positions of a plan's rows are not those of the local managed table; `None` where they are.
fn misfit(plan: &TablePlan, local: &TableSchema) -> Option<String> {
    if let Some(filter) = &plan.filter {
        return Some(format!("only rows where {filter} are sent"));
    }
    let managed = plan.schema.columns();
    let sent: Vec<_> =
        plan.columns.iter().zip(managed).filter(|(sent, _)| sent.origin != Origin::Absent).collect();
    for (column, managed) in &sent {
        if column.origin != Origin::Column(None) {
            return Some(format!("column \"{}\" is not sent as it is", column.name));
        }
        let Some(own) = local.columns().iter().find(|own| own.name == column.name) else {
            return Some(format!("column \"{}\" is not managed there", column.name));
        };
        if own.number != managed.number {
            return Some(format!(
                "column \"{}\" has the number {} there, and {} on the server",
                column.name, own.number, managed.number
            ));
        }
        if !have_same_digests(&own.column_type, &managed.column_type) {
            return Some(format!(
                "column \"{}\" is {} there, and {} on the server",
                column.name, own.column_type, managed.column_type
            ));
        }
    }
    let is_sent = |own: &&Column| sent.iter().any(|(_, managed)| managed.number == own.number);
    if let Some(own) = local.columns().iter().find(|own| !is_sent(own)) {
        return Some(format!("column \"{}\" is managed there, and not sent", own.name));
    }
    let version = |schema: &TableSchema| match schema.axis() {
        Axis::Version(place) => schema.columns().get(place).map(|column| column.number),
        Axis::Hash => None,
    };
    let placed_by = |schema: &TableSchema| -> Vec<u32> {
        let numbers = schema.placed_by().map(|column| column.number);
        numbers.filter(|number| sent.iter().any(|(_, managed)| managed.number == *number)).collect()
    };
    let same_place = version(local) == version(&plan.schema) && placed_by(local) == placed_by(&plan.schema);
    (!same_place)
        .then(|| "its rows stand elsewhere there: it has another version column, or another key".to_owned())
}

/// Whether equal values of two types have equal digests: what they differ in is which values there may be.
fn have_same_digests(one: &ColumnType, other: &ColumnType) -> bool {
    use ColumnType::{Int2, Int4, Int8, Numeric, Text, Timestamp, Timestamptz, Varchar};
    one == other
        || matches!(
            (one, other),
            (Int2 | Int4 | Int8, Int2 | Int4 | Int8)
                | (Numeric(_), Numeric(_))
                | (Text | Varchar(_), Text | Varchar(_))
                | (Timestamp(_), Timestamp(_))
                | (Timestamptz(_), Timestamptz(_))
        )
}
