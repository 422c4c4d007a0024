//! What does not fit is refused with the column's name; what cannot be opened, with what to do.

use plimsoll_core::digest::FingerprintKey;
use plimsoll_core::store::{BatchLimit, FailureKind, Outcome, Source};

use super::super::Sqlite;
use super::{Fixture, SqliteSource, read_all, schema};
use crate::config::{Config, TableConfig};
use crate::source::engine::Engine;
use crate::source::local::{LocalDatabase, LocalTable};
use crate::source::plan::TablePlan;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, v INTEGER)";

fn local(fixture: &Fixture) -> LocalTable {
    Sqlite::open(&fixture.path()).expect("opened").table("T").expect("found in any case")
}

fn planned(
    sql: &str,
    columns: &[(&str, &str)],
    config: &TableConfig,
    sent_before: &[u32],
) -> Outcome<TablePlan> {
    let fixture = Fixture::new(sql);
    TablePlan::new(&local(&fixture), schema(columns, "v"), config, sent_before)
}

fn refusal(sql: &str, columns: &[(&str, &str)], config: TableConfig) -> String {
    let failure = planned(sql, columns, &config, &[]).expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Table);
    failure.to_string()
}

#[test]
fn a_column_on_one_side_only_is_gone_without_where_nothing_is_lost_by_that() {
    let config = TableConfig::default();
    let plan = planned(TABLE, &[("id", "int8*"), ("v", "int8!")], &config, &[]).expect("fits");
    assert_eq!(plan.unsent.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["name"]);
    let columns = [("id", "int8*"), ("name", "text"), ("city", "text"), ("v", "int8!")];
    let plan = planned(TABLE, &columns, &config, &[]).expect("fits");
    assert_eq!(plan.absent().collect::<Vec<_>>(), [3]);
    assert!(plan.unsent.is_empty());
    let lost = planned(TABLE, &columns, &config, &[1, 2, 3, 4]).expect_err("it was sent before").to_string();
    assert!(lost.contains("\"city\"") && lost.contains("any more") && lost.contains("DROP COLUMN"), "{lost}");
    let columns = [("id", "int8*"), ("name", "text"), ("city", "text!"), ("v", "int8!")];
    let needed = refusal(TABLE, &columns, TableConfig::default());
    assert!(needed.contains("\"city\"") && needed.contains("server_columns"), "{needed}");
    // Nobody knows whether these two are one.
    let columns = [("id", "int8*"), ("title", "text"), ("v", "int8!")];
    let renamed = refusal(TABLE, &columns, TableConfig::default());
    assert!(renamed.contains("columns = { \"name\" = \"title\" }"), "{renamed}");
    let left_out = TableConfig { leave_out: vec!["NAME".into()], ..TableConfig::default() };
    let plan = planned(TABLE, &[("ID", "int8*"), ("v", "int8!")], &left_out, &[]).expect("fits");
    assert_eq!(plan.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "v"]);
    assert!(plan.unsent.is_empty());
    let unknown = TableConfig { leave_out: vec!["nme".into()], ..TableConfig::default() };
    let unknown = refusal(TABLE, &[("id", "int8*"), ("name", "text"), ("v", "int8!")], unknown);
    assert!(unknown.contains("\"nme\"") && unknown.contains("name"), "{unknown}");
}

/// The configuration of a table by these lines.
fn configured(lines: &str) -> TableConfig {
    let text = format!(
        "[server]\nurl = \"postgres://a@b/c\"\ndatabase_id = \"6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11\"\n\
         [source]\nsqlite = \"x\"\n[[table]]\nname = \"t\"\n{lines}\n"
    );
    Config::parse(&text).expect(lines).tables.swap_remove(0)
}

#[test]
fn columns_are_renamed_left_out_and_given_values() {
    let columns = [("branch", "int4*"), ("number", "int8*"), ("title", "text"), ("v", "int8!")];
    let config = configured("columns = { ID = \"number\", name = \"title\" }\nconstants = { branch = 3 }");
    let plan = planned(TABLE, &columns, &config, &[]).expect("fits");
    let names: Vec<_> = plan.columns.iter().map(|column| (column.name.as_str(), column.is_local())).collect();
    assert_eq!(names, [("branch", false), ("id", true), ("name", true), ("v", true)]);
    assert_eq!(plan.order, [1], "the constant tells no rows apart");
    let other = configured("columns = { ID = \"number\", name = \"title\" }\nconstants = { branch = 4 }");
    assert_ne!(plan.stamp(), planned(TABLE, &columns, &other, &[]).expect("fits").stamp());
    for (lines, told) in [
        ("columns = { name = \"titel\" }", "no column \"titel\""),
        ("columns = { nme = \"title\" }", "no column \"nme\""),
        ("constants = { colour = 1 }", "no column \"colour\""),
        (
            "columns = { id = \"number\", name = \"title\" }\nconstants = { branch = \"x\" }",
            "the constant for column \"branch\"",
        ),
        (
            "columns = { id = \"number\", name = \"title\" }",
            "column \"branch\" of the managed table is not in",
        ),
        (
            "columns = { id = \"number\", name = \"title\" }\nconstants = { branch = 3, v = 1 }",
            "a constant, and the local table has \"v\"",
        ),
        (
            "columns = { id = \"number\", name = \"title\" }\nconstants = { branch = 3, v = 1 }\nleave_out = [\"v\"]",
            "it cannot be a constant",
        ),
        (
            "columns = { id = \"number\", name = \"title\" }\nconstants = { branch = 3 }\nconvert = { v = \"round\" }",
            "it is the version",
        ),
        (
            "columns = { id = \"number\", name = \"title\" }\nconstants = { branch = 3 }\nconvert = { id = \"round\" }",
            "could become one",
        ),
        (
            "columns = { id = \"number\", name = \"title\" }\nconstants = { branch = 3 }\nconvert = { name = \"round\" }",
            "the managed column is text",
        ),
    ] {
        let refused = refusal(TABLE, &columns, configured(lines));
        assert!(refused.contains(told), "{lines}: {refused}");
    }
    let twice = refusal(
        TABLE,
        &[("id", "int8*"), ("name", "text"), ("v", "int8!")],
        configured("columns = { v = \"name\" }"),
    );
    assert!(twice.contains("has \"name\" too"), "{twice}");
}

