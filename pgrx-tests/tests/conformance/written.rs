//! Local databases that are written to: what is stored is what was given or is refused with the reason, a row that is
//! refused undoes no other, and whoever else writes loses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_client::config::TableConfig;
use plimsoll_client::source;
use plimsoll_client::source::notes::{Cell as Note, NoteType};
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::write::{Expected, LocalStore, RowChange, RowSeen, Tally};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::TableSchema;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, Failure, FailureKind, Outcome, PositionRange, SourceKey, SourceRecord, SourceRow,
};

use super::kind::{Cell, KEY, LocalKind, Table, Type};
use super::model::{row_of, sort};

/// The store over tables, with what the configuration says of each.
pub fn store_of<K: LocalKind>(
    local: &K,
    tables: &[(&Table, TableSchema, TableConfig)],
) -> Box<dyn LocalStore> {
    let mut opened = source::open_writable(&local.place()).unwrap_or_else(|failure| panic!("{failure}"));
    let plan = |(table, schema, config): &(&Table, TableSchema, TableConfig)| {
        let config = TableConfig { name: K::configured(&table.name), ..config.clone() };
        let found = opened.table(&config.name).unwrap_or_else(|failure| panic!("{failure}"));
        TablePlan::new(&found, schema.clone(), &config, &[]).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let plans = tables.iter().map(plan).collect();
    opened.into_store(plans, FingerprintKey::new(KEY))
}

/// One table that is written to.
pub struct Fixture<K> {
    pub local: K,
    table: Table,
    pub schema: TableSchema,
    pub store: Box<dyn LocalStore>,
}

impl<K: LocalKind> Fixture<K> {
    /// A table that `sql` makes, whose managed columns are these.
    pub fn new(sql: &str, table: Table, config: TableConfig) -> Self {
        let mut local = K::new();
        local.allow_writing();
        local.run(sql);
        let schema = table.schema(&[]);
        let store = store_of(&local, &[(&table, schema.clone(), config)]);
        Fixture { local, table, schema, store }
    }

    fn row(&self, cells: &[Cell]) -> SourceRow {
        row_of(&self.schema, cells)
    }

    pub fn apply(&mut self, changes: &[RowChange<'_>]) -> (Vec<String>, Tally) {
        apply(self.store.as_mut(), changes)
    }

    fn upsert(&mut self, rows: &[SourceRow]) -> Vec<String> {
        self.apply(&upserts(rows, Expected::Anything)).0
    }

    pub fn has(&mut self, expected: &[SourceRow]) {
        let mut found = rows(self.store.as_mut());
        let mut expected = expected.to_vec();
        sort(&mut found);
        sort(&mut expected);
        assert_eq!(found, expected, "{}", self.table.name);
    }

    /// Texts of a query, row by row.
    fn texts(&mut self, columns: &[(&str, Type)]) -> Vec<Vec<Option<String>>> {
        let mut rows = self.local.texts(&Table::new(&self.table.name, columns, &[], None));
        rows.sort();
        rows
    }
}

pub fn upserts(rows: &[SourceRow], expected: Expected) -> Vec<RowChange<'_>> {
    rows.iter().map(|row| RowChange::Upsert { row, expected }).collect()
}

pub fn delete(row: &SourceRow, expected: Expected) -> RowChange<'_> {
    RowChange::Delete { position: row.item.position, key: &row.key, expected }
}

pub fn digest(row: &SourceRow) -> Expected {
    Expected::Row(ShortItem::from(&row.item).digest)
}

