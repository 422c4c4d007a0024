//! Memory that is lost, and databases that come back from a backup.

use plimsoll_tests::{Kind, LOCAL, LocalDatabase};

use crate::pair::{Pair, counts, people_in, site, table};

fn level<'s>(site: &'s plimsoll_tests::Site<'static>, client_id: &str) -> Pair<'s> {
    let mut pair = Pair::new(site, client_id, "");
    for id in 1..=8 {
        pair.put_here(id, &format!("person {id}"), "1", 0);
    }
    pair.sync();
    assert_eq!(pair.both().len(), 8);
    pair
}

#[test]
fn without_its_base_nothing_is_deleted_and_what_could_not_be_decided_is_told() {
    let site = site();
    let mut pair = level(&site, "forgetful");
    pair.put_there(1, "person 1", "newer there", 10);
    pair.put_here(2, "person 2", "newer here", 10);
    pair.here("DELETE FROM people WHERE id = 3");
    pair.put_there(30, "new there", "2", 10);
    pair.here(
        "DROP TABLE plimsoll_two_way; DROP TABLE plimsoll_base; DROP TABLE plimsoll_open;
         DROP TABLE plimsoll_closing; DROP TABLE plimsoll_base_rows",
    );
    let finished = pair.run().expect_code(0);
    let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
    assert_eq!(
        Pair::moved(&report),
        counts(&[("sent", 1), ("received", 1), ("undecided", 2), ("conflicts", 2)])
    );
    assert!(finished.stderr.contains("what both sides last agreed on is lost"), "{}", finished.stderr);
    let ids = |people: Vec<crate::pair::Person>| people.iter().map(|person| person.0).collect::<Vec<_>>();
    assert_eq!(ids(pair.people_here()), [1, 2, 4, 5, 6, 7, 8]);
    assert_eq!(ids(pair.people_there()), [1, 2, 3, 4, 5, 6, 7, 8, 30]);
    // From here on it is remembered again: a delete is one.
    pair.there("DELETE FROM people WHERE id = 4");
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("deleted_here", 1)]));
}

#[test]
fn an_agent_without_its_state_goes_on_by_what_the_database_remembers() {
    let site = site();
    let mut pair = level(&site, "stateless");
    pair.here("DELETE FROM people WHERE id = 3");
    let state = pair.agent.home.path("plimsoll.state.json");
    let state = if state.exists() { state } else { pair.agent.home.path("plimsoll.state") };
    std::fs::remove_file(&state).unwrap_or_else(|error| panic!("{}: {error}", state.display()));
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("deleted_there", 1)]));
    assert_eq!(pair.both().len(), 7);
}

#[test]
fn a_restored_database_brings_its_base_with_it() {
    let site = site();
    let mut pair = level(&site, "restored");
    let (file, copy) = (pair.agent.home.path(LOCAL), pair.agent.home.path("copy"));
    std::fs::copy(&file, &copy).expect("a backup");
    pair.put_here(1, "person 1", "after the backup", 10);
    pair.put_there(2, "person 2", "there", 10);
    pair.there("DELETE FROM people WHERE id = 5");
    pair.sync();
    pair.both();
    // What was sent since is newer on the server alone: it comes back, and so does the delete.
    pair.local = rusqlite::Connection::open_in_memory().expect("another");
    std::fs::copy(&copy, &file).expect("restored");
    pair.local = pair.agent.local();
    pair.put_here(7, "person 7", "after the restore", 20);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 1), ("received", 2), ("deleted_here", 1)]));
    let people = pair.both();
    assert_eq!(Pair::phones(&people)[..2], [(1, "after the backup"), (2, "there")]);
    assert_eq!(people.len(), 7);
}

/// An open record: its number, its kind, the phone of either side, what was decided.
type OpenRecord = (i64, String, [Option<String>; 2], Option<String>);

/// The open records of the pair.
fn open_records(pair: &Pair<'_>) -> Vec<OpenRecord> {
    let sql = "SELECT conflict_id, kind, local_row ->> 'phone', remote_row ->> 'phone', resolution
               FROM plimsoll.conflicts WHERE database_id = $1 AND closed_at IS NULL ORDER BY conflict_id";
    let rows = pair.site.superuser().query(sql, &[&pair.agent.registered.id]).expect("records");
    rows.iter().map(|row| (row.get(0), row.get(1), [row.get(2), row.get(3)], row.get(4))).collect()
}

fn resolve(pair: &Pair<'_>, conflict_id: i64, side: &str) {
    pair.site
        .superuser()
        .execute("SELECT plimsoll.resolve_conflict($1, $2)", &[&conflict_id, &side])
        .expect("resolved");
}

