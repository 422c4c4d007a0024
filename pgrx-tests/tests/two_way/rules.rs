//! The rules, each as a user would see it.

use serde_json::{Value as Json, json};

use crate::pair::{Pair, counts, site};

/// Twelve people on both sides, agreed on.
fn level<'s>(site: &'s plimsoll_tests::Site<'static>, client_id: &str, more: &str) -> Pair<'s> {
    let mut pair = Pair::new(site, client_id, more);
    for id in 1..=12 {
        pair.put_here(id, &format!("person {id}"), "1", 0);
    }
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 12)]));
    assert_eq!(pair.both().len(), 12);
    pair
}

/// The open records of the pair.
fn conflicts(pair: &Pair<'_>) -> Vec<Json> {
    let sql = "SELECT to_jsonb(c) FROM plimsoll.conflicts c WHERE database_id = $1 AND closed_at IS NULL ORDER BY conflict_id";
    let rows = pair.site.superuser().query(sql, &[&pair.agent.registered.id]).expect("records");
    rows.iter().map(|row| row.get(0)).collect()
}

fn phone(pair: &mut Pair<'_>, id: i64) -> [Option<String>; 2] {
    let of = |people: Vec<crate::pair::Person>| {
        people.into_iter().find(|person| person.0 == id).and_then(|person| person.2)
    };
    [of(pair.people_here()), of(pair.people_there())]
}

fn both(phone: &str) -> [Option<String>; 2] {
    [Some(phone.to_owned()), Some(phone.to_owned())]
}

#[test]
fn changes_of_one_side_go_to_the_other_and_deletes_too() {
    let site = site();
    let mut pair = level(&site, "one-sided", "");
    // A row goes to the other side whatever its stamp says; a changed key is another row.
    pair.put_here(1, "person 1", "2", -500);
    pair.put_there(2, "person 2", "3", -500);
    pair.put_there(20, "new there", "4", 5);
    pair.here("DELETE FROM people WHERE id = 3; UPDATE people SET id = 30 WHERE id = 5");
    pair.there("DELETE FROM people WHERE id = 4");
    let dry = pair.agent.home.run(["sync", "--json", "--quiet", "--dry-run"]).expect_code(1).json();
    let dry = plimsoll_tests::table_of(&dry, "people").clone();
    let expected = counts(&[("sent", 2), ("received", 2), ("deleted_here", 1), ("deleted_there", 2)]);
    assert_eq!(Pair::moved(&dry), expected);
    assert_ne!(pair.people_here(), pair.people_there(), "nothing moved");
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), expected);
    let ids: Vec<i64> = pair.both().iter().map(|person| person.0).collect();
    assert_eq!(ids, [1, 2, 6, 7, 8, 9, 10, 11, 12, 20, 30]);
    assert_eq!((phone(&mut pair, 1), phone(&mut pair, 2)), (both("2"), both("3")));
    assert_eq!(Pair::moved(&pair.sync()), counts(&[]));
}

#[test]
fn a_policy_decides_what_both_sides_changed() {
    let site = site();
    for (policy, edited, deleted) in
        [("newest", "there", true), ("local", "here", true), ("remote", "there", false)]
    {
        let mut pair = level(&site, policy, &format!("policy = \"{policy}\""));
        pair.put_here(1, "person 1", "here", 10);
        pair.put_there(1, "person 1", "there", 20);
        // An update beats a delete, but where a side always wins.
        pair.put_here(2, "person 2", "kept", 10);
        pair.there("DELETE FROM people WHERE id = 2");
        // To the same: no conflict.
        pair.put_here(3, "person 3", "same", 10);
        pair.put_there(3, "person 3", "same", 10);
        let report = pair.sync();
        assert_eq!(report["moved"]["conflicts"], 2, "{policy}: {report}");
        assert_eq!(phone(&mut pair, 1), both(edited), "{policy}");
        let second = if deleted { both("kept") } else { [None, None] };
        assert_eq!(phone(&mut pair, 2), second, "{policy}");
        pair.both();
        assert_eq!(Pair::moved(&pair.sync()), counts(&[]));
        assert!(conflicts(&pair).is_empty());
    }
}

