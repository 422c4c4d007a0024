//! Uploads that the server takes only in parts: how large they may be is set there, and not told.

use plimsoll_core::store::{Failure, Outcome, Refusal, SourceRow, Uploaded};

use super::agent::to_hex;

/// SQLSTATE of what exceeds a limit of the server's.
const TOO_LARGE: &str = "54000";

/// What is known of the server's limit.
#[derive(Debug, Clone, Copy)]
pub struct Parts {
    /// Bytes of rows that are sent at once.
    most_bytes: usize,
}

impl Default for Parts {
    fn default() -> Self {
        Parts { most_bytes: usize::MAX }
    }
}

impl Parts {
    /// Has rows stored by `store`, in halves and in halves of these where the server finds them too large. A row that
    /// is too large by itself is refused.
    ///
    /// # Errors
    /// As `store`: the rows of some parts may be stored then.
    pub fn upload(
        &mut self,
        rows: &[SourceRow],
        store: &mut dyn FnMut(&[SourceRow]) -> Outcome<Uploaded>,
    ) -> Outcome<Uploaded> {
        let (first, second) = rows.split_at(rows.len() / 2);
        let is_tried = first.is_empty() || bytes(rows) <= self.most_bytes;
        if is_tried {
            match (store(rows), rows) {
                (Err(failure), [row]) if is_too_large(&failure) => return Ok(refused(row, failure)),
                (Err(failure), [_, _, ..]) if is_too_large(&failure) => {}
                (outcome, _) => return outcome,
            }
        }
        let mut uploaded = self.upload(first, store)?;
        let more = self.upload(second, store)?;
        uploaded.inserted += more.inserted;
        uploaded.updated += more.updated;
        uploaded.unchanged += more.unchanged;
        uploaded.held += more.held;
        let at = |refusal: Refusal| Refusal { ordinal: refusal.ordinal + first.len(), ..refusal };
        uploaded.refused.extend(more.refused.into_iter().map(at));
        // One row that is too large says nothing of how many others may be sent at once. Rows that were not tried together say
        // nothing either, and parts that are a little larger than these may do.
        if is_tried && uploaded.refused.iter().all(|refusal| refusal.sqlstate != TOO_LARGE) {
            let taken = bytes(first).max(bytes(second));
            self.most_bytes = self.most_bytes.min(taken + taken / 16);
        }
        Ok(uploaded)
    }
}

fn bytes(rows: &[SourceRow]) -> usize {
    rows.iter().map(|row| row.row.len()).sum()
}

/// Whether a question or its answer exceeds a limit of the server's.
pub fn is_too_large(failure: &Failure) -> bool {
    failure.sqlstate.as_deref() == Some(TOO_LARGE)
}

fn refused(row: &SourceRow, failure: Failure) -> Uploaded {
    let refusal = Refusal {
        ordinal: 0,
        waits: false,
        holder: None,
        sqlstate: TOO_LARGE.to_owned(),
        column: None,
        key_text: format!("\\x{}", to_hex(&row.key)),
        message: failure.message,
    };
    Uploaded { refused: vec![refusal], ..Uploaded::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::digest::RowDigest;
    use plimsoll_core::manifest::Item;
    use plimsoll_core::store::FailureKind;

    fn rows(lengths: &[usize]) -> Vec<SourceRow> {
        let row = |(place, length): (usize, &usize)| SourceRow {
            item: Item { position: place as i64, digest: RowDigest([0; 32]) },
            key: vec![place as u8],
            row: vec![0; *length],
        };
        lengths.iter().enumerate().map(row).collect()
    }

    /// Sends rows to a server that takes so many bytes: what it answers, and how many it was sent each time.
    fn upload(parts: &mut Parts, rows: &[SourceRow], limit: usize) -> (Uploaded, Vec<usize>) {
        let mut sent = Vec::new();
        let mut store = |rows: &[SourceRow]| {
            sent.push(rows.len());
            if bytes(rows) <= limit {
                return Ok(Uploaded { inserted: rows.len() as u64, ..Uploaded::default() });
            }
            let failure = Failure::new(FailureKind::Table, "an upload too large");
            Err(Failure { sqlstate: Some(TOO_LARGE.to_owned()), ..failure })
        };
        let uploaded = parts.upload(rows, &mut store).expect("uploaded");
        (uploaded, sent)
    }

    #[test]
    fn what_is_too_large_is_sent_in_parts_and_at_once_the_next_time() {
        let mut parts = Parts::default();
        let rows = rows(&[10; 16]);
        let (uploaded, sent) = upload(&mut parts, &rows, 40);
        assert_eq!((uploaded.inserted, sent), (16, vec![16, 8, 4, 4, 4, 4]));
        let (uploaded, sent) = upload(&mut parts, &rows, 40);
        assert_eq!((uploaded.inserted, sent), (16, vec![4; 4]));
    }

    #[test]
    fn rows_that_grow_a_little_are_not_sent_in_ever_smaller_parts() {
        let mut parts = Parts::default();
        let lengths: Vec<usize> = (0..1_024).map(|nth| 100 + nth / 40).collect();
        let (uploaded, sent) = upload(&mut parts, &rows(&lengths), 10_000);
        assert_eq!(uploaded.inserted, 1_024);
        assert!(sent.len() < 40, "{sent:?}");
    }

    #[test]
    fn a_row_too_large_by_itself_is_refused_and_none_beside_it() {
        let mut parts = Parts::default();
        let rows = rows(&[10, 10, 10, 10, 10, 500, 10, 10]);
        let (uploaded, _) = upload(&mut parts, &rows, 100);
        assert_eq!(uploaded.inserted, 7);
        let refused: Vec<_> =
            uploaded.refused.iter().map(|row| (row.ordinal, row.sqlstate.as_str())).collect();
        assert_eq!(refused, [(5, TOO_LARGE)]);
        assert_eq!(upload(&mut parts, &rows[..4], 100).1, [4], "others go together as before");
    }

    #[test]
    fn other_failures_are_told() {
        let failing = |_: &[SourceRow]| Err(Failure::new(FailureKind::Passing, "connection lost"));
        assert!(Parts::default().upload(&rows(&[1, 1]), &mut { failing }).is_err());
        assert!(Parts::default().upload(&[], &mut { failing }).is_err());
    }
}
