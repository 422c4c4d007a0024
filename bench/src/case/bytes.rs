//! What travels until the missing rows of a replica are known, counted on the socket.

use anyhow::{Result, ensure};
use fastrand::Rng;

use crate::bench::{self, Bench};
use crate::pair::{self, Pair};
use crate::proxy::{Proxy, Traffic};
use crate::report::{CaseReport, Limit, Line, Unit};

/// Rows that the shared side lacks.
struct Missing {
    name: String,
    rows: Vec<i64>,
    /// Bytes in both directions: bar and aim.
    bytes: Option<[f64; 2]>,
    /// Trips: bar.
    trips: Option<f64>,
}

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let pair = bench.pair(report)?;
    report.on(
        "every byte of both directions between the client and the shared server, counted by a proxy on the socket, \
         from the question for the root until all differences are known; the missing rows themselves, which are \
         sent afterwards, are not counted",
    );
    report.on(
        "the connection is open and logged in by role; a trip begins when the client speaks after the server did; \
         1 KB is 1,000 bytes",
    );
    let proxy = Proxy::to(bench.site.cluster().port())?;
    let through = bench.url_at(bench::SHARED, proxy.port());
    let (mut local, _) = pair.side(&bench.url(bench::LOCAL), pair::LOCAL)?;
    let (mut direct, schema) = pair.side(&bench.url(bench::SHARED), pair::SHARED)?;
    let (mut remote, _) = pair.side(&through, pair::SHARED)?;
    for missing in cases(bench.scale.rows)? {
        bench.progress.step(&missing.name);
        remove(bench, &pair, &missing.rows)?;
        proxy.take();
        let found = pair::find(&mut local, &mut remote)?;
        let traffic = proxy.take();
        let positions: Vec<i64> = found.local_only.iter().map(|item| item.position).collect();
        ensure!(positions == missing.rows, "{}: {} rows were found", missing.name, positions.len());
        ensure!(found.remote_only.is_empty(), "rows were found that only the shared side has");
        pair.repair(&mut local, &mut direct, &schema)?;
        add(report, &missing, traffic);
    }
    Ok(())
}

fn cases(rows: u64) -> Result<Vec<Missing>> {
    let rows = i64::try_from(rows)?;
    let mut rng = Rng::with_seed(6);
    let mut scattered = |count: i64| -> Vec<i64> {
        let mut chosen = std::collections::BTreeSet::new();
        while (chosen.len() as i64) < count {
            chosen.insert(rng.i64(1..=rows));
        }
        chosen.into_iter().collect()
    };
    let (hundred, thousand) = (scattered(100), scattered(1_000.min(rows / 20)));
    let contiguous = 10_000.min(rows / 4);
    let first = rows * 3 / 8 + 17;
    Ok(vec![
        Missing { name: "identical".to_owned(), rows: vec![], bytes: None, trips: None },
        Missing {
            name: "1 missing row".to_owned(),
            rows: vec![rows / 2 + 1],
            bytes: Some([2_000.0, 1_000.0]),
            trips: Some(3.0),
        },
        Missing {
            name: format!("{} scattered missing rows", hundred.len()),
            rows: hundred,
            bytes: Some([16_000.0, 8_000.0]),
            trips: None,
        },
        Missing {
            name: format!("{} scattered missing rows", thousand.len()),
            rows: thousand,
            bytes: Some([64_000.0, 48_000.0]),
            trips: None,
        },
        Missing {
            name: format!("{contiguous} contiguous missing rows"),
            rows: (first..first + contiguous).collect(),
            bytes: Some([3_200.0, 2_200.0]),
            trips: None,
        },
    ])
}

fn remove(bench: &Bench<'_>, pair: &Pair, rows: &[i64]) -> Result<()> {
    let mut server = bench.shared()?;
    let deleted = server.execute(&format!("DELETE FROM {} WHERE id = ANY($1)", pair::SHARED), &[&rows])?;
    ensure!(deleted == rows.len() as u64, "{deleted} rows were deleted");
    crate::case::fold(&mut server, &pair.database, pair::SHARED)
}

fn add(report: &mut CaseReport, missing: &Missing, traffic: Traffic) {
    let mut bytes = Line::new(&missing.name, Unit::Bytes, &[traffic.bytes() as f64]);
    if let Some([bar, aim]) = missing.bytes {
        bytes = bytes.bar(Limit::AtMost(bar)).aim(Limit::AtMost(aim));
    }
    report.add(bytes);
    let mut trips = Line::new(format!("{}: trips", missing.name), Unit::Trips, &[traffic.trips as f64]);
    if let Some(bar) = missing.trips {
        trips = trips.bar(Limit::AtMost(bar));
    }
    report.add(trips);
    for (direction, bytes) in [("to the server", traffic.to_server), ("from the server", traffic.from_server)]
    {
        report.add(Line::new(format!("{}: {direction}", missing.name), Unit::Bytes, &[bytes as f64]));
    }
}
