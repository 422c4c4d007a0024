//! `cargo xtask bench` runs this with the extension and the client built for release.

use std::fs;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use plimsoll_bench::bench;
use plimsoll_bench::case::{CASES, Case, PEERS};
use plimsoll_bench::progress::Progress;
use plimsoll_bench::scale::Scale;
use plimsoll_cluster::{Runner, Workspace};

#[derive(Parser)]
#[command(name = "cargo xtask bench", about = "Measures Plimsoll against its baselines, in turns")]
struct Arguments {
    /// Ten million rows instead of one, and longer measurements
    #[arg(long)]
    full: bool,
    /// Also measure other tools, where the registries have them
    #[arg(long)]
    peers: bool,
    /// Only these cases; a case is found by the beginning of its name
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// How often each contestant is measured
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Rows of the tables that are compared and replicated
    #[arg(long, value_name = "N")]
    rows: Option<u64>,
    /// List the cases
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode> {
    if arguments.list {
        CASES.iter().chain([&PEERS]).for_each(|case| println!("{:<14} {}", case.name, case.title));
        return Ok(ExitCode::SUCCESS);
    }
    let mut scale = if arguments.full { Scale::full() } else { Scale::quick() };
    if let Some(rounds) = arguments.rounds {
        scale.rounds = rounds.max(1);
    }
    scale.rows = arguments.rows.unwrap_or(scale.rows).max(scale.few_rows);
    let directory = Workspace::find(&Runner::current()?)?.target.join("bench");
    fs::create_dir_all(&directory)?;
    let report = bench::run(scale, &chosen(arguments)?, Progress::new(), &directory)?;
    report.write(&directory)?;
    println!("{}", report.summary());
    println!("Written to {} and bench.json", directory.join("bench.md").display());
    let failed = report.cases.iter().any(|case| case.failure.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The cases that were asked for, in their order.
fn chosen(arguments: &Arguments) -> Result<Vec<Case>> {
    let all: Vec<Case> = CASES.iter().chain(arguments.peers.then_some(&PEERS)).copied().collect();
    if arguments.only.is_empty() {
        return Ok(all);
    }
    for name in &arguments.only {
        if !all.iter().any(|case| case.name.starts_with(name.as_str())) {
            bail!("no case begins with {name}: `cargo xtask bench --list` names them all");
        }
    }
    let wanted = |case: &Case| arguments.only.iter().any(|name| case.name.starts_with(name.as_str()));
    Ok(all.into_iter().filter(wanted).collect())
}
