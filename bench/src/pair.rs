//! The same rows twice: a replica among others on the shared server, and a table of a local Postgres; both
//! have a kept manifest. The cases that compare them leave them identical.

use anyhow::{Result, bail, ensure};
use plimsoll_client::server::address::Address;
use plimsoll_client::server::{Login, ReadOnly, Replica, RunBegin, RunTarget, Server, level, roots};
use plimsoll_core::reconcile::{Found, Limits, find_between};
use plimsoll_core::schema::TableSchema;
use uuid::Uuid;

use crate::bench::{self, Bench};
use crate::case::fold;
use crate::ledger;

/// The replica.
pub const SHARED: &str = "bench.replica";

/// The local table.
pub const LOCAL: &str = "bench.entries";

/// Both sides of one database.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Its id on both servers.
    pub database: Uuid,
    /// What it was made of.
    pub described: Vec<String>,
}

impl Pair {
    /// Makes both sides with the same rows.
    ///
    /// # Errors
    /// When a server refuses it.
    pub fn make(bench: &Bench<'_>) -> Result<Self> {
        let name = format!("two sides {}", Uuid::new_v4());
        let database = bench.register(&name)?;
        let (mut shared, mut local) = (bench.shared()?, bench.local()?);
        let query = "SELECT fingerprint_key FROM plimsoll.database_record WHERE database_id = $1";
        let key: Vec<u8> = shared.query_one(query, &[&database])?.get(0);
        local.execute("SELECT plimsoll.adopt_database($1, 'bench', $2, $3)", &[&database, &name, &key])?;
        bench::grant(&mut local, &database)?;
        ledger::create_managed(&mut shared, SHARED, &database, true)?;
        let query = "SELECT pg_catalog.jsonb_object_agg(column_name, column_number)::text
                       FROM plimsoll.table_schema($1, $2)";
        let numbers: String = shared.query_one(query, &[&database, &SHARED])?.get(0);
        ledger::create_local(&mut local, LOCAL, &database, &numbers)?;
        for (server, table) in [(&mut shared, SHARED), (&mut local, LOCAL)] {
            ledger::fill(bench, server, table, bench.scale.rows)?;
            fold(server, &database, table)?;
        }
        let described = vec![
            format!("the shared side: {}", ledger::describe(&mut shared, SHARED)?),
            "the local side: the same rows in another Postgres database of the same server".to_owned(),
        ];
        Ok(Pair { database, described })
    }

    /// One side as the client reaches it, with the login behind it.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn side(&self, url: &str, table: &str) -> Result<(Server, TableSchema)> {
        let login = Login { database_id: self.database, token: None };
        let mut server = Server::new(Address::parse(url)?, login)?;
        let schema = server.table_schemas(&[table])?.pop();
        match schema {
            Some(schema) => Ok((server, schema?)),
            None => bail!("{table} has no schema"),
        }
    }

    /// Damages scattered rows of the shared side: every second one is deleted, the others are altered under
    /// their version. Rounds damage different rows.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn damage(&self, bench: &Bench<'_>, round: u64) -> Result<()> {
        let stride = bench.scale.rows / bench.scale.differences;
        let offset = (round * 37 + 11) % stride;
        let mut server = bench.shared()?;
        let chosen =
            |parity| format!("(id - 1) % {stride} = {offset} AND (id - 1) / {stride} % 2 = {parity}");
        let deleted = server.execute(&format!("DELETE FROM {SHARED} WHERE {}", chosen(0)), &[])?;
        let update = format!("UPDATE {SHARED} SET purpose = 'damaged' WHERE {}", chosen(1));
        let altered = server.execute(&update, &[])?;
        ensure!(deleted + altered == bench.scale.differences, "{deleted} rows deleted and {altered} altered");
        fold(&mut server, &self.database, SHARED)?;
        bench.settle()
    }

    /// Makes the shared side level with the local one, as the client does; answers how many rows were found on
    /// one side alone.
    ///
    /// # Errors
    /// When it is not level in the end.
    pub fn repair(&self, local: &mut Server, remote: &mut Server, schema: &TableSchema) -> Result<u64> {
        let run = remote.begin_run(&RunBegin { agent_id: "bench".to_owned(), ..RunBegin::default() })?;
        let levelled = {
            let mut local = ReadOnly::new(local, replica(LOCAL));
            let mut remote = RunTarget::new(remote, run.run_id, replica(SHARED));
            level(&mut local, schema, &mut remote, 0)?
        };
        if !levelled.level {
            bail!("not level: {levelled:?}");
        }
        Ok(levelled.local_only + levelled.remote_only)
    }
}

/// Finds the rows that one side alone has: the roots are asked for, and what is needed where they differ.
///
/// # Errors
/// As the servers say.
pub fn find(local: &mut Server, remote: &mut Server) -> Result<Found> {
    let mut local = ReadOnly::new(local, replica(LOCAL));
    let mut remote = ReadOnly::new(remote, replica(SHARED));
    let roots = roots(&mut local, &mut remote, 0)?;
    if roots.equal {
        return Ok(Found::default());
    }
    Ok(find_between(&mut local, &mut remote, 0, roots.local, roots.remote, Limits::default())?.found)
}

/// A list of one table.
fn replica(table: &str) -> Vec<Replica> {
    vec![Replica { relation: table.to_owned(), ..Replica::default() }]
}
