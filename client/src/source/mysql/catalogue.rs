//! What MariaDB and MySQL say of their tables.

use mysql_async::Row;
use mysql_async::prelude::FromValue;
use plimsoll_core::store::Outcome;

use super::dialect::quoted;
use super::session::Session;
use super::types::LocalType;
use crate::failure::{Advise, table as refused};
use crate::source::local::{Holds, LocalColumn, LocalIndex, LocalTable};
use crate::source::notes::is_note;

/// Tables whose rows a snapshot shows as they were when it began.
const TRANSACTIONAL: [&str; 3] = ["InnoDB", "ROCKSDB", "TokuDB"];
/// What is a table: views and sequences are none.
const TABLES: &str = "table_schema = DATABASE() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')";

/// A column of a catalogue's row; the catalogue answers what it is asked for.
fn cell<T: FromValue>(row: &Row, place: usize) -> Option<T> {
    row.get_opt(place).and_then(Result::ok)
}

fn text(row: &Row, place: usize) -> String {
    // Catalogues of MySQL 8 answer some texts as bytes.
    let bytes: Option<Vec<u8>> = cell::<Option<Vec<u8>>>(row, place).flatten();
    bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The names of all tables that an application made and that the user may see, in alphabetical order.
pub fn table_names(session: &mut Session) -> Outcome<Vec<String>> {
    let sql = format!("SELECT table_name FROM information_schema.tables WHERE {TABLES} ORDER BY table_name");
    let mut names: Vec<String> = session.rows(&sql, &[])?.iter().map(|row| text(row, 0)).collect();
    names.retain(|name| !is_note(name));
    names.sort_unstable();
    Ok(names)
}

/// A table by its name, as it is spelled, else in any case; and the name of its engine where that has no transactions.
pub fn read_table(session: &mut Session, name: &str) -> Outcome<(LocalTable, Option<String>)> {
    let sql = format!(
        "SELECT table_name, engine FROM information_schema.tables
         WHERE {TABLES} AND lower(table_name) = lower(?) ORDER BY CAST(table_name AS BINARY) = CAST(? AS BINARY) DESC"
    );
    let found = session.rows(&sql, &[name, name])?;
    let Some(found) = found.first() else {
        return Err(refused(format!("the local database has no table \"{name}\" that this user may read"))
            .advise("correct its name in the configuration, or GRANT SELECT on it to the user"));
    };
    let (name, engine) = (text(found, 0), text(found, 1));
    let columns = read_columns(session, &name)?;
    let indexes = read_indexes(session, &name)?;
    let mut table = LocalTable { relation: quoted(&name), name, columns, indexes: Vec::new(), row_id: None };
    for index in indexes {
        if index.is_primary() {
            for column in &mut table.columns {
                let place = index.columns.iter().position(|name| *name == column.name);
                column.key_place = place.and_then(|place| u32::try_from(place + 1).ok()).unwrap_or(0);
            }
        } else {
            table.indexes.push(LocalIndex { columns: index.columns, unique: index.is_unique });
        }
    }
    let is_transactional = TRANSACTIONAL.iter().any(|known| known.eq_ignore_ascii_case(&engine));
    Ok((table, (!is_transactional).then_some(engine)))
}

fn read_columns(session: &mut Session, table: &str) -> Outcome<Vec<LocalColumn>> {
    const SQL: &str =
        "SELECT column_name, column_type, is_nullable, character_set_name, collation_name, extra
         FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ?
         ORDER BY ordinal_position";
    let rows = session.rows(SQL, &[table])?;
    let json = if session.is_mariadb() { json_columns(session, table)? } else { Vec::new() };
    let column = |row: &Row| {
        let (name, mut declared, extra) = (text(row, 0), text(row, 1), text(row, 5).to_ascii_lowercase());
        let (charset, collation) = (text(row, 3), text(row, 4));
        if json.contains(&name) && declared.eq_ignore_ascii_case("longtext") {
            declared = "json".to_owned();
        } else if !charset.is_empty() {
            declared.push_str(&format!(" character set {charset} collate {collation}"));
        }
        if extra.contains("auto_increment") {
            declared.push_str(" auto_increment");
        }
        LocalColumn {
            holds: holds(&LocalType::parse(&declared)),
            name,
            declared,
            not_null: text(row, 2) == "NO",
            key_place: 0,
            generated: ["virtual generated", "stored generated", "persistent"]
                .iter()
                .any(|word| extra.contains(word)),
        }
    };
    Ok(rows.iter().map(column).collect())
}

/// JSON is no type of MariaDB's: it is LONGTEXT with a check.
fn json_columns(session: &mut Session, table: &str) -> Outcome<Vec<String>> {
    const SQL: &str = "SELECT check_clause FROM information_schema.check_constraints
         WHERE constraint_schema = DATABASE() AND table_name = ?";
    let checks = session.rows(SQL, &[table])?;
    let column = |row: &Row| {
        let check = text(row, 0);
        let name = check.strip_prefix("json_valid(`")?.strip_suffix("`)")?;
        Some(name.replace("``", "`"))
    };
    Ok(checks.iter().filter_map(column).collect())
}

fn holds(local: &LocalType) -> Holds {
    match local {
        LocalType::Integer { .. } => Holds::Numbers,
        LocalType::Datetime(_) | LocalType::Timestamp(_) => Holds::Stamps,
        LocalType::Text(_) => Holds::Text,
        _ => Holds::Other,
    }
}

/// An index, as far as it orders rows or makes them unique.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Its name; a primary key's is `PRIMARY`.
    pub name: String,
    /// Its columns up to the first that it holds in part, or downwards, or that is an expression.
    pub columns: Vec<String>,
    /// The columns by which it orders rows: those, and behind them the primary key's, which InnoDB adds to each.
    pub order: Vec<String>,
    /// Whether it makes `columns` unique.
    pub is_unique: bool,
}

