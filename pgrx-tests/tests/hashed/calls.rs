//! Every call over every kind of such tables.

use std::collections::BTreeMap;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{Item, read_keyed, read_manifest};
use plimsoll_core::ranges::{pack_ranges, read_fingerprints, read_summaries};
use plimsoll_core::row::{BatchReader, BatchWriter};
use plimsoll_core::short::{ShortItem, pack_items, read_items};
use plimsoll_core::store::PositionRange;
use serde_json::{Value, json};

use crate::site::{Site, refused};

/// A kind of table.
struct Kind {
    name: &'static str,
    sql: &'static str,
    manage: &'static str,
    /// The row of a number, in the state with another number.
    row: fn(i64, i64) -> Value,
    is_hashed: bool,
    is_keyless: bool,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "without version",
        sql: "CREATE TABLE shop.item (TENANT, code text NOT NULL, id int NOT NULL, note text,
                  PRIMARY KEY (client_id, database_id, id, code))",
        manage: "",
        row: |i, state| json!({"id": i, "code": format!("c{i}"), "note": format!("note {state}")}),
        is_hashed: true,
        is_keyless: false,
    },
    Kind {
        name: "without key, with equal rows, partitioned",
        sql: "CREATE TABLE shop.item (TENANT, year int, name text, price numeric(9, 2)) PARTITION BY RANGE (year);
              CREATE TABLE shop.old (price numeric(9, 2), name text, year int, database_id uuid NOT NULL,
                  client_id text NOT NULL);
              ALTER TABLE shop.item ATTACH PARTITION shop.old FOR VALUES FROM (0) TO (2005);
              CREATE TABLE shop.rest PARTITION OF shop.item DEFAULT",
        manage: ", key_columns => '{}'",
        row: |i, _| json!({"year": if i % 7 == 0 { None } else { Some(2000 + i % 11) }, "name": format!("n{}", i % 5)}),
        is_hashed: true,
        is_keyless: true,
    },
    Kind {
        name: "without key, with a version",
        sql: "CREATE TABLE shop.item (TENANT, name text, v timestamptz NOT NULL)",
        manage: ", key_columns => '{}', version_column => 'v'",
        row: |i, _| json!({"name": format!("n{}", i % 3), "v": format!("2026-01-{:02}", i % 9 + 1)}),
        is_hashed: false,
        is_keyless: true,
    },
    Kind {
        name: "revisions",
        sql: "CREATE TABLE shop.item (TENANT, id uuid NOT NULL, revision int NOT NULL, note text, changed timestamptz,
                  PRIMARY KEY (client_id, database_id, id))",
        manage: ", version_column => 'revision', version_scope => 'row', modified_column => 'changed'",
        row: |i, state| json!({"id": format!("00000000-0000-0000-0000-{i:012}"), "revision": state, "note": format!("note {state}"),
            "changed": format!("2026-03-{:02} 10:00+00", (i + state) % 28 + 1)}),
        is_hashed: true,
        is_keyless: false,
    },
    Kind {
        name: "statuses, in a unique index",
        sql: "CREATE TYPE shop.status AS ENUM ('draft', 'sent', 'paid');
              CREATE TABLE shop.item (TENANT, id numeric NOT NULL, status shop.status, UNIQUE (client_id, database_id, id))",
        manage: ", version_column => 'status', version_scope => 'row'",
        row: |i, state| json!({"id": format!("{i}.0"), "status": (["draft", "sent", "paid"][state as usize])}),
        is_hashed: true,
        is_keyless: false,
    },
    Kind {
        name: "binary versions",
        sql: "CREATE TABLE shop.item (TENANT, id int NOT NULL, v bytea NOT NULL, note text,
                  PRIMARY KEY (client_id, database_id, id))",
        manage: ", version_column => 'v'",
        row: |i, state| json!({"id": i, "v": format!("\\x{:016x}", i * 10 + state), "note": "x"}),
        is_hashed: false,
        is_keyless: false,
    },
];

const ROWS: i64 = 60;

fn rows(kind: &Kind, state: i64) -> Value {
    Value::Array((1..=ROWS).map(|i| (kind.row)(i, state)).collect())
}

fn count_of<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    items.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}

