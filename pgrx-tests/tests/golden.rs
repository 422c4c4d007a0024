//! The golden corpus against a real server: what plain SQL stored is handed out with the corpus' bytes and
//! digests, and the same bytes uploaded store what plain SQL stored.

#[path = "../../core/tests/golden/corpus.rs"]
mod corpus;

use std::collections::BTreeMap;

use corpus::{Entry, bytes, entries, fingerprint_key};
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::read_manifest;
use plimsoll_core::row::{BatchWriter, RowWriter, put_varint};
use plimsoll_core::value::{ColumnType, Value};
use plimsoll_tests::{Registered, shared};
use postgres::Client;

/// A database with one managed table for each column type of the corpus, and two tenants: one filled by plain
/// SQL, one by uploads.
struct Bench {
    client: Client,
    owner: String,
    plain: Registered,
    uploaded: Registered,
}

/// Types that the corpus needs and that have to be created, each with its statements.
#[derive(Default)]
struct Created {
    types: Vec<(ColumnType, String, String)>,
}

impl Created {
    /// The name of such a type, created by what `statements` makes of its name.
    fn named(&mut self, of: &ColumnType, statements: impl FnOnce(&str) -> String) -> String {
        if let Some((_, name, _)) = self.types.iter().find(|(known, ..)| known == of) {
            return name.clone();
        }
        let name = format!("public.made_{}", self.types.len());
        let sql = statements(&name);
        self.types.push((of.clone(), name.clone(), sql));
        name
    }

    /// The type as CREATE TABLE takes it; `None` where this server has no such type.
    fn sql_type(&mut self, column_type: &ColumnType, server_version: i32) -> Option<String> {
        let text = |text: &str| text.replace('\'', "''");
        Some(match column_type {
            ColumnType::Numeric(Some((precision, scale))) if server_version < 150_000 => {
                if *scale < 0 || i32::from(*scale) > i32::from(*precision) {
                    return None;
                }
                column_type.to_string()
            }
            ColumnType::Array(element) => {
                let inner = self.sql_type(element, server_version)?;
                match **element {
                    // An array's elements are arrays where a domain says so.
                    ColumnType::Array(_) => {
                        let domain = |name: &str| format!("CREATE DOMAIN {name} AS {inner}");
                        format!("{}[]", self.named(element, domain))
                    }
                    _ => format!("{inner}[]"),
                }
            }
            ColumnType::Enum(labels) => self.named(column_type, |name| {
                let labels: Vec<String> = labels.iter().map(|label| format!("'{}'", text(label))).collect();
                format!("CREATE TYPE {name} AS ENUM ({})", labels.join(", "))
            }),
            ColumnType::Range(bound) => match &**bound {
                ColumnType::Int4 => "int4range".to_owned(),
                ColumnType::Int8 => "int8range".to_owned(),
                ColumnType::Numeric(None) => "numrange".to_owned(),
                ColumnType::Date => "daterange".to_owned(),
                ColumnType::Timestamp(6) => "tsrange".to_owned(),
                ColumnType::Timestamptz(6) => "tstzrange".to_owned(),
                bound => {
                    let bound = self.sql_type(bound, server_version)?;
                    self.named(column_type, |name| format!("CREATE TYPE {name} AS RANGE (subtype = {bound})"))
                }
            },
            ColumnType::Multirange(bound) => {
                let range = self.sql_type(&ColumnType::Range(bound.clone()), server_version)?;
                range.strip_suffix("range").expect("one that is there").to_owned() + "multirange"
            }
            ColumnType::Composite(attributes) => {
                // Attributes that are not there were, and were dropped.
                let last = attributes.last().map_or(0, |attribute| attribute.number);
                let (mut columns, mut drops) = (Vec::new(), String::new());
                let mut there = attributes.iter().peekable();
                for number in 1..=last {
                    match there.next_if(|attribute| attribute.number == number) {
                        Some(attribute) => {
                            let sql = self.sql_type(&attribute.column_type, server_version)?;
                            columns.push(format!("\"{}\" {sql}", attribute.name.replace('"', "\"\"")));
                        }
                        None => {
                            columns.push(format!("gone_{number} text"));
                            drops += &format!("; ALTER TYPE %I DROP ATTRIBUTE gone_{number}");
                        }
                    }
                }
                self.named(column_type, |name| {
                    format!("CREATE TYPE {name} AS ({}){}", columns.join(", "), drops.replace("%I", name))
                })
            }
            ColumnType::Other(name) => name.clone(),
            other => other.to_string(),
        })
    }
}

