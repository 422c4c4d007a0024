//! What README calls: the demo, the tests, a private server to try things on, the installation, the benchmarks.

mod bench;
mod build;
mod command;
mod count;
mod demo;
mod pgspot;
mod python;
mod scratch;
mod server;
mod setup;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use plimsoll_cluster::{Installation, Runner, Stage, Workspace, install};
use suite::Servers;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Demo, tests, installation and benchmarks of Plimsoll"
)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine to build and test, and say what and why
    Setup,
    /// Formatting, lints and every test, against private servers
    Test {
        /// Against a server of this major, 14 to 18, instead of the machine's; one that the machine does not have is
        /// fetched once
        #[arg(long, value_name = "MAJOR", conflicts_with = "all_pg", value_parser = supported_major)]
        pg: Option<u32>,
        /// Against a server of every major, one after the other
        #[arg(long)]
        all_pg: bool,
        /// Nothing but this file of tests against servers, such as `uploads`; may be given again
        #[arg(long = "test", value_name = "NAME")]
        files: Vec<String>,
    },
    /// Only the check of the SQL scripts by pgspot, which is a part of the tests
    Pgspot,
    /// Build the extension and put it into a server's directories
    Install {
        /// The pg_config of the server to install into
        #[arg(long, value_name = "PATH")]
        pg_config: Option<PathBuf>,
    },
    /// Watch a local database being replicated, changed, damaged and made level again
    Demo {
        /// A SQLite database to do it with, of which a copy is used; without it a small shop's
        sqlite_file: Option<PathBuf>,
        /// Stop the server that the last demo left running, and remove its data
        #[arg(long, conflicts_with = "sqlite_file")]
        stop: bool,
    },
    /// Measure everything against its baselines; `--help` after it names the options
    #[command(disable_help_flag = true)]
    Bench {
        /// What the benchmarks are told
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        arguments: Vec<String>,
    },
    /// Start a private server with the extension, and leave it running
    Cluster {
        /// Stop it and remove its data
        #[arg(long)]
        stop: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => {
            setup::run_with(setup::TEST)?;
        }
        Task::Test { pg, all_pg, files } => {
            let one = pg.map_or(Servers::Machine, Servers::Major);
            return suite::run(if all_pg { Servers::All } else { one }, &files);
        }
        Task::Pgspot => {
            let workspace = Machine::set_up_with(setup::TEST)?.workspace;
            pgspot::run(&workspace.root, &workspace.target)?;
        }
        Task::Install { pg_config } => install_into(pg_config)?,
        Task::Demo { stop: true, .. } => demo::stop()?,
        Task::Demo { sqlite_file, stop: false } => demo::run(sqlite_file.as_deref())?,
        Task::Bench { arguments } => return bench::run(&arguments),
        Task::Cluster { stop: true } => scratch::stop()?,
        Task::Cluster { stop: false } => scratch::start()?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A major that the extension is compiled for.
fn supported_major(text: &str) -> Result<u32, String> {
    let (first, last) = Installation::SUPPORTED.into_inner();
    let major = text.parse().ok().filter(|major| Installation::SUPPORTED.contains(major));
    major.ok_or_else(|| format!("one of {first} to {last} is expected"))
}

/// Everything a task needs of the machine: the server to build for, who runs private ones, and where.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) installation: Installation,
    pub(crate) runner: Runner,
    pub(crate) workspace: Workspace,
}

impl Machine {
    /// Installs what is missing and looks at the rest.
    pub(crate) fn set_up() -> Result<Self> {
        Self::set_up_with(&[])
    }

    /// The same, with further programs.
    pub(crate) fn set_up_with(programs: &[setup::Program]) -> Result<Self> {
        let installation = setup::run_with(programs)?;
        let runner = Runner::current()?;
        let workspace = Workspace::find(&runner)?;
        if workspace.is_outside() {
            println!(
                "The user {} cannot reach {}: private servers go to {}",
                runner.name(),
                workspace.target.display(),
                workspace.private.display()
            );
        }
        Ok(Machine { installation, runner, workspace })
    }

    /// A staged server with the release build of the extension in it.
    pub(crate) fn stage(&self) -> Result<Stage> {
        let stage = Stage::prepare(&self.workspace, &self.installation)?;
        install(&self.workspace, &stage.installation)?;
        plimsoll_cluster::sweep(&self.workspace, &stage, &self.runner)?;
        Ok(stage)
    }
}

fn install_into(pg_config: Option<PathBuf>) -> Result<()> {
    let target = match pg_config {
        Some(path) => Installation::from_pg_config(&path)?,
        None => Installation::find()?,
    };
    let workspace = Workspace::find(&Runner::current()?)?;
    build::extension(&workspace, &target)?;
    for file in install(&workspace, &target)? {
        println!("{}", file.display());
    }
    println!(
        "Installed into {}. In each database, as a superuser: CREATE EXTENSION plimsoll;",
        target.version
    );
    Ok(())
}
