//! Canonical JSON: equal documents have one form, and no text costs more than its length.

use super::*;
use proptest::prelude::*;

fn canonical(text: &str) -> Result<String> {
    let mut out = Vec::new();
    canonical_json(text, &mut out)?;
    Ok(String::from_utf8(out).expect("UTF-8"))
}

#[test]
fn equal_documents_have_one_form() {
    for (text, form) in [
        (" { \"bb\" : 1.50 , \"a\" : [ 1 , 2 ] } ", r#"{"a":[1,2],"bb":15e-1}"#),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"b":1,"aa":2,"a":3}"#, r#"{"a":3,"b":1,"aa":2}"#),
        ("100", "1e2"),
        ("1e2", "1e2"),
        ("100.00", "1e2"),
        ("-0.0", "0"),
        ("0.050", "5e-2"),
        ("1e400", "1e400"),
        (r#""\u00e9\/\n""#, "\"é/\\u000a\""),
        (r#""\ud83d\ude00""#, "\"😀\""),
        ("[]", "[]"),
        ("[{}, [], [[]]]", "[{},[],[[]]]"),
        ("null", "null"),
    ] {
        assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
    }
}

#[test]
fn what_jsonb_refuses_is_refused() {
    for text in [
        "",
        "{",
        "[1,]",
        "{\"a\"}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "tru",
        "nul",
        "\"",
        "\"\u{1}\"",
        r#""\u0000""#,
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\u0041""#,
        "1 2",
        "[1 2]",
        "NaN",
        "1e131073",
        "1e99999999999",
        "\"\\x\"",
        "{\"a\":1,}",
        "truex",
        "[1}",
        "1e-16384",
    ] {
        assert!(canonical(text).is_err(), "{text}");
    }
}

#[test]
fn depth_costs_no_stack() {
    let deep = "[".repeat(9_999) + &"]".repeat(9_999);
    assert_eq!(canonical(&deep).as_deref(), Ok(deep.as_str()));
    assert!(canonical(&"[".repeat(1_000_000)).is_err());
}

#[test]
fn json_takes_what_jsonb_cannot_hold() {
    for text in
        [r#""\u0000""#, r#""\ud800""#, r#"["\udc00\ud800x"]"#, "1e999999", "1e-99999", "1e99999999999", "[1]"]
    {
        assert_eq!(check_json(text), Ok(()), "{text}");
    }
    for text in [
        "",
        "{",
        "01",
        "1.",
        r#""\u00g0""#,
        r#""\x""#,
        "[1,]",
        "{\"a\":1 2}",
        "\"\u{1}\"",
        "1e",
        "NaN",
        "1 1",
    ] {
        assert_eq!(check_json(text).expect_err(text).kind(), ErrorKind::InvalidText, "{text}");
    }
}

#[test]
fn members_are_put_in_order_at_every_level() {
    for (text, form) in [
        (r#"{"b":{"d":[{"f":1,"e":2}],"c":3},"a":4}"#, r#"{"a":4,"b":{"c":3,"d":[{"e":2,"f":1}]}}"#),
        (r#"{"b":{"z":1,"y":2},"b":{"x":3,"w":4}}"#, r#"{"b":{"w":4,"x":3}}"#),
        (r#"{"a":1,"b":{"d":1,"c":2}}"#, r#"{"a":1,"b":{"c":2,"d":1}}"#),
        (r#"[{"b":1,"a":2},{"b":3,"a":4},{"a":5,"a":6}]"#, r#"[{"a":2,"b":1},{"a":4,"b":3},{"a":6}]"#),
        (r#"{"\"":1,"a":2,"\u0061":3}"#, r#"{"\"":1,"a":3}"#),
    ] {
        assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
    }
}

/// Each level used to copy all that it holds: this took minutes.
#[test]
fn a_large_value_deep_inside_is_not_copied_at_each_level() {
    let large = "x".repeat(1 << 20);
    for (open, close) in [("[", "]"), ("{\"b\":", ",\"a\":1}")] {
        let deep = format!("{}\"{large}\"{}", open.repeat(9_999), close.repeat(9_999));
        let started = std::time::Instant::now();
        assert!(canonical(&deep).is_ok_and(|form| form.len() == deep.len()));
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }
}

#[test]
fn numbers_that_jsonb_would_write_at_many_times_their_length_are_refused() {
    let many = |number: &str, count: usize| format!("[{}]", vec![number; count].join(","));
    for few in [many("1e131071", 7), many("0e-16383", 60), many("1e-16383", 60), many("1e20", 100_000)] {
        assert!(canonical(&few).is_ok(), "{}", &few[..20]);
    }
    for number in ["1e131071", "-1e131071", "0e-16383", "1e-16383", "12.5e9000"] {
        let error = canonical(&many(number, 400)).expect_err(number);
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{number}: {error}");
    }
    // Written out they are no longer than they are.
    let digits = "1".repeat(100_000);
    assert!(canonical(&many(&digits, 40)).is_ok());
}

proptest! {
    #[test]
    fn no_text_panics_and_the_form_is_a_fixed_point(text in "[\\[\\]{}:,\"0-9eE.tfn\\\\u -]{0,24}|\\PC{0,12}") {
        if let Ok(form) = canonical(&text) {
            prop_assert_eq!(canonical(&form), Ok(form.clone()));
        }
    }
}