#[test]
fn a_person_decides_what_is_recorded_once() {
    let site = site();
    let mut pair = level(&site, "asked", "policy = \"ask\"\nkeep_base_rows = true");
    for id in [1, 2, 3, 4] {
        pair.put_here(id, "mine", "here", 10);
        pair.put_there(id, "theirs", "there", 20);
    }
    pair.put_here(9, "person 9", "alone", 30);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 1), ("conflicts", 4)]), "the rest goes on");
    let recorded = conflicts(&pair);
    assert_eq!(recorded.len(), 4);
    let first = &recorded[0];
    assert_eq!(first["kind"], "conflict", "{first}");
    let phones = ["local_row", "remote_row", "base_row"].map(|side| first[side]["phone"].clone());
    assert_eq!(phones, ["here", "there", "1"].map(Json::from), "{first}");
    // While neither changes nothing more is recorded; where one does, what it has now.
    pair.sync();
    assert_eq!(conflicts(&pair), recorded);
    let id_of = |recorded: &[Json], id: i64| {
        let found = recorded.iter().find(|record| record["key"]["id"] == id);
        found.and_then(|record| record["conflict_id"].as_i64()).expect("a record")
    };
    pair.put_there(4, "theirs", "later", 40);
    pair.sync();
    let again = conflicts(&pair);
    assert_eq!(again.len(), 4);
    let fourth = again.iter().find(|record| record["key"]["id"] == 4).expect("recorded");
    assert_eq!(fourth["remote_row"]["phone"], "later", "{fourth}");
    // A person chooses: this side, that side, or another row.
    let mut superuser = pair.site.superuser();
    for (id, side) in [(1, "local"), (2, "remote")] {
        superuser
            .execute("SELECT plimsoll.resolve_conflict($1, $2)", &[&id_of(&again, id), &side])
            .expect("resolved");
    }
    let mut row =
        again.iter().find(|record| record["key"]["id"] == 3).expect("recorded")["remote_row"].clone();
    row["phone"] = json!("agreed");
    row["changed_at"] = json!("2024-02-01T00:00:00Z");
    superuser
        .execute("SELECT plimsoll.resolve_conflict($1, $2::jsonb)", &[&id_of(&again, 3), &row])
        .expect("resolved");
    pair.sync();
    assert_eq!(phone(&mut pair, 1), both("here"));
    assert_eq!(phone(&mut pair, 2), both("there"));
    assert_eq!(phone(&mut pair, 3), both("agreed"));
    assert_eq!(phone(&mut pair, 4), [Some("here".to_owned()), Some("later".to_owned())]);
    let report = pair.sync();
    assert_eq!((Pair::moved(&report), conflicts(&pair).len()), (counts(&[]), 1));
    // Both make it the same: it is over.
    pair.put_here(4, "ours", "same", 50);
    pair.put_there(4, "ours", "same", 50);
    let report = pair.sync();
    assert_eq!((Pair::moved(&report), conflicts(&pair).len()), (counts(&[]), 0));
    pair.both();
}

#[test]
fn rows_changed_in_other_columns_become_one() {
    let site = site();
    let mut pair = level(&site, "merged", "merge = \"columns\"");
    pair.here(
        "UPDATE people SET phone = '555', changed_at = datetime(1704067200 + 10, 'unixepoch') WHERE id = 1",
    );
    pair.there("UPDATE people SET town = 'Ulm', changed_at = to_timestamp(1704067200 + 20) WHERE id = 1");
    // The same column on both sides: the newer row.
    pair.put_here(2, "mine", "here", 30);
    pair.put_there(2, "theirs", "there", 20);
    let report = pair.sync();
    assert_eq!(report["moved"]["merged"], 1, "{report}");
    let people = pair.both();
    let merged = (1, "person 1".to_owned(), Some("555".to_owned()), Some("Ulm".to_owned()), 1_704_067_220);
    assert_eq!(people[0], merged);
    assert_eq!(people[1].1, "mine");
    assert_eq!(Pair::moved(&pair.sync()), counts(&[]));
}

#[test]
fn rows_that_a_side_does_not_take_are_recorded_and_delay_only_themselves() {
    let site = site();
    let mut pair = Pair::new(&site, "refused", "");
    pair.there("ALTER TABLE people ADD CHECK (phone <> 'never there')");
    pair.here(
        "CREATE TRIGGER refuse BEFORE INSERT ON people WHEN NEW.phone = 'never here'
         BEGIN SELECT RAISE(ABORT, 'no such number'); END",
    );
    pair.put_here(1, "one", "1", 0);
    pair.put_there(2, "two", "2", 0);
    pair.put_here(3, "three", "never there", 0);
    pair.put_there(4, "four", "never here", 0);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 1), ("received", 1)]));
    let recorded = conflicts(&pair);
    let sides: Vec<_> =
        recorded.iter().map(|record| (record["kind"].clone(), record["side"].clone())).collect();
    assert_eq!(sides.len(), 2, "{recorded:?}");
    assert!(sides.iter().all(|(kind, _)| kind == "rejected"), "{recorded:?}");
    assert!(recorded.iter().any(|record| record["side"] == "local"), "{recorded:?}");
    assert!(recorded.iter().any(|record| record["side"] == "remote"), "{recorded:?}");
    assert_eq!(pair.sync()["status"], "level_except", "nothing is tried again");
    // Corrected, they arrive.
    pair.put_here(3, "three", "3", 10);
    pair.put_there(4, "four", "4", 10);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 1), ("received", 1)]));
    assert_eq!((pair.both().len(), conflicts(&pair).len()), (4, 0));
}

