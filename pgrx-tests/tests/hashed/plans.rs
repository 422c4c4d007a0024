//! What is read for an answer: the rows of a range or of a key are found by index, whether or not the planner has ever
//! seen the table. `PLIMSOLL_LARGE` gives each database 1,000,000 rows.

use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::short::{ShortItem, pack_items};
use plimsoll_core::store::PositionRange;
use postgres::types::ToSql;
use serde_json::json;

use crate::site::Site;

/// Rows of each of two databases.
fn many() -> i64 {
    if std::env::var_os("PLIMSOLL_LARGE").is_some() { 1_000_000 } else { 40_000 }
}

impl Site {
    /// Rows of the table that a call reads: all by scanning, and those found by index.
    fn read_by(&mut self, call: &str, arguments: &[&(dyn ToSql + Sync)]) -> (i64, i64) {
        // What earlier transactions read is counted until it is handed over.
        let numbers = "SELECT sum(seq_tup_read)::int8, sum(idx_tup_fetch)::int8 FROM pg_stat_xact_user_tables
                       WHERE schemaname = 'shop'";
        let mut transaction = self.superuser.transaction().expect("a transaction");
        let before = transaction.query_one(numbers, &[]).expect("numbers");
        let sql = format!("SELECT count(*) FROM plimsoll.{call} AS answer");
        transaction.query_one(&sql, arguments).unwrap_or_else(|error| panic!("{call}: {error:?}"));
        let after = transaction.query_one(numbers, &[]).expect("numbers");
        transaction.rollback().expect("as it was");
        let read = |place: usize| after.get::<_, i64>(place) - before.get::<_, i64>(place);
        (read(0), read(1))
    }
}

/// Asserts that a call reads by index, and no more than so many rows.
#[track_caller]
fn assert_few(site: &mut Site, call: &str, arguments: &[&(dyn ToSql + Sync)], most: i64) {
    let (scanned, found) = site.read_by(call, arguments);
    assert_eq!(scanned, 0, "{call} scans the table");
    assert!((1..=most).contains(&found), "{call} reads {found} rows");
}

#[test]
fn ranges_and_keys_are_found_by_index() {
    for (sql, manage, row) in [
        (
            "CREATE TABLE shop.item (TENANT, id int NOT NULL, code text NOT NULL,
                 PRIMARY KEY (client_id, database_id, id, code))",
            "",
            "i, 'c' || i % 5",
        ),
        ("CREATE TABLE shop.item (TENANT, id int, code text)", ", key_columns => '{}'", "i / 2, 'c'"),
        (
            "CREATE TABLE shop.item (TENANT, id int NOT NULL, v bytea NOT NULL, PRIMARY KEY (client_id, database_id, id))",
            ", version_column => 'v'",
            "i, int8send(i)",
        ),
    ] {
        let mut site =
            Site::with(&format!("{sql}; ALTER TABLE shop.item SET (autovacuum_enabled = false)"), manage);
        for tenant in ["$O", "$T"] {
            site.run(&format!(
                "INSERT INTO shop.item SELECT {tenant}, {row} FROM generate_series(1, {}::int8) i",
                many()
            ));
        }
        // Blocks that so many rows made too large are read to be divided, once.
        for id in [site.till.id, site.other.id] {
            let rebuild = "SELECT plimsoll.rebuild_manifest($1, 'shop.item')";
            site.superuser.execute(rebuild, &[&id]).expect("a manifest");
        }
        let items = site.items();
        for analyzed in [false, true] {
            if analyzed {
                site.run("ANALYZE shop.item");
            }
            few(&mut site, &items, manage);
        }
    }
}

fn few(site: &mut Site, items: &[Item], manage: &str) {
    let id = site.till.id;
    // A range in the middle that holds some hundred rows, as whole and in pieces.
    let (from, to) = (items[20_000].position, items[20_300].position);
    let range = format!("[{from},{to})");
    assert_few(site, &format!("range_fingerprint($1, 'shop.item', '{range}')"), &[&id], 2_500);
    // The first rows of a range, of which a thousand are read at a time, without sorting all of it.
    for range in ["(,)", &format!("[{from},)"), &range] {
        assert_few(site, &format!("download($1, 'shop.item', '{range}', 100)"), &[&id], 1_400);
    }
    assert_few(site, &format!("delete_range($1, 'shop.item', '{range}')"), &[&id], 2_500);
    assert_few(site, &format!("manifest($1, 'shop.item', '{range}')"), &[&id], 302);
    assert_few(site, &format!("packed_manifest($1, 'shop.item', '{range}', 1000)"), &[&id], 302);
    assert_few(site, &format!("range_manifest($1, 'shop.item', '{range}', 4)"), &[&id], 2_500);
    let chosen: Vec<&Item> = items.iter().step_by(items.len() / 40).collect();
    let points: Vec<PositionRange> = chosen
        .iter()
        .map(|item| PositionRange { from: Some(item.position), to: item.position.checked_add(1) })
        .collect();
    let points = pack_ranges(&points);
    assert_few(site, "packed_summaries($1, 'shop.item', $2)", &[&id, &points], 82);
    assert_few(site, "packed_items($1, 'shop.item', $2)", &[&id, &points], 82);
    let short: Vec<ShortItem> = chosen.iter().map(|item| ShortItem::from(*item)).collect();
    assert_few(site, "packed_keys($1, 'shop.item', $2)", &[&id, &pack_items(&short)], 82);
    assert_few(site, "packed_rows($1, 'shop.item', $2)", &[&id, &pack_items(&short)], 82);
    // Rows by key, or by what they hold.
    if manage.contains("key_columns") {
        let mut list = ItemsWriter::new(true);
        chosen.iter().for_each(|item| list.push(item, &[]));
        assert_few(site, "delete_rows($1, 'shop.item', $2::bytea)", &[&id, &list.finish(None)], 250);
    } else {
        let extra = if manage.is_empty() { json!({"code": "c1"}) } else { json!({}) };
        let named: Vec<_> = (1..=40)
            .map(|i| {
                let mut key = extra.clone();
                key["id"] = json!(i * 5 + 1);
                json!({ "key": key })
            })
            .collect();
        assert_few(site, "delete_rows($1, 'shop.item', $2::jsonb)", &[&id, &json!(named)], 250);
        let rows: Vec<_> = (1..=40)
            .map(|i| match manage.is_empty() {
                true => json!({"id": i * 7, "code": format!("c{}", i * 7 % 5)}),
                false => json!({"id": i * 7, "v": format!("\\x{:016x}", 900_000 + i)}),
            })
            .collect();
        assert_few(site, "upload($1, 'shop.item', $2::jsonb)", &[&id, &json!(rows)], 250);
    }
}
