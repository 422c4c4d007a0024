//! How the rows of one local table become rows of its managed table: settled at the start of a run from
//! both schemas, with a refusal that names the column where they do not fit.

mod columns;
mod filter;

use plimsoll_core::schema::{Axis, TableSchema};
use plimsoll_core::store::{Failure, FailureKind, Outcome};
use plimsoll_core::value::adapt::Conversion;

use super::local::{LocalColumn, LocalTable};
use crate::config::TableConfig;
use crate::failure::{Advise, table as refused};
use columns::{Matched, find, match_columns, match_key};

/// Where the values of a managed column come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A local column, as they are or converted.
    Column(Option<Conversion>),
    /// The configuration: the same in all rows.
    Constant {
        /// The field in wire form.
        wire: Vec<u8>,
        /// The field in digest form.
        form: Vec<u8>,
    },
    /// Nowhere: the local table has no such column, and rows hold NULL in it.
    Absent,
}

/// What a managed column is locally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentColumn {
    /// The local column's name as declared; the managed column's, where no local one is sent.
    pub name: String,
    /// The declared type, as [`LocalColumn::declared`].
    pub declared: String,
    /// Whether it was declared NOT NULL.
    pub not_null: bool,
    /// Where its values come from.
    pub origin: Origin,
}

impl SentColumn {
    /// Whether a local column is sent.
    pub fn is_local(&self) -> bool {
        matches!(self.origin, Origin::Column(_))
    }

    /// How its values are converted, if they are.
    pub fn conversion(&self) -> Option<Conversion> {
        match self.origin {
            Origin::Column(conversion) => conversion,
            _ => None,
        }
    }
}

/// One local table on its way to one managed table. Selected columns stand in the order of the managed
/// table's columns.
#[derive(Debug, Clone)]
pub struct TablePlan {
    /// The local table's name as declared.
    pub table: String,
    /// The local table as it stands in a statement.
    pub relation: String,
    /// The managed table.
    pub schema: TableSchema,
    /// The local column for each column of the managed table.
    pub columns: Vec<SentColumn>,
    /// By which columns rows are read in order, behind the version where they stand at it: the places of the key's columns in
    /// the local key's own order. In a keyless table the row's id, whose place is behind the columns, or all columns.
    pub order: Vec<usize>,
    /// As [`LocalTable::row_id`], in keyless tables alone.
    pub row_id: Option<String>,
    /// As [`LocalTable::row_id`].
    pub scan_id: Option<String>,
    /// Whether rows may share a place in that order: equal ones, where a keyless table is read in the order of all columns.
    pub shares_places: bool,
    /// Whether an index leads with the version column, where rows stand at their version.
    pub indexed: bool,
    /// The condition that rows must fulfil to be there at all, in the local database's own SQL.
    pub filter: Option<String>,
    /// Local columns that are not sent, though nothing says so: the managed table does not have them.
    pub unsent: Vec<LocalColumn>,
    /// The places of the columns that the local database computes.
    pub generated: Vec<usize>,
}

impl TablePlan {
    /// Fits a local table to a managed one. `sent_before`: numbers of the columns that earlier runs sent.
    ///
    /// # Errors
    /// A `Table` failure that names the column and says what to do: a column that the other side cannot do without,
    /// another key or version than the server's, a key that no index makes unique, a setting that cannot be right.
    pub fn new(
        local: &LocalTable,
        schema: TableSchema,
        config: &TableConfig,
        sent_before: &[u32],
    ) -> Outcome<TablePlan> {
        let named = config.key.iter().flatten().chain(&config.leave_out);
        for name in named.chain(config.columns.keys()).chain(config.convert.keys()) {
            find(local, name)?;
        }
        let Matched { columns, unsent } = match_columns(local, &schema, config, sent_before)?;
        let scan_id = local.row_id.clone();
        let row_id = scan_id.clone().filter(|_| schema.is_keyless());
        let order = match (schema.is_keyless(), &row_id) {
            (false, _) => match_key(local, &schema, &columns, config)?,
            (true, Some(_)) => vec![columns.len()],
            (true, None) => own_order(local, &columns)
                .unwrap_or_else(|| (0..columns.len()).filter(|place| columns[*place].is_local()).collect()),
        };
        let shares_places = schema.is_keyless() && row_id.is_none() && own_order(local, &columns).is_none();
        if let (true, Some(key)) = (schema.is_keyless(), &config.key) {
            let message = format!("the local key is ({}), the managed table has none", key.join(", "));
            return Err(refused(message)
                .advise("take key = [..] out of the configuration, or manage the table again"));
        }
        let modified = schema.modified().map(|column| column.number);
        let place_of = |number| schema.columns().iter().position(|column| column.number == number);
        for (configured, role, found) in [
            (&config.version, "version", schema.version_index()),
            (&config.modified, "last-modified", modified.and_then(place_of)),
        ] {
            let Some(name) = configured else { continue };
            let column = find(local, name)?;
            if found.is_none_or(|place| columns[place].name != column.name) {
                let server =
                    found.map_or("none".to_owned(), |place| format!("\"{}\"", schema.columns()[place].name));
                return Err(refused(format!(
                    "the configured {role} column is \"{}\", the managed table's is {server}",
                    column.name
                ))
                .advise("correct the configuration, or manage the table again with the other column"));
            }
        }
        let indexed = match schema.axis() {
            Axis::Version(place) => local.is_indexed_by(&columns[place].name),
            Axis::Hash => false,
        };
        let is_generated = |place: &usize| {
            let own = local.columns.iter().find(|own| own.name == columns[*place].name);
            columns[*place].is_local() && own.is_some_and(|own| own.generated)
        };
        let generated = (0..columns.len()).filter(is_generated).collect();
        let (table, relation) = (local.name.clone(), local.relation.clone());
        let filter = config.filter.clone();
        Ok(TablePlan {
            table,
            relation,
            schema,
            columns,
            order,
            row_id,
            scan_id,
            shares_places,
            indexed,
            filter,
            unsent,
            generated,
        })
    }

