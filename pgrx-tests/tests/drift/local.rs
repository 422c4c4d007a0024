//! The local table is altered, or has other columns than the managed one.

use std::time::{Duration, Instant};

use plimsoll_tests::table_of;

use crate::shop::{ROWS, Shop, sent};

#[test]
fn a_new_local_column_is_not_sent_until_the_server_has_it_and_then_where_it_holds_something() {
    for kept in [true, false] {
        let shop = Shop::open(kept);
        shop.locally(
            "ALTER TABLE items ADD COLUMN note TEXT; UPDATE items SET note = 'n' || id WHERE id % 60 = 0",
        );
        let run = shop.agent.sync().expect_code(0);
        assert_eq!(sent(&run.json()), (0, 0));
        let told = "ALTER TABLE public.items ADD COLUMN note text";
        assert!(run.stderr.contains(told) && run.stderr.contains("leave_out = [\"note\"]"), "{}", run.stderr);
        shop.level();
        shop.alter("ALTER TABLE items ADD COLUMN note text");
        assert_eq!(shop.sent(), (0, ROWS / 60));
        shop.level();
        assert_eq!(shop.server("SELECT count(*) FROM items WHERE note = 'n' || id"), ROWS / 60);
        assert_eq!(shop.sent(), (0, 0));
    }
}

