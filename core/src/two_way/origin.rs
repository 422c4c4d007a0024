//! What an act is about, and what is remembered where it is done or refused.

use super::decide::{Decision, Verdict};
use crate::reconcile::Side;
use crate::store::{
    Base, Change, ColumnDigests, MemoryEntry, MemoryKey, Open, OpenKind, Reason, Record, Seen, Settle,
    SourceRow,
};

/// The key an act is about, as it was decided upon.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub key: MemoryKey,
    pub encoded_key: Option<Vec<u8>>,
    pub local: Seen,
    pub remote: Seen,
    pub base: Option<Base>,
    pub open: Option<Open>,
    /// Whether a person decided of it: then the remote side has a record, whatever is remembered here. `Some(true)`: of
    /// what both sides have now, and the record is open still.
    pub chosen: Option<bool>,
    pub decision: Decision,
}

impl Origin {
    /// What to remember where both sides have `base` from now on.
    pub fn agreed(&self, base: Option<Base>) -> Settle {
        let entry = MemoryEntry { key: self.key, base, open: None };
        Settle { entry, closes: self.open.is_some() || self.chosen.is_some() }
    }

    /// The same key once the remote side has the merged row, and the local side what it merged.
    pub fn after(&self, (_, settle): &(Change, Settle)) -> Origin {
        let merged = settle.entry.base.as_ref().map(|base| base.digest);
        let base = self.local.digest().map(|digest| Base { digest, columns: ColumnDigests::new() });
        let decision = Verdict::Copy(Side::Remote).into();
        Origin { remote: merged.into(), base, open: None, chosen: None, decision, ..self.clone() }
    }

    /// Recording that the key is left as it is; `None` where that is recorded. Where a person decided otherwise it is
    /// recorded once more, with the reason why that could not be done.
    pub fn left(
        &self,
        kind: OpenKind,
        local_row: Option<SourceRow>,
        reason: Option<Reason>,
    ) -> Option<(Record, Settle)> {
        let open = Open { kind, local: self.local, remote: self.remote };
        if self.open == Some(open) && self.chosen.is_none() {
            return None;
        }
        // Where it is unknown who changed it nothing is left of what both had.
        let base = self.base.clone().filter(|_| kind != OpenKind::Undecided);
        let record = Record {
            key: self.key,
            encoded_key: self.encoded_key.clone(),
            kind,
            local: self.local,
            remote: self.remote,
            local_row,
            base: base.as_ref().map(|base| base.digest),
            reason: reason.map(Reason::shortened),
        };
        let entry = MemoryEntry { key: self.key, base, open: Some(open) };
        Some((record, Settle { entry, closes: false }))
    }
}

/// A record that another batch brings, of what was refused in an earlier one.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    pub record: Record,
    pub settle: Settle,
    pub origin: Origin,
}
