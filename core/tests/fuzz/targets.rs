//! What must hold of any input. Each answers what became of it: the kind of error and its sentence, or the shape of
//! what was read.

use std::sync::OnceLock;

use plimsoll_core::Error;
use plimsoll_core::blocks::{pack_entries, read_entries};
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::{ItemsWriter, read_keyed, read_manifest};
use plimsoll_core::ranges::{pack_ranges, pack_summaries, read_ranges, read_summaries};
use plimsoll_core::row::{
    BatchReader, BatchWriter, Fields, RowWriter, canonical_json, check_json, check_row, digest_form, examine,
    key_of, position_in,
};
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::short::{pack_items, read_items};
use plimsoll_core::sketch::{MOST_SYMBOLS, Sketch};
use plimsoll_core::store::PositionRange;
use plimsoll_core::token::Token;
use plimsoll_core::two_way::wire::{
    Act, pack_acts, pack_applied, pack_choices, pack_fetched, pack_keys, pack_wanted, read_acts,
    read_applied, read_choices, read_fetched, read_keys, read_wanted,
};
use plimsoll_core::value::{ColumnType, NumericBuf, NumericKind, Value, datetime};

use super::golden;
use super::runner::Outcome;

/// The ranges that sketches are over.
pub const SKETCHED: [PositionRange; 1] = [PositionRange { from: Some(0), to: Some(65_536) }];

/// An error without the numbers in it.
fn refusal(error: &Error) -> Outcome {
    let text: String =
        error.message().chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(60).collect();
    format!("{:?} {text}", error.kind())
}

/// How large a number is, roughly.
fn size(number: usize) -> u32 {
    usize::BITS - number.leading_zeros()
}

/// What a value looks like, and whether what people are shown of it can be made.
fn shape(value: &Value<'_>) -> Outcome {
    match value {
        Value::Bool(_) | Value::Int(_) | Value::Uuid(_) => "fixed".to_owned(),
        Value::Float(number) => format!("float {:?}", number.classify()),
        Value::Numeric(number) => {
            let text = number.to_string();
            let again = NumericBuf::parse(&text);
            if number.kind().is_finite() || number.kind() == NumericKind::NaN {
                assert_eq!(
                    again.as_ref().map(NumericBuf::borrow),
                    Ok(*number),
                    "a numeric from its own text"
                );
            }
            format!("numeric {:?} {} {}", number.kind(), size(text.len()), size(number.scale().into()))
        }
        Value::Text(text)
        | Value::Json(text)
        | Value::Jsonb(text)
        | Value::Enum(text)
        | Value::Other(text) => {
            format!("text {}", size(text.len()))
        }
        Value::Bytea(bytes) => format!("bytea {}", size(bytes.len())),
        Value::Date(days) => format!("date {}", size(datetime::format_date(*days).len())),
        Value::Time(micros) | Value::Timetz(micros, _) => {
            format!("time {}", size(datetime::format_time(*micros).len()))
        }
        Value::Timestamp(micros) | Value::Timestamptz(micros) => {
            format!("timestamp {}", size(datetime::format_timestamp(*micros).len()))
        }
        Value::Interval(..) => "interval".to_owned(),
        Value::Array(array) => {
            let elements: Vec<_> =
                array.elements().map(|element| element.map(|value| shape(&value))).collect();
            let first = elements.first().cloned().flatten();
            format!("array {} {} {first:?}", array.dimensions().len(), size(elements.len()))
        }
        Value::Range(range) => {
            let (lower, upper) = range.bounds();
            format!("range {:?} {:?}", lower.map(|value| shape(&value)), upper.map(|value| shape(&value)))
        }
        Value::Multirange(ranges) => format!("multirange {}", size(ranges.ranges().count())),
        Value::Composite(composite) => {
            let attributes = composite.attributes().map(|(number, value)| (number, shape(&value)));
            format!("composite {:?}", attributes.take(3).collect::<Vec<_>>())
        }
    }
}

fn digester() -> Digester {
    Digester::new(FingerprintKey::new(golden::fingerprint_key()))
}