#[test]
fn another_key_or_version_is_refused() {
    let columns = [("id", "int8"), ("name", "text*"), ("v", "int8!")];
    let other = refusal(TABLE, &columns, TableConfig::default());
    assert!(other.contains("(id)") && other.contains("(name)"), "{other}");
    let named = TableConfig { key: Some(vec!["name".into()]), ..TableConfig::default() };
    let ambiguous = refusal(TABLE, &columns, named);
    assert!(ambiguous.contains("CREATE UNIQUE INDEX"), "{ambiguous}");
    let columns = [("id", "int8*"), ("name", "text"), ("v", "int8!")];
    let version = TableConfig { version: Some("name".into()), ..TableConfig::default() };
    let version = refusal(TABLE, &columns, version);
    assert!(version.contains("\"name\"") && version.contains("\"v\""), "{version}");
    // An index that does not hold every row makes nothing unique.
    let partial =
        "CREATE TABLE t (id INTEGER, name TEXT, v INTEGER); CREATE UNIQUE INDEX u ON t (id) WHERE v > 0";
    assert!(refusal(partial, &columns, TableConfig::default()).contains("unique"));
}

#[test]
fn files_that_are_no_database_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.sqlite");
    let missing = Sqlite::open(&path).expect_err("missing");
    assert!(missing.message.contains("there is no file"), "{missing}");
    std::fs::write(&path, "this is text, long enough to be no header".repeat(30)).expect("written");
    let text = Sqlite::open(&path).expect_err("no database");
    assert!(text.message.contains("not a SQLite database"), "{text}");
    assert!(!path.with_extension("sqlite-journal").exists());
    let fixture = Fixture::new(TABLE);
    let failure = Sqlite::open(&fixture.path()).expect("opened").table("none").expect_err("no table");
    assert!(failure.message.contains("no table \"none\""), "{failure}");
}

#[test]
fn the_database_is_never_written() {
    let fixture = Fixture::new(TABLE);
    let local = Sqlite::open(&fixture.path()).expect("opened");
    let refused = local.connection.execute("INSERT INTO t VALUES (1, 'x', 1)", []);
    assert!(refused.is_err());
    // A writer goes on while the source stays open.
    fixture.run("INSERT INTO t VALUES (1, 'x', 1)");
}

#[test]
fn a_name_in_quotes_that_no_column_has_any_more_is_no_text() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, v INTEGER NOT NULL); INSERT INTO t VALUES (1, 'x', 1)",
    );
    let mut source = fixture.source("t", &[("id", "int8*"), ("name", "text"), ("v", "int8!")], "v");
    assert_eq!(read_all(&mut source, 10).len(), 1);
    fixture.run("ALTER TABLE t RENAME COLUMN name TO title");
    let limit = BatchLimit { rows: 10, bytes: 1 << 20 };
    let refused = source.read_batch(0, None, limit).expect_err("there is no such column");
    assert!(refused.message.contains("name"), "{refused}");
    let mut local = Sqlite::open(&fixture.path()).expect("opened");
    let found = local.table("t").expect("a table");
    // All rows would leave such a condition.
    let config = configured("where = \"\"\"\\\"name\\\" = 'x'\"\"\"");
    let plan = TablePlan::new(&found, schema(&[("id", "int8*"), ("v", "int8!")], "v"), &config, &[])
        .expect("they fit");
    let mut source: SqliteSource = Engine::new(local, vec![plan], FingerprintKey::new([1; 32]));
    let refused = source.row_count(0).expect_err("there is no such column");
    assert!(refused.message.contains("name") && refused.hint.is_some(), "{refused}");
}

#[test]
fn a_condition_that_asks_for_the_time_may_take_other_rows_in_each_run() {
    let fixture = Fixture::new(TABLE);
    let token_of = |condition: &str| {
        let mut local = Sqlite::open(&fixture.path()).expect("opened");
        let config = configured(&format!("where = \"{condition}\""));
        let columns = [("id", "int8*"), ("name", "text"), ("v", "int8!")];
        let plan = TablePlan::new(&local.table("t").expect("a table"), schema(&columns, "v"), &config, &[]);
        let mut source: SqliteSource =
            Engine::new(local, vec![plan.expect("they fit")], FingerprintKey::new([1; 32]));
        let tokens = [(); 2].map(|()| source.change_token().expect("asked").expect("a token"));
        assert_eq!(tokens[0], tokens[1], "within a run");
        tokens[0].clone()
    };
    assert_eq!(token_of("v > 3"), token_of("v > 3"));
    assert_ne!(token_of("v > unixepoch()"), token_of("v > unixepoch()"));
}
