use super::*;
use crate::value::datetime::{format_timestamp, parse_date};
use proptest::prelude::*;

fn column(text: &str) -> ColumnType {
    text.parse().expect(text)
}

/// What a value is once converted for a column, for people, and whether something was lost.
fn adapted(conversion: Conversion, value: Value<'_>, to: &str) -> Result<(String, bool)> {
    let (column_type, mut room) = (column(to), Room::default());
    let adapted = conversion.apply(value, &column_type, &mut room)?;
    column_type.check(&adapted.value)?;
    let text = match adapted.value {
        Value::Text(text) => text.to_owned(),
        Value::Numeric(number) => number.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Timestamp(micros) | Value::Timestamptz(micros) | Value::Time(micros) => {
            format_timestamp(micros)
        }
        Value::Date(days) => crate::value::datetime::format_date(days),
        other => format!("{other:?}"),
    };
    Ok((text, adapted.lossy))
}

fn number(text: &str) -> NumericBuf {
    NumericBuf::parse(text).expect(text)
}

#[test]
fn names_are_read_and_shown_alike_and_others_are_refused() {
    for (name, conversion) in NAMES {
        assert_eq!(name.parse::<Conversion>().expect(name), conversion);
        assert_eq!(conversion.to_string(), name);
    }
    let refused = "trim".parse::<Conversion>().expect_err("no conversion");
    assert!(refused.message().contains("strip_nul, round"), "{refused}");
}

#[test]
fn text_loses_its_nul_characters_and_nothing_else() {
    let strip = |text: &str, to: &str| adapted(Conversion::StripNul, Value::Text(text), to);
    assert_eq!(strip("a\0b\0", "text").expect("text"), ("ab".to_owned(), true));
    assert_eq!(strip("ab ", "varchar(3)").expect("text"), ("ab ".to_owned(), false));
    assert_eq!(strip("ab \0", "char(3)").expect("text"), ("ab".to_owned(), true));
    assert!(strip("abc\0d", "varchar(3)").is_err(), "a text too long stays one");
}

#[test]
fn numbers_are_rounded_to_the_column_as_postgres_rounds() {
    let round = |text: &str, to: &str| adapted(Conversion::Round, Value::Numeric(number(text).borrow()), to);
    for (text, to, rounded, lossy) in [
        ("1.005", "numeric(10,2)", "1.01", true),
        ("-1.005", "numeric(10,2)", "-1.01", true),
        ("1.004999", "numeric(10,2)", "1.00", true),
        ("1.50", "numeric(10,2)", "1.50", false),
        ("0.005", "numeric(10,2)", "0.01", true),
        ("0.004", "numeric(10,2)", "0.00", true),
        ("0.0004", "numeric(10,2)", "0.00", true),
        ("9.995", "numeric(10,2)", "10.00", true),
        ("-0.001", "numeric(10,2)", "0.00", true),
        ("1499", "numeric(5,-3)", "1000", true),
        ("500", "numeric(5,-3)", "1000", true),
        ("499", "numeric(5,-3)", "0", true),
        ("2.5", "int4", "3", true),
        ("7", "int8", "7", false),
        ("NaN", "numeric(10,2)", "NaN", false),
    ] {
        assert_eq!(round(text, to).expect(text), (rounded.to_owned(), lossy), "{text} to {to}");
    }
    assert!(round("99999999.995", "numeric(10,2)").is_err(), "too many digits stay too many");
    assert!(round("1e30", "int8").is_err());
    let float = adapted(Conversion::Round, Value::Float(0.1), "float4").expect("a float");
    assert_eq!(float, (f64::from(0.1f32).to_string(), true));
}

#[test]
fn times_are_cut_to_the_column() {
    let at = |text: &str| parse_timestamp(text).expect(text).0;
    let cut = |value: Value<'_>, to: &str| adapted(Conversion::Truncate, value, to);
    for (text, to, cut_to, lossy) in [
        ("2024-02-29 10:20:30.999999", "timestamp(3)", "2024-02-29 10:20:30.999", true),
        ("1969-12-31 23:59:59.9", "timestamp(0)", "1969-12-31 23:59:59", true),
        ("2024-02-29 10:20:30", "timestamptz(0)", "2024-02-29 10:20:30", false),
        ("2024-02-29 10:20:30", "date", "2024-02-29", true),
    ] {
        let value = Value::Timestamp(at(text));
        assert_eq!(cut(value, to).expect(text), (cut_to.to_owned(), lossy), "{text} to {to}");
    }
    let long = Value::Text("2024-02-29T10:20:30.1234567+01:00");
    let cut_long = cut(long, "timestamptz(6)").expect("a text with more digits than any type");
    assert_eq!(cut_long, ("2024-02-29 09:20:30.123456".to_owned(), true));
    assert!(cut(long, "timestamp(6)").is_err(), "the zone would be lost");
    assert_eq!(
        cut(Value::Timestamp(i64::MAX), "timestamp(0)").expect("infinity"),
        ("infinity".to_owned(), false)
    );
}

