//! What ranges of a replica hold, by plain SQL and packed for agents.

mod shop;

use std::collections::BTreeSet;

use plimsoll_core::manifest::read_keyed;
use plimsoll_core::ranges::{RangeSummary, ShortSum, pack_ranges, read_summaries};
use plimsoll_core::row::BatchReader;
use plimsoll_core::short::{ShortItem, pack_items, read_items};
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::PositionRange;
use plimsoll_tests::Registered;
use postgres::Client;
use shop::{Shop, refused};

const ROWS: i64 = 6_000;

/// A managed table with this type of version, two databases with rows in it, and the first one's agent.
fn stocked(version: &str, expression: &str) -> (Shop, Registered, Client) {
    let mut shop = Shop::open();
    let owner: String =
        shop.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.customer'::regclass");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.sale (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, note text,
                 version {version} NOT NULL, PRIMARY KEY (client_id, database_id, id));
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.sale', version_column => 'version')"
        ))
        .expect("a managed table");
    let mut registered = Vec::new();
    for client in ["acme", "umbrella"] {
        registered.push(shop.register(client, 0));
        let database = registered.last().expect("a database");
        shop.superuser
            .execute(
                &format!("INSERT INTO shop.sale SELECT $1, $2, i, 'note ' || i, {expression} FROM generate_series(1, $3::bigint) i"),
                &[&client, &database.id, &ROWS],
            )
            .expect("rows");
    }
    let till = registered.swap_remove(0);
    let agent = shop.agent(&till);
    (shop, till, agent)
}

fn bytes(client: &mut Client, sql: &str, parameters: &[&(dyn postgres::types::ToSql + Sync)]) -> Vec<u8> {
    client
        .query_one(&format!("SELECT plimsoll.{sql}"), parameters)
        .unwrap_or_else(|error| panic!("{error:?}"))
        .get(0)
}

fn range(from: impl Into<Option<i64>>, to: impl Into<Option<i64>>) -> PositionRange {
    PositionRange { from: from.into(), to: to.into() }
}

fn divided(agent: &mut Client, till: &Registered, ranges: &[PositionRange], most: i32) -> Vec<RangeSummary> {
    let packed =
        bytes(agent, "packed_ranges($1, 'shop.sale', $2, $3)", &[&till.id, &pack_ranges(ranges), &most]);
    read_summaries(&packed).expect("summaries")
}

fn summaries(agent: &mut Client, till: &Registered, ranges: &[PositionRange]) -> Vec<RangeSummary> {
    let packed = bytes(agent, "packed_summaries($1, 'shop.sale', $2)", &[&till.id, &pack_ranges(ranges)]);
    read_summaries(&packed).expect("summaries")
}

fn items(agent: &mut Client, till: &Registered, ranges: &[PositionRange]) -> Vec<ShortItem> {
    let packed = bytes(agent, "packed_items($1, 'shop.sale', $2)", &[&till.id, &pack_ranges(ranges)]);
    read_items(&packed).expect("items")
}

/// What a range holds, as the rows' digests add up.
fn added_up(items: &[ShortItem], range: PositionRange) -> RangeSummary {
    let inside: Vec<_> = items.iter().filter(|item| range.contains(item.position)).collect();
    let sum = inside.iter().fold(0u64, |sum, item| sum.wrapping_add(item.low()));
    RangeSummary { range, row_count: inside.len() as u64, sum: ShortSum(sum) }
}

#[test]
fn a_range_manifest_divides_into_even_ranges_that_hold_all_rows() {
    let (_shop, till, mut agent) = stocked("bigint", "i * 7919");
    let rows = agent
        .query(
            "SELECT lower(m.range), upper(m.range), m.row_count, m.fingerprint, f.row_count, f.fingerprint
             FROM plimsoll.range_manifest($1, 'shop.sale', int8range(NULL, NULL), 20) m
             CROSS JOIN LATERAL plimsoll.range_fingerprint($1, 'shop.sale', m.range) f",
            &[&till.id],
        )
        .expect("a range manifest");
    assert!((10..=20).contains(&rows.len()), "{} ranges", rows.len());
    let mut end: Option<i64> = None;
    let mut total = 0;
    for (place, row) in rows.iter().enumerate() {
        assert_eq!(row.get::<_, Option<i64>>(0), end, "each range begins where the one before ends");
        end = row.get(1);
        let count: i64 = row.get(2);
        // What lies before the first row and beyond the last is apart.
        let is_end = place == 0 || place + 1 == rows.len();
        assert!(
            (100..=900).contains(&count) || (is_end && count == 0),
            "{count} rows in one of {} ranges",
            rows.len()
        );
        assert_eq!(count, row.get::<_, i64>(4));
        assert_eq!(row.get::<_, Vec<u8>>(3), row.get::<_, Vec<u8>>(5));
        total += count;
    }
    assert_eq!((end, total), (None, ROWS));
    let whole = agent
        .query(
            "SELECT row_count FROM plimsoll.range_manifest($1, 'shop.sale', '[7919,15839)', 1)",
            &[&till.id],
        )
        .expect("a range manifest");
    assert_eq!(whole.iter().map(|row| row.get(0)).collect::<Vec<i64>>(), [2]);
    let none = agent
        .query("SELECT row_count FROM plimsoll.range_manifest($1, 'shop.sale', 'empty')", &[&till.id])
        .expect("a range manifest");
    assert!(none.is_empty());
}