/// Makes changes in a transaction; what became of each in a word.
pub fn apply(store: &mut dyn LocalStore, changes: &[RowChange<'_>]) -> (Vec<String>, Tally) {
    let (mut answers, mut tally) = (Vec::new(), Tally::default());
    store
        .transact(&mut |transaction| {
            answers = transaction.apply(0, changes)?;
            tally = transaction.tally();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    (answers.iter().map(word).collect(), tally)
}

pub fn word(answer: &Applied) -> String {
    match answer {
        Applied::Done => "done".to_owned(),
        Applied::Changed => "changed".to_owned(),
        Applied::Held => "held".to_owned(),
        Applied::Refused { waits, reason } => {
            assert!(!reason.message.is_empty(), "{reason:?}");
            let waits = if *waits { " waits" } else { "" };
            let column = reason.column.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
            format!("{}{waits}{column}", reason.sqlstate)
        }
    }
}

/// All rows of the first table.
fn rows(store: &mut dyn LocalStore) -> Vec<SourceRow> {
    let mut rows = Vec::new();
    store
        .look(&mut |look| {
            look.rows(0, &[PositionRange::ALL], &mut |row| match row {
                RowSeen::Row(row) => {
                    rows.push(row.clone());
                    Ok(())
                }
                RowSeen::Bad(bad) => panic!("{bad:?}"),
            })
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    rows
}

fn stop() -> Failure {
    Failure::new(FailureKind::Table, "enough")
}

/// Two columns and a key, as most of these tests need them.
pub fn simple(name: &str) -> Table {
    Table::new(name, &[("id", Type::Number), ("a", Type::Text)], &["id"], None)
}

pub fn cells(id: i64, text: &str) -> Vec<Cell> {
    vec![id.into(), text.into()]
}

pub fn rows_are_stored_as_given_and_changed_where_they_are_expected<K: LocalKind>() {
    let columns = [
        ("a \"key\"", Type::Number),
        ("order", Type::Text),
        ("Bytes", Type::Bytes),
        ("it's `at`", Type::Stamp),
        ("folded", Type::Folded),
    ];
    let table = Table::new("odd \"table\" `name`", &columns, &["a \"key\"", "order"], None);
    let mut local = K::new();
    local.allow_writing();
    local.create(&table);
    let schema = table.schema(&[]);
    let mut store = store_of(&local, &[(&table, schema.clone(), TableConfig::default())]);
    let of = |id: i64, text: &str, bytes: &[u8], at: i64| {
        let stamp = if at == 7 { Cell::Null } else { Cell::Stamp(at) };
        row_of(&schema, &[id.into(), text.into(), Cell::Bytes(bytes.to_vec()), stamp, "ÄÖ a".into()])
    };
    let first: Vec<SourceRow> = vec![
        of(1, "a", &[0, 255, 7], 0),
        of(1, "A", &[], -1_500_000),
        of(i64::MIN, "", b"'\"\\", 7),
        of(i64::MAX, "\u{1f600}%_?$1", &[0x80; 300], 754_000_123_456),
    ];
    let (answers, tally) = apply(store.as_mut(), &upserts(&first, Expected::Absent));
    assert_eq!(answers, ["done"; 4]);
    assert_eq!(tally, Tally { inserted: 4, ..Tally::default() });
    let mut found = rows(store.as_mut());
    let mut expected = first.clone();
    sort(&mut found);
    sort(&mut expected);
    assert_eq!(found, expected);
    // The same again is done already, whatever was expected.
    let (answers, tally) = apply(store.as_mut(), &upserts(&first, Expected::Absent));
    assert_eq!((answers, tally.unchanged), (vec!["done".to_owned(); 4], 4));
    let other = of(1, "a", b"other", 5);
    let new = of(5, "new", b"", 5);
    let changes = [
        RowChange::Upsert { row: &other, expected: Expected::Absent },
        RowChange::Upsert { row: &other, expected: digest(&first[1]) },
        RowChange::Upsert { row: &new, expected: digest(&first[1]) },
        delete(&first[1], digest(&first[0])),
        delete(&first[2], digest(&first[2])),
        delete(&new, digest(&new)),
    ];
    let (answers, tally) = apply(store.as_mut(), &changes);
    assert_eq!(answers, ["changed", "changed", "changed", "changed", "done", "done"]);
    assert_eq!(tally, Tally { deleted: 1, unchanged: 1, ..Tally::default() });
    // Several changes of one key are made one after the other.
    let changes = [
        RowChange::Upsert { row: &other, expected: digest(&first[0]) },
        delete(&other, digest(&other)),
        RowChange::Upsert { row: &first[0], expected: Expected::Absent },
        RowChange::Upsert { row: &new, expected: Expected::Absent },
    ];
    let (answers, tally) = apply(store.as_mut(), &changes);
    assert_eq!(answers, ["done"; 4]);
    assert_eq!(tally, Tally { inserted: 2, updated: 1, deleted: 1, unchanged: 0 });
    let keys = [&first[0], &first[2], &new].map(|row| SourceKey::Encoded(row.key.clone()));
    let found = store.lookup(0, &keys).expect("found");
    let is = |at: usize, row: &SourceRow| found[at] == Some(SourceRecord::Row(row.clone()));
    assert!(is(0, &first[0]) && found[1].is_none() && is(2, &new), "{found:?}");
}

pub fn a_refused_row_undoes_no_other<K: LocalKind>() {
    let sql = "CREATE TABLE parent (id BIGINT PRIMARY KEY);
        CREATE TABLE t (id BIGINT PRIMARY KEY, code VARCHAR(20) UNIQUE, parent BIGINT, low BIGINT NOT NULL CHECK (low < 10),
            own VARCHAR(20) DEFAULT 'mine' NOT NULL, FOREIGN KEY (parent) REFERENCES parent (id));
        INSERT INTO parent VALUES (1);
        INSERT INTO t VALUES (1, 'a', 1, 1, 'one'), (2, 'b', NULL, 2, 'two')";
    let columns =
        [("id", Type::Number), ("code", Type::Text), ("parent", Type::Number), ("low", Type::Number)];
    let table = Table::new("t", &columns, &["id"], None);
    let config = TableConfig { leave_out: vec!["own".to_owned()], ..TableConfig::default() };
    let mut fixture = Fixture::<K>::new(sql, table, config);
    fixture.local.show_triggers();
    let of = |id: i64, code: &str, parent: Option<i64>, low: Option<i64>| {
        let cell = |number: Option<i64>| number.map_or(Cell::Null, Cell::Number);
        row_of(&fixture.schema, &[id.into(), code.into(), cell(parent), cell(low)])
    };
    let mut given = vec![
        // Unique values that two rows exchange.
        of(1, "b", Some(1), Some(1)),
        of(2, "a", Some(1), Some(2)),
        of(3, "c", Some(7), Some(3)),
        of(4, "d", Some(1), Some(40)),
        of(5, "e", None, Some(5)),
        of(6, "e", Some(1), Some(6)),
        of(7, "f", Some(1), None),
        of(8, "g", Some(1), Some(8)),
    ];
    // Many others, so that those at fault are looked for.
    let many: Vec<SourceRow> = (100..400).map(|id| of(id, &format!("many {id}"), Some(1), Some(1))).collect();
    given.splice(4..4, many.iter().cloned());
    let answers = fixture.upsert(&given);
    let others: Vec<&String> = answers.iter().filter(|answer| *answer != "done").collect();
    assert_eq!(others.len(), 4, "{others:?}");
    assert!(others[0].starts_with("23503 waits"), "{others:?}");
    assert!(others[1].starts_with("23514"), "{others:?}");
    assert!(others[2].starts_with("23505 waits"), "{others:?}");
    assert_eq!(others[3], "23502 low");
    let refused = ["c", "d", "f"];
    let expected: Vec<SourceRow> = given
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| *answer == "done")
        .map(|(row, _)| row.clone())
        .collect();
    fixture.has(&expected);
    // What only this table has stays with its row, and takes its default in a new one.
    let texts = fixture.texts(&[("code", Type::Text), ("own", Type::Text)]);
    let own = |code: &str| {
        let is_it = |row: &&Vec<Option<String>>| row[0].as_deref() == Some(code);
        texts.iter().find(is_it).and_then(|row| row[1].clone())
    };
    assert_eq!(own("b").as_deref(), Some("one"));
    assert_eq!(own("a").as_deref(), Some("two"));
    assert_eq!(own("e").as_deref(), Some("mine"));
    assert!(refused.iter().all(|code| own(code).is_none()));
    // A row that others refer to waits to be deleted.
    fixture.local.run(
        "CREATE TABLE child (t BIGINT, FOREIGN KEY (t) REFERENCES t (id)); INSERT INTO child VALUES (8)",
    );
    let last = given.last().expect("one").clone();
    let fifth = given[given.len() - 4].clone();
    let (answers, tally) = fixture.apply(&[delete(&last, digest(&last)), delete(&fifth, digest(&fifth))]);
    assert!(answers[0].starts_with("23503 waits") && answers[1] == "done", "{answers:?}");
    assert_eq!(tally.deleted, 1);
}

pub fn unique_values_that_rows_exchange_arrive<K: LocalKind>() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20) UNIQUE, own VARCHAR(20));
        INSERT INTO t VALUES (1, 'a', 'one'), (2, 'b', 'two'), (3, 'c', NULL), (4, 'd', 'four'), (5, 'e', 'five')";
    let config = TableConfig { leave_out: vec!["own".to_owned()], ..TableConfig::default() };
    let mut fixture = Fixture::<K>::new(sql, simple("t"), config);
    fixture.local.show_triggers();
    let of = |id: i64, text: &str| row_of(&fixture.schema, &cells(id, text));
    // A cycle of three, a chain, and a new row that takes what another gives up.
    let given = [of(1, "b"), of(2, "c"), of(3, "a"), of(4, "e"), of(5, "f"), of(6, "d")];
    assert_eq!(fixture.upsert(&given), ["done"; 6]);
    fixture.has(&given);
    let texts = fixture.texts(&[("id", Type::Number), ("own", Type::Text)]);
    let own: Vec<Option<&str>> = texts.iter().map(|row| row[1].as_deref()).collect();
    assert_eq!(own, [Some("one"), Some("two"), None, Some("four"), Some("five"), None]);
    // Where another table would notice that a row was away for a moment, they wait.
    fixture.local.run(
        "CREATE TABLE child (t BIGINT, FOREIGN KEY (t) REFERENCES t (id) ON DELETE CASCADE);
         INSERT INTO child VALUES (1)",
    );
    let fixture_schema = fixture.schema.clone();
    let of = |id: i64, text: &str| row_of(&fixture_schema, &cells(id, text));
    let mut store = store_of(
        &fixture.local,
        &[(
            &fixture.table,
            fixture_schema.clone(),
            TableConfig { leave_out: vec!["own".to_owned()], ..TableConfig::default() },
        )],
    );
    let (answers, _) =
        apply(store.as_mut(), &upserts(&[of(1, "c"), of(2, "b"), of(4, "z")], Expected::Anything));
    assert!(answers[0].starts_with("23505 waits") && answers[1].starts_with("23505 waits"), "{answers:?}");
    assert_eq!(answers[2], "done");
    let children = fixture.local.texts(&Table::new("child", &[("t", Type::Number)], &[], None));
    assert_eq!(children.len(), 1);
}

pub fn rows_without_a_key_are_counted<K: LocalKind>() {
    let table = Table::new("t", &[("n", Type::Number), ("a", Type::Text)], &[], None);
    let mut local = K::new();
    local.allow_writing();
    local.create(&table);
    let schema = table.schema(&[]);
    let store = store_of(&local, &[(&table, schema.clone(), TableConfig::default())]);
    let mut fixture = Fixture { local, table, schema, store };
    let of = |n: i64, text: &str| row_of(&fixture.schema, &[n.into(), text.into()]);
    let null = row_of(&fixture.schema, &[1.into(), Cell::Null]);
    let (one, other, odd) = (of(1, "a"), of(1, "A"), of(2, "x"));
    let given =
        [one.clone(), one.clone(), one.clone(), other.clone(), null.clone(), null.clone(), odd.clone()];
    assert_eq!(fixture.upsert(&given), ["done"; 7]);
    fixture.has(&given);
    let changes = [
        delete(&one, Expected::Anything),
        delete(&one, Expected::Anything),
        delete(&null, Expected::Anything),
        delete(&odd, Expected::Anything),
        delete(&odd, Expected::Anything),
        RowChange::Upsert { row: &other, expected: Expected::Absent },
    ];
    let (answers, tally) = fixture.apply(&changes);
    assert_eq!(answers, ["done"; 6]);
    assert_eq!(tally, Tally { inserted: 1, deleted: 4, unchanged: 1, updated: 0 });
    fixture.has(&[one, other.clone(), other, null]);
}

/// Each transaction here is committed.
pub fn constraints_that_are_put_off_undo_no_other_row<K: LocalKind>() {
    let put_off = K::put_off();
    let sql = format!(
        "CREATE TABLE customer (id BIGINT PRIMARY KEY, code BIGINT UNIQUE);
         CREATE TABLE log (customer BIGINT, a VARCHAR(20), n BIGINT UNIQUE,
             FOREIGN KEY (customer) REFERENCES customer (id) {put_off});
         CREATE TABLE entry (n BIGINT, code BIGINT, FOREIGN KEY (n) REFERENCES log (n) {put_off},
             FOREIGN KEY (code) REFERENCES customer (code) {put_off});
         INSERT INTO customer VALUES (1, 10), (2, 20), (3, 30), (4, 40)"
    );
    let columns = [("customer", Type::Number), ("a", Type::Text), ("n", Type::Number)];
    let log = Table::new("log", &columns, &[], None);
    let mut fixture = Fixture::<K>::new(&sql, log, TableConfig::default());
    let waits = |answers: &[String]| -> Vec<usize> {
        let those = |at: &usize| answers[*at] != "done";
        let found: Vec<usize> = (0..answers.len()).filter(those).collect();
        assert!(found.iter().all(|at| answers[*at].starts_with("23503 waits")), "{answers:?}");
        found
    };
    // Without a key: rows that refer to what is not there.
    let of = |n: i64| {
        let customer = if n == 7 || n == 150 { 9 } else { n % 2 + 1 };
        row_of(&fixture.schema, &[customer.into(), "text".into(), n.into()])
    };
    let given: Vec<SourceRow> = (0..200).map(of).collect();
    let answers = fixture.upsert(&given);
    assert_eq!(waits(&answers), [7, 150]);
    let mut stored: Vec<SourceRow> =
        given.iter().enumerate().filter(|(n, _)| ![7, 150].contains(n)).map(|(_, row)| row.clone()).collect();
    fixture.has(&stored);
    // Without a key: rows that others refer to.
    fixture.local.run("INSERT INTO entry (n) VALUES (30), (31)");
    let changes: Vec<RowChange<'_>> =
        given[20..40].iter().map(|row| delete(row, Expected::Anything)).collect();
    let (answers, tally) = fixture.apply(&changes);
    assert_eq!((waits(&answers), tally.deleted), (vec![10, 11], 18));
    stored.retain(|row| !given[20..40].contains(row) || given[30..32].contains(row));
    fixture.has(&stored);
    // With a key, and others refer to another column.
    fixture.local.run("DELETE FROM entry; DELETE FROM log; INSERT INTO entry (code) VALUES (30)");
    let columns = [("id", Type::Number), ("code", Type::Number)];
    let customer = Table::new("customer", &columns, &["id"], None);
    let schema = customer.schema(&[]);
    let mut store = store_of(&fixture.local, &[(&customer, schema.clone(), TableConfig::default())]);
    let rows: Vec<SourceRow> =
        (1..5).map(|id: i64| row_of(&schema, &[id.into(), (id * 10).into()])).collect();
    let changes: Vec<RowChange<'_>> = rows.iter().map(|row| delete(row, digest(row))).collect();
    let (answers, tally) = apply(store.as_mut(), &changes);
    assert_eq!((waits(&answers), tally.deleted), (vec![2], 3));
}

pub fn what_a_table_does_not_keep_as_given_is_refused<K: LocalKind>() {
    let sql = format!(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20), twice BIGINT GENERATED ALWAYS AS (id * 2) STORED);
         {}",
        K::trigger_that_spoils("t", "a")
    );
    let columns =
        [("id", Type::Number), ("a", Type::Text), ("twice", Type::Number), ("branch", Type::Number)];
    let table = Table::new("t", &columns, &["id"], None);
    let mut config = TableConfig { filter: Some("id < 100".to_owned()), ..TableConfig::default() };
    config.constants.insert("branch".to_owned(), plimsoll_client::config::Constant::Whole(7));
    let mut fixture = Fixture::<K>::new(&sql, table, config);
    let of = |id: i64, text: &str, twice: i64, branch: i64| {
        row_of(&fixture.schema, &[id.into(), text.into(), twice.into(), branch.into()])
    };
    let good = of(1, "fine", 2, 7);
    let given = [
        good.clone(),
        of(2, "spoil", 4, 7),
        of(3, "fine", 7, 7),
        of(4, "fine", 8, 8),
        of(100, "fine", 200, 7),
    ];
    let answers = fixture.upsert(&given);
    assert_eq!(answers, ["done", "22000 a", "22000 twice", "22000 branch", "44000"]);
    fixture.has(std::slice::from_ref(&good));
    let texts = fixture.texts(&[("id", Type::Number)]);
    assert_eq!(texts, [[Some("1".to_owned())]]);
}

