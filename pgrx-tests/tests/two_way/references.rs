//! Tables that refer to each other, each in both directions: what a foreign key would do to rows of another table is decided
//! upon there, and a row goes once nothing refers to it any more.

use plimsoll_tests::{Agent, Finished, Kind, LocalDatabase, LocalSession, Site, shared};
use postgres::Client;

/// Orders with their items, and a tree; `memo` is in no configuration.
pub fn tables(tenant: &str, action: &str) -> String {
    let (declared, own) = match tenant {
        "" => ("", ""),
        _ => ("client_id text NOT NULL, database_id uuid NOT NULL, ", "client_id, database_id, "),
    };
    let refers = |column: &str, to: &str| {
        format!("FOREIGN KEY ({own}{column}) REFERENCES {to} ({own}id) ON DELETE {action}")
    };
    format!(
        "CREATE TABLE orders ({declared}id INT NOT NULL, note VARCHAR(50), version BIGINT NOT NULL, PRIMARY KEY ({own}id));
         CREATE TABLE item ({declared}id INT NOT NULL, orders INT, note VARCHAR(50), version BIGINT NOT NULL,
             PRIMARY KEY ({own}id), {});
         CREATE TABLE node ({declared}id INT NOT NULL, up INT, note VARCHAR(50), version BIGINT NOT NULL,
             PRIMARY KEY ({own}id), {});
         CREATE TABLE memo ({declared}orders INT, {})",
        refers("orders", "orders"),
        refers("up", "node"),
        refers("orders", "orders")
    )
}

const TABLES: [&str; 3] = ["orders", "item", "node"];

pub fn site(action: &str) -> Site<'static> {
    let site = Site::new(shared());
    let manage: String = TABLES
        .iter()
        .map(|table| {
            format!("SELECT plimsoll.manage_table('{table}', version_column => 'version', version_scope => 'row');")
        })
        .collect();
    site.superuser()
        .batch_execute(&format!(
            "GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner}; {}; RESET ROLE; {manage}",
            tables("tenant", action),
            owner = site.owner
        ))
        .expect("managed tables");
    site
}

/// Both sides.
pub struct Pair<'s> {
    site: &'s Site<'static>,
    pub agent: Agent,
    pub here: LocalSession,
    there: Client,
}

impl<'s> Pair<'s> {
    pub fn new(site: &'s Site<'static>, local: &LocalDatabase) -> Self {
        let agent = site.agent_of("acme", local.setting());
        let tables = TABLES.map(|table| format!("[[table]]\nname = \"{table}\"\ndirection = \"two-way\"\n"));
        agent.write_config(&tables.concat());
        Pair { site, agent, here: local.connect(), there: site.owner() }
    }

