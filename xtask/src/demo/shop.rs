//! A small shop's database: customers, invoices and their lines, about 200,000 rows, the same ones each time.
//! Every row carries a version from one counter of the whole database, as SQL Server's `rowversion` does:
//! triggers raise it on an update, an insert takes the next value itself.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastrand::Rng;
use plimsoll_cluster::postgres::Client;
use rusqlite::{Connection, Statement, params};

use super::material::{Material, Pair};
use super::words::{ARTICLES, CITIES, FAMILY, GIVEN, QUALITIES, REMARKS, STREETS};

/// How many customers the shop has.
const CUSTOMERS: i64 = 12_000;

/// How many invoices each branch has written.
const INVOICES: [(&str, i64); 3] = [("HH", 21_000), ("GDN", 16_000), ("KBH", 10_000)];

/// How many customers and invoices come in later.
const NEW_CUSTOMERS: i64 = 40;
const NEW_INVOICES: i64 = 120;

/// Days from 2019-01-01 in which invoices were written.
const DAYS: i64 = 2_300;

const SCHEMA: &str = "
CREATE TABLE row_version_counter (value INTEGER NOT NULL);
INSERT INTO row_version_counter VALUES (0);
CREATE TABLE customers (
    customer_id INTEGER PRIMARY KEY,
    given_name TEXT NOT NULL,
    family_name TEXT NOT NULL,
    email TEXT,
    street TEXT NOT NULL,
    postal_code VARCHAR(12) NOT NULL,
    city TEXT NOT NULL,
    country CHAR(2) NOT NULL,
    born_on DATE,
    credit_limit NUMERIC(12,2) NOT NULL,
    newsletter BOOLEAN NOT NULL,
    remark TEXT,
    row_version INTEGER NOT NULL UNIQUE,
    modified_at TEXT NOT NULL
);
CREATE TABLE invoices (
    branch VARCHAR(3) NOT NULL,
    number INTEGER NOT NULL,
    customer_id INTEGER NOT NULL REFERENCES customers,
    issued_on DATE NOT NULL,
    due_on DATE NOT NULL,
    paid_on DATE,
    total NUMERIC(12,2) NOT NULL,
    remark TEXT,
    row_version INTEGER NOT NULL UNIQUE,
    modified_at TEXT NOT NULL,
    PRIMARY KEY (branch, number)
);
CREATE TABLE invoice_lines (
    branch VARCHAR(3) NOT NULL,
    number INTEGER NOT NULL,
    line INTEGER NOT NULL,
    article CHAR(7) NOT NULL,
    description TEXT NOT NULL,
    quantity NUMERIC(10,3) NOT NULL,
    unit_price NUMERIC(12,2) NOT NULL,
    discount_percent NUMERIC(5,2),
    row_version INTEGER NOT NULL UNIQUE,
    modified_at TEXT NOT NULL,
    PRIMARY KEY (branch, number, line),
    FOREIGN KEY (branch, number) REFERENCES invoices
);";

/// The shop's tables, parents first.
const TABLES: [&str; 3] = ["customers", "invoices", "invoice_lines"];

/// Fills new rows: the random source, the next version, and the statements.
struct Filler<'c> {
    rng: Rng,
    version: i64,
    customer: Statement<'c>,
    invoice: Statement<'c>,
    line: Statement<'c>,
}

/// The shop, as the demo plays it.
pub(super) struct Shop {
    path: PathBuf,
    connection: Connection,
    rows: i64,
    /// Local names and the managed tables.
    remotes: HashMap<String, String>,
}

impl Shop {
    /// Makes the database.
    pub(super) fn make(path: PathBuf) -> Result<Self> {
        let mut connection = Connection::open(&path)?;
        // Nothing is lost with an unfinished file: the demo makes it anew.
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA foreign_keys = ON")?;
        let transaction = connection.transaction()?;
        transaction.execute_batch(SCHEMA)?;
        for table in TABLES {
            transaction.execute_batch(&version_trigger(table))?;
        }
        let rows = fill(&transaction, 1, |filler| {
            for id in 1..=CUSTOMERS {
                let limit = filler.cents(10_000_000);
                filler.customer(id, limit)?;
            }
            for (branch, count) in INVOICES {
                for number in 1..=count {
                    filler.invoice(branch, number, CUSTOMERS, number * DAYS / count)?;
                }
            }
            Ok(())
        })?;
        transaction.commit()?;
        Ok(Shop { path, connection, rows, remotes: HashMap::new() })
    }
}