#[test]
fn altered_columns_bring_no_deleted_row_back_and_overwrite_no_change() {
    let site = site();
    let mut pair = Pair::new(&site, "altered", "policy = \"remote\"");
    for id in 1..=12 {
        pair.put_here(id, &format!("person {id}"), "1", 0);
    }
    pair.sync();
    pair.here("DELETE FROM people WHERE id = 5");
    pair.there("DELETE FROM people WHERE id = 4");
    pair.put_here(6, "person 6", "mine", 10);
    pair.put_there(7, "person 7", "theirs", 10);
    pair.put_here(40, "new here", "4", 10);
    pair.put_there(41, "new there", "4", 10);
    pair.here("ALTER TABLE people ADD COLUMN country TEXT NOT NULL DEFAULT 'DE'");
    pair.there("ALTER TABLE people ADD COLUMN country text NOT NULL DEFAULT 'DE'");
    let finished = pair.run().expect_code(0);
    let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
    let expected = counts(&[("sent", 2), ("received", 2), ("conflicts", 2), ("undecided", 2)]);
    assert_eq!(Pair::moved(&report), expected, "{}", finished.stderr);
    assert!(
        finished.stderr.contains("are not what they were when both sides last agreed"),
        "{}",
        finished.stderr
    );
    let ids = |people: &[crate::pair::Person]| people.iter().map(|person| person.0).collect::<Vec<_>>();
    let (here, there) = (pair.people_here(), pair.people_there());
    assert_eq!(ids(&here), [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 40, 41], "what is gone does not come back");
    assert_eq!(ids(&there), [1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 40, 41]);
    for people in [&here, &there] {
        let phones = Pair::phones(people);
        assert!(phones.contains(&(6, "mine")) && phones.contains(&(7, "theirs")), "{phones:?}");
    }
    let kinds: Vec<String> = open_records(&pair).into_iter().map(|record| record.1).collect();
    assert_eq!(kinds, ["undecided", "undecided"]);
    // From here on it is as before: a delete is one, and nothing more is said.
    pair.there("DELETE FROM people WHERE id = 9");
    let finished = pair.run().expect_code(0);
    let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
    assert_eq!(Pair::moved(&report), counts(&[("deleted_here", 1)]));
    assert!(!finished.stderr.contains("last agreed"), "{}", finished.stderr);
}

#[test]
fn what_an_older_client_remembers_goes_on() {
    let site = site();
    let mut pair = level(&site, "older");
    for name in ["made_of_keys", "made_of_columns", "tried"] {
        pair.here(&format!("ALTER TABLE plimsoll_two_way DROP COLUMN {name}"));
    }
    pair.here("DELETE FROM people WHERE id = 3");
    pair.put_there(4, "person 4", "there", 10);
    pair.put_here(30, "new here", "3", 10);
    let expected = counts(&[("sent", 1), ("received", 1), ("deleted_there", 1)]);
    let dry = pair.agent.home.run(["sync", "--json", "--quiet", "--dry-run"]).expect_code(1).json();
    assert_eq!(Pair::moved(plimsoll_tests::table_of(&dry, "people")), expected);
    assert_eq!(Pair::moved(&pair.sync()), expected);
    assert_eq!(pair.both().len(), 8);
    assert_eq!(Pair::moved(&pair.sync()), counts(&[]));
    // As a client that died while it added them leaves them.
    pair.here("ALTER TABLE plimsoll_two_way DROP COLUMN tried; DELETE FROM people WHERE id = 4");
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("deleted_there", 1)]));
    // Without the mark of its last batch nobody knows whether the server is the one that the base is of.
    pair.here("ALTER TABLE plimsoll_two_way DROP COLUMN base_mark; DELETE FROM people WHERE id = 5");
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("undecided", 1)]));
    assert_eq!((pair.people_here().len(), pair.people_there().len()), (6, 7));
}

