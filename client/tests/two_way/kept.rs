//! The file that keeps what the model's local side has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

use plimsoll_core::reconcile::Side;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::model::{Row, State};

/// Refuses what the model's local side refuses.
const REFERENCE: &str = "part INTEGER GENERATED ALWAYS AS (edit % 23) VIRTUAL REFERENCES allowed";
const CHECK: &str = " CHECK (edit % 23 <> 3)";

/// A file, and what the application last wrote to it.
pub struct Kept {
    folder: TempDir,
    /// Rows as they are in the file.
    pub rows: BTreeMap<u64, Row>,
    backups: Vec<BTreeMap<u64, Row>>,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// Works with the file of the history under way.
pub fn with<T>(work: impl FnOnce(&mut Kept) -> T) -> T {
    KEPT.with_borrow_mut(|kept| work(kept.as_mut().expect("a history began")))
}

impl Kept {
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("local.db")
    }

    fn copy(&self, place: usize) -> PathBuf {
        self.folder.path().join(format!("backup {place}.db"))
    }

    fn open(&self) -> Connection {
        let connection = Connection::open(self.path()).expect("a file");
        // An application that minds no constraint: what it writes is refused of nobody else.
        let lax = "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; PRAGMA synchronous = OFF";
        connection.execute_batch(lax).expect("lax");
        connection
    }

    /// Writes what an application wrote in the model.
    pub fn follow(&mut self, rows: &BTreeMap<u64, Row>) {
        if self.rows == *rows {
            return;
        }
        let mut connection = self.open();
        let transaction = connection.transaction().expect("begun");
        for id in self.rows.keys().filter(|id| !rows.contains_key(id)) {
            transaction.execute("DELETE FROM t WHERE id = ?", [*id as i64]).expect("deleted");
        }
        for (id, row) in rows.iter().filter(|(id, row)| self.rows.get(id) != Some(row)) {
            let values = [*id as i64, row.revision, row.edit as i64, row.second];
            let sql = "INSERT OR REPLACE INTO t (id, revision, edit, second) VALUES (?, ?, ?, ?)";
            transaction.execute(sql, values).expect("written");
        }
        transaction.commit().expect("committed");
        self.rows.clone_from(rows);
    }

    /// The rows in the file.
    pub fn read(&self) -> BTreeMap<u64, Row> {
        let connection = self.open();
        let mut statement = connection.prepare("SELECT id, revision, edit, second FROM t").expect("a table");
        let rows = statement.query_map([], |row| {
            let row_of =
                Row { revision: row.get(1)?, edit: row.get::<_, i64>(2)? as usize, second: row.get(3)? };
            Ok((row.get::<_, i64>(0)? as u64, row_of))
        });
        rows.expect("rows").collect::<Result<_, _>>().expect("rows")
    }

    /// Which rows wait.
    pub fn allow(&self, waits: bool) {
        let connection = self.open();
        let sql = if waits {
            "DELETE FROM allowed WHERE n = 5"
        } else {
            "INSERT OR IGNORE INTO allowed VALUES (5)"
        };
        connection.execute_batch(sql).expect("allowed");
    }
}

/// A history begins.
pub fn begin(state: &State) {
    // In memory, where that can be had: nothing here asks what a power failure leaves.
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let kept = Kept { folder, rows: BTreeMap::new(), backups: Vec::new() };
    let check = if (state.refuses)(Side::Local, 3).is_some() { CHECK } else { "" };
    let sql = format!(
        "CREATE TABLE allowed (n INTEGER PRIMARY KEY);
         WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 22)
         INSERT INTO allowed SELECT n FROM n;
         CREATE TABLE t (
             id INTEGER PRIMARY KEY,
             revision INTEGER NOT NULL,
             edit INTEGER NOT NULL{check},
             second INTEGER NOT NULL,
             {REFERENCE});"
    );
    kept.open().execute_batch(&sql).expect("tables");
    KEPT.set(Some(kept));
}

/// The local side is as it is in a backup from now on, which has this place among all.
pub fn back_up(state: &State, place: usize) {
    with(|kept| {
        kept.follow(&state.local.rows.rows);
        std::fs::copy(kept.path(), kept.copy(place)).expect("copied");
        kept.backups.push(kept.rows.clone());
    });
}

/// It is that of this backup again.
pub fn restore(state: &State, place: usize) {
    with(|kept| {
        std::fs::copy(kept.copy(place), kept.path()).expect("copied");
        kept.rows.clone_from(&kept.backups[place]);
        assert_eq!(kept.rows, state.local.rows.rows, "the backup is the model's");
    });
}

/// Its memory is gone.
pub fn forget(_: &State) {
    with(|kept| {
        let connection = kept.open();
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'plimsoll%'";
        let mut statement = connection.prepare(sql).expect("tables");
        let names = statement.query_map([], |row| row.get(0)).expect("names");
        let names: Vec<String> = names.collect::<Result<_, _>>().expect("names");
        names
            .iter()
            .for_each(|name| connection.execute_batch(&format!("DROP TABLE {name}")).expect("dropped"));
    });
}
