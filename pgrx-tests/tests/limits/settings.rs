//! Limits of one call, each an option of a database: what goes beyond is refused before anything is done, with the
//! limit, what was asked for, and what to do.

use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::row::{BatchWriter, RowWriter};
use plimsoll_core::store::PositionRange;
use plimsoll_core::value::{NumericBuf, Value};
use postgres::types::ToSql;

use super::memory::peak;
use super::shop::{Shop, range, refused};
use super::stock;

#[track_caller]
fn says(message: &str, wanted: &[&str]) {
    for part in wanted {
        assert!(message.contains(part), "\"{part}\" is not in: {message}");
    }
}

#[test]
fn each_limit_is_an_option_and_says_what_to_do() {
    let mut shop = stock::open();
    let till = stock::stocked(&mut shop, "acme", 3_000);
    let mut agent = shop.agent(&till);
    for (option, value) in [
        ("max_upload_bytes", "65536"),
        ("max_upload_rows", "1000"),
        ("max_answer_rows", "1000"),
        ("max_ranges", "16"),
        ("max_symbols", "64"),
    ] {
        shop.set_option(&till, option, Some(value));
    }
    let all = pack_ranges(&[PositionRange::ALL]);
    let many: Vec<PositionRange> = (0..17).map(|i| range(2 * i, 2 * i + 1)).collect();
    let multirange = "{[0,1),[2,3),[4,5),[6,7),[8,9),[10,11),[12,13),[14,15),[16,17),[18,19),[20,21),[22,23),\
                      [24,25),[26,27),[28,29),[30,31),[32,33)}";
    let upload = |rows, note: &str| stock::upload(10_000, rows, 0, note);
    let json = format!("[{}]", vec!["{\"id\": 1, \"version\": 1}"; 1_001].join(","));
    type Case<'a> = (&'a str, &'a (dyn ToSql + Sync), &'a str, &'a [&'a str]);
    let (large, long) = (upload(1_000, &"n".repeat(70)), upload(1_001, "n"));
    let (zeros, packed) = (vec![0u8; 65_537], pack_ranges(&many));
    let none: Option<Vec<u8>> = None;
    let cases: [Case<'_>; 17] = [
        ("upload($1, 'shop.sale', $2::bytea)", &large, "54000", &["bytes", "65536", "max_upload_bytes"]),
        ("upload($1, 'shop.sale', $2::bytea)", &long, "54000", &["1001 rows", "1000", "max_upload_rows"]),
        (
            "upload($1, 'shop.sale', $2::text::jsonb)",
            &json,
            "54000",
            &["1001 rows", "1000", "max_upload_rows"],
        ),
        ("delete_rows($1, 'shop.sale', $2::bytea)", &zeros, "54000", &["65537 bytes", "max_upload_bytes"]),
        ("packed_ranges($1, 'shop.sale', $2, 1)", &zeros, "54000", &["65537 bytes", "max_upload_bytes"]),
        ("packed_keys($1, 'shop.sale', $2)", &zeros, "54000", &["65537 bytes", "max_upload_bytes"]),
        ("packed_rows($1, 'shop.sale', $2)", &zeros, "54000", &["65537 bytes", "max_upload_bytes"]),
        ("packed_items($1, 'shop.sale', $2)", &all, "54000", &["1001 rows", "1000", "max_answer_rows"]),
        (
            "manifest($1, 'shop.sale', '(,)') m WHERE $2::bytea IS NULL",
            &none,
            "54000",
            &["3000 rows", "1000", "max_answer_rows"],
        ),
        (
            "manifest($1, 'shop.sale', '[3,1700)') m WHERE $2::bytea IS NULL",
            &none,
            "54000",
            &["rows", "1000", "max_answer_rows"],
        ),
        (
            "download($1, 'shop.sale', '(,)', 1001, $2::bytea)",
            &none,
            "22023",
            &["1001", "1000", "max_answer_rows"],
        ),
        (
            "packed_manifest($1, 'shop.sale', coalesce(nullif($2, 'x'), '(,)')::int8range, 1001)",
            &"x",
            "22023",
            &["1001", "1000", "max_answer_rows"],
        ),
        ("packed_summaries($1, 'shop.sale', $2)", &packed, "54000", &["17 ranges", "16", "max_ranges"]),
        (
            "range_manifest($1, 'shop.sale', $2::text::int8range, 17)",
            &"(,)",
            "22023",
            &["17", "16", "max_ranges"],
        ),
        (
            "sketch($1, 'shop.sale', $2::text::int8multirange, 0, 10)",
            &multirange,
            "54000",
            &["17 ranges", "16", "max_ranges"],
        ),
        (
            "sketch($1, 'shop.sale', $2::text::int8multirange, 0, 65)",
            &"{(,)}",
            "54000",
            &["65 symbols", "64", "max_symbols"],
        ),
        ("packed_sketch($1, 'shop.sale', $2, 60, 5)", &all, "54000", &["65 symbols", "64", "max_symbols"]),
    ];
    for (call, argument, sqlstate, wanted) in cases {
        let outcome = agent.query(&format!("SELECT * FROM plimsoll.{call}"), &[&till.id, argument]);
        let message = refused(outcome.map(|rows| rows.len()), sqlstate);
        println!("{call}: {message}");
        says(&message, wanted);
    }
    // Up to the limit everything works, and an option put back to its default lets the rest through.
    let rows = |agent: &mut postgres::Client, rows| -> i64 {
        let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.sale', $2::bytea)";
        agent.query_one(sql, &[&till.id, &upload(rows, "n")]).expect("stored").get(0)
    };
    assert_eq!(rows(&mut agent, 1_000), 1_000);
    shop.set_option(&till, "max_upload_rows", None);
    assert_eq!(rows(&mut agent, 1_001), 1);
    shop.set_option(&till, "max_answer_rows", Some("4001"));
    let count = "SELECT count(*) FROM plimsoll.manifest($1, 'shop.sale', '(,)')";
    assert_eq!(agent.query_one(count, &[&till.id]).expect("a manifest").get::<_, i64>(0), 4_001);
}