fn bytes(site: &mut Site, call: &str, argument: &[u8]) -> Vec<u8> {
    let sql = format!("SELECT plimsoll.{call}");
    site.agent
        .query_one(&sql, &[&site.till.id, &argument])
        .unwrap_or_else(|error| panic!("{call}: {error:?}"))
        .get(0)
}

#[test]
fn every_call_works_on_every_kind() {
    for kind in &KINDS {
        println!("{}", kind.name);
        let mut site = Site::with(kind.sql, kind.manage);
        let uploaded = site.upload(&rows(kind, 0));
        assert_eq!((uploaded.numbers, uploaded.rejected.len()), ([ROWS, 0, 0, 0], 0), "{}", kind.name);
        let columns: String = site.value(
            "SELECT string_agg(quote_ident(column_name), ', ') FROM plimsoll.table_schema($D, 'shop.item')",
        );
        site.run(&format!(
            "INSERT INTO shop.item (client_id, database_id, {columns}) SELECT $O, {columns} FROM shop.item"
        ));
        site.right();
        again(&mut site, kind);
        ranges(&mut site);
        items(&mut site, kind);
        download(&mut site);
        batches(&mut site);
        windows(&mut site, kind);
        by_key(&mut site, kind);
        marks(&mut site, kind);
        deletes(&mut site, kind);
        assert_eq!(site.value::<i64>("SELECT count(*) FROM shop.item WHERE client_id = 'umbrella'"), ROWS);
    }
}

/// The same rows once more, then others of the same keys.
fn again(site: &mut Site, kind: &Kind) {
    let version = "SELECT max_version FROM plimsoll.table_version($D, 'shop.item')";
    assert_eq!(site.value::<Option<i64>>(version).is_none(), kind.is_hashed);
    if kind.is_keyless {
        assert_eq!(site.upload(&rows(kind, 0)).numbers, [ROWS, 0, 0, 0], "they are added");
        let half = site.items().into_iter().step_by(2).collect::<Vec<_>>();
        // The list has each of them twice or more; whatever goes is one copy.
        let sql = "SELECT plimsoll.set_option($1, 'guard_fraction', '1')";
        site.superuser.execute(sql, &[&site.till.id]).expect("an option");
        assert_eq!(site.delete_items(&half), (ROWS, 0));
    } else {
        assert_eq!(site.upload(&rows(kind, 0)).numbers, [0, 0, ROWS, 0], "they are known");
        assert_eq!(site.upload(&rows(kind, 2)).numbers, [0, ROWS, 0, 0], "they changed");
        // Back is a revision that goes down, which counts; a status, or content without a version, does not.
        let lower = site.upload(&rows(kind, 1)).numbers;
        let counts = ["revisions", "binary versions"].contains(&kind.name);
        assert_eq!(lower, if counts { [0, 0, 0, ROWS] } else { [0, ROWS, 0, 0] });
        if counts {
            site.superuser
                .execute("SELECT plimsoll.release_hold($1, 'shop.item')", &[&site.till.id])
                .expect("a release");
            assert_eq!(site.upload(&rows(kind, 1)).numbers, [0, ROWS, 0, 0]);
        }
        let sql = "SELECT plimsoll.set_option($1, 'guard_fraction', '1')";
        site.superuser.execute(sql, &[&site.till.id]).expect("an option");
    }
    site.right();
}

fn ranges(site: &mut Site) {
    let all = site
        .superuser
        .query_one("SELECT * FROM plimsoll.range_fingerprint($1, 'shop.item', '(,)')", &[&site.till.id])
        .expect("a range");
    let items = site.items();
    assert!(items.is_sorted_by_key(|item| item.position));
    assert_eq!((all.get::<_, i64>(0), items.len() as i64), (ROWS, ROWS));
    let parts = site
        .superuser
        .query(
            "SELECT lower(range), upper(range), row_count, fingerprint
             FROM plimsoll.range_manifest($1, 'shop.item', '(,)', 8)",
            &[&site.till.id],
        )
        .expect("ranges");
    let mut rows = 0;
    for part in &parts {
        let (from, to): (Option<i64>, Option<i64>) = (part.get(0), part.get(1));
        let within = items.iter().filter(|item| {
            from.is_none_or(|from| item.position >= from) && to.is_none_or(|to| item.position < to)
        });
        assert_eq!(part.get::<_, i64>(2), within.count() as i64);
        rows += part.get::<_, i64>(2);
    }
    assert_eq!(rows, ROWS);
    // Ranges that have no block to themselves are read from rows.
    let asked: Vec<PositionRange> = items
        .chunk_by(|one, other| one.position == other.position)
        .step_by(3)
        .map(|rows| PositionRange { from: Some(rows[0].position), to: rows[0].position.checked_add(1) })
        .collect();
    let summaries = bytes(site, "packed_summaries($1, 'shop.item', $2)", &pack_ranges(&asked));
    let summaries = read_summaries(&summaries).expect("summaries");
    assert_eq!(summaries.len(), asked.len());
    for summary in summaries {
        let there = items.iter().filter(|item| summary.range.contains(item.position)).count();
        assert_eq!(summary.row_count, there as u64);
    }
}

