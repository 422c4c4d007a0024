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
use shop::{ROWS, bytes, range, stocked};

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
fn kept_and_scanned_answers_agree() {
    for (version, expression) in AXES {
        let (mut shop, till, mut agent) = stocked(version, expression);
        let all = items(&mut agent, &till, &[PositionRange::ALL]);
        let cut = |share: usize| all[all.len() / 100 * share].position;
        let ranges = [
            range(None, cut(3)),
            range(cut(20), cut(80)),
            range(cut(80), cut(80) + 1),
            range(cut(85) + 1, cut(86) + 7),
            range(cut(90), None),
        ];
        let mut answers = Vec::new();
        for (keep, rebuild) in [(true, false), (true, true), (false, false)] {
            shop.superuser
                .execute("SELECT plimsoll.keep_manifest('shop.sale', $1)", &[&keep])
                .expect("a switch");
            if rebuild {
                let sql = "SELECT plimsoll.rebuild_manifest($1, 'shop.sale')";
                shop.superuser.execute(sql, &[&till.id]).expect("blocks");
                // What is noted and not yet in any block, within blocks and beyond them.
                let change = format!(
                    "UPDATE shop.sale SET note = 'changed' WHERE id IN (1, 77, 4000);
                     UPDATE shop.sale SET note = 'note ' || id WHERE id IN (1, 77, 4000);
                     DELETE FROM shop.sale WHERE database_id = '{0}' AND id BETWEEN 2000 AND 2900;
                     INSERT INTO shop.sale SELECT 'acme', '{0}', i, 'note ' || i, {expression}
                     FROM generate_series(2000, 2900) i",
                    till.id
                );
                shop.superuser.batch_execute(&change).expect("changes that end where they began");
            }
            let kept: bool = agent
                .query_one(
                    "SELECT fingerprint IS NOT NULL FROM plimsoll.table_version($1, 'shop.sale')",
                    &[&till.id],
                )
                .expect("a version")
                .get(0);
            assert_eq!(kept, keep && rebuild, "{version}");
            answers.push(summaries(&mut agent, &till, &ranges));
            for most in [1, 5, 100] {
                let parts = divided(&mut agent, &till, &ranges, most);
                let expected: Vec<_> = parts.iter().map(|part| added_up(&all, part.range)).collect();
                assert_eq!(parts, expected, "{version}, kept: {kept}");
            }
        }
        let expected: Vec<_> = ranges.iter().map(|range| added_up(&all, *range)).collect();
        assert_eq!(answers, vec![expected; 3], "{version}");
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
    let now = items(&mut agent, &till, &[range(0, 1)]);
    let gone = all.iter().filter(|item| item.position == 0 && !now.contains(item));
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
