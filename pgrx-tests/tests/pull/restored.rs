//! A server whose files are put back to an earlier state gives the same transactions and places again, for other rows.

use std::process::Command;

use plimsoll_cluster::StopMode;
use plimsoll_tests::{Site, TestCluster};

#[test]
fn a_server_that_was_put_back_marks_no_other_rows_alike() {
    let cluster = TestCluster::start_with(&[("autovacuum", "off")]);
    let site = Site::new(&cluster);
    let agent = site.agent("acme", "CREATE TABLE part (id INTEGER PRIMARY KEY, name TEXT)", &["part"], "");
    site.create_tables(&agent);
    let id = agent.registered.id;
    let tenant = format!("'acme', '{id}'::uuid");
    let fill = format!("INSERT INTO part SELECT {tenant}, i, 'part' FROM generate_series(1, 20) i");
    site.superuser().batch_execute(&fill).expect("rows");
    let rebuild = "SELECT plimsoll.rebuild_manifest($1, 'public.part')";
    site.superuser().execute(rebuild, &[&id]).expect("a manifest");
    let directory: String = site.superuser().query_one("SHOW data_directory", &[]).expect("a path").get(0);
    let copied = |from: &str, to: &str| {
        let done = Command::new("cp").args(["-a", from, to]).status().expect("cp runs");
        assert!(done.success(), "the files are copied");
    };
    let earlier = format!("{directory}.earlier");
    cluster.stop_server(StopMode::Fast).expect("it stops");
    copied(&directory, &earlier);
    let mut marks = Vec::new();
    for row in [3, 4] {
        cluster.start_server().expect("it starts");
        let mut superuser = site.superuser();
        superuser.execute(&format!("DELETE FROM part WHERE id = {row}"), &[]).expect("a row goes");
        let kept = "SELECT string_agg(place, ',' ORDER BY place) FROM (
                        SELECT concat(xmin, ' ', ctid) AS place FROM plimsoll.kept_head
                        UNION ALL SELECT concat(xmin, ' ', ctid) FROM plimsoll.kept_delta) p";
        let places: String = superuser.query_one(kept, &[]).expect("changes").get(0);
        let mark = "SELECT plimsoll.change_mark($1, 'public.part')";
        let mark: Vec<u8> = superuser.query_one(mark, &[&id]).expect("a mark").get(0);
        marks.push((places, mark));
        drop(superuser);
        cluster.stop_server(StopMode::Fast).expect("it stops");
        std::fs::remove_dir_all(&directory).expect("the files go");
        copied(&earlier, &directory);
    }
    std::fs::remove_dir_all(&earlier).expect("the copy goes");
    assert_eq!(marks[0].0, marks[1].0, "the transactions and places are the same");
    assert_ne!(marks[0].1, marks[1].1, "and the rows are others");
}
