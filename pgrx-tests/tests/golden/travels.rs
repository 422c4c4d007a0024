//! Values that travel both ways.

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::row::{BatchWriter, RowWriter, put_varint};
use plimsoll_core::value::{ColumnType, Value};
use plimsoll_tests::shared;

use crate::bench::{bench, numbers, row};
use crate::corpus::{Entry, fingerprint_key};

#[test]
fn stored_values_are_handed_out_and_taken_with_the_bytes_of_the_corpus() {
    let (mut bench, tables) = bench();
    let mut digester = Digester::new(FingerprintKey::new(fingerprint_key()));
    let mut compared = 0;
    for (table, (sql, entries)) in &tables {
        let numbers = numbers(&mut bench, table);
        let accepted: Vec<&Entry> = entries.iter().filter(|entry| entry.refused.is_none()).collect();
        let mut upload = BatchWriter::new();
        for (id, entry) in (1..).zip(&accepted) {
            let insert = format!("INSERT INTO public.{table} VALUES ('shop', $1, $2, $2, $3::text::{sql})");
            bench
                .client
                .execute(&insert, &[&bench.plain.id, &id, &entry.text])
                .unwrap_or_else(|error| panic!("{}: {error:?}", entry.name));
            upload.push(&row(id, numbers, entry.wire.as_ref().expect("a wire form")));
        }
        let plain = bench.plain.clone();
        let stored = bench.rows(table, &plain);
        for ((id, entry), (found, digest, _)) in (1..).zip(&accepted).zip(&stored) {
            let expected = row(id, numbers, &entry.stored);
            assert_eq!(found, &expected, "{}: bytes", entry.name);
            let expected = digester.digest(&row(id, numbers, entry.wire.as_ref().expect("a wire form")));
            assert_eq!(digest[..], expected.expect(entry.name).0[..], "{}: digest", entry.name);
        }
        // A value alone, as an argument and within a row, is what the corpus is made of.
        let alone = format!(
            "SELECT plimsoll.fingerprint($1, value), plimsoll.fingerprint($1, ROW(value))
             FROM public.{table} WHERE database_id = $2 GROUP BY id ORDER BY id"
        );
        let alone =
            bench.client.query(&alone, &[&&fingerprint_key()[..], &bench.plain.id]).expect("fingerprints");
        assert_eq!(alone.len(), accepted.len(), "{table}");
        for (entry, found) in accepted.iter().zip(&alone) {
            assert_eq!(found.get::<_, Vec<u8>>(1), entry.digest, "{}: within a row", entry.name);
            // A composite alone is a whole row.
            if !matches!(entry.column_type, ColumnType::Composite(_)) {
                assert_eq!(found.get::<_, Vec<u8>>(0), entry.digest, "{}: alone", entry.name);
            }
        }
        let placed = format!(
            "SELECT plimsoll_open.hash_position('{{1}}', value), plimsoll_open.hash_position('{{1,2}}', ROW(value, NULL::text))
             FROM public.{table} WHERE database_id = $1 ORDER BY id"
        );
        let placed = bench.client.query(&placed, &[&bench.plain.id]).expect("positions");
        for (entry, found) in accepted.iter().zip(&placed) {
            let found: (i64, Option<i64>) = (found.get(0), found.get(1));
            assert_eq!(found, (entry.position, Some(entry.position)), "{}: position", entry.name);
        }
        let sql = "SELECT inserted, rejected::text FROM plimsoll.upload($1, $2, $3::bytea)";
        let answer = bench
            .client
            .query_one(sql, &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()])
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        assert_eq!((answer.get(0), answer.get(1)), (accepted.len() as i64, "[]"), "{table}");
        let uploaded = bench.uploaded.clone();
        let uploaded = bench.rows(table, &uploaded);
        for ((entry, plain), uploaded) in accepted.iter().zip(&stored).zip(&uploaded) {
            assert_eq!(plain, uploaded, "{}", entry.name);
            compared += 1;
        }
    }
    // Up to 14 no numeric has more decimals than digits.
    let least = if shared().major() < 15 { 265 } else { 270 };
    assert!(compared > least, "only {compared} values were compared");
}

