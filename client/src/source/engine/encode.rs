//! Rows of a query to encoded rows. Buffers are reused; only what is handed out is allocated.

use std::collections::HashSet;
use std::convert::Infallible;

use plimsoll_core::digest::{DigestQueue, Digester, FingerprintKey, RowDigest};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{Field, RowWriter, put_field};
use plimsoll_core::schema::{Axis, Column, hash_position, position_of};
use plimsoll_core::store::{BadRow, SourceKey, SourceRecord, SourceRow};
use plimsoll_core::value::Value;
use plimsoll_core::value::adapt::{Adapted, Conversion, Room};
use plimsoll_core::{Error, ErrorKind, Result};
use serde_json::{Map, Value as Json};

use crate::source::kind::{LocalRow, Scratch};
use crate::source::plan::{Origin, TablePlan};
use crate::source::query::{RawValue, put_raw, read_raw};

/// The largest row that is sent, in encoded bytes.
const MAX_ROW_BYTES: usize = 256 << 20;
/// More columns of a row than this help nobody to find it.
const MOST_SHOWN: usize = 16;

/// Encodes rows with one database's fingerprint key.
#[derive(Debug)]
pub struct Encoder {
    digester: Digester,
    row: Vec<u8>,
    form: Vec<u8>,
    key: Vec<u8>,
    placing: Vec<u8>,
    raw: Vec<u8>,
    scratch: Buffers,
    /// The places of columns whose values the row under way lost something of.
    lossy: Vec<usize>,
    /// Tables and columns of which it was said in this run that something is lost.
    told: HashSet<(String, usize)>,
}