/// The entries of each column type that this server can have, under the table's name.
type Tables = BTreeMap<String, (String, Vec<Entry>)>;

fn bench() -> (Bench, Tables) {
    let cluster = shared();
    let database = cluster.create_database();
    let owner = cluster.create_owner();
    let plain = cluster.register(&database, "shop", "plain");
    let uploaded = cluster.register(&database, "shop", "uploaded");
    let mut client = cluster.superuser(&database);
    let version: String = client.query_one("SHOW server_version_num", &[]).expect("a setting").get(0);
    let version = version.parse().expect("a number");
    client
        .execute("UPDATE plimsoll.database_record SET fingerprint_key = $1", &[&fingerprint_key().as_slice()])
        .expect("the key is set");
    // Settings that text depends on.
    client
        .batch_execute(
            "CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION cube; CREATE EXTENSION ltree;
             SET timezone = 'Asia/Kolkata'; SET extra_float_digits = -10; SET datestyle = 'German';
             SET intervalstyle = 'sql_standard'; SET bytea_output = 'escape'",
        )
        .expect("types");
    client.batch_execute(&format!("GRANT ALL ON SCHEMA public TO {owner}")).expect("a grant");
    let (mut tables, mut names) = (Tables::new(), BTreeMap::new());
    let mut created = Created::default();
    for entry in entries() {
        let Some(sql) = created.sql_type(&entry.column_type, version) else { continue };
        let count = names.len();
        let table = names.entry(sql.clone()).or_insert_with(|| format!("t{count}")).clone();
        tables.entry(table).or_insert_with(|| (sql, Vec::new())).1.push(entry);
    }
    for (_, name, sql) in &created.types {
        client.batch_execute(sql).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    for (table, (sql, _)) in &tables {
        let sql = format!(
            "CREATE TABLE public.{table} (client_id text NOT NULL, database_id uuid NOT NULL,
                 id int8 NOT NULL, v int8 NOT NULL, value {sql},
                 PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE public.{table} OWNER TO {owner};
             SELECT plimsoll.manage_table('public.{table}', version_column => 'v')"
        );
        client.batch_execute(&sql).unwrap_or_else(|error| panic!("{table}: {error:?}"));
    }
    (Bench { client, owner, plain, uploaded }, tables)
}

impl Bench {
    fn column_number(&mut self, table: &str, column: &str) -> u32 {
        let sql =
            "SELECT column_number, column_type FROM plimsoll.table_schema($1, $2) WHERE column_name = $3";
        let row = self.client.query_one(sql, &[&self.plain.id, &format!("public.{table}"), &column]);
        row.expect("a column").get::<_, i32>(0) as u32
    }

    /// The rows of a tenant by id: what was downloaded, the digest in the manifest, the value as text.
    fn rows(&mut self, table: &str, tenant: &Registered) -> Vec<(Vec<u8>, Vec<u8>, Option<String>)> {
        self.rows_with(table, tenant, "value::text")
    }

    /// The same, with another text.
    fn rows_with(
        &mut self,
        table: &str,
        tenant: &Registered,
        text: &str,
    ) -> Vec<(Vec<u8>, Vec<u8>, Option<String>)> {
        let relation = format!("public.{table}");
        let texts = self
            .client
            .query(
                &format!("SELECT {text} FROM public.{table} WHERE database_id = $1 ORDER BY id"),
                &[&tenant.id],
            )
            .expect("values");
        let rows = self
            .client
            .query(
                "SELECT row FROM plimsoll.download($1, $2, int8range(NULL, NULL), 100000)",
                &[&tenant.id, &relation],
            )
            .expect("a download");
        let digests = self
            .client
            .query(
                "SELECT digest FROM plimsoll.manifest($1, $2, int8range(NULL, NULL))",
                &[&tenant.id, &relation],
            )
            .expect("a manifest");
        assert_eq!((rows.len(), digests.len()), (texts.len(), texts.len()), "{table}");
        // Straight from what is stored, and by way of the wire form: one digest.
        let packed: Vec<u8> = self
            .client
            .query_one(
                "SELECT plimsoll.packed_manifest($1, $2, int8range(NULL, NULL), 100000)",
                &[&tenant.id, &relation],
            )
            .expect("a packed manifest")
            .get(0);
        let packed = read_manifest(&packed).expect("a manifest").items;
        assert_eq!(packed.len(), digests.len(), "{table}");
        for (item, digest) in packed.iter().zip(&digests) {
            assert_eq!(item.digest.0[..], digest.get::<_, Vec<u8>>(0), "{table}: row {}", item.position);
        }
        let rows = rows.iter().zip(&digests).zip(&texts);
        rows.map(|((row, digest), text)| (row.get(0), digest.get(0), text.get(0))).collect()
    }
}

/// A row of a bench's table; `field` is the corpus' row of one field.
fn row(id: i64, numbers: [u32; 3], field: &[u8]) -> Vec<u8> {
    let mut row = Vec::new();
    let mut writer = RowWriter::new(&mut row);
    writer.field(numbers[0], &Value::Int(id));
    writer.field(numbers[1], &Value::Int(id));
    if let Some((1, value)) = field.split_first() {
        put_varint(&mut row, u64::from(numbers[2]));
        row.extend_from_slice(value);
    }
    row
}

fn numbers(bench: &mut Bench, table: &str) -> [u32; 3] {
    let numbers = ["id", "v", "value"].map(|column| bench.column_number(table, column));
    assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
    numbers
}

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
fn refused_values_are_rejected_one_by_one_with_their_code() {
    let (mut bench, tables) = bench();
    let mut refused = 0;
    for (table, (_, entries)) in &tables {
        let numbers = numbers(&mut bench, table);
        let mut rows = Vec::new();
        for entry in entries {
            let state = match entry.refused {
                Some("OutOfRange") => "22003",
                Some("TooLong") => "22001",
                Some("WouldChange" | "WrongType") => "22000",
                Some("InvalidText") => "22P02",
                _ => continue,
            };
            // Text that is not UTF-8 breaks the grammar: the upload as a whole is refused.
            let Some(wire) = entry.wire.as_ref().filter(|wire| plimsoll_core::row::check_row(wire).is_ok())
            else {
                continue;
            };
            rows.push((entry.name, state, row(rows.len() as i64 + 1, numbers, wire)));
        }
        let mut upload = BatchWriter::new();
        rows.iter().for_each(|(_, _, row)| upload.push(row));
        upload.push(&row(rows.len() as i64 + 1, numbers, &[]));
        let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
        let answer = bench
            .client
            .query_one(sql, &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()])
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        assert_eq!(answer.get::<_, i64>(0), 1, "{table}: the sound row is stored");
        let rejected: serde_json::Value = answer.get(1);
        let rejected = rejected.as_array().expect("a list");
        let found: Vec<_> =
            rejected.iter().map(|r| (r["ordinal"].as_u64(), r["sqlstate"].as_str())).collect();
        let expected: Vec<_> = (0..).zip(&rows).map(|(i, (_, state, _))| (Some(i), Some(*state))).collect();
        let names: Vec<_> = rows.iter().map(|(name, ..)| name).collect();
        assert_eq!(found, expected, "{table}: {names:?}");
        refused += rows.len();
    }
    assert!(refused > 35, "only {refused} values were refused");
}