/// What agents ask to learn which rows differ: positions with digests, keys, rows.
fn items(site: &mut Site, kind: &Kind) {
    let listed: Vec<Item> = site.items();
    let short: Vec<ShortItem> = listed.iter().map(ShortItem::from).collect();
    let all = pack_ranges(&[PositionRange::ALL]);
    let found = read_items(&bytes(site, "packed_items($1, 'shop.item', $2)", &all)).expect("items");
    assert_eq!(count_of(found), count_of(short.clone()), "each copy is there");
    // A third of them, and one that is not there; rows as often as they are asked for.
    let mut asked: Vec<ShortItem> = short.iter().copied().step_by(3).collect();
    asked.push(ShortItem { digest: [9; 16], ..asked[0] });
    let keyed = bytes(site, "packed_keys($1, 'shop.item', $2)", &pack_items(&asked));
    let (keyed, _) = read_keyed(&keyed).expect("keys");
    let answered = count_of(keyed.iter().map(|row| ShortItem::from(&row.item)));
    asked.pop();
    assert_eq!(answered, count_of(asked.clone()));
    let rows = bytes(site, "packed_rows($1, 'shop.item', $2)", &pack_items(&asked));
    let mut digester = site.digester();
    let rows = BatchReader::new(&rows)
        .expect("rows")
        .map(|row| digester.digest(row.expect("a row")).expect("sound"));
    let rows = count_of(rows.map(|digest| digest.0[..16].to_vec()));
    assert_eq!(rows, count_of(asked.iter().map(|item| item.digest.to_vec())));
    let sketch =
        site.agent.query("SELECT plimsoll.packed_sketch($1, 'shop.item', $2, 0, 10)", &[&site.till.id, &all]);
    match kind.is_keyless {
        true => drop(refused(sketch, "0A000")),
        false => assert!(sketch.is_ok()),
    }
    let manifest = "SELECT count(*) FROM plimsoll.manifest($D, 'shop.item', '(,)') m
                    JOIN plimsoll.manifest($D, 'shop.item', '(,)') n USING (key, version, digest)";
    let copies: usize = count_of(listed).values().map(|copies| copies * copies).sum();
    assert_eq!(site.value::<i64>(manifest), copies as i64, "people see each copy, with a key");
}

/// All rows, some at a time, each once.
fn download(site: &mut Site) {
    let (mut rows, mut cursor): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
    loop {
        let found = site
            .agent
            .query(
                "SELECT * FROM plimsoll.download($1, 'shop.item', '(,)', 7, $2)",
                &[&site.till.id, &cursor],
            )
            .expect("rows");
        let Some(last) = found.last() else { break };
        cursor = Some(last.get(1));
        rows.extend(found.iter().map(|row| row.get::<_, Vec<u8>>(0)));
    }
    let mut digester = site.digester();
    let digests = count_of(rows.iter().map(|row| digester.digest(row).expect("sound")));
    assert_eq!(digests, count_of(site.items().iter().map(|item| item.digest)));
}

