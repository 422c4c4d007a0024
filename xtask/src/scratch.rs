//! `cargo xtask cluster`: a private server to try things on.

use anyhow::Result;
use plimsoll_cluster::{Cluster, Options, Stage};

use crate::{Machine, build};

const NAME: &str = "scratch";

/// Starts the server anew and leaves it running.
pub(crate) fn start() -> Result<()> {
    let machine = Machine::set_up()?;
    build::extension(&machine.workspace, &machine.installation)?;
    let stage = machine.stage()?;
    let options = Options { name: Some(NAME.to_owned()), ..Options::default() };
    let cluster = Cluster::start(&machine.workspace, &stage, &machine.runner, &options)?;
    println!(
        "{} listens on 127.0.0.1:{}.\n\n  {} -h {} -p {} -U {} postgres\n  cargo xtask cluster --stop",
        stage.installation.version,
        cluster.port(),
        stage.installation.program("psql").display(),
        cluster.socket_dir().display(),
        cluster.port(),
        Cluster::SUPERUSER,
    );
    cluster.keep()
}

/// Stops the server and removes its data.
pub(crate) fn stop() -> Result<()> {
    let machine = Machine::set_up()?;
    let stage = Stage::prepare(&machine.workspace, &machine.installation)?;
    let stopped = Cluster::stop_named(&machine.workspace, &stage, &machine.runner, NAME)?;
    println!("{}", if stopped { "Stopped." } else { "No private server was running." });
    Ok(())
}
