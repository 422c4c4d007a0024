//! Finding rows again: by manifest item, and by key.
//!
//! An encoded key may be spelled in several ways locally (a uuid in capitals, 1.50 for 1.5), and a
//! collation may find other rows than the key means. So likely spellings are looked up by index, what is
//! found is encoded and compared, and only keys that stay unfound and might be spelled otherwise cost one
//! pass over the table's keys, for all of them together.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use plimsoll_core::manifest::Item;
use plimsoll_core::row::{Field, Fields, put_field};
use plimsoll_core::store::{KeyId, PositionRange, SourceKey, SourceRecord, SourceRow};

use super::encode::{Encoded, Encoder, key_text, put_order};
use super::{Reader, Step, all_rows};
use crate::source::kind::{Kind, LocalRow};
use crate::source::plan::Origin;
use crate::source::query::{Condition, Query, RawValue, Select, put_raw, read_raw};

/// The most spellings of one key that are looked up.
const MOST_SPELLINGS: usize = 16;

/// A row that was found by its key.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    pub record: SourceRecord,
    /// Its own key.
    pub raw: Vec<u8>,
    /// The same for people, where another row's may become the same.
    pub shown: String,
}

impl<K: Kind> Reader<'_, K> {
    pub(super) fn rows_of(&mut self, items: &[Item]) -> Step<Vec<SourceRow>> {
        let (table, plan) = (self.table, self.plan);
        let mut positions: Vec<i64> = items.iter().map(|item| item.position).collect();
        positions.sort_unstable();
        positions.dedup();
        // Equal rows of a keyless table are as many items.
        let mut wanted: HashMap<&Item, u64> = HashMap::with_capacity(items.len());
        items.iter().for_each(|item| *wanted.entry(item).or_default() += 1);
        let mut found = Vec::with_capacity(items.len());
        let is_found = self.kind.finds_positions(table, plan)?;
        let mut take = |encoder: &mut Encoder, row: &K::Row<'_>| {
            if !is_found {
                let position = encoder.position(plan, row);
                if position.is_none_or(|position| positions.binary_search(&position).is_err()) {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            if let Encoded::Good(position) = encoder.encode(plan, row) {
                let item = encoder.item(position);
                if let Some(left) = wanted.get_mut(&item).filter(|left| **left > 0) {
                    *left -= 1;
                    found.push(encoder.take_row(item));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        match is_found {
            true => {
                for range in stretches(&positions) {
                    let query = Query { condition: Condition::At(range), ..all_rows(table, plan) };
                    self.each(&query, &mut take)?;
                }
            }
            false if items.is_empty() => {}
            false => self.each_of_all(&mut take)?,
        }
        Ok(found)
    }

    pub(super) fn lookup(&mut self, keys: &[SourceKey]) -> Step<Vec<Option<SourceRecord>>> {
        if self.plan.schema.is_keyless() {
            return self.lookup_content(keys);
        }
        let mut hits = self.find(keys)?;
        self.mark_doubles(keys, &mut hits)?;
        let mut found: Vec<_> = hits.into_iter().map(|hit| hit.map(|hit| hit.record)).collect();
        let is_long = |key: &SourceKey| matches!(key, SourceKey::Long(_));
        let (places, long): (Vec<usize>, Vec<SourceKey>) =
            keys.iter().cloned().enumerate().filter(|(_, key)| is_long(key)).unzip();
        if !long.is_empty() {
            for (place, record) in places.into_iter().zip(self.lookup_content(&long)?) {
                found[place] = record;
            }
        }
        Ok(found)
    }

    /// The rows with these keys. Of several that share an encoded key one in a likely spelling, else the one that is sent.
    fn find(&mut self, keys: &[SourceKey]) -> Step<Vec<Option<Hit>>> {
        let mut found: Vec<Option<Hit>> = Vec::with_capacity(keys.len());
        let mut unfound: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (i, key) in keys.iter().enumerate() {
            found.push(match key {
                SourceKey::Raw(raw) => match read_raw(raw) {
                    Some(values) => self.by_values(&values, |_, row_key| row_key == raw)?,
                    None => None,
                },
                SourceKey::Encoded(key) => {
                    let (spellings, all) = self.spellings(key);
                    let mut hit = None;
                    for values in &spellings {
                        hit = self.by_values(values, |encoded, _| encoded == Some(key))?;
                        if hit.is_some() {
                            break;
                        }
                    }
                    if hit.is_none() && !all {
                        unfound.entry(key).or_default().push(i);
                    }
                    hit
                }
                SourceKey::Long(_) => None,
            });
        }
        if unfound.is_empty() {
            return Ok(found);
        }
        let asked = unfound.keys().copied().collect();
        for (key, raws) in self.search(&asked)? {
            let hit = self.best_first(raws)?.into_iter().next();
            for i in unfound.get(key.as_slice()).into_iter().flatten() {
                found[*i].clone_from(&hit);
            }
        }
        Ok(found)
    }

    /// The rows with these keys, from one pass over all rows.
    fn lookup_content(&mut self, keys: &[SourceKey]) -> Step<Vec<Option<SourceRecord>>> {
        let plan = self.plan;
        let mut places: HashMap<KeyId, Vec<usize>> = HashMap::new();
        keys.iter().enumerate().for_each(|(i, key)| places.entry(key.id()).or_default().push(i));
        let mut found = vec![None; keys.len()];
        self.each_of_all(|encoder, row| {
            let record = encoder.record(plan, row);
            let id = match &record {
                SourceRecord::Row(row) => SourceKey::Encoded(row.key.clone()).id(),
                SourceRecord::Bad(bad) => bad.key.id(),
            };
            if let Some(asked) = places.remove(&id) {
                asked.into_iter().for_each(|i| found[i] = Some(record.clone()));
            }
            Ok(if places.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// The row whose key columns equal `values` in the database's terms and which `is_it` accepts, given its
    /// encoded and its raw key.
    pub(super) fn by_values(
        &mut self,
        values: &[RawValue],
        is_it: impl Fn(Option<&Vec<u8>>, &Vec<u8>) -> bool,
    ) -> Step<Option<Hit>> {
        let (table, plan) = (self.table, self.plan);
        if values.len() != plan.order.len() {
            return Ok(None);
        }
        let query = Query { condition: Condition::Key(values), ..all_rows(table, plan) };
        let tells_apart = self.tells_apart();
        let mut found = None;
        let mut raw = Vec::new();
        self.each(&query, |encoder, row| {
            raw.clear();
            put_order(plan, row, &mut raw);
            let record = encoder.record(plan, row);
            let encoded = match &record {
                SourceRecord::Row(row) => Some(&row.key),
                SourceRecord::Bad(bad) => match &bad.key {
                    SourceKey::Encoded(key) => Some(key),
                    SourceKey::Raw(_) | SourceKey::Long(_) => None,
                },
            };
            if is_it(encoded, &raw) {
                let shown = if tells_apart { String::new() } else { key_text(plan, row) };
                found = Some(Hit { record, raw: std::mem::take(&mut raw), shown });
                return Ok(ControlFlow::Break(()));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Local spellings of an encoded key, and whether these are all there can be.
    pub(super) fn spellings(&self, key: &[u8]) -> (Vec<Vec<RawValue>>, bool) {
        let schema = &self.plan.schema;
        let mut complete = true;
        let mut by_column = Vec::new();
        for (field, place) in Fields::new(key).zip(schema.key_indexes()) {
            // A number's digest form lacks its scale, so it is read by nobody: all keys are looked through.
            let Ok(field) = field else { return (Vec::new(), false) };
            let (values, all) = match &self.plan.columns[*place].origin {
                // The same in all rows: there is no key with another.
                Origin::Constant { form, .. } if *form == digest_form_of(&field) => (Vec::new(), true),
                Origin::Constant { .. } => return (Vec::new(), true),
                Origin::Column(None) => {
                    let (values, all) = self.kind.spellings(self.table, self.plan, *place, &field.value);
                    (values, all && self.kind.tells_apart(self.plan, *place))
                }
                Origin::Column(Some(_)) | Origin::Absent => (Vec::new(), false),
            };
            complete &= all;
            by_column.push(values);
        }
        let mut combinations = vec![Vec::new()];
        // The encoded key has the order of column numbers, the local key its own.
        for place in &self.plan.order {
            let at = schema.key_indexes().iter().position(|other| other == place);
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

    /// One pass over all keys: the own keys of the rows that have these encoded ones.
    pub(super) fn search(&mut self, asked: &HashSet<&[u8]>) -> Step<HashMap<Vec<u8>, Vec<Vec<u8>>>> {
        let (table, plan) = (self.table, self.plan);
        let query = Query { select: Select::Key, ..all_rows(table, plan) };
        let places = plan.schema.key_indexes();
        let mut hits: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        self.each(&query, |encoder, row| {
            if let Some(key) = encoder.key_alone(plan, row).filter(|key| asked.contains(key)) {
                let mut raw = Vec::new();
                for place in &plan.order {
                    let at = places.iter().position(|other| other == place).unwrap_or(0);
                    put_raw(&mut raw, |out| row.raw(at, out));
                }
                hits.entry(key.to_vec()).or_default().push(raw);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(hits)
    }
}

/// A field of a key in digest form, as it stands there.
fn digest_form_of(field: &Field<'_>) -> Vec<u8> {
    let mut form = Vec::new();
    match put_field(&mut form, field) {
        Ok(()) => form,
        Err(_) => Vec::new(),
    }
}

/// Runs of consecutive positions.
pub(super) fn stretches(positions: &[i64]) -> Vec<PositionRange> {
    let mut stretches: Vec<PositionRange> = Vec::new();
    for position in positions {
        let to = position.checked_add(1);
        match stretches.last_mut() {
            Some(last) if last.to == Some(*position) => last.to = to,
            _ => stretches.push(PositionRange { from: Some(*position), to }),
        }
    }
    stretches
}
