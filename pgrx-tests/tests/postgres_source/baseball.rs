//! Real records: the Lahman baseball database in a Postgres of its own as the local one. All five tables, of which `parks`
//! has no version and a name with a dot, and `awards` no key either. Replicated, changed at random on both sides, made
//! level again, and compared by Postgres itself.

use std::io::{Read, Write};
use std::path::PathBuf;

use plimsoll_cluster::{Runner, Workspace};
use plimsoll_tests::table_of;
use postgres::Client;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::way::Way;

/// Table, rows, the key's column that gets a new value, a column that changes, whether it has a version.
const TABLES: [(&str, usize, &str, &str, bool); 5] = [
    ("people", 20_093, "playerid", "namegiven", true),
    ("batting", 108_789, "playerid", "lgid", true),
    ("salaries", 26_428, "playerid", "lgid", true),
    ("parks", 255, "park.key", "city", false),
    ("awards", 6_236, "playerid", "notes", false),
];

/// Windows of the largest table, and runs for what only shows when others are mended.
const MOST_RUNS: u32 = 108_789_u32.div_ceil(10_000) + 4;

/// The SQLite database, unpacked; none where it is not on this machine.
fn unpacked(folder: &std::path::Path) -> Option<Connection> {
    let path = match std::env::var_os("PLIMSOLL_BASEBALL") {
        Some(path) => PathBuf::from(path),
        None => {
            let runner = Runner::current().expect("a user");
            let root = Workspace::find(&runner).expect("a workspace").root;
            root.join("../shared/data/baseball.sqlite.gz")
        }
    };
    if !path.exists() {
        println!("SKIPPED: {} is missing (PLIMSOLL_BASEBALL names another place)", path.display());
        return None;
    }
    let packed = std::fs::File::open(&path).expect("the database can be read");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).expect("it can be unpacked");
    let file = folder.join("baseball.sqlite");
    std::fs::write(&file, bytes).expect("the database is written");
    Some(Connection::open(file).expect("a database"))
}

/// The table in Postgres, with names in lower case and the types that its values have.
fn create(from: &Connection, table: &str) -> (String, Vec<String>) {
    let mut statement = from
        .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_info(?1) ORDER BY cid")
        .expect("columns");
    let mut rows = statement.query([table]).expect("columns");
    let (mut columns, mut key, mut names) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(row) = rows.next().expect("a column") {
        let name: String = row.get::<_, String>(0).expect("a name").to_lowercase();
        let declared: String = row.get(1).expect("a type");
        let sql = match (name.as_str(), declared.as_str()) {
            ("modified_at", _) => "timestamptz".to_owned(),
            ("row_version", _) => "int8".to_owned(),
            (_, "INTEGER") => "int4".to_owned(),
            (_, declared) => declared.to_owned(),
        };
        let null = if row.get(2).expect("a flag") { " NOT NULL" } else { "" };
        columns.push(format!("\"{name}\" {sql}{null}"));
        if row.get::<_, i64>(3).expect("a place") > 0 {
            key.push(format!("\"{name}\""));
        }
        names.push(name);
    }
    if !key.is_empty() {
        columns.push(format!("PRIMARY KEY ({})", key.join(", ")));
    }
    (format!("CREATE TABLE {table} ({});", columns.join(", ")), names)
}

