//! Rows prepared beforehand, so that nothing but their way into a table is measured: as encoded uploads and
//! as `COPY` in binary format takes them.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use plimsoll_core::row::BatchWriter;
use postgres::Client;
use uuid::Uuid;

use crate::bench::Bench;
use crate::ledger;

/// Bytes that are handed to COPY at a time.
const COPY_CHUNK: usize = 64 << 10;

/// The same rows in both forms.
pub struct Batches {
    /// How many rows.
    pub rows: u64,
    /// Encoded uploads, and how many rows each has.
    uploads: Vec<(Vec<u8>, i64)>,
    /// All rows in COPY's binary format, without tenant columns.
    binary: Vec<u8>,
}

impl Batches {
    /// Reads the rows of a managed table.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn of(bench: &Bench<'_>, server: &mut Client, database: &Uuid, table: &str) -> Result<Self> {
        bench.progress.step(&format!("reading the rows of {table} beforehand"));
        let row =
            server.query_one(&format!("SELECT count(*), min(version), max(version) FROM {table}"), &[])?;
        let (rows, first, last): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let batch_rows = i64::try_from(bench.scale.batch_rows)?;
        let sql = "SELECT \"row\" FROM plimsoll.download($1, $2, int8range($3, $4), $5::int)";
        let statement = server.prepare(sql)?;
        let mut uploads = Vec::new();
        let mut from = first;
        while from <= last {
            let to = from + batch_rows;
            let mut writer = BatchWriter::new();
            let limit = i32::try_from(batch_rows)?;
            for row in server.query(&statement, &[database, &table, &from, &to, &limit])? {
                writer.push(row.get(0));
            }
            let count = i64::from(writer.rows());
            uploads.push((writer.finish(), count));
            from = to;
        }
        ensure!(uploads.iter().map(|(_, count)| count).sum::<i64>() == rows, "not every row was read");
        let mut binary = Vec::new();
        let copy =
            format!("COPY (SELECT {} FROM {table} ORDER BY id) TO STDOUT (FORMAT binary)", ledger::COLUMNS);
        server.copy_out(&copy)?.read_to_end(&mut binary)?;
        Ok(Batches { rows: rows.unsigned_abs(), uploads, binary })
    }

    /// What there is, for the report.
    pub fn describe(&self) -> String {
        let bytes: usize = self.uploads.iter().map(|(bytes, _)| bytes.len()).sum();
        format!(
            "{} rows in {} uploads of {} bytes in all, each a transaction; the same rows are {} bytes in COPY's \
             binary format, sent in one transaction",
            self.rows,
            self.uploads.len(),
            bytes,
            self.binary.len()
        )
    }

    /// Copies all rows into a table, as `COPY ... FROM STDIN (FORMAT binary)` in one transaction.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn copy(&self, server: &mut impl postgres::GenericClient, table: &str) -> Result<()> {
        let copy = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", ledger::COLUMNS);
        let mut writer = server.copy_in(&copy)?;
        for chunk in self.binary.chunks(COPY_CHUNK) {
            writer.write_all(chunk)?;
        }
        ensure!(writer.finish()? == self.rows, "not every row was copied");
        Ok(())
    }

    /// Uploads all rows, each batch in a transaction of its own; `new` says whether they are all new, else
    /// they must all be there with other content.
    ///
    /// # Errors
    /// When the server refuses it, or did something else with a row.
    pub fn upload(&self, server: &mut Client, database: &Uuid, table: &str, new: bool) -> Result<()> {
        let sql = "SELECT inserted, updated FROM plimsoll.upload($1::uuid, $2::text, $3::bytea)";
        let statement = server.prepare(sql)?;
        for (bytes, rows) in &self.uploads {
            let row = server.query_one(&statement, &[database, &table, bytes]).context("plimsoll.upload")?;
            let (inserted, updated): (i64, i64) = (row.get(0), row.get(1));
            let expected = if new { (*rows, 0) } else { (0, *rows) };
            ensure!(
                (inserted, updated) == expected,
                "an upload of {rows} rows inserted {inserted}, updated {updated}"
            );
        }
        Ok(())
    }
}
