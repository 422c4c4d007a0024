//! Real records: the Lahman baseball database as a client's on-premises database. Replicated, changed a
//! thousand times on both sides in every way, made level again, and compared value by value.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use fastrand::Rng;
use plimsoll_cluster::{Runner, Workspace};
use plimsoll_tests::{Comparison, LOCAL, Site, assert_equal, shared, table_of};
use postgres::Client;
use rusqlite::Connection;

const TABLES: [&str; 3] = ["people", "batting", "salaries"];

/// Changes in all, made in so many bursts with a run between them.
const CHANGES: u64 = 1_000;
const BURSTS: u64 = 4;

/// Windows of the largest table, 108,789 rows of which 10,000 make the first and smallest window, and two
/// runs for what only shows when others are mended.
const MOST_RUNS: u32 = 108_789_u32.div_ceil(10_000) + 2;

/// The database's file, unpacked; none where it is not on this machine.
fn unpacked() -> Option<Vec<u8>> {
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
    Some(bytes)
}

fn seed() -> u64 {
    let given = std::env::var("PLIMSOLL_SEED").ok();
    given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("PLIMSOLL_SEED is a number"))
}

/// Both sides, and what a script of changes must know of them.
struct Script {
    rng: Rng,
    /// Equality with the tenant, by which the managed tables' indexes begin.
    mine: String,
    local: Connection,
    server: Client,
    /// Versions below the highest that no local row has any more.
    freed: Vec<i64>,
    made: std::collections::BTreeMap<&'static str, u64>,
}

