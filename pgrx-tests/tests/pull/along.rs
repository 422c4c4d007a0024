//! Rows that a local foreign key deletes, or empties, with those that are gone on the server: they count as what they are.

use plimsoll_tests::{Kind, LocalDatabase};

use crate::site::{ITEM, Pull, Table};

/// Rows that refer to items here, and to nothing on the server.
const LINE: Table = Table {
    name: "line",
    managed: "id bigint NOT NULL, item bigint, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id INTEGER PRIMARY KEY, item INTEGER REFERENCES item (id) ON DELETE CASCADE",
    text: "id || ',' || item",
};

/// Tables on hold, how many rows each is about, and why.
fn holds(pull: &Pull) -> Vec<Vec<Option<String>>> {
    let sql = "SELECT relation, planned, reason FROM plimsoll_hold WHERE since IS NOT NULL ORDER BY relation";
    pull.local.connect().rows(sql)
}

fn left(pull: &Pull, item: i64) -> usize {
    pull.local.connect().rows(&format!("SELECT 1 FROM own WHERE item = {item}")).len()
}

fn rows_of_a_table_that_is_not_pulled_count_toward_the_one_that_takes_them(kind: Kind) {
    for action in ["CASCADE", "SET NULL"] {
        let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM], "");
        pull.there("INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 100) i");
        pull.sync();
        pull.here(&format!(
            "CREATE TABLE own (item INTEGER REFERENCES item (id) ON DELETE {action});
             INSERT INTO own WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
                 SELECT 7 FROM n UNION ALL SELECT 8"
        ));
        pull.there("DELETE FROM item WHERE id = 7");
        for _ in 0..2 {
            let run = pull.agent.sync().expect_code(1);
            assert!(run.json().to_string().contains("\"status\":\"different\""), "{}", run.stdout);
            assert_eq!(left(&pull, 7), 900, "{action}");
        }
        assert!(pull.agent.sync().stderr.contains("on hold"), "{action}");
        pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
        pull.assert_level("a person agreed");
        assert_eq!(left(&pull, 7), 0, "{action}");
        // A few are nothing to ask about.
        pull.there("DELETE FROM item WHERE id = 8");
        pull.sync();
        pull.assert_level("one row with another");
        assert_eq!(left(&pull, 8), 0, "{action}");
    }
}

fn rows_of_a_pulled_table_count_toward_it(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM, &LINE], "");
    pull.there(
        "INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 1000) i;
         INSERT INTO line SELECT $T, i, CASE WHEN i <= 900 THEN 7 WHEN i <= 902 THEN 8 ELSE 9 END FROM generate_series(1, 2000) i",
    );
    pull.sync();
    pull.there("DELETE FROM item WHERE id = 7");
    pull.agent.sync().expect_code(1);
    assert_eq!((pull.rows(&ITEM).0.len(), pull.rows(&LINE).0.len()), (1_000, 2_000));
    let reason = "more rows to delete or set back here than the guard allows, with about 900 rows of \"line\" that go along";
    let item = ["item", "1", reason].map(|text| Some(text.to_owned())).to_vec();
    assert_eq!(holds(&pull), [item], "a person agrees to the item, and is told of the lines");
    pull.there("INSERT INTO item VALUES ($T, 7, 'back')");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    pull.assert_level("nothing to delete");
    // What went along is seen by the table's own run, and comes back once it may.
    pull.there("DELETE FROM item WHERE id = 8");
    pull.agent.sync();
    assert_eq!(pull.rows(&LINE).0.len(), 1_998);
    pull.there("INSERT INTO item VALUES ($T, 8, 'back')");
    pull.agent.level_within(2);
    assert_eq!(pull.rows(&LINE).0.len(), 2_000);
}

/// Whoever deals with a table: what refers to rows that are gone stays as long as its own table is on hold.
fn the_hold_of_a_table_that_another_run_deals_with_keeps_its_rows(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&ITEM, &LINE], "");
    pull.there(
        "INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 1000) i;
         INSERT INTO line SELECT $T, i, i FROM generate_series(1, 1000) i",
    );
    pull.sync();
    pull.there("DELETE FROM line WHERE id > 100 OR id = 7");
    pull.agent.sync().expect_code(1);
    pull.there("DELETE FROM item WHERE id = 7");
    let item = (&ITEM, "direction = \"pull\"");
    let line = (&LINE, "direction = \"snapshot\"\nsnapshot_from = \"remote\"");
    for (tables, options) in [
        (&[item][..], &["sync", "--quiet"][..]),
        (&[item, line], &["sync", "--quiet"]),
        // What a person agrees to is about the tables of the run.
        (&[item], &["sync", "--allow-mass-delete", "--quiet"]),
    ] {
        pull.configure_each(tables);
        pull.agent.home.run(options).expect_code(1);
        let here = [&ITEM, &LINE].map(|table| pull.rows(table).0.len());
        assert_eq!(here, [1_000, 1_000], "{} tables, {options:?}", tables.len());
    }
    pull.configure("direction = \"pull\"");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]).expect_code(0);
    pull.assert_level("a person agreed to both");
}

/// A table without a key on the server, and with one here that is not sent.
const ENTRY: Table = Table {
    name: "entry",
    managed: "text text",
    manage: ", key_columns => '{}'",
    local: "id INTEGER PRIMARY KEY, text TEXT",
    text: "text",
};

