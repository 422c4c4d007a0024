//! README's SQL works as it stands.

use plimsoll_tests::TestCluster;

const README: &str = include_str!("../../README.md");

/// The fenced blocks of SQL, in order.
fn sql_blocks(text: &str) -> Vec<&str> {
    text.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_sql_block_of_the_readme_runs_in_order() {
    let blocks = sql_blocks(README);
    assert!(blocks.len() >= 4, "README shows how to install, prepare, register and look");
    let cluster = TestCluster::start_bare(&[]);
    let database = cluster.create_empty_database();
    let mut client = cluster.superuser(&database);
    for block in blocks {
        client.batch_execute(block).unwrap_or_else(|error| panic!("{error:?}\n{block}"));
    }
    let managed: i64 =
        client.query_one("SELECT count(*) FROM plimsoll.tables", &[]).expect("the managed tables").get(0);
    assert_eq!(managed, 1);
    let registered: i64 =
        client.query_one("SELECT count(*) FROM plimsoll.databases", &[]).expect("the databases").get(0);
    assert_eq!(registered, 1);
}