impl Index {
    /// Whether rows that are read by it come in the order of these columns.
    pub fn orders(&self, columns: &[&str]) -> bool {
        !columns.is_empty()
            && columns.len() <= self.order.len()
            && columns.iter().zip(&self.order).all(|(wanted, column)| wanted == column)
    }

    fn is_primary(&self) -> bool {
        self.name == "PRIMARY" && self.is_unique
    }
}

/// The indexes of a table. One over the first characters of a column alone makes the column neither unique nor ordered: it
/// ends before that column.
pub fn read_indexes(session: &mut Session, table: &str) -> Outcome<Vec<Index>> {
    // Each of the two is told the table's name: by a comparison of both, all tables would be opened to find one.
    const SQL: &str =
        "SELECT s.index_name, s.column_name, s.non_unique, s.sub_part, s.index_type, s.collation, t.engine
         FROM information_schema.statistics s
         JOIN information_schema.tables t ON t.table_schema = DATABASE() AND t.table_name = ?
         WHERE s.table_schema = DATABASE() AND s.table_name = ?
         ORDER BY s.index_name = 'PRIMARY' DESC, s.index_name, s.seq_in_index";
    let mut indexes: Vec<Index> = Vec::new();
    let (mut cut, mut is_clustered) = (false, false);
    for row in session.rows(SQL, &[table, table])? {
        let (name, column, kind) = (text(&row, 0), text(&row, 1), text(&row, 4));
        if !matches!(kind.as_str(), "BTREE" | "HASH") {
            continue;
        }
        is_clustered = text(&row, 6).eq_ignore_ascii_case("InnoDB");
        // MariaDB makes long values unique by a hash of the whole of them, and calls that a part of them too.
        let is_hash = kind == "HASH";
        let is_partial = cell::<Option<i64>>(&row, 3).flatten().is_some() && !is_hash;
        if indexes.last().is_none_or(|last| last.name != name) {
            let is_unique = cell::<i64>(&row, 2) == Some(0);
            indexes.push(Index { name, columns: Vec::new(), order: Vec::new(), is_unique });
            cut = false;
        }
        let Some(index) = indexes.last_mut() else { continue };
        // An expression has no column's name.
        if is_partial || column.is_empty() {
            cut = true;
            index.is_unique = false;
        }
        if is_hash || cut || text(&row, 5) != "A" {
            // What makes unique without ordering has no order, and whatever follows neither.
            index.order.push(String::new());
        } else {
            index.order.push(column.clone());
        }
        if !cut {
            index.columns.push(column);
        }
    }
    let primary = indexes.iter().find(|index| index.is_primary()).map(|index| index.order.clone());
    for index in indexes.iter_mut().filter(|_| is_clustered) {
        for column in primary.iter().flatten() {
            if !index.order.contains(column) {
                index.order.push(column.clone());
            }
        }
    }
    indexes.retain(|index| !index.columns.is_empty());
    Ok(indexes)
}