#[test]
fn what_breaks_the_grammar_is_refused_with_nothing_stored() {
    let (mut bench, tables) = bench();
    let (table, _) = tables.iter().find(|(_, (sql, _))| sql == "text").expect("a table of text");
    let numbers = numbers(&mut bench, table);
    for hex in ["010502c328", "010580", "0116", "0100", "01050161ff", "0105ffffffff0f"] {
        let mut upload = BatchWriter::new();
        upload.push(&row(1, numbers, &[]));
        upload.push(&row(2, numbers, &bytes(hex)));
        let error = bench
            .client
            .query(
                "SELECT * FROM plimsoll.upload($1, $2, $3::bytea)",
                &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()],
            )
            .expect_err(hex);
        assert_eq!(error.code().map(|code| code.code()), Some("22P03"), "{hex}: {error:?}");
    }
    let sql = format!("SELECT count(*) FROM public.{table}");
    assert_eq!(bench.client.query_one(&sql, &[]).expect("a count").get::<_, i64>(0), 0);
}

#[test]
fn types_without_an_encoding_are_refused_with_the_column_and_what_to_do() {
    let (mut bench, _) = bench();
    bench
        .client
        .batch_execute(
            "CREATE TYPE public.priced AS (name text, price money);
             CREATE TYPE public.classes AS RANGE (subtype = regclass);
             CREATE DOMAIN public.cash AS money;
             DO $$ BEGIN
                 CREATE TYPE public.deep_1 AS (a int4);
                 FOR i IN 2 .. 33 LOOP
                     EXECUTE format('CREATE TYPE public.deep_%s AS (a public.deep_%s)', i, i - 1);
                 END LOOP;
             END $$",
        )
        .expect("types");
    for (sql, reason, remedy) in [
        ("money", "lc_monetary", "numeric"),
        ("money[]", "lc_monetary", "numeric"),
        ("public.cash", "lc_monetary", "numeric"),
        ("public.priced", "lc_monetary", "numeric"),
        ("regclass", "not immutable", "text"),
        ("regtype[]", "not immutable", "text"),
        ("aclitem", "not immutable", "text"),
        ("public.classes", "not immutable", "text"),
        ("bpchar", "without a length", "char(n)"),
        ("interval day to hour", "some fields", "interval"),
        ("int2vector", "system catalogue", "server_columns"),
        ("pg_node_tree", "system catalogue", "server_columns"),
        ("public.deep_33", "more than 32", "server_columns"),
    ] {
        let owner = &bench.owner;
        let create = format!(
            "CREATE TABLE public.odd (client_id text NOT NULL, database_id uuid NOT NULL,
                 id int8 NOT NULL, v int8 NOT NULL, value {sql},
                 PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE public.odd OWNER TO {owner}"
        );
        bench.client.batch_execute(&create).expect("a table");
        let manage = "SELECT plimsoll.manage_table('public.odd', version_column => 'v')";
        let error = bench.client.batch_execute(manage).expect_err(sql);
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "0A000", "{sql}: {error:?}");
        assert!(error.message().contains("column \"value\""), "{sql}: {error:?}");
        assert!(error.message().contains(reason), "{sql}: {error:?}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(remedy) && hint.contains("server_columns"), "{sql}: {error:?}");
        let with_hint =
            "SELECT plimsoll.manage_table('public.odd', version_column => 'v', server_columns => '{value}')";
        bench.client.batch_execute(with_hint).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        bench
            .client
            .batch_execute("SELECT plimsoll.unmanage_table('public.odd'); DROP TABLE public.odd")
            .expect(sql);
    }
}

