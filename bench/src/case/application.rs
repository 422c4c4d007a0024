//! What the kept manifest costs an application that changes single rows: pgbench on a managed table, and on one
//! with the same columns and indexes and nothing of ours.

use anyhow::{Context, Result, bail};
use uuid::Uuid;

use crate::bench::Bench;
use crate::ledger;
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

const MANAGED: &str = "bench.kept";
const IDENTICAL: &str = "bench.unkept";

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
    let seconds = (bench.scale.application_seconds / bench.scale.rounds as u64).max(1);
    report.on(format!("each table: {}", ledger::describe(&mut server, MANAGED)?));
    report.on(format!(
        "pgbench -M prepared, {seconds} s a round: UPDATE of one row by primary key, which changes its amount and \
         its version (indexed), and commits"
    ));
    for load in LOADS {
        bench.progress.step(load.name);
        let contestants = [("without", IDENTICAL), ("with the kept manifest", MANAGED)];
        let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |table| {
            super::fold(&mut server, &database, MANAGED)?;
            bench.settle()?;
            rate(bench, load, table, &database, seconds)
        })?;
        let [without, with] = &figures[..] else { unreachable!("as many figures as contestants") };
        let name = format!("{}: without", load.name);
        report.add(
            Line::new(format!("{}: with the kept manifest", load.name), Unit::TransactionsPerSecond, with)
                .cost_by_rate(&name, without)
                .bar(Limit::AtMost(1.5))
                .aim(Limit::AtMost(1.2)),
        );
        report.add(Line::new(name, Unit::TransactionsPerSecond, without));
    }
    Ok(())
}

/// Transactions a second.
fn rate(bench: &Bench<'_>, load: &Load, table: &str, database: &Uuid, seconds: u64) -> Result<f64> {
    let script = format!(
        "\\set id random(1, {})\n\
         UPDATE {table} SET amount = amount + 0.01, version = pg_catalog.nextval('bench.versions')\n\
         WHERE client_id = 'bench' AND database_id = '{database}' AND id = :id;\n",
        bench.scale.rows
    );
    bench.site.write_private("update.sql", &script)?;
    let mut holder = bench.shared()?;
    let mut snapshot = None;
    if load.snapshot {
        let mut transaction =
            holder.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start()?;
        transaction.query_one("SELECT pg_catalog.count(*) FROM plimsoll.databases", &[])?;
        snapshot = Some(transaction);
    }
    let clients = load.clients.to_string();
    let output = bench
        .site
        .cluster()
        .command("pgbench")
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
    drop(snapshot);
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