pub fn notes_are_kept_with_the_rows<K: LocalKind>() {
    let mut fixture = Fixture::<K>::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20))",
        simple("t"),
        TableConfig::default(),
    );
    let notes = fixture.store.notes();
    let columns = [
        ("part", NoteType::Int, false),
        ("k", NoteType::Bytes(16), false),
        ("said", NoteType::Text(40), true),
        ("whole", NoteType::LongBytes, true),
    ];
    let sql = notes.create("plimsoll_test", &columns, &["part", "k"]);
    fixture.store.define(&sql).unwrap_or_else(|failure| panic!("{failure}"));
    fixture.store.define(&sql).expect("there already");
    let row = fixture.row(&cells(1, "a"));
    let keys: Vec<[u8; 4]> = (0..3000u32).map(u32::to_be_bytes).collect();
    let large = vec![0xff_u8; 100_000];
    let write = |store: &mut dyn LocalStore, fails: bool| -> Outcome<()> {
        store.transact(&mut |transaction| {
            transaction.apply(0, &upserts(std::slice::from_ref(&row), Expected::Anything))?;
            let rows: Vec<Vec<Note<'_>>> = keys
                .iter()
                .map(|key| vec![Note::Int(-5), Note::Bytes(key), Note::Text("Ä?'"), Note::Null])
                .collect();
            for _ in 0..2 {
                notes.put(transaction, "plimsoll_test", &["part", "k"], &["said", "whole"], &rows)?;
            }
            let set = "UPDATE plimsoll_test SET whole = ?, said = '?' WHERE part = ? AND k = ?";
            let changed =
                transaction.execute(set, &[Note::Bytes(&large), Note::Int(-5), Note::Bytes(&keys[7])])?;
            assert_eq!(changed, 1);
            let gone: Vec<Vec<Note<'_>>> =
                keys[10..].iter().map(|key| vec![Note::Int(-5), Note::Bytes(key)]).collect();
            notes.remove(transaction, "plimsoll_test", &["part", "k"], &gone)?;
            if fails { Err(stop()) } else { Ok(()) }
        })
    };
    assert_eq!(write(fixture.store.as_mut(), true), Err(stop()));
    fixture.has(&[]);
    write(fixture.store.as_mut(), false).unwrap_or_else(|failure| panic!("{failure}"));
    let mut found = Vec::new();
    fixture
        .store
        .look(&mut |look| {
            let sql = "SELECT k, said, whole, part FROM plimsoll_test WHERE part < ? ORDER BY k";
            look.query(sql, &[Note::Int(0)], &mut |cells| {
                let [Note::Bytes(key), Note::Text(said), whole, Note::Int(-5)] = cells else {
                    panic!("{cells:?}")
                };
                let length = match whole {
                    Note::Bytes(bytes) => bytes.len(),
                    _ => 0,
                };
                found.push(format!("{} {said} {length}", key[3]));
                Ok(())
            })
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(found.len(), 10);
    assert_eq!((found[0].as_str(), found[7].as_str()), ("0 Ä?' 0", "7 ? 100000"));
    let mut opened = source::open_writable(&fixture.local.place()).expect("opened");
    assert_eq!(opened.table_names().expect("names"), ["t"]);
    let refused = opened.table("plimsoll_test").expect_err("no table to sync");
    assert!(refused.message.contains("notes"), "{refused}");
}

pub fn what_is_held_is_one_transaction<K: LocalKind>() {
    let mut fixture = Fixture::<K>::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20)); INSERT INTO t VALUES (1, 'a')",
        simple("t"),
        TableConfig::default(),
    );
    let of = |id: i64, text: &str| row_of(&fixture.schema, &cells(id, text));
    let (one, two, three) = (of(1, "a"), of(2, "b"), of(3, "c"));
    let names = [("id", Type::Number)];
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    assert_eq!(fixture.upsert(std::slice::from_ref(&two)), ["done"]);
    assert_eq!(fixture.store.row_count(0), Ok(2));
    fixture.has(&[one.clone(), two.clone()]);
    fixture.store.finish(false).expect("rolled back");
    fixture.has(std::slice::from_ref(&one));
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    assert_eq!(fixture.upsert(std::slice::from_ref(&two)), ["done"]);
    assert_eq!(fixture.upsert(std::slice::from_ref(&three)), ["done"]);
    // Nobody else sees a part of it.
    assert_eq!(fixture.texts(&names).len(), 1);
    fixture.store.finish(true).expect("committed");
    assert_eq!(fixture.texts(&names).len(), 3);
    // The first failure rolls all back, and is answered until then.
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    let (answers, _) = fixture.apply(&[delete(&one, digest(&one))]);
    assert_eq!(answers, ["done"]);
    assert_eq!(fixture.store.transact(&mut |_| Err(stop())), Err(stop()));
    assert_eq!(fixture.store.row_count(0), Err(stop()));
    assert_eq!(fixture.store.finish(true), Err(stop()));
    assert_eq!(fixture.store.row_count(0), Ok(3));
    // A transaction in which something failed is not committed, whoever overlooks it.
    let overlooked = fixture.store.transact(&mut |transaction| {
        transaction.apply(0, &[delete(&one, digest(&one))])?;
        let _ = transaction.execute("UPDATE plimsoll_nowhere SET a = 1", &[]);
        Ok(())
    });
    assert!(overlooked.is_err());
    assert_eq!(fixture.store.row_count(0), Ok(3));
    // One moment, whatever is written meanwhile.
    if K::lets_others_write() {
        LocalStore::hold(fixture.store.as_mut(), false).expect("held");
        assert_eq!(fixture.store.row_count(0), Ok(3));
        fixture.local.run("DELETE FROM t WHERE id = 2");
        assert_eq!(fixture.store.row_count(0), Ok(3));
        let refused = fixture.store.transact(&mut |_| Ok(())).expect_err("nothing is written");
        assert_eq!(refused.kind, FailureKind::Run);
        fixture.store.finish(true).expect("ended");
        assert_eq!(fixture.store.row_count(0), Ok(2));
    }
}

