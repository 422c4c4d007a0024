//! Tables of every shape against the contract.

use plimsoll_core::store::{BatchLimit, PositionRange, SourceKey, SourceRecord};

use super::contract::{check, read_all};
use super::kind::{Cell, LocalKind, Table, Type};

/// Rows made from numbers.
fn made(count: i64, row: impl Fn(i64) -> Vec<Cell>) -> Vec<Vec<Cell>> {
    (0..count).map(row).collect()
}

/// Texts that a careless order or comparison mixes up.
const TEXTS: [&str; 14] =
    ["", " ", "a", "A", "a ", "aa", "ä", "z", "Z", "0", "10", "9", "it's", "\u{1F600} 漢字"];

fn text(i: i64) -> String {
    let at = usize::try_from(i).expect("a place");
    format!("{}{}", TEXTS[at % TEXTS.len()], "x".repeat(at / TEXTS.len()))
}

/// Tables with some rows each; all of them can be encoded.
fn shapes() -> Vec<(Table, Vec<Vec<Cell>>)> {
    use Type::{Bytes, Folded, Number, Stamp, Text};
    let null_or = |i: i64, cell: Cell| if i % 3 == 0 { Cell::Null } else { cell };
    let mut shapes = Vec::new();
    let numbers = Table::new("numbers", &[("id", Number), ("name", Text), ("v", Number)], &["id"], Some("v"));
    let mut rows = made(60, |i| vec![(100 - i).into(), null_or(i, Cell::Text(text(i))), (i / 7).into()]);
    rows.push(vec![i64::MAX.into(), Cell::Null, i64::MAX.into()]);
    rows.push(vec![i64::MIN.into(), "low".into(), i64::MIN.into()]);
    shapes.push((numbers.clone(), rows.clone()));
    shapes.push((Table { name: "not indexed".to_owned(), indexed: false, ..numbers.clone() }, rows.clone()));
    let hashed = Table { name: "by \"hash\"".to_owned(), version: None, indexed: false, ..numbers };
    shapes.push((hashed, rows));

    let composite = Table::new(
        "order.lines",
        &[("b", Number), ("note", Folded), ("a", Text), ("v", Number)],
        // In another order than the columns stand in.
        &["a", "b"],
        Some("v"),
    );
    let rows = made(40, |i| vec![(i % 3).into(), Cell::Text(text(i)), Cell::Text(text(i / 3)), 1.into()]);
    shapes.push((
        Table { name: "order lines by hash".to_owned(), version: None, ..composite.clone() },
        rows.clone(),
    ));
    shapes.push((composite, rows));

    let bytes = Table::new("bytes", &[("k", Bytes), ("v", Number)], &["k"], Some("v"));
    let rows = made(30, |i| {
        let byte = u8::try_from(i * 8).expect("a byte");
        vec![Cell::Bytes(vec![byte; usize::try_from(i % 4 + 1).expect("a length")]), (i % 2).into()]
    });
    shapes.push((Table { name: "bytes by hash".to_owned(), version: None, ..bytes.clone() }, rows.clone()));
    shapes.push((bytes, rows));

    let stamps = Table::new("stamps", &[("id", Number), ("at", Stamp)], &["id"], Some("at"));
    let rows = made(40, |i| vec![i.into(), Cell::Stamp(800_000_000_000_000 + i / 4 * 500_000 + i % 2)]);
    shapes.push((Table { name: "stamps by hash".to_owned(), version: None, ..stamps.clone() }, rows.clone()));
    shapes.push((stamps, rows));

    // Keys that are stamps, and the version in the key.
    let keyed = Table::new("by stamp", &[("at", Stamp), ("v", Number)], &["v", "at"], Some("v"));
    let rows = made(20, |i| vec![Cell::Stamp(i * 1_000_001), (i % 4).into()]);
    shapes.push((keyed, rows));

    let loose = Table::new("loose", &[("a", Number), ("b", Text), ("c", Folded)], &[], None);
    let mut rows =
        made(30, |i| vec![null_or(i, (i % 4).into()), Cell::Text(text(i)), null_or(i + 1, "x".into())]);
    rows.extend(rows.clone().into_iter().step_by(2));
    rows.extend(vec![vec![Cell::Null, Cell::Null, Cell::Null]; 5]);
    shapes.push((loose, rows));

    let log = Table::new("log", &[("line", Text), ("v", Number)], &[], Some("v"));
    let mut rows = made(30, |i| vec![Cell::Text(text(i)), (i / 5).into()]);
    rows.extend(vec![vec!["again".into(), 3.into()]; 9]);
    shapes.push((log, rows));
    shapes
}

/// The contract on tables of every shape.
pub fn every_shape_is_read_by_the_contract<K: LocalKind>() {
    let mut local = K::new();
    for (table, rows) in shapes() {
        local.create(&table);
        local.insert(&table, &rows);
        check(&local, &table, &rows);
    }
}

/// The same without a row.
pub fn empty_tables_are_tables<K: LocalKind>() {
    let mut local = K::new();
    for (table, _) in shapes() {
        local.create(&table);
        check(&local, &table, &[]);
    }
}

