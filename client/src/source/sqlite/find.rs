//! Finding rows again: by manifest item, and by key.
//!
//! An encoded key may be spelled in several ways locally (a uuid in capitals, 1.50 for 1.5), and a
//! collation may find other rows than the key means. So likely spellings are looked up by index, what is
//! found is encoded and compared, and only keys that stay unfound and might be spelled otherwise cost one
//! pass over the table's keys, for all of them together.

use std::collections::{HashMap, HashSet};

use plimsoll_core::manifest::Item;
use plimsoll_core::row::Fields;
use plimsoll_core::store::{PositionRange, SourceKey, SourceRecord, SourceRow};
use plimsoll_core::value::{Value, datetime};
use rusqlite::params_from_iter;

use super::encode::{Encoded, raw_key, value_at};
use super::raw::{RawValue, put_raw, read_raw};
use super::schema::quoted;
use super::{Reader, Step};

/// The most spellings of one key that are looked up.
const MOST_SPELLINGS: usize = 16;

impl Reader<'_> {
    pub(super) fn rows_of(&mut self, items: &[Item]) -> Step<Vec<SourceRow>> {
        let wanted: HashSet<&Item> = items.iter().collect();
        let mut positions: Vec<i64> = items.iter().map(|item| item.position).collect();
        positions.sort_unstable();
        positions.dedup();
        let mut found = Vec::with_capacity(items.len());
        for (first, last) in stretches(&positions, !self.has_index()) {
            let range = PositionRange { from: Some(first), to: last.checked_add(1) };
            let (table, version) = self.names();
            let (condition, bounds) = self.conditions(range);
            let sql = format!(
                "SELECT {} FROM {table} WHERE {condition} ORDER BY {version}",
                self.plan.select_list()
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(&bounds))?;
            while let Some(row) = rows.next()? {
                if let Encoded::Good(position) = self.encoder.encode(self.plan, row)? {
                    let item = self.encoder.item(position);
                    if wanted.contains(&item) {
                        found.push(self.encoder.take_row(item));
                    }
                }
            }
        }
        Ok(found)
    }

    pub(super) fn lookup(&mut self, keys: &[SourceKey]) -> Step<Vec<Option<SourceRecord>>> {
        let mut found: Vec<Option<SourceRecord>> = Vec::with_capacity(keys.len());
        let mut unfound: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (i, key) in keys.iter().enumerate() {
            found.push(match key {
                SourceKey::Raw(raw) => match read_raw(raw) {
                    Some(values) => self.by_values(&values, |_, row_key| row_key == raw)?,
                    None => None,
                },
                SourceKey::Encoded(key) => {
                    let (spellings, all) = self.spellings(key);
                    let mut record = None;
                    for values in &spellings {
                        record = self.by_values(values, |encoded, _| encoded == Some(key))?;
                        if record.is_some() {
                            break;
                        }
                    }
                    if record.is_none() && !all {
                        unfound.entry(key).or_default().push(i);
                    }
                    record
                }
            });
        }
        if !unfound.is_empty() {
            self.search(&unfound, &mut found)?;
        }
        Ok(found)
    }

    /// The row whose key columns equal `values` in SQLite's terms and which `is_it` accepts, given its
    /// encoded and its raw key.
    fn by_values(
        &mut self,
        values: &[RawValue],
        is_it: impl Fn(Option<&Vec<u8>>, &Vec<u8>) -> bool,
    ) -> Step<Option<SourceRecord>> {
        if values.len() != self.plan.key_order.len() {
            return Ok(None);
        }
        let (table, _) = self.names();
        let conditions: Vec<String> = self
            .plan
            .key_columns()
            .zip(values)
            .enumerate()
            .map(|(i, (name, value))| match value {
                RawValue::Null => format!("{} IS ?{}", quoted(name), i + 1),
                _ => format!("{} = ?{}", quoted(name), i + 1),
            })
            .collect();
        let sql =
            format!("SELECT {} FROM {table} WHERE {}", self.plan.select_list(), conditions.join(" AND "));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let record = self.encoder.record(self.plan, row)?;
            let encoded = match &record {
                SourceRecord::Row(row) => Some(&row.key),
                SourceRecord::Bad(bad) => match &bad.key {
                    SourceKey::Encoded(key) => Some(key),
                    SourceKey::Raw(_) => None,
                },
            };
            if is_it(encoded, &raw_key(self.plan, row)?) {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// Local spellings of an encoded key, and whether these are all there can be.
    fn spellings(&self, key: &[u8]) -> (Vec<Vec<RawValue>>, bool) {
        let mut complete = true;
        let mut by_column = Vec::new();
        for field in Fields::new(key) {
            // A number's digest form lacks its scale, so it is read by nobody: all keys are looked through.
            let Ok(field) = field else { return (Vec::new(), false) };
            let (values, all) = spellings_of(&field.value);
            // A char(n) may be padded locally.
            let padded = self.plan.schema.column(field.number).is_some_and(|column| {
                matches!(column.column_type, plimsoll_core::value::ColumnType::Char(_))
            });
            complete &= all && !padded;
            by_column.push(values);
        }
        let mut combinations = vec![Vec::new()];
        // The encoded key has the order of column numbers, the local key its own.
        let encoded_order = self.plan.schema.key_indexes();
        for place in &self.plan.key_order {
            let at = encoded_order.iter().position(|other| other == place);
            let Some(values) = at.and_then(|at| by_column.get(at)) else { return (Vec::new(), true) };
            combinations = combinations
                .iter()
                .flat_map(|start: &Vec<RawValue>| {
                    values.iter().map(move |value| [start.as_slice(), std::slice::from_ref(value)].concat())
                })
                .collect();
        }
        complete &= combinations.len() <= MOST_SPELLINGS;
        combinations.truncate(MOST_SPELLINGS);
        (combinations, complete)
    }

    /// One pass over all keys.
    fn search(
        &mut self,
        unfound: &HashMap<&[u8], Vec<usize>>,
        found: &mut [Option<SourceRecord>],
    ) -> Step<()> {
        let (table, _) = self.names();
        let places = self.plan.schema.key_indexes();
        let list: Vec<String> = places.iter().map(|place| quoted(&self.plan.columns[*place])).collect();
        let sql = format!("SELECT {} FROM {table}", list.join(", "));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query([])?;
        let mut hits = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(key) = self.encoder.key_alone(self.plan, row)? else { continue };
            let Some(asked) = unfound.get(key) else { continue };
            let mut raw = Vec::new();
            for place in &self.plan.key_order {
                let at = places.iter().position(|other| other == place).unwrap_or(0);
                put_raw(&mut raw, value_at(row, at)?);
            }
            hits.push((asked, raw));
        }
        for (asked, raw) in hits {
            let values = read_raw(&raw).unwrap_or_default();
            let record = self.by_values(&values, |_, row_key| *row_key == raw)?;
            for i in asked {
                found[*i].clone_from(&record);
            }
        }
        Ok(())
    }
}

