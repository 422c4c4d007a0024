//! Snapshots, versions, bad input, and connections that are lost.

use plimsoll_core::store::{BatchLimit, FailureKind, PositionRange, Source, SourceRecord};

use super::{Fixture, PASSWORD, USER};
use crate::source::Password;
use crate::source::local::LocalDatabase;
use crate::source::mysql::Mysql;
use crate::source::sqlite::tests::{read_all, shown};

const LIMIT: BatchLimit = BatchLimit { rows: 1000, bytes: 1 << 20 };

fn positions(source: &mut impl Source, rows: usize) -> Vec<i64> {
    let records = read_all(source, rows);
    let position = |record: &SourceRecord| match record {
        SourceRecord::Row(row) => Some(row.item.position),
        SourceRecord::Bad(bad) => bad.position,
    };
    records.iter().filter_map(position).collect()
}

#[test]
fn versions_of_every_kind_place_rows() {
    let cases = [
        (
            "BIGINT UNSIGNED",
            "int8",
            "(1, 5), (2, 9223372036854775807), (3, 18446744073709551615), (4, NULL)",
            vec![5, i64::MAX],
            2,
        ),
        ("INT", "int4", "(1, -3), (2, 0), (3, 9)", vec![-3, 0, 9], 0),
        (
            "DATETIME(6)",
            "timestamp",
            "(1, '2000-01-01 00:00:00.000001'), (2, '0000-00-00'), (3, '2000-00-01'), (4, '9999-12-31 23:59:59.999999'), (5, NULL)",
            vec![1, 252_455_615_999_999_999],
            3,
        ),
        (
            "TIMESTAMP(3) NULL",
            "timestamptz(3)",
            "(1, '2000-01-01 00:00:00.001'), (2, '2037-12-31 23:59:59.999')",
            vec![1000, 1_199_231_999_999_000],
            0,
        ),
        (
            "BINARY(8)",
            "bytea",
            "(1, x'0000000000000102'), (2, x'0000000000000103'), (3, x'ffffffffffffffff'), (4, NULL)",
            vec![258, 259, i64::MAX],
            1,
        ),
        ("DECIMAL(20,0)", "int8", "(1, 7), (2, 99999999999999999999)", vec![7], 1),
    ];
    let mut fixture = Fixture::new("SET sql_mode = '', time_zone = '+00:00'");
    for (number, (declared, column_type, values, expected, nowhere)) in cases.into_iter().enumerate() {
        let table = format!("t{number}");
        fixture.run(&format!(
            "CREATE TABLE {table} (id INT PRIMARY KEY, v {declared}, INDEX (v)); INSERT INTO {table} VALUES {values}"
        ));
        let columns = [("id", "int4*"), ("v", column_type)];
        let mut source = fixture.source(&table, &columns, Some("v"));
        assert_eq!(positions(&mut source, 1), expected, "{declared}");
        assert_eq!(source.max_position(0).expect("a position"), expected.last().copied(), "{declared}");
        assert_eq!(
            source.tail_start(0, i64::MAX, 1).expect("a tail"),
            expected.last().copied(),
            "{declared}"
        );
        let all = source.window(0, PositionRange::ALL, 1000).expect("a window");
        assert_eq!((all.items.len(), all.bad.len()), (expected.len(), nowhere), "{declared}");
        for position in expected {
            // Bounds cut exactly there, also at the ends of what the type holds.
            let below = PositionRange { from: None, to: Some(position) };
            let beyond = PositionRange::beyond(position);
            let count =
                |source: &mut dyn Source, range| source.window(0, range, 1000).expect("a window").items.len();
            let at = count(&mut source, PositionRange { from: Some(position), to: position.checked_add(1) });
            let rest = count(&mut source, below) + beyond.map_or(0, |range| count(&mut source, range));
            assert_eq!((at, at + rest), (1, all.items.len()), "{declared} at {position}");
        }
        let mut local = fixture.open().expect("opened");
        let found = local.table(&table).expect("a table");
        let config = crate::config::TableConfig { name: table.clone(), ..Default::default() };
        let plan =
            crate::source::plan::TablePlan::new(&found, super::schema(&columns, Some("v")), &config, &[])
                .expect("a plan");
        assert_eq!(
            local.highest_position(&plan).expect("a position"),
            source.max_position(0).expect("a position")
        );
    }
}

#[test]
fn what_orders_no_rows_is_no_version() {
    let mut fixture = Fixture::new("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(30))");
    fixture.run("INSERT INTO t VALUES (1, '2024-01-01')");
    let mut source = fixture.source("t", &[("id", "int4*"), ("v", "timestamp!")], Some("v"));
    let failure = source.read_batch(0, None, LIMIT).expect_err("no version");
    assert_eq!(failure.kind, FailureKind::Table);
    assert!(failure.to_string().contains("\"v\""), "{failure}");
}

