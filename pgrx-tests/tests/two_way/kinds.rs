//! Postgres and MariaDB as the local side.

use plimsoll_tests::{Agent, Kind, LocalDatabase, Site, table_of};
use serde_json::Value as Json;

use crate::pair::{Pair, counts, people_in, site, table};

/// Id, phone and stamp of all people.
type People = Vec<(i64, String, String)>;

fn here(local: &LocalDatabase) -> People {
    let stamp = match local.kind() {
        Kind::Sqlite => "datetime(changed_at)",
        Kind::Postgres => "to_char(changed_at, 'YYYY-MM-DD HH24:MI:SS')",
        Kind::MariaDb => "DATE_FORMAT(changed_at, '%Y-%m-%d %H:%i:%s')",
    };
    let rows = local.connect().rows(&format!("SELECT id, phone, {stamp} FROM people ORDER BY id"));
    let person = |row: Vec<Option<String>>| {
        let [id, phone, stamp] = row.try_into().expect("three columns");
        let of = |text: Option<String>| text.expect("a value");
        (of(id).parse().expect("an id"), of(phone), of(stamp))
    };
    rows.into_iter().map(person).collect()
}

fn there(site: &Site<'static>, agent: &Agent) -> People {
    let sql =
        "SELECT id::int8, phone, to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM people
               WHERE database_id = $1 ORDER BY id";
    let rows = site.superuser().query(sql, &[&agent.registered.id]).expect("people");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// The example, deletes both ways, a lost base and a conflict, whatever the kind.
fn go_both_ways(kind: Kind) {
    let site = site();
    let database = LocalDatabase::new(kind);
    people_in(&database);
    let agent = site.agent_of(kind.name(), database.setting());
    agent.write_config(&table("policy = \"newest\""));
    let mut local = database.connect();
    let tenant = format!("'{}', '{}'", agent.client_id, agent.registered.id);
    let mine = format!("database_id = '{}'", agent.registered.id);
    let mut owner = site.owner();
    let mut remote = |sql: &str| owner.batch_execute(sql).expect("done there");
    let sync = || -> Json {
        let finished = agent.sync().expect_code(0);
        table_of(&finished.json(), "people").clone()
    };
    local.run(
        "INSERT INTO people VALUES (1, 'John Doe', '555-0001', NULL, '2024-01-01 08:00:00'),
         (2, 'Jane Doe', '555-3210', NULL, '2024-01-01 12:00:00'), (3, 'here', '3', NULL, '2024-01-01 12:00:00')",
    );
    remote(&format!(
        "INSERT INTO people VALUES ({tenant}, 1, 'John Doe', '123-4567', NULL, '2024-01-01 11:00:00+00'),
         ({tenant}, 2, 'Jane Doe', '555-0002', NULL, '2024-01-01 09:00:00+00'),
         ({tenant}, 4, 'there', '4', NULL, '2024-01-01 12:00:00+00')"
    ));
    let report = sync();
    let refused =
        site.superuser().query("SELECT reason::text FROM plimsoll.conflicts", &[]).expect("records");
    let refused: Vec<Option<String>> = refused.iter().map(|row| row.get(0)).collect();
    assert_eq!(refused, []);
    assert_eq!(Pair::moved(&report), counts(&[("sent", 2), ("received", 2), ("conflicts", 2)]), "{report}");
    let people = here(&database);
    let expected = [
        (1, "123-4567", "2024-01-01 11:00:00"),
        (2, "555-3210", "2024-01-01 12:00:00"),
        (3, "3", "2024-01-01 12:00:00"),
        (4, "4", "2024-01-01 12:00:00"),
    ];
    assert_eq!(people, expected.map(|(id, phone, stamp)| (id, phone.to_owned(), stamp.to_owned())));
    assert_eq!(there(&site, &agent), people);
    assert_eq!(Pair::moved(&sync()), counts(&[]));
    local.run("DELETE FROM people WHERE id = 4");
    remote(&format!(
        "UPDATE people SET phone = '33', changed_at = '2024-01-02 12:00:00+00' WHERE id = 3 AND {mine}"
    ));
    assert_eq!(Pair::moved(&sync()), counts(&[("received", 1), ("deleted_there", 1)]));
    // Without the base nothing is deleted.
    local.run("DROP TABLE plimsoll_two_way");
    local.run("DELETE FROM people WHERE id = 1");
    let report = sync();
    assert_eq!(Pair::moved(&report), counts(&[("undecided", 1)]), "{report}");
    remote(&format!("DELETE FROM people WHERE id = 1 AND {mine}"));
    sync();
    assert_eq!((here(&database).len(), there(&site, &agent)), (2, here(&database)));
    assert_eq!(Pair::moved(&sync()), counts(&[]));
}

#[test]
fn a_local_postgres_goes_both_ways() {
    go_both_ways(Kind::Postgres);
}

#[test]
fn a_local_mariadb_goes_both_ways() {
    go_both_ways(Kind::MariaDb);
}
