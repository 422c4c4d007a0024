//! Rows are found by the index that is made for it, whatever the planner knows of a table: it knows nothing of a new one,
//! and may know what was true long ago.

mod shop;

use plimsoll_tests::Registered;
use postgres::{Client, Transaction};
use serde_json::{Value, json};
use shop::Shop;

/// Rows of the replica.
const ROWS: i64 = 3_000;
/// Rows that a call is about, from the midst of them.
const FEW: std::ops::Range<i64> = 1_500..1_520;
/// Rows of the table that such a call may read: it looks at each a few times.
const MAY_READ: i64 = 10 * (FEW.end - FEW.start);

/// Indexes beside that of the key. All begin with the tenant's columns.
const OTHER_INDEXES: [&str; 4] = ["", "name", "name, id", "note"];

/// Tables, by what is said of columns and of how they are stored.
const KINDS: [(&str, &str, &str); 3] = [
    ("plain", "PRIMARY KEY (client_id, database_id, id)", "WITH (autovacuum_enabled = off)"),
    ("parted", "PRIMARY KEY (client_id, database_id, id)", "PARTITION BY HASH (id)"),
    ("keyless", "CHECK (id > 0)", "WITH (autovacuum_enabled = off)"),
];

fn rows(ids: std::ops::Range<i64>, version: impl Fn(i64) -> i64) -> Value {
    ids.map(|id| json!({"id": id, "v": version(id), "name": format!("name {}", id % 7), "note": "same"}))
        .collect()
}

/// Rows as they are named to be deleted.
fn named(ids: std::ops::Range<i64>, is_keyless: bool) -> Value {
    match rows(ids, |id| id) {
        Value::Array(rows) if is_keyless => rows.into_iter().map(|row| json!({"key": row})).collect(),
        Value::Array(rows) => rows.into_iter().map(|row| json!({"key": {"id": row["id"]}})).collect(),
        other => panic!("{other}"),
    }
}

/// A table with many indexes, and so many rows that were uploaded; what the planner knows is what `known` says.
fn stocked(shop: &mut Shop, kind: (&str, &str, &str), count: i64, known: &str) -> (Registered, Client) {
    let (table, constraint, storage) = kind;
    let owner: String = shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    let partition = |i| {
        format!(
            "CREATE TABLE shop.{table}_{i} PARTITION OF shop.{table} FOR VALUES WITH (MODULUS 3, REMAINDER {i})
                 WITH (autovacuum_enabled = off);"
        )
    };
    let partitions: String = if table == "parted" { (0..3).map(partition).collect() } else { String::new() };
    let index = |columns: &&str| {
        let comma = if columns.is_empty() { "" } else { ", " };
        format!("CREATE INDEX ON shop.{table} (client_id, database_id{comma}{columns});")
    };
    let (before, after) = OTHER_INDEXES.split_at(2);
    let [before, after] = [before, after].map(|columns| columns.iter().map(index).collect::<String>());
    let roles = if table == "keyless" { "key_columns => '{}'" } else { "version_column => 'v'" };
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.{table} (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 v bigint NOT NULL, name text, note text) {storage};
             {partitions} {before}
             ALTER TABLE shop.{table} ADD {constraint};
             {after}
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.{table}', {roles})"
        ))
        .expect("a managed table");
    let till = shop.register("acme", 0);
    let mut agent = shop.agent(&till);
    let relation = format!("shop.{table}");
    let sql = "SELECT inserted FROM plimsoll.upload($1, $2, $3::jsonb)";
    for first in (1..=count).step_by(5_000) {
        let some = first..(first + 5_000).min(count + 1);
        let stored = agent.query_one(sql, &[&till.id, &relation, &rows(some.clone(), |id| id)]);
        assert_eq!(stored.expect("an upload").get::<_, i64>(0), some.end - some.start);
    }
    shop.superuser.batch_execute(known).expect("what the planner knows");
    (till, agent)
}

/// Rows of the schema's tables that the session read, of late. A transaction's own are told after those that came before.
fn read(transaction: &mut Transaction<'_>) -> i64 {
    let sql = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_all_tables
               WHERE schemaname = 'shop'";
    transaction.query_one(sql, &[]).expect("counters").get(0)
}

