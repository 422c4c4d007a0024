//! Other tools that compare two tables in two Postgres databases, where they can be had: identical tables, and
//! scattered differences. They read tables without anything of ours, with a primary key of one column; Plimsoll
//! compares two kept sides with the same rows and the same damage.

use std::process::{Command, Output, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use plimsoll_cluster::Site;

use crate::bench::{Bench, LOCAL, SHARED};
use crate::ledger;
use crate::pair::{self, Pair};
use crate::report::{CaseReport, Line, Unit};
use crate::turns::in_turns;

const TABLE: &str = "bench.compared";

const OURS: &str = "Plimsoll";

/// The package that brings reladiff, and its version.
const RELADIFF: &str = "reladiff[postgresql]==0.6.0";

#[derive(Clone, Copy)]
enum Tool {
    Plimsoll,
    Reladiff,
    PgComparator,
}

/// Differences on the shared side.
#[derive(Clone, Copy)]
struct Damage {
    deleted: u64,
    altered: u64,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let mut tools = vec![(OURS, Tool::Plimsoll)];
    for (name, tool, found) in [
        ("reladiff 0.6", Tool::Reladiff, install_reladiff(bench)),
        ("pg_comparator", Tool::PgComparator, prepare_comparator(bench)),
    ] {
        match found {
            Ok(()) => tools.push((name, tool)),
            Err(error) => report.skipped.push(format!("{name}: {error:#}")),
        }
    }
    if tools.len() == 1 {
        return Ok(());
    }
    let pair = bench.pair(report)?;
    let agent = Site::AGENT;
    for mut server in [bench.shared()?, bench.local()?] {
        ledger::create_plain(&mut server, TABLE)?;
        server.batch_execute(&format!(
            "ALTER TABLE {TABLE} ADD PRIMARY KEY (id); GRANT USAGE ON SCHEMA bench TO {agent};
             GRANT SELECT ON {TABLE} TO {agent}"
        ))?;
        ledger::fill(bench, &mut server, TABLE, bench.scale.rows)?;
    }
    report.on(format!(
        "each of the tables that other tools compare: {}",
        ledger::describe(&mut bench.shared()?, TABLE)?
    ));
    report.on(
        "reladiff with 4 threads and --assume-unique-key, pg_comparator with its defaults, whole commands; Plimsoll \
         from connecting to both servers until the rows are known; nothing is repaired",
    );
    let differences = bench.scale.differences;
    for (what, damage) in [
        ("identical tables".to_owned(), Damage { deleted: 0, altered: 0 }),
        (
            format!("{differences} scattered differences"),
            Damage { deleted: differences / 2, altered: differences - differences / 2 },
        ),
    ] {
        inflict(bench, damage)?;
        if damage.deleted > 0 {
            pair.damage(bench, 0)?;
        }
        let figures = in_turns(&bench.progress, bench.scale.rounds, &tools, |tool| {
            compare(bench, &pair, *tool, damage)
        })?;
        for ((name, _), seconds) in tools.iter().zip(&figures) {
            let line = Line::new(format!("{name}: {what}"), Unit::Seconds, seconds);
            report.add(match name {
                &OURS => line,
                _ => line.times(&format!("{OURS}: {what}"), &figures[0]),
            });
        }
    }
    let (mut local, _) = pair.side(&bench.url(LOCAL), pair::LOCAL)?;
    let (mut remote, schema) = pair.side(&bench.url(SHARED), pair::SHARED)?;
    pair.repair(&mut local, &mut remote, &schema)?;
    Ok(())
}

/// Deletes and alters rows all over the table on the shared side.
fn inflict(bench: &Bench<'_>, damage: Damage) -> Result<()> {
    let count = damage.deleted + damage.altered;
    if count == 0 {
        return Ok(());
    }
    let stride = bench.scale.rows / count;
    let mut server = bench.shared()?;
    let chosen =
        |parity| format!("(id - 1) % {stride} = {} AND (id - 1) / {stride} % 2 = {parity}", stride / 2);
    let deleted = server.execute(&format!("DELETE FROM {TABLE} WHERE {}", chosen(0)), &[])?;
    let update = format!("UPDATE {TABLE} SET amount = amount + 1 WHERE {}", chosen(1));
    let altered = server.execute(&update, &[])?;
    ensure!(
        (deleted, altered) == (damage.deleted, damage.altered),
        "{deleted} rows deleted, {altered} altered"
    );
    bench.settle()
}

fn compare(bench: &Bench<'_>, pair: &Pair, tool: Tool, damage: Damage) -> Result<f64> {
    let words = ["UPDATE", "INSERT", "DELETE"];
    let count = damage.deleted + damage.altered;
    let begun = Instant::now();
    let (output, found) = match tool {
        Tool::Plimsoll => {
            let (mut local, _) = pair.side(&bench.url(LOCAL), pair::LOCAL)?;
            let (mut remote, _) = pair.side(&bench.url(SHARED), pair::SHARED)?;
            let found = pair::find(&mut local, &mut remote)?;
            let seconds = begun.elapsed().as_secs_f64();
            let expected = (count as usize, damage.altered as usize);
            let found = (found.local_only.len(), found.remote_only.len());
            ensure!(found == expected, "{found:?} rows were found on one side alone instead of {expected:?}");
            return Ok(seconds);
        }
        Tool::Reladiff => {
            let output = reladiff(bench)?;
            // An altered row is told as it is on either side.
            let found = lines_of(&output, |line| line.starts_with(['+', '-']));
            (output, found.saturating_sub(damage.altered))
        }
        Tool::PgComparator => {
            let output = pg_comparator(bench)?;
            let found = lines_of(&output, |line| words.iter().any(|word| line.starts_with(word)));
            (output, found)
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("it failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    ensure!(found == count, "it told {found} differences of {count}");
    Ok(seconds)
}

fn lines_of(output: &Output, told: impl Fn(&str) -> bool) -> u64 {
    String::from_utf8_lossy(&output.stdout).lines().filter(|line| told(line)).count() as u64
}

fn reladiff(bench: &Bench<'_>) -> Result<Output> {
    let mut command = Command::new(bench.cache.join("venv/bin/reladiff"));
    let [local, shared] = [bench.url(LOCAL), bench.url(SHARED)];
    command.args([&local, TABLE, &shared, TABLE, "--key-columns", "id", "--columns", "%", "--threads", "4"]);
    command.arg("--assume-unique-key");
    command.stdin(Stdio::null()).output().context("reladiff cannot be run")
}

fn pg_comparator(bench: &Bench<'_>) -> Result<Output> {
    let port = bench.site.cluster().port();
    let columns = ledger::COLUMNS.replace(", ", ",");
    let (key, others) = columns.split_once(',').context("one column alone")?;
    let place = |database: &str| {
        format!("pgsql://{}@127.0.0.1:{port}/{database}/{TABLE}?{key}:{others}", Site::AGENT)
    };
    let mut command = Command::new("pg_comparator");
    command.arg("--env-pass=PLIMSOLL_BENCH").env("PLIMSOLL_BENCH", bench.site.password());
    command.args([place(SHARED), place(LOCAL)]);
    command.stdin(Stdio::null()).output().context("pg_comparator cannot be run")
}

/// Puts reladiff into an environment of its own that later runs use again.
fn install_reladiff(bench: &Bench<'_>) -> Result<()> {
    let venv = bench.cache.join("venv");
    if venv.join("bin/reladiff").exists() {
        return Ok(());
    }
    bench.progress.step("installing reladiff from the package index");
    for (program, arguments) in [
        ("python3".into(), vec!["-m".into(), "venv".into(), venv.as_os_str().to_owned()]),
        (venv.join("bin/pip"), vec!["install".into(), "--quiet".into(), RELADIFF.into()]),
    ] {
        let output = Command::new(&program).args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("{} cannot be run", program.display()))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("{}", words.lines().last().unwrap_or("it cannot be installed"));
        }
    }
    Ok(())
}

/// pg_comparator needs its own extension in both databases.
fn prepare_comparator(bench: &Bench<'_>) -> Result<()> {
    let found = Command::new("pg_comparator").arg("--version").stdin(Stdio::null()).output();
    if !found.is_ok_and(|output| output.status.success()) {
        bail!("not installed: the package postgresql-comparator has it");
    }
    for mut server in [bench.shared()?, bench.local()?] {
        server.batch_execute("CREATE EXTENSION IF NOT EXISTS pgcmp").context("its extension pgcmp")?;
    }
    Ok(())
}
