//! What a pass over a level table costs beside a pass of push, and what the base takes on disk. Measured where
//! `PLIMSOLL_SPEED` says over how many rows; `cargo test --release` says what users get.

use std::time::Duration;

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::{Place, open_writable};
use plimsoll_client::two_way::{Guarding, LocalTable, LocalTables, MadeOf};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Base, BaseInfo, Conclusion, LocalSide, MemoryEntry, MemoryKey, PositionRange, Settle, SourceKey,
    SourceRecord,
};
use plimsoll_core::value::ColumnType;
use rusqlite::Connection;

/// Ranges of a pass over a million rows.
const RANGES: i64 = 256;
/// How often each is measured: what is told is the least.
const TIMES: usize = 5;

fn schema(hashed: bool) -> TableSchema {
    let column = |(number, (name, column_type)): (u32, (&str, ColumnType))| Column {
        number,
        name: name.to_owned(),
        column_type,
        not_null: true,
    };
    let columns = [
        ("id", ColumnType::Int8),
        ("version", ColumnType::Int8),
        ("name", ColumnType::Text),
        ("street", ColumnType::Text),
        ("phone", ColumnType::Text),
        ("amount", ColumnType::Float8),
    ];
    let columns = (1..).zip(columns).map(column).collect();
    let placed_by: &[&str] = if hashed { &["id"] } else { &[] };
    TableSchema::new(
        columns,
        &Roles { key: &["id"], version: Some("version"), placed_by, ..Roles::default() },
    )
    .expect("a schema")
}

/// Processor time of this thread so far.
fn spent() -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a thread's times");
    let nanos = told.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("nanoseconds"))
}

fn ranges() -> Vec<PositionRange> {
    let width = i128::from(u64::MAX) / i128::from(RANGES) + 1;
    let end =
        |at: i64| (at > 0 && at < RANGES).then(|| (i128::from(i64::MIN) + width * i128::from(at)) as i64);
    (0..RANGES).map(|at| PositionRange { from: end(at), to: end(at + 1) }).collect()
}

