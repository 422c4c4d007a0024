//! Random statements of every kind, of one session and of several at once. At every checkpoint what is kept
//! equals what the rows amount to, for every block.

use std::time::Instant;

use fastrand::Rng;
use plimsoll_tests::shared;
use postgres::Client;

use crate::judge::{check_everything, compare};
use crate::session::{SNAPSHOT, Session, Tally};
use crate::values::range;
use crate::world::World;
use crate::{number, seed};

/// Statements between two checkpoints of all sessions.
const EPOCH: u64 = 400;
const SESSIONS: u64 = 4;

/// The tables neither stay empty nor grow without end.
const MOST_ROWS: i64 = 15_000;

/// Takes rows away where there are too many, and has kept again what a truncated partition put out of use.
fn tidy(client: &mut Client, world: &World<'_>) {
    for (tenant, relation) in world.replicas() {
        let is = tenant.is("t");
        let count = format!("SELECT count(*) FROM {relation} t WHERE {is}");
        if client.query_one(&count, &[]).expect("a count").get::<_, i64>(0) > MOST_ROWS {
            let delete = format!("DELETE FROM {relation} t WHERE {is} AND abs(hashint8(stamp)) % 4 > 0");
            client.batch_execute(&delete).expect("rows go");
        }
        let kept = compare(client, tenant, relation, (7, 8)).expect("an answer");
        if kept.unwrap_or_else(|wrong| panic!("{wrong}")) {
            continue;
        }
        world.rebuild(client, tenant, relation);
        let kept = compare(client, tenant, relation, (7, 8)).expect("an answer");
        assert!(kept.unwrap_or_else(|wrong| panic!("{wrong}")), "{relation} is kept once it was rebuilt");
    }
}

/// One session alone: a seed replays it.
fn alone(seed: u64, statements: u64) -> Tally {
    let world = World::open(shared(), true);
    world.fill(50);
    let mut session = Session::new(&world, Rng::with_seed(seed));
    let mut superuser = world.connect();
    let mut done = 0;
    while done < statements {
        session.live(EPOCH / 4, 20);
        done += EPOCH / 4;
        check_everything(&mut superuser, &world);
        tidy(&mut superuser, &world);
    }
    session.tally
}

/// Compares replicas in snapshots of their own while others change them.
fn read(world: &World<'_>, rng: &mut Rng, comparisons: u64) -> Tally {
    let mut client = world.connect();
    let replicas: Vec<_> = world.replicas().collect();
    let mut tally = Tally::default();
    while tally.comparisons < comparisons {
        client.batch_execute(SNAPSHOT).expect("a snapshot");
        for _ in 0..4 {
            let (tenant, relation) = replicas[rng.usize(..replicas.len())];
            let verdict = compare(&mut client, tenant, relation, range(rng)).expect("an answer");
            tally.kept += u64::from(verdict.unwrap_or_else(|wrong| panic!("{wrong}")));
            tally.comparisons += 1;
        }
        client.batch_execute("COMMIT").expect("the end of a snapshot");
    }
    tally
}

/// Several sessions and a reader at once. Uploads of ships are written without statements where wanted.
fn together(seed: u64, statements: u64, past_statements: bool) -> Tally {
    let world = World::open(shared(), true);
    if past_statements {
        world.drop_generated_column();
    }
    world.fill(50);
    let mut rng = Rng::with_seed(seed);
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| Session::new(&world, rng.fork())).collect();
    let mut superuser = world.connect();
    let mut tally = Tally::default();
    for _ in 0..statements.div_ceil(EPOCH) {
        std::thread::scope(|scope| {
            for session in &mut sessions {
                scope.spawn(|| session.live(EPOCH / SESSIONS, 40));
            }
            let mut rng = rng.fork();
            let world = &world;
            let reader = scope.spawn(move || read(world, &mut rng, EPOCH / 25));
            tally.add(reader.join().expect("the reader finds nothing wrong"));
        });
        check_everything(&mut superuser, &world);
        tidy(&mut superuser, &world);
    }
    for session in sessions {
        tally.add(session.tally);
    }
    tally
}

fn judge(tally: &Tally, begun: Instant) {
    println!("{tally:?}, {:.1} s", begun.elapsed().as_secs_f64());
    assert!(tally.kept * 10 > tally.comparisons * 7, "most answers are kept ones: {tally:?}");
}

#[test]
fn one_session_of_random_statements_keeps_the_sums_right() {
    let begun = Instant::now();
    judge(&alone(seed(), number("PLIMSOLL_STATEMENTS", 5_000) / 4), begun);
}

#[test]
fn several_sessions_of_random_statements_keep_the_sums_right() {
    let begun = Instant::now();
    judge(&together(seed(), number("PLIMSOLL_STATEMENTS", 5_000) / 2, false), begun);
}

#[test]
fn uploads_past_statements_keep_the_sums_right_beside_others() {
    let begun = Instant::now();
    judge(&together(seed(), number("PLIMSOLL_STATEMENTS", 5_000) / 2, true), begun);
}
