//! Directions as the client's user meets them: a table that may not go its way, a second local database, a table that
//! goes another way than before, and what is printed of each.

mod several;

use plimsoll_tests::{Agent, Finished, Site, shared, table_of};
use serde_json::Value as Json;

const SHOP: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT, version INTEGER NOT NULL);
    CREATE TABLE clerks (id INTEGER PRIMARY KEY, name TEXT, version INTEGER NOT NULL);
    INSERT INTO orders VALUES (1, 'tea', 1), (2, 'salt', 2), (3, 'soap', 3);
    INSERT INTO clerks VALUES (1, 'Ann', 1)";

/// A site with both tables, filled by the agent of a first run.
fn open() -> (Site<'static>, Agent) {
    let site = Site::new(shared());
    let agent = site.agent("acme", SHOP, &["orders", "clerks"], "");
    site.create_tables(&agent);
    agent.sync().expect_code(0);
    (site, agent)
}

/// Has the orders go this way; the clerks are pushed.
fn orders_go(agent: &Agent, direction: &str) {
    agent.write_config(&format!("[[table]]\nname = \"orders\"\n{direction}\n[[table]]\nname = \"clerks\"\n"));
}

fn administer(site: &Site, sql: &str) {
    site.superuser().batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Why the orders did not go on.
fn refusal(run: &Finished) -> Json {
    let failure = table_of(&run.json(), "orders")["failure"].clone();
    assert!(!failure.is_null(), "{}", run.stdout);
    failure
}

fn is_taken(run: &Finished) -> bool {
    table_of(&run.json(), "orders")["failure"]["sqlstate"] == "55006"
}

#[test]
fn a_table_that_may_not_go_its_way_is_refused_with_the_reason_before_anything_moves() {
    let (site, agent) = open();
    administer(&site, "SELECT plimsoll.set_directions('public.orders', '{pull}')");
    let more = "INSERT INTO orders VALUES (4, 'rope', 4); INSERT INTO clerks VALUES (2, 'Bob', 2)";
    agent.local().execute_batch(more).expect("more rows");
    let run = agent.sync().expect_code(1);
    let failure = refusal(&run);
    assert_eq!(failure["sqlstate"], "42501");
    let message = failure["message"].as_str().expect("a message");
    assert_eq!(message, "table public.orders does not allow direction push: It allows pull");
    assert!(failure["hint"].as_str().expect("a hint").contains("plimsoll.set_directions('public.orders'"));
    assert_eq!(site.content("public.orders").len(), 3, "nothing was sent");
    assert_eq!(site.content("public.clerks").len(), 2, "the other table went on");
    administer(&site, "SELECT plimsoll.set_directions('public.orders', '{push,pull}')");
    agent.sync().expect_code(0);
    assert_eq!(site.content("public.orders").len(), 4);
}

#[test]
fn a_second_local_database_is_told_who_has_the_place_and_how_to_take_it() {
    let (site, first) = open();
    orders_go(&first, "direction = \"pull\"");
    assert!(!is_taken(&first.sync()), "the first one has the place");
    let mut second = site.agent("umbrella", SHOP, &[], "");
    second.registered = first.registered.clone();
    orders_go(&second, "direction = \"pull\"");
    let run = second.sync().expect_code(1);
    assert!(is_taken(&run), "{}", run.stdout);
    let failure = refusal(&run);
    let message = failure["message"].as_str().expect("a message");
    for told in ["kept level with another local database", "agent", "since 20", "last seen 20"] {
        assert!(message.contains(told), "{message}");
    }
    let hint = failure["hint"].as_str().expect("a hint");
    assert!(hint.contains("register_database") && hint.contains("--take-over"), "{hint}");
    assert!(table_of(&run.json(), "clerks")["failure"].is_null(), "what is pushed is not concerned");
    // Its state may be lost: the id is in the local database.
    std::fs::remove_file(first.home.path("plimsoll.state.json")).expect("the state is gone");
    assert!(!is_taken(&first.sync()));
    // The administrator permits it first.
    let take_over = ["sync", "--take-over", "--json", "--quiet"];
    let run = second.home.run(take_over).expect_code(1);
    assert!(is_taken(&run));
    assert!(run.stderr.contains("allow_take_over"), "{}", run.stderr);
    let permit = format!("SELECT plimsoll.set_option('{}', 'allow_take_over', 'true')", first.registered.id);
    administer(&site, &permit);
    assert!(is_taken(&second.sync()), "nobody takes a place unasked");
    let run = second.home.run(take_over);
    assert!(!is_taken(&run), "{}", run.stdout);
    assert!(
        run.stderr.contains("public.orders is kept level with this local database from now on"),
        "{}",
        run.stderr
    );
    assert!(!is_taken(&second.sync()));
    assert!(is_taken(&first.sync().expect_code(1)));
    // The administrator may end it too.
    let forget = format!("SELECT plimsoll.forget_side('{}', 'public.orders')", first.registered.id);
    administer(&site, &forget);
    assert!(!is_taken(&first.sync()));
}

#[test]
fn a_run_that_only_looks_leaves_no_note_and_takes_no_place() {
    let (site, first) = open();
    orders_go(&first, "direction = \"pull\"");
    let before: Vec<String> = names(&first);
    let run = first.home.run(["sync", "--dry-run", "--json", "--quiet"]);
    assert!(!is_taken(&run), "{}", run.stdout);
    assert_eq!(names(&first), before);
    let sides: i64 =
        site.superuser().query_one("SELECT count(*) FROM plimsoll.side_record", &[]).expect("sides").get(0);
    assert_eq!(sides, 0);
}

fn names(agent: &Agent) -> Vec<String> {
    let local = agent.local();
    let mut names = local.prepare("SELECT name FROM sqlite_master ORDER BY 1").expect("a query");
    let names = names.query_map([], |row| row.get(0)).expect("names");
    names.collect::<Result<_, _>>().expect("names")
}

#[test]
fn a_table_that_goes_another_way_says_so_and_is_compared_anew() {
    let (site, agent) = open();
    let remembered = |relation: &str| {
        let text = std::fs::read_to_string(agent.home.path("plimsoll.state.json")).expect("the state");
        serde_json::from_str::<Json>(&text).expect("JSON")["tables"][relation].clone()
    };
    assert!(!remembered("public.orders")["proved_at"].is_null());
    orders_go(&agent, "direction = \"pull\"");
    let run = agent.sync();
    let said = "the direction of public.orders was push and is pull now";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    assert!(!run.stderr.contains("the direction of public.clerks"), "{}", run.stderr);
    assert!(!agent.sync().stderr.contains(said), "it is said once");
    orders_go(&agent, "direction = \"push\"");
    let run = agent.sync().expect_code(0);
    assert!(run.stderr.contains("the direction of public.orders was pull and is push now"), "{}", run.stderr);
    let compared = table_of(&run.json(), "orders")["compared_rows"].as_u64();
    assert!(compared >= Some(3), "all is compared anew: {compared:?}");
    assert_eq!(site.content("public.orders").len(), 3);
}

#[test]
fn reports_name_direction_and_rows_per_side() {
    let (site, agent) = open();
    let change = "INSERT INTO orders VALUES (4, 'rope', 4); DELETE FROM orders WHERE id = 1";
    agent.local().execute_batch(change).expect("changes");
    let look = agent.home.run(["sync", "--dry-run", "--json", "--quiet"]).expect_code(1).json();
    let moved = |report: &Json| {
        let orders = table_of(report, "orders");
        let count = |name: &str| orders["moved"][name].as_u64().expect("a count");
        let counts = ["sent", "received", "deleted_there", "deleted_here", "conflicts"].map(count);
        (orders["direction"].as_str().expect("a direction").to_owned(), counts)
    };
    assert_eq!(moved(&look), ("push".to_owned(), [1, 0, 1, 0, 0]));
    let text = agent.home.run(["sync", "--dry-run", "--quiet"]).expect_code(1).stdout;
    for told in ["direction", "push", "would send", "would delete"] {
        assert!(text.contains(told), "{text}");
    }
    let run = agent.sync().expect_code(0).json();
    assert_eq!(moved(&run), ("push".to_owned(), [1, 0, 1, 0, 0]));
    let shown: String = site
        .superuser()
        .query_one(
            "SELECT concat_ws(' ', direction, sent, received, deleted_remote, deleted_local) FROM plimsoll.replicas
             WHERE relation = 'public.orders'",
            &[],
        )
        .expect("a replica")
        .get(0);
    assert_eq!(shown, "push 1 0 1 0");
    let status = agent.home.run(["status"]).expect_code(0).stdout;
    let orders = status.lines().find(|line| line.contains("public.orders")).expect("a line");
    assert!(orders.contains("push") && orders.contains("1 sent, 1 deleted there"), "{status}");
    assert!(status.lines().all(|line| line.chars().count() <= 160), "{status}");
    let text = agent.home.run(["sync", "--quiet"]).expect_code(0).stdout;
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}