/// Version types, and what the versions of some rows are.
const AXES: [(&str, &str); 5] = [
    (
        "bigint",
        "CASE i WHEN 1 THEN -9223372036854775808 WHEN 2 THEN 9223372036854775807 ELSE i % 4000 * 1000 END",
    ),
    ("integer", "i % 5000 - 2500"),
    (
        "timestamptz",
        "CASE i WHEN 1 THEN '-infinity' WHEN 2 THEN 'infinity' ELSE timestamptz '2026-01-01 UTC' + i % 4000 * interval '1 minute' END",
    ),
    ("timestamp", "timestamp '1999-12-31' + i % 4000 * interval '1 minute'"),
    ("xid8", "((i * 11)::text)::xid8"),
];

#[test]
fn ranges_hold_what_their_rows_add_up_to_on_every_axis() {
    for (version, expression) in AXES {
        let (_shop, till, mut agent) = stocked(version, expression);
        let all = items(&mut agent, &till, &[PositionRange::ALL]);
        assert_eq!(all.len(), ROWS as usize, "{version}");
        let (first, last) = (all[0].position, all[all.len() - 1].position);
        let cut = |share: usize| all[all.len() / 100 * share].position;
        let ranges = [
            range(None, first.checked_add(1)),
            range(cut(10), cut(11)),
            range(cut(11), cut(13)),
            range(cut(50), cut(50) + 1),
            range(cut(70) + 1, cut(70) + 2),
            range(cut(90), None),
        ];
        let ranges = &ranges[usize::from(first == i64::MAX)..];
        let expected: Vec<_> = ranges.iter().map(|range| added_up(&all, *range)).collect();
        assert_eq!(summaries(&mut agent, &till, ranges), expected, "{version}");
        let inside: Vec<_> = all
            .iter()
            .filter(|item| ranges.iter().any(|range| range.contains(item.position)))
            .copied()
            .collect();
        assert_eq!(items(&mut agent, &till, ranges), inside, "{version}");
        assert_eq!(summaries(&mut agent, &till, &[range(last, None)]), [added_up(&all, range(last, None))]);
        for most in [1, 2, 7, 300] {
            let parts = divided(&mut agent, &till, ranges, most);
            let expected: Vec<_> = parts.iter().map(|part| added_up(&all, part.range)).collect();
            assert_eq!(parts, expected, "{version}");
            assert!(parts.len() <= ranges.len() * most as usize, "{} of {most}", parts.len());
            let mut rest = parts.iter().peekable();
            for whole in ranges {
                let mut from = whole.from;
                while let Some(part) = rest.next_if(|part| {
                    whole.from.is_none_or(|from| part.range.from >= Some(from)) && part.range.from == from
                }) {
                    from = part.range.to;
                    if from == whole.to {
                        break;
                    }
                }
                assert_eq!(from, whole.to, "{version}: the parts make up {whole:?}");
            }
        }
    }
}

#[test]
fn a_sketch_finds_exactly_the_rows_that_differ() {
    let (mut shop, till, mut agent) = stocked("bigint", "i * 3");
    let ranges = [range(None, 3_000), range(6_000, 9_001), range(15_000, None)];
    let before = items(&mut agent, &till, &ranges);
    shop.superuser
        .batch_execute(&format!(
            "DELETE FROM shop.sale WHERE database_id = '{0}' AND id IN (7, 999, 2500, 6000);
             UPDATE shop.sale SET note = 'changed' WHERE database_id = '{0}' AND id IN (1, 2000, 5000);
             UPDATE shop.sale SET note = 'changed' WHERE database_id <> '{0}'",
            till.id
        ))
        .expect("changes");
    let after = items(&mut agent, &till, &ranges);
    let packed =
        bytes(&mut agent, "packed_sketch($1, 'shop.sale', $2, 0, 64)", &[&till.id, &pack_ranges(&ranges)]);
    let by_hand =
        bytes(&mut agent, "sketch($1, 'shop.sale', '{(,3000),[6000,9001),[15000,)}', 0, 64)", &[&till.id]);
    assert_eq!(packed, by_hand);
    let mut own = Sketch::new(&ranges, 0, 64).expect("a sketch");
    before.iter().for_each(|item| own.add(item));
    let decoded = Sketch::read(&ranges, 0, &packed).expect("a sketch").decode(&own).expect("enough symbols");
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (before.into_iter().collect(), after.into_iter().collect());
    let found: BTreeSet<_> = decoded.local_only.into_iter().collect();
    assert_eq!(found, before.difference(&after).copied().collect());
    assert_eq!(found.len(), 7);
    let found: BTreeSet<_> = decoded.remote_only.into_iter().collect();
    assert_eq!(found, after.difference(&before).copied().collect());
    let halves = ["0, 20", "20, 44"].map(|part| {
        bytes(
            &mut agent,
            &format!("packed_sketch($1, 'shop.sale', $2, {part})"),
            &[&till.id, &pack_ranges(&ranges)],
        )
    });
    assert_eq!(
        [&halves[0][..], &halves[1][1..]].concat(),
        packed,
        "symbols do not depend on how many are asked for"
    );
}

