//! Whether the server looks like one that was restored from an old backup: the highest versions of several tables lie
//! below those that this agent saw there before. Then rows would be deleted here, or set back, that the server only
//! forgot.

use plimsoll_core::store::{Outcome, PositionRange, Source, TableId};

use super::{LocalTarget, guard};

/// So many tables must have fallen together.
const FALLEN_TABLES: usize = 2;
/// Rows here beyond the server's, in all such tables, that are no sign yet.
const FREE_ROWS: u64 = 20;

/// A table whose highest version fell on the server since it was last pulled.
pub struct Fall {
    table: TableId,
    from: i64,
    to: Option<i64>,
    /// Rows here beyond what the server has.
    beyond: u64,
    /// Whether a person agreed to lose as many.
    is_released: bool,
}

/// Puts tables on hold that fell together, but for those of which a person agreed to it.
///
/// # Errors
/// What the local database says.
pub fn hold_fallen(target: &mut LocalTarget<'_>, falls: &[Option<Fall>]) -> Outcome<()> {
    let falls: Vec<&Fall> = falls.iter().flatten().collect();
    let beyond: u64 = falls.iter().map(|fall| fall.beyond).sum();
    if falls.len() < FALLEN_TABLES || beyond <= FREE_ROWS {
        return Ok(());
    }
    for fall in falls.iter().filter(|fall| !fall.is_released) {
        let (name, reason) = (target.name(fall.table).to_owned(), fall.reason(falls.len()));
        target.store().transact(&mut |transaction| guard::hold(transaction, &name, fall.beyond, &reason))?;
    }
    Ok(())
}

impl Fall {
    /// Whether a table fell. `before`: the server's highest position of it when it was last pulled.
    ///
    /// # Errors
    /// What either side says.
    pub fn of(
        target: &mut LocalTarget<'_>,
        source: &mut dyn Source,
        table: TableId,
        before: Option<i64>,
    ) -> Outcome<Option<Fall>> {
        // A hash does not fall.
        let Some(from) = before.filter(|_| !target.tables[table].shape.hashed) else { return Ok(None) };
        let to = source.max_position(table)?;
        if to.is_some_and(|to| to >= from) {
            return Ok(None);
        }
        let name = target.name(table).to_owned();
        let mut released = 0;
        target.store().look(&mut |look| {
            released = guard::released(look, &name)?;
            Ok(())
        })?;
        let range = to.map_or(Some(PositionRange::ALL), PositionRange::beyond);
        let held = target.store().fingerprints(table, range.as_slice())?;
        let beyond = held.iter().map(|held| held.rows.row_count() + held.bad).sum();
        Ok(Some(Fall { table, from, to, beyond, is_released: released > 0 && released >= beyond }))
    }

    fn reason(&self, tables: usize) -> String {
        let to = self.to.map_or("none, the replica is empty".to_owned(), |to| to.to_string());
        format!(
            "the server's maximum of {tables} tables fell, as after restoring a backup; of this one from {} to {to}",
            self.from
        )
    }
}