/// A shop with a managed table `shop.odd` of these columns besides tenant and version, its database and its agent.
fn odd(columns: &str) -> (Shop, plimsoll_tests::Registered, postgres::Client) {
    let mut shop = Shop::open();
    let owner: String =
        shop.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.customer'::regclass");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.odd (client_id text NOT NULL, database_id uuid NOT NULL, version bigint NOT NULL,
                 {columns}, PRIMARY KEY (client_id, database_id, id));
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.odd', version_column => 'version')"
        ))
        .expect("a managed table");
    let till = shop.register("acme", 0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

const UPLOAD: &str = "SELECT inserted, rejected FROM plimsoll.upload($1, 'shop.odd', $2::bytea)";

/// A few bytes stand for a number of 131,072 digits: many such keys in an answer took gigabytes.
#[test]
fn refused_rows_are_told_in_memory_that_their_number_bounds() {
    let (_shop, till, mut agent) = odd("id numeric NOT NULL, size int2");
    let number = NumericBuf::parse("1e131071").expect("a number");
    let mut batch = BatchWriter::new();
    const ROWS: i64 = 20_000;
    for version in 0..ROWS {
        let mut row = Vec::new();
        let mut writer = RowWriter::new(&mut row);
        writer.field(3, &Value::Int(version));
        writer.field(4, &Value::Numeric(number.borrow()));
        // Out of range for int2.
        writer.field(5, &Value::Int(70_000));
        batch.push(&row);
    }
    let before = peak(&mut agent);
    let sql = "SELECT jsonb_array_length(rejected)::bigint, length(rejected #>> '{7,key,id}')
               FROM plimsoll.upload($1, 'shop.odd', $2::bytea)";
    let row = agent.query_one(sql, &[&till.id, &batch.finish()]).expect("an answer");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i32>(1)), (ROWS, 201));
    let grown = (peak(&mut agent) - before) / 1024;
    println!("{grown} MB for {ROWS} refused rows");
    assert!(grown < 160, "{grown} MB");
}

