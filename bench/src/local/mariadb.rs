//! MariaDB: a private server, `mariadb --batch` and what the server writes into a file itself.

use std::process::Command;

use anyhow::{Context, Result, bail};
use plimsoll_cluster::MariaDb;
use plimsoll_cluster::mysql_async::Value;

use super::{Dump, Local, Output, runs};
use crate::bench::Bench;
use crate::bookings::{self, COLUMNS};
use crate::process::server_seconds;

const DATABASE: &str = "local";
const USER: &str = "reader";
/// It is reached from this machine alone, and only while it is measured.
const PASSWORD: &str = "reads";
/// Rows of one INSERT.
const INSERTED: usize = 1_000;

/// A private server with the bookings.
#[derive(Debug)]
pub struct Maria {
    server: MariaDb,
}

impl Maria {
    /// Starts a server and puts the rows of the SQLite database into it.
    ///
    /// # Errors
    /// When the server does not come up.
    pub fn start(bench: &Bench<'_>) -> Result<Self> {
        let server = MariaDb::start(&["--innodb-buffer-pool-size=512M", "--character-set-server=utf8mb4"])?;
        let mut session = server.create_database(DATABASE)?;
        server.create_user(USER, PASSWORD)?;
        session.run(&format!(
            "GRANT SELECT ON `{DATABASE}`.* TO '{USER}'@'%';
             CREATE TABLE bookings (
                 id BIGINT PRIMARY KEY,
                 account VARCHAR(12) NOT NULL,
                 counterparty VARCHAR(100) NOT NULL,
                 purpose VARCHAR(200) NOT NULL,
                 amount DECIMAL(12,2) NOT NULL,
                 booked_at DATETIME NOT NULL,
                 settled BOOLEAN,
                 row_version BIGINT NOT NULL UNIQUE
             );
             SET autocommit = 0"
        ))?;
        let mut waiting: Vec<Value> = Vec::new();
        let mut insert = |waiting: &mut Vec<Value>| {
            let rows = vec!["(?, ?, ?, ?, ?, ?, ?, ?)"; waiting.len() / 8].join(", ");
            let values = std::mem::take(waiting);
            session.run_with(&format!("INSERT INTO bookings ({COLUMNS}) VALUES {rows}"), values)
        };
        bookings::each_row(bench.site, |fields| {
            waiting.extend(fields.iter().map(|field| field.map_or(Value::NULL, Value::from)));
            if waiting.len() >= INSERTED * 8 { insert(&mut waiting) } else { Ok(()) }
        })?;
        if !waiting.is_empty() {
            insert(&mut waiting)?;
        }
        session.run("COMMIT; SET autocommit = 1; ANALYZE TABLE bookings")?;
        Ok(Maria { server })
    }

    /// What one statement says in its only column.
    fn ask(&self, sql: &str) -> Result<String> {
        let rows = self.server.admin()?.rows(sql)?;
        match rows.first().and_then(|row| row.first()) {
            Some(Value::Bytes(text)) => Ok(String::from_utf8_lossy(text).into_owned()),
            other => bail!("{sql}: {other:?}"),
        }
    }
}

impl Local for Maria {
    fn setting(&self) -> String {
        format!("mysql = \"{}\"", self.server.url(&format!("{USER}:{PASSWORD}"), DATABASE))
    }

    fn describe(&self, _: &Bench<'_>) -> Result<String> {
        let size = "SELECT CAST(data_length DIV 1048576 AS CHAR) FROM information_schema.tables
                    WHERE table_schema = 'local' AND table_name = 'bookings'";
        Ok(format!("{} MiB in MariaDB {}, InnoDB", self.ask(size)?, self.ask("SELECT VERSION()")?))
    }

    fn dumps(&self, _: &Bench<'_>) -> (Vec<Dump<'_>>, Vec<String>) {
        let into_file = || {
            let path = self.server.folder().join("bookings.txt");
            let _ = std::fs::remove_file(&path);
            let sql = format!(
                "SELECT {COLUMNS} INTO OUTFILE '{}' CHARACTER SET utf8mb4 FROM `{DATABASE}`.bookings",
                path.display()
            );
            self.server.admin()?.run(&sql).context("the server wrote no file")?;
            Ok(Output::File(path))
        };
        let into_pipe = || {
            let mut mariadb = Command::new("mariadb");
            mariadb
                .arg("--no-defaults")
                .arg(format!("--socket={}", self.server.socket().display()))
                .args(["--user=root", "--default-character-set=utf8mb4"])
                .args(["--batch", "--quick", "--skip-column-names"])
                .arg(format!("--execute=SELECT {COLUMNS} FROM bookings"))
                .arg(DATABASE);
            Ok(Output::Pipe(mariadb))
        };
        // Both write as COPY reads; what is NULL is the word in one, \N in the other.
        let mut dumps = vec![Dump {
            name: "SELECT INTO OUTFILE, then psql \\copy",
            options: "FORMAT text",
            make: Box::new(into_file),
        }];
        if !runs("mariadb", "--version") {
            return (dumps, vec!["mariadb --batch: not installed (mariadb-client-core)".to_owned()]);
        }
        let name = "mariadb --batch | psql \\copy";
        dumps.insert(0, Dump { name, options: "FORMAT text, NULL 'NULL'", make: Box::new(into_pipe) });
        (dumps, Vec::new())
    }

    fn processor(&self) -> Result<Option<f64>> {
        server_seconds(self.server.process()?).map(Some)
    }
}
