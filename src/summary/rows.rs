//! The rows that short items stand for: their keys, or their content.

use std::collections::HashSet;

use pgrx::Uuid;
use pgrx::prelude::*;
use plimsoll_core::digest::Digester;
use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::row::{BatchWriter, key_of};
use plimsoll_core::short::{ShortItem, read_items};

use super::scan::{self, Piece, Scan};
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::manifest::MAX_ANSWER_BYTES;
use crate::{setting, table};

/// The most rows one call looks up.
const MAX_WANTED: usize = 100_000;

/// The rows a caller asks for, and the pieces they stand in.
fn wanted(items: &[u8]) -> Answer<(HashSet<ShortItem>, Vec<Piece>)> {
    let items = read_items(items)?;
    if items.len() > MAX_WANTED {
        let message = format!("{} items; at most {MAX_WANTED} are taken", items.len());
        return Err(Problem::new(state::TOO_LARGE, message).hint("Ask in several calls."));
    }
    let mut pieces: Vec<Piece> = items.iter().map(|item| Piece::point(item.position)).collect();
    pieces.dedup();
    Ok((items.into_iter().collect(), pieces))
}

#[pg_extern(sql = false)]
fn packed_keys(database_id: Option<Uuid>, relation: Option<&str>, items: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let (wanted, pieces) = wanted(setting::check_bytes(&database, required(items, "items")?, "items")?)?;
        let schema = table.schema.clone();
        let mut found = ItemsWriter::new(true);
        scan::digest(&database, &mut table, &pieces, false, &mut |row, form| {
            if wanted.contains(&row.short_item()) {
                let item = Item { position: row.position, digest: row.digest };
                found.push(&item, &key_of(form, &schema)?);
            }
            Ok(())
        })?;
        Ok(found.finish(None))
    };
    answer().or_raise()
}

#[pg_extern(sql = false)]
fn packed_rows(database_id: Option<Uuid>, relation: Option<&str>, items: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let (wanted, pieces) = wanted(setting::check_bytes(&database, required(items, "items")?, "items")?)?;
        let scan = Scan::new(&database, &table, &pieces, true)?;
        let mut digester = Digester::new(database.fingerprint_key.clone());
        let (numbers, version) = (table.numbers(), table.version_place());
        let mut rows = BatchWriter::new();
        let mut encoded = Vec::new();
        scan.read(&mut |row| {
            encoded.clear();
            row.encode(0, &numbers, &mut table.codecs, &mut encoded)?;
            let Some(position) = row.int8(version) else { return Ok(()) };
            let item = Item { position, digest: digester.digest(&encoded)? };
            if wanted.contains(&ShortItem::from(&item)) {
                rows.push(&encoded);
            }
            if rows.len() > MAX_ANSWER_BYTES {
                let message = format!("the rows take more than {MAX_ANSWER_BYTES} bytes");
                return Err(Problem::new(state::TOO_LARGE, message).hint("Ask for fewer rows at a time."));
            }
            Ok(())
        })?;
        Ok(rows.finish())
    };
    answer().or_raise()
}
