//! A table for each type of the corpus, in a database whose settings text depends on.

use std::collections::BTreeMap;

use plimsoll_core::manifest::read_manifest;
use plimsoll_core::row::{RowWriter, put_varint};
use plimsoll_core::value::{ColumnType, Value};
use plimsoll_tests::{Registered, shared};
use postgres::Client;

use crate::corpus::{Entry, entries, fingerprint_key};

/// A database with one managed table for each column type of the corpus, and two tenants: one filled by plain
/// SQL, one by uploads.
pub struct Bench {
    pub client: Client,
    pub owner: String,
    pub plain: Registered,
    pub uploaded: Registered,
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
pub type Tables = BTreeMap<String, (String, Vec<Entry>)>;

pub fn bench() -> (Bench, Tables) {
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
    pub fn column_number(&mut self, table: &str, column: &str) -> u32 {
        let sql =
            "SELECT column_number, column_type FROM plimsoll.table_schema($1, $2) WHERE column_name = $3";
        let row = self.client.query_one(sql, &[&self.plain.id, &format!("public.{table}"), &column]);
        row.expect("a column").get::<_, i32>(0) as u32
    }

    /// The rows of a tenant by id: what was downloaded, the digest in the manifest, the value as text.
    pub fn rows(&mut self, table: &str, tenant: &Registered) -> Vec<(Vec<u8>, Vec<u8>, Option<String>)> {
        self.rows_with(table, tenant, "value::text")
    }

    /// The same, with another text.
    pub fn rows_with(
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
pub fn row(id: i64, numbers: [u32; 3], field: &[u8]) -> Vec<u8> {
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

pub fn numbers(bench: &mut Bench, table: &str) -> [u32; 3] {
    let numbers = ["id", "v", "value"].map(|column| bench.column_number(table, column));
    assert!(numbers[0] < numbers[1] && numbers[1] < numbers[2], "{numbers:?}");
    numbers
}
