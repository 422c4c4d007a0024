//! A local side of which each call is made of the model and of a file.

use std::mem::discriminant;
use std::path::PathBuf;

use plimsoll_client::config::TableConfig;
use plimsoll_client::source::plan::TablePlan;
use plimsoll_client::source::{Place, open_writable};
use plimsoll_client::two_way::{Guarding, LocalTable, LocalTables, MadeOf};
use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::schema::{Column, Roles, TableSchema};
use plimsoll_core::store::{
    Applied, BaseInfo, BatchId, Conclusion, Failure, LocalHeld, LocalRow, LocalSide, LocalStates,
    MemoryEntry, MemoryKey, Outcome, Pending, PositionRange, Recollection, SourceKey, SourceRecord, TableId,
};
use plimsoll_core::value::ColumnType;

use crate::kept;
use crate::model::{LOST_AFTER, World};

fn schema() -> TableSchema {
    let column = |(number, name): (u32, &str)| Column {
        number,
        name: name.to_owned(),
        column_type: ColumnType::Int8,
        not_null: true,
    };
    let columns = [(1, "id"), (2, "revision"), (3, "edit"), (4, "second")].map(column).to_vec();
    let roles = Roles { key: &["id"], version: Some("revision"), placed_by: &["id"], ..Roles::default() };
    TableSchema::new(columns, &roles).expect("a schema")
}

/// The side of the file, opened anew.
fn open(columns: i64) -> LocalTables {
    open_at(kept::with(|kept| kept.path()), MadeOf { keys: 0, columns })
}

/// The local side of a file.
pub fn open_at(path: PathBuf, made_of: MadeOf) -> LocalTables {
    let mut local = open_writable(&Place::Sqlite(path)).expect("a file");
    let config =
        TableConfig { name: "t".to_owned(), leave_out: vec!["part".to_owned()], ..TableConfig::default() };
    let plan = TablePlan::new(&local.table("t").expect("a table"), schema(), &config, &[]).expect("a plan");
    let store = local.into_store(vec![plan], FingerprintKey::new([7; 32])).expect("a store");
    let table = LocalTable {
        name: "t".to_owned(),
        local: "t".to_owned(),
        schema: schema(),
        merging: None,
        keeps_rows: false,
        made_of,
    };
    let mut tables = LocalTables::new(store, vec![table], Guarding::Off);
    // However few rows there are.
    tables.spool_from(0, tempfile::tempfile);
    tables
}

pub struct Both {
    model: World,
    file: LocalTables,
}

impl Both {
    pub fn new(world: &World) -> Self {
        let waits = world.with(|state| {
            !state.quiet && (state.refuses)(plimsoll_core::reconcile::Side::Local, 5).is_some()
        });
        kept::with(|kept| kept.allow(waits));
        Both { model: world.clone(), file: open(world.with(|state| state.columns)) }
    }

    /// Has the file do what the model did, unless that was lost before. Whatever the model answered, `None`.
    fn follow<T>(
        &mut self,
        model: &Outcome<T>,
        act: impl FnOnce(&mut LocalTables) -> Outcome<T>,
    ) -> Option<T> {
        let found = self.model.with(|state| state.found.clone());
        kept::with(|kept| kept.follow(&found));
        let was_made = match model {
            Ok(_) => true,
            Err(Failure { message, .. }) => message == LOST_AFTER,
        };
        if !was_made {
            // Who was killed comes back with nothing in mind.
            self.file = open(self.model.with(|state| state.columns));
            return None;
        }
        let done = act(&mut self.file).expect("the file does what the model does");
        let rows = self.model.with(|state| state.local.rows.rows.clone());
        kept::with(|kept| {
            assert_eq!(kept.read(), rows, "the rows of the file are those of the model");
            kept.rows = rows;
        });
        Some(done)
    }
}

/// The file's answer where the model gave one.
fn answer<T>(model: Outcome<T>, file: Option<T>, same: impl FnOnce(&T, &T)) -> Outcome<T> {
    let model = model?;
    let file = file.expect("an answer");
    same(&model, &file);
    Ok(file)
}

