//! The agent's side of the demo: its configuration, the managed tables made from its `schema`, and what its
//! answers say.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use plimsoll_cluster::Site;
use serde::Deserialize;

use super::material::Pair;

/// The part of the client's configuration that says which table goes where.
#[derive(Deserialize)]
struct Configured {
    #[serde(default)]
    table: Vec<ConfiguredTable>,
}

#[derive(Deserialize)]
struct ConfiguredTable {
    name: String,
    remote: Option<String>,
}

/// Registers the database and lets the client write its configuration; answers the database's id.
pub(super) fn configure(site: &Site<'_>, sqlite: &Path, client_id: &str, schema: &str) -> Result<String> {
    let (id, token) = site.register(client_id, "till")?;
    let mut init = site.client(&["init", "--token-file", "token", "--schema", schema]);
    init.arg("--source").arg(sqlite).args(["--server", &site.url(), "--database-id", &id]);
    run(init.env("PLIMSOLL_TOKEN", token).stdin(Stdio::null()))?;
    Ok(id)
}

/// Makes the managed tables as a DBA would, and answers which local table goes into which.
pub(super) fn create_tables(site: &Site<'_>, schema: &str) -> Result<Vec<Pair>> {
    let sql = run(&mut site.client(&["schema", "--owner", Site::OWNER, "--schema", schema]))?;
    std::fs::write(site.path("schema.sql"), &sql)?;
    let mut server = site.superuser()?;
    server.batch_execute(&format!("CREATE SCHEMA {schema} AUTHORIZATION {}", Site::OWNER))?;
    server.batch_execute(&sql).context("the SQL of `plimsoll schema` failed")?;
    let configured: Configured = toml::from_str(&std::fs::read_to_string(site.path("plimsoll.toml"))?)?;
    let mut pairs = Vec::new();
    for row in
        server.query("SELECT relation::text, version_column::text FROM plimsoll.tables ORDER BY 1", &[])?
    {
        let (remote, version): (String, Option<String>) = (row.get(0), row.get(1));
        let goes_there = |table: &&ConfiguredTable| match &table.remote {
            Some(wanted) => *wanted == plain(&remote),
            None => plain(&remote).split_once('.').is_some_and(|(_, name)| name == table.name),
        };
        if let Some(table) = configured.table.iter().find(goes_there) {
            pairs.push(Pair { local: table.name.clone(), remote, version });
        }
    }
    if pairs.is_empty() {
        bail!("no local table has a managed table");
    }
    Ok(pairs)
}

/// A quoted name as the client's configuration writes it.
fn plain(relation: &str) -> String {
    relation.replace('"', "")
}

/// Runs the client and answers what it printed. The command is not shown: it may hold a password.
fn run(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run the client")?;
    if !output.status.success() {
        bail!("the client failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}
