//! Rows that say whose they are, bytes that lie about what follows, SQL where values belong.

use plimsoll_core::row::{BatchWriter, RowWriter, put_varint};
use plimsoll_core::value::Value;

use crate::attempt::{Attempt, Expect, Outcome, Trials, by, expect};
use crate::world::{Who, World, hex};

const NO_COLUMN: Expect = Expect::Refused(&["42703"]);
const BAD: Expect = Expect::Refused(&["22023"]);
const BAD_TEXT: Expect = Expect::Refused(&["22P02"]);
const MALFORMED: Expect = Expect::Refused(&["22P03"]);

const ATTEMPTS: &[Attempt] = &[
    by(Who::Granted, "the database's column in a row",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"database_id\": \"{B}\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "the client's column in a row",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"client_id\": \"x\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "the client's column in capitals",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"CLIENT_ID\": \"x\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "the client's column in quotes",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"\\\"client_id\\\"\": \"x\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "the client's column with a blank before it",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \" client_id\": \"x\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "a system column in a row",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"ctid\": \"(0,1)\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "a column of our own statements in a row",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"plimsoll ctid\": \"(0,1)\"}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "SQL in place of a column's name",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1, \"version\": 99, \"name = name; --\": 1}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "the other tenant in a key that is deleted",
        "SELECT * FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": 1, \"database_id\": \"{B}\"}}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "SQL in a key",
        "SELECT * FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": \"1 OR true\"}}]'::jsonb)", BAD_TEXT),
    by(Who::Granted, "SQL in a key's column",
        "SELECT * FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id OR true --\": 1}}]'::jsonb)", NO_COLUMN),
    by(Who::Granted, "SQL in the version of a row that is deleted",
        "SELECT * FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": 1}, \"version\": \"1 OR true\"}]'::jsonb)", BAD),
    by(Who::Granted, "SQL in a digest",
        "SELECT * FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": 1}, \"digest\": \"'' OR true\"}]'::jsonb)", BAD),
    by(Who::Granted, "SQL in a range",
        "SELECT * FROM plimsoll.delete_range('{A}', 'shop.customer', '[1,2) OR true')", BAD_TEXT),
    by(Who::Granted, "a range upside down",
        "SELECT * FROM plimsoll.delete_range('{A}', 'shop.customer', int8range(9, 1))", Expect::Refused(&["22000"])),
    by(Who::Granted, "SQL in a run's number",
        "SELECT plimsoll.end_run('1 OR true', 'finished')", BAD_TEXT),
    by(Who::Granted, "SQL in the outcome of a run",
        "SELECT plimsoll.end_run(1, 'finished''; DROP TABLE shop.customer; --')", Expect::Refused(&["55000"])),
    by(
        Who::Granted,
        "a cursor of a download that was made up",
        "SELECT count(*) FROM plimsoll.download('{A}', 'shop.customer', '(,)', 100, decode(repeat('ff', 100), 'hex'))",
        Expect::Answer("12"),
    ),
    by(Who::Granted, "more rows than an answer has",
        "SELECT * FROM plimsoll.download('{A}', 'shop.customer', '(,)', -1)", BAD),
    by(Who::Granted, "more batches than an answer has",
        "SELECT * FROM plimsoll.batch_history('{A}', 'shop.customer', 2147483647)", BAD),
    by(Who::Granted, "a sketch of more symbols than there are",
        "SELECT plimsoll.sketch('{A}', 'shop.customer', '{(,)}', 0, 2147483647)", Expect::Refused(&["22023", "54000"])),
    by(Who::Granted, "a sketch from a negative symbol on",
        "SELECT plimsoll.sketch('{A}', 'shop.customer', '{(,)}', -1, 10)", Expect::Refused(&["22023", "54000"])),
    by(Who::Granted, "more ranges than an answer has",
        "SELECT * FROM plimsoll.range_manifest('{A}', 'shop.customer', '(,)', 2147483647)", Expect::Refused(&["22023", "54000"])),
    by(
        Who::Granted,
        "rows nested deeper than Postgres reads",
        "SELECT * FROM plimsoll.upload('{A}', 'shop.wide', jsonb_build_array(jsonb_build_object('id', 1, 'version', 9,
             'doc', (repeat('[', 100000) || repeat(']', 100000))::jsonb)))",
        Expect::Refused(&["54001"]),
    ),
    by(Who::Granted, "rows that are no array", "SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '{\"id\": 1}'::jsonb)", BAD),
    by(Who::Granted, "a number that no column holds",
        "SELECT rejected->0->>'sqlstate' FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 1e30, \"version\": 99}]'::jsonb)",
        Expect::Refused(&["22003", "22P02"])),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    for (name, bytes) in lies() {
        trials.one(&format!("bytes: {name}"), |world| send(world, "shop.wide", &bytes, MALFORMED));
    }
    trials.one("bytes: the tenant columns by their numbers", tenant_by_number);
    trials.one("bytes: names of keys that are none", |world| {
        let mut session = world.connect(Who::Granted);
        for function in ["packed_keys", "packed_rows", "packed_items", "packed_summaries", "delete_rows"] {
            for bytes in ["", "00", "ff", "01ffffffffffffffffff01", "0101ffffffffffffffff7f", "0100000000"] {
                let sql =
                    format!("SELECT plimsoll.{function}('{{A}}', 'shop.customer', '\\x{bytes}'::bytea)");
                let outcome = session.run(&world.filled(&sql));
                match outcome {
                    Err(refusal) if ["22P03", "22023", "54000"].contains(&refusal.sqlstate.as_str()) => {}
                    // What happens to be a list without entries.
                    Ok(_) if bytes == "0100000000" => {}
                    other => return Err(format!("{function} of {bytes}: {other:?}")),
                }
            }
        }
        Ok(())
    });
    trials.touching("rows nested as deep as Postgres reads", &["A's rows", "A's history"], |world| {
        let mut session = world.connect(Who::Granted);
        session.must(&world.filled(
            "SELECT * FROM plimsoll.upload('{A}', 'shop.wide', jsonb_build_array(jsonb_build_object('id', 3, 'version', 80,
                 'doc', (repeat('[', 6000) || repeat(']', 6000))::jsonb)));
             SELECT * FROM plimsoll.download('{A}', 'shop.wide', '(,)', 100);
             SELECT * FROM plimsoll.manifest('{A}', 'shop.wide', '(,)')",
        ));
        Ok(())
    });
    trials.touching("a row of one's own under the key of another's", &["A's rows"], |world| {
        let mut session = world.connect(Who::Granted);
        let sql = world.filled(
            "SELECT inserted + updated FROM plimsoll.upload('{A}', 'shop.wide', '[{\"id\": 1, \"version\": 90, \"tag\": \"mine\"}]'::jsonb)",
        );
        expect(&mut session, &sql, Expect::Answer("1"))
    });
    trials.touching("one's own rows deleted with all that are another's", &["A's rows", "A's history"], |world| {
        let mut session = world.connect(Who::Granted);
        let sql = world.filled("SELECT deleted FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": 5}}]'::jsonb)");
        expect(&mut session, &sql, Expect::Answer("1"))
    });
    trials.touching("one's own parent deleted with the children of others", &["A's rows", "A's history"], |world| {
        let mut session = world.connect(Who::Granted);
        let sql = world.filled("SELECT deleted FROM plimsoll.delete_rows('{A}', 'shop.customer', '[{\"key\": {\"id\": 3}}]'::jsonb)");
        expect(&mut session, &sql, Expect::Answer("1"))
    });
    trials.touching(
        "everything deleted, over and over, in small steps",
        &["A's rows", "A's history"],
        |world| {
            let mut session = world.connect(Who::Granted);
            for from in 1..12 {
                session.must(&world.filled(&format!(
                    "SELECT * FROM plimsoll.delete_range('{{A}}', 'shop.customer', '[{from},{})')",
                    from + 1
                )));
            }
            let left: i64 = world.value("SELECT count(*) FROM shop.customer WHERE client_id = 'acme'");
            if left >= 6 { Ok(()) } else { Err(format!("{left} rows are left: the guard held nothing back")) }
        },
    );
}