/// The column types of the golden corpus.
fn types() -> &'static [ColumnType] {
    static TYPES: OnceLock<Vec<ColumnType>> = OnceLock::new();
    TYPES.get_or_init(|| {
        let mut types: Vec<ColumnType> =
            golden::entries().into_iter().map(|entry| entry.column_type).collect();
        types.sort_by_key(ToString::to_string);
        types.dedup();
        types
    })
}

/// Bytes as a row: what is accepted is written back as it was, and its digest form is one.
pub fn row(bytes: &[u8]) -> Outcome {
    let mut again = Vec::new();
    let mut writer = RowWriter::new(&mut again);
    let mut outcome = String::new();
    for field in Fields::new(bytes) {
        let field = match field {
            Ok(field) => field,
            Err(error) => {
                assert!(check_row(bytes).is_err(), "fields that fail are a row");
                return outcome + &refusal(&error);
            }
        };
        writer.field(field.number, &field.value);
        outcome.push_str(&shape(&field.value));
        let taken = types().iter().filter(|column_type| column_type.check(&field.value).is_ok()).count();
        outcome.push_str(&format!(" {taken} types, "));
    }
    assert_eq!(check_row(bytes), Ok(()), "fields that can be read are no row");
    assert_eq!(again, bytes, "a row is written back otherwise");
    let mut form = Vec::new();
    if let Err(error) = digest_form(bytes, &mut form) {
        assert!(digester().digest(bytes).is_err());
        return outcome + &refusal(&error);
    }
    assert_eq!(check_row(&form), Ok(()), "a digest form is no row");
    let mut twice = Vec::new();
    assert_eq!(digest_form(&form, &mut twice), Ok(()));
    assert_eq!(twice, form, "a digest form's own form is another");
    assert_eq!(digester().digest(bytes), Ok(digester().digest_of_form(&form)));
    outcome
}

fn schema() -> &'static TableSchema {
    static SCHEMA: OnceLock<TableSchema> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let types =
            ["int8", "text", "numeric(12,2)", "jsonb", "timestamptz(6)", "array(int4)", "bytea", "float8"];
        let column = |(column_type, number): (&&str, u32)| Column {
            number,
            name: format!("c{number}"),
            column_type: column_type.parse().expect("a type"),
            not_null: number < 3,
        };
        let columns = types.iter().zip(1..).map(column).collect();
        let roles =
            Roles { key: &["c1", "c2"], version: Some("c1"), modified: Some("c5"), ..Roles::default() };
        TableSchema::new(columns, &roles).expect("a schema")
    })
}

/// Bytes as a row of a table: one pass says what the ways to look at it say one by one.
pub fn examined_row(bytes: &[u8]) -> Outcome {
    let (mut form, mut key) = (Vec::new(), Vec::new());
    match examine(bytes, schema(), &mut form, &mut key) {
        Ok(position) => {
            assert_eq!(check_row(bytes), Ok(()));
            assert_eq!(position_in(bytes, schema()), Ok(position));
            assert_eq!(key_of(bytes, schema()), Ok(key));
            let mut expected = Vec::new();
            assert_eq!(digest_form(bytes, &mut expected), Ok(()));
            assert_eq!(form, expected);
            let shapes: Vec<Outcome> =
                Fields::new(bytes).flatten().map(|field| shape(&field.value)).collect();
            shapes.join(", ")
        }
        Err((column, error)) => format!("{column:?} {}", refusal(&error)),
    }
}

/// Bytes as an upload: all of it is written back as it was.
pub fn upload(bytes: &[u8]) -> Outcome {
    let reader = match BatchReader::new(bytes) {
        Ok(reader) => reader,
        Err(error) => return refusal(&error),
    };
    let mut writer = BatchWriter::new();
    let mut outcome = String::new();
    for row_bytes in reader {
        match row_bytes {
            Ok(row_bytes) => {
                writer.push(row_bytes);
                if outcome.len() < 100 {
                    outcome.push_str(&row(row_bytes));
                }
            }
            Err(error) => return outcome + &refusal(&error),
        }
    }
    assert_eq!(writer.finish(), bytes, "an upload is written back otherwise");
    outcome
}

