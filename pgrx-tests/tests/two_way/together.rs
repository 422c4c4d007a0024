//! Databases of different clients, of different kinds, that go both ways against one server at the same time: their own
//! applications change them while their agents run, and an application of the server changes rows of several of them in one
//! transaction. When all are quiet each is as its replica, and nothing of one has come to another.
//!
//! `PLIMSOLL_SEED` replays the choices, `PLIMSOLL_TOGETHER_SECONDS` says how long they last.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use plimsoll_tests::{Kind, LocalDatabase, table_of};

use crate::applications::{World, ended_well, transact};
use crate::pair::site;

/// Runs after which all must be settled.
const LAST_RUNS: u32 = 4;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// How often something was done.
#[derive(Debug, Default)]
struct Count {
    runs: AtomicU32,
    moved: AtomicU32,
    here: AtomicU32,
    there: AtomicU32,
}

impl Count {
    fn add(count: &AtomicU32, more: bool) {
        count.fetch_add(u32::from(more), Ordering::Relaxed);
    }
}

#[test]
fn databases_of_different_clients_and_kinds_are_edited_at_the_same_time() {
    let seed = env("PLIMSOLL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("PLIMSOLL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let lasts = Duration::from_secs(env("PLIMSOLL_TOGETHER_SECONDS").unwrap_or(5));
    let site = site();
    let mut policies = ["newest", "local", "remote", "ask"];
    rng.shuffle(&mut policies);
    let mut worlds: Vec<World<'_>> = Kind::ALL
        .iter()
        .zip(policies)
        .map(|(kind, policy)| {
            println!("{} under {policy}", kind.name());
            World::new(&site, &format!("client of {}", kind.name()), LocalDatabase::new(*kind), policy)
        })
        .collect();
    worlds[0].local.connect().run("PRAGMA journal_mode = WAL");
    let (count, until) = (Count::default(), Instant::now() + lasts);
    let over = || Instant::now() > until;
    std::thread::scope(|scope| {
        for world in &worlds {
            let (count, mut rng) = (&count, rng.fork());
            scope.spawn(move || {
                while !over() {
                    let run = world.start().wait(Duration::from_secs(120));
                    ended_well(&run);
                    assert!(!run.stderr.contains("restored"), "nothing that was committed is lost: {run:?}");
                    Count::add(&count.runs, run.code == Some(0));
                    if run.code == Some(0) {
                        let moved = crate::pair::Pair::moved(table_of(&run.json(), "people"));
                        Count::add(&count.moved, !moved.is_empty());
                    }
                }
            });
            scope.spawn(move || {
                let mut session = world.local.connect();
                while !over() {
                    // Who closes a database last puts it in order, and must see that the agent has it open.
                    if rng.u8(0..3) == 0 {
                        drop(session);
                        session = world.local.connect();
                    }
                    let change = [(&world.here, &world.ledger, world.agent.client_id.as_str())];
                    Count::add(&count.here, transact(&mut session, &mut rng, &change));
                    std::thread::sleep(Duration::from_millis(rng.u64(0..40)));
                }
            });
        }
        let (count, mut rng, worlds) = (&count, rng.fork(), &worlds);
        scope.spawn(move || {
            let mut session = worlds[0].connect_there();
            while !over() {
                let mut order = [0, 1, 2];
                rng.shuffle(&mut order);
                let changes: Vec<_> = order[..rng.usize(1..=3)]
                    .iter()
                    .map(|place| &worlds[*place])
                    .map(|world| (&world.there, &world.ledger, world.agent.client_id.as_str()))
                    .collect();
                Count::add(&count.there, transact(&mut session, &mut rng, &changes));
                std::thread::sleep(Duration::from_millis(rng.u64(0..25)));
            }
        });
    });
    println!("{count:?}");
    for counted in [&count.runs, &count.moved, &count.here, &count.there] {
        assert!(counted.load(Ordering::Relaxed) > 5, "{count:?}");
    }
    // All at once again: what is left is brought over beside each other.
    std::thread::scope(|scope| {
        for world in &mut worlds {
            scope.spawn(|| world.settle(LAST_RUNS));
        }
    });
}