fn send(world: &mut World, table: &str, bytes: &[u8], wanted: Expect) -> Outcome {
    let mut session = world.connect(Who::Granted);
    let sql = format!("SELECT * FROM plimsoll.upload('{{A}}', '{table}', '{}'::bytea)", hex(bytes));
    expect(&mut session, &world.filled(&sql), wanted)
}

/// A batch of one row as `write` makes it.
fn batch(write: impl FnOnce(&mut RowWriter<'_>)) -> Vec<u8> {
    let mut row = Vec::new();
    write(&mut RowWriter::new(&mut row));
    let mut batch = BatchWriter::new();
    batch.push(&row);
    batch.finish()
}

/// A batch of one row with numbers in these columns, in this order.
fn fields(numbers: &[u32]) -> Vec<u8> {
    let mut row = Vec::new();
    for number in numbers {
        // Written by hand: the writer would not.
        put_varint(&mut row, u64::from(*number));
        row.extend([2, 1, 0, 0, 0, 0, 0, 0, 0]);
    }
    let mut batch = BatchWriter::new();
    batch.push(&row);
    batch.finish()
}

/// Batches that lie about what follows.
fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let sound = batch(|row| {
        row.int(1, 1);
        row.int(2, 99);
    });
    let version = sound[0];
    let with = |numbers: &[u64], rest: &[u8]| {
        let mut bytes = vec![version];
        numbers.iter().for_each(|number| put_varint(&mut bytes, *number));
        bytes.extend_from_slice(rest);
        bytes
    };
    let mut longer = sound.clone();
    longer.push(0);
    let mut shorter = sound.clone();
    shorter.pop();
    vec![
        ("nothing at all", Vec::new()),
        ("a version of the encoding that is still to come", vec![200, 1, 0]),
        ("more rows than there are", with(&[u64::from(u32::MAX), 1], &[0])),
        ("more rows than numbers count", with(&[u64::MAX, 1], &[0])),
        ("a row longer than the rest", with(&[1, 1 << 40], &[0])),
        ("a row as long as numbers go", with(&[1, u64::MAX], &[0])),
        ("a number that does not end", [&[version][..], &[0xff; 30]].concat()),
        ("a byte too many", longer),
        ("a byte too few", shorter),
        ("a field longer than its row", {
            let mut row = Vec::new();
            RowWriter::new(&mut row).text_bytes(3, b"x");
            let last = row.len() - 2;
            row[last] = 0x7f;
            let mut batch = BatchWriter::new();
            batch.push(&row);
            batch.finish()
        }),
        (
            "a text that is no text",
            batch(|row| {
                row.int(1, 1);
                row.text_bytes(12, &[0xff, 0xfe, 0xc0]);
            }),
        ),
        ("fields out of order", fields(&[2, 1])),
        ("a field twice", fields(&[1, 1])),
        ("a field with number 0", fields(&[0])),
    ]
}

