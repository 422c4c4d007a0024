//! What the functions that summarise ranges refuse.

mod shop;

use plimsoll_core::manifest::read_keyed;
use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::row::{BatchReader, BatchWriter};
use plimsoll_core::short::{ShortItem, pack_items, read_items};
use plimsoll_core::store::PositionRange;
use shop::{ROWS, bytes, range, refused, stocked};

/// A call of each function that takes a database and a table, with packed ranges or items as `$2`.
const CALLS: [&str; 9] = [
    "packed_ranges($1, 'shop.sale', $2, 10)",
    "packed_summaries($1, 'shop.sale', $2)",
    "packed_sketch($1, 'shop.sale', $2, 0, 10)",
    "packed_items($1, 'shop.sale', $2)",
    "packed_keys($1, 'shop.sale', $2)",
    "packed_rows($1, 'shop.sale', $2)",
    "packed_windows($1, 'shop.sale', $2, 10)",
    "packed_fingerprints($1, 'shop.sale', $2)",
    "packed_lookup($1, 'shop.sale', $2)",
];

#[test]
fn hostile_bytes_are_refused_and_do_no_harm() {
    let (_shop, till, mut agent) = stocked("bigint", "i");
    let ranges = pack_ranges(&[range(None, 5), range(7, 100), range(200, None)]);
    let some =
        pack_items(&(1..20).map(|position| ShortItem { position, digest: [7; 16] }).collect::<Vec<_>>());
    let items = bytes(&mut agent, "packed_items($1, 'shop.sale', $2)", &[&till.id, &ranges]);
    let items = pack_items(&read_items(&items).expect("items")[..9]);
    let keyed = bytes(&mut agent, "packed_keys($1, 'shop.sale', $2)", &[&till.id, &items]);
    let mut keys = BatchWriter::new();
    read_keyed(&keyed).expect("keys").0.iter().for_each(|row| keys.push(&row.key));
    let keys = keys.finish();
    let mut random = fastrand::Rng::with_seed(7);
    for call in CALLS {
        let sound = match call {
            _ if call.contains("lookup") => &keys,
            _ if call.contains("keys") || call.contains("rows") => &some,
            _ => &ranges,
        };
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
    let place = vec![0; 8];
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
        ("packed_fingerprints($1, 'shop.sale', $2)", &many, "54000", "17 ranges"),
        ("packed_windows($1, 'shop.sale', $2, 5)", &many, "54000", "17 ranges"),
        ("packed_windows($1, 'shop.sale', $2, 0)", &one, "22023", "row_limit 0"),
        ("packed_windows($1, 'shop.sale', $2, NULL)", &one, "22004", "row_limit"),
        ("packed_batch($1, 'shop.sale', $2, 0, 5)", &place, "22023", "row_limit 0"),
        ("packed_batch($1, 'shop.sale', $2, 5, 0)", &place, "22023", "byte_limit is 0"),
        ("packed_batch($1, 'shop.sale', $2, NULL, 5)", &place, "22004", "row_limit"),
        ("packed_batch($1, 'shop.sale', $2, 5, NULL)", &place, "22004", "byte_limit"),
        ("tail_start($1, 'shop.sale', pg_catalog.length($2::bytea), 0)", &place, "22023", "row_limit 0"),
        ("tail_start($1, 'shop.sale', NULL + pg_catalog.length($2::bytea), 1)", &place, "22004", "upto"),
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
fn cursors_that_are_none_are_refused_and_those_of_rows_that_are_gone_go_on() {
    let (mut shop, till, mut agent) = stocked("bigint", "i / 100");
    let sql = "SELECT rows, next FROM plimsoll.packed_batch($1, 'shop.sale', $2, $3, 1000000000)";
    for length in (0..30).filter(|length| ![8, 18].contains(length)) {
        refused(agent.query_one(sql, &[&till.id, &vec![7u8; length], &10]), "22P03");
    }
    let mut random = fastrand::Rng::with_seed(8);
    for _ in 0..50 {
        let cursor: Vec<u8> = (0..18).map(|_| random.u8(..)).collect();
        agent
            .query_one(sql, &[&till.id, &cursor, &10])
            .expect("bytes of anybody are compared, and do no harm");
    }
    // Within the rows of one position, also where the last row is gone and another one lies in its place.
    let row = agent.query_one(sql, &[&till.id, &None::<Vec<u8>>, &150]).expect("rows");
    let (first, next): (Vec<u8>, Vec<u8>) = (row.get(0), row.get(1));
    shop.superuser
        .execute("DELETE FROM shop.sale WHERE database_id = $1 AND id <= 150", &[&till.id])
        .expect("a delete");
    let rest: Vec<u8> = agent.query_one(sql, &[&till.id, &next, &1_000_000]).expect("rows").get(0);
    let count = |packed: &[u8]| BatchReader::new(packed).expect("rows").rows_left();
    assert_eq!((count(&first), i64::from(count(&rest))), (150, ROWS - 150));
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
        "SELECT plimsoll.packed_batch($1, 'shop.sale', NULL, 5, 1000)",
        "SELECT plimsoll.tail_start($1, 'shop.sale', 5, 1)",
    ] {
        refused(agent.query(call, &[&other]), "42501");
    }
}
