//! The golden corpus: every value's bytes as docs/encoding.md has them, worked out by another program.

#[path = "golden/corpus.rs"]
mod corpus;
#[path = "golden/values.rs"]
mod values;

use corpus::{Entry, entries, fingerprint_key};
use plimsoll_core::Result;
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{Item, ItemsWriter, read_keyed, read_manifest};
use plimsoll_core::row::{
    BatchReader, BatchWriter, Fields, RowWriter, check_row, digest_form, key_of, position_in,
};
use plimsoll_core::schema::{Column, Roles, TableSchema, hash_position};
use plimsoll_core::value::{NumericBuf, Value};

fn digester() -> Digester {
    Digester::new(FingerprintKey::new(fingerprint_key()))
}

/// Whether `row` is what the entry's column takes and hashes: grammar, type, digest form.
fn accepted(entry: &Entry, row: &[u8]) -> Result<Vec<u8>> {
    check_row(row)?;
    for field in Fields::new(row) {
        entry.column_type.check(&field?.value)?;
    }
    let mut form = Vec::new();
    digest_form(row, &mut form)?;
    Ok(form)
}

fn encoded(entry: &Entry) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    if let Some(text) = &entry.text {
        values::with_value(text, &entry.column_type, &mut |value| {
            RowWriter::new(&mut row).field(1, value);
        })?;
    }
    Ok(row)
}

#[test]
fn values_have_the_bytes_and_digests_of_the_corpus() {
    let entries = entries();
    let accepted_entries: Vec<&Entry> = entries.iter().filter(|entry| entry.refused.is_none()).collect();
    assert!(accepted_entries.len() > 190, "the corpus has shrunk");
    for entry in accepted_entries {
        let name = entry.name;
        let wire = entry.wire.as_ref().expect(name);
        assert_eq!(&encoded(entry).expect(name), wire, "{name}: wire form");
        for row in [wire, &entry.stored] {
            assert_eq!(accepted(entry, row).as_ref(), Ok(&entry.form), "{name}: digest form");
            let digest = digester().digest(row).expect(name);
            assert_eq!(digest.0[..], entry.digest[..], "{name}: digest");
            assert_eq!(hash_position(&entry.form), entry.position, "{name}: position");
            let mut again = Vec::new();
            let mut writer = RowWriter::new(&mut again);
            for field in Fields::new(row) {
                let field = field.expect(name);
                assert_eq!(field.number, 1);
                writer.field(field.number, &field.value);
            }
            assert_eq!(&again, row, "{name}: written back");
        }
    }
}

#[test]
fn what_cannot_be_stored_is_refused_for_the_reason_in_the_corpus() {
    let mut refused = 0;
    for entry in entries() {
        let Some(kind) = entry.refused else { continue };
        refused += 1;
        let error = match &entry.wire {
            Some(wire) => accepted(&entry, wire).map(drop),
            None => encoded(&entry).map(drop),
        };
        let error = error.expect_err(entry.name);
        assert_eq!(format!("{:?}", error.kind()), kind, "{}: {error}", entry.name);
    }
    assert!(refused > 60, "the corpus has shrunk");
}

#[test]
fn different_values_have_different_digests() {
    let mut forms = std::collections::HashMap::new();
    for entry in entries().into_iter().filter(|entry| entry.refused.is_none()) {
        let form = forms.entry(entry.digest).or_insert_with(|| entry.form.clone());
        assert_eq!(*form, entry.form, "{}", entry.name);
    }
    assert!(forms.len() > 150);
}

/// The named values of the example in the grammar's document.
fn example() -> Vec<(String, Vec<u8>)> {
    let document = include_str!("../../docs/encoding.md");
    let (_, block) = document.split_once("```encoding-example\n").expect("an example");
    let block = block.split("```").next().expect("an end");
    let mut named: Vec<(String, String)> = Vec::new();
    for line in block.lines() {
        match (line.strip_suffix(':'), named.last_mut()) {
            (Some(name), _) => named.push((name.to_owned(), String::new())),
            (None, Some((_, hex))) => hex.push_str(line),
            (None, None) => panic!("bytes without a name: {line}"),
        }
    }
    named.into_iter().map(|(name, hex)| (name, corpus::bytes(&hex))).collect()
}

