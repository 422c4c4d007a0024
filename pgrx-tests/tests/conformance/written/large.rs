//! Large values, and many rows.

use std::time::Instant;

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::write::Expected;
use plimsoll_core::store::SourceRow;

use super::{apply, rows, store_of, upserts};
use crate::kind::{Cell, LocalKind, Table, Type};
use crate::model::row_of;

pub fn large_values_are_stored<K: LocalKind>() {
    let table =
        Table::new("t", &[("id", Type::Number), ("bytes", Type::Bytes), ("text", Type::Text)], &["id"], None);
    let mut local = K::new();
    local.allow_writing();
    local.create(&table);
    let schema = table.schema(&[]);
    let mut store = store_of(&local, &[(&table, schema.clone(), TableConfig::default())]);
    let bytes: Vec<u8> = (0..10_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let text = "ä€ \\'".repeat(1_000_000);
    let given = [
        row_of(&schema, &[1.into(), Cell::Bytes(bytes), Cell::Null]),
        row_of(&schema, &[2.into(), Cell::Null, Cell::Text(text)]),
        row_of(&schema, &[3.into(), Cell::Null, Cell::Null]),
    ];
    let (answers, _) = apply(store.as_mut(), &upserts(&given, Expected::Absent));
    assert_eq!(answers, ["done"; 3]);
    let found = rows(store.as_mut());
    assert_eq!(found.len(), 3);
    assert!(given.iter().all(|row| found.contains(row)));
}

/// How fast rows are written, beside what the database itself takes; and how long this process' own threads computed for
/// it, which in the case of SQLite is all there is. With `PLIMSOLL_LARGE=1`.
pub fn many_rows_are_written<K: LocalKind>() {
    if std::env::var_os("PLIMSOLL_LARGE").is_none() {
        return;
    }
    const ROWS: i64 = 100_000;
    let columns = [
        ("id", Type::Number),
        ("a", Type::Text),
        ("n", Type::Number),
        ("at", Type::Stamp),
        ("b", Type::Bytes),
    ];
    let table = Table::new("t", &columns, &["id"], None);
    let mut local = K::new();
    local.allow_writing();
    local.create(&table);
    let schema = table.schema(&[]);
    let cells = |id: i64, round: i64| {
        vec![
            id.into(),
            Cell::Text(format!("name of row {id} in round {round}")),
            (id * 7 + round).into(),
            Cell::Stamp(id * 1_000_003),
            Cell::Bytes(id.to_be_bytes().repeat(4)),
        ]
    };
    let told = |what: &str, started: Instant, computed: f64| {
        let (seconds, computed) = (started.elapsed().as_secs_f64(), computed_seconds() - computed);
        println!("{what}: {:.0} rows a second, {computed:.2} s computed here", ROWS as f64 / seconds);
    };
    let mut store = store_of(&local, &[(&table, schema.clone(), TableConfig::default())]);
    for (round, what) in ["new rows", "changed rows", "rows as they are"].into_iter().enumerate() {
        let rows: Vec<SourceRow> =
            (0..ROWS).map(|id| row_of(&schema, &cells(id, round.min(1) as i64))).collect();
        let (started, computed) = (Instant::now(), computed_seconds());
        for batch in rows.chunks(5_000) {
            let (answers, _) = apply(store.as_mut(), &upserts(batch, Expected::Anything));
            assert!(answers.iter().all(|answer| answer == "done"));
        }
        told(what, started, computed);
    }
    local.run("DROP TABLE t");
    local.create(&table);
    let rows: Vec<Vec<Cell>> = (0..ROWS).map(|id| cells(id, 0)).collect();
    let (started, computed) = (Instant::now(), computed_seconds());
    local.insert(&table, &rows);
    told("the database's own, 200 rows in a statement", started, computed);
}

/// The processor time of this process so far.
fn computed_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    ticks as f64 / 100.0
}
