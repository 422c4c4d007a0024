//! Two Postgres tables with kept manifests, one of them without tenant columns: differences are found and
//! repaired without a scan of either.

mod pair;
mod relay;

use std::collections::BTreeSet;

use pair::{Pair, replicas};
use plimsoll_client::server::{Levelled, ReadOnly, roots};
use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::reconcile::{Limits, find_between};
use plimsoll_core::store::PositionRange;
use relay::relay;

/// So many that a guess does not read them all.
const ROWS: i64 = 200_000;

/// More than a block can have, before it is split: what one difference may cost to be read.
const BLOCK: i64 = 2_048;

#[test]
fn equal_content_has_equal_roots_whatever_the_tables_look_like_and_is_proved_without_reading_a_row() {
    let mut pair = Pair::of_rows(ROWS);
    let (levelled, read) = pair.level();
    assert_eq!(levelled, Levelled { level: true, ..Levelled::default() });
    assert!(read.iter().all(|rows| *rows < 10), "{read:?} rows read");
    let (mut local, mut remote) = pair.servers(None);
    let found =
        roots(&mut ReadOnly::new(&mut local, replicas()), &mut ReadOnly::new(&mut remote, replicas()), 0);
    let found = found.expect("roots");
    assert!(found.equal);
    assert_eq!(found.local.row_count, ROWS as u64);
}

/// Changes on both sides, and what is found.
struct Case {
    remote: &'static str,
    local: &'static str,
    local_only: u64,
    remote_only: u64,
    /// In how many blocks, at most.
    blocks: i64,
}

#[test]
fn differences_are_found_and_repaired_at_the_cost_of_the_blocks_they_are_in() {
    let mut pair = Pair::of_rows(ROWS);
    let cases = [
        // Missing, altered and surplus rows, far from each other.
        Case {
            remote: "DELETE FROM shop.sale WHERE id IN (1, 77777, 131000);
                     UPDATE shop.sale SET note = note || '!' WHERE id IN (15000, 200000);
                     INSERT INTO shop.sale SELECT client_id, database_id, 900000, 'surplus', 1, 1225555 FROM shop.sale WHERE id = 5",
            local: "",
            local_only: 5,
            remote_only: 3,
            blocks: 6,
        },
        // A run of missing rows.
        Case {
            remote: "DELETE FROM shop.sale WHERE id BETWEEN 112345 AND 115999",
            local: "",
            local_only: 3_655,
            remote_only: 0,
            blocks: 5,
        },
        // The source went on: rows changed, with higher versions, came and went; two share a version.
        Case {
            remote: "",
            local: "UPDATE shop.sale SET amount = NULL, version = version + 4000000 WHERE id IN (3, 120000, 199999);
                    INSERT INTO shop.sale (id, note, amount, version) SELECT 500000 + i, NULL, i, 9000000 + i / 2 FROM generate_series(1, 101) i;
                    DELETE FROM shop.sale WHERE id IN (30000, 2)",
            local_only: 104,
            remote_only: 5,
            blocks: 7,
        },
        // Beyond the highest position of the other side, at the ends of the axis.
        Case {
            remote: "UPDATE shop.sale SET version = 9223372036854775807 WHERE id = 17;
                     UPDATE shop.sale SET version = -9223372036854775808 WHERE id = 18",
            local: "",
            local_only: 2,
            remote_only: 2,
            blocks: 4,
        },
    ];
    for Case { remote, local, local_only, remote_only, blocks } in cases {
        pair.remote(remote);
        pair.local(local);
        let (levelled, read) = pair.level();
        assert!(levelled.level, "{levelled:?}");
        assert_eq!((levelled.local_only, levelled.remote_only), (local_only, remote_only));
        assert_eq!((levelled.held, levelled.blocked, levelled.refused.len()), (0, 0, 0));
        pair.assert_same();
        pair.assert_kept();
        // Each differing block is read a few times: as parts, as rows or symbols, and to be sent.
        let bound = 4 * BLOCK * blocks;
        assert!(
            read.iter().all(|rows| *rows < bound),
            "{read:?} rows read, {bound} at most: {remote} {local}"
        );
    }
}

