//! The encoding's properties: it comes back, nothing else is taken, equal values hash equally.

use proptest::prelude::*;

use super::*;
use crate::digest::{Digester, FingerprintKey};
use crate::schema::{Column, Roles};
use crate::value::{
    ArrayBuilder, ColumnType, CompositeBuilder, MultirangeBuilder, NumericBuf, RangeBuilder, Value,
};

fn row(fields: &[(u32, Value<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = RowWriter::new(&mut out);
    for (number, value) in fields {
        writer.field(*number, value);
    }
    out
}

fn digest(fields: &[(u32, Value<'_>)]) -> crate::digest::RowDigest {
    Digester::new(FingerprintKey::new([3; 32])).digest(&row(fields)).expect("a sound row")
}

#[test]
fn every_kind_of_value_comes_back() {
    let number = NumericBuf::parse("-12345.6700").expect("a number");
    let mut array = ArrayBuilder::new(&[(2, 1), (1, -3)]);
    array.push(Some(&Value::Int(1)));
    array.push(None);
    let bound = Value::Date(5);
    let range = RangeBuilder::new(Some((&bound, true)), None);
    let mut multirange = MultirangeBuilder::default();
    multirange.push(range.range());
    let mut composite = CompositeBuilder::default();
    composite.push(2, &Value::Text("x"));
    let values = [
        Value::Bool(true),
        Value::Int(i64::MIN),
        Value::Numeric(number.borrow()),
        Value::Float(-0.0),
        Value::Text("tab\t é 😀"),
        Value::Bytea(&[0, 255]),
        Value::Uuid([9; 16]),
        Value::Date(i32::MAX),
        Value::Time(1),
        Value::Timestamp(i64::MAX),
        Value::Timestamptz(-1),
        Value::Timetz(7, -3600),
        Value::Interval(1, -2, 3),
        Value::Json("{ }"),
        Value::Jsonb("[1]"),
        Value::Array(array.array()),
        Value::Range(range.range()),
        Value::Multirange(multirange.multirange()),
        Value::Composite(composite.composite()),
        Value::Enum("paid"),
        Value::Other("127.0.0.1"),
    ];
    let fields: Vec<_> = values.iter().enumerate().map(|(i, value)| (i as u32 + 1, *value)).collect();
    let bytes = row(&fields);
    let back: Vec<_> =
        Fields::new(&bytes).map(|field| field.map(|f| (f.number, f.value)).expect("a field")).collect();
    assert_eq!(back, fields);
    let elements: Vec<_> = array.array().elements().collect();
    assert_eq!(elements, [Some(Value::Int(1)), None]);
    assert_eq!(range.range().bounds(), (Some(Value::Date(5)), None));
}

#[test]
fn values_that_are_equal_hash_equally_and_others_do_not() {
    let n = |text: &str| NumericBuf::parse(text).expect("a number");
    let (a, b, c) = (n("1.50"), n("1.5"), n("1.51"));
    let numeric = |n: &NumericBuf| digest(&[(1, Value::Numeric(n.borrow()))]);
    assert_eq!(numeric(&a), numeric(&b));
    assert_ne!(numeric(&a), numeric(&c));
    assert_eq!(numeric(&n("0.00")), numeric(&n("-0")));
    assert_eq!(digest(&[(1, Value::Float(0.0))]), digest(&[(1, Value::Float(-0.0))]));
    let nan = f64::from_bits(0xfff8_0000_0000_0001);
    assert_eq!(digest(&[(1, Value::Float(f64::NAN))]), digest(&[(1, Value::Float(nan))]));
    assert_eq!(
        digest(&[(1, Value::Jsonb(r#"{"a":1, "b":2.0}"#))]),
        digest(&[(1, Value::Jsonb(r#"{"b":2,"a":1}"#))])
    );
    assert_ne!(digest(&[(1, Value::Json("{ }"))]), digest(&[(1, Value::Json("{}"))]));
    // NULL is not the empty text, and delimiters inside text do not move values between columns.
    assert_ne!(digest(&[]), digest(&[(1, Value::Text(""))]));
    assert_ne!(
        digest(&[(1, Value::Text("a|b")), (2, Value::Text("c"))]),
        digest(&[(1, Value::Text("a")), (2, Value::Text("b|c"))])
    );
    let nested = |n: &NumericBuf| {
        let mut array = ArrayBuilder::new(&[(1, 1)]);
        array.push(Some(&Value::Numeric(n.borrow())));
        digest(&[(1, Value::Array(array.array()))])
    };
    assert_eq!(nested(&a), nested(&b));
    assert_ne!(nested(&a), nested(&c));
}

#[test]
fn lies_are_refused() {
    let good = row(&[(1, Value::Int(5)), (2, Value::Text("abc"))]);
    for cut in 1..good.len() {
        if cut != 10 {
            assert!(check_row(&good[..cut]).is_err(), "cut at {cut}");
        }
    }
    for bad in [
        &[1, 0][..],                                    // a NULL written out
        &[0, 1, 1],                                     // column number 0
        &[2, 1, 1, 1, 1, 1],                            // numbers descend
        &[1, 1, 2],                                     // a bool of 2
        &[1, 99],                                       // an unknown tag
        &[0x81, 0x00, 1, 1],                            // a number longer than it needs
        &[1, 5, 2, 0xc3, 0x28],                         // not UTF-8
        &[1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f],          // a length beyond the end
        &[1, 3, 0, 0, 0, 0, 0, 1, 0, 0],                // a zero digit
        &[1, 3, 1, 0, 0, 0, 0, 0],                      // minus zero
        &[1, 3, 0, 0, 0, 0, 0, 1, 0x10, 0x27],          // a digit of 10000
        &[1, 16, 9, 1, 255, 255, 255, 255, 0, 0, 0, 0], // an array that lies about its length
        &[1, 17, 1, 3],                                 // an empty range with an open bound
    ] {
        assert!(check_row(bad).is_err(), "{bad:?}");
    }
    let mut deep = vec![1, 1];
    for _ in 0..100 {
        // An array of one dimension and one element around what there is.
        let mut inner = vec![1, 1, 0, 0, 0, 1, 0, 0, 0];
        inner.extend_from_slice(&deep);
        deep = vec![16];
        put_varint(&mut deep, inner.len() as u64);
        deep.extend_from_slice(&inner);
    }
    assert!(check_row(&[&[1][..], &deep].concat()).is_err());
}

#[test]
fn an_upload_that_lies_is_refused() {
    let mut writer = BatchWriter::new();
    writer.push(&row(&[(1, Value::Int(5))]));
    writer.push(&row(&[(1, Value::Int(6))]));
    let good = writer.finish();
    let mut in_pieces = Vec::new();
    let rows = [row(&[(1, Value::Int(5))]), row(&[(1, Value::Int(6))])];
    put_batch(rows.iter().map(Vec::as_slice), |piece| in_pieces.extend_from_slice(piece));
    assert_eq!(in_pieces, good);
    let read = |bytes: &[u8]| {
        BatchReader::new(bytes).and_then(|rows| rows.collect::<Result<Vec<_>>>().map(|r| r.len()))
    };
    assert_eq!(read(&good), Ok(2));
    for cut in 0..good.len() {
        assert!(read(&good[..cut]).is_err(), "cut at {cut}");
    }
    assert!(read(&[&good[..], &[0]].concat()).is_err());
    let mut another_version = good.clone();
    another_version[0] = 2;
    assert!(read(&another_version).is_err());
    let mut false_count = good.clone();
    false_count[1..5].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&false_count).is_err());
    let mut false_length = good;
    false_length[5] += 1;
    assert!(read(&false_length).is_err() || read(&false_length).is_ok_and(|n| n != 2));
}

fn schema() -> TableSchema {
    let column = |number, name: &str, column_type: &str, not_null| Column {
        number,
        name: name.to_owned(),
        column_type: column_type.parse().expect("a type"),
        not_null,
    };
    let columns = vec![
        column(3, "version", "int8", true),
        column(1, "id", "numeric(10,2)", true),
        column(7, "name", "varchar(3)", false),
    ];
    TableSchema::new(columns, &Roles { key: &["id"], version: Some("version"), ..Roles::default() })
        .expect("a schema")
}

#[test]
fn a_row_is_checked_against_its_table() {
    let schema = schema();
    let id = NumericBuf::parse("1.50").expect("a number");
    let short = NumericBuf::parse("1.5").expect("a number");
    let good = row(&[(1, Value::Numeric(id.borrow())), (3, Value::Int(9)), (7, Value::Text("abc"))]);
    assert_eq!(position_in(&good, &schema), Ok(9));
    // A key is a row by the grammar: what it names can be looked up.
    let key = key_of(&good, &schema).expect("a key");
    let values: Vec<_> = Fields::new(&key).map(|field| field.expect("a field").value).collect();
    assert_eq!(values, [Value::Numeric(short.borrow())]);
    let (mut form, mut digested) = (Vec::new(), Vec::new());
    let mut examined_key = Vec::new();
    assert_eq!(examine(&good, &schema, &mut form, &mut examined_key), Ok(9));
    assert_eq!(examined_key, key);
    digest_form(&good, &mut digested).expect("a sound row");
    assert_eq!(form, digested);
    assert_eq!(
        examine(&good[1..], &schema, &mut form, &mut Vec::new()).map_err(|(column, _)| column),
        Err(None)
    );
    assert_eq!(key_of(&good, &schema), key_of(&row(&[(1, Value::Numeric(short.borrow()))]), &schema));
    let column = |fields: &[(u32, Value<'_>)]| {
        let refused = examine(&row(fields), &schema, &mut Vec::new(), &mut Vec::new()).expect_err("refused");
        (refused.0, refused.1.kind())
    };
    let id = (1, Value::Numeric(id.borrow()));
    assert_eq!(column(&[id]), (Some("version".into()), crate::ErrorKind::Null));
    assert_eq!(column(&[(3, Value::Int(1))]), (Some("id".into()), crate::ErrorKind::Null));
    assert_eq!(column(&[id, (3, Value::Int(1)), (7, Value::Text("abcd"))]).1, crate::ErrorKind::TooLong);
    assert_eq!(column(&[id, (3, Value::Int(1)), (8, Value::Int(1))]), (None, crate::ErrorKind::WrongType));
}

#[test]
fn a_row_stands_at_the_hash_of_what_places_it() {
    let roles = |key| Roles { key, placed_by: &["id"], ..Roles::default() };
    let [keyed, keyless] = [&["id"][..], &[]]
        .map(|key| TableSchema::new(schema().columns().to_vec(), &roles(key)).expect("a schema"));
    let [short, shown] = ["1.5", "1.50"].map(|text| NumericBuf::parse(text).expect("a number"));
    let full = |id: &NumericBuf, version, name| {
        row(&[(1, Value::Numeric(id.borrow())), (3, Value::Int(version)), (7, Value::Text(name))])
    };
    let (a, b) = (full(&short, 1, "a"), full(&shown, 2, "b"));
    let place = hash_position(&row(&[(1, Value::Numeric(short.borrow()))]));
    for schema in [&keyed, &keyless] {
        for bytes in [&a, &b] {
            let (mut form, mut key) = (Vec::new(), Vec::new());
            assert_eq!(position_in(bytes, schema), Ok(place), "equal numbers stand at one place");
            assert_eq!(examine(bytes, schema, &mut form, &mut key), Ok(place));
            assert_eq!(key_of(bytes, schema), Ok(key));
        }
    }
    assert_eq!(key_of(&a, &keyed), key_of(&b, &keyed));
    let mut form = Vec::new();
    digest_form(&b, &mut form).expect("sound");
    assert_eq!(key_of(&b, &keyless), Ok(form), "a keyless row is its content");
    // What is NULL is absent, and a key column that is NULL still is refused.
    let nothing = row(&[(3, Value::Int(1))]);
    assert_eq!(position_in(&nothing, &keyless), Ok(hash_position(&[])));
    assert!(examine(&nothing, &keyed, &mut Vec::new(), &mut Vec::new()).is_err());
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    // The encodings of values of most kinds, by way of owned parts.
    prop_oneof![
        any::<bool>().prop_map(|v| row(&[(1, Value::Bool(v))])),
        any::<i64>().prop_map(|v| row(&[(1, Value::Int(v))])),
        any::<f64>().prop_map(|v| row(&[(1, Value::Float(v))])),
        "\\PC{0,20}".prop_map(|v| row(&[(1, Value::Text(&v))])),
        any::<Vec<u8>>().prop_map(|v| row(&[(1, Value::Bytea(&v))])),
        "-?[0-9]{1,12}(\\.[0-9]{1,8})?".prop_map(|v| {
            let number = NumericBuf::parse(&v).expect("a number");
            row(&[(1, Value::Numeric(number.borrow()))])
        }),
        (any::<i64>(), any::<i32>()).prop_map(|(a, b)| row(&[(1, Value::Timetz(a, b))])),
        prop::collection::vec(any::<Option<i64>>(), 1..5).prop_map(|items| {
            let mut array = ArrayBuilder::new(&[(items.len() as u32, 1)]);
            items.iter().for_each(|item| array.push(item.map(Value::Int).as_ref()));
            row(&[(1, Value::Array(array.array()))])
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_read_is_written_back_byte_for_byte(bytes in any_value()) {
        let fields: Vec<_> = Fields::new(&bytes).map(|f| f.map(|f| (f.number, f.value)).expect("a field")).collect();
        prop_assert_eq!(row(&fields), bytes);
    }

    #[test]
    fn the_digest_form_is_a_fixed_point_for_its_digest(bytes in any_value()) {
        let mut once = Vec::new();
        digest_form(&bytes, &mut once).expect("sound");
        let mut again = Vec::new();
        digest_form(&bytes, &mut again).expect("sound");
        prop_assert_eq!(once, again);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = check_row(&bytes);
        let _ = digest_form(&bytes, &mut Vec::new());
        if let Ok(rows) = BatchReader::new(&bytes) {
            rows.for_each(drop);
        }
    }

    #[test]
    fn damaged_rows_never_panic(bytes in any_value(), at in 0usize..64, with: u8) {
        let mut bytes = bytes;
        let length = bytes.len();
        bytes[at % length] = with;
        let _ = check_row(&bytes);
        let _ = digest_form(&bytes, &mut Vec::new());
    }

    #[test]
    fn column_types_are_read_from_any_text_without_panic(text in "[a-z0-9(),' ]{0,30}") {
        let _ = text.parse::<ColumnType>();
    }
}
