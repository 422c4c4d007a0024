//! The last upload of a run to a table without a key. Its rows cannot be found again: an agent who got no answer sends
//! the same bytes under the same number, and is answered what was done then.

use pgrx::spi::Spi;
use plimsoll_core::digest::Digester;

use super::Done;
use crate::access::Database;
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::ManagedTable;

/// An upload that has a number.
pub struct Batch {
    database_id: pgrx::Uuid,
    table_id: i32,
    table_name: String,
    run_id: i64,
    number: i64,
    digest: Vec<u8>,
}

impl Batch {
    /// The upload of these bytes. The run's lease is renewed: no other upload of the run is under way.
    ///
    /// # Errors
    /// `BAD_ARGUMENT` without a run, or with a number below 1.
    pub fn new(
        database: &Database,
        table: &ManagedTable,
        run_id: Option<i64>,
        number: i64,
        bytes: &[u8],
    ) -> Answer<Batch> {
        let bad = |message: &str| Problem::new(state::BAD_ARGUMENT, message);
        let run_id = run_id.ok_or_else(|| {
            bad("batch_number without run_id")
                .hint("Numbers are remembered for a run: pass both, or neither.")
        })?;
        if number < 1 {
            return Err(bad(&format!("batch_number is {number}; it must be 1 or more")));
        }
        let digester = Digester::new(database.fingerprint_key.clone());
        Ok(Batch {
            database_id: database.id,
            table_id: table.table_id,
            table_name: table.name.clone(),
            run_id,
            number,
            digest: digester.digest_of_form(bytes).0.to_vec(),
        })
    }

    /// What came of it, where it was done before.
    ///
    /// # Errors
    /// `NOT_IN_STATE` where another upload was done under its number or a later one.
    pub fn known(&self) -> Answer<Option<Done>> {
        let found = identity::as_extension(|| {
            Spi::connect_mut(|client| {
                // Not by the caller's snapshot: what was committed since counts.
                let mut rows = client.update(
                    "SELECT u.batch_number, u.digest OPERATOR(pg_catalog.=) $3, u.inserted, u.fingerprint, u.rejected
                     FROM plimsoll.upload_record u
                     WHERE u.run_id OPERATOR(pg_catalog.=) $1 AND u.table_id OPERATOR(pg_catalog.=) $2 FOR UPDATE",
                    Some(1),
                    &[self.run_id.into(), self.table_id.into(), self.digest.clone().into()],
                )?;
                let Some(row) = rows.next() else { return Ok(None) };
                let sum: Vec<u8> = row.get(4)?.unwrap_or_default();
                let done = Done {
                    numbers: [row.get(3)?.unwrap_or(0), 0, 0, 0],
                    sum: sum.try_into().unwrap_or([0; 32]),
                    refused: row.get(5)?.unwrap_or_default(),
                };
                Ok::<_, Problem>(Some((row.get::<i64>(1)?.unwrap_or(0), row.get(2)? == Some(true), done)))
            })
        })?;
        match found {
            None => Ok(None),
            Some((last, _, _)) if last < self.number => Ok(None),
            Some((last, true, done)) if last == self.number => Ok(Some(done)),
            Some((last, _, _)) => {
                let message = format!(
                    "upload {} of run {} to {} was done with other rows; its last number is {last}",
                    self.number, self.run_id, self.table_name
                );
                Err(Problem::new(state::NOT_IN_STATE, message)
                    .hint("Give each upload of a run to a table a higher number; repeat one with the same bytes only."))
            }
        }
    }

    /// Remembers what came of it, in the transaction that did it.
    pub fn remember(&self, done: &Done) -> Answer<()> {
        identity::as_extension(|| {
            Spi::run_with_args(
                "INSERT INTO plimsoll.upload_record
                     (run_id, table_id, database_id, batch_number, digest, inserted, fingerprint, rejected)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (run_id, table_id) DO UPDATE SET batch_number = EXCLUDED.batch_number,
                     digest = EXCLUDED.digest, inserted = EXCLUDED.inserted, fingerprint = EXCLUDED.fingerprint,
                     rejected = EXCLUDED.rejected",
                &[
                    self.run_id.into(),
                    self.table_id.into(),
                    self.database_id.into(),
                    self.number.into(),
                    self.digest.clone().into(),
                    done.numbers[0].into(),
                    done.sum.to_vec().into(),
                    done.refused.clone().into(),
                ],
            )?;
            Ok(())
        })
    }
}

/// Forgets the uploads of a run that ended, and of earlier ones of its database.
pub fn forget(database_id: pgrx::Uuid) -> Answer<()> {
    identity::as_extension(|| {
        Spi::run_with_args(
            "DELETE FROM plimsoll.upload_record u WHERE u.database_id OPERATOR(pg_catalog.=) $1",
            &[database_id.into()],
        )?;
        Ok(())
    })
}
