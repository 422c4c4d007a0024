//! What the kept manifest costs an application that changes single rows: pgbench on a managed table, and on one
//! with the same columns and indexes and nothing of ours.

use anyhow::{Context, Result, bail};
use postgres::{Client, IsolationLevel, Transaction};
use uuid::Uuid;

use crate::bench::Bench;
use crate::ledger;
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

const MANAGED: &str = "bench.kept";
const IDENTICAL: &str = "bench.unkept";

/// Slices of a measurement at least: the disk's mood changes by the second.
const SLICES: usize = 6;

/// How an application behaves.
struct Load {
    name: &'static str,
    clients: u32,
    /// Whether another session holds a snapshot all the while, so that nothing can be cleaned up.
    snapshot: bool,
}

const LOADS: &[Load] = &[
    Load { name: "1 client", clients: 1, snapshot: false },
    Load { name: "8 clients", clients: 8, snapshot: false },
    Load { name: "8 clients, a snapshot held open", clients: 8, snapshot: true },
];

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let mut server = bench.shared()?;
    let database = bench.register("application")?;
    server.batch_execute("CREATE SEQUENCE IF NOT EXISTS bench.versions START 1000000000 CACHE 100")?;
    ledger::create_identical(&mut server, IDENTICAL, &database)?;
    ledger::create_managed(&mut server, MANAGED, &database, true)?;
    for table in [IDENTICAL, MANAGED] {
        // The server looks after tables that an application changes.
        server.batch_execute(&format!("ALTER TABLE {table} RESET (autovacuum_enabled)"))?;
        ledger::fill(bench, &mut server, table, bench.scale.rows)?;
    }
    let slices = if bench.scale.rounds > 1 { bench.scale.rounds.max(SLICES) } else { 1 };
    let seconds = (bench.scale.application_seconds / slices as u64).max(1);
    report.on(format!("each table: {}", ledger::describe(&mut server, MANAGED)?));
    report.on(format!(
        "pgbench -M prepared, {slices} slices of {seconds} s: UPDATE of one row by primary key, which changes its \
         amount and its version (indexed), and commits"
    ));
    report.on(
        "not waiting for the disk: synchronous_commit = off, where neither hides its work behind the disk's",
    );
    for load in LOADS {
        for waits in [true, false] {
            let how = if waits { "" } else { ", not waiting for the disk" };
            let name = format!("{}{how}", load.name);
            bench.progress.step(&name);
            let mut holder = bench.shared()?;
            let snapshot = load.snapshot.then(|| hold_snapshot(&mut holder)).transpose()?;
            let contestants = [("without", IDENTICAL), ("with the kept manifest", MANAGED)];
            let figures = in_turns(&bench.progress, slices, &contestants, |table| {
                super::fold(&mut server, &database, MANAGED)?;
                bench.settle()?;
                rate(bench, load, waits, table, &database, seconds)
            })?;
            drop(snapshot);
            let [without, with] = &figures[..] else { unreachable!("as many figures as contestants") };
            let baseline = format!("{name}: without");
            let line =
                Line::new(format!("{name}: with the kept manifest"), Unit::TransactionsPerSecond, with);
            let line = line.cost_by_rate(&baseline, without);
            report.add(match waits {
                true => line.bar(Limit::AtMost(1.5)).aim(Limit::AtMost(1.2)),
                false => line,
            });
            report.add(Line::new(baseline, Unit::TransactionsPerSecond, without));
        }
    }
    Ok(())
}

/// A transaction with a snapshot, held while the value lives.
fn hold_snapshot(holder: &mut Client) -> Result<Transaction<'_>> {
    let mut transaction =
        holder.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start()?;
    transaction.query_one("SELECT pg_catalog.count(*) FROM plimsoll.databases", &[])?;
    Ok(transaction)
}

/// Transactions a second.
fn rate(
    bench: &Bench<'_>,
    load: &Load,
    waits: bool,
    table: &str,
    database: &Uuid,
    seconds: u64,
) -> Result<f64> {
    let script = format!(
        "\\set id random(1, {})\n\
         UPDATE {table} SET amount = amount + 0.01, version = pg_catalog.nextval('bench.versions')\n\
         WHERE client_id = 'bench' AND database_id = '{database}' AND id = :id;\n",
        bench.scale.rows
    );
    bench.site.write_private("update.sql", &script)?;
    let clients = load.clients.to_string();
    let output = bench
        .site
        .cluster()
        .command("pgbench")
        .env("PGOPTIONS", if waits { "" } else { "-c synchronous_commit=off" })
        .args(["--no-vacuum", "--protocol=prepared", "--random-seed=1", "--client", &clients, "--jobs"])
        .args([
            load.clients.min(2).to_string(),
            "--time".to_owned(),
            seconds.to_string(),
            "--file".to_owned(),
        ])
        .arg(bench.site.path("update.sql"))
        .arg(bench.site.database())
        .output()
        .context("cannot run pgbench, which comes with the server")?;
    if !output.status.success() {
        bail!("pgbench failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    transactions_per_second(&String::from_utf8_lossy(&output.stdout))
}

fn transactions_per_second(text: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok());
    number.with_context(|| format!("pgbench told no rate: {text}"))
}