#[test]
fn a_restored_database_has_its_conflicts_decided_anew() {
    let site = site();
    let mut pair = Pair::new(&site, "restored asking", "policy = \"ask\"");
    for id in 1..=3 {
        pair.put_here(id, &format!("person {id}"), "1", 0);
    }
    pair.sync();
    let (file, before, open) =
        (pair.agent.home.path(LOCAL), pair.agent.home.path("before"), pair.agent.home.path("open"));
    std::fs::copy(&file, &before).expect("a backup");
    pair.put_here(1, "person 1", "mine", 10);
    pair.put_there(1, "person 1", "theirs", 20);
    pair.sync();
    std::fs::copy(&file, &open).expect("a backup");
    let restore = |pair: &mut Pair<'_>, from: &std::path::Path| {
        pair.local = rusqlite::Connection::open_in_memory().expect("another");
        std::fs::copy(from, &file).expect("restored");
        pair.local = pair.agent.local();
    };
    // A backup of before the conflict: the server's row arrives, and nothing is left to decide.
    restore(&mut pair, &before);
    let finished = pair.run().expect_code(0);
    assert!(finished.stderr.contains("restored from a backup"), "{}", finished.stderr);
    assert_eq!(Pair::phones(&pair.both())[0], (1, "theirs"));
    assert_eq!(open_records(&pair), []);
    // One of when it was open, before a person decided: it is open again, and can be decided.
    restore(&mut pair, &open);
    pair.sync();
    let records = open_records(&pair);
    assert_eq!(records.len(), 1, "{records:?}");
    resolve(&pair, records[0].0, "remote");
    pair.sync();
    assert_eq!(Pair::phones(&pair.both())[0], (1, "theirs"));
    restore(&mut pair, &open);
    let report = pair.sync();
    assert_eq!(report["status"], "level_except", "{report}");
    let records = open_records(&pair);
    let phones = [Some("mine".to_owned()), Some("theirs".to_owned())];
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0], (records[0].0, "conflict".to_owned(), phones, None));
    resolve(&pair, records[0].0, "local");
    pair.sync();
    assert_eq!(Pair::phones(&pair.both())[0], (1, "mine"));
    let finished = pair.run().expect_code(0);
    assert!(!finished.stderr.contains("restored from a backup"), "{}", finished.stderr);
    assert_eq!(open_records(&pair), []);
}

#[test]
fn a_decision_that_cannot_be_carried_out_is_told_and_not_tried_for_ever() {
    let site = site();
    let mut pair = Pair::new(&site, "in vain", "");
    pair.there("ALTER TABLE people ADD CHECK (phone <> 'never there')");
    pair.put_here(1, "one", "1", 0);
    pair.put_here(2, "two", "never there", 0);
    pair.sync();
    let records = open_records(&pair);
    resolve(&pair, records[0].0, "local");
    let report = pair.sync();
    assert_eq!(report["rejected"], 1, "{report}");
    let again = open_records(&pair);
    assert_eq!(again.len(), 1, "{again:?}");
    assert_ne!(again[0].0, records[0].0, "it is recorded once more");
    assert_eq!(again[0].3, None, "nothing is decided of it");
    let report = pair.sync();
    assert_eq!(report["rejected"], 0, "it is not tried again: {report}");
    assert_eq!(open_records(&pair), again);
}

/// Ends what is connected to the server's database, and makes another one of it.
fn copy_server(pair: &mut Pair<'_>, from: &str, to: &str) {
    let site = pair.site;
    let mut apart = site.cluster.superuser("postgres");
    pair.remote = site.cluster.superuser("postgres");
    let copy = format!("CREATE DATABASE {to} TEMPLATE {from}");
    apart.batch_execute(&format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)")).expect("it goes");
    apart.batch_execute(&copy).unwrap_or_else(|error| panic!("{copy}: {error:?}"));
    pair.remote = if to == site.database { site.owner() } else { apart };
}