#[test]
fn a_table_that_holds_one_database_refuses_every_other() {
    let mut pair = Pair::empty();
    let other = pair
        .local
        .query_one("SELECT database_id FROM plimsoll.register_database('umbrella', 'till')", &[])
        .expect("another database")
        .get::<_, uuid::Uuid>(0);
    let ranges = pack_ranges(&[PositionRange::ALL]);
    for call in ["packed_summaries($1, 'shop.sale', $2)", "packed_items($1, 'shop.sale', $2)"] {
        let outcome = pair.local.query_one(&format!("SELECT plimsoll.{call}"), &[&other, &ranges]);
        let error = outcome.expect_err("a refusal");
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{error}");
    }
}

#[test]
fn a_few_differences_cost_a_few_trips_and_bytes() {
    let mut pair = Pair::of_rows(ROWS);
    let (port, passed) = relay(plimsoll_tests::shared().port());
    let (mut local, mut remote) = pair.servers(Some(port));
    let (mut local, mut remote) =
        (ReadOnly::new(&mut local, replicas()), ReadOnly::new(&mut remote, replicas()));
    // Connects, and logs in once.
    roots(&mut local, &mut remote, 0).expect("roots");
    for (change, rows, most_trips, most_bytes) in [
        ("SELECT 1", 0, 1, 500),
        ("DELETE FROM shop.sale WHERE id = 77777", 1, 3, 2_000),
        ("DELETE FROM shop.sale WHERE id % 2000 = 5", 100, 5, 16_000),
        ("DELETE FROM shop.sale WHERE id BETWEEN 30001 AND 40000", 10_000, 8, 3_200),
    ] {
        pair.remote(change);
        passed.take();
        let both = roots(&mut local, &mut remote, 0).expect("roots");
        let limits = Limits { early_rows: 1 << 13, ..Limits::default() };
        let found =
            find_between(&mut local, &mut remote, 0, both.local, both.remote, limits).expect("differences");
        let (bytes, trips) = passed.take();
        assert_eq!((found.found.local_only.len(), found.found.remote_only.len()), (rows, 0), "{change}");
        assert!(trips <= most_trips && bytes <= most_bytes, "{trips} trips and {bytes} bytes: {change}");
        pair.remote("TRUNCATE shop.sale");
        pair.put_remote(1, ROWS);
        pair.fold();
    }
}

#[test]
fn boundaries_are_the_same_whatever_order_rows_came_in() {
    let mut pair = Pair::empty();
    let parts = 40;
    let rows = 40_000 / parts;
    for part in 0..parts {
        // Upwards on one side, every seventh part on the other.
        let other = part * 7 % parts;
        pair.put_remote(part * rows + 1, (part + 1) * rows);
        pair.put_local(other * rows + 1, (other + 1) * rows);
        if part % 9 == 0 {
            pair.fold();
        }
    }
    pair.fold();
    let id = pair.till.id;
    let cuts = |client: &mut postgres::Client, most: i32| -> BTreeSet<i64> {
        let sql = "SELECT upper(range) FROM plimsoll.range_manifest($1, 'shop.sale', '(,)', $2)
                   WHERE NOT upper_inf(range)";
        client.query(sql, &[&id, &most]).expect("ranges").iter().map(|row| row.get(0)).collect()
    };
    for most in [4, 9, 16] {
        let (local, remote) = (cuts(&mut pair.local, most), cuts(&mut pair.remote, most));
        let shared = local.intersection(&remote).count();
        assert!(shared * 5 >= local.len().max(remote.len()) * 4, "{shared} shared: {local:?} {remote:?}");
        assert!(local.len() * 2 > most as usize, "{most}: {local:?}");
    }
    let (levelled, _) = pair.level();
    assert_eq!(levelled, Levelled { level: true, ..Levelled::default() });
}