#[test]
fn a_domain_is_its_base_type_and_keeps_its_constraint() {
    let (mut bench, _) = bench();
    let owner = &bench.owner;
    let create = format!(
        "CREATE DOMAIN public.price AS numeric(5,2) CHECK (VALUE > 0);
         CREATE TABLE public.priced (client_id text NOT NULL, database_id uuid NOT NULL,
             id int8 NOT NULL, v int8 NOT NULL, value public.price, list public.price[],
             PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE public.priced OWNER TO {owner};
         SELECT plimsoll.manage_table('public.priced', version_column => 'v')"
    );
    bench.client.batch_execute(&create).expect("a table");
    let numbers = numbers(&mut bench, "priced");
    let list = bench.column_number("priced", "list");
    let entries = entries();
    let wire = |name: &str| {
        let entry = entries.iter().find(|entry| entry.name == name).expect(name);
        entry.wire.clone().expect("a wire form")
    };
    let (good, bad) = (wire("numeric(5,2) fewer digits"), wire("numeric minus one"));
    let good_list = wire("array of numeric(5,2)");
    let element = |value: &[u8]| {
        let mut array = vec![1, 1, 0, 0, 0, 1, 0, 0, 0];
        array.extend_from_slice(&value[1..]);
        let mut field = vec![1, 16, array.len() as u8];
        field.extend_from_slice(&array);
        field
    };
    assert_eq!(element(&good), good_list);
    let with_list = |id, value: &[u8], array: &[u8]| {
        let mut row = row(id, numbers, value);
        put_varint(&mut row, u64::from(list));
        row.extend_from_slice(&array[1..]);
        row
    };
    let mut upload = BatchWriter::new();
    upload.push(&with_list(1, &good, &good_list));
    upload.push(&with_list(2, &bad, &good_list));
    upload.push(&with_list(3, &good, &element(&bad)));
    let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
    let answer = bench
        .client
        .query_one(sql, &[&bench.uploaded.id, &"public.priced", &upload.finish()])
        .expect("an upload");
    let rejected: serde_json::Value = answer.get(1);
    let states: Vec<_> =
        rejected.as_array().expect("a list").iter().map(|r| r["sqlstate"].as_str()).collect();
    assert_eq!((answer.get::<_, i64>(0), states), (1, vec![Some("23514"); 2]), "{rejected}");
    // The elements' type, too, is the domain.
    let sql = "SELECT value::text, list::text, list = ARRAY[1.5]::public.price[] FROM public.priced";
    let kept = bench.client.query_one(sql, &[]).expect("a row");
    assert_eq!((kept.get(0), kept.get(1), kept.get(2)), ("1.50", "{1.50}", true));
}

#[test]
fn text_that_its_type_refuses_rejects_its_row_alone_in_the_key_too() {
    let (mut bench, _) = bench();
    let owner = &bench.owner;
    let create = format!(
        "CREATE TABLE public.hosts (client_id text NOT NULL, database_id uuid NOT NULL,
             id inet NOT NULL, v int8 NOT NULL, value cidr,
             PRIMARY KEY (client_id, database_id, id));
         ALTER TABLE public.hosts OWNER TO {owner};
         SELECT plimsoll.manage_table('public.hosts', version_column => 'v')"
    );
    bench.client.batch_execute(&create).expect("a table");
    let numbers = numbers(&mut bench, "hosts");
    let mut upload = BatchWriter::new();
    for (id, value) in [("10.0.0.1", "10.0.0.0/8"), ("nowhere", "10.0.0.0/8"), ("10.0.0.2", "10.0.0.1/8")] {
        let mut row = Vec::new();
        let mut writer = RowWriter::new(&mut row);
        writer.field(numbers[0], &Value::Other(id));
        writer.field(numbers[1], &Value::Int(1));
        writer.field(numbers[2], &Value::Other(value));
        upload.push(&row);
    }
    let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
    let answer = bench
        .client
        .query_one(sql, &[&bench.uploaded.id, &"public.hosts", &upload.finish()])
        .expect("an upload");
    let rejected: serde_json::Value = answer.get(1);
    let found: Vec<_> = rejected
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (row["ordinal"].as_u64(), row["sqlstate"].as_str()))
        .collect();
    assert_eq!(found, [(Some(1), Some("22P02")), (Some(2), Some("22P02"))], "{rejected}");
    assert_eq!(answer.get::<_, i64>(0), 1);
}

