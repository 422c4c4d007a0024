//! Columns that are renamed, left out, constant or converted, and rows that a condition takes.

use plimsoll_tests::{Agent, Site, table_of};

use crate::shop::sent;

const ORDERS: &str = "
    CREATE TABLE orders (no INTEGER PRIMARY KEY, txt TEXT, secret TEXT, branch INTEGER, changed INTEGER NOT NULL);
    CREATE INDEX orders_changed ON orders (changed);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
    INSERT INTO orders SELECT i, 'order ' || i, 'secret', i % 4, i FROM n;
    CREATE TABLE beside (id INTEGER PRIMARY KEY, version INTEGER NOT NULL);
    CREATE INDEX beside_version ON beside (version);
    INSERT INTO beside VALUES (1, 1);";

const MAPPING: &str = r#"
[[table]]
name = "orders"
remote = "public.sales"
version = "changed"
columns = { no = "number", txt = "note", changed = "version" }
constants = { shop = 7 }
leave_out = ["secret", "branch"]
where = "branch = 1 -- ours"

[[table]]
name = "beside"
"#;

fn run(site: &Site<'_>, sql: &str) {
    site.owner().batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
}

fn count(site: &Site<'_>, sql: &str) -> i64 {
    site.superuser().query_one(sql, &[]).unwrap_or_else(|error| panic!("{error:?}\n{sql}")).get(0)
}

/// A replicated shop whose managed table has other columns than the local one, with the constant in the key or not.
fn mapped(key: &str) -> (Site<'static>, Agent) {
    let site = Site::new(plimsoll_tests::shared());
    let agent = site.agent("acme", ORDERS, &["beside"], "");
    site.create_tables(&agent);
    run(
        &site,
        &format!(
            "CREATE TABLE sales (client_id text NOT NULL, database_id uuid NOT NULL, shop int NOT NULL, number bigint NOT NULL,
                 note text, version bigint NOT NULL, PRIMARY KEY (client_id, database_id, {key}))"
        ),
    );
    site.superuser()
        .batch_execute("SELECT plimsoll.manage_table('sales', version_column => 'version')")
        .expect("managed");
    agent.write_config(MAPPING);
    assert_eq!(sent(&agent.sync().expect_code(0).json()), (101, 0));
    level(&site, &agent);
    (site, agent)
}