/// Room for one value, and for what it is converted to.
#[derive(Debug, Default)]
struct Buffers {
    value: Scratch,
    converted: Room,
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
            key: Vec::new(),
            placing: Vec::new(),
            raw: Vec::new(),
            scratch: Buffers::default(),
            lossy: Vec::new(),
            told: HashSet::new(),
        }
    }

    /// Encodes a row of the plan's columns.
    pub fn encode<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> Encoded {
        match self.write_row(plan, row) {
            Ok(position) => {
                while let Some(place) = self.lossy.pop() {
                    self.tell_loss(plan, row, place);
                }
                Encoded::Good(position)
            }
            Err(fault) => Encoded::Bad(self.bad_row(plan, row, &fault)),
        }
    }

    /// Says of a conversion, once in a run, that it loses something.
    fn tell_loss<R: LocalRow>(&mut self, plan: &TablePlan, row: &R, place: usize) {
        if !self.told.insert((plan.relation.clone(), place)) {
            return;
        }
        let column = &plan.columns[place];
        if let Some(conversion) = column.conversion() {
            tracing::warn!(
                "\"{}\": column \"{}\" is sent converted ({conversion}), and values lose by it: the first in the row \
                 {}; rows that differ in nothing else are level",
                plan.table,
                column.name,
                key_text(plan, row),
            );
        }
    }

    /// Encodes a row to be handed out.
    pub fn record<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> SourceRecord {
        match self.encode(plan, row) {
            Encoded::Bad(bad) => SourceRecord::Bad(Box::new(bad)),
            Encoded::Good(position) => SourceRecord::Row(self.take_row(self.item(position))),
        }
    }

    /// The item of the row that [`Encoder::encode`] just found good.
    pub fn item(&self, position: i64) -> Item {
        Item { position, digest: self.digester.digest_of_form(&self.form) }
    }

    /// That row.
    pub fn take_row(&self, item: Item) -> SourceRow {
        SourceRow { item, key: self.key.clone(), row: self.row.clone() }
    }

    /// The encoded key of that row.
    pub fn key(&self) -> &[u8] {
        &self.key
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

    /// The encoded key of a row that has the key's columns alone, in the order of the managed table's columns; `None`
    /// where they cannot be encoded.
    pub fn key_alone<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> Option<&[u8]> {
        let places = plan.schema.key_indexes().iter().copied().enumerate();
        write_columns(&mut self.key, &mut self.scratch, plan, places, true, row)
            .then_some(self.key.as_slice())
    }

    /// Where a row of the plan's columns stands; `None` where that cannot be told.
    pub fn position<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> Option<i64> {
        match plan.schema.axis() {
            Axis::Version(place) => {
                row.position(place, &plan.schema.columns()[place].column_type, &mut self.scratch.value)
            }
            Axis::Hash => {
                let places = plan.schema.placed_by_indexes().iter().map(|place| (*place, *place));
                let is_keyed = !plan.schema.is_keyless();
                write_columns(&mut self.placing, &mut self.scratch, plan, places, is_keyed, row)
                    .then(|| hash_position(&self.placing))
            }
        }
    }

    /// Writes wire form, digest form and key of a row, and answers its position.
    fn write_row<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> std::result::Result<i64, Fault> {
        let Encoder { row: wire, form, key, placing, scratch, lossy, .. } = self;
        lossy.clear();
        wire.clear();
        form.clear();
        key.clear();
        placing.clear();
        let schema = &plan.schema;
        let mut in_key = schema.key_indexes().iter().copied().peekable();
        let version = plan.version_place();
        // The key places rows, where they have one.
        let places = if schema.is_keyless() { schema.placed_by_indexes() } else { &[] };
        let mut placed_by = places.iter().copied().peekable();
        let mut position = None;
        for (place, column) in schema.columns().iter().enumerate() {
            let fault = |error| Fault { place, error };
            let of_key = in_key.next_if_eq(&place).is_some();
            let placing_too = placed_by.next_if_eq(&place).is_some();
            let (start, start_of_form) = (wire.len(), form.len());
            let origin = &plan.columns[place].origin;
            if let Origin::Constant { wire: field, form: of_form } = origin {
                wire.extend_from_slice(field);
                form.extend_from_slice(of_form);
            } else {
                let value = checked(row, place, column, origin, scratch).map_err(fault)?;
                let Some(Adapted { value, lossy: loses }) = value else {
                    if column.not_null || of_key || version == Some(place) {
                        return Err(fault(Error::new(ErrorKind::Null, "NULL")));
                    }
                    continue;
                };
                if loses {
                    lossy.push(place);
                }
                if version == Some(place) {
                    position = position_of(&value);
                }
                RowWriter::new(wire).field(column.number, &value);
                let field = Field { number: column.number, value, bytes: &wire[start..] };
                put_field(form, &field).map_err(fault)?;
            }
            if of_key {
                key.extend_from_slice(&form[start_of_form..]);
            }
            if placing_too {
                placing.extend_from_slice(&form[start_of_form..]);
            }
            if wire.len() > MAX_ROW_BYTES {
                // What is left of the row is not needed, and neither is its memory.
                (*wire, *form, *key) = (Vec::new(), Vec::new(), Vec::new());
                let message = format!("the row exceeds {} MiB when encoded", MAX_ROW_BYTES >> 20);
                return Err(fault(Error::new(ErrorKind::TooLarge, message)));
            }
        }
        if schema.is_keyless() {
            key.extend_from_slice(form);
        }
        match schema.axis() {
            Axis::Version(place) => position.ok_or_else(|| Fault {
                place,
                error: Error::new(ErrorKind::WrongType, "a value that is no version"),
            }),
            Axis::Hash if schema.is_keyless() => Ok(hash_position(placing)),
            Axis::Hash => Ok(hash_position(key)),
        }
    }

    fn bad_row<R: LocalRow>(&mut self, plan: &TablePlan, row: &R, fault: &Fault) -> BadRow {
        let column = &plan.columns[fault.place].name;
        let message = match fault.error.kind() {
            ErrorKind::Null => format!("column \"{column}\" takes no NULL"),
            _ => format!("column \"{column}\": {}", fault.error.message()),
        };
        let source_digest = self.source_digest(plan, row);
        BadRow {
            position: self.position(plan, row),
            key: self.source_key(plan, row, &source_digest),
            key_text: key_text(plan, row),
            source_digest,
            column: Some(column.clone()),
            sqlstate: fault.error.kind().sqlstate().to_owned(),
            message,
            shares_key: false,
        }
    }

    /// How to find a row that cannot be encoded again: by its key, encoded where that can be. A row of a keyless table
    /// by its content, and so is one with NULL in its key.
    fn source_key<R: LocalRow>(&mut self, plan: &TablePlan, row: &R, digest: &RowDigest) -> SourceKey {
        if plan.schema.is_keyless() {
            return SourceKey::Raw(digest.0.to_vec());
        }
        match self.encoded_key(plan, row) {
            Some(key) => SourceKey::Encoded(key.to_vec()),
            None => {
                let mut raw = Vec::new();
                put_order(plan, row, &mut raw);
                if read_raw(&raw).is_some_and(|values| values.iter().any(RawValue::is_null)) {
                    // SQLite takes any number of rows with NULL in the key: their content tells them apart.
                    raw.extend_from_slice(&digest.0);
                    return SourceKey::Long(SourceKey::Raw(raw).id());
                }
                SourceKey::Raw(raw)
            }
        }
    }

    /// The key of a row of the plan's columns, encoded; `None` where it cannot be.
    pub fn encoded_key<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> Option<&[u8]> {
        let places = plan.schema.key_indexes().iter().map(|place| (*place, *place));
        write_columns(&mut self.key, &mut self.scratch, plan, places, true, row)
            .then_some(self.key.as_slice())
    }

    /// A keyed digest of the values as the database has them: as a row whose column numbers tell the class of each too.
    pub fn source_digest<R: LocalRow>(&mut self, plan: &TablePlan, row: &R) -> RowDigest {
        self.form.clear();
        let mut writer = RowWriter::new(&mut self.form);
        for place in 0..plan.columns.len() {
            self.raw.clear();
            let class = row.raw(place, &mut self.raw);
            if class > 0 {
                let number = u32::try_from(place).unwrap_or(u32::MAX / 16 - 1).saturating_mul(16);
                writer.field(number + u32::from(class), &Value::Bytea(&self.raw));
            }
        }
        self.digester.digest_of_form(&self.form)
    }
}

