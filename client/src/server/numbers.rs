//! Numbers of uploads. By its number the server knows an upload that it did, where the answer was lost: rows of a
//! keyless table are added once.

use std::collections::HashMap;

use plimsoll_core::store::{FailureKind, Outcome, SourceRow, TableId, Uploaded};

use super::parts::Parts;

/// The numbers of one run's uploads, counted for each table.
#[derive(Debug, Default)]
pub struct Numbers(HashMap<TableId, Numbered>);

#[derive(Debug, Default)]
struct Numbered {
    last: i64,
    /// What came of the parts of an upload of which a later part failed in passing.
    answered: Vec<Outcome<Uploaded>>,
}

impl Numbers {
    /// Has rows stored by `store`, in the parts that `parts` makes of them, each with the next number. After a failure in
    /// passing the same rows must come again: the parts that were answered are not stored again, and the one that failed
    /// has its number again.
    ///
    /// # Errors
    /// As `store`.
    pub fn upload(
        &mut self,
        table: TableId,
        rows: &[SourceRow],
        parts: &mut Parts,
        store: &mut dyn FnMut(&[SourceRow], i64) -> Outcome<Uploaded>,
    ) -> Outcome<Uploaded> {
        let numbered = self.0.entry(table).or_default();
        let mut before = std::mem::take(&mut numbered.answered).into_iter();
        let mut answered = Vec::new();
        // What is learnt of sizes counts when all parts are stored, so that they are the same ones when tried again.
        let mut trial = *parts;
        let outcome = trial.upload(rows, &mut |rows| {
            let outcome = before.next().unwrap_or_else(|| {
                let outcome = store(rows, numbered.last + 1);
                numbered.last += i64::from(!is_passing(&outcome));
                outcome
            });
            if !is_passing(&outcome) {
                answered.push(outcome.clone());
            }
            outcome
        });
        if is_passing(&outcome) {
            numbered.answered = answered;
        } else {
            *parts = trial;
        }
        outcome
    }
}

fn is_passing<T>(outcome: &Outcome<T>) -> bool {
    outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Passing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::digest::RowDigest;
    use plimsoll_core::manifest::Item;
    use plimsoll_core::store::Failure;

    fn rows(count: usize) -> Vec<SourceRow> {
        let row = |place: usize| SourceRow {
            item: Item { position: place as i64, digest: RowDigest([0; 32]) },
            key: Vec::new(),
            row: vec![place as u8; 10],
        };
        (0..count).map(row).collect()
    }

    fn passing() -> Failure {
        Failure::new(FailureKind::Passing, "connection lost")
    }

    #[test]
    fn an_upload_that_failed_in_passing_has_its_number_again() {
        let (mut numbers, mut parts) = (Numbers::default(), Parts::default());
        let mut sent = Vec::new();
        for (table, fails) in [(0, false), (0, true), (0, true), (0, false), (1, false), (0, false)] {
            let outcome = numbers.upload(table, &rows(3), &mut parts, &mut |_, number| {
                sent.push((table, number));
                if fails { Err(passing()) } else { Ok(Uploaded { inserted: 3, ..Uploaded::default() }) }
            });
            assert_eq!(outcome.is_err(), fails);
        }
        assert_eq!(sent, [(0, 1), (0, 2), (0, 2), (0, 2), (1, 1), (0, 3)]);
    }

    #[test]
    fn parts_that_were_stored_are_not_stored_again() {
        let (mut numbers, mut parts) = (Numbers::default(), Parts::default());
        let mut sent: Vec<(usize, u8, i64)> = Vec::new();
        let mut failures = 1;
        let mut store = |rows: &[SourceRow], number: i64| {
            sent.push((rows.len(), rows[0].row[0], number));
            if rows.len() > 2 {
                let failure = Failure::new(FailureKind::Table, "too large");
                return Err(Failure { sqlstate: Some("54000".to_owned()), ..failure });
            }
            if rows[0].row[0] == 4 && failures > 0 {
                failures -= 1;
                return Err(passing());
            }
            Ok(Uploaded { inserted: rows.len() as u64, ..Uploaded::default() })
        };
        let first = numbers.upload(0, &rows(8), &mut parts, &mut store);
        assert!(is_passing(&first));
        let again = numbers.upload(0, &rows(8), &mut parts, &mut store).expect("stored");
        assert_eq!(again.inserted, 8);
        // Too large as a whole and in halves; each quarter once, but for the one that failed.
        assert_eq!(sent, [(8, 0, 1), (4, 0, 2), (2, 0, 3), (2, 2, 4), (2, 4, 5), (2, 4, 5), (2, 6, 6)]);
    }
}