#[test]
fn a_pass_over_a_level_table_costs_little_more_than_one_of_push() {
    let Some(rows) = std::env::var("PLIMSOLL_SPEED").ok().and_then(|rows| rows.parse::<u64>().ok()) else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("local.db");
    let connection = Connection::open(&path).expect("a file");
    let sql = format!(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, version INTEGER NOT NULL, name TEXT NOT NULL, street TEXT NOT NULL,
             phone TEXT NOT NULL, amount REAL NOT NULL);
         CREATE INDEX t_version ON t (version);
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {rows})
         INSERT INTO t SELECT n, n * 7, 'customer number ' || n, hex(randomblob(40)), '555-' || n % 10000, n * 0.25
         FROM n;"
    );
    connection.execute_batch(&sql).expect("rows");
    drop(connection);
    let size = || std::fs::metadata(&path).expect("a file").len();
    let bare = size();
    let open = |hashed: bool| {
        let mut local = open_writable(&Place::Sqlite(path.clone())).expect("a file");
        let config = TableConfig { name: "t".to_owned(), ..TableConfig::default() };
        let plan = TablePlan::new(&local.table("t").expect("a table"), schema(hashed), &config, &[]);
        local.into_store(vec![plan.expect("a plan")], FingerprintKey::new([7; 32])).expect("a store")
    };
    let table = LocalTable {
        name: "t".to_owned(),
        local: "t".to_owned(),
        schema: schema(true),
        merging: None,
        keeps_rows: false,
        made_of: MadeOf::default(),
    };
    let mut two_way = LocalTables::new(open(true), vec![table], Guarding::Off);
    two_way.begin_base(0, BaseInfo::default()).expect("begun");
    let groups: Vec<Vec<PositionRange>> = ranges().chunks(4).map(<[PositionRange]>::to_vec).collect();
    two_way.held(0, &ranges()).expect("held");
    let began = spent();
    two_way.states(0, &groups[0], &groups[1..]).expect("states");
    println!("{rows} rows: read ahead in {:?}", spent() - began);
    // The base is made as the first run makes it: by ascending position.
    let mut push = open(true);
    let mut keys: Vec<(MemoryKey, [u8; 16])> = Vec::new();
    let mut cursor = None;
    loop {
        let limit = plimsoll_core::store::BatchLimit { rows: 50_000, bytes: 64 << 20 };
        let batch = push.read_batch(0, cursor.as_ref(), limit).expect("rows");
        keys.extend(batch.records.iter().map(|record| match record {
            SourceRecord::Row(row) => {
                let key = MemoryKey::new(row.item.position, &SourceKey::Encoded(row.key.clone()));
                (key, ShortItem::from(&row.item).digest)
            }
            SourceRecord::Bad(row) => panic!("{row:?}"),
        }));
        cursor = batch.next;
        if cursor.is_none() {
            break;
        }
    }
    keys.sort_unstable();
    let began = spent();
    for (serial, keys) in (1..).zip(keys.chunks(4_096)) {
        let settle = |(key, digest): &(MemoryKey, [u8; 16])| {
            let base = Some(Base { digest: *digest, columns: Vec::new() });
            Settle { entry: MemoryEntry { key: *key, base, open: None }, closes: false }
        };
        let settled = keys.iter().map(settle).collect();
        let conclusion = Conclusion { serial, settled, ..Conclusion::default() };
        two_way.conclude(0, &conclusion).expect("concluded");
    }
    println!(
        "{rows} rows: the base made in {:?}, {:.1} bytes a row",
        spent() - began,
        (size() - bare) as f64 / rows as f64
    );
    // One changed row.
    let began = spent();
    let serials = keys.chunks(4_096).len() as u64 + 1..;
    for (serial, (key, digest)) in serials.zip(keys.iter().step_by(keys.len() / 1_000)) {
        let base = Some(Base { digest: *digest, columns: Vec::new() });
        let settle = Settle { entry: MemoryEntry { key: *key, base, open: None }, closes: false };
        let conclusion = Conclusion { serial, settled: vec![settle], ..Conclusion::default() };
        two_way.conclude(0, &conclusion).expect("concluded");
    }
    println!("one key changed: {:?}", (spent() - began) / 1_000);
    let (mut push, ranges) = (open(false), ranges());
    let mut rows_alone = open(true);
    let mut least = [Duration::MAX; 4];
    for _ in 0..TIMES {
        let began = spent();
        let held = two_way.held(0, &ranges).expect("held");
        least[0] = least[0].min(spent() - began);
        assert_eq!(held.iter().map(|held| held.local.rows).sum::<u64>(), rows);
        assert!(
            held.iter()
                .all(|held| held.rows.rows.row_count() == held.local.rows && held.local == held.remote)
        );
        let began = spent();
        let sums = rows_alone.fingerprints(0, &ranges).expect("held");
        least[3] = least[3].min(spent() - began);
        assert_eq!(sums.len(), ranges.len());
        let began = spent();
        let (mut from, mut seen) = (None, 0);
        loop {
            let window = push.window(0, PositionRange { from, to: None }, 200_000).expect("a window");
            seen += window.rows();
            from = window.range.to;
            if from.is_none() {
                break;
            }
        }
        least[1] = least[1].min(spent() - began);
        assert_eq!(seen, rows);
        let began = spent();
        let all = push.fingerprints(0, &[PositionRange::ALL]).expect("held");
        least[2] = least[2].min(spent() - began);
        assert_eq!(all[0].rows.row_count(), rows);
    }
    let [two_way, windows, sums, rows_alone] = least;
    println!(
        "two-way {two_way:?}, {rows_alone:?} of it its rows; push by windows {windows:?}, by sums {sums:?}"
    );
    assert!(two_way < windows.mul_f64(1.3), "{two_way:?} against {windows:?}");
}
