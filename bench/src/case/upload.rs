//! New rows by upload, with the kept manifest on and off, against COPY into a table with nothing of ours.

use anyhow::Result;

use crate::batches::Batches;
use crate::bench::Bench;
use crate::ledger;
use crate::process::{Cost, cost, processor, wall};
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

const SEED: &str = "bench.seed";
const COPIED: &str = "bench.copied";
const KEPT: &str = "bench.uploaded";
const BARE: &str = "bench.uploaded_bare";

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let mut server = bench.shared()?;
    let database = bench.register("upload")?;
    ledger::create_managed(&mut server, SEED, &database, false)?;
    ledger::fill(bench, &mut server, SEED, bench.scale.upload_rows)?;
    report.on(ledger::describe(&mut server, SEED)?);
    let batches = Batches::of(bench, &mut server, &database, SEED)?;
    server.batch_execute("SELECT plimsoll.unmanage_table('bench.seed'::regclass); DROP TABLE bench.seed")?;
    report.on(batches.describe());
    report.on(
        "primary key and position index on every table; one connection over TCP, rows prepared beforehand",
    );
    ledger::create_identical(&mut server, COPIED, &database)?;
    ledger::create_managed(&mut server, KEPT, &database, true)?;
    ledger::create_managed(&mut server, BARE, &database, false)?;
    server.batch_execute(&format!("GRANT INSERT ON {COPIED} TO {}", plimsoll_cluster::Site::AGENT))?;
    let mut agent = bench.agent(bench.site.cluster().port())?;
    let mut measure = |table: &str| {
        ledger::empty(&mut server, table)?;
        cost(&mut agent, |agent| match table {
            COPIED => batches.copy(agent, table),
            _ => batches.upload(agent, &database, table, true),
        })
    };
    let contestants =
        [("COPY", COPIED), ("upload, kept manifest on", KEPT), ("upload, kept manifest off", BARE)];
    bench.progress.step("once beforehand, unmeasured");
    contestants.iter().try_for_each(|(_, table)| measure(table).map(drop))?;
    let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |table| measure(table))?;
    let [copied, kept, bare] = &figures[..] else { unreachable!("as many figures as contestants") };
    let rate = |costs: &[Cost]| costs.iter().map(|cost| batches.rows as f64 / cost.wall).collect::<Vec<_>>();
    let copy = contestants[0].0;
    report.add(
        Line::new(contestants[1].0, Unit::Seconds, &wall(kept))
            .faster_than(copy, &wall(copied))
            .bar(Limit::AtLeast(0.7))
            .aim(Limit::AtLeast(1.0)),
    );
    report.add(Line::new(contestants[2].0, Unit::Seconds, &wall(bare)).faster_than(copy, &wall(copied)));
    report.add(Line::new(copy, Unit::Seconds, &wall(copied)));
    for ((name, _), costs) in contestants.iter().zip([copied, kept, bare]) {
        let name = format!("{name}: backend's processor time");
        report.add(Line::new(name, Unit::Seconds, &processor(costs)).times(copy, &processor(copied)));
    }
    for ((name, _), costs) in contestants.iter().zip([copied, kept, bare]) {
        report.add(Line::new(format!("{name}: rate"), Unit::RowsPerSecond, &rate(costs)));
    }
    Ok(())
}
