//! `cargo xtask bench`: builds everything for release and measures.

use std::process::ExitCode;

use anyhow::{Context, Result};
use plimsoll_cluster::{Installation, Runner, Workspace};

use crate::{build, setup};

/// Arguments that only ask for a list.
const QUESTIONS: &[&str] = &["--help", "-h", "--list"];

/// Builds, and runs the benchmarks with these arguments.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    let workspace = Workspace::find(&Runner::current()?)?;
    if !arguments.iter().any(|argument| QUESTIONS.contains(&argument.as_str())) {
        let installation = setup::run_with(setup::BENCH)?;
        if arguments.iter().any(|argument| argument == "--peers")
            && let Err(error) = setup::run_with(setup::PEERS)
        {
            // The benchmarks say which tools they went without.
            println!("Not every other tool can be had: {error:#}");
        }
        build::extension(&workspace, &installation)?;
        build::client(&workspace, &installation)?;
    }
    let status = build::cargo(&workspace, &Installation::find()?)
        .args(["run", "--quiet", "--release", "--package", "plimsoll-bench", "--"])
        .args(arguments)
        .status()
        .context("cannot run cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
