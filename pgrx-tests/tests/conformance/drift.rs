//! Columns that come, go and change on either side, between two runs and during one: the table goes on where that is safe, or
//! stops by the column's name; the table beside it is never affected.

use std::time::{Duration, Instant};

use plimsoll_tests::{Finished, table_of};

use super::kind::{Cell, LocalKind, Table, Type};
use super::whole_way::Replica;

const ROWS: i64 = 300;

struct Drift<'c, K> {
    replica: Replica<'c, K>,
    /// Raised with each run, so that the table beside has something to send.
    turn: i64,
}

impl<K: LocalKind> Drift<'_, K> {
    fn new() -> Self {
        use Type::{Number, Text};
        let columns = [("id", Number), ("name", Text), ("qty", Number), ("v", Number)];
        let items = Table::new("items", &columns, &["id"], Some("v"));
        let others = Table::new("others", &[("id", Number), ("v", Number)], &["id"], Some("v"));
        let mut replica = Replica::<K>::new(&[&items, &others]);
        let row = |i: i64| -> Vec<Cell> { vec![i.into(), Cell::Text(format!("n {i}")), i.into(), i.into()] };
        replica.local.insert(&items, &(1..=ROWS).map(row).collect::<Vec<_>>());
        replica.local.insert(&others, &[vec![1.into(), 0.into()]]);
        let mut drift = Drift { replica, turn: 0 };
        assert_eq!(drift.sent(), (ROWS, 0));
        drift
    }

    /// Runs a statement on the local side, which calls the table and each column in brackets by its name.
    fn locally(&mut self, sql: &str) {
        let mut quoted = sql.to_owned();
        for name in ["items", "others", "id", "name", "title", "qty", "quantity", "v", "note"] {
            quoted = quoted.replace(&format!("[{name}]"), &K::quoted(name));
        }
        self.replica.local.run(&quoted);
    }

    fn remotely(&self, sql: &str) {
        self.replica.site.owner().batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
    }

    fn count(&self, sql: &str) -> i64 {
        self.replica.site.superuser().query_one(sql, &[]).expect("a count").get(0)
    }

    /// Makes a run in which the table beside has a row to send, and does.
    fn run(&mut self) -> Finished {
        self.turn += 1;
        let turn = self.turn;
        self.locally(&format!("UPDATE [others] SET [v] = {turn}"));
        let run = self.replica.home.run(["sync", "--json", "--quiet"]);
        let report = run.json();
        let others = table_of(&report, "others");
        assert!(others["failure"].is_null(), "{report}");
        assert_eq!(self.count("SELECT v FROM others"), turn);
        run
    }

    /// How many rows of the table were new and changed in a run that found nothing wrong.
    fn sent(&mut self) -> (i64, i64) {
        let report = self.run().expect_code(0).json();
        let items = table_of(&report, "items");
        let number = |name: &str| items[name].as_i64().unwrap_or_else(|| panic!("{report}"));
        (number("inserted"), number("updated"))
    }

    /// What the table stopped with.
    fn stops(&mut self) -> String {
        let report = self.run().expect_code(1).json();
        let failure = table_of(&report, "items")["failure"].clone();
        assert!(failure["hint"].is_string(), "{report}");
        format!(
            "{} ({})",
            failure["message"].as_str().expect("a message"),
            failure["hint"].as_str().expect("a hint")
        )
    }

    /// Why rows were rejected.
    fn reasons(&self) -> Vec<(i64, String)> {
        let sql = "SELECT count(*), sqlstate || ' ' || coalesce(column_name, '-') FROM plimsoll.rejected_rows GROUP BY 2";
        let rows = self.replica.site.superuser().query(sql, &[]).expect("reasons");
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    #[track_caller]
    fn assert_level(&self) {
        self.replica.home.run(["verify", "--quiet"]).expect_code(0);
    }
}