    /// A number that is another whenever rows of the local table become other rows of the managed one.
    pub fn stamp(&self) -> i64 {
        // A cursor goes on in the order in which it was made.
        let read = format!("{:?} {:?} {:?} {:?}", self.table, self.filter, self.order, self.row_id);
        let columns = self.columns.iter().map(|column| format!("{column:?}"));
        self.schema.stamp_with(&columns.chain([read]).collect::<Vec<_>>())
    }

    /// A number that is another whenever rows have other keys, or are those of another local table.
    pub fn key_stamp(&self) -> i64 {
        let key = self.schema.key_indexes().iter().chain(self.schema.placed_by_indexes());
        let columns = key.filter_map(|place| self.columns.get(*place));
        let columns = columns.map(|column| format!("{:?} {:?}", column.name, column.origin));
        self.schema.key_stamp_with(&columns.chain([self.table.clone()]).collect::<Vec<_>>())
    }

    /// The condition that rows must fulfil, in brackets; `None` where all are taken.
    pub fn condition(&self) -> Option<String> {
        // A comment at its end ends there.
        self.filter.as_ref().map(|filter| format!("({filter}\n)"))
    }

    /// Whether other rows may fulfil it though nobody wrote to the database: it asks for the time.
    pub fn condition_may_move(&self) -> bool {
        self.filter.as_deref().is_some_and(filter::may_move)
    }

    /// A statement that the database takes only where the condition is one by itself: in the place of an operand, a bracket
    /// of its own cannot close the one that every other statement puts around it.
    pub fn condition_alone(&self) -> Option<String> {
        let filter = self.filter.as_ref()?;
        Some(format!("SELECT CASE WHEN {filter}\nTHEN 1 END FROM {} WHERE 1 = 0", self.relation))
    }

    /// The same behind `FROM`: with ` WHERE ` in front; nothing where all rows are taken.
    pub fn where_clause(&self) -> String {
        self.condition().map(|condition| format!(" WHERE {condition}")).unwrap_or_default()
    }

    /// Numbers of the managed columns that the local table does not have.
    pub fn absent(&self) -> impl Iterator<Item = u32> {
        let columns = self.columns.iter().zip(self.schema.columns());
        columns.filter(|(sent, _)| sent.origin == Origin::Absent).map(|(_, column)| column.number)
    }

    /// A failure of a statement on the table: where a condition of the configuration is part of it, that is said.
    pub fn explained(&self, failure: Failure) -> Failure {
        match &self.filter {
            // A hint of the database's own, such as a name that is much like the one it does not know, stays.
            Some(filter) if failure.kind == FailureKind::Table && is_of_statement(&failure) => {
                let message = format!("\"{}\" where {filter}: {}", self.table, failure.message);
                let sound =
                    "the condition where = \"..\" of the table is part of each statement: is it sound?";
                let hint = failure.hint.or_else(|| Some(sound.to_owned()));
                Failure { message, hint, ..failure }
            }
            _ => failure,
        }
    }

    /// The same table read in the order of its rows' ids, as it lies there; `None` where they have none, or rows are read
    /// in the order of their versions.
    pub fn by_row_id(&self) -> Option<TablePlan> {
        let row_id = self.scan_id.clone().filter(|_| self.version_place().is_none())?;
        Some(TablePlan { row_id: Some(row_id), order: vec![self.columns.len()], ..self.clone() })
    }

    /// The place of the version column, where rows stand at their version.
    pub fn version_place(&self) -> Option<usize> {
        match self.schema.axis() {
            Axis::Version(place) => Some(place),
            Axis::Hash => None,
        }
    }

    /// The local version column, where rows stand at their version.
    pub fn version(&self) -> Option<&SentColumn> {
        self.version_place().map(|place| &self.columns[place])
    }

    /// The places of the columns by which a person finds a row: the key's, all in a keyless table.
    pub fn shown(&self) -> impl Iterator<Item = usize> {
        let (key, all) = match self.schema.is_keyless() {
            true => (&[][..], self.columns.len()),
            false => (&self.order[..], 0),
        };
        key.iter().copied().chain((0..all).filter(|place| self.columns[*place].is_local()))
    }

    /// The key's columns in the local key's order; none in a keyless table.
    pub fn key_columns(&self) -> impl Iterator<Item = &str> {
        let order: &[usize] = if self.schema.is_keyless() { &[] } else { &self.order };
        order.iter().map(|place| self.columns[*place].name.as_str())
    }
}

/// The places of the local primary key's columns; `None` where there is none, or not all are sent.
fn own_order(local: &LocalTable, columns: &[SentColumn]) -> Option<Vec<usize>> {
    let key = local.primary_key();
    let place =
        |column: &&LocalColumn| columns.iter().position(|sent| sent.is_local() && sent.name == column.name);
    key.iter().map(place).collect::<Option<Vec<_>>>().filter(|places| !places.is_empty())
}

/// Whether a failure may be that of a condition: nothing else is known of it, or the statement was not understood.
fn is_of_statement(failure: &Failure) -> bool {
    let not_understood = ["42601", "42703", "42804", "42883"];
    failure.hint.is_none() || failure.sqlstate.as_deref().is_some_and(|code| not_understood.contains(&code))
}
