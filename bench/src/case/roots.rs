//! Two kept sides, the same rows: both say what they have, and it is the same.

use std::time::Instant;

use anyhow::{Result, ensure};
use postgres::{Client, Statement};
use uuid::Uuid;

use crate::bench::Bench;
use crate::pair;
use crate::report::{CaseReport, Limit, Line, Unit};

/// How often both sides are asked in one round.
const CALLS: usize = 20;

const QUERY: &str =
    "SELECT row_count, max_version, fingerprint FROM plimsoll.table_version($1::uuid, $2::text)";

/// What a side says of itself.
type Root = (Option<i64>, Option<i64>, Option<Vec<u8>>);

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let pair = bench.pair(report)?;
    report.on(format!(
        "both sides asked one after the other through connections that are open; {CALLS} times a round"
    ));
    let mut local = bench.local()?;
    let mut remote = bench.agent(bench.site.cluster().port())?;
    let (local_query, remote_query) = (local.prepare(QUERY)?, remote.prepare(QUERY)?);
    let mut samples = Vec::new();
    for round in 0..bench.scale.rounds {
        bench.progress.step(&format!("round {} of {}", round + 1, bench.scale.rounds));
        for _ in 0..CALLS {
            let begun = Instant::now();
            let here = root(&mut local, &local_query, &pair.database, pair::LOCAL)?;
            let there = root(&mut remote, &remote_query, &pair.database, pair::SHARED)?;
            let equal = here == there;
            samples.push(begun.elapsed().as_secs_f64());
            ensure!(here.2.is_some(), "the local side keeps no manifest");
            ensure!(equal, "the sides differ: {here:?} and {there:?}");
        }
    }
    report.add(
        Line::new("both roots asked for and compared", Unit::Seconds, &samples).bar(Limit::AtMost(0.01)),
    );
    Ok(())
}

fn root(side: &mut Client, query: &Statement, database: &Uuid, table: &str) -> Result<Root> {
    let row = side.query_one(query, &[database, &table])?;
    Ok((row.get(0), row.get(1), row.get(2)))
}
