//! The judge of equality. Both sides are dumped as text by their own drivers and compared here: nothing of
//! `plimsoll-core` takes part.

use std::cmp::Ordering;

use postgres::Client;
use rusqlite::Connection;
use uuid::Uuid;

/// How many differing rows a message lists.
const SHOWN: usize = 10;

/// Which expressions give the text of one table's rows on either side.
#[derive(Debug, Clone)]
pub struct Comparison {
    table: String,
    relation: String,
    /// Column, local expression, remote expression.
    columns: Vec<(String, String, String)>,
}

impl Comparison {
    /// All columns of a local table, each cast to text by either side's SQL. `relation` is the managed table,
    /// as SQL writes it.
    pub fn of(local: &Connection, table: &str, relation: &str) -> Self {
        let mut statement = local.prepare("SELECT name FROM pragma_table_info(?1)").expect("a statement");
        let names = statement.query_map([table], |row| row.get::<_, String>(0)).expect("the columns");
        let columns: Vec<_> = names
            .map(|name| {
                let name = name.expect("a name");
                (name.clone(), format!("CAST(\"{name}\" AS TEXT)"), format!("\"{name}\"::text"))
            })
            .collect();
        assert!(!columns.is_empty(), "the local database has no table {table}");
        Comparison { table: table.to_owned(), relation: relation.to_owned(), columns }
    }

    /// Columns of a table of any local database, with the expressions of either side's SQL that write them as text.
    pub fn of_columns(table: &str, relation: &str, columns: &[(&str, &str, &str)]) -> Self {
        let owned = |(name, local, remote): &(&str, &str, &str)| {
            ((*name).to_owned(), (*local).to_owned(), (*remote).to_owned())
        };
        let columns = columns.iter().map(owned).collect();
        Comparison { table: table.to_owned(), relation: relation.to_owned(), columns }
    }

    /// The local expressions, separated by commas.
    pub fn local_list(&self) -> String {
        let list: Vec<&str> = self.columns.iter().map(|(_, local, _)| local.as_str()).collect();
        list.join(", ")
    }

    /// Says how a column whose text differs between the two products is written by either.
    #[track_caller]
    pub fn with(mut self, column: &str, local: &str, remote: &str) -> Self {
        let found = self.columns.iter_mut().find(|(name, ..)| name == column);
        let found = found.unwrap_or_else(|| panic!("no column {column}"));
        (found.1, found.2) = (local.to_owned(), remote.to_owned());
        self
    }

    /// The rows in which both sides differ, a line each; a row that is there twice on one side differs too.
    pub fn differences(&self, local: &Connection, server: &mut Client, database: Uuid) -> Vec<String> {
        self.differences_from(self.local_rows(local), server, database)
    }

    /// The same for local rows that were read elsewhere, each as [`line`] writes it.
    pub fn differences_from(
        &self,
        mut here: Vec<String>,
        server: &mut Client,
        database: Uuid,
    ) -> Vec<String> {
        let mut there = self.remote_rows(server, database);
        here.sort_unstable();
        there.sort_unstable();
        let mut differences = Vec::new();
        let (mut here, mut there) = (here.into_iter().peekable(), there.into_iter().peekable());
        loop {
            let order = match (here.peek(), there.peek()) {
                (Some(here), Some(there)) => here.cmp(there),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return differences,
            };
            let (here, there) = (here.next_if(|_| order.is_le()), there.next_if(|_| order.is_ge()));
            match order {
                Ordering::Less => differences.extend(here.map(|row| self.difference("local", &row))),
                Ordering::Greater => differences.extend(there.map(|row| self.difference("remote", &row))),
                Ordering::Equal => {}
            }
        }
    }

    fn difference(&self, side: &str, row: &str) -> String {
        format!("{}, only {side}: {row}", self.table)
    }

    fn local_rows(&self, local: &Connection) -> Vec<String> {
        let list: Vec<&str> = self.columns.iter().map(|(_, local, _)| local.as_str()).collect();
        let query = format!("SELECT {} FROM \"{}\"", list.join(", "), self.table);
        let mut statement = local.prepare(&query).expect("a statement");
        let mut rows = statement.query([]).expect("the local rows");
        let mut texts = Vec::new();
        while let Some(row) = rows.next().expect("a local row") {
            let value = |place| row.get_ref(place).expect("a column").as_str_or_null().expect("text");
            texts.push(line((0..list.len()).map(value)));
        }
        texts
    }

    fn remote_rows(&self, server: &mut Client, database: Uuid) -> Vec<String> {
        let list: Vec<&str> = self.columns.iter().map(|(.., remote)| remote.as_str()).collect();
        let query = format!("SELECT {} FROM {} WHERE database_id = $1", list.join(", "), self.relation);
        let rows = server.query(&query, &[&database]).expect("the remote rows");
        rows.iter().map(|row| line((0..list.len()).map(|place| row.get::<_, Option<&str>>(place)))).collect()
    }
}

/// A row's values, each with its length in front, so that no two rows have the same line.
pub fn line<'v>(values: impl Iterator<Item = Option<&'v str>>) -> String {
    let mut line = String::new();
    for value in values {
        match value {
            Some(text) => line.extend([&text.len().to_string(), ":", text, " "]),
            None => line.push_str("NULL "),
        }
    }
    line
}

/// Fails the test where a table's rows differ, with the first differing rows.
#[track_caller]
pub fn assert_equal(tables: &[Comparison], local: &Connection, server: &mut Client, database: Uuid) {
    for table in tables {
        let differences = table.differences(local, server, database);
        assert!(
            differences.is_empty(),
            "{} rows differ:\n{}",
            differences.len(),
            differences[..differences.len().min(SHOWN)].join("\n")
        );
    }
}