/// Bytes as JSON: the canonical form is its own.
pub fn json(bytes: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
    let lax = check_json(text);
    let mut canonical = Vec::new();
    match canonical_json(text, &mut canonical) {
        Ok(()) => {
            assert_eq!(lax, Ok(()), "jsonb that is no json");
            let text = std::str::from_utf8(&canonical).expect("canonical JSON is text");
            let mut again = Vec::new();
            assert_eq!(canonical_json(text, &mut again), Ok(()));
            assert_eq!(again, canonical, "a canonical form's own form is another");
            let kinds: String = text.chars().filter(|c| "[{\"e-tn".contains(*c)).take(12).collect();
            format!("{} {kinds}", size(text.len()))
        }
        Err(error) => format!("{} {}", lax.is_ok(), refusal(&error)),
    }
}

/// Bytes as text of a type, a number, a date or time, a token: what has a text reads back from it.
pub fn text(bytes: &[u8]) -> Outcome {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".to_owned() };
    let mut outcome = String::new();
    let mut note = |what: &str, result: Result<String, Error>| match result {
        Ok(shape) => outcome.push_str(&format!("{what} {shape} ")),
        Err(error) => outcome.push_str(&refusal(&error)),
    };
    let column_type = text.parse::<ColumnType>();
    if let Ok(column_type) = &column_type {
        assert_eq!(column_type.to_string().parse().as_ref(), Ok(column_type), "a type from its own text");
    }
    note("type", column_type.map(|column_type| column_type.to_string().chars().take(8).collect()));
    let number = NumericBuf::parse(text);
    if let Ok(number) = &number {
        let row = |number: &NumericBuf| {
            let mut row = Vec::new();
            RowWriter::new(&mut row).field(1, &Value::Numeric(number.borrow()));
            row
        };
        assert_eq!(check_row(&row(number)), Ok(()), "a number that was read has no encoding");
    }
    note("number", number.map(|number| shape(&Value::Numeric(number.borrow()))));
    let date = datetime::parse_date(text);
    if let Ok(days) = date {
        assert_eq!(datetime::parse_date(&datetime::format_date(days)), Ok(days));
    }
    note("date", date.map(|_| String::new()));
    let time = datetime::parse_time(text);
    if let Ok(micros) = time {
        assert_eq!(datetime::parse_time(&datetime::format_time(micros)), Ok(micros));
    }
    note("time", time.map(|_| String::new()));
    note("timetz", datetime::parse_timetz(text).map(|_| String::new()));
    let stamp = datetime::parse_timestamp(text);
    if let Ok((micros, _)) = stamp
        && micros != i64::MIN
        && micros != i64::MAX
    {
        let again = datetime::parse_timestamp(&datetime::format_timestamp(micros));
        assert_eq!(again, Ok((micros, None)), "a timestamp from its own text");
    }
    note("timestamp", stamp.map(|_| String::new()));
    outcome.push_str(if Token::parse(text).is_some() { "token" } else { "" });
    outcome
}

/// Bytes as a sketch: it is written back as it was, and is solved, or not, in memory that its length bounds.
pub fn sketch(bytes: &[u8]) -> Outcome {
    let sketch = match Sketch::read(&SKETCHED, 0, bytes) {
        Ok(sketch) => sketch,
        Err(error) => return refusal(&error),
    };
    assert_eq!(sketch.pack(), bytes, "a sketch is written back otherwise");
    let local = Sketch::new(&SKETCHED, 0, sketch.symbols()).expect("as many symbols");
    let Some(decoded) = sketch.decode(&local) else { return format!("unsolved {}", size(bytes.len())) };
    let (ours, theirs) = (decoded.local_only.len(), decoded.remote_only.len());
    assert!(ours + theirs <= MOST_SYMBOLS as usize, "more rows than a sketch solves");
    format!("{} {}", size(ours), size(theirs))
}

