//! `cargo xtask figures`: what README and the docs report, measured on this machine. The first sync of a table
//! is timed against `psql \copy` of the same rows into the same table, in turns, so that both meet the same
//! machine.

mod bookings;
mod report;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use plimsoll_cluster::{Cluster, Options, StopMode};

use crate::site::Site;
use crate::{Machine, build, command};
use report::{Figures, Run};

/// How often a run with nothing to do is timed.
const IDLE_RUNS: usize = 5;

/// How often the client's memory is looked at. The kernel keeps the peak, so only the very end can be missed.
const MEMORY_INTERVAL: Duration = Duration::from_millis(5);

/// Measures, prints the figures and writes them to `target/bench`.
pub(crate) fn run(rows: u64, rounds: usize) -> Result<()> {
    let machine = Machine::set_up()?;
    build::extension(&machine.workspace, &machine.installation)?;
    let client = build::client(&machine.workspace, &machine.installation)?;
    let stage = machine.stage()?;
    let options = Options { durable: true, ..Options::default() };
    let cluster = Cluster::start(&machine.workspace, &stage, &machine.runner, &options)?;
    let directory = machine.workspace.target.join("bench");
    let site = Site::prepare(&cluster, &client, "figures", directory.join("agent"))?;
    println!("Making {rows} rows");
    bookings::create(&site, rows)?;

    // The first load of all makes the files and the log that later ones use again.
    copy(&cluster, &site, rows)?;
    let mut figures = Figures::new(stage.installation.version.clone(), rows);
    for round in 1..=rounds {
        // Whoever goes first may find the machine in another state, so they take turns at that too.
        let (copy, sync) = if round % 2 == 1 {
            let copy = copy(&cluster, &site, rows)?;
            (copy, sync(&site, rows)?)
        } else {
            let sync = sync(&site, rows)?;
            (copy(&cluster, &site, rows)?, sync)
        };
        let stored = stored_seconds(&site)?;
        println!(
            "round {round}: copy {copy:.2} s, first sync {:.2} s, all rows stored after {stored:.2} s",
            sync.seconds
        );
        figures.copies.push(copy);
        figures.stored.push(stored);
        figures.syncs.push(sync);
    }
    sync(&site, rows)?;
    for _ in 0..IDLE_RUNS {
        figures.idle_runs.push(measure(site.client(&["sync", "--json"]))?);
    }
    let verified = Instant::now();
    command::run(site.client(&["verify"]).stdout(Stdio::null())).context("the replica is not level")?;
    figures.verify_seconds = verified.elapsed().as_secs_f64();
    cluster.stop_server(StopMode::Fast)?;
    figures.write(&directory)?;
    println!("\n{}", figures.markdown());
    println!("Written to {} and figures.json", directory.join("figures.md").display());
    Ok(())
}

/// Seconds from the start of the last run with uploads until its last row was stored; what comes after proves
/// that the replica is level.
fn stored_seconds(site: &Site) -> Result<f64> {
    let query = "SELECT EXTRACT(EPOCH FROM max(b.finished_at) - r.started_at)::float8
                   FROM plimsoll.batches b JOIN plimsoll.runs r USING (run_id)
                  WHERE b.kind = 'upload' GROUP BY run_id, r.started_at ORDER BY run_id DESC LIMIT 1";
    Ok(site.superuser()?.query_one(query, &[])?.get(0))
}

/// Empties the table and writes everything out, so that nothing of the last measurement is left to do.
fn reset(site: &Site) -> Result<()> {
    let mut superuser = site.superuser()?;
    superuser.batch_execute(&format!("TRUNCATE {}", bookings::RELATION))?;
    superuser.batch_execute("CHECKPOINT")?;
    Ok(())
}

/// Seconds that `psql \copy` takes for all rows.
fn copy(cluster: &Cluster, site: &Site, rows: u64) -> Result<f64> {
    reset(site)?;
    let statement = bookings::copy_command(&site.path(bookings::CSV));
    let begun = Instant::now();
    command::run(
        cluster
            .command("psql")
            .args([
                "--no-psqlrc",
                "--quiet",
                "--set=ON_ERROR_STOP=1",
                "--dbname",
                site.database(),
                "--command",
            ])
            .arg(statement),
    )?;
    let seconds = begun.elapsed().as_secs_f64();
    expect_rows(site, rows)?;
    Ok(seconds)
}

/// The first sync of a database that was just registered.
fn sync(site: &Site, rows: u64) -> Result<Run> {
    reset(site)?;
    bookings::configure(site)?;
    let run = measure(site.client(&["sync", "--json"]))?;
    expect_rows(site, rows)?;
    Ok(run)
}

fn expect_rows(site: &Site, rows: u64) -> Result<()> {
    let query = format!("SELECT count(*) FROM {}", bookings::RELATION);
    let found: i64 = site.superuser()?.query_one(&query, &[])?.get(0);
    if found != i64::try_from(rows)? {
        bail!("{found} of {rows} rows arrived: the figure would be wrong");
    }
    Ok(())
}

/// Runs the client to its end; its time and peak memory.
fn measure(mut command: Command) -> Result<Run> {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn().context("cannot run the client")?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak_kib = peak_kib.max(peak_memory(Path::new(&status_file)).unwrap_or(0));
        std::thread::sleep(MEMORY_INTERVAL);
    };
    if !status.success() {
        bail!("the client failed ({status})");
    }
    Ok(Run { seconds: begun.elapsed().as_secs_f64(), peak_kib })
}

/// The most memory that a process had so far, in KiB.
fn peak_memory(status_file: &Path) -> Option<u64> {
    let text = fs::read_to_string(status_file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
