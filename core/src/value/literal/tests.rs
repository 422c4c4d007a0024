use super::{parse, shown, to_text};
use crate::value::ColumnType;

fn read(column_type: &str, text: &str) -> Result<String, String> {
    let column_type: ColumnType = column_type.parse().expect("a type");
    let mut buffer = Vec::new();
    let value = parse(text, &column_type, &mut buffer).map_err(|error| error.to_string())?;
    column_type.check(&value).map_err(|error| error.to_string())?;
    Ok(to_text(&value))
}

#[test]
fn what_postgres_writes_is_read_and_written_back() {
    for (column_type, texts) in [
        (
            "array(int4)",
            &["{}", "{1,NULL,3}", "[0:2]={1,2,3}", "{{1,2},{3,4}}", "[-1:0][5:6]={{1,2},{3,4}}"][..],
        ),
        ("array(text)", &[r#"{"",NULL,"NULL","a,b","{x}","q\"\\",é," a "}"#]),
        ("array(bool)", &["{t,f}"]),
        ("array(bytea)", &[r#"{"\\x00ff","\\x"}"#]),
        ("range(int4)", &["[1,10)", "empty", "(,5)", "[1,)", "(,)"]),
        ("range(text)", &[r#"["",b)"#, r#"["a,b","c""d"]"#, r#"["(","\\")"#]),
        ("range(timestamptz)", &[r#"["2000-01-01 00:00:00+00",infinity)"#]),
        ("multirange(numeric)", &["{}", "{(,1.50),(2.0,)}"]),
        ("composite(1 'a' int4,2 'b' text)", &["(1,\"a b\")", "(,c)"]),
        ("array(composite(1 'a' int4,2 'b' array(text)))", &[r#"{"(1,\"{a,\"\"b c\"\"}\")"}"#]),
        ("interval", &["1 year 2 mons -3 days 04:05:06.7", "00:00:00", "-00:00:00.000001"]),
        ("timetz", &["10:00:00+05:30:15", "24:00:00-15:59"]),
    ] {
        for text in texts {
            assert_eq!(read(column_type, text), Ok((*text).to_owned()), "{column_type}: {text}");
        }
    }
}

#[test]
fn other_spellings_stand_for_the_same() {
    for (column_type, text, written) in [
        ("array(int4)", " { 1 , null , 3 } ", "{1,NULL,3}"),
        ("array(text)", r#"{ "a" , b c , \n\u\l\l }"#, r#"{a,"b c","null"}"#),
        ("interval", "P1Y2M-3DT4H5M6.7S", "1 year 2 mons -3 days 04:05:06.7"),
        ("interval", "1 week 90 minutes", "7 days 01:30:00"),
        ("interval", "100:00:00", "100:00:00"),
        ("range(float8)", "[NaN,Infinity]", "[NaN,Infinity]"),
        ("array(other('pg_catalog.box'))", "{(1,1),(0,0);NULL}", r#"{"(1,1),(0,0)",NULL}"#),
    ] {
        assert_eq!(read(column_type, text), Ok(written.to_owned()), "{text}");
    }
}

#[test]
fn nonsense_is_refused() {
    for (column_type, texts) in [
        (
            "array(int4)",
            &[
                "",
                "1",
                "{",
                "{1",
                "{1}}",
                "{1,}",
                "{,1}",
                "{1}x",
                "{{1},{2,3}}",
                "{{1},2}",
                "{1,{2}}",
                "[0:1]={1}",
                "[0]={1}",
                "[0:0]{1}",
                "{{}}",
                "{\"1\"2}",
                "{1\"2\"}",
                "{{{{{{{1}}}}}}}",
                "[1:0]={}",
                "{\\",
                "{\"1",
            ][..],
        ),
        ("range(int4)", &["", "[1,2", "1,2", "[1]", "[1,2,3]", "[1,2)x", "Empty", "[a,b]"]),
        ("multirange(int4)", &["", "{[1,2)", "{[1,2)[3,4)}", "{1}", "{,}", "{empty}"]),
        ("composite(1 'a' int4,2 'b' text)", &["", "(1)", "(1,2,3)", "(1,2", "1,2", "(x,y)", "(1,2)z"]),
        (
            "interval",
            &[
                "",
                "1",
                "day",
                "1 fortnight",
                "P",
                "PT",
                "P1H",
                "1:2:3:4",
                "00:60:00",
                "00:00:60",
                "1.5 days",
                "9999999999 days",
                "00:00:00.0000001",
                "--1 day",
                "é day",
            ],
        ),
        ("array(float8)", &["{1e999}", "{inf}", "{nan}"]),
        ("array(uuid)", &["{a0eebc999c0b4ef8bb6d6bb9bd380a1}", "{é}"]),
    ] {
        for text in texts {
            assert!(read(column_type, text).is_err(), "{column_type}: {text}");
        }
    }
}

#[test]
fn text_of_values_in_values_is_bounded() {
    let mut bytes = vec![5, 3, b'"', b'a', b'"'];
    for _ in 0..32 {
        let inner = [&[1][..], &bytes].concat();
        bytes = vec![19];
        crate::row::put_varint(&mut bytes, inner.len() as u64);
        bytes.extend_from_slice(&inner);
    }
    let (value, _) = crate::row::take_tagged(&bytes).expect("a value");
    let text = to_text(&value.expect("no NULL"));
    assert!((1_000..70_000).contains(&text.len()), "{}", text.len());
    assert_eq!(shown(&value.expect("no NULL"), 5).chars().count(), 8);
}
