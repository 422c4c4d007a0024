//! Whether the server looks like one that was restored from an old backup: the highest versions of several tables lie
//! below those that this agent saw there before. Then rows would be deleted here, or set back, that the server only
//! forgot.

use plimsoll_core::store::{Outcome, PositionRange, Source};

use super::{LocalTarget, guard};

/// So many tables must have fallen together.
const FALLEN_TABLES: usize = 2;
/// Rows here beyond the server's, in all such tables, that are no sign yet.
const FREE_ROWS: u64 = 20;

struct Fall {
    table: usize,
    from: i64,
    to: Option<i64>,
    /// Rows here beyond what the server has.
    beyond: u64,
}

/// Puts tables on hold that fell together, unless a person agreed to it. `before`: the server's highest position of each
/// when it was last pulled.
///
/// # Errors
/// What either side says.
pub fn check_fall(
    target: &mut LocalTarget<'_>,
    source: &mut dyn Source,
    before: &[Option<i64>],
) -> Outcome<()> {
    let mut falls = Vec::new();
    for (table, before) in before.iter().enumerate() {
        // A hash does not fall.
        let Some(from) = before.filter(|_| !target.tables[table].shape.hashed) else { continue };
        let to = source.max_position(table)?;
        if to.is_some_and(|to| to >= from) {
            continue;
        }
        let name = target.tables[table].name.clone();
        let mut is_released = false;
        target.store().look(&mut |look| {
            is_released = guard::is_released(look, &name)?;
            Ok(())
        })?;
        if is_released {
            continue;
        }
        let range = to.map_or(Some(PositionRange::ALL), PositionRange::beyond);
        let held = target.store().fingerprints(table, range.as_slice())?;
        let beyond = held.iter().map(|held| held.rows.row_count() + held.bad).sum();
        falls.push(Fall { table, from, to, beyond });
    }
    let beyond: u64 = falls.iter().map(|fall| fall.beyond).sum();
    if falls.len() < FALLEN_TABLES || beyond <= FREE_ROWS {
        return Ok(());
    }
    for fall in &falls {
        let (name, reason) = (target.tables[fall.table].name.clone(), fall.reason(falls.len()));
        target.store().transact(&mut |transaction| guard::hold(transaction, &name, fall.beyond, &reason))?;
    }
    Ok(())
}

impl Fall {
    fn reason(&self, tables: usize) -> String {
        let to = self.to.map_or("none, the replica is empty".to_owned(), |to| to.to_string());
        format!(
            "the server's maximum of {tables} tables fell, as after restoring a backup; of this one from {} to {to}",
            self.from
        )
    }
}
