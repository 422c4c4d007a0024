//! Local databases that are written to: what is stored is what was given or is refused with the reason, a row that is
//! refused undoes no other, and whoever else writes loses nothing.

mod large;
mod rows;
mod transactions;

use plimsoll_client::config::TableConfig;
use plimsoll_client::source;
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::write::{Expected, LocalStore, RowChange, RowSeen, Tally};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::TableSchema;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{Applied, Failure, FailureKind, PositionRange, SourceRow};

use super::kind::{Cell, KEY, LocalKind, Table, Type};
use super::model::{row_of, sort};

pub use large::{large_values_are_stored, many_rows_are_written};
pub use rows::{
    a_refused_row_undoes_no_other, constraints_that_are_put_off_undo_no_other_row,
    one_of_several_rows_of_a_key_goes_beside_another_alone,
    rows_are_stored_as_given_and_changed_where_they_are_expected, rows_without_a_key_are_counted,
    unique_values_that_rows_exchange_arrive, what_a_table_does_not_keep_as_given_is_refused,
    who_holds_a_unique_value_is_told,
};
pub use transactions::{
    an_application_that_writes_meanwhile_loses_nothing, notes_are_kept_with_the_rows,
    what_is_held_is_one_transaction, what_others_commit_is_seen_where_all_is_one_transaction,
};

/// The store over tables, with what the configuration says of each.
pub fn store_of<K: LocalKind>(
    local: &K,
    tables: &[(&Table, TableSchema, TableConfig)],
) -> Box<dyn LocalStore> {
    let mut opened = source::open_writable(&local.place()).unwrap_or_else(|failure| panic!("{failure}"));
    let plan = |(table, schema, config): &(&Table, TableSchema, TableConfig)| {
        let config = TableConfig { name: K::configured(&table.name), ..config.clone() };
        let found = opened.table(&config.name).unwrap_or_else(|failure| panic!("{failure}"));
        TablePlan::new(&found, schema.clone(), &config, &[]).unwrap_or_else(|failure| panic!("{failure}"))
    };
    let plans = tables.iter().map(plan).collect();
    opened.into_store(plans, FingerprintKey::new(KEY)).unwrap_or_else(|failure| panic!("{failure}"))
}

/// One table that is written to.
pub struct Fixture<K> {
    pub local: K,
    table: Table,
    pub schema: TableSchema,
    pub store: Box<dyn LocalStore>,
}

impl<K: LocalKind> Fixture<K> {
    /// A table that `sql` makes, whose managed columns are these.
    pub fn new(sql: &str, table: Table, config: TableConfig) -> Self {
        let mut local = K::new();
        local.allow_writing();
        local.run(sql);
        let schema = table.schema(&[]);
        let store = store_of(&local, &[(&table, schema.clone(), config)]);
        Fixture { local, table, schema, store }
    }

    fn row(&self, cells: &[Cell]) -> SourceRow {
        row_of(&self.schema, cells)
    }

    pub fn apply(&mut self, changes: &[RowChange<'_>]) -> (Vec<String>, Tally) {
        apply(self.store.as_mut(), changes)
    }

    fn upsert(&mut self, rows: &[SourceRow]) -> Vec<String> {
        self.apply(&upserts(rows, Expected::Anything)).0
    }

    pub fn has(&mut self, expected: &[SourceRow]) {
        let mut found = rows(self.store.as_mut());
        let mut expected = expected.to_vec();
        sort(&mut found);
        sort(&mut expected);
        assert_eq!(found, expected, "{}", self.table.name);
    }

    /// Texts of a query, row by row.
    fn texts(&mut self, columns: &[(&str, Type)]) -> Vec<Vec<Option<String>>> {
        let mut rows = self.local.texts(&Table::new(&self.table.name, columns, &[], None));
        rows.sort();
        rows
    }
}

pub fn upserts(rows: &[SourceRow], expected: Expected) -> Vec<RowChange<'_>> {
    rows.iter().map(|row| RowChange::Upsert { row, expected }).collect()
}

pub fn delete(row: &SourceRow, expected: Expected) -> RowChange<'_> {
    RowChange::Delete { position: row.item.position, key: &row.key, expected }
}

pub fn digest(row: &SourceRow) -> Expected {
    Expected::Row(ShortItem::from(&row.item).digest)
}

/// Makes changes in a transaction; what became of each in a word.
pub fn apply(store: &mut dyn LocalStore, changes: &[RowChange<'_>]) -> (Vec<String>, Tally) {
    let (mut answers, mut tally) = (Vec::new(), Tally::default());
    store
        .transact(&mut |transaction| {
            answers = transaction.apply(0, changes)?;
            tally = transaction.tally();
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    (answers.iter().map(word).collect(), tally)
}

/// Which of these deletes find their rows.
pub fn finds(store: &mut dyn LocalStore, deletes: &[RowChange<'_>]) -> Vec<usize> {
    let mut found = Vec::new();
    store
        .transact(&mut |transaction| {
            found = transaction.finds(0, deletes)?;
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    found
}

pub fn word(answer: &Applied) -> String {
    match answer {
        Applied::Done => "done".to_owned(),
        Applied::Changed => "changed".to_owned(),
        Applied::Held => "held".to_owned(),
        Applied::Refused { waits, reason } => {
            assert!(!reason.message.is_empty(), "{reason:?}");
            let waits = if *waits { " waits" } else { "" };
            let column = reason.column.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
            format!("{}{waits}{column}", reason.sqlstate)
        }
    }
}

/// All rows of the first table.
fn rows(store: &mut dyn LocalStore) -> Vec<SourceRow> {
    let mut rows = Vec::new();
    store
        .look(&mut |look| {
            look.rows(0, &[PositionRange::ALL], &mut |row| match row {
                RowSeen::Row(row) => {
                    rows.push(row.clone());
                    Ok(())
                }
                RowSeen::Bad(bad) => panic!("{bad:?}"),
            })
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    rows
}

fn stop() -> Failure {
    Failure::new(FailureKind::Table, "enough")
}

/// Two columns and a key, as most of these tests need them.
pub fn simple(name: &str) -> Table {
    Table::new(name, &[("id", Type::Number), ("a", Type::Text)], &["id"], None)
}

pub fn cells(id: i64, text: &str) -> Vec<Cell> {
    vec![id.into(), text.into()]
}
