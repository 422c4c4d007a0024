//! The first sync of a local SQLite database, client and server together, against copying the same rows with the
//! tools that everybody has.

use std::cell::RefCell;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::bench::Bench;
use crate::bookings::{self, IDENTICAL, RELATION};
use crate::process::{ClientRun, run_client};
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

/// How often a run with nothing to do is measured.
const IDLE_RUNS: usize = 5;

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    Pipe,
    File,
    Sync,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let (site, rows) = (bench.site, bench.scale.rows);
    bench.progress.step(&format!("making {rows} local rows"));
    bookings::create(site, rows)?;
    report.on(format!(
        "{rows} rows of 8 columns, about 140 bytes each, {} MiB as SQLite, {} MiB as CSV; primary key and \
         position index on the server",
        mib(bench, bookings::SQLITE)?,
        mib(bench, bookings::CSV)?
    ));
    report.on("the copies go into an identical table with nothing of ours; the sync keeps the manifest");
    // The first load of all makes the files and the log that later ones use again.
    copy(bench, Contestant::File)?;
    let contestants = [
        ("sqlite3 -csv | psql \\copy", Contestant::Pipe),
        ("psql \\copy of a CSV file", Contestant::File),
        ("first sync", Contestant::Sync),
    ];
    let runs = RefCell::new(Vec::new());
    let stored = RefCell::new(Vec::new());
    let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |contestant| {
        if *contestant != Contestant::Sync {
            return copy(bench, *contestant);
        }
        let run = sync(bench)?;
        runs.borrow_mut().push(run);
        stored.borrow_mut().push(stored_seconds(bench)?);
        Ok(run.seconds)
    })?;
    let [pipe, file, synced] = &figures[..] else { unreachable!("as many figures as contestants") };
    let (pipe_name, file_name) = (contestants[0].0, contestants[1].0);
    report.add(
        Line::new("first sync, until the command ends", Unit::Seconds, synced)
            .faster_than(pipe_name, pipe)
            .bar(Limit::AtLeast(1.0)),
    );
    let stored = stored.into_inner();
    report.add(
        Line::new("first sync, until every row is stored", Unit::Seconds, &stored)
            .faster_than(pipe_name, pipe),
    );
    report.add(
        Line::new("first sync, until the command ends", Unit::Seconds, synced).faster_than(file_name, file),
    );
    report.add(Line::new(pipe_name, Unit::Seconds, pipe));
    report.add(Line::new(file_name, Unit::Seconds, file));
    report.add(Line::new("client's peak memory, first sync", Unit::MiB, &peaks(&runs.into_inner())));
    afterwards(bench, report)
}

/// What the replica costs from then on.
fn afterwards(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    sync(bench)?;
    bench.progress.step("runs with nothing to do");
    let idle = (0..IDLE_RUNS)
        .map(|_| run_client(bench.site.client(&["sync", "--json", "--quiet"]), &[0]))
        .collect::<Result<Vec<_>>>()?;
    let seconds: Vec<f64> = idle.iter().map(|run| run.seconds).collect();
    report.add(Line::new("run with nothing to do", Unit::Seconds, &seconds));
    report.add(Line::new("client's peak memory, nothing to do", Unit::MiB, &peaks(&idle)));
    bench.progress.step("plimsoll verify");
    let verified =
        run_client(bench.site.client(&["verify", "--quiet"]), &[0]).context("the replica is not level")?;
    report.add(Line::new("plimsoll verify of all rows", Unit::Seconds, &[verified.seconds]));
    Ok(())
}

fn peaks(runs: &[ClientRun]) -> Vec<f64> {
    runs.iter().map(|run| run.peak_mib).collect()
}

fn mib(bench: &Bench<'_>, name: &str) -> Result<u64> {
    Ok(std::fs::metadata(bench.site.path(name))?.len() >> 20)
}

/// Seconds that a copy of all rows takes.
fn copy(bench: &Bench<'_>, how: Contestant) -> Result<f64> {
    reset(bench)?;
    let csv = bench.site.path(bookings::CSV);
    let statement = bookings::copy_command((how == Contestant::File).then_some(csv.as_path()));
    let mut psql = bench.site.cluster().command("psql");
    psql.args([
        "--no-psqlrc",
        "--quiet",
        "--set=ON_ERROR_STOP=1",
        "--dbname",
        bench.site.database(),
        "--command",
    ]);
    psql.arg(statement);
    let begun = Instant::now();
    let mut reader = None;
    if how == Contestant::Pipe {
        let mut sqlite = Command::new("sqlite3");
        sqlite.arg("-readonly").arg("-csv").arg(bench.site.path(bookings::SQLITE)).arg(bookings::QUERY);
        let mut child = sqlite
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("sqlite3 is missing: run `cargo xtask bench`, which installs it")?;
        psql.stdin(child.stdout.take().context("sqlite3 has no output")?);
        reader = Some(child);
    }
    ensure!(psql.status().context("cannot run psql")?.success(), "psql failed");
    if let Some(mut reader) = reader {
        ensure!(reader.wait()?.success(), "sqlite3 failed");
    }
    let seconds = begun.elapsed().as_secs_f64();
    expect_rows(bench, IDENTICAL)?;
    Ok(seconds)
}

/// The first sync of a database that was just registered.
pub(super) fn sync(bench: &Bench<'_>) -> Result<ClientRun> {
    reset(bench)?;
    bookings::configure(bench.site)?;
    let run = run_client(bench.site.client(&["sync", "--json", "--quiet"]), &[0])?;
    expect_rows(bench, RELATION)?;
    Ok(run)
}

/// Seconds from the start of the last run with uploads until its last row was stored; what comes after proves
/// that the replica is level.
fn stored_seconds(bench: &Bench<'_>) -> Result<f64> {
    let query = "SELECT EXTRACT(EPOCH FROM max(b.finished_at) - r.started_at)::float8
                   FROM plimsoll.batches b JOIN plimsoll.runs r USING (run_id)
                  WHERE b.kind = 'upload' GROUP BY run_id, r.started_at ORDER BY run_id DESC LIMIT 1";
    Ok(bench.shared()?.query_one(query, &[])?.get(0))
}

/// Empties the tables and writes everything out, so that nothing of the last measurement is left to do.
fn reset(bench: &Bench<'_>) -> Result<()> {
    let mut server = bench.shared()?;
    server.batch_execute(&format!("TRUNCATE {RELATION}, {IDENTICAL}"))?;
    bench.settle()
}

fn expect_rows(bench: &Bench<'_>, table: &str) -> Result<()> {
    let found: i64 = bench.shared()?.query_one(&format!("SELECT count(*) FROM {table}"), &[])?.get(0);
    ensure!(found.unsigned_abs() == bench.scale.rows, "{found} of {} rows arrived", bench.scale.rows);
    Ok(())
}
