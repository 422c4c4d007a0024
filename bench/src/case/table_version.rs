//! What a replica says of itself, asked of a small and a large one: it must not cost a scan.

use anyhow::Result;
use postgres::Client;
use uuid::Uuid;

use crate::bench::Bench;
use crate::ledger;
use crate::process::{Cost, cost, processor, wall};
use crate::report::{CaseReport, Limit, Line, Unit};
use crate::turns::in_turns;

const SMALL: &str = "bench.small";
const LARGE: &str = "bench.large";

pub(super) fn measure(bench: &Bench<'_>, report: &mut CaseReport) -> Result<()> {
    let mut server = bench.shared()?;
    let database = bench.register("table version")?;
    for (table, rows) in [(SMALL, bench.scale.few_rows), (LARGE, bench.scale.rows)] {
        ledger::create_managed(&mut server, table, &database, true)?;
        ledger::fill(bench, &mut server, table, rows)?;
        super::fold(&mut server, &database, table)?;
        report.on(format!("{table}: {}", ledger::describe(&mut server, table)?));
    }
    report.on(format!("the server's own clock around {} calls in one session", bench.scale.calls));
    let contestants = [("small", SMALL), ("large", LARGE)];
    let figures = in_turns(&bench.progress, bench.scale.rounds, &contestants, |table| {
        let calls = bench.scale.calls;
        let mut seconds = 0.0;
        let cost = cost(&mut server, |server| {
            seconds = seconds_of_a_call(server, &database, table, calls)?;
            Ok(())
        })?;
        Ok(Cost { wall: seconds, processor: cost.processor / f64::from(calls) })
    })?;
    let [small, large] = &figures[..] else { unreachable!("as many figures as contestants") };
    let (small, large, small_processor, large_processor) =
        (wall(small), wall(large), processor(small), processor(large));
    let small_name = format!("table_version of {} rows", bench.scale.few_rows);
    let large_name = format!("table_version of {} rows", bench.scale.rows);
    report.add(Line::new(&small_name, Unit::Seconds, &small).bar(Limit::AtMost(0.001)));
    report.add(Line::new(&large_name, Unit::Seconds, &large).bar(Limit::AtMost(0.001)));
    report.add(
        Line::new(format!("{large_name} against few"), Unit::Seconds, &large)
            .times(&small_name, &small)
            .bar(Limit::AtMost(2.0)),
    );
    for (name, samples) in [(small_name, small_processor), (large_name, large_processor)] {
        report.add(Line::new(format!("{name}: backend's processor time"), Unit::Seconds, &samples));
    }
    Ok(())
}

/// Seconds that one call takes on the server, as it measures itself.
fn seconds_of_a_call(server: &mut Client, database: &Uuid, table: &str, calls: u32) -> Result<f64> {
    server.batch_execute(&format!(
        "DO $$
         DECLARE
             begun timestamptz;
             answer record;
         BEGIN
             -- The first call makes what later ones use again.
             SELECT * INTO answer FROM plimsoll.table_version('{database}', '{table}');
             begun := clock_timestamp();
             FOR i IN 1..{calls} LOOP
                 SELECT * INTO answer FROM plimsoll.table_version('{database}', '{table}');
             END LOOP;
             PERFORM set_config('bench.seconds',
                 (EXTRACT(EPOCH FROM clock_timestamp() - begun) / {calls})::text, false);
         END
         $$"
    ))?;
    Ok(server.query_one("SELECT current_setting('bench.seconds')::float8", &[])?.get(0))
}