/// A value that its type takes and keeps as another, and what is said of it.
const KEPT_OTHERWISE: [(&str, &str, &str, &str); 15] = [
    ("inet", "other('inet')", "10.0.0.1/32", "writes it as \"10.0.0.1\""),
    ("cidr", "other('cidr')", "10", "writes it as \"10.0.0.0/8\""),
    ("jsonpath", "other('jsonpath')", "$.a", "writes it as \"$.\\\"a\\\"\""),
    ("point", "other('point')", "(1.50,2)", "writes it as \"(1.5,2)\""),
    (
        "name",
        "other('name')",
        "0123456789012345678901234567890123456789012345678901234567890123",
        "writes it as",
    ),
    ("\"char\"", "other('\"char\"')", "xy", "writes it as \"x\""),
    ("xid", "other('xid')", "-1", "writes it as \"4294967295\""),
    ("bit(3)", "other('bit')", "10", "does not match type bit(3)"),
    ("public.hstore", "other('public.hstore')", "a=>1", "writes it as \"\\\"a\\\"=>\\\"1\\\"\""),
    ("int4range", "range(int4)", "[1,9]", "canonical form"),
    ("numrange", "range(numeric)", "[1,1)", "canonical form"),
    ("numrange", "range(numeric)", "[2,1]", "lower bound must be less"),
    ("int4multirange", "multirange(int4)", "{[3,4),[1,2)}", "not in order"),
    ("int4multirange", "multirange(int4)", "{[1,3),[3,5)}", "touch"),
    ("int4range[]", "array(range(int4))", "{\"[1,9]\"}", "canonical form"),
];