/// Level by the client, and by a look at both sides.
#[track_caller]
fn level(site: &Site<'_>, agent: &Agent) {
    agent.home.run(["verify", "--quiet"]).expect_code(0);
    let remote: Vec<String> = site
        .superuser()
        .query(
            "SELECT shop || '|' || number || '|' || note || '|' || version FROM sales ORDER BY number",
            &[],
        )
        .expect("the rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let local = agent.local();
    let mut statement = local
        .prepare("SELECT '7|' || no || '|' || txt || '|' || changed FROM orders WHERE branch = 1 ORDER BY no")
        .expect("a statement");
    let local: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("rows").map(|row| row.expect("a row")).collect();
    assert_eq!(remote, local);
}

#[test]
fn renamed_columns_constants_and_rows_of_a_condition_are_level() {
    for key in ["number", "shop, number"] {
        let (site, agent) = mapped(key);
        let change =
            |sql: &str| agent.local().execute_batch(sql).unwrap_or_else(|error| panic!("{error}\n{sql}"));
        change(
            "UPDATE orders SET txt = 'changed', changed = 1000 WHERE no = 5; DELETE FROM orders WHERE no = 9;
                INSERT INTO orders VALUES (2001, 'new', NULL, 1, 1001), (2002, 'not ours', NULL, 2, 1002)",
        );
        let report = agent.sync().expect_code(0).json();
        assert_eq!(sent(&report), (1, 1), "{report}");
        assert_eq!(table_of(&report, "orders")["deleted"], 1, "{report}");
        level(&site, &agent);
        // A row leaves the condition, with a new version and without; one comes in without.
        change("UPDATE orders SET branch = 2, changed = 1003 WHERE no = 13; UPDATE orders SET branch = 2 WHERE no = 17;
                UPDATE orders SET branch = 1 WHERE no = 18; UPDATE orders SET branch = 1, changed = 1004 WHERE no = 22");
        agent.level_within(2);
        level(&site, &agent);
        // What a look-up by key must not find: a row that is there, and not taken.
        run(&site, "UPDATE sales SET number = 2, note = 'moved' WHERE number = 1");
        agent.level_within(2);
        level(&site, &agent);
        // Another condition is another table: rows come and go, and none is sent that was there.
        agent.write_config(&MAPPING.replace("branch = 1 -- ours", "branch IN (1, 3)"));
        let before = count(&site, "SELECT count(*) FROM sales");
        let report = agent.sync().expect_code(0).json();
        assert_eq!(sent(&report), (100, 0), "{report}");
        assert_eq!(count(&site, "SELECT count(*) FROM sales"), before + 100);
        agent.home.run(["verify", "--quiet"]).expect_code(0);
    }
}

#[test]
fn a_condition_that_is_none_stops_its_table_alone_and_is_told() {
    let (_site, agent) = mapped("number");
    for (condition, told) in [("brunch = 1", "brunch"), ("branch = 1)", "syntax"), ("branch = (1", "syntax")]
    {
        agent.write_config(&MAPPING.replace("branch = 1 -- ours", condition));
        agent.local().execute("UPDATE beside SET version = version + 1", []).expect("a change");
        let report = agent.sync().expect_code(1).json();
        assert_eq!(table_of(&report, "beside")["updated"], 1, "{report}");
        let failure = &table_of(&report, "orders")["failure"];
        let message = failure["message"].as_str().expect("a failure");
        assert!(message.contains("\"orders\" where") && message.contains(told), "{message}");
        assert!(failure["hint"].as_str().is_some_and(|hint| hint.contains("is it sound")), "{failure}");
    }
}

#[test]
fn schema_prints_the_columns_as_they_are_mapped() {
    let (_site, agent) = mapped("number");
    let printed = agent.home.run(["schema", "--table", "orders"]).expect_code(0).stdout;
    for line in [
        "    number bigint NOT NULL",
        "    note text,",
        "    version bigint NOT NULL",
        "    shop bigint NOT NULL",
    ] {
        assert!(printed.contains(line), "{line} in\n{printed}");
    }
    assert!(
        printed.contains("database_id, number)") && printed.contains("version_column => 'version'"),
        "{printed}"
    );
    assert!(!printed.contains("secret") && !printed.contains("changed"), "{printed}");
}

#[test]
fn values_are_converted_as_the_configuration_says_and_losses_are_told_once() {
    let site = Site::new(plimsoll_tests::shared());
    let sql = "
        CREATE TABLE readings (id INTEGER PRIMARY KEY, txt TEXT, amount REAL, at INTEGER, ms INTEGER, jd REAL, long TEXT,
            version INTEGER NOT NULL);
        CREATE INDEX readings_version ON readings (version);
        INSERT INTO readings VALUES
            (1, 'a' || char(0) || 'b', 1.005, 1709202030, 1709202030123, 2460369.5, '2024-02-29 10:20:30.1234567', 1),
            (2, 'plain', 2.5, 0, 0, 2451544.5, '2024-02-29 10:20:30.123', 2),
            (3, char(0), 0.125, -1, 1, 2451545.0, '2024-02-29 10:20:30.9999999', 3),
            (4, NULL, NULL, NULL, NULL, NULL, NULL, 4);";
    let agent = site.agent("acme", sql, &[], "");
    let grant = format!("GRANT CREATE ON SCHEMA public TO {}", site.owner);
    site.superuser().batch_execute(&grant).expect("a grant");
    run(
        &site,
        "CREATE TABLE readings (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL, txt text,
             amount numeric(10,2), at timestamptz, ms timestamp(3), jd timestamp, long timestamp(0),
             version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id))",
    );
    site.superuser()
        .batch_execute("SELECT plimsoll.manage_table('readings', version_column => 'version')")
        .expect("managed");
    let table = "[[table]]\nname = \"readings\"\n";
    agent.write_config(table);
    let report = agent.sync().expect_code(0).json();
    assert_eq!(table_of(&report, "readings")["rejected"], 3, "nothing fits as it is: {report}");
    agent.write_config(&format!(
        "{table}convert = {{ txt = \"strip_nul\", amount = \"round\", at = \"unix_seconds\", ms = \"unix_milliseconds\", \
         jd = \"julian_day\", long = \"truncate\" }}\n"
    ));
    let run = agent.sync().expect_code(0);
    assert_eq!(sent(&run.json()), (3, 0), "{}", run.stdout);
    for (column, conversion) in [("txt", "strip_nul"), ("amount", "round"), ("long", "truncate")] {
        let told = format!("column \"{column}\" is sent converted ({conversion})");
        assert_eq!(run.stderr.matches(&told).count(), 1, "{}", run.stderr);
    }
    assert!(!run.stderr.contains("unix_seconds"), "nothing is lost by that: {}", run.stderr);
    let rows: Vec<String> = site
        .superuser()
        .query(
            "SELECT concat_ws('|', id, txt, amount, at AT TIME ZONE 'UTC', ms, jd, long) FROM readings ORDER BY id",
            &[],
        )
        .expect("rows")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(
        rows,
        [
            "1|ab|1.01|2024-02-29 10:20:30|2024-02-29 10:20:30.123|2024-02-29 00:00:00|2024-02-29 10:20:30",
            "2|plain|2.50|1970-01-01 00:00:00|1970-01-01 00:00:00|2000-01-01 00:00:00|2024-02-29 10:20:30",
            "3||0.13|1969-12-31 23:59:59|1970-01-01 00:00:00.001|2000-01-01 12:00:00|2024-02-29 10:20:30",
            "4",
        ]
    );
    agent.home.run(["verify", "--quiet"]).expect_code(0);
    assert_eq!(sent(&agent.sync().expect_code(0).json()), (0, 0));
    // A row that differs only in what is lost is the same row; one that does not is sent.
    agent
        .local()
        .execute_batch("UPDATE readings SET amount = 2.501, version = 5 WHERE id = 2")
        .expect("a change");
    assert_eq!(sent(&agent.sync().expect_code(0).json()), (0, 1), "its version changed");
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}

