//! The cases: each measures one thing against its baseline in the same run.

mod application;
mod bytes;
mod directions;
mod fingerprint;
mod first_sync;
mod local_source;
mod overwrite;
mod peers;
mod repair;
mod roots;
mod table_version;
mod upload;

use anyhow::Result;
use postgres::Client;
use uuid::Uuid;

use crate::bench::Bench;
use crate::report::CaseReport;

/// Something that is measured.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it measures.
    pub title: &'static str,
    /// Measures it.
    pub measure: fn(&Bench<'_>, &mut CaseReport) -> Result<()>,
}

/// Every case, in the order in which they are measured.
pub const CASES: &[Case] = &[
    Case {
        name: "fingerprint",
        title: "Fingerprint of all columns, one process",
        measure: fingerprint::measure,
    },
    Case {
        name: "table-version",
        title: "Table version of a small and a large replica",
        measure: table_version::measure,
    },
    Case {
        name: "roots",
        title: "Root comparison that proves two kept sides identical",
        measure: roots::measure,
    },
    Case {
        name: "repair",
        title: "Scattered differences found and repaired, two kept sides",
        measure: repair::measure,
    },
    Case { name: "bytes", title: "Bytes and trips until the differences are known", measure: bytes::measure },
    Case {
        name: "local-source",
        title: "Scattered damage found and repaired, SQLite source",
        measure: local_source::measure,
    },
    Case { name: "upload", title: "Upload of new rows", measure: upload::measure },
    Case { name: "overwrite", title: "Upload of rows that exist already", measure: overwrite::measure },
    Case { name: "first-sync-sqlite", title: "First sync from SQLite", measure: first_sync::sqlite },
    Case { name: "first-sync-postgres", title: "First sync from Postgres", measure: first_sync::postgres },
    Case { name: "first-sync-mariadb", title: "First sync from MariaDB", measure: first_sync::mariadb },
    Case { name: "directions", title: "First runs of the other directions", measure: directions::measure },
    Case {
        name: "application",
        title: "Single-row UPDATEs of an application",
        measure: application::measure,
    },
];

/// Other tools on the same rows; measured only where it is asked for.
pub const PEERS: Case =
    Case { name: "peers", title: "Other tools that compare tables", measure: peers::measure };

/// Takes away what a case made in the databases, these tables aside.
pub(crate) fn clear(bench: &Bench<'_>, kept: &[&str]) -> Result<()> {
    let tables = "SELECT pg_catalog.format('%I.%I', t.schemaname, t.tablename), m.relation IS NOT NULL
                  FROM pg_catalog.pg_tables t
                  LEFT JOIN plimsoll.tables m ON m.relation = pg_catalog.format('%I.%I', t.schemaname, t.tablename)
                  WHERE t.schemaname = 'bench'";
    for mut server in [Some(bench.shared()?), bench.local_if_made()?].into_iter().flatten() {
        for row in server.query(tables, &[])? {
            let (table, managed): (String, bool) = (row.get(0), row.get(1));
            if kept.contains(&table.as_str()) {
                continue;
            }
            if managed {
                server.execute("SELECT plimsoll.unmanage_table($1::text)", &[&table])?;
            }
            server.batch_execute(&format!("DROP TABLE {table}"))?;
        }
        server.batch_execute("CHECKPOINT")?;
    }
    Ok(())
}

/// Has what the triggers counted folded into a replica's blocks, as the end of an upload does.
pub(crate) fn fold(server: &mut Client, database: &Uuid, table: &str) -> Result<()> {
    server.execute("SELECT plimsoll.fold_manifest($1, $2)", &[database, &table])?;
    Ok(())
}
