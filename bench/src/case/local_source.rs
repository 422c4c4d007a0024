//! Scattered damage of a replica whose source is a local SQLite database: the source keeps no manifest, so it
//! must be scanned, and nothing else should cost much.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use super::first_sync;
use crate::bench::Bench;
use crate::bookings::{self, RELATION};
use crate::local::{Local, Sqlite};
use crate::process::run_client;
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

/// How many runs a repair may take.
const MOST_RUNS: usize = 20;

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    Scan,
    Verify,
    Sync,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let (site, rows, differences) = (bench.site, bench.scale.rows, bench.scale.differences);
    bench.progress.step(&format!("making {rows} local rows and their replica"));
    bookings::create(site, rows)?;
    first_sync::sync(bench, &Sqlite.setting())?;
    report.on(format!(
        "{rows} rows of 8 columns in SQLite, about 140 bytes each; {differences} scattered rows damaged on the \
         server: every second one deleted, the others altered under their version"
    ));
    report.on(
        "the scan reads every local row in order of version and makes its digest, in this process, on one thread; \
         verify and sync are whole commands, from start to end",
    );
    let contestants = [
        ("one full local scan with digests", Contestant::Scan),
        ("plimsoll verify, which finds them", Contestant::Verify),
        ("plimsoll sync, which finds and repairs them", Contestant::Sync),
    ];
    let runs = RefCell::new(Vec::new());
    let mut offset = 0;
    let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |contestant| {
        offset += 1;
        match contestant {
            Contestant::Scan => scan(bench),
            Contestant::Verify => {
                damage(bench, offset)?;
                let run = run_client(site.client(&["verify", "--json", "--quiet"]), &[1])?;
                repair(bench)?;
                Ok(run.seconds)
            }
            Contestant::Sync => {
                damage(bench, offset)?;
                let (seconds, count) = repair(bench)?;
                runs.borrow_mut().push(count);
                Ok(seconds)
            }
        }
    })?;
    let [scans, verified, synced] = &figures[..] else { unreachable!("as many figures as contestants") };
    let scan_name = contestants[0].0;
    report.on(format!("runs until everything was repaired, in each round: {:?}", runs.into_inner()));
    report.add(
        Line::new(contestants[2].0, Unit::Seconds, synced).times(scan_name, scans).bar(Limit::AtMost(1.5)),
    );
    report.add(
        Line::new(contestants[1].0, Unit::Seconds, verified).times(scan_name, scans).bar(Limit::AtMost(1.5)),
    );
    report.add(Line::new(scan_name, Unit::Seconds, scans));
    Ok(())
}

fn scan(bench: &Bench<'_>) -> Result<f64> {
    let scans = plimsoll_client::scan(&bench.site.path("plimsoll.toml"))?;
    let [scan] = scans[..] else { bail!("one table is configured") };
    ensure!(scan.fingerprint.row_count() == bench.scale.rows, "the scan missed rows");
    Ok(scan.took.as_secs_f64())
}

/// Damages scattered rows, others each time.
fn damage(bench: &Bench<'_>, offset: u64) -> Result<()> {
    let stride = bench.scale.rows / bench.scale.differences;
    let offset = offset * 7 % stride;
    let mut server = bench.shared()?;
    let chosen = format!("id % {stride} = {offset} AND id <= {} AND id / {stride} % 2", bench.scale.rows);
    let deleted = server.execute(&format!("DELETE FROM {RELATION} WHERE {chosen} = 0"), &[])?;
    let purpose = "purpose = 'damaged'";
    let altered = server.execute(&format!("UPDATE {RELATION} SET {purpose} WHERE {chosen} = 1"), &[])?;
    ensure!(deleted + altered == bench.scale.differences, "{deleted} rows deleted and {altered} altered");
    bench.settle()
}

/// Makes runs until the damage is gone: the seconds of all of them, and how many.
fn repair(bench: &Bench<'_>) -> Result<(f64, usize)> {
    let mut seconds = 0.0;
    for run in 1..=MOST_RUNS {
        let begun = Instant::now();
        run_client(bench.site.client(&["sync", "--json", "--quiet"]), &[0, 1])?;
        seconds += begun.elapsed().as_secs_f64();
        let query = format!("SELECT count(*), count(*) FILTER (WHERE purpose = 'damaged') FROM {RELATION}");
        let row = bench.shared()?.query_one(&query, &[])?;
        if (row.get::<_, i64>(0).unsigned_abs(), row.get::<_, i64>(1)) == (bench.scale.rows, 0) {
            return Ok((seconds, run));
        }
    }
    bail!("not repaired after {MOST_RUNS} runs")
}