#[test]
fn a_postgres_database_is_mapped_and_converted_alike() {
    let site = Site::new(plimsoll_tests::shared());
    let agent = site.agent("acme", "", &[], "");
    let local_name = site.cluster.create_database();
    let mut local = site.cluster.superuser(&local_name);
    local
        .batch_execute(&format!(
            "CREATE TABLE orders (no int PRIMARY KEY, txt text, branch int, at bigint, amount numeric, made timestamptz,
                 changed bigint NOT NULL);
             CREATE INDEX ON orders (changed);
             INSERT INTO orders SELECT i, 'order ' || i, i % 4, 1709202030 + i, i + 0.125, '2024-02-29 10:20:30.75+00', i
             FROM generate_series(1, 400) i;
             GRANT SELECT ON orders TO {}",
            agent.login.role
        ))
        .expect("a local database");
    site.superuser()
        .batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", site.owner))
        .expect("a grant");
    run(
        &site,
        "CREATE TABLE sales (client_id text NOT NULL, database_id uuid NOT NULL, shop int NOT NULL, number bigint NOT NULL,
             note text, at timestamptz, amount numeric(10,2), made timestamptz(0), version bigint NOT NULL,
             PRIMARY KEY (client_id, database_id, shop, number))",
    );
    site.superuser()
        .batch_execute("SELECT plimsoll.manage_table('sales', version_column => 'version')")
        .expect("managed");
    agent.home.write("token", &agent.registered.token);
    let text = format!(
        "[server]\nurl = \"{}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n[source]\npostgres = \"{}\"\n
         [[table]]\nname = \"orders\"\nremote = \"public.sales\"\nversion = \"changed\"\nwhere = \"branch = 1 -- ours\"\n
         columns = {{ no = \"number\", txt = \"note\", changed = \"version\" }}\nconstants = {{ shop = 7 }}\n
         leave_out = [\"branch\"]\nconvert = {{ at = \"unix_seconds\", amount = \"round\", made = \"truncate\" }}\n",
        site.cluster.client_url(&agent.login, &site.database),
        agent.registered.id,
        site.cluster.client_url(&agent.login, &local_name),
    );
    agent.home.write("plimsoll.toml", &text);
    let mut same = |step: &str| {
        agent.home.run(["verify", "--quiet"]).expect_code(0);
        let rows = |client: &mut postgres::Client, sql: &str| -> Vec<String> {
            client.query(sql, &[]).expect(step).iter().map(|row| row.get(0)).collect()
        };
        let remote = rows(
            &mut site.superuser(),
            "SELECT concat_ws('|', shop, number, note, extract(epoch FROM at)::bigint, amount, made = '2024-02-29 10:20:30+00',
                 version) FROM sales ORDER BY number",
        );
        let here = rows(
            &mut local,
            "SELECT concat_ws('|', 7, no, txt, at, round(amount, 2), true, changed) FROM orders WHERE branch = 1 ORDER BY no",
        );
        assert_eq!(remote, here, "{step}");
        remote.len()
    };
    assert_eq!(sent(&agent.sync().expect_code(0).json()), (100, 0));
    assert_eq!(same("a first sync"), 100);
    let mut changing = site.cluster.superuser(&local_name);
    changing
        .batch_execute(
            "UPDATE orders SET branch = 2 WHERE no = 5; UPDATE orders SET branch = 1, changed = 1001 WHERE no = 6;
             UPDATE orders SET txt = 'changed', changed = 1000 WHERE no = 9; DELETE FROM orders WHERE no = 13",
        )
        .expect("changes");
    agent.level_within(2);
    assert_eq!(same("changes"), 99);
    run(
        &site,
        "UPDATE sales SET note = 'damaged' WHERE number = 17; UPDATE sales SET number = 2 WHERE number = 21",
    );
    agent.level_within(2);
    same("a repair");
}
