//! Every way in which rows change is told to the manifest, in the same transaction.

use std::io::Write;

use crate::site::{COLUMNS, Site, assert_right};

#[test]
fn inserts_updates_and_deletes_are_kept() {
    let mut site = Site::open();
    site.right();
    site.insert(1, 10);
    site.right();
    site.run("UPDATE shop.item SET name = 'other' WHERE id = 3");
    site.right();
    site.run("UPDATE shop.item SET version = version + 100, amount = NULL WHERE id IN (4, 5)");
    site.right();
    site.run("UPDATE shop.item SET changed = now() WHERE id = 1");
    site.right();
    site.run("DELETE FROM shop.item WHERE id = 1");
    site.right();
    site.insert(11, 5_000);
    site.right();
    site.run("UPDATE shop.item SET amount = amount + 1 WHERE id % 7 = 0");
    site.right();
    site.run("DELETE FROM shop.item WHERE id BETWEEN 100 AND 4000");
    site.right();
    site.run("DELETE FROM shop.item");
    site.right();
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.blocks"), 0);
}

#[test]
fn upserts_merges_and_statements_within_statements_are_kept() {
    let mut site = Site::open();
    site.insert(1, 100);
    site.run(
        "INSERT INTO shop.item SELECT $C, $D, i, 'upserted', 1, now(), 1000 + i FROM generate_series(50, 150) i
         ON CONFLICT (client_id, database_id, id) DO UPDATE SET name = excluded.name, version = excluded.version",
    );
    site.right();
    site.run(
        "INSERT INTO shop.item SELECT $C, $D, i, 'ignored', 1, now(), 1 FROM generate_series(140, 160) i
         ON CONFLICT DO NOTHING",
    );
    site.right();
    if site.value::<i32>("SELECT current_setting('server_version_num')::int") >= 150_000 {
        site.run(
            "MERGE INTO shop.item t USING (SELECT i FROM generate_series(1, 200) i) s
             ON t.client_id = $C AND t.database_id = $D AND t.id = s.i
             WHEN MATCHED AND s.i % 3 = 0 THEN DELETE
             WHEN MATCHED THEN UPDATE SET name = 'merged', version = 5000 + s.i
             WHEN NOT MATCHED THEN INSERT VALUES ($C, $D, s.i, 'new', 0, NULL, s.i)",
        );
        site.right();
    }
    site.run(
        "WITH moved AS (DELETE FROM shop.item WHERE id < 40 RETURNING *),
              added AS (INSERT INTO shop.item SELECT client_id, database_id, id + 10000, name, amount, changed, version
                        FROM moved RETURNING id)
         UPDATE shop.item SET amount = 7 WHERE id BETWEEN 60 AND 70",
    );
    site.right();
    assert!(site.rows() > 100);
}

#[test]
fn copy_is_kept_whatever_its_size_and_order() {
    let mut site = Site::open();
    for (from, to, step) in [(1, 3, 1), (1_000, 40_000, 1), (100_000, 60_000, -1), (200_000, 100_001, -7)] {
        let sql = "COPY shop.item FROM STDIN";
        let id = site.till.id;
        let mut writer = site.superuser.copy_in(sql).expect("a copy");
        let mut row: i64 = from;
        while if step > 0 { row <= to } else { row >= to } {
            // Neighbours arrive far apart.
            let version = (row * 7919) % 1_000_003;
            let line = format!("acme\t{id}\t{row}\tcopied\t\\N\t2026-02-03 04:05:06+00\t{version}\n");
            writer.write_all(line.as_bytes()).expect("a line");
            row += step;
        }
        writer.finish().expect("the end of the copy");
        site.right();
    }
    let (blocks, rows): (i64, i64) = (
        site.value("SELECT count(*) FROM plimsoll.blocks"),
        site.value("SELECT sum(row_count)::int8 FROM plimsoll.blocks"),
    );
    assert_eq!(rows, site.rows());
    assert!((rows / 2_048..=rows / 128).contains(&blocks), "{blocks} blocks for {rows} rows");
}

