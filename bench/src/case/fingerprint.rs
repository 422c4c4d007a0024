//! The aggregate fingerprint against the digests that people make with what Postgres has.

use std::time::Instant;

use anyhow::Result;

use crate::bench::Bench;
use crate::ledger;
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

const TABLE: &str = "bench.fingerprinted";

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let mut server = bench.shared()?;
    ledger::create_plain(&mut server, TABLE)?;
    ledger::fill(bench, &mut server, TABLE, bench.scale.fingerprint_rows)?;
    report.on(ledger::describe(&mut server, TABLE)?);
    report.on("max_parallel_workers_per_gather = 0; all rows in memory");
    server.batch_execute("SET max_parallel_workers_per_gather = 0")?;
    let key = "pg_catalog.decode(pg_catalog.repeat('5a', 32), 'hex')";
    let contestants = [
        ("count(md5(t::text))", format!("SELECT count(md5(t::text)) FROM {TABLE} t")),
        (
            "plimsoll.fingerprint(key, all columns)",
            format!("SELECT plimsoll.fingerprint({key}, {}) FROM {TABLE}", ledger::COLUMNS),
        ),
        ("plimsoll.fingerprint(key, row)", format!("SELECT plimsoll.fingerprint({key}, t) FROM {TABLE} t")),
        ("count(*)", format!("SELECT count(*) FROM {TABLE}")),
    ];
    // The first reading of all brings the table into memory.
    server.batch_execute(&contestants[3].1)?;
    let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |query| {
        let begun = Instant::now();
        server.query_one(query, &[])?;
        Ok(begun.elapsed().as_secs_f64())
    })?;
    let [md5, columns, record, count] = &figures[..] else { unreachable!("as many figures as contestants") };
    let baseline = contestants[0].0;
    report.add(
        Line::new(contestants[1].0, Unit::Seconds, columns)
            .faster_than(baseline, md5)
            .bar(Limit::AtLeast(5.0))
            .aim(Limit::AtLeast(8.0)),
    );
    report.add(Line::new(contestants[2].0, Unit::Seconds, record).faster_than(baseline, md5));
    report.add(Line::new(baseline, Unit::Seconds, md5));
    report.add(Line::new(contestants[3].0, Unit::Seconds, count));
    Ok(())
}