fn sorted<T: Clone, K: Ord>(list: &[T], key: impl Fn(&T) -> K) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort_by_key(key);
    list
}

impl LocalSide for Both {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        let model = self.model.change_token();
        let file = self.follow(&model, LocalTables::change_token);
        answer(model, file, |_, file| assert!(file.is_some()))
    }

    fn recall(&mut self, table: TableId) -> Outcome<Recollection> {
        let model = self.model.recall(table);
        let file = self.follow(&model, |file| file.recall(table));
        answer(model, file, |model, file| {
            let of = |recalled: &Recollection| Recollection {
                entries: 0,
                closing: sorted(&recalled.closing, |key| *key),
                waiting: sorted(&recalled.waiting, |key| *key),
                ..recalled.clone()
            };
            assert_eq!(of(file), of(model));
            assert!(file.entries + file.open >= model.entries && file.entries <= model.entries);
        })
    }

    fn begin_base(&mut self, table: TableId, info: BaseInfo) -> Outcome<()> {
        let model = self.model.begin_base(table, info);
        let file = self.follow(&model, |file| file.begin_base(table, info));
        answer(model, file, |_, _| {})
    }

    fn complete_base(&mut self, table: TableId) -> Outcome<()> {
        let model = self.model.complete_base(table);
        let file = self.follow(&model, |file| file.complete_base(table));
        answer(model, file, |_, _| {})
    }

    fn forget_open(&mut self, table: TableId, last: BatchId) -> Outcome<()> {
        let model = self.model.forget_open(table, last);
        let file = self.follow(&model, |file| file.forget_open(table, last));
        answer(model, file, |_, _| {})
    }

    fn held(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<LocalHeld>> {
        let model = self.model.held(table, ranges);
        let file = self.follow(&model, |file| file.held(table, ranges));
        answer(model, file, |model, file| assert_eq!(file, model))
    }

    fn states(
        &mut self,
        table: TableId,
        ranges: &[PositionRange],
        later: &[Vec<PositionRange>],
    ) -> Outcome<LocalStates> {
        let model = self.model.states(table, ranges, later);
        let file = self.follow(&model, |file| file.states(table, ranges, later));
        answer(model, file, |model, file| {
            let rows = |states: &LocalStates| sorted(&states.rows, LocalRow::memory_key);
            let entries = |states: &LocalStates| sorted(&states.entries, |entry: &MemoryEntry| entry.key);
            assert_eq!(rows(file), rows(model));
            assert_eq!(entries(file), entries(model));
        })
    }

    fn lookup(
        &mut self,
        table: TableId,
        keys: &[SourceKey],
        bytes: usize,
    ) -> Outcome<Vec<Option<SourceRecord>>> {
        let model = self.model.lookup(table, keys, bytes);
        let file = self.follow(&model, |file| file.lookup(table, keys, bytes));
        answer(model, file, |model, file| {
            assert!(!file.is_empty() || keys.is_empty());
            model.iter().zip(file).for_each(|(model, file)| assert_eq!(file, model));
        })
    }

    fn prepare(&mut self, table: TableId, pending: &Pending) -> Outcome<()> {
        let model = self.model.prepare(table, pending);
        let file = self.follow(&model, |file| file.prepare(table, pending));
        answer(model, file, |_, _| {})
    }

    fn conclude(&mut self, table: TableId, conclusion: &Conclusion) -> Outcome<Vec<Applied>> {
        let model = self.model.conclude(table, conclusion);
        let file = self.follow(&model, |file| file.conclude(table, conclusion));
        answer(model, file, |model, file| {
            let sorts = |applied: &[Applied]| {
                let waits = |applied: &Applied| matches!(applied, Applied::Refused { waits: true, .. });
                applied.iter().map(|one| (discriminant(one), waits(one))).collect::<Vec<_>>()
            };
            assert_eq!(sorts(file), sorts(model), "{file:?} {conclusion:#?}");
        })
    }

    fn closed(&mut self, table: TableId, keys: &[MemoryKey]) -> Outcome<()> {
        let model = self.model.closed(table, keys);
        let file = self.follow(&model, |file| file.closed(table, keys));
        answer(model, file, |_, _| {})
    }
}
