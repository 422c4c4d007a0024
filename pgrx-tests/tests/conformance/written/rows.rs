//! Rows that are stored, and those that are refused, each alone.

use std::collections::BTreeMap;

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::write::{Expected, RowChange, RowSeen, Tally};
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{Applied, PositionRange, SourceKey, SourceRecord, SourceRow};

use super::{Fixture, apply, cells, delete, digest, finds, rows, simple, store_of, upserts};
use crate::kind::{Cell, LocalKind, Table, Type};
use crate::model::{row_of, sort};

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

/// Keys whose texts differ in a blank are one in the managed table.
pub fn one_of_several_rows_of_a_key_goes_beside_another_alone<K: LocalKind>() {
    let columns = [("k", Type::Text), ("n", Type::Number), ("v", Type::Number)];
    let table = Table::new("spelled", &columns, &["k"], Some("v"));
    let mut local = K::new();
    local.allow_writing();
    local.create(&table);
    let row = |number: i64, blank: &str, n: i64, v: i64| {
        vec![Cell::Text(format!("{{\"a\":{blank}{number}}}")), n.into(), v.into()]
    };
    // No smallint holds 100,000.
    local.insert(
        &table,
        &[
            row(1, "", 1, 10),
            row(1, " ", 7, 15),
            row(2, "", 1, 20),
            row(2, " ", 100_000, 25),
            row(3, "", 7, 35),
            row(4, "", 100_000, 45),
            row(5, "", 1, 50),
            row(5, " ", 1, 50),
            row(6, "", 1, 60),
        ],
    );
    let schema = table.schema(&[("k", "jsonb"), ("n", "int2")]);
    let mut store = store_of(&local, &[(&table, schema, TableConfig::default())]);
    let (mut good, mut bad) = (BTreeMap::new(), BTreeMap::new());
    let seen = store.look(&mut |look| {
        look.rows(0, &[PositionRange::ALL], &mut |row| {
            match row {
                RowSeen::Row(row) => drop(good.insert(row.item.position, row.clone())),
                RowSeen::Bad(row) => drop(bad.insert(row.position, row.clone())),
            }
            Ok(())
        })
    });
    seen.unwrap_or_else(|failure| panic!("{failure}"));
    let SourceKey::Encoded(lonely) = bad[&Some(45)].key.clone() else { panic!("{bad:?}") };
    let short = |v: i64| Some(ShortItem::from(&good[&v].item).digest);
    let digest = |v: i64| good[&v].item.digest;
    // The other row is another one, or there is none, or it is the row itself.
    let gone = |key, surplus, stored| RowChange::DeleteSurplus { key, surplus, stored };
    let changes = [
        gone(&good[&10].key[..], short(15), digest(60)),
        gone(&good[&20].key, None, digest(60)),
        gone(&good[&35].key, short(35), digest(35)),
        gone(&lonely, None, digest(60)),
        gone(&good[&50].key, short(60), digest(50)),
        gone(&good[&60].key, short(60), digest(60)),
    ];
    let none: [usize; 0] = [];
    assert_eq!(finds(store.as_mut(), &changes), none);
    let (answers, tally) = apply(store.as_mut(), &changes);
    assert_eq!((answers, tally), (vec!["changed".to_owned(); 6], Tally::default()));
    let changes = [
        gone(&good[&10].key[..], short(15), digest(10)),
        gone(&good[&20].key, None, digest(20)),
        gone(&good[&50].key, short(50), digest(50)),
        // It went by then.
        gone(&good[&50].key, short(50), digest(50)),
        gone(&good[&35].key, short(35), digest(35)),
    ];
    assert_eq!(finds(store.as_mut(), &changes), [0, 1, 2, 3], "before any of them is gone");
    let (answers, tally) = apply(store.as_mut(), &changes);
    assert_eq!(answers, ["done", "done", "done", "changed", "changed"]);
    assert_eq!(tally.deleted, 3);
    let mut left: Vec<String> = local
        .texts(&Table::new("spelled", &[("v", Type::Number)], &[], None))
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    left.sort();
    assert_eq!(left, ["10", "20", "35", "45", "50", "60"]);
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

/// Of a refused row people are told which other one has its value; of many, of the first ones.
pub fn who_holds_a_unique_value_is_told<K: LocalKind>() {
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, a VARCHAR(20) UNIQUE)";
    let mut fixture = Fixture::<K>::new(sql, simple("t"), TableConfig::default());
    let here: Vec<SourceRow> = (1..=30).map(|id| fixture.row(&cells(id, &format!("word {id}")))).collect();
    fixture.upsert(&here);
    let mut given: Vec<SourceRow> =
        (1..=30).map(|id| fixture.row(&cells(100 + id, &format!("word {id}")))).collect();
    given.push(fixture.row(&cells(7, "word 8")));
    given.rotate_right(1);
    let mut answers = Vec::new();
    fixture
        .store
        .transact(&mut |transaction| {
            answers = transaction.apply(0, &upserts(&given, Expected::Anything))?;
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let told = answers.iter().map(|answer| match answer {
        Applied::Refused { waits: true, reason } => {
            let held = reason.message.split_once("; it is held by the row ").map(|(_, key)| key.to_owned());
            (reason.key_text.clone(), held)
        }
        other => panic!("{other:?}"),
    });
    let told: Vec<(String, Option<String>)> = told.collect();
    assert_eq!(told.len(), 31);
    let holders: Vec<(i64, i64)> = told
        .iter()
        .filter_map(|(key, held)| {
            let id = |text: &String| text.strip_prefix("{\"id\":")?.strip_suffix('}')?.parse().ok();
            Some((id(key).expect("a key"), id(held.as_ref()?).expect("a key")))
        })
        .collect();
    assert_eq!(holders.len(), 20, "{told:?}");
    for (key, holder) in holders {
        assert_eq!(holder, if key == 7 { 8 } else { key - 100 }, "{told:?}");
    }
    fixture.has(&here);
}
