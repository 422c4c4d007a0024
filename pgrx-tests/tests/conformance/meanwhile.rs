//! An application goes on while its tables are read.

use std::collections::HashMap;

use plimsoll_core::store::{BatchLimit, SourceRecord};

use super::kind::{Cell, LocalKind, Table, Type};
use super::model::row_of;

/// Between any two batches rows come, go and change. Those that nobody touches are read exactly once.
pub fn rows_that_stay_are_read_once<K: LocalKind>() {
    let mut local = K::new();
    let columns = [("id", Type::Number), ("name", Type::Text), ("v", Type::Number)];
    let shapes: [(&str, &[&'static str], Option<&'static str>); 4] = [
        ("by version", &["id"], Some("v")),
        ("by hash", &["id"], None),
        ("composite by hash", &["name", "id"], None),
        ("keyless", &[], None),
    ];
    for (name, key, version) in shapes {
        let table = Table::new(name, &columns, key, version);
        local.create(&table);
        let cells = |id: i64, v: i64| vec![id.into(), Cell::Text(format!("n{}", id % 5)), v.into()];
        let rows: Vec<Vec<Cell>> = (0..90).map(|id| cells(id, id)).collect();
        local.insert(&table, &rows);
        let schema = table.schema(&[]);
        let mut source = local.source(&[(&table, schema.clone())]);
        let (mut seen, mut after, mut round) = (HashMap::new(), None, 0);
        let (relation, id, v) = (K::quoted(name), K::quoted("id"), K::quoted("v"));
        loop {
            let batch = source.read_batch(0, after.as_ref(), BatchLimit { rows: 7, bytes: 1 << 20 });
            let batch = batch.expect("a batch");
            for record in batch.records {
                let SourceRecord::Row(row) = record else { panic!("{record:?}") };
                *seen.entry(row.row).or_insert(0) += 1;
            }
            after = batch.next;
            if after.is_none() {
                break;
            }
            // Every third row is somebody's: deleted, changed, or joined by another.
            round += 1;
            let ours = round * 3 % 90;
            local.run(&format!("DELETE FROM {relation} WHERE {id} = {ours}"));
            local.run(&format!("UPDATE {relation} SET {v} = {v} + 1000 WHERE {id} = {}", (ours + 45) % 90));
            local.insert(&table, &[cells(1000 + round, 500 - round), cells(-round, -round)]);
            assert!(round < 200, "{name}: reading does not end");
        }
        for cells in rows.iter().filter(|cells| !matches!(cells[0], Cell::Number(id) if id % 3 == 0)) {
            let count = seen.get(&row_of(&schema, cells).row).copied().unwrap_or(0);
            assert_eq!(count, 1, "{name}: {cells:?} was read {count} times");
        }
    }
}

/// Where a kind has a token, it differs after each commit and stays while nothing is written.
pub fn the_token_changes_where_one_is_had<K: LocalKind>() {
    let mut local = K::new();
    let table = Table::new("t", &[("id", Type::Number), ("v", Type::Number)], &["id"], Some("v"));
    local.create(&table);
    let mut source = local.source(&[(&table, table.schema(&[]))]);
    let mut before = source.change_token().expect("a token");
    for id in 0..5 {
        local.insert(&table, &[vec![id.into(), id.into()]]);
        let after = source.change_token().expect("a token");
        assert!(after.is_none() || after != before, "commit {id} left the token as it was");
        before = after;
    }
}
