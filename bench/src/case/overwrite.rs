//! Rows that exist already with other content: by upload, and as people do it with COPY into a temporary table
//! and `INSERT ... ON CONFLICT DO UPDATE`.

use anyhow::{Result, ensure};
use postgres::Client;
use uuid::Uuid;

use crate::batches::Batches;
use crate::bench::Bench;
use crate::ledger;
use crate::process::{cost, processor, wall};
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

const SEED: &str = "bench.seed";
const CHANGED: &str = "bench.changed";
const MERGED: &str = "bench.merged";
const KEPT: &str = "bench.overwritten";
const BARE: &str = "bench.overwritten_bare";

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let mut server = bench.shared()?;
    let database = bench.register("overwrite")?;
    let batches = prepare(bench, &mut server, &database)?;
    report.on(ledger::describe(&mut server, SEED)?);
    report.on(batches.describe());
    report.on(
        "COPY and ON CONFLICT: COPY (FORMAT binary) into a temporary table, INSERT ... SELECT ... ON CONFLICT DO UPDATE, \
         in one transaction, into a table with the same columns and indexes and nothing of ours",
    );
    report.on("every row exists, with another amount and an older version; primary key and position index");
    let mut agent = bench.agent(bench.site.cluster().port())?;
    agent.batch_execute(&format!(
        "CREATE TEMPORARY TABLE incoming AS SELECT {} FROM {CHANGED} LIMIT 0",
        ledger::COLUMNS
    ))?;
    let contestants = [
        ("COPY and ON CONFLICT", MERGED),
        ("upload, kept manifest on", KEPT),
        ("upload, kept manifest off", BARE),
    ];
    let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |table| {
        ledger::refill(&mut server, table, SEED)?;
        cost(&mut agent, |agent| match *table {
            MERGED => merge(agent, &batches),
            table => batches.upload(agent, &database, table, false),
        })
    })?;
    let [merged, kept, bare] = &figures[..] else { unreachable!("as many figures as contestants") };
    let merge = contestants[0].0;
    report.add(
        Line::new(contestants[1].0, Unit::Seconds, &wall(kept))
            .faster_than(merge, &wall(merged))
            .bar(Limit::AtLeast(1.0))
            .aim(Limit::AtLeast(1.5)),
    );
    report.add(Line::new(contestants[2].0, Unit::Seconds, &wall(bare)).faster_than(merge, &wall(merged)));
    report.add(Line::new(merge, Unit::Seconds, &wall(merged)));
    for ((name, _), costs) in contestants.iter().zip([merged, kept, bare]) {
        let name = format!("{name}: backend's processor time");
        report.add(Line::new(name, Unit::Seconds, &processor(costs)).times(merge, &processor(merged)));
    }
    Ok(())
}

/// Makes the tables and the changed rows.
fn prepare(bench: &Bench<'_>, server: &mut Client, database: &Uuid) -> Result<Batches> {
    let rows = bench.scale.upload_rows;
    ledger::create_plain(server, SEED)?;
    ledger::fill(bench, server, SEED, rows)?;
    ledger::create_managed(server, CHANGED, database, false)?;
    ledger::fill_shifted(bench, server, CHANGED, rows, i64::try_from(rows)?)?;
    let batches = Batches::of(bench, server, database, CHANGED)?;
    ledger::create_identical(server, MERGED, database)?;
    ledger::create_managed(server, KEPT, database, true)?;
    ledger::create_managed(server, BARE, database, false)?;
    let agent = plimsoll_cluster::Site::AGENT;
    server.batch_execute(&format!(
        "GRANT SELECT, INSERT, UPDATE ON {MERGED} TO {agent}; GRANT SELECT ON {CHANGED} TO {agent};
         GRANT TEMPORARY ON DATABASE {} TO {agent}",
        bench.site.database()
    ))?;
    Ok(batches)
}

/// What people do, in one transaction.
fn merge(agent: &mut Client, batches: &Batches) -> Result<()> {
    let columns = ledger::COLUMNS;
    let assignments: Vec<String> =
        columns.split(", ").skip(1).map(|column| format!("{column} = EXCLUDED.{column}")).collect();
    let mut transaction = agent.transaction()?;
    transaction.batch_execute("TRUNCATE incoming")?;
    batches.copy(&mut transaction, "incoming")?;
    let stored = transaction.execute(
        &format!(
            "INSERT INTO {MERGED} ({columns}) SELECT {columns} FROM incoming
             ON CONFLICT (client_id, database_id, id) DO UPDATE SET {}",
            assignments.join(", ")
        ),
        &[],
    )?;
    ensure!(stored == batches.rows, "{stored} of {} rows were stored", batches.rows);
    transaction.commit()?;
    Ok(())
}