/// Columns are added, dropped and renamed on the local side, then on the server.
pub fn columns_come_and_go<K: LocalKind>() {
    let mut drift = Drift::<K>::new();
    drift.locally("ALTER TABLE [items] ADD COLUMN [note] VARCHAR(20)");
    drift.locally("UPDATE [items] SET [note] = 'noted' WHERE [id] <= 10");
    let run = drift.run().expect_code(0);
    assert!(run.stderr.contains("ALTER TABLE public.items ADD COLUMN note"), "{}", run.stderr);
    drift.remotely("ALTER TABLE items ADD COLUMN note text");
    assert_eq!(drift.sent(), (0, 10), "those alone that hold something");
    drift.assert_level();

    drift.locally("ALTER TABLE [items] DROP COLUMN [note]");
    let told = drift.stops();
    assert!(told.contains("column \"note\"") && told.contains("DROP COLUMN"), "{told}");
    assert_eq!(drift.count("SELECT count(*) FROM items WHERE note = 'noted'"), 10);
    drift.remotely("ALTER TABLE items DROP COLUMN note");
    assert_eq!(drift.sent(), (0, 0));
    drift.assert_level();

    drift.locally("ALTER TABLE [items] RENAME COLUMN [name] TO [title]");
    let told = drift.stops();
    assert!(told.contains("columns = { \"title\" = \"name\" }"), "{told}");
    drift.remotely("ALTER TABLE items RENAME name TO title");
    assert_eq!(drift.sent(), (0, 0));
    drift.assert_level();
}

/// The server's columns become wider, narrower, and needed.
pub fn columns_change<K: LocalKind>() {
    let mut drift = Drift::<K>::new();
    drift.remotely("ALTER TABLE items ALTER name TYPE varchar(10)");
    assert_eq!(drift.sent(), (0, 0));
    drift.assert_level();
    drift.locally("UPDATE [items] SET [name] = 'longer than ten', [v] = 1001 WHERE [id] = 7");
    drift.locally("UPDATE [items] SET [name] = 'short', [v] = 1002 WHERE [id] = 8");
    assert_eq!(drift.sent(), (0, 1));
    assert_eq!(drift.reasons(), [(1, "22001 name".to_owned())]);
    drift.remotely("ALTER TABLE items ALTER name TYPE text");
    assert_eq!(drift.sent(), (0, 1), "the one that was too long");
    drift.assert_level();

    drift.remotely("ALTER TABLE items ALTER qty SET NOT NULL");
    drift.locally("UPDATE [items] SET [qty] = NULL, [v] = 1003 WHERE [id] = 9");
    assert_eq!(drift.sent(), (0, 0));
    assert_eq!(drift.reasons(), [(1, "23502 qty".to_owned())]);
    drift.remotely("ALTER TABLE items ALTER qty DROP NOT NULL");
    assert_eq!(drift.sent(), (0, 1));
    drift.assert_level();
}

/// A column goes while its rows are read.
pub fn a_column_goes_meanwhile<K: LocalKind>() {
    let mut drift = Drift::<K>::new();
    let config = std::fs::read_to_string(drift.replica.home.path("plimsoll.toml")).expect("a configuration");
    let limited = config.replacen("[source]", "[sync]\nmax_batch_rows = 3\n\n[source]", 1);
    drift.replica.home.write("plimsoll.toml", &limited);
    drift.locally("UPDATE [items] SET [v] = [v] + 1000, [qty] = [qty] + 1");
    let run = drift.replica.home.start(["sync", "--json", "--quiet"]);
    let begun = Instant::now();
    while drift.count("SELECT count(*) FROM items WHERE v > 1000") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is sent");
    }
    drift.locally("ALTER TABLE [items] RENAME COLUMN [qty] TO [quantity]");
    let run = run.wait(Duration::from_secs(60));
    let report = run.json();
    let failure = table_of(&report, "items")["failure"].to_string();
    assert!(run.code == Some(1) && failure.contains("qty"), "{run:?}");
    assert!(table_of(&report, "others")["failure"].is_null(), "{report}");
    assert_eq!(drift.count("SELECT count(*) FROM items WHERE qty IS NULL OR qty NOT IN (id, id + 1)"), 0);
    drift.locally("ALTER TABLE [items] RENAME COLUMN [quantity] TO [qty]");
    drift.sent();
    drift.assert_level();
}