/// Appends the values of the plan's order as the database has them.
pub fn put_order<R: LocalRow>(plan: &TablePlan, row: &R, out: &mut Vec<u8>) {
    plan.order.iter().for_each(|place| put_raw(out, |out| row.raw(*place, out)));
}

/// A value that its column stores exactly, converted where that is said; `None` is NULL. Not for constants.
#[inline(always)]
fn checked<'v, R: LocalRow>(
    row: &'v R,
    place: usize,
    column: &Column,
    origin: &Origin,
    buffers: &'v mut Buffers,
) -> Result<Option<Adapted<'v>>> {
    let value = match origin {
        Origin::Column(None) => row
            .value(place, &column.column_type, &mut buffers.value)?
            .map(|value| Adapted { value, lossy: false }),
        Origin::Column(Some(conversion)) => converted(row, place, column, *conversion, buffers)?,
        Origin::Constant { .. } | Origin::Absent => None,
    };
    if let Some(Adapted { value, .. }) = &value {
        column.column_type.check(value)?;
    }
    Ok(value)
}

fn converted<'v, R: LocalRow>(
    row: &'v R,
    place: usize,
    column: &Column,
    conversion: Conversion,
    buffers: &'v mut Buffers,
) -> Result<Option<Adapted<'v>>> {
    let (first, other) = conversion.read_as(&column.column_type);
    let Buffers { value: scratch, converted } = buffers;
    // What it is read as is found out before: a value that is borrowed cannot be tried twice.
    let read_as = match (row.value(place, &first, scratch), other) {
        (Err(_), Some(other)) => other,
        _ => first,
    };
    match row.value(place, &read_as, scratch)? {
        Some(value) => conversion.apply(value, &column.column_type, converted).map(Some),
        None => Ok(None),
    }
}

/// Writes some columns of a row in digest form in place of what `out` holds; `places` tells where each stands in the row,
/// and among the plan's columns. Whether they can be encoded: NULL cannot where `all` are needed.
fn write_columns<R: LocalRow>(
    out: &mut Vec<u8>,
    scratch: &mut Buffers,
    plan: &TablePlan,
    places: impl Iterator<Item = (usize, usize)>,
    all: bool,
    row: &R,
) -> bool {
    out.clear();
    for (in_row, place) in places {
        let (column, origin) = (&plan.schema.columns()[place], &plan.columns[place].origin);
        if let Origin::Constant { form, .. } = origin {
            out.extend_from_slice(form);
            continue;
        }
        match checked(row, in_row, column, origin, scratch) {
            Ok(Some(Adapted { value, .. })) => {
                if RowWriter::new(out).digest_field(column.number, &value).is_err() {
                    return false;
                }
            }
            Ok(None) if !all => {}
            _ => return false,
        }
    }
    true
}

/// The key for people; the whole row where there is none.
pub fn key_text<R: LocalRow>(plan: &TablePlan, row: &R) -> String {
    let mut object = Map::new();
    for place in plan.shown().take(MOST_SHOWN) {
        object.insert(plan.columns[place].name.clone(), row.shown(place));
    }
    Json::Object(object).to_string()
}