pub fn ranges(bytes: &[u8]) -> Outcome {
    match read_ranges(bytes) {
        Ok(ranges) => {
            assert_eq!(pack_ranges(&ranges), bytes, "ranges are written back otherwise");
            format!("{} {:?}", size(ranges.len()), bytes.get(1..3))
        }
        Err(error) => refusal(&error),
    }
}

pub fn summaries(bytes: &[u8]) -> Outcome {
    match read_summaries(bytes) {
        Ok(summaries) => {
            assert_eq!(pack_summaries(&summaries), bytes, "summaries are written back otherwise");
            format!("{} {:?}", size(summaries.len()), bytes.get(1..3))
        }
        Err(error) => refusal(&error),
    }
}

pub fn short_items(bytes: &[u8]) -> Outcome {
    match read_items(bytes) {
        Ok(items) => {
            assert_eq!(pack_items(&items), bytes, "items are written back otherwise");
            size(items.len()).to_string()
        }
        Err(error) => refusal(&error),
    }
}

/// The acts of a two-way batch.
pub fn acts(bytes: &[u8]) -> Outcome {
    let acts: plimsoll_core::Result<Vec<Act<'_>>> = match read_acts(bytes) {
        Ok(acts) => acts.collect(),
        Err(error) => Err(error),
    };
    match acts {
        Ok(acts) => {
            assert_eq!(pack_acts(acts.iter().copied()), bytes, "acts are written back otherwise");
            size(acts.len()).to_string()
        }
        Err(error) => refusal(&error),
    }
}

/// What became of them.
pub fn outcomes(bytes: &[u8]) -> Outcome {
    match read_applied(bytes) {
        Ok(applied) => {
            assert_eq!(pack_applied(&applied), bytes, "outcomes are written back otherwise");
            size(applied.len()).to_string()
        }
        Err(error) => refusal(&error),
    }
}

/// Keys, choices, rows that are asked for, and such rows.
pub fn wishes(bytes: &[u8]) -> Outcome {
    let packed = [
        read_keys(bytes).map(|keys| pack_keys(&keys)),
        read_choices(bytes).map(|choices| pack_choices(&choices)),
        read_wanted(bytes).map(|wanted| pack_wanted(&wanted)),
        read_fetched(bytes).map(|(looked_for, found)| pack_fetched(looked_for, &found)),
    ];
    let read = packed.iter().map(|packed| match packed {
        Ok(packed) => {
            assert_eq!(packed, bytes, "a list is written back otherwise");
            "read".to_owned()
        }
        Err(error) => refusal(error),
    });
    read.collect::<Vec<_>>().join("; ")
}

pub fn manifest(bytes: &[u8]) -> Outcome {
    match (read_manifest(bytes), read_keyed(bytes)) {
        (Ok(manifest), Err(_)) => {
            let mut writer = ItemsWriter::new(false);
            manifest.items.iter().for_each(|item| writer.push(item, &[]));
            assert_eq!(writer.finish(manifest.next), bytes, "a manifest is written back otherwise");
            format!("plain {} {}", size(manifest.items.len()), manifest.next.is_some())
        }
        (Err(_), Ok((items, next))) => {
            let mut writer = ItemsWriter::new(true);
            items.iter().for_each(|keyed| writer.push(&keyed.item, &keyed.key));
            assert_eq!(writer.finish(next), bytes, "a manifest is written back otherwise");
            format!("keyed {} {}", size(items.len()), next.is_some())
        }
        (Err(plain), Err(keyed)) => refusal(&plain) + &refusal(&keyed),
        (Ok(_), Ok(_)) => panic!("a list that both has keys and has none"),
    }
}

pub fn entries(bytes: &[u8]) -> Outcome {
    match read_entries(bytes) {
        Ok(entries) => {
            assert_eq!(pack_entries(&entries), bytes, "entries are written back otherwise");
            let shapes = entries
                .iter()
                .map(|entry| (entry.range.level(), entry.added.is_some(), entry.removed.is_some()));
            format!("{:?}", shapes.take(4).collect::<Vec<_>>())
        }
        Err(error) => refusal(&error),
    }
}
