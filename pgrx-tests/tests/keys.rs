//! Keys of odd types: rows that the unique index takes for one another are never merged, and rows of one key are one row
//! however its value is written.

use plimsoll_core::row::{BatchWriter, RowWriter};
use plimsoll_core::value::{ColumnType, literal};
use plimsoll_tests::{Registered, shared};
use postgres::Client;

struct Bench {
    client: Client,
    tenant: Registered,
    owner: String,
}

/// What became of an upload: rows inserted, updated and unchanged, and each refused row's place, whether it waits,
/// whether somebody holds its key, and the message.
type Outcome = ((i64, i64, i64), Vec<(u64, bool, bool, String)>);

fn bench() -> Bench {
    let cluster = shared();
    let database = cluster.create_database();
    let owner = cluster.create_owner();
    let tenant = cluster.register(&database, "shop", "keys");
    let mut client = cluster.superuser(&database);
    client
        .batch_execute(&format!("CREATE EXTENSION citext; GRANT ALL ON SCHEMA public TO {owner}"))
        .expect("a type");
    Bench { client, tenant, owner }
}

impl Bench {
    fn table(&mut self, name: &str, key: &str) {
        let create = format!(
            "CREATE TABLE public.{name} (client_id text NOT NULL, database_id uuid NOT NULL, id {key} NOT NULL,
                 v int8 NOT NULL, name text);
             CREATE UNIQUE INDEX ON public.{name} (client_id, database_id, id);
             ALTER TABLE public.{name} OWNER TO {};
             SELECT plimsoll.manage_table('public.{name}', key_columns => '{{id}}', version_column => 'v',
                                          keep_manifest => true);
             SELECT plimsoll.rebuild_manifest('{}', 'public.{name}')",
            self.owner, self.tenant.id
        );
        self.client.batch_execute(&create).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }

    /// Uploads rows of key, version and name.
    fn upload(&mut self, table: &str, key_type: &str, rows: &[(&str, i64, &str)]) -> Outcome {
        let relation = format!("public.{table}");
        let key_type: ColumnType = key_type.parse().expect("a type");
        let mut upload = BatchWriter::new();
        for (key, version, name) in rows {
            let (mut row, mut buffer) = (Vec::new(), Vec::new());
            let mut writer = RowWriter::new(&mut row);
            writer.field(3, &literal::parse(key, &key_type, &mut buffer).expect(key));
            writer.field(4, &plimsoll_core::value::Value::Int(*version));
            writer.field(5, &plimsoll_core::value::Value::Text(name));
            upload.push(&row);
        }
        let sql = "SELECT inserted, updated, unchanged, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
        let row = self.client.query_one(sql, &[&self.tenant.id, &relation, &upload.finish()]).expect(table);
        let rejected: serde_json::Value = row.get(3);
        let wrong = "SELECT FROM plimsoll.check_manifest($1, $2)";
        let wrong = self.client.query(wrong, &[&self.tenant.id, &relation]).expect("a check");
        assert!(wrong.is_empty(), "{table}: the kept manifest");
        let refused = rejected.as_array().expect("a list").iter().map(|row| {
            let message = row["message"].as_str().unwrap_or_default().to_owned();
            let flag = |name: &str| row[name].as_bool().unwrap_or_default();
            (row["ordinal"].as_u64().unwrap_or(99), flag("waits"), row["holder"].is_string(), message)
        });
        ((row.get(0), row.get(1), row.get(2)), refused.collect())
    }

    /// The rows of a table: key and name.
    fn stored(&mut self, table: &str) -> Vec<(String, String)> {
        let sql = format!("SELECT id::text, name FROM public.{table} ORDER BY id, name");
        let rows = self.client.query(&sql, &[]).expect(table);
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    fn has_icu(&mut self) -> bool {
        let icu = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')";
        self.client.query_one(icu, &[]).expect("an answer").get(0)
    }
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(key, name)| (key.to_string(), name.to_string())).collect()
}

