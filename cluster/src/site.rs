//! One agent's place for the demo and the benchmarks: a database on a private server with the extension in it,
//! a login role, a registered database, and a directory with the client's configuration.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use postgres::Client;

use crate::Cluster;

/// A prepared database and its agent's directory.
#[derive(Debug)]
pub struct Site<'c> {
    cluster: &'c Cluster,
    client: PathBuf,
    database: &'static str,
    directory: PathBuf,
    password: String,
}

impl<'c> Site<'c> {
    /// The role that owns the managed tables; nobody can log in as it.
    pub const OWNER: &'static str = "shop_owner";

    /// The role that the agent logs in as.
    pub const AGENT: &'static str = "agent";

    /// Makes the database with the extension, the roles and the directory.
    ///
    /// # Errors
    /// When the directory cannot be made anew, or the server has them already.
    pub fn prepare(
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
        superuser.batch_execute(&format!("CREATE ROLE {} NOLOGIN", Self::OWNER))?;
        let password = cluster.create_login(Self::AGENT, &["plimsoll_agent"])?;
        Ok(Site { cluster, client: client.to_owned(), database, directory, password })
    }

    /// A connection as superuser.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn superuser(&self) -> Result<Client> {
        self.cluster.superuser(self.database)
    }

    /// The directory that the client runs in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The client's binary.
    pub fn client_path(&self) -> &Path {
        &self.client
    }

    /// The agent's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The server.
    pub fn cluster(&self) -> &'c Cluster {
        self.cluster
    }

    /// The name of the server's database.
    pub fn database(&self) -> &str {
        self.database
    }

    /// A file in the agent's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The address of the server for the client's configuration, password included.
    pub fn url(&self) -> String {
        format!(
            "postgresql://{}:{}@127.0.0.1:{}/{}",
            Self::AGENT,
            self.password,
            self.cluster.port(),
            self.database
        )
    }

    /// Registers a local database and answers its id and token.
    ///
    /// # Errors
    /// When the client has a database of that name.
    pub fn register(&self, client_id: &str, name: &str) -> Result<(String, String)> {
        let query = "SELECT database_id::text, token FROM plimsoll.register_database($1, $2)";
        let row =
            self.superuser()?.query_one(query, &[&client_id, &name]).context("register_database failed")?;
        Ok((row.get(0), row.get(1)))
    }

    /// Writes a file in the agent's directory that only we can read.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_private(&self, name: &str, content: &str) -> Result<()> {
        let path = self.path(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(content.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The client, in the agent's directory. What our own environment says to Postgres clients stays away.
    pub fn client(&self, arguments: &[&str]) -> Command {
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