/// Runs of consecutive positions, or all as one.
fn stretches(positions: &[i64], together: bool) -> Vec<(i64, i64)> {
    let mut stretches: Vec<(i64, i64)> = Vec::new();
    for position in positions {
        match stretches.last_mut() {
            Some((_, last)) if together || last.checked_add(1) == Some(*position) => *last = *position,
            _ => stretches.push((*position, *position)),
        }
    }
    stretches
}

/// How SQLite may hold a value of a key, and whether it can hold it in no other way.
fn spellings_of(value: &Value<'_>) -> (Vec<RawValue>, bool) {
    let text = |text: String| RawValue::Text(text.into_bytes());
    match value {
        // A REAL of the same number compares equal.
        Value::Int(number) => (vec![RawValue::Integer(*number)], true),
        Value::Text(text) | Value::Enum(text) | Value::Other(text) => {
            (vec![RawValue::Text(text.as_bytes().to_vec())], true)
        }
        Value::Bytea(bytes) => (vec![RawValue::Blob(bytes.to_vec())], true),
        Value::Bool(value) => (vec![RawValue::Integer(i64::from(*value))], true),
        Value::Float(number) => (vec![RawValue::Real(*number)], true),
        Value::Numeric(number) => {
            let written = number.to_string();
            let integer = written.parse().ok().map(RawValue::Integer);
            let spelled = integer.or_else(|| written.parse().ok().map(RawValue::Real));
            (spelled.into_iter().chain([text(written)]).collect(), false)
        }
        Value::Uuid(bytes) => {
            let uuid = uuid::Uuid::from_bytes(*bytes);
            let hyphenated = uuid.hyphenated().to_string();
            let values = vec![
                text(hyphenated.to_uppercase()),
                text(hyphenated),
                RawValue::Blob(bytes.to_vec()),
                text(uuid.simple().to_string()),
            ];
            (values, false)
        }
        Value::Date(days) => {
            let date = datetime::format_date(*days);
            (vec![text(format!("{date} 00:00:00")), text(date)], false)
        }
        Value::Time(micros) => (vec![text(datetime::format_time(*micros))], false),
        Value::Timestamp(micros) | Value::Timestamptz(micros) => {
            let stamp = datetime::format_timestamp(*micros);
            let iso = stamp.replacen(' ', "T", 1);
            (vec![text(format!("{iso}Z")), text(iso), text(stamp)], false)
        }
        _ => (Vec::new(), false),
    }
}
