//! Builds the extension and the client.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use plimsoll_cluster::{Installation, Workspace};

use crate::command;

/// `cargo`, in the workspace, set up to compile the extension for one installation.
pub(crate) fn cargo(workspace: &Workspace, installation: &Installation) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&workspace.root).env("PGRX_PG_CONFIG_PATH", &installation.pg_config);
    cargo
}

/// Builds the extension for release; a build that is up to date takes a moment.
pub(crate) fn extension(workspace: &Workspace, installation: &Installation) -> Result<()> {
    command::run(
        cargo(workspace, installation)
            .args(["build", "--release", "--package", "plimsoll", "--no-default-features", "--features"])
            .arg(installation.feature()),
    )
}

/// Builds the client for release, and answers where it is.
pub(crate) fn client(workspace: &Workspace, installation: &Installation) -> Result<PathBuf> {
    command::run(cargo(workspace, installation).args([
        "build",
        "--release",
        "--package",
        "plimsoll-client",
    ]))?;
    Ok(workspace.release_artefact("plimsoll"))
}