/// Keys that are spelled otherwise here.
const TAG: Table = Table {
    name: "tag",
    managed: "id uuid NOT NULL, name text, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id TEXT PRIMARY KEY, name TEXT",
    text: "lower(id::text) || ',' || name",
};

#[test]
fn rows_that_refer_to_a_table_without_a_key_count() {
    let mut pull = Pull::of(&[&ENTRY]);
    let left_out = std::fs::read_to_string(pull.agent.home.path("plimsoll.toml")).expect("a configuration");
    pull.agent.home.write("plimsoll.toml", &format!("{left_out}leave_out = [\"id\"]\n"));
    pull.here("CREATE TABLE own (item INTEGER REFERENCES entry (id) ON DELETE CASCADE)");
    pull.there("INSERT INTO entry SELECT $T, 'entry ' || i FROM generate_series(1, 100) i");
    pull.here("CREATE INDEX own_item ON own (item)");
    pull.sync();
    let seven = "SELECT id FROM entry WHERE text = 'entry 7'";
    pull.here(&format!(
        "INSERT INTO own WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
             SELECT ({seven}) FROM n"
    ));
    let own = |pull: &Pull| pull.local.connect().rows("SELECT 1 FROM own").len();
    // An altered row is one that comes and one that goes, with all that refers to it.
    pull.there("UPDATE entry SET text = 'other' WHERE text = 'entry 7'");
    pull.agent.sync().expect_code(1);
    assert_eq!((pull.rows(&ENTRY).0.len(), own(&pull)), (101, 900));
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]).expect_code(0);
    pull.assert_same("a person agreed");
    assert_eq!(own(&pull), 0);
}

#[test]
fn rows_that_refer_to_each_of_two_rows_of_a_key_count() {
    let mut pull = Pull::of(&[&TAG]);
    pull.there("INSERT INTO tag SELECT $T, md5(i::text)::uuid, 'n' || i FROM generate_series(1, 100) i");
    pull.here("CREATE TABLE own (item TEXT REFERENCES tag (id) ON DELETE CASCADE)");
    pull.sync();
    // Both are one on the server, where it is deleted; most rows refer to the one that the other stands before.
    pull.here(
        "INSERT INTO tag SELECT upper(id), 'other' FROM tag WHERE name = 'n1';
         INSERT INTO own WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30)
             SELECT tag.id FROM n, tag WHERE name IN ('n1', 'other')",
    );
    pull.there("DELETE FROM tag WHERE name = 'n1'");
    pull.agent.sync().expect_code(1);
    assert_eq!(pull.local.connect().rows("SELECT 1 FROM own").len(), 60);
    let reason = holds(&pull)[0][2].clone().unwrap_or_default();
    assert!(reason.contains("with about 60 rows of \"own\""), "{reason}");
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]).expect_code(0);
    assert_eq!(pull.local.connect().rows("SELECT 1 FROM own").len(), 0);
}

/// Many more rows to delete than go with one delete, and a row of this table with each.
fn one_approval_is_enough(tables: &[&'static Table], child: &str, direction: &str) {
    let mut pull = Pull::of(tables);
    pull.there("INSERT INTO item SELECT $T, i, 'name' FROM generate_series(1, 40000) i");
    if child == "line" {
        pull.there("INSERT INTO line SELECT $T, i, i FROM generate_series(1, 40000) i");
    } else {
        pull.here("CREATE TABLE own (item INTEGER REFERENCES item (id) ON DELETE CASCADE)");
    }
    pull.configure(direction);
    pull.sync();
    if child == "own" {
        pull.here("INSERT INTO own SELECT id FROM item; CREATE INDEX own_item ON own (item)");
    } else {
        pull.here("CREATE INDEX line_item ON line (item)");
    }
    pull.there("DELETE FROM item WHERE id <= 25000");
    for _ in 0..2 {
        pull.agent.sync().expect_code(1);
        assert_eq!(pull.rows(&ITEM).0.len(), 40_000, "{direction} {child}");
        let held = holds(&pull);
        let told: Vec<_> = held.iter().map(|row| row[..2].to_vec()).collect();
        assert_eq!(told, [["item", "25000"].map(|text| Some(text.to_owned()))], "{direction} {child}");
    }
    pull.agent.home.run(["sync", "--allow-mass-delete", "--quiet"]);
    assert_eq!(pull.rows(&ITEM).0.len(), 15_000, "{direction} {child}");
    let children = format!("SELECT 1 FROM {child} WHERE item <= 25000");
    assert_eq!(pull.local.connect().rows(&children).len(), 0, "{direction} {child}");
}

#[test]
fn one_approval_is_enough_where_rows_of_a_table_that_is_not_pulled_go_along() {
    one_approval_is_enough(&[&ITEM], "own", "direction = \"pull\"");
}

#[test]
fn one_approval_is_enough_where_rows_of_a_pulled_table_go_along() {
    one_approval_is_enough(&[&ITEM, &LINE], "line", "direction = \"pull\"");
}

#[test]
fn one_approval_is_enough_for_a_snapshot_with_which_rows_go_along() {
    one_approval_is_enough(&[&ITEM], "own", "direction = \"snapshot\"\nsnapshot_from = \"remote\"");
}

beside_each_kind!(
    rows_of_a_table_that_is_not_pulled_count_toward_the_one_that_takes_them,
    rows_of_a_pulled_table_count_toward_it,
    the_hold_of_a_table_that_another_run_deals_with_keeps_its_rows
);
