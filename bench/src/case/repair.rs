//! Scattered differences of two kept sides, found and repaired.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bench::{self, Bench};
use crate::pair;
use crate::report::{CaseReport, Limit, Line, Unit};

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let pair = bench.pair(report)?;
    let differences = bench.scale.differences;
    report.on(format!(
        "{differences} scattered rows damaged on the shared side: every second one deleted, the others altered under \
         their version"
    ));
    report.on(
        "begin of the run, both roots, finding, sending, deleting, both roots again; connections are open; every \
         call of the client is a transaction",
    );
    let (mut local, _) = pair.side(&bench.url(bench::LOCAL), pair::LOCAL)?;
    let (mut remote, schema) = pair.side(&bench.url(bench::SHARED), pair::SHARED)?;
    let mut samples = Vec::new();
    // The first time makes what later ones use again.
    for round in 0..=bench.scale.rounds {
        bench.progress.step(&format!("round {round} of {}", bench.scale.rounds));
        pair.damage(bench, round as u64)?;
        let begun = Instant::now();
        let found = pair.repair(&mut local, &mut remote, &schema)?;
        let seconds = begun.elapsed().as_secs_f64();
        // An altered row is a difference on both sides.
        let expected = differences + differences / 2;
        ensure!(found == expected, "{found} rows were found on one side alone instead of {expected}");
        if round > 0 {
            samples.push(seconds);
        }
    }
    report.add(
        Line::new(format!("{differences} differences found and repaired"), Unit::Seconds, &samples)
            .bar(Limit::AtMost(0.5))
            .aim(Limit::AtMost(0.1)),
    );
    Ok(())
}
