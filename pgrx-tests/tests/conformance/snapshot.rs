//! `direction = "snapshot"`, both ways: whoever reads the tables that are written sees all of them as they were, or all as they
//! are.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::kind::{LocalKind, Table, Type};
use super::whole_way::{Replica, changes, damage, fill, happens, swaps, tables, turned};

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
    let filled = fill(&mut replica.local, &tables, 2_000, &mut rng);
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

/// The rows of the local tables, one table after the other.
fn here<K: LocalKind>(replica: &mut Replica<'_, K>, tables: &[&Table]) -> Vec<Vec<Vec<Option<String>>>> {
    let sorted = |table: &&Table| {
        let mut rows = replica.local.texts(table);
        rows.sort_unstable();
        rows
    };
    tables.iter().map(sorted).collect()
}

/// The other way: first snapshot, damage on the local side, changes on the server.
pub fn a_snapshot_of_the_server_is_seen_as_a_whole<K: LocalKind>() {
    let tables = tables();
    let direction = "direction = \"snapshot\"\nsnapshot_from = \"remote\"";
    let mut rng = Rng::with_seed(11);
    let mut replica = turned::<K>(&tables, direction, &mut rng);
    let filled: Vec<&Table> = tables.iter().filter(|table| table.name != "empty").collect();
    // SQLite keeps stamps as text, and not with all digits.
    let stamps = |table: &&Table| table.columns.iter().any(|(_, of)| *of == Type::Stamp);
    let same: Vec<&Table> = tables.iter().filter(|table| !stamps(table)).collect();
    let text = std::fs::read_to_string(replica.home.path("plimsoll.toml")).expect("the configuration");
    replica.home.write("plimsoll.toml", &format!("{text}\n[sync]\nmax_batch_rows = 200\n"));
    for round in 0..3 {
        happens(&mut replica, round, &filled, &mut rng);
        let before = here(&mut replica, &filled);
        let mut run = replica.home.start(["sync", "--quiet", "--allow-mass-delete"]);
        let mut seen = Vec::new();
        while run.is_running() {
            // Each table by itself: a reader without a transaction of its own may see one before and the next one after.
            seen.push(here(&mut replica, &filled));
        }
        run.wait(Duration::from_secs(60)).expect_code(0);
        let after = here(&mut replica, &filled);
        assert!(seen.len() > 5 && after != before, "round {round}: {} looks", seen.len());
        for look in &seen {
            for (place, rows) in look.iter().enumerate() {
                let name = &filled[place].name;
                assert!(*rows == before[place] || *rows == after[place], "round {round}: a part of {name}");
            }
        }
        replica.home.run(["verify", "--quiet"]).expect_code(0);
        same.iter().for_each(|table| replica.assert_equal(table));
    }
    replica.home.run(["sync", "--quiet"]).expect_code(0);
    same.iter().for_each(|table| replica.assert_equal(table));
}
