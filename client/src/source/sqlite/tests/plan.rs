//! What does not fit is refused with the column's name; what cannot be opened, with what to do.

use plimsoll_core::store::FailureKind;

use super::super::Sqlite;
use super::{Fixture, schema};
use crate::config::TableConfig;
use crate::source::local::{LocalDatabase, LocalTable};
use crate::source::plan::TablePlan;

const TABLE: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT, v INTEGER)";

fn local(fixture: &Fixture) -> LocalTable {
    Sqlite::open(&fixture.path()).expect("opened").table("T").expect("found in any case")
}

fn refusal(sql: &str, columns: &[(&str, &str)], config: TableConfig) -> String {
    let fixture = Fixture::new(sql);
    let failure = TablePlan::new(&local(&fixture), schema(columns, "v"), &config).expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Table);
    failure.to_string()
}

#[test]
fn columns_on_one_side_only_are_named_with_what_to_do() {
    let config = TableConfig::default;
    let extra = refusal(TABLE, &[("id", "int8*"), ("v", "int8!")], config());
    assert!(extra.contains("\"name\"") && extra.contains("leave_out"), "{extra}");
    let columns = [("id", "int8*"), ("name", "text"), ("city", "text"), ("v", "int8!")];
    let lacking = refusal(TABLE, &columns, config());
    assert!(lacking.contains("\"city\"") && lacking.contains("server_columns"), "{lacking}");
    let left_out = TableConfig { leave_out: vec!["NAME".into()], ..config() };
    let fixture = Fixture::new(TABLE);
    let plan = TablePlan::new(&local(&fixture), schema(&[("ID", "int8*"), ("V", "int8!")], "V"), &left_out);
    let columns = plan.expect("fits").columns;
    assert_eq!(columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id", "v"]);
    let unknown = TableConfig { leave_out: vec!["nme".into()], ..config() };
    let unknown = refusal(TABLE, &[("id", "int8*"), ("name", "text"), ("v", "int8!")], unknown);
    assert!(unknown.contains("\"nme\"") && unknown.contains("name"), "{unknown}");
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
