//! Rows whose keys differ in the local database alone: 1.0 and 1.00 as text for a numeric column, `a` and `a ` for
//! char(n). The managed table has room for one of them. It is always the same one that is sent; the others are told as bad
//! rows, each with its own key and that of the row in its place.

use std::collections::{HashMap, HashSet};

use plimsoll_core::store::{BadRow, SourceKey, SourceRecord};

use super::find::Hit;
use super::{Reader, Step};
use crate::source::kind::Kind;
use crate::source::plan::Origin;
use crate::source::query::read_raw;

impl<K: Kind> Reader<'_, K> {
    /// Whether two local keys are always two keys of the managed table.
    pub(super) fn tells_apart(&self) -> bool {
        let plan = self.plan;
        plan.schema.is_keyless()
            || plan.schema.key_indexes().iter().all(|place| match &plan.columns[*place].origin {
                Origin::Column(None) => self.kind.tells_apart(plan, *place),
                Origin::Column(Some(_)) => false,
                Origin::Constant { .. } | Origin::Absent => true,
            })
    }

    /// The rows that share one of these encoded keys with others, those that are sent among them.
    pub(super) fn sharing(&mut self, keys: &[SourceKey]) -> Step<Vec<SourceRecord>> {
        if self.tells_apart() {
            return Ok(Vec::new());
        }
        let encoded = keys.iter().filter_map(|key| match key {
            SourceKey::Encoded(key) => Some(key.as_slice()),
            SourceKey::Raw(_) | SourceKey::Long(_) => None,
        });
        let asked: HashSet<&[u8]> = encoded.collect();
        let mut sharing = Vec::new();
        for (_, raws) in self.search(&asked)?.into_iter().filter(|(_, raws)| raws.len() > 1) {
            let mut hits = self.best_first(raws)?.into_iter();
            let Some(sent) = hits.next() else { continue };
            sharing.extend(hits.map(|other| double_of(other, &sent)));
            sharing.push(sent.record);
        }
        Ok(sharing)
    }

    /// The rows with these own keys, which share an encoded one: the row that is sent first. It is the latest, by its
    /// position, so that no version goes back; where rows stand at a hash, the one whose own key is the least. A row that
    /// no encoding holds comes before the others: it is looked for by the same key.
    pub(super) fn best_first(&mut self, raws: Vec<Vec<u8>>) -> Step<Vec<Hit>> {
        let mut hits = Vec::with_capacity(raws.len());
        for raw in raws {
            let values = read_raw(&raw).unwrap_or_default();
            hits.extend(self.by_values(&values, |_, row_key| *row_key == raw)?);
        }
        let rank = |hit: &Hit| match &hit.record {
            SourceRecord::Bad(bad) => (true, bad.position),
            SourceRecord::Row(row) => (false, Some(row.item.position)),
        };
        hits.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.raw.cmp(&b.raw)));
        Ok(hits)
    }

    /// Of the rows that were found by their own keys, those in whose place another one is sent become bad rows.
    pub(super) fn mark_doubles(&mut self, asked: &[SourceKey], hits: &mut [Option<Hit>]) -> Step<()> {
        if self.tells_apart() {
            return Ok(());
        }
        let mut places: Vec<(usize, Vec<u8>)> = Vec::new();
        for (place, (asked, hit)) in asked.iter().zip(hits.iter()).enumerate() {
            if let (SourceKey::Raw(_), Some(Hit { record: SourceRecord::Row(row), .. })) = (asked, hit) {
                places.push((place, row.key.clone()));
            }
        }
        if places.is_empty() {
            return Ok(());
        }
        let keys = places.iter().map(|(_, key)| key.as_slice()).collect();
        let mut sent: HashMap<Vec<u8>, Hit> = HashMap::new();
        for (key, raws) in self.search(&keys)?.into_iter().filter(|(_, raws)| raws.len() > 1) {
            sent.extend(self.best_first(raws)?.into_iter().next().map(|hit| (key, hit)));
        }
        for (place, key) in &places {
            let (Some(hit), Some(sent)) = (hits[*place].as_mut(), sent.get(key)) else { continue };
            if hit.raw != sent.raw {
                hit.record = double_of(hit.clone(), sent);
            }
        }
        Ok(())
    }
}

/// A row that is not sent because `sent` has its key.
fn double_of(row: Hit, sent: &Hit) -> SourceRecord {
    let SourceRecord::Row(encoded) = row.record else { return row.record };
    let message = format!(
        "its key {} is the same to the managed table as {}, the key of another row, which is in its place: change or \
         delete one of the two rows, or let the managed column be of a type that tells them apart",
        row.shown, sent.shown
    );
    SourceRecord::Bad(Box::new(BadRow {
        position: Some(encoded.item.position),
        key: SourceKey::Raw(row.raw),
        key_text: row.shown,
        source_digest: encoded.item.digest,
        column: None,
        sqlstate: "23505".to_owned(),
        message,
        shares_key: true,
    }))
}