/// Rows that the managed table has no room for: they keep their place, say what is wrong, and are found again.
pub fn rows_that_no_column_takes_are_told_of<K: LocalKind>() {
    let mut local = K::new();
    let columns = [("k", Type::Text), ("note", Type::Text), ("v", Type::Number)];
    let keyed = Table::new("keyed", &columns, &["k"], Some("v"));
    let hashed = Table { name: "hashed".to_owned(), version: None, ..keyed.clone() };
    let keyless = Table { name: "keyless".to_owned(), key: Vec::new(), ..hashed.clone() };
    let managed = [("k", "varchar(3)"), ("note", "varchar(3)")];
    for table in [keyed, hashed, keyless] {
        local.create(&table);
        let row = |k: &str, note: &str, v: i64| vec![k.into(), note.into(), v.into()];
        local.insert(
            &table,
            &[row("a", "yes", 1), row("b", "too long", 2), row("long", "yes", 3), row("d", "no", 4)],
        );
        let name = table.name.clone();
        let mut source = local.source(&[(&table, table.schema(&managed))]);
        let window = source.window(0, PositionRange::ALL, 100).expect("a window");
        assert_eq!((window.range, window.items.len()), (PositionRange::ALL, 2), "{name}");
        let mut bad = window.bad;
        bad.sort_by_key(|row| row.column.clone());
        let told: Vec<_> = bad.iter().map(|row| (row.column.as_deref(), row.sqlstate.as_str())).collect();
        assert_eq!(told, [(Some("k"), "22001"), (Some("note"), "22001")], "{name}");
        assert!(bad[0].key_text.contains("\"k\":\"long\""), "{name}: {}", bad[0].key_text);
        assert!(bad.iter().all(|row| row.message.contains(row.column.as_deref().unwrap_or("?"))), "{name}");
        // A row stands where it would if it fitted, as far as that can be told.
        let stand: Vec<bool> = bad.iter().map(|row| row.position.is_some()).collect();
        let expected = match name.as_str() {
            "keyed" => [true, true],
            "hashed" => [false, true],
            _ => [false, false],
        };
        assert_eq!(stand, expected, "{name}");
        let keys: Vec<SourceKey> = bad.iter().map(|row| row.key.clone()).collect();
        let found = source.lookup(0, &keys).expect("looked up");
        for (bad, found) in bad.iter().zip(&found) {
            assert!(matches!(found, Some(SourceRecord::Bad(again)) if **again == *bad), "{name}: {found:?}");
        }
        let held = source.fingerprints(0, &[PositionRange::ALL]).expect("fingerprints");
        assert_eq!((held[0].rows.row_count(), held[0].bad), (2, 2), "{name}");
        // What changes is another bad row, and what fits is one no more.
        let (table, k, note) = (K::quoted(&name), K::quoted("k"), K::quoted("note"));
        local.run(&format!("UPDATE {table} SET {note} = 'longer still' WHERE {k} = 'b'"));
        local.run(&format!("UPDATE {table} SET {k} = 'c' WHERE {k} = 'long'"));
        let again = source.window(0, PositionRange::ALL, 100).expect("a window");
        assert_eq!((again.items.len(), again.bad.len()), (3, 1), "{name}");
        assert_ne!(again.bad[0].source_digest, bad[1].source_digest, "{name}");
        assert_eq!(source.lookup(0, &keys[..1]).expect("looked up"), [None], "{name}");
    }
}

/// Rows without a key that the database's own comparison takes for the same: all are read, however few at a time.
pub fn equal_rows_are_counted_and_look_alikes_kept_apart<K: LocalKind>() {
    let mut local = K::new();
    for version in [None, Some("v")] {
        let name = if version.is_some() { "alike with version" } else { "alike" };
        let table = Table::new(name, &[("a", Type::Folded), ("v", Type::Number)], &[], version);
        local.create(&table);
        let texts = ["a", "A", "a", "b", "B", "A", "a", "c", "b", "a"];
        let rows: Vec<Vec<Cell>> = texts.iter().map(|text| vec![(*text).into(), 1.into()]).collect();
        local.insert(&table, &rows);
        check(&local, &table, &rows);
    }
}

/// A table as wide as databases make them.
pub fn a_thousand_columns_are_read<K: LocalKind>() {
    let mut local = K::new();
    let names: Vec<String> = (0..K::most_columns() - 2).map(|i| format!("column {i}")).collect();
    let mut columns = vec![("id", Type::Number), ("v", Type::Number)];
    columns.extend(names.iter().map(|name| (name.as_str(), Type::Number)));
    for version in [Some("v"), None] {
        let name = if version.is_some() { "wide" } else { "wide by hash" };
        let table = Table::new(name, &columns, &["id"], version);
        local.create(&table);
        let wide = |i: i64| (0..columns.len()).map(|c| Cell::from(i + c as i64)).collect::<Vec<_>>();
        let rows = made(5, |i| wide(i * 7));
        local.insert(&table, &rows);
        check(&local, &table, &rows);
        let mut source = local.source(&[(&table, table.schema(&[]))]);
        assert_eq!(read_all(source.as_mut(), 0, BatchLimit { rows: 2, bytes: 1 << 20 }).len(), 5);
    }
}
