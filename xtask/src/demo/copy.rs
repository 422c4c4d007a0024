//! The demo on a copy of the user's own SQLite database. Nothing is known of its tables, so rows are set aside
//! before the first sync and come back as new ones, columns that may be NULL are emptied, and versions are
//! raised by the database's own triggers where it has them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use plimsoll_cluster::postgres::Client;
use rusqlite::{Connection, OpenFlags, params};

use super::material::{Material, Pair};

/// How many rows of a table are inserted, updated, deleted or damaged, at most; small tables lose a tenth.
const ROWS: i64 = 50;

/// A copy of a database.
pub(super) struct Copy {
    original: PathBuf,
    path: PathBuf,
    connection: Connection,
    tables: Vec<Table>,
}

/// One table of it that takes part in the changes.
struct Table {
    pair: Pair,
    version: String,
    columns: Vec<Column>,
    /// How many rows are touched by each kind of change.
    rows: i64,
    /// How many rows it had at the beginning.
    count: i64,
}

struct Column {
    name: String,
    not_null: bool,
    in_key: bool,
}

/// How many slices a table is cut into: one for each kind of change, so that no row is touched twice.
const SLICES: i64 = 5;

/// Opens the user's database for reading, and reads from it: a file that is none is found only then.
fn open(original: &Path) -> Result<Connection> {
    let readable = || -> rusqlite::Result<Connection> {
        let source = Connection::open_with_flags(original, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(source)
    };
    readable().with_context(|| format!("{} is not a SQLite database that can be read", original.display()))
}

impl Copy {
    /// Checks that a file can be copied, before anything else is done.
    pub(super) fn check(original: &Path) -> Result<()> {
        open(original).map(drop)
    }

    /// Copies the database; the original is opened for reading only.
    pub(super) fn make(original: &Path, path: PathBuf) -> Result<Self> {
        let source = open(original)?;
        source.backup("main", &path, None)?;
        let connection = Connection::open(&path)?;
        // The copy stands for a database whose application enforces its own rules.
        connection.execute_batch(
            "PRAGMA foreign_keys = OFF; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF",
        )?;
        Ok(Copy { original: original.to_owned(), path, connection, tables: Vec::new() })
    }

    /// Takes the tables that can be changed safely, and sets aside the rows that will come as new ones.
    fn choose(&mut self, pairs: &[Pair]) -> Result<()> {
        for pair in pairs {
            let Some(version) = pair.version.clone() else { continue };
            let Some(table) = Table::read(&self.connection, pair.clone(), version)? else { continue };
            let (name, version) = (quoted(&table.pair.local), quoted(&table.version));
            self.connection.execute_batch(&format!(
                "CREATE TEMP TABLE {aside} AS SELECT {columns} FROM main.{name} WHERE {chosen};
                 DELETE FROM main.{name} WHERE {version} IN (SELECT {version} FROM temp.{aside});",
                aside = table.aside(),
                columns = table.column_list(),
                chosen = table.slice(0),
            ))?;
            self.tables.push(table);
        }
        if self.tables.is_empty() {
            bail!(
                "{} has no table with a key, an integer version and 20 rows or more",
                self.original.display()
            );
        }
        Ok(())
    }

    /// Brings set-aside rows of a table back as new ones; the row that breaks the rule stays aside until last.
    fn bring_back(&self, table: &Table, which: &str) -> Result<usize> {
        let transaction = self.connection.unchecked_transaction()?;
        let before = self.highest_version()?;
        let (name, columns, aside) = (quoted(&table.pair.local), table.column_list(), table.aside());
        let inserted = transaction.execute(
            &format!("INSERT INTO main.{name} ({columns}) SELECT {columns} FROM temp.{aside} WHERE {which}"),
            [],
        )?;
        let version = quoted(&table.version);
        let mine = format!("{version} IN (SELECT {version} FROM temp.{aside} WHERE {which})");
        transaction.execute(&format!("UPDATE main.{name} SET {version} = {version} WHERE {mine}"), [])?;
        self.raise_versions(table, &mine, before)?;
        transaction.execute(&format!("DELETE FROM temp.{aside} WHERE {which}"), [])?;
        transaction.commit()?;
        Ok(inserted)
    }

    /// Updates some rows of a table.
    fn update(&self, table: &Table) -> Result<usize> {
        let transaction = self.connection.unchecked_transaction()?;
        let before = self.highest_version()?;
        let (name, version) = (quoted(&table.pair.local), quoted(&table.version));
        transaction.execute_batch(&format!(
            "CREATE TEMP TABLE plimsoll_chosen AS SELECT {version} AS version FROM main.{name} WHERE {}",
            table.slice(1)
        ))?;
        let mine = format!("{version} IN (SELECT version FROM temp.plimsoll_chosen)");
        let change = match table.emptied() {
            Some(column) => format!("{} = NULL", quoted(column)),
            None => format!("{version} = {version}"),
        };
        let updated = transaction.execute(&format!("UPDATE main.{name} SET {change} WHERE {mine}"), [])?;
        self.raise_versions(table, &mine, before)?;
        transaction.execute_batch("DROP TABLE temp.plimsoll_chosen")?;
        transaction.commit()?;
        Ok(updated)
    }

    fn delete(&self, table: &Table) -> Result<usize> {
        let name = quoted(&table.pair.local);
        Ok(self.connection.execute(&format!("DELETE FROM main.{name} WHERE {}", table.slice(2)), [])?)
    }

    /// Gives rows that no trigger gave a new version one above all others.
    fn raise_versions(&self, table: &Table, mine: &str, before: i64) -> Result<()> {
        let (name, version) = (quoted(&table.pair.local), quoted(&table.version));
        let query = format!("SELECT {version} FROM main.{name} WHERE {mine} AND {version} <= ?1");
        let old: Vec<i64> = self
            .connection
            .prepare(&query)?
            .query_map([before], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut next = self.highest_version()?;
        let mut statement = self
            .connection
            .prepare(&format!("UPDATE main.{name} SET {version} = ?1 WHERE {version} = ?2"))?;
        for version in old {
            next += 1;
            statement.execute(params![next, version])?;
        }
        Ok(())
    }

    /// The highest version of all tables, which share one counter as far as we know.
    fn highest_version(&self) -> Result<i64> {
        let mut highest = 0;
        for table in &self.tables {
            let query =
                format!("SELECT max({}) FROM main.{}", quoted(&table.version), quoted(&table.pair.local));
            highest = highest
                .max(self.connection.query_row(&query, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0));
        }
        Ok(highest)
    }
}

impl Table {
    /// Looks at a table; `None` where it cannot be changed safely.
    fn read(connection: &Connection, pair: Pair, version: String) -> Result<Option<Self>> {
        let columns: Vec<Column> = connection
            .prepare("SELECT name, \"notnull\", pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid")?
            .query_map([&pair.local], |row| {
                Ok(Column { name: row.get(0)?, not_null: row.get(1)?, in_key: row.get::<_, i64>(2)? > 0 })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let (name, column) = (quoted(&pair.local), quoted(&version));
        let query = format!("SELECT count(*), total(typeof({column}) <> 'integer') FROM main.{name}");
        let (count, others): (i64, f64) =
            connection.query_row(&query, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let usable = columns.iter().any(|column| column.in_key) && others == 0.0 && count >= 20;
        let rows = (count / (2 * SLICES)).min(ROWS);
        Ok(usable.then_some(Table { pair, version, columns, rows, count }))
    }

    /// The rows of one slice, as a condition. Versions name rows in every kind of table.
    fn slice(&self, number: i64) -> String {
        let (name, version) = (quoted(&self.pair.local), quoted(&self.version));
        let offset = self.count / SLICES * number;
        format!(
            "{version} IN (SELECT {version} FROM main.{name} ORDER BY {version} LIMIT {} OFFSET {offset})",
            self.rows
        )
    }

    /// Where rows wait to come as new ones.
    fn aside(&self) -> String {
        quoted(&format!("plimsoll_aside_{}", self.pair.local))
    }

    fn column_list(&self) -> String {
        self.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
    }

    fn key(&self) -> Vec<&str> {
        self.columns.iter().filter(|column| column.in_key).map(|column| column.name.as_str()).collect()
    }

    /// A column that may be emptied.
    fn emptied(&self) -> Option<&str> {
        let may = |column: &&Column| !column.not_null && !column.in_key && column.name != self.version;
        self.columns.iter().find(may).map(|column| column.name.as_str())
    }
}

impl Material for Copy {
    fn title(&self) -> String {
        format!("a copy of {}", self.original.display())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn add_rule(&mut self, server: &mut Client, pairs: &[Pair]) -> Result<String> {
        self.choose(pairs)?;
        let table = self.tables.first().context("no table")?;
        let key = table.key();
        let texts: Vec<String> = key.iter().map(|name| format!("CAST({} AS TEXT)", quoted(name))).collect();
        let version = quoted(&table.version);
        let query =
            format!("SELECT {} FROM temp.{} ORDER BY {version} LIMIT 1", texts.join(", "), table.aside());
        let values: Vec<String> = self
            .connection
            .query_row(&query, [], |row| (0..key.len()).map(|column| row.get(column)).collect())?;
        let mut conditions = Vec::new();
        for (name, value) in key.iter().zip(&values) {
            let column = remote_column(server, &table.pair.remote, name)?;
            conditions.push(format!("{column}::text = '{}'", value.replace('\'', "''")));
        }
        let condition = format!("NOT ({})", conditions.join(" AND "));
        server.batch_execute(&format!("ALTER TABLE {} ADD CHECK ({condition})", table.pair.remote))?;
        Ok(format!("{} has CHECK ({condition})", table.pair.remote))
    }

    fn change(&mut self) -> Result<String> {
        let (mut inserted, mut updated, mut deleted) = (0, 0, 0);
        for (place, table) in self.tables.iter().enumerate() {
            let which = if place == 0 { self.all_but_first(table) } else { "true".to_owned() };
            updated += self.update(table)?;
            deleted += self.delete(table)?;
            inserted += self.bring_back(table, &which)?;
        }
        Ok(format!("{inserted} rows inserted, {updated} updated, {deleted} deleted"))
    }

    fn damage(&mut self, server: &mut Client) -> Result<String> {
        let (mut deleted, mut altered) = (0, 0);
        for table in &self.tables {
            let remote = &table.pair.remote;
            let version = remote_column(server, remote, &table.version)?;
            deleted += server.execute(
                &format!("DELETE FROM {remote} WHERE {version} IN ({})", self.versions(table, 3)?),
                &[],
            )?;
            if let Some(column) = table.emptied() {
                let column = remote_column(server, remote, column)?;
                altered += server.execute(
                    &format!(
                        "UPDATE {remote} SET {column} = NULL WHERE {version} IN ({}) AND {column} IS NOT NULL",
                        self.versions(table, 4)?
                    ),
                    &[],
                )?;
            }
        }
        Ok(format!("{deleted} rows deleted and {altered} altered by hand in Postgres"))
    }

    fn add_refused(&mut self) -> Result<String> {
        let table = self.tables.first().context("no table")?;
        self.bring_back(table, "true")?;
        Ok(format!("1 row of {} inserted that breaks the rule", table.pair.local))
    }
}

impl Copy {
    /// Every row that was set aside except the one that breaks the rule.
    fn all_but_first(&self, table: &Table) -> String {
        let version = quoted(&table.version);
        format!("{version} > (SELECT min({version}) FROM temp.{})", table.aside())
    }

    /// The versions of a slice as a list for the server.
    fn versions(&self, table: &Table, slice: i64) -> Result<String> {
        let (name, version) = (quoted(&table.pair.local), quoted(&table.version));
        let query = format!("SELECT {version} FROM main.{name} WHERE {}", table.slice(slice));
        let versions: Vec<i64> = self
            .connection
            .prepare(&query)?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", "))
    }
}

/// A managed table's column, quoted, by its local name in any case.
fn remote_column(server: &mut Client, remote: &str, local: &str) -> Result<String> {
    let query = "SELECT quote_ident(attname) FROM pg_attribute
                  WHERE attrelid = $1::text::regclass AND lower(attname) = lower($2) AND NOT attisdropped";
    let found = server.query_opt(query, &[&remote, &local])?;
    Ok(found.with_context(|| format!("{remote} has no column {local}"))?.get(0))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
