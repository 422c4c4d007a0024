//! Rows of a statement to encoded rows. Buffers are reused; only what is handed out is allocated.

use std::convert::Infallible;

use plimsoll_core::digest::{DigestQueue, Digester, FingerprintKey, RowDigest};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{Field, RowWriter, digest_form, put_field};
use plimsoll_core::store::{BadRow, Failure, Outcome, SourceKey, SourceRecord, SourceRow};
use plimsoll_core::value::Value;
use plimsoll_core::{Error, ErrorKind};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use super::convert::{convert, storage_class};
use super::plan::TablePlan;
use super::raw::put_raw;
use crate::failure::table as refused;

/// The largest row that is sent, in encoded bytes.
pub const MAX_ROW_BYTES: usize = 256 << 20;

/// Encodes rows with one database's fingerprint key.
#[derive(Debug)]
pub struct Encoder {
    digester: Digester,
    row: Vec<u8>,
    form: Vec<u8>,
    key_fields: Vec<u8>,
    key: Vec<u8>,
}

/// What became of a row.
pub enum Encoded {
    /// It can be sent, and has this position: the encoder holds it until the next.
    Good(i64),
    /// It can never be.
    Bad(BadRow),
}

/// Why a value cannot be encoded.
struct Fault {
    place: usize,
    error: Error,
}

/// The digests of rows that are read one after the other, made some at a time: that is faster.
#[derive(Debug)]
pub struct Digests(DigestQueue<usize>);

impl Digests {
    /// Makes those that are due, and tells the number of each row.
    pub fn take(&mut self, mut take: impl FnMut(usize, RowDigest)) {
        let all = self.0.take_all(|number, digest, _| {
            take(number, digest);
            Ok::<_, Infallible>(true)
        });
        let Ok(_) = all;
    }
}

impl Encoder {
    /// An encoder for the database that `key` belongs to.
    pub fn new(key: FingerprintKey) -> Self {
        Encoder {
            digester: Digester::new(key),
            row: Vec::new(),
            form: Vec::new(),
            key_fields: Vec::new(),
            key: Vec::new(),
        }
    }

    /// Encodes a row whose columns are the plan's, in order.
    ///
    /// # Errors
    /// Only where the statement does not have those columns.
    pub fn encode(&mut self, plan: &TablePlan, row: &Row<'_>) -> Outcome<Encoded> {
        let position = plan.version_kind.position(value_at(row, plan.version)?);
        let fault = match (self.write_row(plan, row)?, position) {
            (None, Some(position)) => return Ok(Encoded::Good(position)),
            (Some(fault), _) => fault,
            (None, None) => Fault {
                place: plan.version,
                error: Error::new(ErrorKind::WrongType, "a value that is no version"),
            },
        };
        self.bad_row(plan, row, position, &fault).map(Encoded::Bad)
    }

    /// Encodes a row to be handed out.
    ///
    /// # Errors
    /// As [`Encoder::encode`].
    pub fn record(&mut self, plan: &TablePlan, row: &Row<'_>) -> Outcome<SourceRecord> {
        Ok(match self.encode(plan, row)? {
            Encoded::Bad(bad) => SourceRecord::Bad(Box::new(bad)),
            Encoded::Good(position) => SourceRecord::Row(self.take_row(self.item(position))),
        })
    }

    /// The item of the row that [`Encoder::encode`] just found good.
    pub fn item(&self, position: i64) -> Item {
        Item { position, digest: self.digester.digest_of_form(&self.form) }
    }

    /// That row.
    pub fn take_row(&self, item: Item) -> SourceRow {
        SourceRow { item, key: self.key.clone(), row: self.row.clone() }
    }

    /// Digests of rows to come.
    pub fn digests(&self) -> Digests {
        Digests(DigestQueue::new(&self.digester))
    }

    /// Puts that row among them, under a number. Whether some are due.
    pub fn queue(&self, digests: &mut Digests, number: usize) -> bool {
        digests.0.form().extend_from_slice(&self.form);
        digests.0.push(number)
    }

    /// The encoded key of a row that has the key's columns alone, in the order of the managed table's
    /// columns; `None` where they cannot be encoded.
    ///
    /// # Errors
    /// Only where the statement does not have those columns.
    pub fn key_alone(&mut self, plan: &TablePlan, row: &Row<'_>) -> Outcome<Option<&[u8]>> {
        self.key_fields.clear();
        for (i, column) in plan.schema.key().enumerate() {
            let mut number = None;
            match convert(value_at(row, i)?, &column.column_type, &mut number) {
                Ok(Some(value)) => RowWriter::new(&mut self.key_fields).field(column.number, &value),
                _ => return Ok(None),
            }
        }
        Ok(self.finish_key().then_some(self.key.as_slice()))
    }

    fn finish_key(&mut self) -> bool {
        self.key.clear();
        digest_form(&self.key_fields, &mut self.key).is_ok()
    }