#[test]
fn the_example_in_the_document_is_what_the_code_does() {
    let column = |number, name: &str, text: &str, not_null| Column {
        number,
        name: name.to_owned(),
        column_type: text.parse().expect("a type"),
        not_null,
    };
    let columns = vec![
        column(1, "id", "int8", true),
        column(2, "name", "text", false),
        column(3, "price", "numeric", false),
    ];
    let schema =
        TableSchema::new(columns.clone(), &Roles { key: &["id"], version: Some("id"), ..Roles::default() })
            .expect("a schema");
    let keyless = Roles { placed_by: &["id", "name", "price"], ..Roles::default() };
    let keyless = TableSchema::new(columns, &keyless).expect("a schema");
    let rows = [("a", 7, Some("a|b"), "1.50"), ("b", 8, None, "-12345.6")];
    let mut expected = Vec::new();
    let (mut upload, mut fingerprint) = (BatchWriter::new(), Fingerprint::default());
    let (mut items, mut keyed) = (ItemsWriter::new(false), ItemsWriter::new(true));
    for (label, id, name, price) in rows {
        let mut row = Vec::new();
        let mut writer = RowWriter::new(&mut row);
        writer.field(1, &Value::Int(id));
        if let Some(name) = name {
            writer.field(2, &Value::Text(name));
        }
        writer.field(3, &Value::Numeric(NumericBuf::parse(price).expect("a number").borrow()));
        let mut form = Vec::new();
        digest_form(&row, &mut form).expect("a digest form");
        let digest = digester().digest(&row).expect("a digest");
        let key = key_of(&row, &schema).expect("a key");
        let item = Item { position: id, digest };
        upload.push(&row);
        fingerprint.insert(&digest);
        items.push(&item, &[]);
        keyed.push(&item, &key);
        let position = |schema: &TableSchema| position_in(&row, schema).expect("a position");
        let places = (hash_position(&key), position(&keyless));
        expected.push((format!("row {label}, wire form"), row));
        expected.push((format!("row {label}, digest form"), form));
        expected.push((format!("row {label}, digest"), digest.0.to_vec()));
        expected.push((format!("row {label}, key"), key));
        expected.push((format!("row {label}, position by its key"), places.0.to_le_bytes().to_vec()));
        expected.push((format!("row {label}, position by all columns"), places.1.to_le_bytes().to_vec()));
    }
    expected.push(("fingerprint".to_owned(), fingerprint.sum().to_vec()));
    expected.push(("upload".to_owned(), upload.finish()));
    expected.push(("items".to_owned(), items.finish(None)));
    expected.push(("items with keys".to_owned(), keyed.finish(Some(9))));
    let example = example();
    assert_eq!(example, expected);

    let bytes = |name: &str| example.iter().find(|(found, _)| found == name).expect(name).1.as_slice();
    let rows: Vec<&[u8]> = BatchReader::new(bytes("upload")).and_then(Iterator::collect).expect("an upload");
    assert_eq!(rows, [bytes("row a, wire form"), bytes("row b, wire form")]);
    assert_eq!(
        read_manifest(bytes("items")).map(|manifest| (manifest.items.len(), manifest.next)),
        Ok((2, None))
    );
    let (keyed, next) = read_keyed(bytes("items with keys")).expect("a list with keys");
    assert_eq!((keyed[1].key.as_slice(), next), (bytes("row b, key"), Some(9)));
}

/// The digest form of a value alone.
fn form_of(text: &str, column_type: &plimsoll_core::value::ColumnType) -> Vec<u8> {
    let mut form = Vec::new();
    let answer = values::with_value(text, column_type, &mut |value| {
        column_type.check(value).expect("a value of the type");
        RowWriter::new(&mut form).digest_field(1, value).expect("a digest form");
    });
    answer.expect("a value");
    form
}

#[test]
fn pairs_are_the_same_or_different_as_listed_and_as_the_document_says() {
    let document = include_str!("../../docs/types.md");
    let code = |text: &str| match text {
        "" => "no type".to_owned(),
        text => format!("`{}`", text.replace('|', "\\|")),
    };
    let mut lines: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| ") && line.contains("** |")).collect();
    let pairs = corpus::pairs();
    assert!(pairs.len() > 50, "the list has shrunk");
    for pair in &pairs {
        let corpus::Pair { database, declared, one, other, says, column_type, same, why } = pair;
        let verdict = if *same { "same" } else { "different" };
        let expected = format!(
            "| {database} | {} | {} | {} | {says} | {} | **{verdict}** | {why} |",
            code(declared),
            code(one),
            code(other),
            code(&column_type.to_string())
        );
        let before = lines.len();
        lines.retain(|line| *line != expected);
        assert_eq!(before, lines.len() + 1, "docs/types.md lacks: {expected}");
        if *database == "Postgres" {
            assert_eq!(
                form_of(one, column_type) == form_of(other, column_type),
                *same,
                "{declared}: {one}, {other}"
            );
        }
    }
    assert!(lines.is_empty(), "docs/types.md has pairs that are not listed: {lines:?}");
}