#[test]
fn numbers_are_points_in_time() {
    let stamp = |conversion, text: &str, to: &str| {
        let number = number(text);
        let number = number.borrow();
        adapted(conversion, Value::Numeric(number), to).map(|(text, lossy)| {
            assert!(!lossy);
            text
        })
    };
    use Conversion::{UnixMilliseconds, UnixSeconds};
    for (conversion, text, to, shown) in [
        (UnixSeconds, "0", "timestamp", "1970-01-01 00:00:00"),
        (UnixSeconds, "1709202030.5", "timestamptz", "2024-02-29 10:20:30.5"),
        (UnixSeconds, "-1", "timestamp", "1969-12-31 23:59:59"),
        (UnixSeconds, "1709164800", "date", "2024-02-29"),
        (UnixMilliseconds, "1709202030123", "timestamp(3)", "2024-02-29 10:20:30.123"),
        (UnixMilliseconds, "0.001", "timestamp", "1970-01-01 00:00:00.000001"),
    ] {
        assert_eq!(stamp(conversion, text, to).expect(text), shown, "{text}");
    }
    for (conversion, text, to) in [
        (UnixSeconds, "0.0000001", "timestamp"),
        (UnixSeconds, "1e30", "timestamp"),
        (UnixSeconds, "NaN", "timestamp"),
        (UnixSeconds, "1", "date"),
        (UnixSeconds, "0.5", "timestamp(0)"),
    ] {
        assert!(stamp(conversion, text, to).is_err(), "{text} to {to}");
    }
}

#[test]
fn julian_days_are_what_sqlite_says_they_are() {
    // SELECT julianday('2024-02-29 10:20:30.123'), julianday('2000-01-01'), julianday('0001-01-01')
    for (day, shown) in [
        (2460369.93090420, "2024-02-29 10:20:30.123"),
        (2451544.5, "2000-01-01 00:00:00"),
        (1721425.5, "0001-01-01 00:00:00"),
    ] {
        let adapted = adapted(Conversion::JulianDay, Value::Float(day), "timestamp").expect("a stamp");
        assert_eq!(adapted, (shown.to_owned(), false));
    }
    let date = adapted(Conversion::JulianDay, Value::Float(2451544.5), "date").expect("a date").0;
    assert_eq!(parse_date(&date).expect("a date"), 0);
    for day in [-1.0, f64::NAN, f64::INFINITY, 1e10] {
        assert!(adapted(Conversion::JulianDay, Value::Float(day), "timestamp").is_err(), "{day}");
    }
}

proptest! {
    #[test]
    fn rounding_moves_a_number_by_half_a_unit_at_most(units in -1_000_000_000i64..1_000_000_000, scale in 0i16..4) {
        let text = format!("{units}e-6");
        let exact = number(&text);
        let to = format!("numeric(20,{scale})");
        let (rounded, lossy) = adapted(Conversion::Round, Value::Numeric(exact.borrow()), &to).expect("rounded");
        let unit = 10i64.pow(6 - scale as u32);
        let back: i64 = NumericBuf::parse(&format!("{rounded}e6")).expect("a number").borrow().smallest_scale()
            .to_string().parse().expect("whole");
        prop_assert_eq!(back % unit, 0);
        prop_assert!((back - units).abs() * 2 <= unit);
        prop_assert_eq!(lossy, back != units);
        prop_assert!((back - units).abs() * 2 < unit || back.abs() > units.abs(), "halves go away from zero");
    }

    #[test]
    fn nothing_panics(bits: u64, text in "\\PC{0,20}") {
        for (_, conversion) in NAMES {
            for to in ["text", "char(3)", "numeric(3,1)", "int2", "float4", "date", "time(0)", "timestamp(0)", "timestamptz"] {
                for value in [Value::Float(f64::from_bits(bits)), Value::Text(&text), Value::Timestamp(bits as i64)] {
                    let _ = conversion.apply(value, &column(to), &mut Room::default());
                }
                let float = NumericBuf::from_float(f64::from_bits(bits));
                let _ = conversion.apply(Value::Numeric(float.borrow()), &column(to), &mut Room::default());
            }
        }
    }
}