#[test]
fn keys_and_rows_are_those_that_the_items_stand_for() {
    let (mut shop, till, mut agent) = stocked("bigint", "i % 1000");
    let all = items(&mut agent, &till, &[PositionRange::ALL]);
    let wanted: Vec<_> = all.iter().step_by(97).copied().collect();
    let stranger = ShortItem { position: wanted[0].position, digest: [7; 16] };
    shop.superuser
        .execute("UPDATE shop.sale SET note = 'later' WHERE database_id = $1 AND id = 1000", &[&till.id])
        .expect("a change");
    let gone = all
        .iter()
        .filter(|item| !items(&mut agent, &till, &[range(0, 1)]).contains(item) && item.position == 0);
    let gone: Vec<_> = gone.copied().collect();
    assert_eq!(gone.len(), 1);
    let asked = pack_items(&[&wanted[1..], &[stranger], &gone].concat());
    let keys = bytes(&mut agent, "packed_keys($1, 'shop.sale', $2)", &[&till.id, &asked]);
    let (keyed, next) = read_keyed(&keys).expect("keys");
    assert_eq!(next, None);
    let found: BTreeSet<_> = keyed.iter().map(|keyed| ShortItem::from(&keyed.item)).collect();
    assert_eq!(found, wanted[1..].iter().copied().collect());
    assert_eq!(keyed.iter().map(|keyed| &keyed.key).collect::<BTreeSet<_>>().len(), wanted.len() - 1);
    let rows = bytes(&mut agent, "packed_rows($1, 'shop.sale', $2)", &[&till.id, &asked]);
    assert_eq!(BatchReader::new(&rows).expect("rows").rows_left() as usize, wanted.len() - 1);
    // Rows that were deleted come back as they were when they are sent again.
    let fingerprint = |agent: &mut Client| {
        let sql =
            "SELECT fingerprint FROM plimsoll.range_fingerprint($1, 'shop.sale', int8range(NULL, NULL))";
        agent.query_one(sql, &[&till.id]).expect("a fingerprint").get::<_, Vec<u8>>(0)
    };
    let before = fingerprint(&mut agent);
    let deleted = agent
        .query_one("SELECT deleted FROM plimsoll.delete_rows($1, 'shop.sale', $2::bytea)", &[&till.id, &keys])
        .expect("deleted");
    assert_eq!(deleted.get::<_, i64>(0), wanted.len() as i64 - 1);
    assert_ne!(fingerprint(&mut agent), before);
    agent.execute("SELECT plimsoll.upload($1, 'shop.sale', $2::bytea)", &[&till.id, &rows]).expect("stored");
    assert_eq!(fingerprint(&mut agent), before);
}

#[test]
fn a_few_ranges_are_read_without_the_rest_of_the_replica() {
    let (_shop, till, mut agent) = stocked("bigint", "i");
    let ranges: Vec<_> = (0..50).map(|i| range(100 * i, 100 * i + 3)).collect();
    let mut transaction = agent.transaction().expect("a transaction");
    let rows: Vec<u8> = transaction
        .query_one("SELECT plimsoll.packed_items($1, 'shop.sale', $2)", &[&till.id, &pack_ranges(&ranges)])
        .expect("items")
        .get(0);
    assert_eq!(read_items(&rows).expect("items").len(), 149);
    let read: i64 = transaction
        .query_one(
            "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_all_tables
             WHERE schemaname = 'shop'",
            &[],
        )
        .expect("counters")
        .get(0);
    assert!((149..400).contains(&read), "{read} rows read for 149");
}

