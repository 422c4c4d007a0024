//! Rows that the local database does not take, and tables that refer to each other.

use plimsoll_tests::{Kind, LocalDatabase, table_of};

use crate::site::{Pull, Table};

const GOODS: Table = Table {
    name: "goods",
    managed: "id bigint NOT NULL, name text, price bigint, version bigint NOT NULL,
              PRIMARY KEY (client_id, database_id, id)",
    manage: ", version_column => 'version'",
    local: "id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER CHECK (price < 1000), version INTEGER NOT NULL",
    text: "id || ',' || name || ',' || coalesce(CAST(price AS text), '-') || ',' || version",
};

/// The local table's statements that let its column be without a name; then that let a price be any. SQLite makes a table anew.
fn relaxed(kind: Kind) -> [String; 2] {
    let anew = |columns: &str| {
        format!(
            "ALTER TABLE goods RENAME TO aside; CREATE TABLE goods ({columns});
             INSERT INTO goods SELECT id, name, price, version FROM aside; DROP TABLE aside"
        )
    };
    match kind {
        Kind::Sqlite => [
            anew(&GOODS.local.replace("name TEXT NOT NULL", "name TEXT")),
            anew(&GOODS.local.replace("name TEXT NOT NULL", "name TEXT").replace("CHECK (price < 1000)", "")),
        ],
        Kind::Postgres => [
            "ALTER TABLE goods ALTER name DROP NOT NULL".to_owned(),
            "ALTER TABLE goods DROP CONSTRAINT goods_price_check".to_owned(),
        ],
        Kind::MariaDb => [
            "ALTER TABLE goods MODIFY name TEXT".to_owned(),
            "ALTER TABLE goods MODIFY price INTEGER".to_owned(),
        ],
    }
}

const PARENT: Table = Table {
    name: "parent",
    managed: "id bigint NOT NULL, name text, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id INTEGER PRIMARY KEY, name TEXT",
    text: "id || ',' || coalesce(name, '-')",
};

const CHILD: Table = Table {
    name: "child",
    managed: "id bigint NOT NULL, parent_id bigint NOT NULL, version bigint NOT NULL,
              PRIMARY KEY (client_id, database_id, id),
              FOREIGN KEY (client_id, database_id, parent_id) REFERENCES parent (client_id, database_id, id)",
    manage: ", version_column => 'version'",
    local: "id INTEGER PRIMARY KEY, parent_id INTEGER NOT NULL REFERENCES parent (id), version INTEGER NOT NULL",
    text: "id || ',' || parent_id || ',' || version",
};

fn rows_that_are_not_taken_here_are_told_there_and_hold_up_no_other(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&GOODS], "");
    pull.there(
        "INSERT INTO goods SELECT $T, i, 'g' || i, i % 900, i FROM generate_series(1, 2000) i;
         UPDATE goods SET price = 5000 WHERE id IN (7, 1900); UPDATE goods SET name = NULL WHERE id = 30;
         UPDATE goods SET version = 9999 WHERE id = 1900",
    );
    let report = pull.sync();
    let goods = table_of(&report, "goods");
    assert_eq!((&goods["rejected"], &goods["moved"]["received"]), (&3.into(), &1997.into()), "{report}");
    assert_eq!(goods["status"], "level_except", "{report}");
    let rows = pull
        .server
        .query("SELECT key->>'id', sqlstate, message FROM plimsoll.rejected_rows ORDER BY 1", &[])
        .expect("rejected rows");
    let told: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = [("1900", "23514"), ("30", "23502"), ("7", "23514")];
    assert_eq!(told, expected.map(|(key, state)| (key.to_owned(), state.to_owned())));
    for row in &rows {
        let message: String = row.get(2);
        assert!(message.contains("the local table \"goods\" does not take it"), "{message}");
    }
    assert_eq!(pull.agent.home.run(["verify", "--quiet"]).code, Some(1), "it is not level");
    // A change there lets one in; the others stay as they are told, and are not tried for nothing.
    pull.there("UPDATE goods SET price = 5, version = 3000 WHERE id = 7");
    let report = pull.sync();
    assert_eq!(table_of(&report, "goods")["rejected"], 2, "{report}");
    pull.there("DELETE FROM goods WHERE id IN (30, 1900)");
    let report = pull.sync();
    assert_eq!(table_of(&report, "goods")["rejected"], 0, "{report}");
    pull.assert_level("nothing is left to be refused");
}

/// The keys that are told as rejected.
fn rejected(pull: &mut Pull) -> Vec<String> {
    let sql = "SELECT key->>'id' FROM plimsoll.rejected_rows ORDER BY 1";
    pull.server.query(sql, &[]).expect("rejected rows").iter().map(|row| row.get(0)).collect()
}

fn a_row_is_tried_again_once_its_column_takes_it_or_it_is_forgotten(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&GOODS], "");
    pull.there(
        "INSERT INTO goods SELECT $T, i, 'g' || i, i % 900, i FROM generate_series(1, 2000) i;
         UPDATE goods SET price = 5000 WHERE id = 7; UPDATE goods SET name = NULL WHERE id = 30",
    );
    pull.sync();
    assert_eq!(rejected(&mut pull), ["30", "7"]);
    let [names, prices] = relaxed(kind);
    pull.here(&names);
    pull.sync();
    assert_eq!(rejected(&mut pull), ["7"], "the column takes it");
    // A constraint is nothing that a run looks at.
    pull.here(&prices);
    for _ in 0..2 {
        pull.sync();
        assert_eq!(rejected(&mut pull), ["7"]);
    }
    let forget = "SELECT plimsoll.clear_rejected($1, 'public.goods')";
    pull.server.execute(forget, &[&pull.agent.registered.id]).expect("forgotten");
    pull.sync();
    assert_eq!(rejected(&mut pull), [""; 0]);
    let here = pull.local.connect().rows("SELECT count(*) FROM goods");
    assert_eq!(here, [[Some("2000".to_owned())]]);
    assert_eq!(pull.agent.home.run(["verify", "--quiet"]).code, Some(0), "it is level");
}