impl Material for Shop {
    fn title(&self) -> String {
        format!("a small shop's database: customers, invoices and their lines, {} rows", self.rows)
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn add_rule(&mut self, server: &mut Client, tables: &[Pair]) -> Result<String> {
        let customers = tables.iter().find(|pair| pair.local == "customers").context("no customers")?;
        let rule = "CHECK (credit_limit >= 0)";
        server.batch_execute(&format!("ALTER TABLE {} ADD {rule}", customers.remote))?;
        self.remotes = tables.iter().map(|pair| (pair.local.clone(), pair.remote.clone())).collect();
        Ok(format!("{} has {rule}", customers.remote))
    }

    fn change(&mut self) -> Result<String> {
        let transaction = self.connection.transaction()?;
        let (branch, count) = INVOICES[0];
        let inserted = fill(&transaction, 2, |filler| {
            for id in CUSTOMERS + 1..=CUSTOMERS + NEW_CUSTOMERS {
                filler.customer(id, 250_000)?;
            }
            for number in count + 1..=count + NEW_INVOICES {
                filler.invoice(branch, number, CUSTOMERS + NEW_CUSTOMERS, DAYS)?;
            }
            Ok(())
        })?;
        let mut updated = 0;
        for statement in [
            "UPDATE invoices SET paid_on = date(issued_on, '+9 days')
              WHERE branch = 'GDN' AND paid_on IS NULL AND number % 11 = 0",
            "UPDATE customers SET street = street || ' 7a', remark = NULL WHERE customer_id % 97 = 0 AND customer_id <= 12000",
            "UPDATE invoice_lines SET unit_price = round(unit_price + 0.5, 2) WHERE branch = 'KBH' AND number % 199 = 0",
        ] {
            updated += transaction.execute(statement, [])?;
        }
        let mut deleted = 0;
        for table in ["invoice_lines", "invoices"] {
            let statement = format!("DELETE FROM {table} WHERE branch = 'HH' AND number % 503 = 7");
            deleted += transaction.execute(&statement, [])?;
        }
        transaction.commit()?;
        Ok(format!("{inserted} rows inserted, {updated} updated, {deleted} deleted"))
    }

    fn damage(&mut self, server: &mut Client) -> Result<String> {
        let mut run = |local: &str, statement: &str| -> Result<u64> {
            let remote = self.remotes.get(local).context("an unknown table")?;
            Ok(server.execute(&statement.replace("{}", remote), &[])?)
        };
        let deleted = run("invoice_lines", "DELETE FROM {} WHERE branch = 'HH' AND number % 997 = 3")?
            + run("customers", "DELETE FROM {} WHERE customer_id % 2503 = 11")?;
        let altered = run("invoices", "UPDATE {} SET total = total + 1000 WHERE number % 4999 = 17")?
            + run(
                "customers",
                "UPDATE {} SET family_name = family_name || '?' WHERE customer_id % 1009 = 5",
            )?;
        Ok(format!("{deleted} rows deleted and {altered} altered by hand in Postgres"))
    }

    fn add_refused(&mut self) -> Result<String> {
        let transaction = self.connection.transaction()?;
        fill(&transaction, 3, |filler| {
            filler.customer(CUSTOMERS + 101, 50_000)?;
            filler.customer(CUSTOMERS + 102, -1)?;
            filler.customer(CUSTOMERS + 103, 50_000)
        })?;
        transaction.commit()?;
        Ok("3 customers inserted, one of them with a credit limit of -0.01".to_owned())
    }
}

/// Adds rows with versions from the counter; answers how many.
fn fill(connection: &Connection, seed: u64, add: impl FnOnce(&mut Filler<'_>) -> Result<()>) -> Result<i64> {
    let before = counter(connection)?;
    let mut filler = Filler::new(connection, seed, before)?;
    add(&mut filler)?;
    let after = filler.version;
    connection.execute("UPDATE row_version_counter SET value = ?1", params![after])?;
    Ok(after - before)
}

fn counter(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("SELECT value FROM row_version_counter", [], |row| row.get(0))?)
}

fn version_trigger(table: &str) -> String {
    format!(
        "CREATE TRIGGER {table}_row_version AFTER UPDATE ON {table} WHEN NEW.row_version = OLD.row_version BEGIN
             UPDATE row_version_counter SET value = value + 1;
             UPDATE {table} SET row_version = (SELECT value FROM row_version_counter),
                    modified_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
              WHERE rowid = NEW.rowid;
         END;"
    )
}

impl<'c> Filler<'c> {
    fn new(connection: &'c Connection, seed: u64, version: i64) -> Result<Self> {
        const MODIFIED: &str = "strftime('%Y-%m-%dT%H:%M:%fZ', 1546300800 + ?, 'unixepoch')";
        // `#` stands for a date, given as its distance from the shop's first day.
        let insert = |table: &str, marks: &str| {
            let marks = marks.replace('#', "date('2019-01-01', ?)");
            connection.prepare(&format!("INSERT INTO {table} VALUES ({marks}, {MODIFIED})"))
        };
        Ok(Filler {
            rng: Rng::with_seed(seed),
            version,
            customer: insert("customers", "?, ?, ?, ?, ?, ?, ?, ?, #, ?, ?, ?, ?")?,
            invoice: insert("invoices", "?, ?, ?, #, #, #, ?, ?, ?")?,
            line: insert("invoice_lines", "?, ?, ?, ?, ?, ?, ?, ?, ?")?,
        })
    }

