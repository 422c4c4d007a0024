//! Several local databases for one registered database, and several agents for one local database, whatever the direction
//! and the kind: each is refused with the reason, or they take turns. Nothing in between.

use std::time::Duration;

use plimsoll_tests::{Agent, ClientHome, Kind, LocalDatabase, Site, shared, table_of};

/// A direction as the configuration says it, and the sides that applications change.
struct Way {
    settings: &'static str,
    /// Whether the local table is written to.
    writes_here: bool,
    changed_here: bool,
    changed_there: bool,
}

const WAYS: [Way; 5] = [
    Way { settings: "direction = \"push\"", writes_here: false, changed_here: true, changed_there: false },
    Way { settings: "direction = \"pull\"", writes_here: true, changed_here: false, changed_there: true },
    Way { settings: "direction = \"two-way\"", writes_here: true, changed_here: true, changed_there: true },
    Way {
        settings: "direction = \"snapshot\"\nsnapshot_from = \"local\"",
        writes_here: false,
        changed_here: true,
        changed_there: false,
    },
    Way {
        settings: "direction = \"snapshot\"\nsnapshot_from = \"remote\"",
        writes_here: true,
        changed_here: false,
        changed_there: true,
    },
];

const GOODS: &str = "CREATE TABLE goods (id INT PRIMARY KEY, name VARCHAR(40), version INT NOT NULL)";

/// The server's side of the table.
fn site() -> Site<'static> {
    let site = Site::new(shared());
    let sql = format!(
        "GRANT CREATE ON SCHEMA public TO {owner}; SET ROLE {owner};
         CREATE TABLE goods (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, name text,
             version int NOT NULL, PRIMARY KEY (client_id, database_id, id));
         RESET ROLE; SELECT plimsoll.manage_table('goods', version_column => 'version', version_scope => 'row')",
        owner = site.owner
    );
    site.superuser().batch_execute(&sql).expect("a managed table");
    site
}

fn agent(site: &Site<'_>, client_id: &str, local: &LocalDatabase, way: &Way) -> Agent {
    let agent = site.agent_of(client_id, local.setting());
    configure(&agent, way);
    agent
}

fn configure(agent: &Agent, way: &Way) {
    let table = "[[table]]\nname = \"goods\"\nremote = \"public.goods\"";
    agent.write_config(&format!("{table}\n{}\n", way.settings));
}

/// Ten rows of the agent's database on either side, the same.
fn fill(site: &Site<'_>, agent: &Agent, local: &LocalDatabase) {
    let mut session = local.connect();
    session.run(GOODS);
    for id in 1..=10 {
        session.run(&format!("INSERT INTO goods VALUES ({id}, 'name', 1)"));
    }
    let tenant = format!("'{}', '{}'", agent.client_id, agent.registered.id);
    let sql = format!("INSERT INTO goods SELECT {tenant}, i, 'name', 1 FROM generate_series(1, 10) i");
    site.owner().batch_execute(&sql).expect("the same rows");
}

#[test]
fn a_second_local_database_of_another_kind_is_refused_wherever_it_would_be_written() {
    let kinds = [Kind::Sqlite, Kind::Postgres, Kind::MariaDb];
    let site = site();
    for (at, way) in WAYS.iter().enumerate() {
        let [one, other] = [0, 1].map(|next| LocalDatabase::new(kinds[(at + next) % 3]));
        let first = agent(&site, &format!("client {at}"), &one, way);
        fill(&site, &first, &one);
        first.sync().expect_code(0);
        // The same registration, another local database.
        let mut second = agent(&site, &format!("somebody {at}"), &other, way);
        second.registered = first.registered.clone();
        configure(&second, way);
        let mut session = other.connect();
        session.run(GOODS);
        session.run("INSERT INTO goods VALUES (77, 'mine', 9)");
        let before = site.content("goods");
        for dry_run in [true, false] {
            let mut arguments = vec!["sync", "--quiet", "--json"];
            arguments.extend(dry_run.then_some("--dry-run"));
            let run = second.home.run(arguments);
            let report = table_of(&run.json(), "goods").clone();
            let is_taken = report["failure"]["sqlstate"] == "55006";
            assert_eq!(is_taken, way.writes_here, "{}: {report}", way.settings);
        }
        if way.writes_here {
            assert_eq!(session.rows("SELECT id, name FROM goods").len(), 1, "{}", way.settings);
            assert_eq!(site.content("goods"), before, "{}", way.settings);
            first.sync().expect_code(0);
        }
    }
}

