//! What a side does not let go, or is not to lose at once.

use crate::pair::{Pair, counts, site};

/// Twelve people on both sides.
fn level<'s>(site: &'s plimsoll_tests::Site<'static>, client_id: &str, more: &str) -> Pair<'s> {
    let mut pair = Pair::new(site, client_id, more);
    for id in 1..=12 {
        pair.put_here(id, &format!("person {id}"), "1", 0);
    }
    pair.sync();
    assert_eq!(pair.both().len(), 12);
    pair
}

#[test]
fn what_is_held_back_in_several_batches_is_agreed_to_at_once() {
    let site = site();
    let mut pair = Pair::new(&site, "many", "");
    pair.here(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
         INSERT INTO people SELECT i, 'somebody', '1', NULL, '2024-01-01 12:00:00' FROM n",
    );
    pair.sync();
    let mine = format!("database_id = '{}'", pair.agent.registered.id);
    pair.there(&format!(
        "UPDATE people SET phone = NULL, changed_at = '2020-01-01 00:00:00+00' WHERE {mine} AND id > 100;
         DELETE FROM people WHERE {mine} AND id > 7000"
    ));
    pair.run().expect_code(1);
    let held = pair.local.query_row("SELECT planned FROM plimsoll_hold", [], |row| row.get::<_, i64>(0));
    let left = pair.people_here().iter().filter(|person| person.2.is_some()).count();
    assert!(left > 8_000, "{left} are as they were");
    // All that was to be deleted, and all that was to be set back and was not.
    assert!(held.as_ref().is_ok_and(|held| *held as usize >= left - 100), "{held:?} of {left}");
    pair.agent.home.run(["sync", "--quiet", "--allow-mass-delete"]).expect_code(0);
    assert_eq!(pair.both().len(), 7_000);
}

/// The open records: key, kind with side, and reason.
fn records(pair: &Pair<'_>) -> Vec<(i64, String, String)> {
    let sql = "SELECT (key->>'id')::int8, concat_ws(' ', kind, side), reason::text FROM plimsoll.conflicts
         WHERE database_id = $1 AND closed_at IS NULL ORDER BY 1";
    let rows = pair.site.superuser().query(sql, &[&pair.agent.registered.id]).expect("records");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[test]
fn a_row_that_a_trigger_of_the_server_keeps_stops_no_other() {
    let site = site();
    for (code, raised) in
        [("P0001", "'closed invoices stay'"), ("23514", "'no' USING ERRCODE = 'check_violation'")]
    {
        let mut pair = level(&site, &format!("kept-{code}"), "");
        pair.there(&format!(
            "CREATE OR REPLACE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION {raised}; END $$;
             DROP TRIGGER IF EXISTS stays ON people;
             CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON people FOR EACH ROW WHEN (OLD.id IN (3, 4))
                 EXECUTE FUNCTION stays()"
        ));
        pair.here("DELETE FROM people WHERE id IN (3, 5)");
        pair.put_here(4, "person 4", "2", 10);
        pair.put_here(6, "person 6", "2", 10);
        pair.put_there(7, "person 7", "2", 10);
        let report = pair.sync();
        assert_eq!(
            Pair::moved(&report),
            counts(&[("sent", 1), ("received", 1), ("deleted_there", 1)]),
            "{report}"
        );
        assert_eq!(report["status"], "level_except", "{report}");
        let records = records(&pair);
        let kinds: Vec<(i64, &str)> = records.iter().map(|(id, kind, _)| (*id, kind.as_str())).collect();
        assert_eq!(kinds, [(3, "rejected remote"), (4, "rejected remote")], "{records:?}");
        assert!(records.iter().all(|(.., reason)| reason.contains(code)), "{records:?}");
        // Nothing is tried again until it changes, and a run after it is quiet.
        assert_eq!(Pair::moved(&pair.sync()), counts(&[]));
        pair.there("DROP TRIGGER stays ON people");
        pair.put_here(3, "person 3", "3", 20);
        pair.put_here(4, "person 4", "3", 20);
        pair.sync();
        assert_eq!(pair.both().len(), 11);
    }
}

#[test]
fn rows_that_the_server_sets_back_wait_for_a_person() {
    let site = site();
    for (client_id, policy, also_here) in [("one-sided", "newest", false), ("conflicts", "remote", true)] {
        let mut pair = level(&site, client_id, &format!("policy = \"{policy}\""));
        for id in 1..=12 {
            pair.put_here(id, "somebody", "1", 5_000);
        }
        pair.sync();
        let mine = format!("database_id = '{}'", pair.agent.registered.id);
        pair.there(&format!(
            "UPDATE people SET phone = NULL, changed_at = '2020-01-01 00:00:00+00' WHERE id > 1 AND {mine}"
        ));
        if also_here {
            for id in 1..=12 {
                pair.put_here(id, "somebody", "3", 6_000);
            }
        }
        pair.put_there(20, "somebody", "new", 0);
        for _ in 0..2 {
            let finished = pair.run();
            let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
            assert_ne!(finished.code, Some(0), "{report}");
            assert_eq!(report["moved"]["held_here"], 11, "{report}");
            let people = pair.people_here();
            assert!(people.iter().all(|person| person.2.is_some()), "{people:?}");
            assert_eq!(people.len(), 13, "a new one still arrives");
        }
        pair.agent.home.run(["sync", "--quiet", "--allow-mass-delete"]).expect_code(0);
        let people = pair.both();
        assert_eq!(people.iter().filter(|person| person.2.is_none()).count(), 11);
    }
}