#[test]
fn a_key_in_a_character_set_that_cannot_be_gone_on_from_is_refused() {
    let fixture = Fixture::new("CREATE TABLE t (k VARCHAR(9) CHARACTER SET sjis PRIMARY KEY, v INT)");
    let mut source = fixture.source("t", &[("k", "text*"), ("v", "int4!")], Some("v"));
    let failure = source.read_batch(0, None, LIMIT).expect_err("no order").to_string();
    assert!(
        failure.contains("\"k\"") && failure.contains("sjis") && failure.contains("utf8mb4"),
        "{failure}"
    );
}

#[test]
fn each_call_sees_what_was_committed_before_it() {
    let mut fixture =
        Fixture::new("CREATE TABLE t (id INT PRIMARY KEY, v INT, INDEX (v)); INSERT INTO t VALUES (1, 1)");
    let columns = [("id", "int4*"), ("v", "int4!")];
    let mut source = fixture.source("t", &columns, Some("v"));
    assert_eq!(source.row_count(0), Ok(1));
    fixture.run("START TRANSACTION; INSERT INTO t VALUES (2, 2)");
    assert_eq!((source.row_count(0), source.max_position(0)), (Ok(1), Ok(Some(1))));
    fixture.run("COMMIT");
    assert_eq!((source.row_count(0), source.max_position(0)), (Ok(2), Ok(Some(2))));
    // Nothing stays open between calls: the table can be altered.
    fixture.run("SET lock_wait_timeout = 1; ALTER TABLE t ADD COLUMN w INT");
    assert_eq!(positions(&mut source, 1), [1, 2]);
    assert_eq!(source.change_token(), Ok(None));
}

#[test]
fn a_window_reads_little_more_than_it_holds() {
    let mut fixture = Fixture::new(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, w VARCHAR(100) NOT NULL DEFAULT 'something', INDEX (v));
         INSERT INTO t (id, v) SELECT seq, seq DIV 3 FROM seq_0_to_199999; ANALYZE TABLE t",
    );
    let columns = [("id", "int4*"), ("v", "int4!"), ("w", "text!")];
    let mut source = fixture.source("t", &columns, Some("v"));
    let rows = rows_read(&mut fixture, || {
        let range = PositionRange { from: Some(30_000), to: None };
        let window = source.window(0, range, 3000).expect("a window");
        assert_eq!((window.items.len(), window.range.to), (3000, Some(31_000)));
    });
    assert!(rows < 20_000, "{rows} rows were read for a window of 3,000");
    let rows = rows_read(&mut fixture, || {
        let batch = source.read_batch(0, None, LIMIT).expect("a batch");
        assert!(batch.records.len() == 1000 && batch.next.is_some());
        assert_eq!(source.tail_start(0, i64::MAX, 300), Ok(Some(66_566)));
    });
    assert!(rows < 20_000, "{rows} rows were read for a batch of 1,000 and a tail of 300");
    // An index that was there when the tables were looked at may be gone.
    fixture.run("DROP INDEX v ON t");
    assert_eq!(source.max_position(0), Ok(Some(66_666)));
}

/// How many rows the server reads in the tables while `work` goes on.
fn rows_read(fixture: &mut Fixture, work: impl FnOnce()) -> u64 {
    let mut read = || -> u64 {
        let sql =
            "SELECT CAST(coalesce(sum(rows_read), 0) AS UNSIGNED) FROM information_schema.table_statistics
             WHERE table_schema = DATABASE()";
        let rows = fixture.writer.rows(sql).expect("a number");
        plimsoll_cluster::mysql_async::from_value(rows[0][0].clone())
    };
    let before = read();
    work();
    read() - before
}

#[test]
fn a_table_is_read_about_once_however_small_the_batches_are() {
    for index in ["UNIQUE (v)", "INDEX (v)"] {
        let mut fixture = Fixture::new(&format!(
            "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, w VARCHAR(99), {index});
             INSERT INTO t SELECT seq, seq, repeat('x', 10 + seq MOD 80) FROM seq_1_to_40000"
        ));
        let mut source = fixture.source("t", &[("id", "int4*"), ("v", "int4!"), ("w", "text")], Some("v"));
        let rows = rows_read(&mut fixture, || {
            let limit = BatchLimit { rows: 100_000, bytes: 150_000 };
            let (mut after, mut seen, mut batches) = (None, Vec::new(), 0);
            loop {
                let batch = source.read_batch(0, after.as_ref(), limit).expect("a batch");
                seen.extend(batch.records.iter().map(|record| match record {
                    SourceRecord::Row(row) => row.item.position,
                    SourceRecord::Bad(bad) => panic!("{bad:?}"),
                }));
                batches += 1;
                after = batch.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, (1..=40_000).collect::<Vec<i64>>(), "{index}");
            assert!((40..80).contains(&batches), "{batches} batches");
        });
        assert!(rows < 50_000, "{rows} rows were read, {index}");
    }
}