#[test]
fn values_of_composites_nested_to_the_limit_travel_both_ways() {
    let (mut bench, _) = bench();
    let owner = &bench.owner;
    let create = format!(
        "CREATE DOMAIN public.counted AS int4 NOT NULL CHECK (VALUE > 0);
         DO $$ BEGIN
             CREATE TYPE public.deep_1 AS (gone text, a int4, b public.counted);
             ALTER TYPE public.deep_1 DROP ATTRIBUTE gone;
             FOR i IN 2 .. 31 LOOP
                 EXECUTE format('CREATE TYPE public.deep_%s AS (a public.deep_%s, b text)', i, i - 1);
             END LOOP;
         END $$;
         CREATE TABLE public.deep (client_id text NOT NULL, database_id uuid NOT NULL,
             id int8 NOT NULL, v int8 NOT NULL, value public.deep_31[],
             PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE public.deep OWNER TO {owner};
         SELECT plimsoll.manage_table('public.deep', version_column => 'v', keep_manifest => true)"
    );
    bench.client.batch_execute(&create).expect("a table");
    let numbers = numbers(&mut bench, "deep");
    let field = |counted: Option<i64>| {
        let mut inner = Vec::new();
        let mut writer = RowWriter::new(&mut inner);
        writer.field(2, &Value::Int(7));
        if let Some(counted) = counted {
            writer.field(3, &Value::Int(counted));
        }
        let mut value = tagged(19, &inner);
        for _ in 2..=31 {
            let mut attributes = vec![1];
            attributes.extend_from_slice(&value);
            value = tagged(19, &attributes);
        }
        let mut array = vec![1, 1, 0, 0, 0, 1, 0, 0, 0];
        array.extend_from_slice(&value);
        let mut field = vec![1];
        field.extend_from_slice(&tagged(16, &array));
        field
    };
    let good = row(1, numbers, &field(Some(5)));
    let mut upload = BatchWriter::new();
    upload.push(&good);
    upload.push(&row(2, numbers, &field(Some(-5))));
    upload.push(&row(3, numbers, &field(None)));
    let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
    let answer = bench.client.query_one(sql, &[&bench.uploaded.id, &"public.deep", &upload.finish()]);
    let answer = answer.expect("an upload");
    let rejected: serde_json::Value = answer.get(1);
    let states: Vec<_> =
        rejected.as_array().expect("a list").iter().map(|row| row["sqlstate"].as_str()).collect();
    assert_eq!((answer.get::<_, i64>(0), states), (1, vec![Some("23514"), Some("23502")]), "{rejected}");
    let uploaded = bench.uploaded.clone();
    // Its text would be longer than Postgres has room for.
    assert_eq!(bench.rows_with("deep", &uploaded, "NULL")[0].0, good);
    // An attribute that comes, and one that goes, while the trigger knows the type by heart: what was counted before
    // is not trusted any more, and what is counted from then on is right.
    for change in ["ADD ATTRIBUTE late text", "DROP ATTRIBUTE b"] {
        let id = bench.uploaded.id;
        bench.client.batch_execute(&format!("ALTER TYPE public.deep_1 {change}")).expect(change);
        let rebuilt = "SELECT plimsoll.rebuild_manifest($1, 'public.deep')";
        bench.client.execute(rebuilt, &[&id]).expect("a manifest");
        bench.client.batch_execute("UPDATE public.deep SET v = v + 1").expect("a change");
        let wrong = "SELECT FROM plimsoll.check_manifest($1, 'public.deep')";
        assert!(bench.client.query(wrong, &[&id]).expect("a check").is_empty(), "{change}");
        bench.rows_with("deep", &uploaded, "NULL");
    }
}

/// A value of these bytes with its tag.
fn tagged(tag: u8, payload: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    put_varint(&mut value, payload.len() as u64);
    value.extend_from_slice(payload);
    value
}

#[test]
fn a_table_of_a_thousand_columns_travels_both_ways() {
    let (mut bench, _) = bench();
    let owner = &bench.owner;
    let kinds = ["int4", "text", "numeric", "timestamptz", "int4[]"];
    let columns: Vec<String> = (0..1000).map(|i| format!("c{i} {}", kinds[i % kinds.len()])).collect();
    let create = format!(
        "CREATE TABLE public.wide (client_id text NOT NULL, database_id uuid NOT NULL,
             id int8 NOT NULL, v int8 NOT NULL, {},
             PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE public.wide OWNER TO {owner};
         SELECT plimsoll.manage_table('public.wide', version_column => 'v')",
        columns.join(", ")
    );
    bench.client.batch_execute(&create).expect("a wide table");
    let values = ["7", "'x'", "1.50", "'2024-06-01 12:00:00+02'", "'{1,NULL}'"];
    let some: Vec<&str> =
        (0..1000).map(|i| if i % 7 == 0 { "NULL" } else { values[i % values.len()] }).collect();
    let insert =
        format!("INSERT INTO public.wide VALUES ('shop', '{}', 1, 1, {})", bench.plain.id, some.join(", "));
    bench.client.batch_execute(&insert).expect("a wide row");
    let (plain, uploaded) = (bench.plain.clone(), bench.uploaded.clone());
    let stored = bench.rows_with("wide", &plain, "NULL");
    let fields = plimsoll_core::row::Fields::new(&stored[0].0).count();
    assert_eq!(fields, 2 + 1000 - 1000_usize.div_ceil(7));
    let mut upload = BatchWriter::new();
    upload.push(&stored[0].0);
    let sql = "SELECT inserted, rejected::text FROM plimsoll.upload($1, $2, $3::bytea)";
    let answer =
        bench.client.query_one(sql, &[&uploaded.id, &"public.wide", &upload.finish()]).expect("an upload");
    assert_eq!((answer.get(0), answer.get(1)), (1i64, "[]"));
    assert_eq!(bench.rows_with("wide", &uploaded, "NULL"), stored);
}
