//! What is recorded of rows that are not stored.

use crate::store::{BadRow, Refusal, Rejected, Rejection, SourceKey, SourceRow};

/// Of a row that the target refused.
pub fn refused(row: SourceRow, refusal: Refusal) -> Rejection {
    let key = SourceKey::Encoded(row.key);
    Rejection {
        rejected: Rejected {
            key_id: key.id(),
            key,
            source_digest: row.item.digest,
            position: Some(row.item.position),
            waits: refusal.waits,
        },
        key_text: refusal.key_text,
        sqlstate: refusal.sqlstate,
        column: refusal.column,
        message: refusal.message,
    }
}

/// Of a row that no encoding holds.
pub fn unreadable(bad: BadRow) -> Rejection {
    Rejection {
        rejected: Rejected {
            key_id: bad.key.id(),
            key: bad.key,
            source_digest: bad.source_digest,
            position: bad.position,
            waits: false,
        },
        key_text: bad.key_text,
        sqlstate: bad.sqlstate,
        column: bad.column,
        message: bad.message,
    }
}
