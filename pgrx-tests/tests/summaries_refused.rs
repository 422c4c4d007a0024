//! What the functions that summarise ranges refuse.

mod shop;

use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::short::{ShortItem, pack_items};
use plimsoll_core::store::PositionRange;
use shop::{bytes, range, refused, stocked};

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
    let some =
        pack_items(&(1..20).map(|position| ShortItem { position, digest: [7; 16] }).collect::<Vec<_>>());
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
