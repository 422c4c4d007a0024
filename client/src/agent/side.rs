//! The id by which a local database that is written to is told from others: a note in it, so that it goes wherever the
//! database goes, and not where the agent's state does.

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{FailureKind, Outcome};
use uuid::Uuid;

use crate::config::Config;
use crate::failure::run as no_run;
use crate::source::notes::{Cell, NoteType};
use crate::source::write::LocalStore;
use crate::source::{open, open_writable};

/// The table of the note: one row.
const TABLE: &str = "plimsoll_side";

/// The id of the local database. Where it has none yet, it is given one; a run that only looks goes without.
///
/// # Errors
/// Where the database cannot be read, or the note cannot be written; `Passing` where another agent makes it at this moment:
/// asked again, it is read.
pub fn side_id(config: &Config, dry_run: bool) -> Outcome<Option<Uuid>> {
    // No row is read by these plans: no digest is made with the key.
    let place = config.source_place()?;
    let opened = if dry_run { open(&place)? } else { open_writable(&place)? };
    let mut store = opened.into_store(Vec::new(), FingerprintKey::new([0; 32]))?;
    match read(store.as_mut()) {
        Ok(Some(known)) => return Ok(Some(known)),
        Err(failure) if failure.kind == FailureKind::Passing => return Err(failure),
        // There is no such table yet.
        Ok(None) | Err(_) if dry_run => return Ok(None),
        Ok(None) | Err(_) => {}
    }
    let columns = [("number", NoteType::Int, false), ("side_id", NoteType::Text(36), false)];
    let create = store.notes().create(TABLE, &columns, &["number"]);
    // Two that make a table at once get in each other's way in Postgres, IF NOT EXISTS or not: the note itself tells.
    let defined = store.define(&create);
    let new = Uuid::new_v4().to_string();
    let insert = format!("INSERT INTO {TABLE} (number, side_id) VALUES (1, ?)");
    let written =
        store.transact(&mut |transaction| transaction.execute(&insert, &[Cell::Text(&new)]).map(drop));
    // Another agent may have been faster.
    match (read(store.as_mut()), defined.and(written)) {
        (Ok(Some(known)), _) => Ok(Some(known)),
        // Until that one is done, MariaDB wants to be asked again.
        (Err(failure), _) if failure.kind == FailureKind::Passing => Err(failure),
        (_, Err(failure)) | (Err(failure), Ok(())) => Err(failure),
        (Ok(None), Ok(())) => Err(no_run(format!("the note {TABLE} of the local database is not kept"))),
    }
}

/// Reads the note.
fn read(store: &mut dyn LocalStore) -> Outcome<Option<Uuid>> {
    let mut found = None;
    store.look(&mut |look| {
        look.query(&format!("SELECT side_id FROM {TABLE}"), &[], &mut |cells| {
            if let [Cell::Text(text)] = cells {
                found = Uuid::parse_str(text).ok();
            }
            Ok(())
        })
    })?;
    Ok(found)
}