#[test]
fn keys_that_the_index_takes_for_one_another_wait_and_both_are_named() {
    let mut bench = bench();
    let mut kinds = vec![
        ("folded", "citext", "citext", "a", "A"),
        ("spans", "interval", "interval", "30 days", "1 mon"),
        ("citexts", "citext[]", "array(citext)", "{a,b}", "{A,b}"),
    ];
    if bench.has_icu() {
        let collation = "CREATE COLLATION public.ignoring_case
             (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";
        bench.client.batch_execute(collation).expect("a collation");
        kinds.push(("collated", "text COLLATE public.ignoring_case", "text", "a", "A"));
    } else {
        eprintln!("not tested, as this server has no ICU: collations that are not deterministic");
    }
    for (table, sql, key_type, stored, other) in kinds {
        bench.table(table, sql);
        let (done, refused) = bench.upload(table, key_type, &[(stored, 1, "first")]);
        assert_eq!((done, refused), ((1, 0, 0), Vec::new()), "{table}");
        // By its own key it is a row as any other.
        assert_eq!(bench.upload(table, key_type, &[(stored, 1, "first")]).0, (0, 0, 1), "{table}");
        assert_eq!(bench.upload(table, key_type, &[(stored, 2, "second")]).0, (0, 1, 0), "{table}");
        // By another key it is another row, which the index cannot hold beside it.
        // Arrays are shown as JSON.
        let shown = |key: &str| key.replace('{', "[\"").replace(',', "\",\"").replace('}', "\"]");
        let named = |message: &str| {
            [stored, other].into_iter().all(|key| message.contains(key) || message.contains(&shown(key)))
        };
        for version in [1, 3] {
            let (done, refused) = bench.upload(table, key_type, &[(other, version, "third")]);
            assert_eq!(done, (0, 0, 0), "{table}");
            let [(0, true, true, message)] = &refused[..] else { panic!("{table}: {refused:?}") };
            assert!(named(message), "{table}: {message}");
        }
        // As the client sends them once it found that the source has both.
        let (done, refused) = bench.upload(table, key_type, &[(other, 3, "third"), (stored, 4, "fourth")]);
        assert_eq!((done, refused.len(), refused[0].0), ((0, 1, 0), 1, 0), "{table}: {refused:?}");
        assert_eq!(bench.stored(table), pairs(&[(stored, "fourth")]), "{table}");
        // Both at once, with neither stored.
        bench.client.batch_execute(&format!("DELETE FROM public.{table}")).expect("no rows");
        let (done, refused) = bench.upload(table, key_type, &[(stored, 1, "first"), (other, 2, "third")]);
        assert_eq!((done, refused.len()), ((1, 0, 0), 1), "{table}: {refused:?}");
        assert!(refused[0].1 && named(&refused[0].3), "{table}: {refused:?}");
        assert_eq!(bench.stored(table).len(), 1, "{table}");
    }
}

#[test]
fn one_key_written_in_two_ways_is_one_row() {
    let mut bench = bench();
    bench.client.batch_execute("CREATE TYPE public.priced AS (price numeric)").expect("a type");
    for (table, sql, key_type, one, other) in [
        ("prices", "numeric", "numeric", "1.0", "1.00"),
        ("floats", "float8", "float8", "0", "-0"),
        ("nan", "float8", "float8", "NaN", "NaN"),
        ("padded", "char(3)", "char(3)", "a", "a "),
        ("facts", "jsonb", "jsonb", "{\"b\":1,\"a\":2.0}", "{\"a\":2,\"b\":1}"),
        ("numbers", "numeric[]", "array(numeric)", "{1.0}", "{1.00}"),
        ("ranges", "numrange", "range(numeric)", "[1.0,2)", "[1,2.00)"),
        ("composites", "public.priced", "composite(1 'price' numeric)", "(1.0)", "(1.00)"),
        (
            "uuid",
            "uuid",
            "uuid",
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        ("instant", "timestamptz", "timestamptz", "2024-06-01 12:00:00+02", "2024-06-01 10:00:00+00"),
        ("hosts", "inet", "other('inet')", "10.0.0.1", "10.0.0.1"),
    ] {
        bench.table(table, sql);
        assert_eq!(bench.upload(table, key_type, &[(one, 1, "first")]), ((1, 0, 0), Vec::new()), "{table}");
        assert_eq!(bench.upload(table, key_type, &[(other, 1, "first")]), ((0, 0, 1), Vec::new()), "{table}");
        assert_eq!(
            bench.upload(table, key_type, &[(other, 2, "second")]),
            ((0, 1, 0), Vec::new()),
            "{table}"
        );
        // Both in one upload: the last one is stored, the other one is named as it was sent.
        let (done, refused) = bench.upload(table, key_type, &[(one, 3, "fourth"), (other, 3, "third")]);
        let [(0, false, false, message)] = &refused[..] else { panic!("{table}: {refused:?}") };
        assert!(done == (0, 1, 0) && message.contains("row 1"), "{table}: {done:?} {message}");
        // Back to an older version, which takes statements.
        assert_eq!(bench.upload(table, key_type, &[(one, 1, "third")]), ((0, 1, 0), Vec::new()), "{table}");
        let stored = bench.stored(table);
        assert_eq!((stored.len(), stored[0].1.as_str()), (1, "third"), "{table}");
    }
}
