//! Partitioned tables: statements on the table and on its partitions are kept alike.

use crate::site::{COLUMNS, Site};

fn partitioned() -> Site {
    Site::with(&format!(
        "CREATE TABLE shop.item ({COLUMNS}, PRIMARY KEY (client_id, database_id, id)) PARTITION BY RANGE (id);
         CREATE TABLE shop.low PARTITION OF shop.item FOR VALUES FROM (0) TO (1000);
         -- With columns in another order, and one that was dropped.
         CREATE TABLE shop.high (version bigint NOT NULL, gone int, changed timestamptz, name text, id int NOT NULL,
             amount numeric(10,2), database_id uuid NOT NULL, client_id text NOT NULL);
         ALTER TABLE shop.high DROP COLUMN gone;
         ALTER TABLE shop.item ATTACH PARTITION shop.high FOR VALUES FROM (1000) TO (2000) ;
         CREATE TABLE shop.rest PARTITION OF shop.item DEFAULT PARTITION BY HASH (client_id);
         CREATE TABLE shop.rest_0 PARTITION OF shop.rest FOR VALUES WITH (MODULUS 1, REMAINDER 0)"
    ))
}

#[test]
fn rows_reach_partitions_by_whatever_way() {
    let mut site = partitioned();
    site.insert(1, 2_500);
    site.right();
    site.run("UPDATE shop.item SET name = 'both' WHERE id BETWEEN 900 AND 1100");
    site.right();
    // To another partition.
    site.run("UPDATE shop.item SET id = id + 1000 WHERE id BETWEEN 950 AND 999 AND false; UPDATE shop.item SET id = id + 5000 WHERE id < 50");
    site.right();
    site.run("DELETE FROM shop.item WHERE id % 5 = 0");
    site.right();
    // Past the table.
    site.run("UPDATE shop.high SET name = 'direct', version = version + 1");
    site.right();
    site.run("DELETE FROM shop.rest_0 WHERE id > 6000; DELETE FROM shop.low WHERE id = 77");
    site.right();
    site.run(
        "INSERT INTO shop.low VALUES ($C, $D, 5, 'direct', 1, now(), 3)
              ON CONFLICT (client_id, database_id, id) DO UPDATE SET name = excluded.name",
    );
    site.right();
    site.run("INSERT INTO shop.item SELECT $C, $D, i, 'again', 1, now(), 9000 + i FROM generate_series(900, 1100) i
              ON CONFLICT (client_id, database_id, id) DO UPDATE SET name = excluded.name, version = excluded.version");
    site.right();
    assert!(site.rows() > 1_500);
}

#[test]
fn the_whole_is_emptied_and_a_part_of_it() {
    let mut site = partitioned();
    site.insert(1, 2_500);
    site.run("TRUNCATE shop.item");
    site.right();
    assert_eq!(site.rows(), 0);
    site.insert(1, 2_500);
    site.right();
    site.run("TRUNCATE shop.low");
    site.untrusted_then_rebuilt();
    assert_eq!(site.rows(), 1_501);
}

#[test]
fn partitions_that_come_and_go_are_noticed() {
    let mut site = partitioned();
    site.insert(1, 1_500);
    site.run("ALTER TABLE shop.item DETACH PARTITION shop.high");
    site.untrusted_then_rebuilt();
    site.run("UPDATE shop.high SET name = 'of nobody'");
    site.right();
    site.run("ALTER TABLE shop.item ATTACH PARTITION shop.high FOR VALUES FROM (1000) TO (2000)");
    // Its triggers were left on it.
    site.untrusted_then_rebuilt();
    site.run("DELETE FROM shop.rest; CREATE TABLE shop.new (LIKE shop.item INCLUDING ALL)");
    site.run(
        "INSERT INTO shop.new SELECT $C, $D, i, 'new', 1, now(), i FROM generate_series(3000, 3100) i;
              ALTER TABLE shop.item ATTACH PARTITION shop.new FOR VALUES FROM (3000) TO (4000)",
    );
    site.off();
    site.superuser
        .batch_execute("SELECT plimsoll.keep_manifest('shop.item', true)")
        .expect("its triggers too");
    site.untrusted_then_rebuilt();
    site.run("DELETE FROM shop.new WHERE id < 3010");
    site.right();
    site.run("DROP TABLE shop.low");
    site.untrusted_then_rebuilt();
}