/// Each number that is none of a sent column, the tenant columns' among them, with a value that would fit.
fn tenant_by_number(world: &mut World) -> Outcome {
    let sent = "SELECT column_number, is_key, is_version FROM plimsoll.table_schema($1, 'shop.customer')";
    let sent = world.superuser.query(sent, &[&world.a.id]).expect("the columns");
    let sent: Vec<(u32, Option<i64>)> = sent
        .iter()
        .map(|row| {
            let (key, version): (bool, bool) = (row.get(1), row.get(2));
            (row.get::<_, i32>(0) as u32, if key { Some(1) } else { version.then_some(99) })
        })
        .collect();
    let id = *world.b.id.as_bytes();
    let mut session = world.connect(Who::Granted);
    for number in (1..=12).filter(|number| !sent.iter().any(|(one, _)| one == number)) {
        for value in [Value::Uuid(id), Value::Text("x")] {
            let bytes = batch(|row| {
                for field in 1..=12 {
                    if field == number {
                        row.field(field, &value);
                    } else if let Some((_, Some(own))) = sent.iter().find(|(one, _)| *one == field) {
                        row.int(field, *own);
                    }
                }
            });
            let sql =
                format!("SELECT * FROM plimsoll.upload('{{A}}', 'shop.customer', '{}'::bytea)", hex(&bytes));
            match session.run(&world.filled(&sql)) {
                Err(refusal) if ["22P03", "42703"].contains(&refusal.sqlstate.as_str()) => {}
                other => return Err(format!("number {number}: {other:?}")),
            }
        }
    }
    Ok(())
}
