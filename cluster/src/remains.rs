//! Where clusters lie, and what becomes of those that a killed command left.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{Runner, Stage, StopMode, Workspace};

/// How the names of clusters begin that nobody asked to keep.
pub(crate) const TEMPORARY: &str = "temporary-";

/// Stops and removes the clusters that a killed command left, and answers how many there were.
///
/// # Errors
/// When one does not stop.
pub fn sweep(workspace: &Workspace, stage: &Stage, runner: &Runner) -> Result<usize> {
    let mut swept = 0;
    for entry in fs::read_dir(clusters_dir(workspace)?)? {
        let directory = entry?.path();
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with(TEMPORARY) || name.ends_with(LOCK_SUFFIX) {
            continue;
        }
        let Ok(lock) = File::create(lock_path(&directory)) else { continue };
        if lock.try_lock().is_ok() && directory.exists() {
            discard(stage, runner, &directory)?;
            let _ = fs::remove_file(lock_path(&directory));
            swept += 1;
        }
    }
    Ok(swept)
}

const LOCK_SUFFIX: &str = ".lock";

pub(crate) fn lock_path(directory: &Path) -> PathBuf {
    let mut name = directory.as_os_str().to_owned();
    name.push(LOCK_SUFFIX);
    name.into()
}

pub(crate) fn clusters_dir(workspace: &Workspace) -> Result<PathBuf> {
    let directory = workspace.private.join("clusters");
    fs::create_dir_all(&directory)?;
    fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(directory)
}

pub(crate) fn stop(stage: &Stage, runner: &Runner, directory: &Path, mode: StopMode) -> Result<()> {
    let output = runner
        .command(stage.installation.program("pg_ctl"))
        .args(["stop", "--wait", "--timeout=60", "--mode", mode.name(), "--pgdata"])
        .arg(directory.join("data"))
        .stdout(Stdio::null())
        .output()
        .context("cannot run pg_ctl")?;
    if !output.status.success() {
        bail!("the private server does not stop: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Stops what runs in a cluster's directory and removes it.
pub(crate) fn discard(stage: &Stage, runner: &Runner, directory: &Path) -> Result<()> {
    if directory.join("data/postmaster.pid").exists() {
        // A stale file is told from a running server by pg_ctl; only a running one must stop.
        let running = runner
            .command(stage.installation.program("pg_ctl"))
            .args(["status", "--pgdata"])
            .arg(directory.join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if running.success() {
            let stopped = stop(stage, runner, directory, StopMode::Immediate);
            // The watchdog of whoever left it may have been faster, and takes the data away.
            if ["data/postmaster.pid", "data/PG_VERSION"].iter().all(|file| directory.join(file).exists()) {
                stopped?;
            }
        }
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