    fn customer(&mut self, id: i64, limit_cents: i64) -> Result<()> {
        let version = self.next_version();
        let given = self.pick(GIVEN);
        let family = self.pick(FAMILY);
        let (city, postal_code, country) = self.pick(CITIES);
        let email =
            (self.rng.u8(..10) > 0).then(|| format!("customer{id}@example.{}", country.to_lowercase()));
        let street = format!("{} {}", self.pick(STREETS), self.rng.u8(1..180));
        let born_on = (self.rng.u8(..4) > 0).then(|| days(-self.rng.i64(7_000..28_000)));
        let remark = self.remark();
        let newsletter = self.rng.bool();
        let limit = limit_cents as f64 / 100.0;
        self.customer.execute(params![
            id,
            given,
            family,
            email,
            street,
            postal_code,
            city,
            country,
            born_on,
            limit,
            newsletter,
            remark,
            version,
            version * 90
        ])?;
        Ok(())
    }

    fn invoice(&mut self, branch: &str, number: i64, customers: i64, day: i64) -> Result<()> {
        let customer = self.rng.i64(1..=customers);
        let lines: Vec<(i64, i64, Option<i64>)> = (0..self.rng.u8(1..=5))
            .map(|_| {
                let discount = (self.rng.u8(..6) == 0).then(|| self.rng.i64(1..=60) * 25);
                (self.rng.i64(1..=24_000), self.cents(40_000), discount)
            })
            .collect();
        let total: i64 = lines.iter().map(|(quantity, price, _)| quantity * price / 1_000).sum();
        let paid_on = (self.rng.u8(..8) > 0).then(|| days(day + self.rng.i64(1..40)));
        let remark = self.remark();
        let version = self.next_version();
        let (issued_on, due_on, total) = (days(day), days(day + 30), total as f64 / 100.0);
        self.invoice.execute(params![
            branch,
            number,
            customer,
            issued_on,
            due_on,
            paid_on,
            total,
            remark,
            version,
            version * 90
        ])?;
        for (line, (quantity, price, discount)) in (1i64..).zip(lines) {
            let version = self.next_version();
            let (noun, code) = self.pick(ARTICLES);
            let description = format!("{} {noun}", self.pick(QUALITIES));
            let article = format!("{code}-{:03}", self.rng.u16(..1_000));
            let (quantity, price) = (quantity as f64 / 1_000.0, price as f64 / 100.0);
            let discount = discount.map(|hundredths| hundredths as f64 / 100.0);
            self.line.execute(params![
                branch,
                number,
                line,
                article,
                description,
                quantity,
                price,
                discount,
                version,
                version * 90
            ])?;
        }
        Ok(())
    }

    fn next_version(&mut self) -> i64 {
        self.version += 1;
        self.version
    }

    fn remark(&mut self) -> Option<&'static str> {
        (self.rng.u8(..5) == 0).then(|| self.pick(REMARKS))
    }

    /// An amount from one hundredth to `most` hundredths.
    fn cents(&mut self, most: i64) -> i64 {
        self.rng.i64(1..=most)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }
}

/// The change of a date that SQLite's `date` takes.
fn days(days: i64) -> String {
    format!("{days:+} days")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_version_of_its_own_and_changes_get_higher_ones() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mut shop = Shop::make(directory.path().join("shop.sqlite"))?;
        let rows = shop.rows;
        assert!((180_000..220_000).contains(&rows), "{rows}");
        let versions = |connection: &Connection, above: i64| -> Result<(i64, i64)> {
            let all = TABLES.map(|table| format!("SELECT row_version FROM {table}")).join(" UNION ALL ");
            let query = format!(
                "SELECT count(*), count(DISTINCT row_version) FROM ({all}) WHERE row_version > {above}"
            );
            Ok(connection.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?)))?)
        };
        assert_eq!(versions(&shop.connection, 0)?, (rows, rows));
        shop.change()?;
        shop.add_refused()?;
        let (changed, distinct) = versions(&shop.connection, rows)?;
        assert_eq!(changed, distinct);
        assert!(changed > 500, "{changed}");
        let negative = "SELECT count(*) FROM customers WHERE credit_limit < 0";
        assert_eq!(shop.connection.query_row(negative, [], |row| row.get::<_, i64>(0))?, 1);
        Ok(())
    }
}