// One history of both sides is gone, and the local database comes back out of it: what it remembers has numbers that the
// server has given out again, for something else.
#[test]
fn sides_that_are_restored_each_from_another_time_lose_nothing_that_either_has() {
    let site = site();
    let ids = |people: Vec<crate::pair::Person>| people.iter().map(|person| person.0).collect::<Vec<_>>();
    // Both may go back to a time when they were level: nothing tells of that. Then they count as far as before, or on.
    for (both_go_back, runs) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
        let mut pair = level(&site, &format!("apart {both_go_back} {runs}"));
        let [file, before, gone] = [LOCAL, "before", "gone"].map(|name| pair.agent.home.path(name));
        let restore = |pair: &mut Pair<'_>, from: &std::path::Path| {
            pair.local = rusqlite::Connection::open_in_memory().expect("another");
            std::fs::copy(from, &file).expect("restored");
            pair.local = pair.agent.local();
        };
        let backup = format!("{}_{}_{runs}", site.database, u8::from(both_go_back));
        std::fs::copy(&file, &before).expect("a backup");
        copy_server(&mut pair, &site.database, &backup);
        pair.remote = site.owner();
        // What only the history has that is gone.
        pair.put_here(20, "gone and from here", "1", 10);
        pair.put_there(21, "gone and from there", "1", 10);
        pair.sync();
        assert_eq!(pair.both().len(), 10);
        std::fs::copy(&file, &gone).expect("a backup");
        copy_server(&mut pair, &backup, &site.database);
        if both_go_back {
            restore(&mut pair, &before);
        }
        for run in 0..runs {
            pair.put_here(30 + run, "since, from here", "1", 20 + run);
            pair.put_there(40 + run, "since, from there", "1", 20 + run);
            let finished = pair.run().expect_code(0);
            let is_noticed = finished.stderr.contains("what both sides last agreed on is lost");
            assert_eq!(is_noticed, !both_go_back && run == 0, "{}", finished.stderr);
        }
        restore(&mut pair, &gone);
        pair.there("DELETE FROM people WHERE id = 3");
        let there = ids(pair.people_there());
        let dry = pair.agent.home.run(["sync", "--json", "--quiet", "--dry-run"]).expect_code(0).json();
        let finished = pair.run().expect_code(0);
        let story = format!("{both_go_back}, {runs} runs: {}", finished.stderr);
        assert!(finished.stderr.contains("what both sides last agreed on is lost"), "{story}");
        assert_eq!(ids(pair.people_here()), [1, 2, 3, 4, 5, 6, 7, 8, 20, 21], "{story}");
        assert_eq!(ids(pair.people_there()), there, "{story}");
        let undecided: Vec<i64> =
            [3, 20, 21].into_iter().chain(there.into_iter().filter(|id| *id >= 30)).collect();
        let count = undecided.len() as u64;
        let report = plimsoll_tests::table_of(&finished.json(), "people").clone();
        assert_eq!(Pair::moved(&report), counts(&[("undecided", count)]), "{story}");
        let foretold = Pair::moved(plimsoll_tests::table_of(&dry, "people"));
        assert_eq!(foretold, counts(&[("undecided", count)]), "{story}");
        let kinds: Vec<String> = open_records(&pair).into_iter().map(|record| record.1).collect();
        assert_eq!(kinds, vec!["undecided"; undecided.len()], "{story}");
        // From here on it is remembered again: a delete is one.
        pair.there("DELETE FROM people WHERE id = 4");
        assert_eq!(Pair::moved(&pair.sync()), counts(&[("deleted_here", 1)]), "{story}");
        pair.remote = site.cluster.superuser("postgres");
        pair.there(&format!("DROP DATABASE {backup}"));
    }
}

#[test]
fn a_new_local_database_takes_the_place_of_one_that_is_gone() {
    let site = site();
    let mut pair = level(&site, "replaced");
    pair.put_there(30, "new there", "2", 10);
    pair.local = rusqlite::Connection::open_in_memory().expect("another");
    std::fs::remove_file(pair.agent.home.path(LOCAL)).expect("it is gone");
    pair.local = pair.agent.local();
    pair.here(crate::pair::LOCAL);
    pair.put_here(50, "new here", "3", 10);
    let refused = pair.run().expect_code(1);
    assert!(refused.stdout.contains("is kept level with another local database"), "{}", refused.stdout);
    let forget = format!("SELECT plimsoll.forget_side('{}', 'people')", pair.agent.registered.id);
    pair.site.superuser().batch_execute(&forget).expect("a place");
    // Neither side remembers anything of the other: what one alone has is new there.
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("sent", 1), ("received", 9)]));
    assert_eq!(pair.both().len(), 10);
}

#[test]
fn a_client_that_dies_while_it_makes_its_notes_begins_again() {
    let client = plimsoll_tests::faulty_client();
    let site = site();
    for kind in Kind::ALL {
        let local = LocalDatabase::new(kind);
        people_in(&local);
        let mut session = local.connect();
        for id in 1..=9 {
            session
                .run(&format!("INSERT INTO people VALUES ({id}, 'John', '1', NULL, '2024-01-01 12:00:00')"));
        }
        let mut agent = site.agent_of(&format!("interrupted by {}", kind.name()), local.setting());
        agent.write_config(&table(""));
        agent.home.set_binary(client.clone());
        let mut deaths = 0;
        loop {
            // What it has made by then stays.
            agent.home.set_env("PLIMSOLL_FAULT", &format!("two-way-defining:{}", deaths + 1));
            let run = agent.sync();
            if run.code.is_some() {
                run.expect_code(0);
                break;
            }
            deaths += 1;
        }
        assert!(deaths > 3, "{deaths} deaths");
        session.run("DELETE FROM people WHERE id = 5");
        let report = agent.sync().expect_code(0).json();
        let moved = Pair::moved(plimsoll_tests::table_of(&report, "people"));
        assert_eq!(moved, counts(&[("deleted_there", 1)]), "{}", kind.name());
    }
    std::fs::remove_file(client).expect("the copy goes");
}