#[test]
fn what_a_foreign_key_does_is_kept() {
    let mut site = Site::with(&format!(
        "CREATE TABLE shop.parent (client_id text, database_id uuid, id int, PRIMARY KEY (client_id, database_id, id));
         CREATE TABLE shop.item ({COLUMNS}, parent int, PRIMARY KEY (client_id, database_id, id),
             FOREIGN KEY (client_id, database_id, parent) REFERENCES shop.parent ON DELETE CASCADE ON UPDATE CASCADE)"
    ));
    site.run("INSERT INTO shop.parent SELECT $C, $D, i FROM generate_series(1, 10) i");
    site.run(
        "INSERT INTO shop.item SELECT $C, $D, i, 'x', 1, now(), i, 1 + i % 10 FROM generate_series(1, 500) i",
    );
    site.right();
    site.run("DELETE FROM shop.parent WHERE id <= 3");
    site.right();
    assert_eq!(site.rows(), 350);
    site.run("UPDATE shop.parent SET id = 100 WHERE id = 4");
    site.right();
}

#[test]
fn savepoints_and_rollbacks_take_their_part_of_it_back() {
    let mut site = Site::open();
    site.insert(1, 50);
    site.run(
        "BEGIN; DELETE FROM shop.item WHERE id < 10; SAVEPOINT one; UPDATE shop.item SET name = 'gone';
         SAVEPOINT two; DELETE FROM shop.item; ROLLBACK TO one; UPDATE shop.item SET amount = 3 WHERE id = 20; COMMIT",
    );
    site.right();
    assert_eq!(site.rows(), 41);
    site.run("BEGIN; DELETE FROM shop.item; ROLLBACK");
    site.right();
    assert_eq!(site.rows(), 41);
    // A transaction sees its own changes in the manifest.
    let id = site.till.id;
    let mut transaction = site.superuser.transaction().expect("a transaction");
    transaction.batch_execute("DELETE FROM shop.item WHERE id < 30").expect("a delete");
    assert_right(&mut transaction, id);
    transaction.rollback().expect("a rollback");
    site.right();
}

#[test]
fn an_emptied_table_has_an_empty_manifest() {
    let mut site = Site::open();
    site.insert(1, 3_000);
    site.fold();
    site.run("UPDATE shop.item SET name = 'pending' WHERE id = 1; TRUNCATE shop.item");
    site.right();
    assert_eq!(site.rows(), 0);
    site.insert(1, 20);
    site.right();
    site.run(
        "BEGIN; INSERT INTO shop.item VALUES ($C, $D, 999, 'x', 1, now(), 5); TRUNCATE shop.item;
              INSERT INTO shop.item VALUES ($C, $D, 7, 'x', 1, now(), 5); COMMIT",
    );
    site.right();
    assert_eq!(site.rows(), 1);
    site.run("BEGIN; TRUNCATE shop.item; ROLLBACK");
    site.right();
    assert_eq!(site.rows(), 1);
}

#[test]
fn a_crowded_position_is_kept_like_any_other() {
    let mut site = Site::open();
    site.run(
        "INSERT INTO shop.item SELECT $C, $D, i, 'same', i, now(), 42 FROM generate_series(1, 100000) i",
    );
    site.right();
    site.insert(100_001, 100_010);
    site.run("UPDATE shop.item SET version = 43 WHERE id BETWEEN 500 AND 600");
    site.right();
    site.run("DELETE FROM shop.item WHERE id % 2 = 0");
    site.right();
    let largest: i64 = site.value("SELECT max(row_count) FROM plimsoll.blocks WHERE range = '[42,43)'");
    assert_eq!(largest, 50_000 - 50);
}