/// Agents of one local database that run at the same time, while applications change what may change: each run goes on or
/// says who holds the lease, and what is left is level.
fn agents_take_turns(kind: Kind, way: &Way) {
    let site = site();
    let local = LocalDatabase::new(kind);
    let agent = agent(&site, "acme", &local, way);
    fill(&site, &agent, &local);
    let other = ClientHome::new();
    for name in ["plimsoll.toml", "token"] {
        std::fs::copy(agent.home.path(name), other.path(name)).expect("a copy");
    }
    let (mut here, mut there) = (local.connect(), site.owner());
    let mine = format!("database_id = '{}'", agent.registered.id);
    let tenant = format!("'{}', '{}'", agent.client_id, agent.registered.id);
    let (mut done, mut refused) = (0, 0);
    for round in 1..=5 {
        let runs = [&agent.home, &other].map(|home| home.start(["sync", "--quiet"]));
        if way.changed_here {
            here.run(&format!(
                "UPDATE goods SET name = 'h{round}', version = version + 1 WHERE id = {round}"
            ));
            here.run(&format!("INSERT INTO goods VALUES ({}, 'here', 1)", 100 + round));
        }
        if way.changed_there {
            let sql = format!(
                "UPDATE goods SET name = 't{round}', version = version + 1 WHERE {mine} AND id = 5 + {round};
                 INSERT INTO goods VALUES ({tenant}, 200 + {round}, 'there', 1)"
            );
            there.batch_execute(&sql).expect("changes there");
        }
        for run in runs {
            let run = run.wait(Duration::from_secs(60));
            match run.code {
                Some(0) => done += 1,
                // A row may have moved while it was compared.
                Some(1) if !run.stdout.contains("rror") => done += 1,
                Some(2) if run.stderr.contains("holds the lease") => refused += 1,
                _ => panic!("{}: {run:?}", way.settings),
            }
        }
    }
    assert!(done >= 5, "{}: {done} runs, {refused} refused", way.settings);
    // Whoever comes next has nothing to do that was done.
    for _ in 0..2 {
        other.run(["sync", "--quiet"]).expect_code(0);
    }
    let quiet = agent.sync().expect_code(0).json();
    let moved = table_of(&quiet, "goods")["moved"].as_object().expect("counts").clone();
    let moved: Vec<_> =
        moved.iter().filter(|(name, count)| *name != "skew" && count.as_u64() > Some(0)).collect();
    assert!(moved.is_empty(), "{}: {moved:?}", way.settings);
    let mut rows = here.rows("SELECT id, name, version FROM goods ORDER BY id");
    let mut others: Vec<Vec<Option<String>>> = there
        .query(&format!("SELECT id::text, name, version::text FROM goods WHERE {mine}"), &[])
        .expect("rows")
        .iter()
        .map(|row| (0..3).map(|place| row.get(place)).collect())
        .collect();
    rows.sort_unstable();
    others.sort_unstable();
    assert_eq!(rows, others, "{}", way.settings);
    let expected = 10 + 5 * (usize::from(way.changed_here) + usize::from(way.changed_there));
    assert_eq!(rows.len(), expected, "{}: nothing is doubled, nothing is lost", way.settings);
    // Runs never interleave: the batches of each stand together.
    let interleaved = "SELECT count(*) FROM plimsoll.batches a JOIN plimsoll.batches b USING (database_id)
                       WHERE a.batch_id < b.batch_id AND a.run_id > b.run_id";
    assert_eq!(site.superuser().query_one(interleaved, &[]).expect("a count").get::<_, i64>(0), 0);
}

#[test]
fn two_agents_of_one_sqlite_file_take_turns() {
    WAYS.iter().for_each(|way| agents_take_turns(Kind::Sqlite, way));
}

#[test]
fn two_agents_of_one_postgres_database_take_turns() {
    WAYS.iter().filter(|way| way.writes_here).for_each(|way| agents_take_turns(Kind::Postgres, way));
}

#[test]
fn two_agents_of_one_mariadb_database_take_turns() {
    WAYS.iter().filter(|way| way.writes_here).for_each(|way| agents_take_turns(Kind::MariaDb, way));
}