/// All rows by position, within rows and bytes, each once.
fn batches(site: &mut Site) {
    let listed = count_of(site.items().iter().map(|item| item.digest));
    for (rows, bytes) in [(7, i64::MAX), (1_000_000, 1), (1_000_000, 2_000), (1_000_000, i64::MAX)] {
        let (mut found, mut calls, mut after): (Vec<Vec<u8>>, i64, Option<Vec<u8>>) = (Vec::new(), 0, None);
        loop {
            let answer = site
                .agent
                .query_one(
                    "SELECT rows, next FROM plimsoll.packed_batch($1, 'shop.item', $2, $3, $4)",
                    &[&site.till.id, &after, &rows, &bytes],
                )
                .expect("rows");
            calls += 1;
            let packed: Vec<u8> = answer.get(0);
            found.extend(BatchReader::new(&packed).expect("rows").map(|row| row.expect("a row").to_vec()));
            after = answer.get(1);
            if after.is_none() {
                break;
            }
        }
        let mut digester = site.digester();
        let digests = count_of(found.iter().map(|row| digester.digest(row).expect("sound")));
        assert_eq!(digests, listed, "{rows} rows, {bytes} bytes");
        match (rows, bytes) {
            (7, _) => assert_eq!(calls, (ROWS + 6) / 7),
            (_, 1) => assert_eq!(calls, ROWS, "one row comes whatever its size"),
            (_, 2_000) => assert!((3..ROWS).contains(&calls), "{calls}"),
            _ => assert_eq!(calls, 1),
        }
    }
    // Behind all rows of a position.
    let items = site.items();
    let middle = items[items.len() / 2].position;
    let answer = site
        .agent
        .query_one(
            "SELECT rows, next IS NULL FROM plimsoll.packed_batch($1, 'shop.item', $2, 1000, 1000000)",
            &[&site.till.id, &middle.to_le_bytes().as_slice()],
        )
        .expect("rows");
    let beyond = items.iter().filter(|item| item.position > middle).count();
    assert_eq!(BatchReader::new(&answer.get::<_, Vec<u8>>(0)).expect("rows").rows_left() as usize, beyond);
    assert!(answer.get::<_, bool>(1));
}

/// Row manifests and whole sums of several ranges, and where a tail begins.
fn windows(site: &mut Site, kind: &Kind) {
    let items = site.items();
    let positions = count_of(items.iter().map(|item| item.position));
    let ranges: Vec<PositionRange> = positions
        .keys()
        .step_by(2)
        .map(|position| PositionRange { from: Some(*position), to: position.checked_add(1) })
        .collect();
    let within: Vec<Item> = items
        .iter()
        .copied()
        .filter(|item| ranges.iter().any(|range| range.contains(item.position)))
        .collect();
    let all = bytes(site, "packed_windows($1, 'shop.item', $2, 1000000)", &pack_ranges(&ranges));
    let all = read_manifest(&all).expect("items");
    assert_eq!((count_of(all.items), all.next), (count_of(within.clone()), None));
    // Some at a time: whole positions.
    for ranges in [ranges.clone(), vec![PositionRange::ALL]] {
        let packed = bytes(site, "packed_windows($1, 'shop.item', $2, 5)", &pack_ranges(&ranges));
        let some = read_manifest(&packed).expect("items");
        let end = some.next.unwrap_or(i64::MAX);
        let below = items.iter().filter(|item| ranges.iter().any(|range| range.contains(item.position)));
        let below: Vec<Item> =
            below.copied().filter(|item| some.next.is_none_or(|_| item.position < end)).collect();
        assert!(some.items.len() >= 5 && some.items.is_sorted_by_key(|item| item.position));
        assert_eq!(count_of(some.items), count_of(below));
    }
    let sums = bytes(site, "packed_fingerprints($1, 'shop.item', $2)", &pack_ranges(&ranges));
    let sum = |range: &PositionRange| -> Fingerprint {
        items.iter().filter(|item| range.contains(item.position)).map(|item| item.digest).collect()
    };
    assert_eq!(read_fingerprints(&sums).expect("sums"), ranges.iter().map(sum).collect::<Vec<_>>());
    let mut tail = |rows: i32, upto: i64| -> Option<i64> {
        let sql = "SELECT plimsoll.tail_start($1, 'shop.item', $2, $3)";
        site.agent.query_one(sql, &[&site.till.id, &upto, &rows]).expect("a tail").get(0)
    };
    assert_eq!(tail(1, i64::MAX), items.last().map(|item| item.position));
    assert_eq!(tail(10, i64::MAX), Some(items[items.len() - 10].position), "{}", kind.name);
    assert_eq!(tail(1, items[7].position), Some(items[7].position));
    assert_eq!(
        (tail(ROWS as i32, i64::MAX), tail(ROWS as i32 + 1, i64::MAX)),
        (Some(items[0].position), None)
    );
    assert_eq!(tail(1, i64::MIN), None);
}