#[test]
fn a_crowded_position_is_read_whole() {
    let fixture = Fixture::new(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT NOT NULL, INDEX (v)); INSERT INTO t SELECT seq, seq > 5000 FROM seq_1_to_6000",
    );
    let mut source = fixture.source("t", &[("id", "int4*"), ("v", "int4!")], Some("v"));
    let window = source.window(0, PositionRange::ALL, 10).expect("a window");
    assert_eq!((window.items.len(), window.range.to), (5000, Some(1)));
    assert_eq!(positions(&mut source, 777).len(), 6000);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let mut fixture = Fixture::new("CREATE TABLE t (id INT PRIMARY KEY, v INT); CREATE TABLE other (id INT)");
    let open = |url: &str, password: &str| {
        Mysql::open(url, Some(&Password(password.to_owned()))).map(drop).expect_err("no connection")
    };
    let wrong = open(&fixture.url, "wrong");
    assert_eq!((wrong.kind, wrong.sqlstate.as_deref()), (FailureKind::Run, Some("28000")));
    assert!(wrong.to_string().contains("PLIMSOLL_SOURCE_PASSWORD"), "{wrong}");
    let nowhere = fixture.url.rsplit_once('/').map(|(base, _)| format!("{base}/absent")).expect("a url");
    assert_eq!(open(&nowhere, PASSWORD).kind, FailureKind::Run);
    let closed = open(&format!("mysql://{USER}@127.0.0.1:1/shop"), PASSWORD);
    assert_eq!(closed.kind, FailureKind::Passing);
    assert!(closed.to_string().contains("host and port"), "{closed}");
    // A privilege that goes, and a column.
    let columns = [("id", "int4*"), ("v", "int4!")];
    let mut source = fixture.source("t", &columns, Some("v"));
    fixture.run("ALTER TABLE t DROP COLUMN v");
    let failure = source.max_position(0).expect_err("no column");
    assert!(failure.kind == FailureKind::Table && failure.to_string().contains('v'), "{failure}");
    fixture.run("DROP TABLE t");
    assert_eq!(source.row_count(0).expect_err("no table").kind, FailureKind::Table);
    let database = fixture.url.rsplit_once('/').expect("a database").1.to_owned();
    fixture.run(&format!(
        "REVOKE SELECT ON {database}.* FROM '{USER}'@'%'; GRANT INSERT ON {database}.other TO '{USER}'@'%'"
    ));
    let mut local = fixture.open().expect("opened");
    // It is listed for who may write it, and says so when it is read.
    let plan = plan_of(&mut local);
    let failure = local.highest_position(&plan).expect_err("no privilege");
    assert!(failure.kind == FailureKind::Table && failure.to_string().contains("GRANT SELECT"), "{failure}");
}

/// A plan over a table that may not be read.
fn plan_of(local: &mut Mysql) -> crate::source::plan::TablePlan {
    let found = local.table("other").expect("listed");
    let config = crate::config::TableConfig { name: "other".to_owned(), ..Default::default() };
    crate::source::plan::TablePlan::new(&found, super::schema(&[("id", "int4")], Some("id")), &config, &[])
        .expect("a plan")
}

#[test]
fn a_connection_that_was_lost_comes_back() {
    let mut fixture =
        Fixture::new("CREATE TABLE t (id INT PRIMARY KEY, v INT); INSERT INTO t VALUES (1, 1), (2, 2)");
    let mut source = fixture.source("t", &[("id", "int4*"), ("v", "int4!")], Some("v"));
    assert_eq!(source.row_count(0), Ok(2));
    let mut kill = || {
        let sql = format!(
            "SELECT id FROM information_schema.processlist WHERE user = '{USER}' AND db = DATABASE()"
        );
        for row in fixture.writer.rows(&sql).expect("connections") {
            let id: u64 = plimsoll_cluster::mysql_async::from_value(row[0].clone());
            fixture.run(&format!("KILL {id}"));
        }
    };
    kill();
    // Between calls nobody notices.
    let records = read_all(&mut source, 1);
    assert_eq!(records.iter().map(shown).collect::<Vec<_>>(), ["1: Int(1) Int(1)", "2: Int(2) Int(2)"]);
}
