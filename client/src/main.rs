//! `plimsoll`: keeps the replicas of one local database level with it, and proves it.
//!
//! | room | what lives there |
//! |---|---|
//! | `cli`, `config` | what the user says |
//! | `init`, `schema_sql`, `discover` | help to begin: the configuration, the managed tables' SQL |
//! | `agent` | runs and comparisons |
//! | `source` | the local side |
//! | `server` | the remote side |
//! | `names` | names of Postgres' tables |
//! | `state`, `stop` | what is remembered between runs, and the wish to end |
//! | `fault` | where tests end the process |
//! | `progress`, `report` | what the user sees |

/// Prints a line on standard output. Who closed it does not want it: that is no reason to end.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The same on standard error.
macro_rules! errln {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod agent;
mod cli;
mod config;
mod discover;
mod failure;
mod fault;
mod init;
mod names;
mod progress;
mod report;
mod schema_sql;
mod server;
mod source;
mod state;
mod stop;

use std::process::ExitCode;

use clap::Parser;
use plimsoll_core::store::Outcome;
use tracing_subscriber::EnvFilter;

use agent::RunOptions;
use cli::{Cli, Command};
use config::Config;
use progress::Progress;
use stop::Stop;

/// It could not be done at all.
const NOT_DONE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_env("PLIMSOLL_LOG").unwrap_or_else(|_| EnvFilter::new("plimsoll=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .without_time()
        .init();
    let as_json = cli.command.json();
    match perform(cli) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            if as_json {
                outln!("{}", report::failure_json(&failure));
            }
            report::print_failure(&failure);
            ExitCode::from(NOT_DONE)
        }
    }
}

fn perform(cli: Cli) -> Outcome<u8> {
    let mut progress = Progress::new(cli.quiet);
    let load = || Config::load(&cli.config);
    match cli.command {
        Command::Init(arguments) => init::init(&cli.config, &arguments).map(|()| 0),
        Command::Schema(arguments) => {
            let config = match &arguments.source {
                None => Some(load()?),
                Some(_) => None,
            };
            outln!("{}", schema_sql::schema_sql(config.as_ref(), &arguments)?.trim_end());
            Ok(0)
        }
        Command::Sync(arguments) => {
            let config = load()?;
            let stop = Stop::listen()?;
            let options = RunOptions {
                tables: arguments.tables,
                dry_run: arguments.dry_run,
                allow_mass_delete: arguments.allow_mass_delete,
                interval: None,
            };
            let mut server = agent::server_of(&config)?;
            let mut state = agent::open_state(&config)?;
            let result = agent::run_once(&config, &mut server, &mut state, &options, &stop, &mut progress)?;
            report::print_run(&result, arguments.json);
            Ok(u8::from(result.is_troubled()))
        }
        Command::Run(arguments) => {
            let config = load()?;
            let stop = Stop::listen()?;
            let options = RunOptions {
                tables: arguments.tables,
                allow_mass_delete: arguments.allow_mass_delete,
                ..RunOptions::default()
            };
            let as_json = arguments.json;
            let mut show = |outcome: Outcome<agent::RunResult>| match outcome {
                Ok(result) => report::print_run(&result, as_json),
                Err(failure) => {
                    if as_json {
                        outln!("{}", report::failure_json(&failure));
                    }
                    report::print_failure(&failure);
                }
            };
            agent::keep_running(&config, &options, arguments.every, &stop, &mut progress, &mut show)?;
            Ok(0)
        }
        Command::Verify(arguments) => {
            let config = load()?;
            let stop = Stop::listen()?;
            let verdict = agent::verify(&config, &arguments.tables, arguments.limit, &stop, &mut progress)?;
            report::print_verdict(&verdict, arguments.json);
            Ok(verdict.exit_code())
        }
        Command::Status(arguments) => {
            let status = agent::status(&load()?)?;
            status.print(arguments.json);
            Ok(if status.failure.is_some() { NOT_DONE } else { 0 })
        }
    }
}
