//! A Postgres source that keeps manifests of its own tables: what they prove is not read, what differs is, and where
//! anything does not fit all rows are read as ever.

mod figures;
mod shop;

use std::time::SystemTime;

use plimsoll_tests::{Finished, table_of};
use serde_json::Value as Json;
use shop::{Shop, TABLES};

const ROWS: u32 = 30_000;

/// Whether no rows were read but for the highest versions, which are looked up in the index, a portion of it at a time.
fn is_few(read: &[i64; 3]) -> bool {
    read[0] <= 4 * 64 && read[1..] == [0, 0]
}

/// One run, which must be able to do its work.
#[track_caller]
fn sync(shop: &mut Shop) -> (Json, [i64; 3], String) {
    let (finished, read) = shop.counted(&["sync", "--json", "--quiet"]);
    let told = finished.stderr.clone();
    (finished.expect_code(0).json(), read, told)
}

/// One run that proves all tables.
#[track_caller]
fn proved(shop: &mut Shop) -> (Json, [i64; 3], String) {
    let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_micros();
    let (report, read, log) = sync(shop);
    for table in TABLES {
        assert_equal_counts(&report, table);
        let proved_at = table_of(&report, table)["proved_at"].as_u64().unwrap_or_default();
        assert!(u128::from(proved_at) >= begun, "{table} is not proved by this run: {report:#}");
    }
    (report, read, log)
}

/// The table is level, but for what other tests do meanwhile on the same server: its change token is another then.
#[track_caller]
fn assert_equal_counts(report: &Json, table: &str) {
    let status = &table_of(report, table)["status"];
    assert!(status == "level" || status == "counts_agree", "{table}: {report:#}");
}

/// How often the log says that a local manifest is used, and the reasons why not.
fn told(log: &str) -> (usize, Vec<&str>) {
    let used = log.lines().filter(|line| line.contains("keeps a manifest of it")).count();
    let not = log.lines().filter(|line| line.contains("no local manifest is used"));
    (used, not.collect())
}

/// A shop whose tables are level, by the first run.
fn level_shop() -> Shop {
    let mut shop = Shop::new(ROWS);
    shop.agent.home.set_env("PLIMSOLL_LOG", "info");
    shop.manage();
    let (_, _, log) = proved(&mut shop);
    assert_eq!(told(&log), (3, vec![]), "{log}");
    shop
}

#[test]
fn what_is_level_is_proved_without_reading_a_row() {
    let mut shop = level_shop();
    for _ in 0..2 {
        // Another database of the server goes on: nothing says that ours is as it was.
        shop.damage("CREATE TABLE other (i int); DROP TABLE other");
        let (report, read, _) = proved(&mut shop);
        assert!(is_few(&read), "{read:?} rows read");
        assert_eq!(table_of(&report, "stock")["compared_rows"], ROWS, "{report:#}");
    }
    let (verdict, read) = shop.counted(&["verify", "--json", "--quiet"]);
    let verdict = verdict.expect_code(0).json();
    assert_eq!(table_of(&verdict, "visit")["rows"], ROWS, "{verdict:#}");
    assert!(is_few(&read), "{read:?} rows read");
    // Who does not want to rely on triggers has all rows read.
    let (verdict, read) = shop.counted(&["verify", "--quiet", "--read-rows"]);
    verdict.expect_code(0);
    assert!(read.iter().all(|rows| *rows >= i64::from(ROWS)), "{read:?} rows read");
    shop.configure("use_manifests = false", "");
    let (report, read, log) = sync(&mut shop);
    assert_equal_counts(&report, "sale");
    assert!(read[0] > 200 && told(&log) == (0, vec![]), "{read:?} rows read, {log}");
}