#[test]
fn a_column_that_only_the_server_has_keeps_what_others_put_into_it() {
    let shop = Shop::open(true);
    shop.alter("ALTER TABLE items ADD COLUMN rating int");
    let run = shop.agent.sync().expect_code(0);
    assert_eq!(sent(&run.json()), (0, 0));
    assert!(
        run.stderr.contains("column \"rating\" of public.items is not in the local table"),
        "{}",
        run.stderr
    );
    shop.locally("INSERT INTO items (id, name, row_version) VALUES (1000, 'new', 1000)");
    assert_eq!(shop.sent(), (1, 0));
    shop.level();
    // Somebody else fills it in, and the source changes the same row.
    shop.alter("UPDATE items SET rating = 5 WHERE id = 7");
    shop.locally(
        "UPDATE items SET name = 'seven', row_version = 1001 WHERE id = 7;
                  UPDATE items SET name = 'eight', row_version = 1002 WHERE id = 8",
    );
    let report = shop.agent.sync().expect_code(0).json();
    let items = table_of(&report, "items");
    assert_eq!((&items["updated"], &items["rejected"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(shop.server("SELECT rating::bigint FROM items WHERE id = 7"), 5);
    let why: String = shop
        .site
        .superuser()
        .query_one("SELECT message FROM plimsoll.rejected_rows", &[])
        .expect("one rejected row")
        .get(0);
    assert!(why.contains("column \"rating\"") && why.contains("would be lost"), "{why}");
    shop.agent.home.run(["verify", "--quiet"]).expect_code(1);
    // The source has it too from now on: its rows are right, whatever they hold.
    shop.locally("ALTER TABLE items ADD COLUMN rating INTEGER; UPDATE items SET rating = 5 WHERE id = 7");
    assert_eq!(shop.sent(), (0, 1));
    shop.level();
    shop.equal(&[
        ("price", "CASE WHEN price IS NOT NULL THEN printf('%.2f', price) END", "price::text"),
        ("made", "made", "to_char(made, 'YYYY-MM-DD HH24:MI:SS')"),
    ]);
}

#[test]
fn a_column_that_the_server_cannot_do_without_stops_the_table_by_name() {
    let shop = Shop::open(true);
    shop.alter("ALTER TABLE items ADD COLUMN grade int NOT NULL DEFAULT 5");
    let told = shop.items_fail();
    assert!(told.contains("column \"grade\" of the managed table is not in the local table"), "{told}");
    assert!(told.contains("constants = { \"grade\" = .. }") && told.contains("server_columns"), "{told}");
    shop.agent.write_config(
        "[[table]]\nname = \"items\"\nconstants = { grade = 5 }\n[[table]]\nname = \"others\"\n",
    );
    assert_eq!(shop.sent(), (0, 0), "it is what the rows hold");
    shop.level();
    shop.alter("ALTER TABLE items ADD COLUMN chance float8 DEFAULT random()");
    let report = shop.agent.sync().json();
    assert_eq!(sent(&report), (0, 0), "{report}");
    assert_eq!(shop.server("SELECT count(*) FROM items WHERE chance IS NOT NULL"), ROWS);
    let failure = table_of(&report, "items")["failure"]["message"].as_str().expect("a failure").to_owned();
    assert!(failure.contains("column \"chance\" has a value here"), "{failure}");
}

#[test]
fn a_column_that_was_dropped_locally_stops_the_table_until_it_is_said_what_becomes_of_its_values() {
    let shop = Shop::open(true);
    shop.locally("ALTER TABLE items DROP COLUMN made");
    let told = shop.items_fail();
    assert!(told.contains("column \"made\" is not in the local table \"items\" any more"), "{told}");
    assert!(told.contains("DROP COLUMN \"made\"") && told.contains("server_columns"), "{told}");
    assert_eq!(shop.server("SELECT count(*) FROM items WHERE made IS NOT NULL"), ROWS);
    shop.alter("ALTER TABLE items DROP COLUMN made");
    assert_eq!(shop.sent(), (0, 0));
    shop.level();
}

#[test]
fn a_column_that_was_renamed_on_one_side_is_suspected_and_named() {
    let shop = Shop::open(true);
    shop.locally("ALTER TABLE items RENAME COLUMN name TO title");
    let told = shop.items_fail();
    assert!(told.contains("columns = { \"title\" = \"name\" }"), "{told}");
    shop.agent.write_config(
        "[[table]]\nname = \"items\"\ncolumns = { title = \"name\" }\n[[table]]\nname = \"others\"\n",
    );
    assert_eq!(shop.sent(), (0, 0));
    shop.level();
    shop.alter("ALTER TABLE items RENAME name TO title");
    let told = shop.items_fail();
    assert!(told.contains("no column \"name\""), "{told}");
    shop.agent.configure(&["items", "others"], "");
    assert_eq!(shop.sent(), (0, 0));
    shop.level();
    shop.alter("ALTER TABLE items RENAME row_version TO version");
    let told = shop.items_fail();
    assert!(told.contains("columns = { \"row_version\" = \"version\" }"), "{told}");
}

#[test]
fn values_of_another_type_are_rejected_row_by_row_with_the_reason() {
    let shop = Shop::open(true);
    shop.locally("UPDATE items SET qty = 'many', row_version = row_version + 1000 WHERE id % 10 = 0");
    let run = shop.agent.sync().expect_code(0);
    let report = run.json();
    assert_eq!(table_of(&report, "items")["rejected"], ROWS / 10, "{report}");
    shop.alter("ALTER TABLE items ALTER qty TYPE text");
    // Now the numbers are those that do not fit, and what was rejected does.
    let report = shop.agent.sync().expect_code(0).json();
    let items = table_of(&report, "items");
    assert_eq!(
        (&items["updated"], &items["rejected"]),
        (&(ROWS / 10).into(), &(ROWS * 9 / 10).into()),
        "{report}"
    );
    let why = shop
        .site
        .superuser()
        .query("SELECT DISTINCT message FROM plimsoll.rejected_rows", &[])
        .expect("reasons");
    let why: Vec<String> = why.iter().map(|row| row.get(0)).collect();
    assert_eq!(why, ["column \"qty\": an INTEGER where text takes TEXT"]);
    shop.locally("UPDATE items SET qty = CAST(qty AS TEXT); CREATE TABLE moved (id INTEGER PRIMARY KEY, name VARCHAR(10), qty TEXT,
                      price NUMERIC, made TEXT, row_version INTEGER NOT NULL);
                  INSERT INTO moved SELECT * FROM items; DROP TABLE items; ALTER TABLE moved RENAME TO items;
                  CREATE INDEX items_version ON items (row_version)");
    shop.agent.level_within(3);
    assert_eq!(shop.server("SELECT count(*) FROM items WHERE qty = 'many'"), ROWS / 10);
}

#[test]
fn a_column_that_goes_while_it_is_read_stops_its_table_alone() {
    let shop = Shop::open(true);
    shop.agent.configure(&["items", "others"], "[sync]\nmax_batch_rows = 20\n");
    shop.locally("UPDATE items SET row_version = row_version + 1000, qty = qty + 1");
    let run = shop.agent.home.start(["sync", "--json", "--quiet"]);
    let begun = Instant::now();
    while shop.server("SELECT count(*) FROM items WHERE row_version > 1000") == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is sent");
    }
    shop.locally("ALTER TABLE items RENAME COLUMN qty TO quantity");
    let run = run.wait(Duration::from_secs(60));
    let report = run.json();
    let failure = table_of(&report, "items")["failure"].to_string();
    assert!(run.code == Some(1) && failure.contains("qty"), "{run:?}");
    assert!(table_of(&report, "others")["failure"].is_null(), "{report}");
    assert_eq!(shop.server("SELECT count(*) FROM items WHERE qty IS NULL OR qty NOT IN (id, id + 1)"), 0);
    shop.locally("ALTER TABLE items RENAME COLUMN quantity TO qty");
    shop.agent.level_within(2);
}
