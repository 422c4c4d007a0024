//! The first sync of a local database and a verify of all rows, client and servers together, against copying the same
//! rows with the tools that everybody has.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use plimsoll_cluster::MariaDb;

use crate::bench::Bench;
use crate::bookings::{self, BOTH_WAYS, IDENTICAL, RELATION};
use crate::local::{Dump, Local, Maria, Output, Postgres, Sqlite};
use crate::process::{ClientRun, programs_seconds, run_client, server_seconds};
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::{in_turns, median};

/// How often a run with nothing to do is measured.
const IDLE_RUNS: usize = 5;
/// The most memory that the client may take, in MiB.
const MOST_MEMORY: f64 = 64.0;

const SYNC: &str = "first sync";
const VERIFY: &str = "plimsoll verify of all rows";

pub(super) fn sqlite(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    make_rows(bench)?;
    measure(bench, report, &Sqlite, Some(Limit::AtLeast(1.0)))
}

pub(super) fn postgres(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    make_rows(bench)?;
    measure(bench, report, &Postgres::start(bench)?, None)
}

pub(super) fn mariadb(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    if !MariaDb::is_installed() {
        report.skipped.push("MariaDB is not installed: the package mariadb-server-core has it".to_owned());
        return Ok(());
    }
    make_rows(bench)?;
    measure(bench, report, &Maria::start(bench)?, None)
}

pub(super) fn make_rows(bench: &Bench<'_>) -> Result<()> {
    bench.progress.step(&format!("making {} local rows", bench.scale.rows));
    bookings::create(bench.site, bench.scale.rows)
}

/// What something took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent {
    /// From start to end.
    pub(super) seconds: f64,
    /// Processor time of the programs that we ran.
    pub(super) programs: f64,
    /// Processor time of the shared server, its background processes included.
    pub(super) server: f64,
    /// Processor time of the local server, where there is one.
    pub(super) local: Option<f64>,
}

/// One turn: a copy, or a first sync and the verify after it.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Copied(Spent),
    Synced { sync: (Spent, f64), verify: (Spent, f64), stored: f64 },
}

/// What a turn is for: `None` is the sync.
type Contestant<'l> = Option<&'l Dump<'l>>;

