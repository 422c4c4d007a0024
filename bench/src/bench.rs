//! What every case needs: a private server with the extension, an agent's place, and how much to measure.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use plimsoll_cluster::{Cluster, Installation, Options, Runner, Site, Stage, Workspace, install};
use postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::case::{self, Case};
use crate::pair::{self, Pair};
use crate::progress::Progress;
use crate::report::{CaseReport, Report};
use crate::scale::Scale;

/// The database on the server that plays the shared one.
pub const SHARED: &str = "shared";

/// The database that plays the local side where that is Postgres, too.
pub const LOCAL: &str = "local";

/// A running server and how much is measured on it.
pub struct Bench<'c> {
    /// The server, its shared database and the agent's directory.
    pub site: &'c Site<'c>,
    /// How much.
    pub scale: Scale,
    /// What the user sees.
    pub progress: Progress,
    pair: RefCell<Option<Pair>>,
    /// Where things are kept that later runs use again.
    pub cache: PathBuf,
}

impl Bench<'_> {
    /// A connection to the shared database as superuser, over the socket file.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn shared(&self) -> Result<Client> {
        self.site.superuser()
    }

    /// A connection to the local side's database as superuser; it is made, with the extension, when it is not
    /// there.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn local(&self) -> Result<Client> {
        if let Some(local) = self.local_if_made()? {
            return Ok(local);
        }
        let cluster = self.site.cluster();
        cluster.superuser("postgres")?.batch_execute(&format!("CREATE DATABASE {LOCAL}"))?;
        let mut local = cluster.superuser(LOCAL)?;
        // The group roles have members by now: those of the shared database.
        local.batch_execute("SET plimsoll.adopt_roles = on; CREATE EXTENSION plimsoll")?;
        local.batch_execute(&format!("CREATE SCHEMA bench AUTHORIZATION {}", Site::OWNER))?;
        Ok(local)
    }

    /// The same, where a case made it already.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn local_if_made(&self) -> Result<Option<Client>> {
        let cluster = self.site.cluster();
        let query = "SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)";
        let made: bool = cluster.superuser("postgres")?.query_one(query, &[&LOCAL])?.get(0);
        made.then(|| cluster.superuser(LOCAL)).transpose()
    }

    /// A connection as the agent over TCP, through whatever listens on `port`.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn agent(&self, port: u16) -> Result<Client> {
        let mut config = Config::new();
        config.host("127.0.0.1").port(port).user(Site::AGENT).password(self.site.password()).dbname(SHARED);
        config.connect(NoTls).context("the agent cannot connect")
    }

    /// The address at which the agent reaches a database, password included.
    pub fn url(&self, database: &str) -> String {
        self.url_at(database, self.site.cluster().port())
    }

    /// The same through whatever listens on `port`.
    pub fn url_at(&self, database: &str, port: u16) -> String {
        format!("postgresql://{}:{}@127.0.0.1:{port}/{database}", Site::AGENT, self.site.password())
    }

    /// Registers a database that the agent's role may use without a token.
    ///
    /// # Errors
    /// When the client has a database of that name.
    pub fn register(&self, name: &str) -> Result<Uuid> {
        let (id, _) = self.site.register("bench", name)?;
        let id = Uuid::parse_str(&id)?;
        grant(&mut self.shared()?, &id)?;
        Ok(id)
    }

    /// Two kept sides with the same rows, made when they are first asked for.
    ///
    /// # Errors
    /// When a server refuses them.
    pub fn pair(&self, report: &mut CaseReport) -> Result<Pair> {
        let mut known = self.pair.borrow_mut();
        let pair = match known.take() {
            Some(pair) => pair,
            None => Pair::make(self)?,
        };
        *known = Some(pair.clone());
        pair.described.iter().for_each(|what| report.on(what));
        Ok(pair)
    }

    /// Writes everything out, so that nothing of what was done before is left to do.
    ///
    /// # Errors
    /// When the server does not.
    pub fn settle(&self) -> Result<()> {
        Ok(self.shared()?.batch_execute("CHECKPOINT")?)
    }
}

/// Lets the agent's role use a database without a token.
///
/// # Errors
/// When the server does not know the database.
pub fn grant(server: &mut Client, database: &Uuid) -> Result<()> {
    server.execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[database, &Site::AGENT])?;
    Ok(())
}

/// Starts a server and measures the cases on it. The extension and the client must be built for release.
///
/// # Errors
/// When the server does not come up. A case that fails says so in its report.
pub fn run(scale: Scale, cases: &[Case], progress: Progress, directory: &Path) -> Result<Report> {
    let runner = Runner::current()?;
    let workspace = Workspace::find(&runner)?;
    let stage = Stage::prepare(&workspace, &Installation::find()?)?;
    install(&workspace, &stage.installation)?;
    let options = Options { durable: scale.durable, ..Options::default() };
    let cluster = Cluster::start(&workspace, &stage, &runner, &options)?;
    let client = workspace.release_artefact("plimsoll");
    let site = Site::prepare(&cluster, &client, SHARED, directory.join("agent"))?;
    // The agent is also who copies into tables that are not managed.
    site.superuser()?.batch_execute(&format!(
        "CREATE SCHEMA bench AUTHORIZATION {}; GRANT USAGE ON SCHEMA bench TO {}",
        Site::OWNER,
        Site::AGENT
    ))?;
    let mut report = Report {
        server: stage.installation.version.clone(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_gib: memory_gib(),
        durable: scale.durable,
        rounds: scale.rounds,
        cases: Vec::new(),
    };
    let cache = workspace.target.join("bench");
    let bench = Bench { site: &site, scale, progress, pair: RefCell::new(None), cache };
    for case in cases {
        bench.progress.say(&format!("{}: {}", case.name, case.title));
        let mut found = CaseReport::new(case.name, case.title);
        if let Err(error) = (case.measure)(&bench, &mut found) {
            found.failure = Some(format!("{error:#}"));
            // Whatever it left behind is not for the next one.
            bench.pair.take();
        }
        bench.progress.say(&found.text());
        let kept: &[&str] = if bench.pair.borrow().is_some() { &[pair::SHARED, pair::LOCAL] } else { &[] };
        case::clear(&bench, kept)?;
        report.cases.push(found);
    }
    bench.progress.finish();
    Ok(report)
}

/// The machine's memory.
fn memory_gib() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / f64::from(1 << 20))
}
