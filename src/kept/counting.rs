//! What the triggers of this backend count while a piece of work goes on: the proof that rows were stored as
//! they were sent.

use std::cell::{Cell, RefCell};

use pgrx::Uuid;
use plimsoll_core::digest::RowDigest;
use plimsoll_core::fingerprint::Fingerprint;

use crate::access::Database;
use crate::table::ManagedTable;

/// Rows of a replica that statements added and took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// The rows as they are after the statements.
    pub added: Fingerprint,
    /// The rows as they were before them.
    pub removed: Fingerprint,
}

struct Active {
    number: u64,
    table_id: i32,
    database_id: Uuid,
    counted: Counted,
}

thread_local! {
    static ACTIVE: RefCell<Vec<Active>> = const { RefCell::new(Vec::new()) };
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Counts what happens to one replica, by whatever statement, until it is asked or dropped.
#[must_use]
pub struct Counting {
    number: u64,
}

impl Counting {
    /// Begins to count; `None` where no triggers are kept on the table.
    pub fn begin(table: &ManagedTable, database: &Database) -> Option<Counting> {
        if !table.keep_manifest {
            return None;
        }
        let number = NUMBER.get() + 1;
        NUMBER.set(number);
        let (table_id, database_id) = (table.table_id, database.id);
        let active = Active { number, table_id, database_id, counted: Counted::default() };
        ACTIVE.with_borrow_mut(|list| list.push(active));
        Some(Counting { number })
    }

    /// What was counted since.
    pub fn end(self) -> Counted {
        let number = self.number;
        let find = |list: &Vec<Active>| list.iter().find(|active| active.number == number).map(|a| a.counted);
        ACTIVE.with_borrow(find).unwrap_or_default()
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        ACTIVE.with_borrow_mut(|list| list.retain(|active| active.number != self.number));
    }
}

/// Counts a row that a trigger was told of.
pub fn count(table_id: i32, database_id: Uuid, digest: &RowDigest, added: bool) {
    ACTIVE.with_borrow_mut(|list| {
        for active in list {
            if active.table_id == table_id && active.database_id == database_id {
                let counted = &mut active.counted;
                if added { counted.added.insert(digest) } else { counted.removed.insert(digest) }
            }
        }
    });
}
