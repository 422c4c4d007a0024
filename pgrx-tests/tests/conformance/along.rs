//! What goes with a row that is deleted, or taken out for a moment: rows that foreign keys delete or change, and what triggers
//! do.

use std::collections::BTreeMap;

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::write::{Expected, RowChange, TakenAlong};
use plimsoll_core::store::SourceRow;

use super::kind::{Cell, LocalKind, Table, Type};
use super::model::row_of;
use super::written::{Fixture, apply, cells, delete, digest, simple, store_of, upserts};

fn along<K: LocalKind>(fixture: &mut Fixture<K>, changes: &[RowChange<'_>]) -> TakenAlong {
    let mut along = TakenAlong::default();
    fixture
        .store
        .transact(&mut |transaction| {
            along = transaction.taken_along(0, changes)?;
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    along
}

fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

fn by(along: &TakenAlong) -> Vec<usize> {
    let mut by: Vec<usize> = along.by.keys().copied().collect();
    by.sort_unstable();
    by
}

pub fn deletes_tell_what_they_would_take_along<K: LocalKind>() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20) UNIQUE);
        CREATE TABLE gone (t BIGINT, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE);
        CREATE TABLE emptied (name VARCHAR(20), FOREIGN KEY (name) REFERENCES t (a) ON DELETE SET NULL);
        CREATE TABLE stays (t BIGINT, FOREIGN KEY (t) REFERENCES t (id));
        INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e');
        INSERT INTO gone VALUES (1), (1), (1), (2), (NULL);
        INSERT INTO emptied VALUES ('b'), ('b'), ('c'), (NULL);
        INSERT INTO stays VALUES (4)";
    let mut fixture = Fixture::<K>::new(sql, simple("t"), TableConfig::default());
    let schema = fixture.schema.clone();
    let of = |id: i64, text: &str| row_of(&schema, &cells(id, text));
    let rows: Vec<SourceRow> =
        [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e")].map(|(id, text)| of(id, text)).to_vec();
    let changes: Vec<RowChange<'_>> = rows.iter().map(|row| delete(row, digest(row))).collect();
    let found = along(&mut fixture, &changes);
    assert_eq!(found.rows, counts(&[("gone", 4), ("emptied", 3)]));
    assert_eq!(
        by(&found),
        [0, 1, 2],
        "what refuses by itself, and what nothing refers to, takes nothing along"
    );
    // A row that is not what is expected is not deleted, and one that is stored takes nothing along.
    let other = of(1, "other");
    let unlike = [
        delete(&rows[0], digest(&other)),
        RowChange::Upsert { row: &rows[1], expected: Expected::Anything },
        delete(&rows[2], Expected::Anything),
    ];
    let found = along(&mut fixture, &unlike);
    assert_eq!((found.rows.clone(), by(&found)), (counts(&[("emptied", 1)]), vec![2]));
    assert_eq!(fixture.apply(&changes[4..]).0, ["done"]);
}

pub fn rows_of_a_tree_go_together<K: LocalKind>() {
    // 1 has 2 and 3, 2 has 4, 4 has 5; 6 has 7; 8 is its own.
    let sql = "CREATE TABLE tree (id BIGINT PRIMARY KEY, up BIGINT,
            FOREIGN KEY (up) REFERENCES tree (id) ON DELETE CASCADE);
        INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 1), (4, 2), (5, 4), (6, NULL), (7, 6), (8, 8)";
    let table = Table::new("tree", &[("id", Type::Number), ("up", Type::Number)], &["id"], None);
    let mut fixture = Fixture::<K>::new(sql, table, TableConfig::default());
    let schema = fixture.schema.clone();
    let ups = [Cell::Null, 1.into(), 1.into(), 2.into(), 4.into(), Cell::Null, 6.into(), 8.into()];
    let rows: Vec<SourceRow> = (1i64..).zip(ups).map(|(id, up)| row_of(&schema, &[id.into(), up])).collect();
    let changes: Vec<RowChange<'_>> = rows.iter().map(|row| delete(row, digest(row))).collect();
    assert_eq!(along(&mut fixture, &changes), TakenAlong::default(), "all of them are named");
    // Without 5: what it stands on stays with it.
    let without: Vec<RowChange<'_>> =
        changes.iter().copied().filter(|change| !same(change, &rows[4])).collect();
    let found = along(&mut fixture, &without);
    assert_eq!((found.rows.clone(), by(&found)), (counts(&[("tree", 1)]), vec![0, 1, 3]));
    assert_eq!(fixture.apply(&changes).0, ["done"; 8]);
    fixture.has(&[]);
}

fn same(change: &RowChange<'_>, row: &SourceRow) -> bool {
    matches!(change, RowChange::Delete { key, .. } if *key == row.key.as_slice())
}

pub fn a_row_with_a_delete_trigger_is_not_taken_out_for_a_moment<K: LocalKind>() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20) UNIQUE); CREATE TABLE child (t BIGINT);
        INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO child VALUES (1), (2), (3)";
    let mut fixture = Fixture::<K>::new(sql, simple("t"), TableConfig::default());
    fixture.local.show_triggers();
    fixture.local.run(&K::trigger_on_delete("t", "child", "t"));
    let schema = fixture.schema.clone();
    let of = |id: i64, text: &str| row_of(&schema, &cells(id, text));
    let given = [of(1, "b"), of(2, "a"), of(3, "z")];
    let mut store = store_of(&fixture.local, &[(&simple("t"), schema.clone(), TableConfig::default())]);
    let (answers, _) = apply(store.as_mut(), &upserts(&given, Expected::Anything));
    let waits = |answer: &String| answer.starts_with("23505 waits");
    assert!(answers[..2].iter().all(waits) && answers[2] == "done", "{answers:?}");
    let children = fixture.local.texts(&Table::new("child", &[("t", Type::Number)], &[], None));
    assert_eq!(children.len(), 3, "no trigger ran");
}
