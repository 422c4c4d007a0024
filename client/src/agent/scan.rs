//! Reads local tables whole and makes every row's digest: what any comparison with a source that keeps no
//! manifest costs at least. For measurements.

use std::path::Path;
use std::time::{Duration, Instant};

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::store::{Outcome, PositionRange};

use super::prepare::{choose, fingerprint_key, match_tables, plan};
use super::server_of;
use crate::config::Config;
use crate::failure::table as refused;
use crate::source;

/// Rows read at a time.
const WINDOW_ROWS: u64 = 100_000;

/// What a local table holds, and how long it took to find out.
#[derive(Debug, Clone, Copy)]
pub struct LocalScan {
    /// Count and digest sum of the rows that can be encoded.
    pub fingerprint: Fingerprint,
    /// How long reading and hashing took; asking the server for schema and key is not part of it.
    pub took: Duration,
}

/// Scans the tables of a configuration, in the configuration's order.
///
/// # Errors
/// Where a table cannot be read, or the server has no managed table for it.
pub fn scan(config: &Path) -> Outcome<Vec<LocalScan>> {
    let config = Config::load(config)?;
    let mut server = server_of(&config)?;
    let remote = server.table_versions()?;
    let mut failed = Vec::new();
    let matched = match_tables(choose(&config, &[])?, &remote, &mut failed);
    if let Some(table) = failed.first() {
        return Err(refused(format!("the local table {} has no managed table", table.table)));
    }
    let names: Vec<&str> = matched.iter().map(|(_, table)| table.relation.as_str()).collect();
    let schemas = server.table_schemas(&names)?;
    let mut local = source::open(&config.source_place()?)?;
    let tables = matched.into_iter().zip(schemas);
    let plans = tables
        .map(|((table, _), schema)| plan(local.as_mut(), table, schema, &[]))
        .collect::<Outcome<Vec<_>>>()?;
    let count = plans.len();
    let mut source = local.into_source(plans, fingerprint_key(&server)?)?;
    (0..count)
        .map(|table| {
            let begun = Instant::now();
            let (mut fingerprint, mut from) = (Fingerprint::default(), None);
            loop {
                let window = source.window(table, PositionRange { from, to: None }, WINDOW_ROWS)?;
                window.items.iter().for_each(|item| fingerprint.insert(&item.digest));
                from = window.range.to;
                if from.is_none() {
                    break Ok(LocalScan { fingerprint, took: begun.elapsed() });
                }
            }
        })
        .collect()
}
