//! Postgres: a server of its own, because transactions of the replica's server would be changes of the local database.

use anyhow::{Context, Result};
use plimsoll_cluster::{Cluster, Options, Runner, Workspace};

use super::{Dump, Local, Output};
use crate::bench::Bench;
use crate::bookings::{self, COLUMNS};
use crate::process::server_seconds;

const DATABASE: &str = "local";
const READER: &str = "reader";
const WRITER: &str = "writer";

/// A private server with the bookings, without the extension.
#[derive(Debug)]
pub struct Postgres {
    cluster: Cluster,
    role: &'static str,
    password: String,
}

impl Postgres {
    /// Starts a server and puts the rows of the SQLite database into it.
    ///
    /// # Errors
    /// When the server does not come up.
    pub fn start(bench: &Bench<'_>) -> Result<Self> {
        let started = Self::with_table(bench, READER, &["pg_read_all_data"])?;
        let mut server = started.cluster.superuser(DATABASE)?;
        let copy = format!("COPY bookings ({COLUMNS}) FROM STDIN WITH (FORMAT csv)");
        let mut writer = csv::Writer::from_writer(server.copy_in(&copy)?);
        bookings::each_row(bench.site, |fields| {
            Ok(writer.write_record(fields.map(Option::unwrap_or_default))?)
        })?;
        writer.into_inner().map_err(|_| anyhow::anyhow!("the rows were not written"))?.finish()?;
        server.batch_execute("VACUUM (FREEZE, ANALYZE) bookings")?;
        server.batch_execute("CHECKPOINT")?;
        Ok(started)
    }

    /// Starts a server whose table has no rows and is written to.
    ///
    /// # Errors
    /// When the server does not come up.
    pub fn start_empty(bench: &Bench<'_>) -> Result<Self> {
        let started = Self::with_table(bench, WRITER, &[])?;
        let sql =
            format!("ALTER TABLE bookings OWNER TO {WRITER}; GRANT CREATE ON SCHEMA public TO {WRITER}");
        started.cluster.superuser(DATABASE)?.batch_execute(&sql)?;
        Ok(started)
    }

    /// How many rows the table has.
    ///
    /// # Errors
    /// When the server does not tell.
    pub fn rows(&self) -> Result<u64> {
        let found: i64 =
            self.cluster.superuser(DATABASE)?.query_one("SELECT count(*) FROM bookings", &[])?.get(0);
        Ok(found.unsigned_abs())
    }

    /// Takes all rows away.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn empty(&self) -> Result<()> {
        let mut server = self.cluster.superuser(DATABASE)?;
        server.batch_execute("TRUNCATE bookings")?;
        Ok(server.batch_execute("CHECKPOINT")?)
    }

    fn with_table(bench: &Bench<'_>, role: &'static str, member_of: &[&str]) -> Result<Self> {
        let runner = Runner::current()?;
        let workspace = Workspace::find(&runner)?;
        let cluster = Cluster::start(&workspace, bench.site.cluster().stage(), &runner, &Options::default())?;
        cluster.superuser("postgres")?.batch_execute(&format!("CREATE DATABASE {DATABASE}"))?;
        let password = cluster.create_login(role, member_of)?;
        let mut server = cluster.superuser(DATABASE)?;
        server.batch_execute(
            "CREATE TABLE bookings (
                 id bigint PRIMARY KEY,
                 account varchar(12) NOT NULL,
                 counterparty text NOT NULL,
                 purpose text NOT NULL,
                 amount numeric(12,2) NOT NULL,
                 booked_at timestamp NOT NULL,
                 settled boolean,
                 row_version bigint NOT NULL UNIQUE
             )",
        )?;
        drop(server);
        Ok(Postgres { cluster, role, password })
    }
}

impl Local for Postgres {
    fn setting(&self) -> String {
        let (port, role, password) = (self.cluster.port(), self.role, &self.password);
        format!("postgres = \"postgresql://{role}:{password}@127.0.0.1:{port}/{DATABASE}\"")
    }

    fn describe(&self, _: &Bench<'_>) -> Result<String> {
        let query = "SELECT pg_catalog.pg_table_size('bookings') >> 20";
        let mib: i64 = self.cluster.superuser(DATABASE)?.query_one(query, &[])?.get(0);
        let version = &self.cluster.stage().installation.version;
        Ok(format!("{mib} MiB in another server: {version}, without the extension"))
    }

    fn dumps(&self, _: &Bench<'_>) -> (Vec<Dump<'_>>, Vec<String>) {
        let dump = |name, options: &'static str| {
            let make = move || {
                let mut psql = self.cluster.command("psql");
                let copy = format!("COPY bookings ({COLUMNS}) TO STDOUT WITH ({options})");
                psql.args(["--no-psqlrc", "--quiet", "--dbname", DATABASE, "--command", &copy]);
                Ok(Output::Pipe(psql))
            };
            Dump { name, options, make: Box::new(make) }
        };
        let text = dump("psql COPY | psql \\copy, text", "FORMAT text");
        let binary = dump("psql COPY | psql \\copy, binary", "FORMAT binary");
        (vec![text, binary], Vec::new())
    }

    fn processor(&self) -> Result<Option<f64>> {
        let process = self.cluster.process().context("the local server is gone")?;
        server_seconds(process).map(Some)
    }
}
