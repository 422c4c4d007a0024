//! Reads the golden corpus, `encoding-v1.tsv`. Included by the tests of core, extension and client.
#![allow(dead_code, reason = "each test that includes this file uses what it needs of it")]

use plimsoll_core::value::ColumnType;

/// One line of the corpus: a row of one field, column number 1.
#[derive(Debug)]
pub struct Entry {
    /// What the case is about.
    pub name: &'static str,
    /// The column's type.
    pub column_type: ColumnType,
    /// The value as SQL text; `None` is NULL.
    pub text: Option<String>,
    /// The kind of error where it is refused.
    pub refused: Option<&'static str>,
    /// The wire form; a refused text may have none.
    pub wire: Option<Vec<u8>>,
    /// The wire form as Postgres hands the value out again.
    pub stored: Vec<u8>,
    /// The digest form.
    pub form: Vec<u8>,
    /// The digest under [`fingerprint_key`].
    pub digest: Vec<u8>,
    /// Where a row stands that this column alone places by its hash; 0 where it is refused.
    pub position: i64,
}

/// The key that the corpus was made with.
pub fn fingerprint_key() -> [u8; 32] {
    std::array::from_fn(|i| i as u8)
}

/// All entries.
pub fn entries() -> Vec<Entry> {
    let text = include_str!("encoding-v1.tsv");
    text.lines().filter(|line| !line.starts_with('#')).map(entry).collect()
}

fn entry(line: &'static str) -> Entry {
    let cells: Vec<&str> = line.split('\t').collect();
    let [name, column_type, text, refused, wire, stored, form, digest, position] = cells[..] else {
        panic!("not nine cells: {line}");
    };
    let wire = (wire != "-").then(|| bytes(wire));
    let same_or = |cell: &str| match cell {
        "=" => wire.clone().expect("a wire form"),
        "-" => Vec::new(),
        cell => bytes(cell),
    };
    let (stored, form) = (same_or(stored), same_or(form));
    Entry {
        name,
        column_type: column_type.parse().unwrap_or_else(|error| panic!("{name}: {error}")),
        text: (text != "\\N").then(|| unescaped(text)),
        refused: (refused != "-").then_some(refused),
        wire,
        stored,
        form,
        digest: if digest == "-" { Vec::new() } else { bytes(digest) },
        position: if position == "-" { 0 } else { position.parse().expect(name) },
    }
}

/// Two values that one database compares, and what the digests say of them.
#[derive(Debug)]
pub struct Pair {
    /// Who compares them.
    pub database: &'static str,
    /// The type as declared there.
    pub declared: &'static str,
    /// One value: of Postgres as text, of others as SQL.
    pub one: &'static str,
    /// The other.
    pub other: &'static str,
    /// `equal`, `different` or `not compared`.
    pub says: &'static str,
    /// The type of the managed column.
    pub column_type: ColumnType,
    /// Whether the digests are the same.
    pub same: bool,
    /// Why.
    pub why: &'static str,
}

/// All pairs.
pub fn pairs() -> Vec<Pair> {
    let lines = include_str!("pairs.tsv").lines().filter(|line| !line.starts_with('#'));
    let pair = |line: &'static str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [database, declared, one, other, says, column_type, digests, why] = cells[..] else {
            panic!("not eight cells: {line}");
        };
        assert!(["equal", "different", "not compared"].contains(&says), "{line}");
        assert!(["same", "different"].contains(&digests), "{line}");
        let column_type = column_type.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        Pair { database, declared, one, other, says, column_type, same: digests == "same", why }
    };
    lines.map(pair).collect()
}

/// The bytes that hexadecimal digits, with or without blanks, stand for.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter(|c| *c != ' ').map(|c| c.to_digit(16).expect("a digit") as u8).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {hex}");
    digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
}

fn unescaped(cell: &str) -> String {
    let mut text = String::new();
    let mut chars = cell.chars();
    while let Some(char) = chars.next() {
        text.push(match char {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('0') => '\0',
                Some('\\') => '\\',
                other => panic!("an unknown escape {other:?} in {cell}"),
            },
            char => char,
        });
    }
    text
}