#[test]
fn changes_and_damage_are_found_in_the_next_run_and_little_else_is_read() {
    let mut shop = level_shop();
    // A transaction that takes its version early, and ends late.
    let mut late = plimsoll_tests::shared().superuser(&shop.database);
    let mut late = late.transaction().expect("a transaction");
    late.batch_execute("INSERT INTO sale VALUES ('late', 900001, 1, 300001)").expect("a row");
    shop.run(
        "INSERT INTO sale VALUES ('new', 900002, 1, 300002);
         UPDATE sale SET note = 'changed', version = 300003 WHERE id = 77;
         UPDATE sale SET note = 'without a word' WHERE id = 12345;
         DELETE FROM sale WHERE id IN (5, 25000);
         UPDATE stock SET pieces = -1 WHERE article = 'article 9000';
         DELETE FROM stock WHERE article = 'article 9001';
         INSERT INTO visit SELECT '2030-01-01', 4 FROM generate_series(1, 3);
         DELETE FROM visit WHERE ctid = (SELECT min(ctid) FROM visit)",
    );
    let (verdict, _) = shop.counted(&["verify", "--json", "--quiet"]);
    let verdict = verdict.expect_code(1).json();
    let sale = table_of(&verdict, "sale");
    assert_eq!(
        (&sale["missing"], &sale["excess"], &sale["altered"]),
        (&1.into(), &2.into(), &2.into()),
        "{sale:#}"
    );
    let (_, read, _) = proved(&mut shop);
    assert!(read.iter().all(|rows| *rows < 5 * 5_000), "{read:?} rows read");
    shop.assert_same();
    late.commit().expect("a commit");
    let (_, read, _) = proved(&mut shop);
    assert!(read[0] < 5_000, "{read:?} rows read");
    shop.assert_same();
    // Behind the server's back.
    shop.damage(
        "DELETE FROM sale WHERE id IN (10, 20000);
         UPDATE sale SET amount = 7 WHERE id = 15000;
         INSERT INTO sale (client_id, database_id, note, id, amount, version)
             SELECT client_id, database_id, note, 900003, amount, 55 FROM sale WHERE id = 9;
         DELETE FROM stock WHERE article = 'article 17';
         UPDATE visit SET guests = 9 WHERE ctid = (SELECT min(ctid) FROM visit)",
    );
    let (_, read, _) = proved(&mut shop);
    assert!(read.iter().all(|rows| *rows < 4 * 5_000), "{read:?} rows read");
    shop.assert_same();
    let (verdict, read) = shop.counted(&["verify", "--quiet"]);
    verdict.expect_code(0);
    assert!(is_few(&read), "{read:?} rows read");
}

#[test]
fn rows_that_come_and_go_during_a_run_lead_nobody_astray() {
    let mut shop = level_shop();
    let database = shop.database.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = std::thread::spawn(move || {
        let mut client = plimsoll_tests::shared().superuser(&database);
        let (mut version, mut rng) = (400_000, fastrand::Rng::with_seed(5));
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            version += 1;
            let (id, other) = (rng.u32(1..ROWS), rng.u32(1..ROWS));
            client
                .batch_execute(&format!(
                    "INSERT INTO sale VALUES ('moving', {}, 1, {version});
                     UPDATE sale SET amount = amount + 1, version = {version} WHERE id = {id};
                     DELETE FROM sale WHERE id = {other};
                     UPDATE stock SET pieces = pieces + 1 WHERE article = 'article {id}';
                     DELETE FROM stock WHERE article = 'article {other}';
                     INSERT INTO visit VALUES ('2031-01-01', 1); DELETE FROM visit WHERE guests = 3 AND day = '2020-02-0{}'",
                    1_000_000 + version,
                    version % 9 + 1
                ))
                .expect("changes");
            if version % 50 == 0 {
                let fold = "SELECT plimsoll.fold_manifest(database_id, relation) FROM plimsoll.tables";
                client.batch_execute(fold).expect("a fold");
            }
        }
    });
    let runs: Vec<Finished> = (0..6).map(|_| shop.counted(&["sync", "--json", "--quiet"]).0).collect();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().expect("the writer");
    for run in runs {
        let report = run.json();
        assert!(TABLES.iter().all(|table| table_of(&report, table)["failure"].is_null()), "{report:#}");
    }
    proved(&mut shop);
    shop.assert_same();
    shop.counted(&["verify", "--quiet", "--read-rows"]).0.expect_code(0);
}

/// A run that uses the manifests of so many tables, and gives one reason why not of others.
#[track_caller]
fn falls_back(shop: &mut Shop, used: usize, reason: &str) {
    shop.run(
        "UPDATE sale SET note = note || '+', version = version + 1000000 WHERE id = 1;
         DELETE FROM sale WHERE id = (SELECT max(id) FROM sale)",
    );
    let (report, _, log) = sync(shop);
    let (found, reasons) = told(&log);
    assert_eq!((found, reasons.len()), (used, 1), "{reason}: {log}");
    assert!(reasons[0].contains(reason), "{reason}: {log}");
    assert_equal_counts(&report, "sale");
    shop.assert_same();
}

