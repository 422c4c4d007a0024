//! `direction = "snapshot"`: whoever reads the managed tables sees all of them as they were, or all as they are.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::kind::{Cell, LocalKind, Table};
use super::whole_way::{Replica, changes, damage, row, swaps, tables};

/// Lets the client make snapshots of its tables.
fn configure<K>(replica: &Replica<'_, K>) {
    let text = std::fs::read_to_string(replica.home.path("plimsoll.toml")).expect("the configuration");
    let text = text.replace("remote = ", "direction = \"snapshot\"\nremote = ");
    // Small steps, so that there are many moments to look.
    replica.home.write("plimsoll.toml", &format!("{text}\n[sync]\nmax_batch_rows = 300\n"));
}

/// What all tables hold, in one snapshot.
fn all(tables: &[Table]) -> String {
    let one = |table: &Table| {
        format!(
            "(SELECT count(*) || '/' || coalesce(sum(hashtextextended(t::text, 0)), 0) FROM public.\"{}\" t)",
            table.name
        )
    };
    format!("SELECT concat_ws(' ', {})", tables.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Makes a snapshot while somebody looks; what was seen, and how often somebody looked.
fn watched<K: LocalKind>(replica: &Replica<'_, K>, tables: &[Table]) -> (BTreeSet<String>, u32) {
    let (over, query) = (AtomicBool::new(false), all(tables));
    let mut reader = replica.site.superuser();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let (mut seen, mut looks) = (BTreeSet::new(), 0);
            while !over.load(Ordering::Relaxed) {
                seen.insert(reader.query_one(&query, &[]).expect("what is there").get(0));
                looks += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            (seen, looks)
        });
        let run = replica.home.run(["sync", "--quiet"]);
        over.store(true, Ordering::Relaxed);
        let seen = reading.join().expect("the reader");
        run.expect_code(0);
        seen
    })
}

/// Every shape of table, through changes of all sorts and damage on the server: level after one run each time.
pub fn a_snapshot_is_seen_as_a_whole<K: LocalKind>() {
    let tables = tables();
    let mut replica = Replica::<K>::new(&tables.iter().collect::<Vec<_>>());
    configure(&replica);
    let mut rng = Rng::with_seed(7);
    let filled: Vec<&Table> = tables.iter().filter(|table| table.name != "empty").collect();
    for table in &filled {
        let rows: Vec<Vec<Cell>> = (0..2_000).map(|i| row(table, i, i / 3, &mut rng)).collect();
        replica.local.insert(table, &rows);
    }
    let mut version = 10_000;
    let now = |replica: &Replica<'_, K>| -> String {
        replica.site.superuser().query_one(&all(&tables), &[]).expect("what is there").get(0)
    };
    for round in 0..4 {
        let before = now(&replica);
        let (seen, looks) = watched(&replica, &tables);
        let after = now(&replica);
        assert!(looks > 5 && seen.contains(&before), "round {round}: {looks} looks");
        let parts: Vec<_> = seen.iter().filter(|seen| **seen != before && **seen != after).collect();
        assert!(
            parts.is_empty(),
            "round {round}: before {before}, after {after}, and between them {parts:?}"
        );
        replica.home.run(["verify", "--quiet"]).expect_code(0);
        tables.iter().for_each(|table| replica.assert_equal(table));
        match round {
            0 => changes(&mut replica.local, &filled, &mut version, &mut rng),
            1 => swaps(&mut replica.local, &mut version),
            2 => damage(&mut replica, &filled, &mut rng),
            _ => {}
        }
    }
    let batches = |replica: &Replica<'_, K>| -> i64 {
        let query = "SELECT count(*) FROM plimsoll.batches";
        replica.site.superuser().query_one(query, &[]).expect("a count").get(0)
    };
    let before = batches(&replica);
    replica.home.run(["sync", "--quiet"]).expect_code(0);
    assert_eq!(batches(&replica), before, "what is equal is not sent");
}
