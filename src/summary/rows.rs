//! The rows that short items stand for: their keys, or their content.

use std::collections::HashMap;

use pgrx::Uuid;
use pgrx::prelude::*;
use plimsoll_core::digest::Digester;
use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::row::{BatchWriter, key_of, position_in};
use plimsoll_core::short::{ShortItem, read_items};
use plimsoll_core::two_way::wire::{Found, pack_fetched, read_wanted};

use super::scan::{self, Piece, Scan};
use crate::argument::required;
use crate::error::{Answer, OrRaise, Problem, state};
use crate::manifest::MAX_ANSWER_BYTES;
use crate::upload::height;
use crate::{setting, table};

/// The most rows one call looks up.
const MAX_WANTED: usize = 100_000;

/// The rows that a caller asks for, each with how many times. Equal rows of a table without a key are as many items.
struct Wanted(HashMap<ShortItem, usize>);

impl Wanted {
    /// Whether this row is asked for, and was not answered as often already.
    fn take(&mut self, row: &ShortItem) -> bool {
        let times = self.0.get_mut(row).filter(|times| **times > 0);
        times.map(|times| *times -= 1).is_some()
    }
}

/// The rows a caller asks for, and the pieces they stand in.
fn wanted(items: &[u8]) -> Answer<(Wanted, Vec<Piece>)> {
    let items = read_items(items)?;
    if items.len() > MAX_WANTED {
        let message = format!("{} items; at most {MAX_WANTED} are taken", items.len());
        return Err(Problem::new(state::TOO_LARGE, message).hint("Ask in several calls."));
    }
    let mut pieces: Vec<Piece> = items.iter().map(|item| Piece::point(item.position)).collect();
    pieces.dedup();
    let mut wanted = HashMap::with_capacity(items.len());
    for item in items {
        *wanted.entry(item).or_default() += 1;
    }
    Ok((Wanted(wanted), pieces))
}

#[pg_extern(sql = false)]
fn packed_keys(database_id: Option<Uuid>, relation: Option<&str>, items: Option<&[u8]>) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let items = setting::check_bytes(&database, required(items, "items")?, "items")?;
        let (mut wanted, pieces) = wanted(items)?;
        let schema = table.schema.clone();
        let mut found = ItemsWriter::new(true);
        scan::digest(&database, &mut table, &pieces, false, &mut |row, form| {
            if wanted.take(&row.short_item()) {
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
        let items = setting::check_bytes(&database, required(items, "items")?, "items")?;
        let (mut wanted, pieces) = wanted(items)?;
        let scan = Scan::new(&database, &table, &pieces, true)?;
        let mut digester = Digester::new(database.fingerprint_key.clone());
        let (numbers, schema) = (table.numbers(), table.schema.clone());
        let mut rows = BatchWriter::new();
        let mut encoded = Vec::new();
        scan.read(&mut |row| {
            encoded.clear();
            row.encode(0, &numbers, &mut table.codecs, &mut encoded)?;
            let item = Item { position: position_in(&encoded, &schema)?, digest: digester.digest(&encoded)? };
            if wanted.take(&ShortItem::from(&item)) {
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

#[pg_extern(sql = false)]
fn two_way_fetch(
    database_id: Option<Uuid>,
    relation: Option<&str>,
    wanted: Option<&[u8]>,
    byte_limit: Option<i32>,
) -> Vec<u8> {
    let answer = || {
        let (database, mut table) = table::open(database_id, relation)?;
        let wanted = read_wanted(setting::check_bytes(&database, required(wanted, "wanted")?, "wanted")?)?;
        let limit = usize::try_from(required(byte_limit, "byte_limit")?).unwrap_or(0).min(MAX_ANSWER_BYTES);
        if wanted.len() > MAX_WANTED {
            let message = format!("{} rows; at most {MAX_WANTED} are taken", wanted.len());
            return Err(Problem::new(state::TOO_LARGE, message).hint("Ask in several calls."));
        }
        if !wanted.is_sorted_by_key(|wanted| wanted.item.position) {
            return Err(Problem::new(
                state::BAD_ARGUMENT,
                "rows that are wanted must come by ascending position",
            ));
        }
        let mut pieces: Vec<Piece> = wanted.iter().map(|wanted| Piece::point(wanted.item.position)).collect();
        pieces.dedup();
        let scan = Scan::new(&database, &table, &pieces, true)?;
        let contents: HashMap<ShortItem, bool> =
            wanted.iter().map(|wanted| (wanted.item, wanted.content)).collect();
        let mut digester = Digester::new(database.fingerprint_key.clone());
        let (numbers, schema) = (table.numbers(), table.schema.clone());
        let (mut found, mut bytes, mut last, mut next) = (Vec::new(), 0, None, None);
        let mut encoded = Vec::new();
        scan.read_some(&mut |row| {
            encoded.clear();
            row.encode(0, &numbers, &mut table.codecs, &mut encoded)?;
            let item = Item { position: position_in(&encoded, &schema)?, digest: digester.digest(&encoded)? };
            if bytes >= limit && last.is_some_and(|last| last != item.position) {
                next = Some(item.position);
                return Ok(false);
            }
            if bytes > MAX_ANSWER_BYTES {
                let message = format!("the rows of a position take more than {MAX_ANSWER_BYTES} bytes");
                return Err(Problem::new(state::TOO_LARGE, message));
            }
            let Some(content) = contents.get(&ShortItem::from(&item)) else { return Ok(true) };
            last = Some(item.position);
            let row = match content {
                true => Found::Row(encoded.clone()),
                false => Found::Key {
                    item,
                    revision: height(&encoded, &schema)?.unwrap_or_default(),
                    key: key_of(&encoded, &schema)?,
                },
            };
            bytes += row.bytes();
            found.push(row);
            Ok(true)
        })?;
        let looked_for = match next {
            Some(next) => wanted.partition_point(|wanted| wanted.item.position < next),
            None => wanted.len(),
        };
        Ok(pack_fetched(looked_for, &found))
    };
    answer().or_raise()
}