/// Where nobody else writes meanwhile there is nothing to see.
pub fn what_others_commit_is_seen_where_all_is_one_transaction<K: LocalKind>() {
    let mut fixture = Fixture::<K>::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20)); INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        simple("t"),
        TableConfig::default(),
    );
    if !K::lets_others_write() {
        return;
    }
    let of = |id: i64, text: &str| row_of(&fixture.schema, &cells(id, text));
    let (one, mine, theirs) = (of(1, "mine"), of(3, "mine"), of(4, "theirs"));
    LocalStore::hold(fixture.store.as_mut(), true).expect("held");
    assert_eq!(fixture.store.row_count(0), Ok(2));
    fixture.local.run("INSERT INTO t VALUES (4, 'theirs'); UPDATE t SET a = 'theirs' WHERE id IN (1, 2)");
    assert_eq!(fixture.store.row_count(0), Ok(3));
    let (two, changed) = (of(2, "theirs"), of(1, "theirs"));
    fixture.has(&[changed.clone(), two.clone(), theirs.clone()]);
    // A row that was changed meanwhile is met as it is now, and one that came is no stranger.
    let changes = [
        RowChange::Upsert { row: &one, expected: digest(&changed) },
        RowChange::Upsert { row: &mine, expected: Expected::Absent },
        RowChange::Upsert { row: &theirs, expected: Expected::Anything },
    ];
    assert_eq!(fixture.apply(&changes).0, ["done"; 3]);
    let held = fixture.store.fingerprints(0, &[PositionRange::ALL]).expect("sums");
    fixture.store.finish(true).expect("committed");
    fixture.has(&[one, two, mine, theirs]);
    let now = fixture.store.fingerprints(0, &[PositionRange::ALL]).expect("sums");
    assert!(held == now, "what was summed up is what was committed");
}

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