#[test]
fn both_ends_of_the_axis_and_rows_of_nobody_are_no_exception() {
    let mut site = Site::open();
    site.run(
        "INSERT INTO shop.item SELECT $C, $D, i, 'x', 1, NULL,
             CASE i % 4 WHEN 0 THEN -9223372036854775808 WHEN 1 THEN 9223372036854775807 ELSE i - 1000 END
         FROM generate_series(1, 3000) i;
         INSERT INTO shop.item SELECT 'nobody', $D, i, 'x', 1, now(), i FROM generate_series(1, 10) i;
         INSERT INTO shop.item SELECT $C, gen_random_uuid(), i, 'x', 1, now(), i FROM generate_series(1, 10) i",
    );
    site.right();
    assert_eq!(site.rows(), 3_000);
    // A row that changes hands leaves one replica; here for nobody, and back.
    site.run(
        "UPDATE shop.item SET client_id = 'nobody' WHERE client_id = $C AND database_id = $D AND id > 2990",
    );
    site.right();
    assert_eq!(site.rows(), 2_990);
    site.run("UPDATE shop.item SET client_id = $C WHERE client_id = 'nobody' AND id > 2990");
    site.right();
    assert_eq!(site.rows(), 3_000);
}

#[test]
fn each_database_has_its_own_part_of_a_statement() {
    let mut site = Site::open();
    let other = site.server.register(&site.database, "acme", "other");
    site.superuser
        .query("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&other.id])
        .expect("a rebuild");
    let mixed = format!(
        "INSERT INTO shop.item SELECT $C, CASE i % 2 WHEN 0 THEN $D ELSE '{}' END::uuid, i, 'x', 1, now(), i
         FROM generate_series(1, 2000) i",
        other.id
    );
    site.run(&mixed);
    site.right();
    assert_right(&mut site.superuser, other.id);
    site.run(&format!(
        "UPDATE shop.item SET database_id = '{}', id = id + 10000 WHERE database_id = $D AND id < 100",
        other.id
    ));
    site.right();
    assert_right(&mut site.superuser, other.id);
    assert_eq!(site.rows(), 951);
}

#[test]
fn values_of_every_kind_are_read_where_they_lie() {
    let mut site = Site::with(
        "CREATE TYPE shop.mood AS ENUM ('fine', 'sad');
         CREATE DOMAIN shop.short AS varchar(8);
         CREATE TABLE shop.item (version timestamptz NOT NULL, gone int, name text, client_id text NOT NULL,
             mood shop.mood, words text[], doc jsonb, database_id uuid NOT NULL, tag shop.short, id int NOT NULL,
             changed timestamp, price numeric, big text, PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE shop.item DROP COLUMN gone",
    );
    site.run(
        "INSERT INTO shop.item (version, name, client_id, mood, words, doc, database_id, tag, id, changed, price, big)
         SELECT '2026-01-01 00:00+00'::timestamptz + i * interval '1 us', 'n' || i, $C,
             CASE i % 3 WHEN 0 THEN 'fine' WHEN 1 THEN 'sad' END::shop.mood, ARRAY['a', NULL, i::text],
             jsonb_build_object('b', i, 'a', 1.50), $D, 'tag', i, now() AT TIME ZONE 'UTC', i * 1.100,
             CASE WHEN i % 50 = 0 THEN repeat(md5(i::text), 4000) END
         FROM generate_series(1, 300) i",
    );
    let id = site.till.id;
    let check = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.item')";
    for change in [
        "UPDATE shop.item SET price = price + 0.000 WHERE id % 2 = 0",
        "UPDATE shop.item SET words = words || 'more'::text, mood = 'sad', big = big || 'x'",
        "DELETE FROM shop.item WHERE big IS NOT NULL",
    ] {
        site.run(change);
        assert_eq!(site.superuser.query_one(check, &[&id]).expect(change).get::<_, i64>(0), 0, "{change}");
    }
    site.fold();
    assert_eq!(site.superuser.query_one(check, &[&id]).expect("a check").get::<_, i64>(0), 0);
}
