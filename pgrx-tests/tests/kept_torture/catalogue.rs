//! Whatever happens to a table's definition, triggers or partitions: answers stay right. What is kept may go
//! out of use, never wrong.

use plimsoll_tests::shared;
use postgres::Client;

use crate::events::{After, EVENTS, Event};
use crate::judge::compare;
use crate::world::World;

const SHIPS: i32 = 150;

/// How calls on the replicas of the tables were answered.
#[derive(Debug, Default)]
struct Answers {
    kept: u32,
    scanned: u32,
    refused: u32,
    wrong: Vec<String>,
}

fn ask(client: &mut Client, world: &World<'_>) -> Answers {
    let mut answers = Answers::default();
    for (tenant, relation) in world.replicas() {
        match compare(client, tenant, relation, (0, 100)) {
            Ok(Ok(true)) => answers.kept += 1,
            Ok(Ok(false)) => answers.scanned += 1,
            Ok(Err(wrong)) => answers.wrong.push(wrong),
            Err(error) => {
                let state = error.code().map_or("", |state| state.code());
                // The table is not as it was registered, or has a column without an encoding; or this test's own query names a column that is gone.
                let fit = ["55000", "42703", "42P01", "0A000"].contains(&state);
                answers.refused += u32::from(fit);
                if !fit {
                    answers.wrong.push(format!("{relation}: {error:?}"));
                }
            }
        }
    }
    answers
}

/// Ordinary statements, of which some fail where an event took their columns away.
fn live_on(client: &mut Client) {
    for sql in [
        "UPDATE yard.ship SET stamp = stamp + 7 WHERE id % 10 = 1",
        "DELETE FROM yard.ship WHERE id % 10 = 2",
        "INSERT INTO yard.ship (client_id, database_id, id, stamp)
         SELECT client_id, database_id, id + 5000, id FROM yard.ship WHERE id % 10 = 3 ON CONFLICT DO NOTHING",
        "UPDATE yard.crate SET stamp = stamp + 1 WHERE ship_id % 7 = 0",
        "UPDATE yard.crate SET no = CASE WHEN no < 10 THEN no + 11 ELSE no + 30 END WHERE ship_id % 7 = 1",
        "DELETE FROM yard.crate_low WHERE ship_id % 7 = 2",
        "UPDATE yard.aside SET stamp = stamp + 1 WHERE id % 5 = 0",
        "UPDATE yard.crate_middle SET stamp = stamp + 1 WHERE ship_id % 7 = 3",
        "DELETE FROM yard.crate_high_0 WHERE ship_id % 7 = 4",
    ] {
        let _ = client.batch_execute(sql);
    }
}

/// Makes an event happen and answers what is wrong afterwards.
fn happens(event: &Event) -> Vec<String> {
    let world = World::open(shared(), false);
    world.fill(SHIPS);
    // A session that has worked with the tables before, and knows nothing of what happens.
    let (mut veteran, mut superuser) = (world.connect(), world.connect());
    live_on(&mut veteran);
    let mut wrong = Vec::new();
    let mut expect = |when: &str, answers: &Answers, right: bool| {
        if !right || !answers.wrong.is_empty() {
            wrong.push(format!("{}, {when}: {answers:?}", event.name));
        }
    };
    let before = ask(&mut veteran, &world);
    expect("before", &before, before.kept == 6);
    for step in event.steps {
        let sql = step
            .replace("{owner}", &world.owner)
            .replace("{application}", &world.application)
            .replace("{database}", &world.tenants[0].database_id.to_string())
            .replace("{values}", &world.tenants[0].values())
            .replace("{is}", &world.tenants[0].is("t"));
        let outcome = superuser.batch_execute(&sql);
        let mut answers = ask(&mut veteran, &world);
        answers.wrong.extend(outcome.err().map(|error| format!("{error:?}")));
        expect(step, &answers, true);
    }
    drop(superuser);
    let fits = |answers: &Answers, rebuilt: bool| match event.after {
        After::Kept => answers.kept == 6,
        After::Rebuilt => answers.refused == 0 && (!rebuilt || answers.kept == 6),
        After::Scanned => answers.refused == 0 && answers.scanned >= 3,
        After::Refused => answers.refused >= 3,
    };
    let mut fresh = world.connect();
    let answers = ask(&mut fresh, &world);
    expect("to a new session", &answers, fits(&answers, false));
    live_on(&mut veteran);
    let answers = ask(&mut fresh, &world);
    expect("after statements", &answers, fits(&answers, false));
    for (tenant, relation) in world.replicas() {
        let rebuild = "SELECT plimsoll.rebuild_manifest($1, $2)";
        // Refused where the table is not as registered, or where nothing is kept.
        let _ = fresh.execute(rebuild, &[&tenant.database_id, &relation]);
    }
    let answers = ask(&mut veteran, &world);
    expect("once rebuilt", &answers, fits(&answers, true));
    live_on(&mut fresh);
    for (tenant, relation) in world.replicas() {
        let fold = "SELECT plimsoll.fold_manifest($1, $2)";
        let _ = fresh.execute(fold, &[&tenant.database_id, &relation]);
    }
    live_on(&mut veteran);
    let answers = ask(&mut fresh, &world);
    expect("after more statements", &answers, fits(&answers, true));
    wrong
}

/// Makes every other event happen, those whose name contains `PLIMSOLL_EVENT`.
fn every_other(first: usize) {
    let chosen = std::env::var("PLIMSOLL_EVENT").unwrap_or_default();
    let events = EVENTS.iter().skip(first).step_by(2).filter(|event| event.name.contains(&chosen));
    let wrong: Vec<String> = events.flat_map(happens).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn answers_stay_right_whatever_happens_to_a_table() {
    every_other(0);
}

#[test]
fn answers_stay_right_whatever_else_happens_to_a_table() {
    every_other(1);
}