#[test]
fn values_that_their_types_keep_as_others_are_rejected_with_column_value_and_what_to_do() {
    let (mut bench, _) = bench();
    let owner = bench.owner.clone();
    for (i, (sql, core_type, text, expected)) in KEPT_OTHERWISE.into_iter().enumerate() {
        let table = format!("kept_{i}");
        let create = format!(
            "CREATE TABLE public.{table} (client_id text NOT NULL, database_id uuid NOT NULL,
                 id int8 NOT NULL, v int8 NOT NULL, value {sql},
                 PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE public.{table} OWNER TO {owner};
             SELECT plimsoll.manage_table('public.{table}', version_column => 'v')"
        );
        bench.client.batch_execute(&create).expect("a table");
        let numbers = numbers(&mut bench, &table);
        let (column_type, mut buffer) = (core_type.parse::<ColumnType>().expect("a type"), Vec::new());
        let value = plimsoll_core::value::literal::parse(text, &column_type, &mut buffer).expect(text);
        let mut field = Vec::new();
        RowWriter::new(&mut field).field(1, &value);
        let mut upload = BatchWriter::new();
        upload.push(&row(1, numbers, &[]));
        upload.push(&row(2, numbers, &field));
        upload.push(&row(3, numbers, &[]));
        let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, $2, $3::bytea)";
        let answer = bench
            .client
            .query_one(sql, &[&bench.uploaded.id, &format!("public.{table}"), &upload.finish()])
            .unwrap_or_else(|error| panic!("{text}: {error:?}"));
        let rejected: serde_json::Value = answer.get(1);
        let message = rejected[0]["message"].as_str().unwrap_or_default();
        assert_eq!(
            (answer.get::<_, i64>(0), rejected[0]["ordinal"].as_u64()),
            (2, Some(1)),
            "{text}: {rejected}"
        );
        assert_eq!(rejected[0]["column"], "value", "{text}: {rejected}");
        let shown: String = text.chars().take(40).collect();
        assert!(message.starts_with("column \"value\": "), "{text}: {message}");
        assert!(message.contains(&expected.replace("\\\"", "\"")), "{text}: {message}");
        assert!(message.contains(&shown) && message.contains("correct the value"), "{text}: {message}");
    }
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