#[test]
fn jsonb_whose_numbers_grow_when_written_is_refused_before_they_are() {
    let (_shop, till, mut agent) = odd("id int NOT NULL, doc jsonb");
    let doc = format!("[{}]", vec!["1e131071"; 20_000].join(","));
    let mut row = Vec::new();
    let mut writer = RowWriter::new(&mut row);
    writer.field(3, &Value::Int(1));
    writer.field(4, &Value::Int(1));
    writer.field(5, &Value::Jsonb(&doc));
    let mut batch = BatchWriter::new();
    batch.push(&row);
    let before = peak(&mut agent);
    let answer = agent.query_one(UPLOAD, &[&till.id, &batch.finish()]).expect("an answer");
    let rejected: serde_json::Value = answer.get(1);
    assert_eq!(rejected[0]["sqlstate"], "54000", "{rejected}");
    says(rejected[0]["message"].as_str().expect("a message"), &["doc", "exponents"]);
    // As an argument of a call too.
    for call in ["upload($1, 'shop.odd', $2::text::jsonb)", "delete_rows($1, 'shop.odd', $2::text::jsonb)"] {
        let outcome = agent.query(&format!("SELECT * FROM plimsoll.{call}"), &[&till.id, &doc]);
        says(&refused(outcome.map(|rows| rows.len()), "54000"), &["rows has", "67108864", "smaller parts"]);
    }
    let grown = (peak(&mut agent) - before) / 1024;
    println!("{grown} MB");
    assert!(grown < 100, "{grown} MB");
}

#[test]
fn large_and_deep_arguments_are_refused_or_stored_and_do_no_harm() {
    let (_shop, till, mut agent) = odd("id int NOT NULL, doc jsonb, amount numeric, list int[]");
    let upload = |agent: &mut postgres::Client, rows: &str| {
        let sql = "SELECT inserted, rejected::text FROM plimsoll.upload($1, 'shop.odd', $2::text::jsonb)";
        agent.query_one(sql, &[&till.id, &rows]).map(|row| (row.get::<_, i64>(0), row.get::<_, String>(1)))
    };
    let digits = "7".repeat(100_000);
    let stored = upload(&mut agent, &format!("[{{\"id\": 1, \"version\": 1, \"amount\": {digits}}}]"));
    assert_eq!(stored.expect("stored").0, 1);
    let list = vec!["1"; 200_000].join(",");
    let stored = upload(&mut agent, &format!("[{{\"id\": 2, \"version\": 2, \"list\": [{list}]}}]"));
    assert_eq!(stored.expect("stored").0, 1);
    let deep = "[".repeat(2_000) + &"]".repeat(2_000);
    let outcome = upload(&mut agent, &format!("[{{\"id\": 3, \"version\": 3, \"doc\": {deep}}}]"));
    println!("{:?}", outcome.as_ref().map(|(inserted, _)| *inserted));
    let outcome = upload(&mut agent, &format!("[{}]", vec!["{}"; 100_001].join(",")));
    says(&refused(outcome, "54000"), &["100001 rows", "max_upload_rows"]);
    let empty = vec!["0"; 1_000_001].join(",");
    let outcome = upload(&mut agent, &format!("[{empty}]"));
    says(&refused(outcome, "54000"), &["1000001 rows", "smaller parts"]);
    let sql = "SELECT plimsoll.begin_run($1, 'till', '1.0', 1, NULL, $2::text::jsonb)";
    let outcome = agent.query(sql, &[&till.id, &format!("[{empty}]")]).map(|rows| rows.len());
    says(&refused(outcome, "54000"), &["local_versions", "1000000"]);
}