    fn write_row(&mut self, plan: &TablePlan, row: &Row<'_>) -> Outcome<Option<Fault>> {
        self.row.clear();
        self.form.clear();
        self.key.clear();
        let mut key = plan.schema.key_indexes().iter().copied().peekable();
        for (place, column) in plan.schema.columns().iter().enumerate() {
            let mut number = None;
            let raw = value_at(row, place)?;
            let in_key = key.next_if_eq(&place).is_some();
            let value = match convert(raw, &column.column_type, &mut number) {
                Err(error) => return Ok(Some(Fault { place, error })),
                Ok(None) if column.not_null || in_key || place == plan.version => {
                    return Ok(Some(Fault { place, error: Error::new(ErrorKind::Null, "NULL") }));
                }
                Ok(None) => continue,
                Ok(Some(value)) => value,
            };
            let (start, start_of_form) = (self.row.len(), self.form.len());
            RowWriter::new(&mut self.row).field(column.number, &value);
            let field = Field { number: column.number, value, bytes: &self.row[start..] };
            if let Err(error) = put_field(&mut self.form, &field) {
                return Ok(Some(Fault { place, error }));
            }
            if in_key {
                self.key.extend_from_slice(&self.form[start_of_form..]);
            }
            if self.row.len() > MAX_ROW_BYTES {
                let message = format!("the row exceeds {} MiB when encoded", MAX_ROW_BYTES >> 20);
                // What is left of the row is not needed, and neither is its memory.
                (self.row, self.form, self.key) = (Vec::new(), Vec::new(), Vec::new());
                return Ok(Some(Fault { place, error: Error::new(ErrorKind::TooLarge, message) }));
            }
        }
        Ok(None)
    }

    fn bad_row(
        &mut self,
        plan: &TablePlan,
        row: &Row<'_>,
        position: Option<i64>,
        fault: &Fault,
    ) -> Outcome<BadRow> {
        let column = &plan.columns[fault.place];
        let key = match self.encoded_key(plan, row)? {
            Some(key) => SourceKey::Encoded(key),
            None => SourceKey::Raw(raw_key(plan, row)?),
        };
        let message = match fault.error.kind() {
            ErrorKind::Null => format!("column \"{column}\" takes no NULL"),
            _ => format!("column \"{column}\": {}", fault.error.message()),
        };
        Ok(BadRow {
            position,
            key,
            key_text: key_text(plan, row)?,
            source_digest: self.source_digest(plan, row)?,
            column: Some(column.clone()),
            sqlstate: fault.error.kind().sqlstate().to_owned(),
            message,
        })
    }

    fn encoded_key(&mut self, plan: &TablePlan, row: &Row<'_>) -> Outcome<Option<Vec<u8>>> {
        self.key_fields.clear();
        for (place, column) in plan.schema.key_indexes().iter().zip(plan.schema.key()) {
            let mut number = None;
            match convert(value_at(row, *place)?, &column.column_type, &mut number) {
                Ok(Some(value)) => RowWriter::new(&mut self.key_fields).field(column.number, &value),
                _ => return Ok(None),
            }
        }
        Ok(self.finish_key().then(|| self.key.clone()))
    }

    /// A keyed digest of the values as SQLite holds them: as a row whose column numbers tell the storage
    /// class too.
    fn source_digest(&mut self, plan: &TablePlan, row: &Row<'_>) -> Outcome<RowDigest> {
        self.row.clear();
        let mut writer = RowWriter::new(&mut self.row);
        for (place, _) in plan.columns.iter().enumerate() {
            let first = u32::try_from(place).unwrap_or(u32::MAX / 4).saturating_mul(4) + 1;
            match value_at(row, place)? {
                ValueRef::Null => {}
                ValueRef::Integer(number) => writer.field(first, &Value::Int(number)),
                ValueRef::Real(number) => writer.field(first + 1, &Value::Float(number)),
                ValueRef::Text(bytes) => writer.field(first + 2, &Value::Bytea(bytes)),
                ValueRef::Blob(bytes) => writer.field(first + 3, &Value::Bytea(bytes)),
            }
        }
        self.digester.digest(&self.row).map_err(|error| refused(error.to_string()))
    }
}

/// A column of a row.
///
/// # Errors
/// Where the statement has no such column.
pub fn value_at<'r>(row: &'r Row<'_>, place: usize) -> Outcome<ValueRef<'r>> {
    row.get_ref(place).map_err(|error| statement_lacks(place, &error))
}

fn statement_lacks(place: usize, error: &rusqlite::Error) -> Failure {
    refused(format!("a statement without column {place}: {error}"))
}

/// The key's own values, in the local key's order.
///
/// # Errors
/// As [`value_at`].
pub fn raw_key(plan: &TablePlan, row: &Row<'_>) -> Outcome<Vec<u8>> {
    let mut raw = Vec::new();
    for place in &plan.key_order {
        put_raw(&mut raw, value_at(row, *place)?);
    }
    Ok(raw)
}

fn key_text(plan: &TablePlan, row: &Row<'_>) -> Outcome<String> {
    let mut object = serde_json::Map::new();
    for place in &plan.key_order {
        object.insert(plan.columns[*place].clone(), shown(value_at(row, *place)?));
    }
    Ok(serde_json::Value::Object(object).to_string())
}

/// A value for people.
fn shown(value: ValueRef<'_>) -> serde_json::Value {
    /// More of a value than this helps nobody to find the row.
    const MOST: usize = 200;
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => serde_json::Number::from_f64(number)
            .map_or_else(|| number.to_string().into(), serde_json::Value::Number),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).chars().take(MOST).collect::<String>().into(),
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().take(MOST / 2).map(|byte| format!("{byte:02x}")).collect();
            format!("{} {hex}", storage_class(value)).into()
        }
    }
}
