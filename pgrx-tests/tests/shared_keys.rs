//! Rows that the local database tells apart and the managed table does not: one of them is stored, always the same one,
//! the others are told by both spellings, and the table is level again when the source is mended.

use plimsoll_tests::{Agent, Site, shared, table_of};

/// A local table and its managed one, two spellings of one key, and a third key.
struct Case {
    table: &'static str,
    /// The managed key column.
    key: &'static str,
    versioned: bool,
    /// In SQL, as SQLite takes them. The first is the one that is stored, where no version says which is later.
    spellings: [&'static str; 2],
    /// As a message shows them.
    shown: [&'static str; 2],
    free: &'static str,
}

const CASES: [Case; 5] = [
    Case {
        table: "amounts",
        key: "numeric",
        versioned: true,
        spellings: ["'1.0'", "'1.00'"],
        shown: [r#"{"k":"1.0"}"#, r#"{"k":"1.00"}"#],
        free: "'2.5'",
    },
    Case {
        table: "classes",
        key: "numeric",
        versioned: false,
        spellings: ["1", "'1'"],
        shown: [r#"{"k":1}"#, r#"{"k":"1"}"#],
        free: "7.5",
    },
    Case {
        table: "codes",
        key: "char(8)",
        versioned: false,
        spellings: ["'a'", "'a '"],
        shown: [r#"{"k":"a"}"#, r#"{"k":"a "}"#],
        free: "'b'",
    },
    Case {
        table: "ids",
        key: "uuid",
        versioned: true,
        spellings: ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"],
        shown: [
            r#"{"k":"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"}"#,
            r#"{"k":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}"#,
        ],
        free: "'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    },
    Case {
        table: "stamps",
        key: "timestamp",
        versioned: true,
        spellings: ["'2024-01-01T10:00:00'", "'2024-01-01 10:00:00'"],
        shown: [r#"{"k":"2024-01-01T10:00:00"}"#, r#"{"k":"2024-01-01 10:00:00"}"#],
        free: "'2024-01-01 11:00:00'",
    },
];

/// Other rows of each table: so many that there are several batches.
const ROWS: i64 = 60;

impl Case {
    /// Another key than those of the case, in SQL.
    fn other(&self, number: i64) -> String {
        match self.key {
            "char(8)" => format!("'n{number}'"),
            "uuid" => format!("'{}'", uuid::Uuid::from_u128(number as u128)),
            "timestamp" => format!("'2023-01-01 00:00:{number:02}'"),
            _ => format!("'{}'", number + 100),
        }
    }

    fn managed(&self, owner: &str) -> String {
        let Case { table, key, .. } = self;
        let version = if self.versioned { "version_column => 'v', " } else { "" };
        format!(
            "CREATE TABLE public.{table} (client_id text NOT NULL, database_id uuid NOT NULL, k {key} NOT NULL,
                 v int8 NOT NULL, name text, PRIMARY KEY (client_id, database_id, k));
             ALTER TABLE public.{table} OWNER TO {owner};
             SELECT plimsoll.manage_table('public.{table}', {version}key_columns => '{{k}}');"
        )
    }
}

fn site() -> (Site<'static>, Agent) {
    let site = Site::new(shared());
    let local: String = CASES
        .iter()
        .map(|case| {
            let table = case.table;
            let rows =
                (0..ROWS).map(|n| format!("INSERT INTO {table} VALUES ({}, {n}, 'n');", case.other(n)));
            let rows: String = rows.collect();
            format!(
                "CREATE TABLE {table} (k PRIMARY KEY NOT NULL, v INTEGER NOT NULL, name TEXT);
                     CREATE INDEX {table}_v ON {table} (v); {rows}"
            )
        })
        .collect();
    let agent = site.agent("acme", &local, &[], "");
    let tables = CASES.iter().map(|case| format!("\n[[table]]\nname = \"{}\"\n", case.table));
    agent.write_config(&format!("[sync]\nmax_batch_rows = 16\n{}", tables.collect::<String>()));
    let mut superuser = site.superuser();
    superuser.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", site.owner)).expect("a grant");
    for case in &CASES {
        superuser.batch_execute(&case.managed(&site.owner)).expect(case.table);
    }
    (site, agent)
}

/// Runs the agent until each table says that one row is rejected, at most three times; it is never level on the way.
#[track_caller]
fn told(agent: &Agent) {
    for run in 0.. {
        let report = agent.sync().expect_code(0).json();
        let of = |case: &Case| table_of(&report, case.table).clone();
        assert!(CASES.iter().all(|case| of(case)["status"] != "level"), "{report}");
        if CASES.iter().all(|case| of(case)["status"] == "level_except" && of(case)["rejected"] == 1) {
            return;
        }
        assert!(run < 2, "{report}");
    }
}

/// Nothing is sent any more, and verify says that the tables differ.
#[track_caller]
fn quiet(agent: &Agent) {
    for _ in 0..3 {
        let report = agent.sync().expect_code(0).json();
        for case in &CASES {
            let table = table_of(&report, case.table);
            let sent = ["inserted", "updated", "unchanged", "deleted"].map(|count| table[count].clone());
            assert_eq!(sent, [0, 0, 0, 0].map(serde_json::Value::from), "{}: {table}", case.table);
            assert_eq!(
                (&table["status"], &table["rejected"]),
                (&"level_except".into(), &1.into()),
                "{table}"
            );
        }
    }
    agent.home.run(["verify", "--quiet"]).expect_code(1);
}

/// What is stored of the key that has two spellings.
fn stored(site: &Site<'_>, case: &Case) -> String {
    let sql = format!("SELECT name FROM public.{} WHERE name <> 'n'", case.table);
    let rows = site.superuser().query(&sql, &[]).expect(case.table);
    assert_eq!(rows.len(), 1, "{}", case.table);
    rows[0].get(0)
}

/// The key and the message of the one row that is remembered as rejected.
fn remembered(site: &Site<'_>, case: &Case) -> (String, String) {
    let sql = "SELECT key::text, message FROM plimsoll.rejected_rows WHERE relation::text LIKE $1";
    let rows = site.superuser().query(sql, &[&format!("%{}", case.table)]).expect(case.table);
    assert_eq!(rows.len(), 1, "{}", case.table);
    (rows[0].get(0), rows[0].get(1))
}

fn change(agent: &Agent, sql: impl Fn(&Case) -> String) {
    let changes: String = CASES.iter().map(sql).collect();
    agent.local().execute_batch(&changes).expect("the changes");
}

#[track_caller]
fn level(agent: &Agent) {
    let report = agent.sync().expect_code(0).json();
    for case in &CASES {
        assert_eq!(table_of(&report, case.table)["rejected"], 0, "{report}");
    }
    agent.home.run(["verify", "--quiet"]).expect_code(0);
}

#[test]
fn rows_of_one_key_are_told_from_the_first_run_on() {
    let (site, agent) = site();
    // They are read in different batches, or in one.
    change(&agent, |case| {
        let [one, other] = case.spellings;
        let table = case.table;
        format!(
            "INSERT INTO {table} VALUES ({one}, 3, 'first');
             INSERT INTO {table} VALUES ({other}, {}, 'second');",
            if case.table == "ids" { 3 } else { ROWS - 3 }
        )
    });
    told(&agent);
    for case in &CASES {
        // The later one, where there are versions.
        let later = case.versioned && case.table != "ids";
        assert_eq!(stored(&site, case), if later { "second" } else { "first" }, "{}", case.table);
        let (key, message) = remembered(&site, case);
        let read = |key: &str| serde_json::from_str::<serde_json::Value>(key).expect("a key");
        assert_eq!(read(&key), read(case.shown[usize::from(!later)]));
        assert!(case.shown.iter().all(|key| message.contains(key)), "{message}");
    }
    quiet(&agent);
    // Another key for the one, and the other is as it was.
    change(&agent, |case| {
        format!(
            "UPDATE {} SET k = {}, v = {} WHERE k = {};",
            case.table,
            case.free,
            ROWS + 1,
            case.spellings[1]
        )
    });
    level(&agent);
}

#[test]
fn a_row_that_comes_later_is_told_and_takes_the_place_only_when_it_is_free() {
    let (site, agent) = site();
    change(&agent, |case| format!("INSERT INTO {} VALUES ({}, 3, 'first');", case.table, case.spellings[0]));
    agent.level_within(2);
    change(&agent, |case| {
        format!("INSERT INTO {} VALUES ({}, {}, 'second');", case.table, case.spellings[1], ROWS + 1)
    });
    told(&agent);
    let later = |case: &Case, name| if case.versioned { name } else { "first" };
    CASES.iter().for_each(|case| assert_eq!(stored(&site, case), later(case, "second"), "{}", case.table));
    quiet(&agent);
    change(&agent, |case| {
        format!("UPDATE {} SET v = {}, name = 'third' WHERE k = {};", case.table, ROWS + 2, case.spellings[1])
    });
    told(&agent);
    CASES.iter().for_each(|case| assert_eq!(stored(&site, case), later(case, "third"), "{}", case.table));
    quiet(&agent);
    change(&agent, |case| format!("DELETE FROM {} WHERE k = {};", case.table, case.spellings[0]));
    level(&agent);
    CASES.iter().for_each(|case| assert_eq!(stored(&site, case), "third", "{}", case.table));
}

#[test]
fn rows_without_a_value_in_their_key_are_told_one_by_one() {
    let site = Site::new(shared());
    let tables = ["versions", "hashes"];
    let local = tables.map(|table| {
        format!(
            "CREATE TABLE {table} (k TEXT PRIMARY KEY, v INTEGER NOT NULL, name TEXT);
             CREATE INDEX {table}_v ON {table} (v);
             INSERT INTO {table} VALUES ('a', 1, 'x'), (NULL, 2, 'first'), (NULL, 3, 'second'), ('b', 4, 'x');"
        )
    });
    let agent = site.agent("acme", &local.concat(), &tables, "");
    let mut superuser = site.superuser();
    superuser.batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", site.owner)).expect("a grant");
    for table in tables {
        let case = Case {
            table,
            key: "text",
            versioned: table == "versions",
            spellings: [""; 2],
            shown: [""; 2],
            free: "",
        };
        superuser.batch_execute(&case.managed(&site.owner)).expect(table);
    }
    let left = |rows: i64| {
        for _ in 0..2 {
            let report = agent.sync().expect_code(0).json();
            for table in tables {
                let of = table_of(&report, table);
                assert_eq!((&of["rejected"], &of["status"]), (&rows.into(), &"level_except".into()), "{of}");
            }
        }
        let verdict = agent.home.run(["verify", "--quiet", "--json"]).expect_code(1).json();
        for table in tables {
            let of = table_of(&verdict, table);
            assert_eq!((&of["rejected"], &of["missing"]), (&rows.into(), &0.into()), "{of}");
        }
    };
    let change = |sql: &str| {
        let both = tables.map(|table| sql.replace("TABLE", table));
        agent.local().execute_batch(&both.concat()).expect("changes");
    };
    left(2);
    change("UPDATE TABLE SET v = 5, name = 'third' WHERE v = 2;");
    left(2);
    change("DELETE FROM TABLE WHERE v = 3;");
    left(1);
    change("UPDATE TABLE SET k = 'c', v = 6 WHERE k IS NULL;");
    agent.level_within(1);
    assert_eq!(site.content("public.versions").len(), 3);
}
