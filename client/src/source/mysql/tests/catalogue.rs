//! What is read of a database's schema, and what is proposed for it.

use super::Fixture;
use crate::source::local::{Holds, LocalDatabase, Part};
use crate::source::mysql::Mysql;

fn proposed(local: &mut Mysql, table: &str, part: Part) -> Vec<String> {
    let table = local.table(table).expect("a table");
    let columns = table.columns.clone();
    let mut types = Vec::new();
    for column in &columns {
        let proposed = local.proposed_type(&table, column, part);
        types.push(match proposed {
            Ok(Some(text)) => format!("{} {text}", column.name),
            Ok(None) => format!("{} -", column.name),
            Err(failure) => failure.to_string(),
        });
    }
    types
}

#[test]
fn tables_are_found_and_views_are_not() {
    let fixture = Fixture::new(
        "CREATE TABLE b (a INT); CREATE TABLE `A b.c` (a INT); CREATE VIEW v AS SELECT a FROM b;
         CREATE SEQUENCE s; CREATE TABLE kept (a INT) WITH SYSTEM VERSIONING;
         CREATE TABLE `tick``s` (`a``b` INT PRIMARY KEY)",
    );
    let mut local = fixture.open().expect("opened");
    assert_eq!(local.table_names().expect("names"), ["A b.c", "b", "kept", "tick`s"]);
    assert_eq!(local.kind(), "MariaDB");
    let ticks = local.table("TICK`S").expect("in any case");
    assert_eq!((ticks.relation.as_str(), ticks.columns[0].name.as_str()), ("`tick``s`", "a`b"));
    for absent in ["v", "s", "nothing"] {
        let failure = local.table(absent).expect_err("no table");
        assert!(failure.to_string().contains(&format!("no table \"{absent}\"")), "{failure}");
    }
}

#[test]
fn keys_and_indexes_are_what_they_order_and_make_unique() {
    let fixture = Fixture::new(
        "CREATE TABLE t (b INT, a VARCHAR(20), c VARCHAR(200) NOT NULL, d INT UNIQUE, e TEXT, v DATETIME(6), long_one TEXT UNIQUE,
            f INT GENERATED ALWAYS AS (b + 1) STORED, FULLTEXT (e),
            PRIMARY KEY (b, a), UNIQUE prefixed (c(10)), UNIQUE mixed (d, c(5)), INDEX (v, d), INDEX (e(10), v))",
    );
    let mut local = fixture.open().expect("opened");
    let table = local.table("t").expect("a table");
    let key: Vec<_> = table.primary_key().iter().map(|column| column.name.clone()).collect();
    assert_eq!(key, ["b", "a"]);
    assert!(table.is_unique(&["a", "b"]) && table.is_unique(&["d"]) && table.is_unique(&["long_one"]));
    // What is unique in its first characters alone says nothing of the whole.
    assert!(!table.is_unique(&["c"]) && !table.is_unique(&["a"]));
    assert!(table.is_indexed_by("v") && table.is_indexed_by("b"));
    assert!(!table.is_indexed_by("e") && !table.is_indexed_by("c") && !table.is_indexed_by("f"));
    let column = |name: &str| table.column(name).expect("a column");
    assert!(column("c").not_null && !column("d").not_null);
    assert!(column("f").generated && !column("b").generated);
    assert_eq!((column("v").holds, column("e").holds), (Holds::Stamps, Holds::Text));
}

#[test]
fn types_are_proposed_that_hold_all_that_is_declared() {
    let mut fixture = Fixture::new(
        "CREATE TABLE t (
            a TINYINT(1), b BOOL, c INT UNSIGNED, d BIGINT UNSIGNED, e DECIMAL(65,30), f FLOAT, g DOUBLE, h BIT(1), i BIT(7),
            j DATE, k DATETIME(3), l TIMESTAMP(6) NULL, m TIME(2), n TIME, o YEAR, p CHAR(3) CHARACTER SET latin1,
            q VARCHAR(20), r MEDIUMTEXT, s ENUM('x','y'), u SET('x','y'), v JSON, w BINARY(16), x LONGBLOB, y UUID, z INET6,
            id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, longer LONGTEXT);
         INSERT INTO t (a, b, m, n) VALUES (1, 2, '24:00:00', '-00:00:01'), (0, 0, '00:00', '1:00')",
    );
    let mut local = fixture.open().expect("opened");
    let expected = [
        "a boolean",
        "b smallint",
        "c bigint",
        "d numeric(20,0)",
        "e numeric(65,30)",
        "f real",
        "g double precision",
        "h boolean",
        "i bit(7)",
        "j date",
        "k timestamp(3)",
        "l timestamptz(6)",
        "m time(2)",
        "n interval(0)",
        "o smallint",
        "p char(3)",
        "q varchar(20)",
        "r text",
        "s text",
        "u text",
        "v json",
        "w bytea",
        "x bytea",
        "y uuid",
        "z inet",
        "id bigint",
        "longer text",
    ];
    assert_eq!(proposed(&mut local, "t", Part::Plain), expected);
    let version = proposed(&mut local, "t", Part::Version);
    assert_eq!((version[3].as_str(), version[10].as_str()), ("d bigint", "k timestamp(3)"));
    let modified = proposed(&mut local, "t", Part::Modified);
    assert_eq!((modified[10].as_str(), modified[2].as_str()), ("k timestamp(3)", "c -"));
    fixture.run("CREATE TABLE places (id INT PRIMARY KEY, at POINT)");
    let places = proposed(&mut local, "places", Part::Plain);
    assert!(places[1].contains("\"at\"") && places[1].contains("leave_out = [\"at\"]"), "{}", places[1]);
}
