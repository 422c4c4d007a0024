//! What the client answers in JSON.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use plimsoll_cluster::Site;
use serde_json::Value as Json;

/// Runs a command of the client that answers JSON; its progress is shown.
pub(super) fn ask(site: &Site<'_>, arguments: &[&str], codes: &[i32]) -> Result<Answer> {
    let output = site
        .client(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", site.client_path().display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code().unwrap_or(-1);
    if !codes.contains(&code) {
        bail!("plimsoll {} failed ({}): {}", arguments.join(" "), output.status, text.trim());
    }
    let json = serde_json::from_str(&text)
        .with_context(|| format!("plimsoll {} answers no JSON", arguments.join(" ")))?;
    Ok(Answer { json, code })
}

/// What the client answered.
pub(super) struct Answer {
    json: Json,
    /// Its exit code.
    pub(super) code: i32,
}

impl Answer {
    /// A count, summed over the tables.
    pub(super) fn sum(&self, field: &str) -> u64 {
        self.tables().filter_map(|table| table[field].as_u64()).sum()
    }

    /// How long the run took, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.json["seconds"].as_f64().unwrap_or(0.0)
    }

    /// What a run moved, for people.
    pub(super) fn moved(&self) -> String {
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