#[test]
fn rows_are_deleted_and_changed_by_their_own_index_whatever_the_planner_knows() {
    let nothing = "SELECT";
    // As of a table that was emptied before it was filled, and looked at in between.
    let few = "UPDATE pg_class SET reltuples = 1, relpages = 1000 WHERE relnamespace = 'shop'::regnamespace
                   AND relkind = 'r'";
    for (kind, known) in KINDS.into_iter().flat_map(|kind| [(kind, nothing), (kind, few)]) {
        let mut shop = Shop::open();
        let (till, mut agent) = stocked(&mut shop, kind, ROWS, known);
        let relation = format!("shop.{}", kind.0);
        let is_keyless = kind.0 == "keyless";
        if !is_keyless {
            let mut transaction = agent.transaction().expect("a transaction");
            let before = read(&mut transaction);
            let sql = "SELECT updated FROM plimsoll.upload($1, $2, $3::jsonb)";
            let raised = rows(FEW, |id| id + ROWS);
            let row = transaction.query_one(sql, &[&till.id, &relation, &raised]).expect("an upload");
            assert_eq!(row.get::<_, i64>(0), FEW.end - FEW.start);
            let read = read(&mut transaction) - before;
            assert!(read <= MAY_READ, "{read} rows of {relation} read to change some, {known}");
        }
        let sql = "SELECT deleted FROM plimsoll.delete_rows($1, $2, $3::jsonb)";
        // The guard against destruction counts a replica when it is asked first, and remembers that.
        agent.query_one(sql, &[&till.id, &relation, &named(1..2, is_keyless)]).expect("a delete");
        let mut transaction = agent.transaction().expect("a transaction");
        let before = read(&mut transaction);
        let row =
            transaction.query_one(sql, &[&till.id, &relation, &named(FEW, is_keyless)]).expect("a delete");
        assert_eq!(row.get::<_, i64>(0), FEW.end - FEW.start);
        let read = read(&mut transaction) - before;
        assert!(read <= MAY_READ, "{read} rows of {relation} read to delete some, {known}");
    }
}

#[test]
fn a_range_is_read_by_the_index_of_positions_whatever_the_planner_knows() {
    for kind in KINDS.into_iter().take(2) {
        let mut shop = Shop::open();
        let (till, mut agent) = stocked(&mut shop, kind, ROWS, "SELECT");
        let relation = format!("shop.{}", kind.0);
        let mut transaction = agent.transaction().expect("a transaction");
        let before = read(&mut transaction);
        let sql = "SELECT row_count FROM plimsoll.range_fingerprint($1, $2, int8range($3, $4))";
        let row = transaction.query_one(sql, &[&till.id, &relation, &FEW.start, &FEW.end]).expect("a sum");
        assert_eq!(row.get::<_, i64>(0), FEW.end - FEW.start);
        let read = read(&mut transaction) - before;
        assert!(read <= MAY_READ, "{read} rows of {relation} read for a range");
    }
}

/// Hundredths of a second that a process worked.
fn worked(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
    fields[12].parse::<u64>().expect("user time") + fields[13].parse::<u64>().expect("system time")
}

/// Processor time of the server process. Measured only where `PLIMSOLL_MEASURE` is set:
/// `PLIMSOLL_MEASURE=1 cargo test -p plimsoll-tests --test statistics cost -- --nocapture`.
#[test]
fn what_deletes_and_changes_cost_in_replicas_of_different_sizes() {
    if std::env::var_os("PLIMSOLL_MEASURE").is_none() {
        return;
    }
    let some = 1_000..3_136;
    for kind in KINDS {
        for count in [11_375, 45_500] {
            let mut shop = Shop::open();
            let (till, mut agent) = stocked(&mut shop, kind, count, "SELECT");
            let (relation, is_keyless) = (format!("shop.{}", kind.0), kind.0 == "keyless");
            let pid: i32 = agent.query_one("SELECT pg_backend_pid()", &[]).expect("a pid").get(0);
            let begun = worked(pid);
            if !is_keyless {
                let sql = "SELECT updated FROM plimsoll.upload($1, $2, $3::jsonb)";
                let raised = rows(some.clone(), |id| id + count);
                agent.query_one(sql, &[&till.id, &relation, &raised]).expect("an upload");
            }
            let changed = worked(pid);
            let sql = "SELECT deleted FROM plimsoll.delete_rows($1, $2, $3::jsonb)";
            let named = named(some.clone(), is_keyless);
            let row = agent.query_one(sql, &[&till.id, &relation, &named]).expect("a delete");
            assert_eq!(row.get::<_, i64>(0), some.end - some.start);
            let (change, delete) = (changed - begun, worked(pid) - changed);
            println!(
                "{relation}, {count} rows: changed in {change}, deleted in {delete} hundredths of a second"
            );
        }
    }
}