#[test]
fn a_hundred_rejected_rows_in_a_row_stop_the_table() {
    let site = site();
    let mut pair = Pair::new(&site, "hopeless", "");
    pair.there("ALTER TABLE people ADD CHECK (phone <> 'never there')");
    for id in 1..=120 {
        pair.put_here(id, "somebody", "never there", 0);
    }
    let finished = pair.run();
    assert_ne!(finished.code, Some(0));
    let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
    let message = report["failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("120 rows in a row were rejected"), "{report}");
    assert_eq!(conflicts(&pair).len(), 120, "each is recorded with its reason");
}

#[test]
fn the_guard_of_each_side_keeps_rows_until_a_person_agrees() {
    let site = site();
    let mut pair = level(&site, "guarded", "");
    pair.there("DELETE FROM people WHERE id > 2");
    pair.put_here(1, "person 1", "meanwhile", 10);
    let finished = pair.run();
    let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
    assert_ne!(finished.code, Some(0), "{report}");
    assert!(report["moved"]["held_here"].as_u64() > Some(0), "{report}");
    assert_eq!(
        (report["moved"]["sent"].as_u64(), pair.people_here().len()),
        (Some(1), 12),
        "the rest goes on"
    );
    // The next run holds them too.
    assert!(pair.run().json().to_string().contains("held_here"));
    assert_eq!(pair.people_here().len(), 12);
    pair.agent.home.run(["sync", "--quiet", "--allow-mass-delete"]).expect_code(0);
    assert_eq!(pair.both().len(), 2);
    // The other way round.
    for id in 10..30 {
        pair.put_here(id, "more", "1", 50);
    }
    pair.sync();
    pair.here("DELETE FROM people WHERE id >= 10");
    let finished = pair.run();
    let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
    assert!(report["moved"]["held_there"].as_u64() > Some(0), "{report}");
    assert_eq!(pair.people_there().len(), 22);
    // There an administrator agrees.
    let mut superuser = pair.site.superuser();
    superuser
        .execute("SELECT plimsoll.release_hold($1, 'public.people')", &[&pair.agent.registered.id])
        .expect("released");
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("deleted_there", 20)]));
    assert_eq!(pair.both().len(), 2);
}

#[test]
fn two_databases_of_two_clients_edit_at_the_same_time() {
    let site = site();
    let mut pairs = [level(&site, "north", ""), level(&site, "south", "")];
    std::thread::scope(|scope| {
        for (pair, own) in pairs.iter_mut().zip(["n", "s"]) {
            scope.spawn(move || {
                for round in 1..=4i64 {
                    pair.put_here(round, "ours", &format!("{own}{round}"), round * 100);
                    pair.put_there(round + 4, "theirs", &format!("{own}{round}"), round * 100);
                    pair.put_there(100 + round, "new", own, round);
                    assert_eq!(Pair::moved(&pair.sync()), counts(&[("sent", 1), ("received", 2)]));
                }
            });
        }
    });
    for (pair, own) in pairs.iter_mut().zip(["n", "s"]) {
        let people = pair.both();
        assert_eq!(people.len(), 16);
        let touched =
            people.iter().filter(|person| person.2.as_deref().is_some_and(|phone| phone.starts_with(own)));
        assert_eq!(touched.count(), 12);
    }
}

#[test]
fn a_key_that_the_type_over_there_does_not_take_is_recorded_and_stops_no_other() {
    let site = site();
    let mut superuser = site.superuser();
    superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE hosts (client_id text NOT NULL, database_id uuid NOT NULL, address inet NOT NULL, name text,
                 rev bigint NOT NULL, PRIMARY KEY (client_id, database_id, address));
             RESET ROLE;
             SELECT plimsoll.manage_table('hosts', version_column => 'rev', version_scope => 'row')",
            owner = site.owner
        ))
        .expect("a managed table");
    let local = "CREATE TABLE hosts (address TEXT PRIMARY KEY NOT NULL, name TEXT, rev INTEGER NOT NULL)";
    let agent = site.agent("hosts", local, &[], "");
    agent.write_config("[[table]]\nname = \"hosts\"\ndirection = \"two-way\"\n");
    agent
        .local()
        .execute_batch(
            "INSERT INTO hosts VALUES ('10.0.0.1', 'a', 1), ('not-an-ip', 'b', 1), ('10.0.0.1/32', 'c', 1), ('::1', 'd', 1)",
        )
        .expect("hosts");
    for rejected in [2, 0] {
        let report = plimsoll_tests::table_of(&agent.sync().json(), "hosts").clone();
        assert_eq!((&report["failure"], &report["rejected"]), (&Json::Null, &json!(rejected)), "{report}");
        let addresses: Vec<String> = superuser
            .query("SELECT address::text FROM hosts ORDER BY address", &[])
            .expect("hosts")
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert_eq!(addresses, ["10.0.0.1/32", "::1/128"]);
        let sql = "SELECT kind, side, key ->> 'address' FROM plimsoll.conflicts WHERE closed_at IS NULL AND database_id = $1
                   ORDER BY 3";
        let records: Vec<(String, String, String)> = superuser
            .query(sql, &[&agent.registered.id])
            .expect("records")
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect();
        let record = |key: &str| ("rejected".to_owned(), "remote".to_owned(), key.to_owned());
        assert_eq!(records, [record("10.0.0.1/32"), record("not-an-ip")]);
    }
}