/// A call of each function that takes a database and a table, with packed ranges or items as `$2`.
const CALLS: [&str; 6] = [
    "packed_ranges($1, 'shop.sale', $2, 10)",
    "packed_summaries($1, 'shop.sale', $2)",
    "packed_sketch($1, 'shop.sale', $2, 0, 10)",
    "packed_items($1, 'shop.sale', $2)",
    "packed_keys($1, 'shop.sale', $2)",
    "packed_rows($1, 'shop.sale', $2)",
];

#[test]
fn hostile_bytes_are_refused_and_do_no_harm() {
    let (_shop, till, mut agent) = stocked("bigint", "i");
    let ranges = pack_ranges(&[range(None, 5), range(7, 100), range(200, None)]);
    let some = pack_items(&items(&mut agent, &till, &[range(1, 20)]));
    let mut random = fastrand::Rng::with_seed(7);
    for call in CALLS {
        let sound = if call.contains("keys") || call.contains("rows") { &some } else { &ranges };
        let mut hostile: Vec<Vec<u8>> = (0..sound.len()).map(|cut| sound[..cut].to_vec()).collect();
        hostile.push([&sound[..], &[0]].concat());
        hostile.push([&[sound[0], 0, 0][..], &[0xff; 9], &[1]].concat());
        hostile.push([&[sound[0]][..], &[0xff; 9], &[1]].concat());
        hostile.push([&[sound[0], 3, 63][..], &[0xff, 0xff, 3], &[0xff; 200]].concat());
        for bytes in hostile {
            let outcome = agent.query_one(&format!("SELECT plimsoll.{call}"), &[&till.id, &bytes]);
            refused(outcome, "22P03");
        }
        for _ in 0..200 {
            let mut bytes = sound.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            // Changed bytes may be sound ones by chance: an answer is fine, a crash is not.
            let _ = agent.query_one(&format!("SELECT plimsoll.{call}"), &[&till.id, &bytes]);
        }
        bytes(&mut agent, call, &[&till.id, sound]);
    }
}

#[test]
fn numbers_out_of_bounds_and_missing_arguments_are_named() {
    let (mut shop, till, mut agent) = stocked("bigint", "i");
    shop.set_option(&till, "max_ranges", Some("16"));
    let many: Vec<_> = (0..17).map(|i| range(2 * i, 2 * i + 1)).collect();
    let many = pack_ranges(&many);
    let one = pack_ranges(&[PositionRange::ALL]);
    for (call, packed, sqlstate, wanted) in [
        ("packed_ranges($1, 'shop.sale', $2, 0)", &one, "22023", "max_ranges is 0"),
        ("packed_ranges($1, 'shop.sale', $2, 17)", &one, "22023", "from 1 to 16"),
        ("packed_ranges($1, 'shop.sale', $2, 2)", &many, "54000", "max_ranges"),
        ("packed_ranges($1, 'shop.sale', $2, NULL)", &one, "22004", "max_ranges"),
        ("packed_summaries($1, 'shop.sale', $2)", &many, "54000", "17 ranges"),
        ("packed_items($1, 'shop.sale', $2)", &many, "54000", "17 ranges"),
        ("packed_sketch($1, 'shop.sale', $2, 0, 5)", &many, "54000", "17 ranges"),
        ("packed_sketch($1, 'shop.sale', $2, -1, 5)", &one, "22023", "first is -1"),
        ("packed_sketch($1, 'shop.sale', $2, 0, 2147483647)", &one, "54000", "symbols"),
        ("packed_sketch($1, 'shop.sale', $2, 2147483647, 2147483647)", &one, "54000", "symbols"),
        ("packed_items($1, NULL, $2)", &one, "22004", "relation"),
    ] {
        let outcome = agent.query_one(&format!("SELECT plimsoll.{call}"), &[&till.id, packed]);
        let message = refused(outcome, sqlstate);
        assert!(message.contains(wanted), "{call}: {message}");
    }
    for call in CALLS {
        let outcome = agent.query_one(&format!("SELECT plimsoll.{call}"), &[&till.id, &None::<Vec<u8>>]);
        refused(outcome, "22004");
    }
}

#[test]
fn another_database_is_refused_by_every_function() {
    let (mut shop, _, mut agent) = stocked("bigint", "i");
    let other: uuid::Uuid =
        shop.value("SELECT database_id FROM plimsoll.databases WHERE client_id = 'umbrella'");
    let one = pack_ranges(&[PositionRange::ALL]);
    for call in CALLS {
        let message = refused(agent.query_one(&format!("SELECT plimsoll.{call}"), &[&other, &one]), "42501");
        assert!(message.contains("no right to use it"), "{message}");
    }
    for call in [
        "SELECT plimsoll.range_manifest($1, 'shop.sale', '(,)', 5)",
        "SELECT plimsoll.sketch($1, 'shop.sale', '{(,)}', 0, 5)",
    ] {
        refused(agent.query(call, &[&other]), "42501");
    }
}
