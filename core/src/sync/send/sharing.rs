//! Rows that the source tells apart and whose keys are one once they are encoded.

use std::collections::HashSet;

use super::{Send, rejection};
use crate::manifest::Item;
use crate::store::SourceRecord;
use crate::sync::ledger::Ledger;

impl Send {
    /// Of the rows that share a key the one is sent, and the others are rejected.
    pub(super) fn choose(&mut self, sharing: Vec<SourceRecord>, ledger: &mut Ledger) {
        if sharing.is_empty() {
            return;
        }
        let keys = sharing.iter().filter_map(|record| match record {
            SourceRecord::Row(row) => Some(row.key.clone()),
            SourceRecord::Bad(_) => None,
        });
        let shared: HashSet<Vec<u8>> = keys.collect();
        let items: HashSet<Item> = sharing
            .iter()
            .filter_map(|record| match record {
                SourceRecord::Bad(bad) => bad.position.map(|position| (position, bad.source_digest)),
                SourceRecord::Row(_) => None,
            })
            .map(|(position, digest)| Item { position, digest })
            .collect();
        self.queue.retain(|record| match record {
            SourceRecord::Row(row) => !shared.contains(&row.key) && !items.contains(&row.item),
            SourceRecord::Bad(_) => true,
        });
        for record in sharing {
            ledger.note_found(&record);
            if ledger.unchanged(&record).is_some() {
                continue;
            }
            match record {
                SourceRecord::Row(_) => self.queue.push_back(record),
                SourceRecord::Bad(bad) => self.rejections.push(rejection::unreadable(*bad)),
            }
        }
    }
}
