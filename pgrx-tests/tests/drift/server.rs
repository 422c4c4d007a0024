//! The managed table is altered.

use std::time::{Duration, Instant};

use crate::shop::{ROWS, Shop, sent};

/// The numbers of the columns of `items` by their names, as agents are told them.
fn numbers(shop: &Shop) -> Vec<(i32, String)> {
    let sql = "SELECT column_number, column_name FROM plimsoll.table_schema($1, 'items') ORDER BY 1";
    let rows = shop.site.superuser().query(sql, &[&shop.agent.registered.id]).expect("a schema");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What the server says of the manifest when a run begins.
fn manifest(shop: &Shop) -> String {
    let sql = "SELECT t ->> 'manifest' FROM plimsoll.begin_run($1, 'probe', '1', 1, 'here', NULL) r,
               LATERAL jsonb_array_elements(r.tables) t WHERE t ->> 'relation' = 'public.items'";
    let mut superuser = shop.site.superuser();
    let mut probe = superuser.transaction().expect("a transaction");
    probe.query_one(sql, &[&shop.agent.registered.id]).expect("a run").get(0)
}

#[test]
fn a_wider_column_sends_nothing_and_keeps_the_proof_of_the_rest() {
    for kept in [true, false] {
        let shop = Shop::open(kept);
        for change in [
            "ALTER TABLE items ALTER qty TYPE bigint",
            "ALTER TABLE items ALTER name TYPE varchar(20)",
            "ALTER TABLE items ALTER name TYPE text",
            "ALTER TABLE items ALTER price TYPE numeric(12,2)",
            "ALTER TABLE items ALTER price TYPE numeric(14,3)",
            "ALTER TABLE items ALTER made TYPE timestamp",
            "ALTER TABLE items ALTER name SET NOT NULL",
            "ALTER TABLE items ALTER name DROP NOT NULL",
        ] {
            shop.alter(change);
            assert_eq!(shop.sent(), (0, 0), "{change}");
            shop.level();
            if kept {
                assert_eq!(manifest(&shop), "kept", "{change}");
            }
        }
        shop.locally("UPDATE items SET name = 'a name beyond ten', row_version = 1000 WHERE id = 7");
        assert_eq!(shop.sent(), (0, 1));
        shop.level();
    }
}

#[test]
fn a_row_that_was_too_long_is_sent_once_the_column_is_wider() {
    let shop = Shop::open(true);
    shop.locally("UPDATE items SET name = 'a name beyond ten', row_version = 1000 WHERE id = 7");
    let run = shop.agent.sync().expect_code(0);
    assert!(run.stdout.contains("\"rejected\":1"), "{}", run.stdout);
    shop.agent.home.run(["verify", "--quiet"]).expect_code(1);
    shop.alter("ALTER TABLE items ALTER name TYPE varchar(20)");
    assert_eq!(shop.sent(), (0, 1), "nobody changed the row meanwhile");
    shop.level();
    shop.locally("UPDATE items SET name = NULL, row_version = 1001 WHERE id = 8");
    assert_eq!(shop.sent(), (0, 1));
    shop.alter("DELETE FROM items WHERE id = 8; ALTER TABLE items ALTER name SET NOT NULL");
    let run = shop.agent.sync().expect_code(0);
    assert!(run.stdout.contains("\"rejected\":1"), "{}", run.stdout);
    shop.alter("ALTER TABLE items ALTER name DROP NOT NULL");
    assert_eq!(shop.sent(), (1, 0));
    shop.level();
}

#[test]
fn a_column_that_is_narrower_or_gone_sends_nothing() {
    let shop = Shop::open(true);
    shop.alter("ALTER TABLE items ALTER name TYPE varchar(8)");
    assert_eq!(shop.sent(), (0, 0));
    shop.level();
    shop.locally("UPDATE items SET name = 'ten digits', row_version = 1000 WHERE id = 7");
    let run = shop.agent.sync().expect_code(0);
    assert!(run.stdout.contains("\"rejected\":1"), "{}", run.stdout);
    shop.locally("UPDATE items SET name = 'seven', row_version = 1001 WHERE id = 7");
    assert_eq!(shop.sent(), (0, 1));
    shop.alter("ALTER TABLE items DROP COLUMN made");
    let run = shop.agent.sync().expect_code(0);
    assert_eq!(sent(&run.json()), (0, 0));
    assert!(
        run.stderr.contains("column \"made\" of the local table \"items\" is not in public.items"),
        "{}",
        run.stderr
    );
    shop.level();
    shop.alter("ALTER TABLE items ADD COLUMN made timestamp(0)");
    assert_eq!(shop.sent(), (0, ROWS), "all of them hold a value there");
    shop.level();
}

#[test]
fn a_column_that_is_dropped_and_added_again_between_two_runs_is_another() {
    for keep_manifest in [true, false] {
        let shop = Shop::open(keep_manifest);
        let before = numbers(&shop);
        shop.alter("ALTER TABLE items DROP COLUMN made; ALTER TABLE items ADD COLUMN made timestamp(0)");
        assert_eq!(shop.sent(), (0, ROWS), "kept: {keep_manifest}");
        shop.level();
        let now = numbers(&shop);
        let other: Vec<_> = now.iter().filter(|column| !before.contains(column)).collect();
        assert!(now.len() == before.len() && other.len() == 1 && other[0].1 == "made", "{now:?}");
    }
}

#[test]
fn a_renamed_column_keeps_its_number_and_a_new_one_gets_another() {
    let shop = Shop::open(true);
    let before = numbers(&shop);
    let number_of = |numbers: &[(i32, String)], name: &str| {
        numbers
            .iter()
            .find(|(_, column)| column == name)
            .unwrap_or_else(|| panic!("no {name} in {numbers:?}"))
            .0
    };
    let name = number_of(&before, "name");
    shop.alter("ALTER TABLE items RENAME name TO title");
    assert_eq!(number_of(&numbers(&shop), "title"), name);
    shop.alter("ALTER TABLE items ADD COLUMN name text");
    let now = numbers(&shop);
    assert_eq!(number_of(&now, "title"), name);
    assert!(number_of(&now, "name") > before.iter().map(|(number, _)| *number).max().expect("numbers"));
    shop.alter("ALTER TABLE items DROP COLUMN name; ALTER TABLE items RENAME title TO name");
    assert_eq!(numbers(&shop), before);
    // Two change names; key and version, too.
    shop.alter(
        "ALTER TABLE items RENAME name TO other; ALTER TABLE items RENAME price TO name;
         ALTER TABLE items RENAME other TO price; ALTER TABLE items RENAME id TO item;
         ALTER TABLE items RENAME row_version TO version; ALTER TABLE items RENAME client_id TO client",
    );
    let renamed = numbers(&shop);
    for (was, is) in [("name", "price"), ("price", "name"), ("id", "item"), ("row_version", "version")] {
        assert_eq!(number_of(&before, was), number_of(&renamed, is), "{was}");
    }
    let sql = "SELECT key_columns::text || version_column || tenant_columns::text FROM plimsoll.tables
               WHERE relation = 'public.items'";
    let shown: String = shop.site.superuser().query_one(sql, &[]).expect("the table").get(0);
    assert_eq!(shown, "{item}version{client,database_id}");
    shop.alter(
        "ALTER TABLE items RENAME price TO other; ALTER TABLE items RENAME name TO price;
         ALTER TABLE items RENAME other TO name; ALTER TABLE items RENAME item TO id;
         ALTER TABLE items RENAME version TO row_version; ALTER TABLE items RENAME client TO client_id",
    );
    assert_eq!(numbers(&shop), before);
    assert_eq!(shop.sent(), (0, 0), "the rows are what they were");
    shop.level();
}

#[test]
fn the_trigger_counts_rows_of_renamed_columns_before_anybody_else_hears_of_them() {
    let shop = Shop::open(true);
    shop.alter(
        "ALTER TABLE items RENAME row_version TO version; ALTER TABLE items RENAME name TO title;
         UPDATE items SET title = 'changed', version = version + 1000 WHERE id <= 10",
    );
    let id = shop.agent.registered.id;
    let mut superuser = shop.site.superuser();
    superuser.query("SELECT plimsoll.rebuild_manifest($1, 'items')", &[&id]).expect("rebuilt");
    shop.alter("UPDATE items SET title = 'again' WHERE id <= 20");
    let wrong =
        superuser.query("SELECT * FROM plimsoll.check_manifest($1, 'items')", &[&id]).expect("a check");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_column_that_a_table_cannot_do_without_stops_it_by_name() {
    for (change, told) in [
        ("ALTER TABLE items DROP COLUMN row_version CASCADE", "has no column \"row_version\" any more"),
        ("ALTER TABLE items DROP COLUMN id CASCADE", "has no column \"id\" any more"),
        ("ALTER TABLE items DROP COLUMN client_id CASCADE", "has no column \"client_id\" any more"),
        ("ALTER TABLE items DROP CONSTRAINT items_pkey", "no unique index of public.items covers exactly"),
    ] {
        let shop = Shop::open(false);
        shop.alter(change);
        let message = shop.items_fail();
        assert!(message.contains(told), "{change}: {message}");
        assert!(message.contains("manage_table") || message.contains("CREATE UNIQUE INDEX"), "{message}");
    }
}

#[test]
fn a_generated_column_is_the_servers() {
    let shop = Shop::open(true);
    shop.alter("ALTER TABLE items ADD COLUMN worth numeric GENERATED ALWAYS AS (qty * price) STORED");
    assert_eq!(shop.sent(), (0, 0));
    shop.level();
    shop.locally("UPDATE items SET qty = 5, row_version = 1000 WHERE id = 7");
    assert_eq!(shop.sent(), (0, 1));
    shop.level();
}

/// Starts a run of many small batches, alters the table while they come, and answers what the run told.
fn altered_meanwhile(shop: &Shop, change: &str) -> String {
    shop.agent.configure(&["items", "others"], "[sync]\nmax_batch_rows = 4\n");
    shop.locally("UPDATE items SET row_version = row_version + 1000, qty = qty + 1");
    let run = shop.agent.home.start(["sync", "--json", "--quiet"]);
    let begun = Instant::now();
    let altered = loop {
        let done = shop.server("SELECT count(*) FROM items WHERE row_version > 1000");
        if done > 0 {
            assert!(done < ROWS, "the run was over too soon");
            shop.alter(change);
            break shop.server("SELECT count(*) FROM items WHERE row_version > 1000");
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing is sent");
    };
    let run = run.wait(Duration::from_secs(60));
    println!("{altered} of {ROWS} rows were sent before {change}");
    format!("{:?} {}", run.code, run.stdout)
}

#[test]
fn a_run_that_finds_other_columns_stops_the_table_and_the_next_one_goes_on() {
    let shop = Shop::open(true);
    let told = altered_meanwhile(&shop, "ALTER TABLE items ALTER qty TYPE bigint");
    assert!(told.contains("column \\\"qty\\\" was int4 and is int8"), "{told}");
    assert!(told.starts_with("Some(1)") && told.contains("the next run goes on"), "{told}");
    let (inserted, updated) = shop.sent();
    assert!(inserted == 0 && updated > 0 && updated < ROWS, "{updated}");
    shop.level();
    assert_eq!(shop.sent(), (0, 0));
}

#[test]
fn no_row_is_rejected_because_its_column_is_gone_or_of_another_type() {
    for (change, back) in [
        ("ALTER TABLE items DROP COLUMN made", "ALTER TABLE items ADD COLUMN made timestamp(0)"),
        ("ALTER TABLE items ALTER qty TYPE text", "ALTER TABLE items ALTER qty TYPE int USING qty::int"),
        ("ALTER TABLE items ADD COLUMN extra int NOT NULL DEFAULT 5", "ALTER TABLE items DROP COLUMN extra"),
    ] {
        let shop = Shop::open(true);
        let told = altered_meanwhile(&shop, change);
        assert!(told.contains("was altered on the server during the run"), "{change}: {told}");
        assert_eq!(shop.server("SELECT count(*) FROM plimsoll.rejected_rows"), 0, "{change}");
        shop.alter(back);
        shop.agent.level_within(2);
    }
}