#[test]
fn a_row_is_sent_again_once_it_is_forgotten() {
    let mut push = Pull::beside(LocalDatabase::new(Kind::Sqlite), &[&GOODS], "");
    push.configure("direction = \"push\"");
    push.there("ALTER TABLE goods ADD CONSTRAINT cheap CHECK (price < 500)");
    push.here("INSERT INTO goods VALUES (1, 'one', 1, 1), (2, 'two', 600, 2), (3, 'three', 3, 3)");
    for drop in [None, Some("ALTER TABLE goods DROP CONSTRAINT cheap")] {
        drop.into_iter().for_each(|drop| push.there(drop));
        push.sync();
        assert_eq!(rejected(&mut push), ["2"], "a constraint is nothing that a run looks at: {drop:?}");
    }
    let forget = "SELECT plimsoll.clear_rejected($1, 'public.goods')";
    push.server.execute(forget, &[&push.agent.registered.id]).expect("forgotten");
    push.sync();
    assert_eq!(rejected(&mut push), [""; 0]);
    push.assert_level("it was sent");
}

fn parents_come_first_and_children_go_first(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&CHILD_FIRST[0], &CHILD_FIRST[1]], "");
    pull.there(
        "INSERT INTO parent SELECT $T, i, 'p' || i FROM generate_series(1, 500) i;
         INSERT INTO child SELECT $T, i, i % 500 + 1, i FROM generate_series(1, 3000) i",
    );
    let report = pull.sync();
    assert_eq!(table_of(&report, "child")["waiting"], 0, "{report}");
    pull.assert_level("both arrived");
    pull.there("DELETE FROM child WHERE parent_id IN (5, 6); DELETE FROM parent WHERE id IN (5, 6)");
    let report = pull.sync();
    assert_eq!(table_of(&report, "parent")["moved"]["deleted_here"], 2, "{report}");
    pull.assert_level("both went");
    // A row here alone, to which another refers that is here alone.
    pull.here("INSERT INTO parent VALUES (9000, 'mine'); INSERT INTO child VALUES (90000, 9000, 90000)");
    pull.sync();
    pull.assert_level("both went again");
}

/// In the order of the configuration, which is not the one of the references.
static CHILD_FIRST: [Table; 2] = [PARENT, CHILD];

const CUSTOMER: Table = Table {
    name: "customer",
    managed: "id bigint NOT NULL, name text, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id INTEGER PRIMARY KEY, name TEXT",
    text: "id || ',' || coalesce(name, '-')",
};

/// Without a key, and what it refers to is looked at when the transaction is committed.
const LOG: Table = Table {
    name: "log",
    managed: "customer_id bigint, text text",
    manage: ", key_columns => '{}'",
    local: "customer_id INTEGER REFERENCES customer (id) DEFERRABLE INITIALLY DEFERRED, text TEXT",
    text: "customer_id || ',' || text",
};

fn a_row_without_a_key_whose_constraint_is_put_off_holds_up_no_other(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&CUSTOMER, &LOG], "");
    pull.there(
        "INSERT INTO customer SELECT $T, i, 'c' || i FROM generate_series(1, 20) i;
         INSERT INTO log SELECT $T, i % 20 + 1, 'entry ' || i FROM generate_series(1, 3000) i;
         INSERT INTO log VALUES ($T, 99, 'of nobody')",
    );
    let told = |pull: &mut Pull| -> Vec<(String, bool, String)> {
        let sql = "SELECT sqlstate, waits, key->>'text' FROM plimsoll.rejected_rows";
        let rows = pull.server.query(sql, &[]).expect("rejected rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    for direction in ["direction = \"pull\"", "direction = \"snapshot\"\nsnapshot_from = \"remote\""] {
        let text = std::fs::read_to_string(pull.agent.home.path("plimsoll.toml")).expect("a configuration");
        pull.agent.home.write("plimsoll.toml", &text.replace("direction = \"pull\"", direction));
        pull.here("DELETE FROM log; DELETE FROM customer");
        let report = pull.sync();
        let log = table_of(&report, "log");
        assert_eq!((&log["status"], &log["waiting"]), (&"level_except".into(), &1.into()), "{report}");
        let report = pull.agent.sync().json();
        assert_eq!(table_of(&report, "log")["waiting"], 1, "{report}");
        assert_eq!(pull.rows(&LOG).0.len(), 3_000, "{direction}");
        assert_eq!(told(&mut pull), [("23503".to_owned(), true, "of nobody".to_owned())]);
    }
    pull.there("INSERT INTO customer VALUES ($T, 99, 'somebody')");
    pull.sync();
    pull.sync();
    pull.assert_level("the customer came");
}

beside_each_kind!(
    rows_that_are_not_taken_here_are_told_there_and_hold_up_no_other,
    a_row_is_tried_again_once_its_column_takes_it_or_it_is_forgotten,
    parents_come_first_and_children_go_first
);
// MariaDB puts none off.
beside!(sqlite_alone, Sqlite, a_row_without_a_key_whose_constraint_is_put_off_holds_up_no_other);
beside!(postgres_alone, Postgres, a_row_without_a_key_whose_constraint_is_put_off_holds_up_no_other);