#[test]
fn what_does_not_fit_is_not_relied_on_and_said() {
    let mut shop = level_shop();
    let id = shop.agent.registered.id;
    // Triggers do not see what ALTER TABLE does.
    shop.run("ALTER TABLE sale ALTER note TYPE varchar(70)");
    falls_back(&mut shop, 2, "rebuild_manifest");
    shop.run(&format!("SELECT plimsoll.rebuild_manifest('{id}', 'public.sale')"));
    let (_, read, log) = proved(&mut shop);
    assert!(is_few(&read) && told(&log) == (3, vec![]), "{read:?} rows read, {log}");
    shop.run("SELECT plimsoll.unmanage_table('sale')");
    falls_back(&mut shop, 2, "not managed for this database");
    shop.manage_table("sale", "");
    // Rows that are not sent as they are.
    shop.configure("", "where = 'id > 0'");
    falls_back(&mut shop, 2, "only rows where");
    shop.configure("", "");
    // Nobody may ask.
    let role = shop.reader.role.clone();
    shop.run(&format!("SELECT plimsoll.revoke_database('{id}', '{role}')"));
    falls_back(&mut shop, 0, "no right to use it");
    shop.run(&format!("REVOKE plimsoll_reader FROM {role}"));
    falls_back(&mut shop, 0, "GRANT plimsoll_reader");
    shop.run(&format!("GRANT plimsoll_reader TO {role}"));
    // Another key, under the same id.
    shop.run(
        "CREATE TABLE rows_of_sale AS TABLE sale; CREATE TABLE rows_of_stock AS TABLE stock;
              CREATE TABLE rows_of_visit AS TABLE visit",
    );
    shop.run(&format!(
        "SELECT plimsoll.forget_database('{id}'); DELETE FROM sale; DELETE FROM stock; DELETE FROM visit"
    ));
    shop.adopt(&[7; 32]);
    shop.run(
        "INSERT INTO sale SELECT * FROM rows_of_sale; INSERT INTO stock SELECT * FROM rows_of_stock;
              INSERT INTO visit SELECT * FROM rows_of_visit",
    );
    falls_back(&mut shop, 0, "another fingerprint key");
    shop.run("DROP EXTENSION plimsoll");
    shop.run("UPDATE sale SET note = 'last', version = version + 2000000 WHERE id = 2");
    let (report, _, log) = sync(&mut shop);
    assert_eq!(told(&log), (0, vec![]), "{log}");
    assert_equal_counts(&report, "sale");
    shop.assert_same();
}

#[test]
fn other_columns_are_other_digests() {
    let mut shop = Shop::new(2_000);
    shop.agent.home.set_env("PLIMSOLL_LOG", "info");
    shop.adopt_as_shared();
    for table in ["stock", "visit"] {
        shop.manage_table(table, "");
    }
    shop.manage_table("sale", r#"{"id": 1, "note": 2, "amount": 3, "version": 4}"#);
    falls_back(&mut shop, 2, "has the number");
    // A column that the server does not have, and one that it has otherwise.
    shop.run("ALTER TABLE stock ADD colour text; ALTER TABLE sale DROP note; ALTER TABLE sale ADD note text");
    let id = shop.agent.registered.id;
    shop.run(&format!("SELECT plimsoll.rebuild_manifest('{id}', 'public.stock')"));
    shop.run(
        "UPDATE stock SET colour = 'red' WHERE pieces < 9; UPDATE stock SET pieces = 0 WHERE pieces > 1990",
    );
    let (report, _, log) = sync(&mut shop);
    assert_equal_counts(&report, "stock");
    assert!(told(&log).1.iter().any(|told| told.contains("\"colour\" is managed there")), "{log}");
    shop.assert_same();
}

const DOCUMENTED: &str = include_str!("../../../docs/client.md");

/// The fenced blocks of SQL that docs/client.md sets a local database up by.
fn documented() -> Vec<&'static str> {
    let section = DOCUMENTED.split("### A Postgres database that keeps manifests itself").nth(1);
    let section = section.and_then(|rest| rest.split("\n## ").next()).expect("the section");
    section.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_documented_set_up_works_as_typed() {
    let mut shop = Shop::new(1_000);
    shop.agent.home.set_env("PLIMSOLL_LOG", "info");
    let id = shop.agent.registered.id.to_string();
    let [shared_side, local_side, job] = documented()[..] else { panic!("three blocks") };
    for (database, block) in
        [(&shop.site.database, shared_side), (&shop.database, local_side), (&shop.database, job)]
    {
        let typed = block
            .replace("6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11", &id)
            .replace("shop_reader", &shop.reader.role);
        let file = shop.agent.home.write("typed.sql", &typed);
        let mut psql = plimsoll_tests::shared().command("psql");
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"]).arg(&file);
        let done = psql.current_dir(shop.agent.home.path(".")).output().expect("psql");
        assert!(done.status.success(), "{}\n{typed}", String::from_utf8_lossy(&done.stderr));
    }
    let (_, _, log) = proved(&mut shop);
    assert_eq!(told(&log), (3, vec![]), "{log}");
    let (_, read, _) = proved(&mut shop);
    assert!(is_few(&read), "{read:?} rows read");
    shop.assert_same();
}