/// All rows of a table, as COPY takes them.
fn load(from: &Connection, to: &mut Client, table: &str) {
    let mut statement = from.prepare(&format!("SELECT * FROM {table}")).expect("a statement");
    let count = statement.column_count();
    let mut rows = statement.query([]).expect("rows");
    let mut writer = to.copy_in(&format!("COPY {table} FROM STDIN")).expect("a copy");
    while let Some(row) = rows.next().expect("a row") {
        let values = (0..count).map(|place| match row.get_ref(place).expect("a value") {
            ValueRef::Null => "\\N".to_owned(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => number.to_string(),
            ValueRef::Text(text) | ValueRef::Blob(text) => {
                String::from_utf8_lossy(text).replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
            }
        });
        let line = values.collect::<Vec<_>>().join("\t") + "\n";
        writer.write_all(line.as_bytes()).expect("a line");
    }
    writer.finish().expect("the rows are stored");
}

/// The rows of a table that a seed chooses.
fn some(table: &str, seed: &str, rows: u32, mine: &str) -> String {
    format!(
        "ctid IN (SELECT ctid FROM {table} t WHERE {mine} ORDER BY md5(t::text || '{seed}') LIMIT {rows})"
    )
}

/// Changes rows of one side in every way; `mine` chooses the rows of this database, `columns` are all but the tenant's.
fn change(client: &mut Client, seed: &str, mine: &str, columns: &dyn Fn(&str) -> Vec<String>, tenant: &str) {
    let is_local = tenant.is_empty();
    for (table, _, key, other, versioned) in TABLES {
        let chosen = |what: &str, rows: u32| some(table, &format!("{seed}{what}"), rows, mine);
        let raised = match versioned && is_local {
            true => ", row_version = nextval('versions')",
            false => "",
        };
        let quoted: Vec<String> = columns(table).iter().map(|name| format!("\"{name}\"")).collect();
        // Copies of rows under new keys; of rows without a key, as they are.
        let copied: Vec<String> = columns(table)
            .iter()
            .map(|name| match name.as_str() {
                name if name == key && table != "awards" => format!("right(md5(\"{name}\" || '{seed}'), 9)"),
                "row_version" if is_local => "nextval('versions')".to_owned(),
                name => format!("\"{name}\""),
            })
            .collect();
        let (list, copies) = (quoted.join(", "), copied.join(", "));
        for sql in [
            format!("UPDATE {table} SET \"{other}\" = 'x'{raised} WHERE {}", chosen("update", 15)),
            format!("UPDATE {table} SET \"{other}\" = 'y' WHERE {}", chosen("in place", 10)),
            format!("DELETE FROM {table} WHERE {}", chosen("delete", 10)),
            format!(
                "INSERT INTO {table} ({tenant}{list}) SELECT {tenant}{copies} FROM {table} WHERE {}",
                chosen("insert", 12)
            ),
            format!(
                "UPDATE {table} SET \"{key}\" = right(md5(\"{key}\" || 'k{seed}'), 9){raised} WHERE {}",
                chosen("key", 5)
            ),
        ] {
            let changed = client.execute(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            assert!(changed > 0, "{sql}");
        }
    }
}

#[test]
fn five_real_tables_are_level_again_after_random_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(from) = unpacked(folder.path()) else { return };
    let seed = std::env::var("PLIMSOLL_SEED").unwrap_or_else(|_| fastrand::u32(..).to_string());
    println!("PLIMSOLL_SEED={seed}");
    let made: Vec<_> = TABLES.iter().map(|(table, ..)| create(&from, table)).collect();
    let sql: String = made.iter().map(|(sql, _)| sql.as_str()).collect();
    let indexes: String = TABLES
        .iter()
        .filter(|(.., versioned)| *versioned)
        .map(|(table, ..)| format!("CREATE INDEX ON {table} (row_version);"))
        .collect();
    let names = TABLES.map(|(table, ..)| table);
    let mut way = Way::new(&format!("{sql}{indexes}CREATE SEQUENCE versions START 1000000"), &names, "");
    for table in names {
        load(&from, &mut way.local.writer, table);
    }
    let columns = |table: &str| {
        let at = names.iter().position(|name| *name == table).expect("a table");
        made[at].1.clone()
    };
    let list =
        |table: &str| columns(table).iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    way.create_tables();
    let first = way.agent.sync().expect_code(0).json();
    for (table, rows, ..) in TABLES {
        assert_eq!(table_of(&first, table)["inserted"], rows, "{table}: {first:#}");
        way.assert_equal(table, &format!("public.{table}"), &list(table));
    }
    way.verify();

    let mine = format!("database_id = '{}'", way.agent.registered.id);
    change(&mut way.local.writer, &seed, "true", &columns, "");
    let mut owner = way.site.owner();
    owner.batch_execute("SET search_path = public").expect("a setting");
    change(&mut owner, &format!("r{seed}"), &mine, &columns, "client_id, database_id, ");
    let (here, there) = way.rows("awards", "public.awards", &list("awards"));
    assert_ne!(here, there, "the judge is no blind one");
    way.agent.home.run(["verify", "--quiet"]).expect_code(1);
    let runs = way.agent.level_within(MOST_RUNS);
    println!("level after {runs} runs (at most {MOST_RUNS})");
    for table in names {
        way.assert_equal(table, &format!("public.{table}"), &list(table));
    }
}