fn measure(
    bench: &Bench<'_>,
    report: &mut CaseReport,
    local: &dyn Local,
    speed_bar: Option<Limit>,
) -> Result<()> {
    report.on(format!(
        "{} rows of 8 columns, about 140 bytes each, {}; primary key and position index on the server",
        bench.scale.rows,
        local.describe(bench)?
    ));
    report.on(
        "the copies go into an identical table with nothing of ours; the sync keeps the manifest; verify reads every \
         local row, and the server answers from its manifest",
    );
    let (dumps, missing) = local.dumps(bench);
    report.skipped.extend(missing);
    let mut contestants: Vec<(&str, Contestant<'_>)> =
        dumps.iter().map(|dump| (dump.name, Some(dump))).collect();
    // The first load of all makes the files and the log that later ones use again.
    if let Some(dump) = dumps.first() {
        copy(bench, local, dump)?;
    }
    contestants.push((SYNC, None));
    let turns = in_turns(&bench.progress, bench.scale.rounds, &contestants, |contestant| match contestant {
        Some(dump) => copy(bench, local, dump).map(Turn::Copied),
        None => sync_and_verify(bench, local),
    })?;
    add(report, &contestants, &turns, speed_bar);
    idle(bench, report)
}

/// Adds the lines; ratios are to the dump that was the fastest.
fn add(
    report: &mut CaseReport,
    contestants: &[(&str, Contestant<'_>)],
    turns: &[Vec<Turn>],
    bar: Option<Limit>,
) {
    let mut copies: Vec<(&str, Vec<Spent>)> = Vec::new();
    let (mut syncs, mut verifies, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    let mut peaks = [0.0f64; 2];
    for ((name, _), turns) in contestants.iter().zip(turns) {
        let mut copied = Vec::new();
        for turn in turns {
            match turn {
                Turn::Copied(spent) => copied.push(*spent),
                Turn::Synced { sync, verify, stored: until } => {
                    syncs.push(sync.0);
                    verifies.push(verify.0);
                    stored.push(*until);
                    peaks = [peaks[0].max(sync.1), peaks[1].max(verify.1)];
                }
            }
        }
        if !copied.is_empty() {
            copies.push((name, copied));
        }
    }
    copies.sort_by(|(_, left), (_, right)| median(&walls(left)).total_cmp(&median(&walls(right))));
    let fastest = copies.first().map(|(name, spent)| (*name, walls(spent)));
    let against = |line: Line| match &fastest {
        Some((name, seconds)) => line.faster_than(name, seconds),
        None => line,
    };
    let line = against(Line::new(format!("{SYNC}, until the command ends"), Unit::Seconds, &walls(&syncs)));
    report.add(match bar.filter(|_| fastest.is_some()) {
        Some(bar) => line.bar(bar),
        None => line,
    });
    report.add(against(Line::new(format!("{SYNC}, until every row is stored"), Unit::Seconds, &stored)));
    report.add(against(Line::new(VERIFY, Unit::Seconds, &walls(&verifies))));
    for (place, (name, spent)) in copies.iter().enumerate() {
        let line = Line::new(*name, Unit::Seconds, &walls(spent));
        report.add(if place == 0 { line } else { against(line) });
    }
    for (what, peak) in [SYNC, VERIFY].into_iter().zip(peaks) {
        let line = Line::new(format!("client's peak memory, {what}"), Unit::MiB, &[peak]);
        report.add(line.bar(Limit::AtMost(MOST_MEMORY)));
    }
    copies.truncate(1);
    copies.extend([(SYNC, syncs), (VERIFY, verifies)]);
    for (name, spent) in &copies {
        let mut add = |whose: &str, seconds: Vec<f64>| {
            if !seconds.is_empty() {
                report.add(Line::new(format!("{name}: {whose} processor time"), Unit::Seconds, &seconds));
            }
        };
        add("client's", spent.iter().map(|spent| spent.programs).collect());
        add("server's", spent.iter().map(|spent| spent.server).collect());
        add("local server's", spent.iter().filter_map(|spent| spent.local).collect());
    }
}

fn walls(spent: &[Spent]) -> Vec<f64> {
    spent.iter().map(|spent| spent.seconds).collect()
}

/// Runs with nothing to do, which is what a replica costs from then on.
fn idle(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    bench.progress.step("runs with nothing to do");
    let idle = (0..IDLE_RUNS)
        .map(|_| run_client(bench.site.client(&["sync", "--json", "--quiet"]), &[0]))
        .collect::<Result<Vec<_>>>()?;
    let seconds: Vec<f64> = idle.iter().map(|run| run.seconds).collect();
    let peak = idle.iter().map(|run| run.peak_mib).fold(0.0, f64::max);
    report.add(Line::new("run with nothing to do", Unit::Seconds, &seconds));
    let line = Line::new("client's peak memory, nothing to do", Unit::MiB, &[peak]);
    report.add(line.bar(Limit::AtMost(MOST_MEMORY)));
    Ok(())
}

/// Measures what the work takes, of everybody.
pub(super) fn spent<T>(
    bench: &Bench<'_>,
    local: &dyn Local,
    work: impl FnOnce() -> Result<T>,
) -> Result<(Spent, T)> {
    let server = bench.site.cluster().process()?;
    let times = || anyhow::Ok((programs_seconds()?, server_seconds(server)?, local.processor()?));
    let (programs, at_server, at_local) = times()?;
    let begun = Instant::now();
    let answer = work()?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = times()?;
    let spent = Spent {
        seconds,
        programs: after.0 - programs,
        server: after.1 - at_server,
        local: after.2.zip(at_local).map(|(after, before)| after - before),
    };
    Ok((spent, answer))
}

/// Copies all rows.
fn copy(bench: &Bench<'_>, local: &dyn Local, dump: &Dump<'_>) -> Result<Spent> {
    reset(bench)?;
    let (spent, ()) = spent(bench, local, || {
        let mut psql = bench.site.cluster().command("psql");
        psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", bench.site.database()]);
        let mut reader = None;
        let from = match (dump.make)()? {
            Output::File(path) => format!("'{}'", path.display().to_string().replace('\'', "''")),
            Output::Pipe(mut command) => {
                let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
                let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
                psql.stdin(child.stdout.take().context("a dump without output")?);
                reader = Some(child);
                "pstdin".to_owned()
            }
        };
        psql.arg("--command").arg(bookings::copy_command(&from, dump.options));
        let copied = psql.status().context("cannot run psql")?.success();
        // Its end of the pipe is closed: the dump does not wait for anybody.
        drop(psql);
        if let Some(mut reader) = reader {
            ensure!(reader.wait()?.success(), "the dump failed");
        }
        ensure!(copied, "psql failed");
        Ok(())
    })?;
    expect_rows(bench, IDENTICAL)?;
    Ok(spent)
}

/// A first sync, and a verify of what it made.
fn sync_and_verify(bench: &Bench<'_>, local: &dyn Local) -> Result<Turn> {
    prepare(bench, &local.setting())?;
    let (sync, run) = spent(bench, local, || run_sync(bench))?;
    expect_rows(bench, RELATION)?;
    let stored = stored_seconds(bench)?;
    bench.settle()?;
    let (verify, verified) = spent(bench, local, || {
        run_client(bench.site.client(&["verify", "--quiet"]), &[0]).context("the replica is not level")
    })?;
    let timed = |spent: Spent, run: ClientRun| (Spent { seconds: run.seconds, ..spent }, run.peak_mib);
    Ok(Turn::Synced { sync: timed(sync, run), verify: timed(verify, verified), stored })
}

/// The first sync of a database that was just registered.
pub(super) fn sync(bench: &Bench<'_>, setting: &str) -> Result<()> {
    prepare(bench, setting)?;
    run_sync(bench)?;
    expect_rows(bench, RELATION)
}

fn prepare(bench: &Bench<'_>, setting: &str) -> Result<()> {
    reset(bench)?;
    bookings::configure(bench.site, setting)
}

pub(super) fn run_sync(bench: &Bench<'_>) -> Result<ClientRun> {
    run_client(bench.site.client(&["sync", "--json", "--quiet"]), &[0])
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
pub(super) fn reset(bench: &Bench<'_>) -> Result<()> {
    let mut server = bench.shared()?;
    server.batch_execute(&format!("TRUNCATE {RELATION}, {BOTH_WAYS}, {IDENTICAL}"))?;
    bench.settle()
}

pub(super) fn expect_rows(bench: &Bench<'_>, table: &str) -> Result<()> {
    let found: i64 = bench.shared()?.query_one(&format!("SELECT count(*) FROM {table}"), &[])?.get(0);
    ensure!(found.unsigned_abs() == bench.scale.rows, "{found} of {} rows arrived", bench.scale.rows);
    Ok(())
}
