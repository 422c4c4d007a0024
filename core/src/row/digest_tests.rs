//! Values written straight in digest form have the bytes that the wire form's digest form has.

use proptest::prelude::*;

use super::{RowWriter, digest_form};
use crate::value::{ArrayBuilder, Numeric, NumericBuf, NumericKind, Value};

/// The digest form by way of the wire form.
fn by_wire(value: &Value<'_>) -> Vec<u8> {
    let (mut wire, mut form) = (Vec::new(), Vec::new());
    RowWriter::new(&mut wire).field(7, value);
    digest_form(&wire, &mut form).expect("a sound row");
    form
}

fn written(write: impl FnOnce(&mut RowWriter<'_>)) -> Vec<u8> {
    let mut form = Vec::new();
    write(&mut RowWriter::new(&mut form));
    form
}

fn by_value(value: &Value<'_>) -> Vec<u8> {
    written(|row| row.digest_field(7, value).expect("a sound value"))
}

#[test]
fn column_numbers_of_any_length_are_written_alike() {
    for number in [1, 127, 128, 16_383, 16_384, u32::MAX] {
        let mut wire = Vec::new();
        RowWriter::new(&mut wire).field(number, &Value::Int(5));
        assert_eq!(written(|row| row.int(number, 5)), wire, "{number}");
    }
}

#[test]
fn floats_that_are_equal_are_written_alike() {
    for value in [0.0, -0.0, f64::NAN, f64::from_bits(0xfff8_0000_0000_0001), 1.5, f64::INFINITY] {
        assert_eq!(written(|row| row.digest_float(7, value)), by_wire(&Value::Float(value)), "{value}");
    }
}

#[test]
fn digits_with_zeros_at_an_end_are_no_number_to_borrow() {
    for digits in [&[][..], &[1], &[0, 0], &[0, 0, 1, 0], &[1, 0, 0, 0]] {
        assert_eq!(Numeric::from_digits(false, 0, digits), None, "{digits:?}");
    }
    let tenth = [0xe8, 0x03];
    assert!(Numeric::from_digits(false, -4096, &tenth).is_some());
    assert_eq!(Numeric::from_digits(false, -4097, &tenth), None, "more digits than are ever shown");
}

#[test]
fn what_is_no_finite_number_has_no_scale() {
    for text in ["NaN", "Infinity", "-Infinity", "0", "0.000", "-0.0"] {
        let number = NumericBuf::parse(text).expect("a number");
        let number = number.borrow();
        let form = written(|row| row.numeric(7, &number.smallest_scale()));
        assert_eq!(form, by_wire(&Value::Numeric(number)), "{text}");
    }
}

#[test]
fn jsonb_that_is_no_json_is_refused_inside_arrays_too() {
    let bad = Value::Jsonb("{");
    assert!(RowWriter::new(&mut Vec::new()).digest_field(1, &bad).is_err());
    assert!(ArrayBuilder::new(&[(1, 1)]).push_digest_form(Some(&bad)).is_err());
}

proptest! {
    #[test]
    fn fixed_values(int: i64, float: f64, days: i32, uuid: [u8; 16], flag: bool) {
        prop_assert_eq!(written(|row| row.int(7, int)), by_wire(&Value::Int(int)));
        prop_assert_eq!(written(|row| row.digest_float(7, float)), by_wire(&Value::Float(float)));
        prop_assert_eq!(written(|row| row.date(7, days)), by_wire(&Value::Date(days)));
        prop_assert_eq!(written(|row| row.uuid(7, uuid)), by_wire(&Value::Uuid(uuid)));
        prop_assert_eq!(written(|row| row.bool(7, flag)), by_wire(&Value::Bool(flag)));
        prop_assert_eq!(written(|row| row.time(7, int)), by_wire(&Value::Time(int)));
        prop_assert_eq!(written(|row| row.timestamp(7, int)), by_wire(&Value::Timestamp(int)));
        prop_assert_eq!(written(|row| row.timestamptz(7, int)), by_wire(&Value::Timestamptz(int)));
    }

    #[test]
    fn sized_values(text in "\\PC{0,300}", bytes: Vec<u8>) {
        prop_assert_eq!(written(|row| row.text_bytes(7, text.as_bytes())), by_wire(&Value::Text(&text)));
        prop_assert_eq!(written(|row| row.bytea(7, &bytes)), by_wire(&Value::Bytea(&bytes)));
    }

    #[test]
    fn numerics(text in "-?[0-9]{1,20}(\\.[0-9]{0,20})?(e-?[0-9]{1,2})?") {
        let number = NumericBuf::parse(&text).expect("a number");
        let number = number.borrow();
        let expected = by_wire(&Value::Numeric(number));
        prop_assert_eq!(&by_value(&Value::Numeric(number)), &expected);
        prop_assert_eq!(&written(|row| row.numeric(7, &number.smallest_scale())), &expected);
        let digits: Vec<u8> = number.digits().flat_map(u16::to_le_bytes).collect();
        let negative = number.kind() == NumericKind::Negative;
        if let Some(borrowed) = Numeric::from_digits(negative, number.weight(), &digits) {
            prop_assert_eq!(&written(|row| row.numeric(7, &borrowed)), &expected);
        } else {
            prop_assert!(digits.is_empty(), "{} can be borrowed", text);
        }
    }

    #[test]
    fn arrays(items in prop::collection::vec(any::<Option<f64>>(), 1..5), zeros in 0usize..5) {
        let (mut wire, mut form) = (ArrayBuilder::new(&[(items.len() as u32, 1)]), ArrayBuilder::new(&[(items.len() as u32, 1)]));
        let text = format!("1.5{}", "0".repeat(zeros));
        let number = NumericBuf::parse(&text).expect("a number");
        for item in &items {
            let item = item.map(|item| match item.is_sign_negative() {
                true => Value::Numeric(number.borrow()),
                false => Value::Float(item),
            });
            wire.push(item.as_ref());
            form.push_digest_form(item.as_ref()).expect("a sound value");
        }
        let expected = by_wire(&Value::Array(wire.array()));
        prop_assert_eq!(written(|row| row.field(7, &Value::Array(form.array()))), expected);
    }
}
