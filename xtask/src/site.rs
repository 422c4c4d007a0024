//! One agent's place for the demo and the figures: a database on a private server with the extension in it,
//! a login role, a registered database, and a directory with the client's configuration.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use plimsoll_cluster::Cluster;
use plimsoll_cluster::postgres::Client;
use serde_json::Value as Json;

/// The role that owns the managed tables; nobody can log in as it.
pub(crate) const OWNER: &str = "shop_owner";

/// The role that the agent logs in as.
const AGENT: &str = "agent";

/// A prepared database and its agent's directory.
pub(crate) struct Site<'c> {
    cluster: &'c Cluster,
    client: PathBuf,
    database: &'static str,
    directory: PathBuf,
    password: String,
}

impl<'c> Site<'c> {
    /// Makes the database with the extension, the roles and the directory.
    pub(crate) fn prepare(
        cluster: &'c Cluster,
        client: &Path,
        database: &'static str,
        directory: PathBuf,
    ) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        // The client's configuration holds a password here.
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        cluster.superuser("postgres")?.batch_execute(&format!("CREATE DATABASE {database}"))?;
        let mut superuser = cluster.superuser(database)?;
        superuser.batch_execute("CREATE EXTENSION plimsoll")?;
        superuser.batch_execute(&format!("CREATE ROLE {OWNER} NOLOGIN"))?;
        let password = cluster.create_login(AGENT, &["plimsoll_agent"])?;
        Ok(Site { cluster, client: client.to_owned(), database, directory, password })
    }

    /// A connection as superuser.
    pub(crate) fn superuser(&self) -> Result<Client> {
        self.cluster.superuser(self.database)
    }

    /// The directory that the client runs in.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The client's binary.
    pub(crate) fn client_path(&self) -> &Path {
        &self.client
    }

    /// The name of the server's database.
    pub(crate) fn database(&self) -> &str {
        self.database
    }

    /// A file in the agent's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The address of the server for the client's configuration, password included.
    pub(crate) fn url(&self) -> String {
        format!("postgresql://{AGENT}:{}@127.0.0.1:{}/{}", self.password, self.cluster.port(), self.database)
    }

    /// Registers a local database and answers its id and token.
    pub(crate) fn register(&self, client_id: &str, name: &str) -> Result<(String, String)> {
        let query = "SELECT database_id::text, token FROM plimsoll.register_database($1, $2)";
        let row =
            self.superuser()?.query_one(query, &[&client_id, &name]).context("register_database failed")?;
        Ok((row.get(0), row.get(1)))
    }

    /// Writes a file in the agent's directory that only we can read.
    pub(crate) fn write_private(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The client, in the agent's directory. What our own environment says to Postgres clients stays away.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command.current_dir(&self.directory).args(arguments);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("PLIMSOLL") {
                command.env_remove(&name);
            }
        }
        command
    }
}

impl Site<'_> {
    /// Runs a command of the client that answers JSON; its progress is shown.
    pub(crate) fn ask(&self, arguments: &[&str], codes: &[i32]) -> Result<Answer> {
        let output = self
            .client(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot run {}", self.client.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let code = output.status.code().unwrap_or(-1);
        if !codes.contains(&code) {
            bail!("plimsoll {} failed ({}): {}", arguments.join(" "), output.status, text.trim());
        }
        let json = serde_json::from_str(&text)
            .with_context(|| format!("plimsoll {} answers no JSON", arguments.join(" ")))?;
        Ok(Answer { json, code })
    }
}

/// What the client answered.
pub(crate) struct Answer {
    json: Json,
    /// Its exit code.
    pub(crate) code: i32,
}

impl Answer {
    /// A count, summed over the tables.
    pub(crate) fn sum(&self, field: &str) -> u64 {
        self.tables().filter_map(|table| table[field].as_u64()).sum()
    }

    /// How long the run took, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        self.json["seconds"].as_f64().unwrap_or(0.0)
    }

    /// What a run moved, for people.
    pub(crate) fn moved(&self) -> String {
        let [new, changed, deleted] = ["inserted", "updated", "deleted"].map(|field| self.sum(field));
        let seconds = self.seconds();
        if new + changed + deleted == 0 {
            return format!(
                "plimsoll sync: nothing to move, {} rows compared, {seconds:.2} s",
                self.sum("compared_rows")
            );
        }
        format!("plimsoll sync: {new} rows inserted, {changed} updated, {deleted} deleted, {seconds:.2} s")
    }

    fn tables(&self) -> impl Iterator<Item = &Json> {
        self.json["tables"].as_array().into_iter().flatten()
    }
}
