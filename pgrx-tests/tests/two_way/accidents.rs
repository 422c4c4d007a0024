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
