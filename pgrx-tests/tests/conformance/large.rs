//! What is large in one way or another. It takes long: only with `PLIMSOLL_LARGE=1`.

use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_tests::Running;

use super::kind::{Cell, LocalKind, Table, Type};
use super::whole_way::Replica;

/// What the client may take, of tables with rows of usual size.
const MOST_MEMORY: u64 = 64 << 20;
/// Bytes of a large value.
const LARGE_VALUE: usize = 100_000_000;

fn is_wanted() -> bool {
    let wanted = std::env::var_os("PLIMSOLL_LARGE").is_some();
    if !wanted {
        println!("SKIPPED: PLIMSOLL_LARGE=1 runs it");
    }
    wanted
}

/// Waits for the end, and answers the most memory that it took.
fn watch(mut running: Running) -> u64 {
    let status = Path::new("/proc").join(running.id().to_string()).join("status");
    let (mut most, begun) = (0, Instant::now());
    while running.is_running() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kilobytes.unwrap_or(0) << 10);
        assert!(begun.elapsed() < Duration::from_secs(300), "it hangs");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.wait(Duration::from_secs(1)).expect_code(0);
    most
}

/// A million rows in 64 MiB; values of 100 MB in a few times their size.
pub fn large_things_take_little_memory<K: LocalKind>() {
    if !is_wanted() {
        return;
    }
    let columns = [
        ("id", Type::Number),
        ("name", Type::Text),
        ("note", Type::Text),
        ("at", Type::Stamp),
        ("v", Type::Number),
    ];
    let versioned = Table::new("versioned", &columns, &["id"], Some("v"));
    let hashed = Table { name: "hashed".to_owned(), version: None, indexed: false, ..versioned.clone() };
    let mut replica = Replica::<K>::new(&[&versioned, &hashed]);
    for table in [&versioned, &hashed] {
        for start in (0..500_000).step_by(10_000) {
            let row = |i: i64| {
                let note = format!("a note of some length about the row with the number {i}");
                vec![
                    i.into(),
                    Cell::Text(format!("name of {i}")),
                    Cell::Text(note),
                    Cell::Stamp(i * 1_000),
                    i.into(),
                ]
            };
            replica.local.insert(table, &(start..start + 10_000).map(row).collect::<Vec<_>>());
        }
    }
    for command in [&["sync", "--quiet"][..], &["verify", "--quiet"], &["sync", "--quiet"]] {
        let memory = watch(replica.home.start(command));
        println!("{command:?}: {} KiB", memory >> 10);
        assert!(memory < MOST_MEMORY, "{command:?} took {} MiB", memory >> 20);
    }
    let values = Table::new(
        "values",
        &[("id", Type::Number), ("data", Type::Text), ("v", Type::Number)],
        &["id"],
        Some("v"),
    );
    let mut replica = Replica::<K>::new(&[&values]);
    // As administration.md says of rows that exceed what one upload may have.
    let raise =
        format!("SELECT plimsoll.set_option('{}', 'max_upload_bytes', '268435456')", replica.registered.id);
    replica.site.superuser().batch_execute(&raise).expect("an option");
    for id in 0..3 {
        let text = Cell::Text("0123456789".repeat(LARGE_VALUE / 10));
        replica.local.insert(&values, &[vec![id.into(), text, id.into()]]);
    }
    for command in [&["sync", "--quiet"][..], &["verify", "--quiet"]] {
        let memory = watch(replica.home.start(command));
        println!("{command:?} of values of 100 MB: {} MiB", memory >> 20);
        assert!(memory < 12 * LARGE_VALUE as u64, "{command:?} took {} MiB", memory >> 20);
    }
    replica.assert_equal(&values);
}

/// A database of 1,000 tables, most of which stay as they are.
pub fn a_thousand_tables_are_made_level<K: LocalKind>() {
    if !is_wanted() {
        return;
    }
    let tables: Vec<Table> = (0..1_000)
        .map(|i| {
            Table::new(&format!("t{i}"), &[("id", Type::Number), ("v", Type::Number)], &["id"], Some("v"))
        })
        .collect();
    let mut replica = Replica::<K>::new(&tables.iter().collect::<Vec<_>>());
    for (i, table) in (0..).zip(&tables) {
        let rows: Vec<Vec<Cell>> = (0..i % 5).map(|id| vec![id.into(), id.into()]).collect();
        if !rows.is_empty() {
            replica.local.insert(table, &rows);
        }
    }
    for command in ["sync", "sync", "verify", "sync"] {
        let begun = Instant::now();
        let memory = watch(replica.home.start([command, "--quiet"]));
        println!("{command} of 1,000 tables: {:.1} s, {} KiB", begun.elapsed().as_secs_f64(), memory >> 10);
        assert!(memory < MOST_MEMORY, "{} MiB", memory >> 20);
    }
    tables.iter().step_by(97).for_each(|table| replica.assert_equal(table));
}

/// A table with as many columns as few have.
pub fn a_thousand_columns_come_whole<K: LocalKind>() {
    if !is_wanted() {
        return;
    }
    let names: Vec<String> = (0..K::most_columns().min(1_000) - 2).map(|i| format!("c{i}")).collect();
    let columns: Vec<(&str, Type)> = ["id", "v"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .map(|name| (name, Type::Number))
        .collect();
    let wide = Table::new("wide", &columns, &["id"], Some("v"));
    let mut replica = Replica::<K>::new(&[&wide]);
    // Few enough of each row for a page of Postgres.
    let row = |i: i64| -> Vec<Cell> {
        let cell =
            |column: i64| if column < 2 || (column + i) % 3 == 0 { Cell::Number(i) } else { Cell::Null };
        (0..columns.len() as i64).map(cell).collect()
    };
    for start in (0..2_000).step_by(20) {
        replica.local.insert(&wide, &(start..start + 20).map(row).collect::<Vec<_>>());
    }
    for command in ["sync", "verify"] {
        let memory = watch(replica.home.start([command, "--quiet"]));
        println!("{command} of 1,000 columns: {} KiB", memory >> 10);
        assert!(memory < MOST_MEMORY, "{} MiB", memory >> 20);
    }
    replica.assert_equal(&wide);
}
