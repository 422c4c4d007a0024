//! The command: from its arguments to its exit code.

use std::process::ExitCode;

use clap::Parser;
use plimsoll_core::store::Outcome;
use tracing_subscriber::EnvFilter;

use crate::agent::{self, RunOptions};
use crate::cli::{Cli, Command, ConflictsCommand};
use crate::config::Config;
use crate::progress::Progress;
use crate::stop::Stop;
use crate::{conflicts, init, report, schema_sql};

/// It could not be done at all.
const NOT_DONE: u8 = 2;

/// What the command `plimsoll` does: reads its arguments, does what they say, answers its exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter =
        EnvFilter::try_from_env("PLIMSOLL_LOG").unwrap_or_else(|_| EnvFilter::new("plimsoll_client=warn"));
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
                take_over: arguments.take_over,
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
            let mut config = load()?;
            if arguments.read_rows {
                config.source.use_manifests = Some(false);
            }
            let stop = Stop::listen()?;
            let verdict = agent::verify(&config, &arguments.tables, arguments.limit, &stop, &mut progress)?;
            report::print_verdict(&verdict, arguments.json);
            Ok(verdict.exit_code())
        }
        Command::Conflicts(arguments) => {
            let command = arguments.command.unwrap_or(ConflictsCommand::List { all: false });
            conflicts::conflicts(&load()?, &command, arguments.json).map(|()| 0)
        }
        Command::Status(arguments) => {
            let status = agent::status(&load()?)?;
            status.print(arguments.json);
            Ok(if status.failure.is_some() { NOT_DONE } else { 0 })
        }
    }
}
