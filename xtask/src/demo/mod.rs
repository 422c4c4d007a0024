//! `cargo xtask demo`: a local database is replicated, changed, damaged and made level again, in front of the
//! reader's eyes, on a private server that stays up to go on with.

mod agent;
mod answer;
mod copy;
mod material;
mod shop;
mod words;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use plimsoll_cluster::{Cluster, Options, Site, Stage};

use crate::{Machine, build};
use answer::{Answer, ask};
use copy::Copy;
use material::Material;
use shop::Shop;

/// The private cluster's name.
const CLUSTER: &str = "demo";

/// The server's database.
const DATABASE: &str = "headquarters";

/// The client's id.
const CLIENT: &str = "acme";

/// The schema of the managed tables.
const SCHEMA: &str = "shop";

/// How often a sync may be needed until everything is level; a window of each table is compared per run.
const SYNCS: usize = 10;

/// Plays the demo with the shop, or with a copy of a SQLite database.
pub(crate) fn run(file: Option<&Path>) -> Result<()> {
    file.map_or(Ok(()), Copy::check)?;
    let machine = Machine::set_up()?;
    println!("Building the extension and the client");
    build::extension(&machine.workspace, &machine.installation)?;
    let client = build::client(&machine.workspace, &machine.installation)?;
    let stage = machine.stage()?;
    if Cluster::stop_named(&machine.workspace, &stage, &machine.runner, CLUSTER)? {
        println!("The last demo's server was stopped and its data removed");
    }
    let begun = Instant::now();
    let options = Options { name: Some(CLUSTER.to_owned()), durable: true, ..Options::default() };
    let cluster = Cluster::start(&machine.workspace, &stage, &machine.runner, &options)?;
    let directory = machine.workspace.target.join("demo");
    let site = Site::prepare(&cluster, &client, DATABASE, directory)?;
    let mut material: Box<dyn Material> = match file {
        Some(file) => Box::new(Copy::make(file, site.path("copy.sqlite"))?),
        None => Box::new(Shop::make(site.path("shop.sqlite"))?),
    };
    let mut story = Story { site: &site, step: 0 };
    story.play(material.as_mut(), &cluster)?;
    println!("\nThe demo took {:.0} s. Go on with:\n", begun.elapsed().as_secs_f64());
    print_commands(&site, &cluster, material.path());
    cluster.keep()
}

/// Stops the server that a demo left running.
pub(crate) fn stop() -> Result<()> {
    let machine = Machine::set_up()?;
    let stage = Stage::prepare(&machine.workspace, &machine.installation)?;
    let stopped = Cluster::stop_named(&machine.workspace, &stage, &machine.runner, CLUSTER)?;
    println!("{}", if stopped { "The demo's server is stopped." } else { "No demo's server was running." });
    Ok(())
}

/// The demo, step by step.
struct Story<'s, 'c> {
    site: &'s Site<'c>,
    step: u32,
}

impl Story<'_, '_> {
    fn play(&mut self, material: &mut dyn Material, cluster: &Cluster) -> Result<()> {
        self.head(&format!("The local database: {}", material.title()));
        say(&format!("{}", material.path().display()));

        self.head("The server");
        let mut server = self.site.superuser()?;
        say(&format!("{} on 127.0.0.1:{}", cluster.stage().installation.version, cluster.port()));
        let id = agent::configure(self.site, material.path(), CLIENT, SCHEMA)?;
        say(&format!("CREATE EXTENSION plimsoll; the database of client {CLIENT} is registered as {id}"));
        let pairs = agent::create_tables(self.site, SCHEMA)?;
        let names: Vec<&str> = pairs.iter().map(|pair| pair.remote.as_str()).collect();
        say(&format!(
            "Tables made from `plimsoll schema`, owned by a role without login: {}",
            names.join(", ")
        ));
        say(&material.add_rule(&mut server, &pairs)?);

        self.head("First sync");
        let first = ask(self.site, &["sync", "--json"], &[0])?;
        say(&first.moved());

        self.head("Changes in the local database");
        say(&material.change()?);
        let changed = self.sync()?;
        say(&changed.moved());

        self.head("Damage behind the server's back");
        say(&material.damage(&mut server)?);
        if self.verify()?.code == 0 {
            bail!("plimsoll verify did not find the damage");
        }
        self.repair()?;

        self.head("A row that Postgres must refuse");
        say(&material.add_refused()?);
        let refused = self.sync()?;
        say(&format!("{}; {} rejected, the rest went on", refused.moved(), refused.sum("rejected")));
        let query = "SELECT relation || ' ' || key::text || ': ' || message FROM plimsoll.rejected_rows";
        for row in server.query(query, &[])? {
            say(&format!("plimsoll.rejected_rows: {}", row.get::<_, String>(0)));
        }

        self.head("Nothing to do");
        let idle = self.sync()?;
        say(&idle.moved());

        self.head("Status");
        self.status()
    }

    fn head(&mut self, title: &str) {
        self.step += 1;
        println!("\n{}. {title}", self.step);
    }

    /// One run without a display of its progress: there is little to move.
    fn sync(&self) -> Result<Answer> {
        ask(self.site, &["sync", "--json", "--quiet"], &[0])
    }

    /// Runs until both sides are equal.
    fn repair(&self) -> Result<()> {
        for _ in 0..SYNCS {
            let answer = self.sync()?;
            let (missing, excess) = (answer.sum("found_missing"), answer.sum("found_excess"));
            say(&format!(
                "{}; found by comparing: {missing} missing or altered, {excess} in excess",
                answer.moved()
            ));
            if self.verify()?.code == 0 {
                return Ok(());
            }
        }
        bail!("still not level after {SYNCS} runs")
    }

    /// Compares both sides completely.
    fn verify(&self) -> Result<Answer> {
        let answer = ask(self.site, &["verify", "--json", "--quiet"], &[0, 1])?;
        let [rows, missing, altered, excess] =
            ["rows", "missing", "altered", "excess"].map(|field| answer.sum(field));
        say(&match answer.code {
            0 => format!("plimsoll verify: level, {rows} rows compared"),
            _ => format!(
                "plimsoll verify: not level; {missing} rows missing, {altered} altered, {excess} in excess"
            ),
        });
        Ok(answer)
    }

    fn status(&self) -> Result<()> {
        let status =
            self.site.client(&["status"]).stdin(Stdio::null()).status().context("cannot run the client")?;
        if !status.success() {
            bail!("plimsoll status failed ({status})");
        }
        Ok(())
    }
}

fn say(line: &str) {
    println!("   {line}");
}

fn print_commands(site: &Site<'_>, cluster: &Cluster, sqlite: &Path) {
    let psql: PathBuf = cluster.stage().installation.program("psql");
    println!("  cd {}", site.directory().display());
    println!("  {} status", site.client_path().display());
    println!("  {} sync       # after changing {}", site.client_path().display(), sqlite.display());
    println!("  {} verify", site.client_path().display());
    println!(
        "  {} -h {} -p {} -U {} {} -c 'SELECT * FROM plimsoll.replicas'",
        psql.display(),
        cluster.socket_dir().display(),
        cluster.port(),
        Cluster::SUPERUSER,
        site.database()
    );
    println!("  cargo xtask demo --stop");
}
