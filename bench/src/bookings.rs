//! The rows that are replicated: 8 columns, about 140 bytes each. They are made in SQLite, from where other local
//! databases have them, too.

use std::fs;

use anyhow::Result;
use fastrand::Rng;
use plimsoll_cluster::Site;
use rusqlite::{Connection, params};

/// The managed table.
pub const RELATION: &str = "bench.bookings";

/// A managed table with the same columns whose rows both sides may change.
pub const BOTH_WAYS: &str = "bench.bookings_both_ways";

/// A table with the same columns and indexes and nothing of ours.
pub const IDENTICAL: &str = "bench.bookings_copied";

/// The file with the rows.
pub const SQLITE: &str = "bookings.sqlite";

/// The columns, in their order.
pub const COLUMNS: &str = "id, account, counterparty, purpose, amount, booked_at, settled, row_version";

/// Makes the table in SQLite.
pub const SQLITE_TABLE: &str = "
    CREATE TABLE bookings (
        id INTEGER PRIMARY KEY,
        account VARCHAR(12) NOT NULL,
        counterparty TEXT NOT NULL,
        purpose TEXT NOT NULL,
        amount NUMERIC(12,2) NOT NULL,
        booked_at TIMESTAMP NOT NULL,
        settled BOOLEAN,
        row_version INTEGER NOT NULL UNIQUE
    )";

const PURPOSES: &[&str] = &[
    "Invoice settled by bank transfer, thank you for the order",
    "Standing order for the berth at the north quay, monthly",
    "Überweisung Rechnung, bitte bei Rückfragen angeben: Hafen",
    "Refund of a deposit after the return of rented equipment",
];

/// Makes the rows as a SQLite database, unless it is there, and the empty tables of the server.
///
/// # Errors
/// When either side refuses it.
pub fn create(site: &Site, rows: u64) -> Result<()> {
    if !site.path(SQLITE).exists() {
        create_local(site, rows)?;
    }
    create_remote(site)
}

fn create_local(site: &Site, rows: u64) -> Result<()> {
    let mut connection = Connection::open(site.path(SQLITE))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
",
    )?;
    connection.execute_batch(SQLITE_TABLE)?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare(&format!(
            "INSERT INTO bookings ({COLUMNS}) VALUES (?, ?, ?, ?, ?, datetime(1600000000 + ?, 'unixepoch'), ?, ?)"
        ))?;
        let mut rng = Rng::with_seed(1);
        for id in 1..=i64::try_from(rows)? {
            let account = format!("DE{:010}", rng.u32(..));
            let counterparty = format!("Counterparty {:06} GmbH", rng.u32(..400_000));
            let purpose = PURPOSES[rng.usize(..PURPOSES.len())];
            let amount = rng.i64(1..=9_999_999) as f64 / 100.0;
            let settled = (rng.u8(..8) > 0).then(|| rng.bool());
            insert.execute(params![id, account, counterparty, purpose, amount, id * 37, settled, id])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn create_remote(site: &Site) -> Result<()> {
    // A copy fills the tenant columns from their defaults, with the same values in every row.
    let definitions = "
             client_id text NOT NULL DEFAULT 'bench',
             database_id uuid NOT NULL,
             id bigint NOT NULL,
             account varchar(12) NOT NULL,
             counterparty text NOT NULL,
             purpose text NOT NULL,
             amount numeric(12,2) NOT NULL,
             booked_at timestamp NOT NULL,
             settled boolean,
             row_version bigint NOT NULL,
             PRIMARY KEY (client_id, database_id, id)";
    site.superuser()?.batch_execute(&format!(
        "CREATE TABLE {IDENTICAL} ({definitions}) WITH (autovacuum_enabled = off);
         ALTER TABLE {IDENTICAL} ALTER database_id SET DEFAULT '{}';
         CREATE INDEX ON {IDENTICAL} (client_id, database_id, row_version);
         CREATE TABLE {RELATION} ({definitions}) WITH (autovacuum_enabled = off);
         ALTER TABLE {RELATION} OWNER TO {owner};
         SELECT plimsoll.manage_table('{RELATION}', version_column => 'row_version');
         CREATE TABLE {BOTH_WAYS} ({definitions}) WITH (autovacuum_enabled = off);
         ALTER TABLE {BOTH_WAYS} OWNER TO {owner};
         SELECT plimsoll.manage_table('{BOTH_WAYS}', version_column => 'row_version', version_scope => 'row');",
        uuid::Uuid::new_v4(),
        owner = Site::OWNER
    ))?;
    Ok(())
}

/// Registers a new database and points the client at it and at the local database that `source` names, as the
/// configuration has it; nothing is remembered. The table is pushed.
///
/// # Errors
/// When the server refuses it.
pub fn configure(site: &Site, source: &str) -> Result<()> {
    configure_towards(site, source, RELATION, "push").map(drop)
}

/// The same for a table that goes another way; `direction` as the configuration has it, without its quotes at the ends.
/// Answers the database's id.
///
/// # Errors
/// When the server refuses it.
pub fn configure_towards(site: &Site, source: &str, relation: &str, direction: &str) -> Result<String> {
    let count: i64 = site.superuser()?.query_one("SELECT count(*) FROM plimsoll.databases", &[])?.get(0);
    let (database_id, token) = site.register("bench", &format!("bookings {}", count + 1))?;
    let _ = fs::remove_file(site.path("plimsoll.state.json"));
    site.write_private("token", &token)?;
    site.write_private(
        "plimsoll.toml",
        &format!(
            "[server]\nurl = \"{}\"\ndatabase_id = \"{database_id}\"\ntoken_file = \"token\"\n\n\
             [source]\n{source}\n\n[sync]\nrun_budget = \"1h\"\n\n[[table]]\nname = \"bookings\"\nremote = \"{relation}\"\n\
             direction = \"{direction}\"\n",
            site.url()
        ),
    )?;
    Ok(database_id)
}

/// What psql is told, to read the rows from `from` in this format: options of `COPY`.
pub fn copy_command(from: &str, options: &str) -> String {
    format!("\\copy {IDENTICAL} ({COLUMNS}) FROM {from} WITH ({options})")
}

/// The rows of the SQLite database as other databases read them.
pub const QUERY: &str =
    "SELECT id, account, counterparty, purpose, format('%.2f', amount), booked_at, settled, row_version
                           FROM bookings ORDER BY id";

/// Hands every row to `each`, as texts.
///
/// # Errors
/// When the database cannot be read, and what `each` says.
pub fn each_row(site: &Site, mut each: impl FnMut(&[Option<&[u8]>; 8]) -> Result<()>) -> Result<()> {
    let connection = Connection::open(site.path(SQLITE))?;
    let mut statement = connection.prepare(
        "SELECT CAST(id AS TEXT), account, counterparty, purpose, format('%.2f', amount), booked_at,
                CAST(settled AS TEXT), CAST(row_version AS TEXT) FROM bookings ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut fields = [None; 8];
        for (place, field) in fields.iter_mut().enumerate() {
            *field = row.get_ref(place)?.as_bytes_or_null()?;
        }
        each(&fields)?;
    }
    Ok(())
}