/// One way to change a row; answers whether a row was changed.
type Change = fn(&mut Script, &'static str) -> bool;

const KINDS: [(&str, Change); 11] = [
    ("inserted", Script::insert),
    ("inserted late with a low version", Script::insert_late),
    ("updated", Script::update),
    ("updated in place", Script::update_in_place),
    ("renamed", Script::rename),
    ("deleted", Script::delete),
    ("deleted on the server", Script::delete_remote),
    ("altered on the server", Script::alter_remote),
    ("altered on the server, version raised", Script::raise_remote),
    ("altered on the server, version lowered", Script::lower_remote),
    ("inserted on the server", Script::insert_remote),
];

/// The column that changes, and the key's column that a new row gets a new value in.
fn columns(table: &str) -> (&'static str, &'static str) {
    match table {
        "people" => ("weight", "playerID"),
        "batting" => ("2B", "stint"),
        _ => ("salary", "teamID"),
    }
}

fn other_columns(local: &Connection, table: &str) -> Vec<String> {
    let (_, key) = columns(table);
    let mut statement = local.prepare("SELECT name FROM pragma_table_info(?1)").expect("a statement");
    let names = statement.query_map([table], |row| row.get(0)).expect("the columns");
    let names = names.map(|name: rusqlite::Result<String>| name.expect("a name"));
    let left_out = [key, "row_version", "modified_at"];
    names.filter(|name| !left_out.contains(&name.as_str())).map(|name| format!("\"{name}\"")).collect()
}

impl Script {
    fn make(&mut self, changes: u64) {
        for change in 0..changes {
            let (name, kind) = KINDS[change as usize % KINDS.len()];
            let table = self.rng.choice(TABLES).expect("a table");
            // A row may be gone from where the change looks for one.
            while !kind(self, table) {}
            *self.made.entry(name).or_default() += 1;
        }
    }

    /// The row id and the version of some local row.
    fn some_row(&mut self, table: &str) -> (i64, i64) {
        let query = format!("SELECT max(rowid) FROM {table}");
        let most: i64 = self.local.query_row(&query, [], |row| row.get(0)).expect("rows");
        let query =
            format!("SELECT rowid, row_version FROM {table} WHERE rowid >= ?1 ORDER BY rowid LIMIT 1");
        let from = self.rng.i64(1..=most);
        self.local.query_row(&query, [from], |row| Ok((row.get(0)?, row.get(1)?))).expect("a row")
    }

    /// The version of some remote row.
    fn some_remote(&mut self, table: &str) -> Option<i64> {
        let (from, mine) = (self.rng.i64(1..155_000), &self.mine);
        let query =
            format!("SELECT row_version FROM {table} WHERE {mine} AND row_version >= $1 ORDER BY 1 LIMIT 1");
        self.server.query_opt(&query, &[&from]).expect("a row").map(|row| row.get(0))
    }

    fn next_version(&mut self) -> i64 {
        let sql = "UPDATE row_version_counter SET value = value + 1 RETURNING value";
        self.local.query_row(sql, [], |row| row.get(0)).expect("a version")
    }

    /// A value that no key has yet.
    fn new_key(&mut self, table: &str) -> String {
        match table {
            "people" => format!("'zz{:07}ü'", self.rng.u32(..10_000_000)),
            "batting" => self.rng.i32(100..2_000_000_000).to_string(),
            _ => format!("'{}'", (0..3).map(|_| self.rng.uppercase()).collect::<String>()),
        }
    }

    fn new_value(&mut self, table: &str) -> String {
        match (table, self.rng.u8(..10)) {
            (_, 0) => "NULL".to_owned(),
            ("salaries", _) => format!("{}.{:02}", self.rng.u32(..9_000_000), self.rng.u8(..100)),
            _ => self.rng.i32(-5..100_000).to_string(),
        }
    }

    fn insert_version(&mut self, table: &str, version: i64) -> bool {
        let (rowid, _) = self.some_row(table);
        let (key, (_, key_column)) = (self.new_key(table), columns(table));
        let others = other_columns(&self.local, table).join(", ");
        let sql = format!(
            "INSERT INTO {table} ({others}, \"{key_column}\", row_version, modified_at)
             SELECT {others}, {key}, ?1, strftime('%Y-%m-%dT%H:%M:%fZ', 'now') FROM {table} WHERE rowid = ?2"
        );
        // A made-up key may be there already.
        self.local.execute(&sql, [version, rowid]).is_ok()
    }

    fn insert(&mut self, table: &'static str) -> bool {
        let version = self.next_version();
        self.insert_version(table, version)
    }

    fn insert_late(&mut self, table: &'static str) -> bool {
        match self.freed.pop() {
            Some(version) => self.insert_version(table, version),
            // None is free yet: a row that is deleted leaves its own.
            None => {
                self.delete(table);
                false
            }
        }
    }

    fn update(&mut self, table: &'static str) -> bool {
        let (rowid, version) = self.some_row(table);
        let (value, (column, _)) = (self.new_value(table), columns(table));
        let sql = format!("UPDATE {table} SET \"{column}\" = {value} WHERE rowid = ?1");
        self.freed.push(version);
        self.local.execute(&sql, [rowid]).expect("an update") == 1
    }

    /// The version ends as it was, which the triggers prevent unless it changes twice.
    fn update_in_place(&mut self, table: &'static str) -> bool {
        let (rowid, version) = self.some_row(table);
        let (value, (column, _)) = (self.new_value(table), columns(table));
        let there = format!("UPDATE {table} SET \"{column}\" = {value}, row_version = -1 WHERE rowid = ?1");
        let back = format!("UPDATE {table} SET row_version = ?2 WHERE rowid = ?1");
        self.local.execute(&there, [rowid]).expect("an update") == 1
            && self.local.execute(&back, [rowid, version]).expect("an update") == 1
    }

    fn rename(&mut self, table: &'static str) -> bool {
        let (rowid, version) = self.some_row(table);
        let (key, (_, key_column)) = (self.new_key(table), columns(table));
        let sql = format!("UPDATE {table} SET \"{key_column}\" = {key} WHERE rowid = ?1");
        let done = self.local.execute(&sql, [rowid]).is_ok();
        self.freed.extend(done.then_some(version));
        done
    }

    fn delete(&mut self, table: &'static str) -> bool {
        let (rowid, version) = self.some_row(table);
        self.freed.push(version);
        self.local.execute(&format!("DELETE FROM {table} WHERE rowid = ?1"), [rowid]).expect("a delete") == 1
    }

    /// Runs a statement on the row of some version, as the tables' owner.
    fn remote(&mut self, table: &str, statement: &str) -> bool {
        let Some(version) = self.some_remote(table) else { return false };
        let sql = format!("{statement} WHERE {} AND row_version = $1", self.mine);
        self.server.execute(&sql, &[&version]).is_ok_and(|rows| rows == 1)
    }

    fn delete_remote(&mut self, table: &'static str) -> bool {
        self.remote(table, &format!("DELETE FROM {table}"))
    }

    fn alter_remote(&mut self, table: &'static str) -> bool {
        let (column, _) = columns(table);
        let sql = format!("UPDATE {table} SET \"{column}\" = coalesce(\"{column}\", 0) + 1");
        self.remote(table, &sql)
    }

    fn raise_remote(&mut self, table: &'static str) -> bool {
        let by = self.rng.i64(1..1_000_000_000);
        self.remote(table, &format!("UPDATE {table} SET row_version = row_version + {by}"))
    }

    fn lower_remote(&mut self, table: &'static str) -> bool {
        let by = self.rng.i64(1..1_000);
        self.remote(table, &format!("UPDATE {table} SET row_version = row_version - {by}"))
    }

    fn insert_remote(&mut self, table: &'static str) -> bool {
        let (key, (_, key_column)) = (self.new_key(table), columns(table));
        let version = self.rng.i64(1..160_000);
        let others = other_columns(&self.local, table).join(", ");
        let sql = format!(
            "INSERT INTO {table} (client_id, database_id, {others}, \"{key_column}\", row_version, modified_at)
             SELECT client_id, database_id, {others}, {key}, {version}, modified_at FROM {table}"
        );
        self.remote(table, &sql)
    }
}

fn comparisons(local: &Connection) -> Vec<Comparison> {
    let table = |name: &&str| {
        let plain = Comparison::of(local, name, &format!("public.{name}")).with(
            "modified_at",
            "replace(modified_at, 'Z', '000Z')",
            "to_char(modified_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
        );
        match *name {
            "salaries" => plain.with(
                "salary",
                // printf writes NULL as 0.00.
                "CASE WHEN salary IS NOT NULL THEN printf('%.2f', salary) END",
                "salary::text",
            ),
            _ => plain,
        }
    };
    TABLES.iter().map(table).collect()
}

#[test]
fn a_real_database_is_level_again_after_a_thousand_changes() {
    let Some(bytes) = unpacked() else { return };
    let seed = seed();
    println!("PLIMSOLL_SEED={seed}");
    let site = Site::new(shared());
    let agent = site.agent("lahman", "", &TABLES, "");
    std::fs::File::create(agent.home.path(LOCAL))
        .and_then(|mut file| file.write_all(&bytes))
        .expect("the database is written");
    site.create_tables(&agent);
    let local = agent.local();

    let begun = Instant::now();
    let first = agent.sync().expect_code(0).json();
    println!("first sync of 155,310 rows: {:.1} s", begun.elapsed().as_secs_f64());
    for (table, rows) in TABLES.iter().zip([20_093, 108_789, 26_428]) {
        assert_eq!(table_of(&first, table)["inserted"], rows, "{table}");
    }
    let mut server = site.owner();
    let comparisons = comparisons(&local);
    assert_equal(&comparisons, &local, &mut server, agent.registered.id);
    agent.home.run(["verify", "--quiet"]).expect_code(0);

    let mut script = Script {
        rng: Rng::with_seed(seed),
        mine: format!("client_id = 'lahman' AND database_id = '{}'", agent.registered.id),
        local: agent.local(),
        server: site.owner(),
        freed: Vec::new(),
        made: Default::default(),
    };
    for burst in 0..BURSTS {
        script.make(CHANGES / BURSTS);
        let report = if burst + 1 < BURSTS { Some(agent.sync()) } else { None };
        assert!(report.is_none_or(|run| run.code != Some(2)), "a run failed");
    }
    println!("{:?}", script.made);
    assert_eq!(script.made.values().sum::<u64>(), CHANGES);
    drop(script);
    // The judge is no blind one, and neither is verify.
    let differing: usize = comparisons
        .iter()
        .map(|table| table.differences(&local, &mut server, agent.registered.id).len())
        .sum();
    assert!(differing > 100, "only {differing} rows differ after the last burst");
    agent.home.run(["verify", "--quiet", "--table", "people"]).expect_code(1);

    let begun = Instant::now();
    let runs = agent.level_within(MOST_RUNS);
    println!("level after {runs} runs (at most {MOST_RUNS}), {:.1} s", begun.elapsed().as_secs_f64());
    assert_equal(&comparisons, &local, &mut server, agent.registered.id);
}