/// An application counts in some rows while changes of the same rows are made again and again, each on the condition that
/// the row is as it was read.
pub fn an_application_that_writes_meanwhile_loses_nothing<K: LocalKind>() {
    const ROWS: i64 = 50;
    let columns = [("id", Type::Number), ("n", Type::Number), ("ours", Type::Number)];
    let table = Table::new("t", &columns, &["id"], None);
    let mut local = K::new();
    local.allow_writing();
    local.run("CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT, ours BIGINT)");
    let schema = table.schema(&[]);
    let cells = |id: i64, n: i64, ours: i64| [id.into(), n.into(), ours.into()];
    let mut store = store_of(&local, &[(&table, schema.clone(), TableConfig::default())]);
    let first: Vec<SourceRow> = (0..ROWS).map(|id| row_of(&schema, &cells(id, 0, 0))).collect();
    assert!(
        apply(store.as_mut(), &upserts(&first, Expected::Absent)).0.iter().all(|answer| answer == "done")
    );
    let is_over = AtomicBool::new(false);
    let (counted, longest, mut done, mut changed) = std::thread::scope(|scope| {
        let application = scope.spawn(|| {
            let (mut counted, mut longest) = (0i64, Duration::ZERO);
            while !is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                local.run(&format!("UPDATE t SET n = n + 1 WHERE id = {}", counted % ROWS));
                longest = longest.max(started.elapsed());
                counted += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            (counted, longest)
        });
        let (mut done, mut changed) = (0i64, 0);
        for _ in 0..30 {
            let now = rows(store.as_mut());
            // What they are read as, and one more in our own column.
            let next: Vec<SourceRow> = now
                .iter()
                .map(|row| {
                    let numbers: Vec<i64> = plimsoll_core::row::Fields::new(&row.row)
                        .map(|field| match field.expect("a field").value {
                            plimsoll_core::value::Value::Int(number) => number,
                            other => panic!("{other:?}"),
                        })
                        .collect();
                    row_of(&schema, &cells(numbers[0], numbers[1], numbers[2] + 1))
                })
                .collect();
            let changes: Vec<RowChange<'_>> = now
                .iter()
                .zip(&next)
                .map(|(now, row)| RowChange::Upsert { row, expected: digest(now) })
                .collect();
            let outcome = store.transact(&mut |transaction| {
                let answers = transaction.apply(0, &changes)?;
                let is = |wanted: &Applied| answers.iter().filter(|answer| *answer == wanted).count() as i64;
                assert_eq!(is(&Applied::Done) + is(&Applied::Changed), ROWS, "{answers:?}");
                done += is(&Applied::Done);
                changed += is(&Applied::Changed);
                Ok(())
            });
            outcome.unwrap_or_else(|failure| panic!("{failure}"));
            std::thread::sleep(Duration::from_millis(2));
        }
        is_over.store(true, Ordering::Relaxed);
        let (counted, longest) = application.join().expect("an application");
        (counted, longest, done, changed)
    });
    let sum = |place: usize, texts: &[Vec<Option<String>>]| -> i64 {
        texts.iter().map(|row| row[place].as_deref().expect("a number").parse::<i64>().expect("one")).sum()
    };
    let texts = local.texts(&table);
    assert_eq!(sum(1, &texts), counted, "what the application counted");
    assert_eq!(sum(2, &texts), done, "what was done");
    assert!(longest < Duration::from_secs(5), "the application waited {longest:?}");
    (done, changed) = (done.max(1), changed.max(0));
    println!(
        "{counted} of the application, {done} of ours, {changed} came too late, longest wait {longest:?}"
    );
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