    /// Runs statements there; `$T` stands for the tenant.
    #[track_caller]
    pub fn there(&mut self, sql: &str) {
        let tenant = format!("'{}', '{}'::uuid", self.agent.client_id, self.agent.registered.id);
        self.there
            .batch_execute(&sql.replace("$T", &tenant))
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    #[track_caller]
    pub fn sync(&self) -> Finished {
        self.agent.sync().expect_code(0)
    }

    /// The rows of a query of one text.
    fn texts_here(&mut self, sql: &str) -> Vec<String> {
        self.here.rows(sql).into_iter().flatten().map(Option::unwrap_or_default).collect()
    }

    pub fn rows(&mut self, table: &str) -> [Vec<String>; 2] {
        let column = match table {
            "item" => "COALESCE(orders, 0)",
            "node" => "COALESCE(up, 0)",
            _ => "0",
        };
        let sql =
            format!("SELECT id || ',' || {column} || ',' || note || ',' || version FROM {table} ORDER BY id");
        let there = self.there.query(&sql, &[]).expect("rows").iter().map(|row| row.get(0)).collect();
        [self.texts_here(&sql), there]
    }

    /// Both sides have the same rows; how many of each table.
    #[track_caller]
    fn level(&mut self) -> [usize; 3] {
        TABLES.map(|table| self.same(table))
    }

    /// Both sides have the same rows of a table; how many.
    #[track_caller]
    fn same(&mut self, table: &str) -> usize {
        let [here, there] = self.rows(table);
        assert_eq!(here, there, "{table}");
        here.len()
    }

    /// Which of these ids each side has.
    fn ids(&mut self, table: &str, of: std::ops::Range<i64>) -> [Vec<i64>; 2] {
        let id = |row: &String| row.split(',').next().and_then(|id| id.parse::<i64>().ok()).expect("an id");
        self.rows(table).map(|rows| rows.iter().map(id).filter(|id| of.contains(id)).collect())
    }

    /// The open records of a table's key: each with its kind, side and reason.
    fn record(&mut self, table: &str, id: i64) -> Option<(i64, String)> {
        let sql = "SELECT conflict_id, concat_ws(' ', kind, side, reason) FROM plimsoll.conflicts
             WHERE relation = 'public.' || $1 AND (key->>'id')::int8 = $2 AND closed_at IS NULL";
        let row = self.site.superuser().query_opt(sql, &[&table, &id]).expect("records");
        row.map(|row| (row.get(0), row.get(1)))
    }

    #[track_caller]
    fn decide(&mut self, table: &str, id: i64, keep: &str) {
        let (conflict, _) = self.record(table, id).expect("a record");
        self.site
            .superuser()
            .execute("SELECT plimsoll.resolve_conflict($1, $2)", &[&conflict, &keep])
            .expect("a decision");
    }
}

/// Thirty orders of two items each, and trees of five nodes, on both sides.
fn fill(pair: &mut Pair<'_>) {
    let list = |row: &dyn Fn(i64) -> String, of: std::ops::RangeInclusive<i64>| {
        of.map(row).collect::<Vec<_>>().join(", ")
    };
    let orders = list(&|id| format!("({id}, 'order', 1)"), 1..=30);
    let item = |number: i64| move |id: i64| format!("({}, {id}, 'item', 1)", id * 10 + number);
    let items = [list(&item(0), 1..=30), list(&item(1), 1..=30)].join(", ");
    // In each tree 1 has 2 and 3, 2 has 4, and 4 has 5.
    let tree = |ten: i64| {
        let node = |(id, up): (i64, Option<i64>)| {
            let up = up.map_or("NULL".to_owned(), |up| (ten * 10 + up).to_string());
            format!("({}, {up}, 'node', 1)", ten * 10 + id)
        };
        [(1, None), (2, Some(1)), (3, Some(1)), (4, Some(2)), (5, Some(4))].map(node).join(", ")
    };
    let nodes = list(&tree, 1..=12);
    pair.here.run(&format!(
        "INSERT INTO orders VALUES {orders}; INSERT INTO item VALUES {items}; INSERT INTO node VALUES {nodes}"
    ));
    pair.sync();
    assert_eq!(pair.level(), [30, 60, 60]);
}

/// Deletes an order and its items on a side.
const DELETED: [&str; 2] = ["DELETE FROM item WHERE orders = ", "DELETE FROM orders WHERE id = "];

fn delete(id: i64) -> String {
    DELETED.map(|sql| format!("{sql}{id}")).join("; ")
}

fn play(pair: &mut Pair<'_>) {
    fill(pair);
    together(pair);
    new_ones(pair);
    changed_there(pair);
    changed_here(pair);
    trees(pair);
}

/// What goes as a whole on one side goes on the other, in one run.
fn together(pair: &mut Pair<'_>) {
    pair.here.run(&delete(7));
    pair.there(&delete(8));
    pair.sync();
    assert_eq!(pair.level(), [28, 56, 60]);
    assert_eq!(pair.ids("orders", 7..9), [const { Vec::<i64>::new() }; 2]);
    assert!(pair.record("orders", 7).is_none() && pair.record("orders", 8).is_none());
}

/// A new order comes with its items, from either side.
fn new_ones(pair: &mut Pair<'_>) {
    pair.here.run(
        "INSERT INTO orders VALUES (31, 'here', 1); INSERT INTO item VALUES (310, 31, 'here', 1), (311, 31, 'here', 1)",
    );
    pair.there(
        "INSERT INTO orders VALUES ($T, 32, 'there', 1);
         INSERT INTO item VALUES ($T, 320, 32, 'there', 1), ($T, 321, 32, 'there', 1)",
    );
    pair.sync();
    assert_eq!(pair.level(), [30, 60, 60]);
}

/// An order that is deleted here, while items of it are changed and added there: these stay, and so does it.
fn changed_there(pair: &mut Pair<'_>) {
    pair.here.run(&delete(5));
    pair.there(
        "UPDATE item SET note = 'changed', version = 2 WHERE id = 51;
         INSERT INTO item VALUES ($T, 59, 5, 'added', 1)",
    );
    for _ in 0..2 {
        pair.sync();
        assert_eq!(pair.ids("item", 50..60)[1], [51, 59], "what was changed there is there");
        assert_eq!(pair.ids("orders", 5..6)[1], [5]);
    }
    let (_, reason) = pair.record("orders", 5).expect("it waits");
    assert!(reason.starts_with("waiting remote") && reason.contains("item"), "{reason}");
    pair.decide("orders", 5, "remote");
    pair.sync();
    assert_eq!(pair.level(), [30, 60, 60]);
    assert_eq!(pair.ids("item", 50..60)[0], [51, 59]);
}

/// The other way round.
fn changed_here(pair: &mut Pair<'_>) {
    pair.there(&delete(6));
    pair.here.run(
        "UPDATE item SET note = 'changed', version = 2 WHERE id = 61; INSERT INTO item VALUES (69, 6, 'added', 1)",
    );
    for _ in 0..2 {
        pair.sync();
        assert_eq!(pair.ids("item", 60..70)[0], [61, 69], "what was changed here is here");
        assert_eq!(pair.ids("orders", 6..7)[0], [6]);
    }
    let (_, reason) = pair.record("orders", 6).expect("it waits");
    // SQLite names no table where it refuses by itself.
    let names = reason.contains("item") || reason.contains("FOREIGN KEY constraint failed");
    assert!(reason.starts_with("waiting local") && names, "{reason}");
    pair.decide("orders", 6, "local");
    pair.sync();
    assert_eq!(pair.level(), [30, 60, 60]);
    assert_eq!(pair.ids("item", 60..70)[1], [61, 69]);
}

/// Rows that refer to rows of their own table.
fn trees(pair: &mut Pair<'_>) {
    let cut = |ten: i64| {
        let ids = [5, 4, 3, 2, 1].map(|id| format!("DELETE FROM node WHERE id = {}", ten * 10 + id));
        ids.join("; ")
    };
    pair.here.run(&cut(1));
    pair.there(&cut(2));
    pair.sync();
    assert_eq!(pair.level(), [30, 60, 50]);
    // A leaf was changed on the other side: it stays, with all that it stands on.
    pair.here.run(&cut(3));
    pair.there("UPDATE node SET note = 'changed', version = 2 WHERE id = 35");
    pair.sync();
    assert_eq!(pair.ids("node", 30..40)[1], [31, 32, 34, 35]);
    pair.there(&cut(4));
    pair.here.run("UPDATE node SET note = 'changed', version = 2 WHERE id = 45");
    pair.sync();
    assert_eq!(pair.ids("node", 40..50)[0], [41, 42, 44, 45]);
}

/// Rows that refer to an order, of a table that is not synced: they stay, it stays, and a person is told which table it is.
fn unsynced(pair: &mut Pair<'_>) {
    pair.there("INSERT INTO memo VALUES ($T, 11)");
    pair.here.run("INSERT INTO memo VALUES (12)");
    pair.here.run(&delete(11));
    pair.there(&delete(12));
    for _ in 0..2 {
        pair.sync();
        assert_eq!((pair.ids("orders", 11..12)[1].len(), pair.ids("orders", 12..13)[0].len()), (1, 1));
        assert_eq!(pair.texts_here("SELECT orders FROM memo"), ["12"]);
    }
    for (id, side) in [(11, "remote"), (12, "local")] {
        let (_, reason) = pair.record("orders", id).expect("it waits");
        assert!(reason.starts_with(&format!("waiting {side}")) && reason.contains("memo"), "{reason}");
    }
    pair.there("DELETE FROM memo");
    pair.here.run("DELETE FROM memo");
    pair.sync();
    pair.same("orders");
    assert_eq!(pair.ids("orders", 11..13), [const { Vec::<i64>::new() }; 2]);
}

/// An order that is deleted here, whose items stay without one: they do there too, whatever the key says there.
fn emptied(pair: &mut Pair<'_>) {
    pair.here.run("DELETE FROM orders WHERE id = 15");
    pair.sync();
    assert_eq!(pair.ids("orders", 15..16), [const { Vec::<i64>::new() }; 2]);
    assert_eq!(pair.ids("item", 150..160), [vec![150, 151], vec![150, 151]]);
    assert_eq!(pair.same("item"), 60);
}

/// Plays it with tables whose foreign keys do this on either side.
fn with(kind: Kind, [here, there]: [&str; 2]) {
    let (site, local) = (site(there), LocalDatabase::new(kind));
    let mut pair = Pair::new(&site, &local);
    pair.here.run(&tables("", here));
    play(&mut pair);
    match here {
        "CASCADE" => unsynced(&mut pair),
        "SET NULL" => emptied(&mut pair),
        _ => {}
    }
}

/// More rows wait for others than are tried at a time: all of them go in one run, on either side.
#[test]
fn many_rows_go_with_those_that_refer_to_them_in_one_run() {
    let (site, local) = (site("CASCADE"), LocalDatabase::new(Kind::Sqlite));
    let mut pair = Pair::new(&site, &local);
    pair.here.run(&tables("", "CASCADE"));
    pair.here.run(
        "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000)
             SELECT i, 'order', 1 FROM n;
         INSERT INTO item SELECT id, id, 'item', 1 FROM orders;
         CREATE INDEX item_orders ON item (orders); CREATE INDEX memo_orders ON memo (orders)",
    );
    pair.there("CREATE INDEX ON item (client_id, database_id, orders)");
    pair.sync();
    pair.there("ANALYZE");
    pair.here.run("DELETE FROM item WHERE id <= 5000; DELETE FROM orders WHERE id <= 5000");
    pair.there("DELETE FROM item WHERE id > 45500; DELETE FROM orders WHERE id > 45500");
    pair.sync();
    assert_eq!([pair.same("orders"), pair.same("item")], [40_500, 40_500]);
}

/// What a person agreed to is used for the rows that go, and stays good for those that wait for others.
#[test]
fn an_approval_stays_good_for_rows_that_wait_for_others() {
    let (site, local) = (site("RESTRICT"), LocalDatabase::new(Kind::Sqlite));
    let mut pair = Pair::new(&site, &local);
    pair.here.run(&tables("", "RESTRICT"));
    pair.here.run(
        "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             SELECT i, 'order', 1 FROM n",
    );
    pair.sync();
    pair.here.run("INSERT INTO memo SELECT id FROM orders WHERE id <= 500");
    pair.there("DELETE FROM orders WHERE id <= 900");
    let released = "SELECT released FROM plimsoll_hold WHERE relation = 'orders'";
    pair.agent.sync().expect_code(1);
    assert_eq!(pair.rows("orders")[0].len(), 1_000);
    pair.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    assert_eq!((pair.rows("orders")[0].len(), pair.texts_here(released)), (600, vec!["500".to_owned()]));
    pair.here.run("DELETE FROM memo");
    pair.sync();
    assert_eq!((pair.same("orders"), pair.texts_here(released)), (100, vec!["0".to_owned()]));
}

/// What waits is tried again children first where something went, and in the first round alone where nothing did.
#[test]
fn rows_that_wait_are_tried_once_more_only_where_something_moved() {
    let (site, local) = (site("CASCADE"), LocalDatabase::new(Kind::Sqlite));
    let mut pair = Pair::new(&site, &local);
    pair.here.run(&tables("", "CASCADE"));
    fill(&mut pair);
    pair.here.run("INSERT INTO memo VALUES (12)");
    pair.there(&delete(12));
    // Each round ends with what became of the table.
    let rounds = |pair: &Pair<'_>| {
        let run = pair.agent.home.run(["sync"]).expect_code(0);
        run.stderr.lines().filter(|line| line.starts_with("orders: level")).count()
    };
    assert_eq!(rounds(&pair), 2, "it may fit once others are gone");
    for _ in 0..2 {
        assert_eq!(rounds(&pair), 1, "nothing moved");
        assert!(pair.record("orders", 12).is_some());
    }
    // An order waits for its items, which are gone there too.
    pair.there(&delete(13));
    assert_eq!(rounds(&pair), 3, "until no more of them go");
    assert_eq!(pair.ids("orders", 12..14), [vec![12], vec![]]);
    assert_eq!(rounds(&pair), 1, "nothing moved since");
}

#[test]
fn tables_that_cascade_go_both_ways() {
    Kind::ALL.into_iter().for_each(|kind| with(kind, ["CASCADE", "CASCADE"]));
}

#[test]
fn tables_that_restrict_go_both_ways() {
    Kind::ALL.into_iter().for_each(|kind| with(kind, ["RESTRICT", "RESTRICT"]));
}

#[test]
fn references_that_are_emptied_go_both_ways() {
    Kind::ALL.into_iter().for_each(|kind| with(kind, ["SET NULL", "CASCADE"]));
}

#[test]
fn tables_that_refer_on_one_side_alone_go_both_ways() {
    with(Kind::Sqlite, ["NO ACTION", "CASCADE"]);
}
