//! SQLite: a file, and `sqlite3`.

use std::process::Command;

use anyhow::Result;

use super::{Dump, Local, Output, runs};
use crate::bench::Bench;
use crate::bookings::{QUERY, SQLITE};

/// The database that [`bookings::create`](crate::bookings::create) makes.
#[derive(Debug, Clone, Copy)]
pub struct Sqlite;

impl Local for Sqlite {
    fn setting(&self) -> String {
        format!("sqlite = \"{SQLITE}\"")
    }

    fn describe(&self, bench: &Bench<'_>) -> Result<String> {
        let length = std::fs::metadata(bench.site.path(SQLITE))?.len();
        Ok(format!("{} MiB as SQLite", length >> 20))
    }

    fn dumps(&self, bench: &Bench<'_>) -> (Vec<Dump<'_>>, Vec<String>) {
        if !runs("sqlite3", "-version") {
            return (Vec::new(), vec!["sqlite3 is not installed".to_owned()]);
        }
        let path = bench.site.path(SQLITE);
        let make = move || {
            let mut sqlite = Command::new("sqlite3");
            sqlite.args(["-readonly", "-csv"]).arg(&path).arg(QUERY);
            Ok(Output::Pipe(sqlite))
        };
        let name = "sqlite3 -csv | psql \\copy";
        (vec![Dump { name, options: "FORMAT csv", make: Box::new(make) }], Vec::new())
    }

    fn processor(&self) -> Result<Option<f64>> {
        Ok(None)
    }
}
