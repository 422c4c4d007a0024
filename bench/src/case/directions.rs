//! First runs of the other directions beside one of push: both ways, and a snapshot of the server's rows in a local database.

use std::fs;

use anyhow::{Result, ensure};
use rusqlite::Connection;

use super::first_sync::{Spent, expect_rows, make_rows, reset, run_sync, spent};
use crate::bench::Bench;
use crate::bookings::{self, BOTH_WAYS, COLUMNS, IDENTICAL, RELATION, SQLITE, SQLITE_TABLE};
use crate::local::{Local, Postgres, Sqlite};
use crate::process::{ClientRun, run_client};
use crate::report::{CaseReport, Line, Unit};
use crate::turns::in_turns;

/// The file that is written to.
const WRITTEN: &str = "written.sqlite";

const SNAPSHOT: &str = "snapshot\"\nsnapshot_from = \"remote";

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    Push,
    BothWays,
    BothWaysFromServer,
    BothWaysLevel,
    IntoSqlite,
    IntoPostgres,
}

/// A first run, and one after it that finds nothing to do.
struct Turn {
    first: (Spent, ClientRun),
    again: (Spent, ClientRun),
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    make_rows(bench)?;
    let server = Postgres::start_empty(bench)?;
    report.on(format!("{} rows of 8 columns, about 140 bytes each", bench.scale.rows));
    report.on(
        "the rows are in SQLite, and on the server where they come from there; the client writes to a copy of the file, \
         or to an empty table",
    );
    let contestants = [
        ("push from SQLite", Contestant::Push),
        ("two-way, all rows in SQLite", Contestant::BothWays),
        ("two-way, all rows on the server", Contestant::BothWaysFromServer),
        ("two-way, the same rows on both sides", Contestant::BothWaysLevel),
        ("snapshot_from = \"remote\" into SQLite", Contestant::IntoSqlite),
        ("snapshot_from = \"remote\" into Postgres", Contestant::IntoPostgres),
    ];
    let turns = in_turns(&bench.progress, bench.scale.rounds, &contestants, |contestant| {
        turn(bench, &server, *contestant)
    })?;
    let push: Vec<f64> = turns[0].iter().map(|turn| processor(&turn.first.0)).collect();
    for ((name, contestant), turns) in contestants.iter().zip(&turns) {
        let all = |of: fn(&Turn) -> f64| turns.iter().map(of).collect::<Vec<f64>>();
        let mut add = |what: &str, figures: Vec<f64>| {
            let line = Line::new(format!("{name}: {what}"), Unit::Seconds, &figures);
            report.add(match what {
                "processor time" if *contestant != Contestant::Push => line.times("push from SQLite", &push),
                _ => line,
            });
        };
        add("first run", all(|turn| turn.first.1.seconds));
        add("processor time", all(|turn| processor(&turn.first.0)));
        add("client's processor time", all(|turn| turn.first.0.programs));
        add("server's processor time", all(|turn| turn.first.0.server));
        if let Some(local) = turns.iter().map(|turn| turn.first.0.local).collect::<Option<Vec<f64>>>() {
            add("local server's processor time", local);
        }
        add("the run after it", all(|turn| turn.again.1.seconds));
        for (what, of) in [("first run", 0), ("the run after it", 1)] {
            let peaks = turns.iter().map(|turn| [&turn.first, &turn.again][of].1.peak_mib);
            let peak = peaks.fold(0.0, f64::max);
            report.add(Line::new(format!("{name}: client's peak memory, {what}"), Unit::MiB, &[peak]));
        }
    }
    Ok(())
}

/// Of everybody.
fn processor(spent: &Spent) -> f64 {
    spent.programs + spent.server + spent.local.unwrap_or(0.0)
}

fn turn(bench: &Bench<'_>, server: &Postgres, contestant: Contestant) -> Result<Turn> {
    reset(bench)?;
    let (relation, direction) = match contestant {
        Contestant::Push => (RELATION, "push"),
        Contestant::IntoSqlite | Contestant::IntoPostgres => (RELATION, SNAPSHOT),
        _ => (BOTH_WAYS, "two-way"),
    };
    let setting = match contestant {
        Contestant::Push => Sqlite.setting(),
        Contestant::IntoPostgres => server.setting(),
        _ => format!("sqlite = \"{WRITTEN}\""),
    };
    let local: &dyn Local = if contestant == Contestant::IntoPostgres { server } else { &Sqlite };
    let database = bookings::configure_towards(bench.site, &setting, relation, direction)?;
    let has_rows_here =
        matches!(contestant, Contestant::BothWays | Contestant::BothWaysLevel | Contestant::Push);
    match contestant {
        Contestant::Push => {}
        Contestant::IntoPostgres => server.empty()?,
        _ => make_file(bench, has_rows_here)?,
    }
    if !has_rows_here || contestant == Contestant::BothWaysLevel {
        fill(bench, relation, &database)?;
    }
    let first = spent(bench, local, || run_sync(bench))?;
    expect_rows(bench, relation)?;
    let here = match contestant {
        Contestant::IntoPostgres => server.rows()?,
        Contestant::Push => bench.scale.rows,
        _ => Connection::open(bench.site.path(WRITTEN))?.query_one(
            "SELECT count(*) FROM bookings",
            [],
            |row| row.get(0),
        )?,
    };
    ensure!(here == bench.scale.rows, "{here} of {} rows are here", bench.scale.rows);
    bench.settle()?;
    let sync = || run_client(bench.site.client(&["sync", "--json", "--quiet"]), &[0]);
    Ok(Turn { first, again: spent(bench, local, sync)? })
}

/// Makes the file that is written to, with the rows or without.
fn make_file(bench: &Bench<'_>, with_rows: bool) -> Result<()> {
    let path = bench.site.path(WRITTEN);
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(bench.site.path(&format!("{WRITTEN}{end}")));
    }
    if with_rows {
        fs::copy(bench.site.path(SQLITE), path)?;
    } else {
        Connection::open(path)?.execute_batch(&format!("PRAGMA journal_mode = WAL; {SQLITE_TABLE}"))?;
    }
    Ok(())
}

/// Puts the rows on the server, as they come from SQLite.
fn fill(bench: &Bench<'_>, relation: &str, database: &str) -> Result<()> {
    let mut server = bench.shared()?;
    let mut writer = csv::Writer::from_writer(
        server.copy_in(&format!("COPY {IDENTICAL} ({COLUMNS}) FROM STDIN WITH (FORMAT csv)"))?,
    );
    bookings::each_row(bench.site, |fields| Ok(writer.write_record(fields.map(Option::unwrap_or_default))?))?;
    writer.into_inner().map_err(|_| anyhow::anyhow!("the rows were not written"))?.finish()?;
    server.batch_execute(&format!(
        "INSERT INTO {relation} (client_id, database_id, {COLUMNS})
         SELECT 'bench', '{database}', {COLUMNS} FROM {IDENTICAL} ORDER BY id;
         TRUNCATE {IDENTICAL}"
    ))?;
    server.batch_execute(&format!("VACUUM (ANALYZE) {relation}"))?;
    bench.settle()
}