/// A mark is another after each change, also once it was changed back, and else the same.
fn marks(site: &mut Site, kind: &Kind) {
    let sql = "SELECT plimsoll.change_mark($1, 'shop.item')";
    let till = site.till.id;
    let mark = |site: &mut Site| -> Vec<u8> { site.agent.query_one(sql, &[&till]).expect("a mark").get(0) };
    let before = mark(site);
    assert_eq!(mark(site), before, "{}", kind.name);
    let mut seen = vec![before];
    for fold in [false, true, false] {
        // Out and in again, in two statements.
        let columns: String = site.value(
            "SELECT string_agg(quote_ident(column_name), ', ') FROM plimsoll.table_schema($D, 'shop.item')",
        );
        site.run(&format!(
            "CREATE TEMPORARY TABLE aside AS SELECT {columns} FROM shop.item WHERE database_id = $D;
             DELETE FROM shop.item WHERE database_id = $D;
             INSERT INTO shop.item (client_id, database_id, {columns}) SELECT 'acme', $D, {columns} FROM aside;
             DROP TABLE aside"
        ));
        if fold {
            site.superuser
                .execute("SELECT plimsoll.fold_manifest($1, 'shop.item')", &[&till])
                .expect("a fold");
        }
        let now = mark(site);
        assert!(!seen.contains(&now), "{}", kind.name);
        seen.push(now);
    }
    site.right();
}

/// The rows with some keys.
fn by_key(site: &mut Site, kind: &Kind) {
    let items: Vec<ShortItem> = site.items().iter().map(ShortItem::from).collect();
    let keyed = bytes(site, "packed_keys($1, 'shop.item', $2)", &pack_items(&items[..20]));
    let (keyed, _) = read_keyed(&keyed).expect("keys");
    let mut keys = BatchWriter::new();
    keyed.iter().for_each(|row| keys.push(&row.key));
    if kind.is_keyless {
        let sql = "SELECT plimsoll.packed_lookup($1, 'shop.item', $2)";
        drop(refused(site.agent.query_one(sql, &[&site.till.id, &keys.finish()]), "0A000"));
        return;
    }
    let rows = bytes(site, "packed_lookup($1, 'shop.item', $2)", &keys.finish());
    let mut digester = site.digester();
    let rows = BatchReader::new(&rows)
        .expect("rows")
        .map(|row| digester.digest(row.expect("a row")).expect("sound"));
    assert_eq!(count_of(rows), count_of(keyed.iter().map(|row| row.item.digest)), "{}", kind.name);
    let none = bytes(site, "packed_lookup($1, 'shop.item', $2)", &BatchWriter::new().finish());
    assert_eq!(BatchReader::new(&none).expect("rows").rows_left(), 0);
    let mut broken = BatchWriter::new();
    broken.push(&[1]);
    let sql = "SELECT plimsoll.packed_lookup($1, 'shop.item', $2)";
    drop(refused(site.agent.query_one(sql, &[&site.till.id, &broken.finish()]), "22P03"));
}

fn deletes(site: &mut Site, kind: &Kind) {
    // By hand, the row that was uploaded first.
    let row = (kind.row)(1, 1);
    let key = match kind.name {
        "without version" => json!({"id": row["id"], "code": row["code"]}),
        _ if kind.is_keyless => row,
        _ => json!({"id": row["id"]}),
    };
    let sql = "SELECT deleted FROM plimsoll.delete_rows($1, 'shop.item', $2::jsonb)";
    let named = json!([{ "key": key }]);
    let deleted: i64 = site.agent.query_one(sql, &[&site.till.id, &named]).expect("a delete").get(0);
    assert_eq!(deleted, 1, "one copy");
    site.right();
    // A range, then what is left.
    let items = site.items();
    let middle = items[items.len() / 2].position;
    let above = items.iter().filter(|item| item.position >= middle).count() as i64;
    let sql = "SELECT deleted, held FROM plimsoll.delete_range($1, 'shop.item', int8range($2, NULL))";
    let row = site.superuser.query_one(sql, &[&site.till.id, &middle]).expect("a delete");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (above, 0));
    site.right();
    let sql = "SELECT deleted FROM plimsoll.delete_all($1, 'shop.item')";
    let deleted: i64 = site.superuser.query_one(sql, &[&site.till.id]).expect("a delete").get(0);
    assert_eq!(deleted, ROWS - 1 - above);
    site.right();
}
