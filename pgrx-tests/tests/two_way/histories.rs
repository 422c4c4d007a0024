//! Random histories, with each kind of local database: both sides are edited, also while a run is under way, and the client
//! dies at points between any two steps and at random moments, loses its connections, and loses servers. Then both sides
//! must be equal, and nothing gone that was not beaten by what was made without knowledge of it.
//!
//! `PLIMSOLL_SEED` replays a history, `PLIMSOLL_HISTORIES` says how many are made of each policy and kind.

use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use plimsoll_cluster::StopMode;
use plimsoll_tests::{
    Kind, LocalDatabase, LocalSession, Running, Site, TestCluster, end_connections, faulty_client,
};

use crate::applications::{World, a_while, ended_well, transact};
use crate::pair::{site, site_on};

/// The points at which the client dies, with how often a run of this size passes them at most.
const POINTS: [(&str, u32); 14] = [
    ("two-way-defining", 5),
    ("before-two-way-begin", 1),
    ("after-two-way-begin", 1),
    ("transaction-begun", 20),
    ("waiting-for-answers", 60),
    ("two-way-prepared", 3),
    ("before-apply", 3),
    ("after-apply", 3),
    ("two-way-before-conclusion", 3),
    ("two-way-concluding", 3),
    ("two-way-concluded", 3),
    ("committed", 12),
    ("before-end", 1),
    ("after-end", 1),
];

const POLICIES: [&str; 4] = ["newest", "local", "remote", "ask"];
const ROUNDS: u32 = 7;
/// Runs after which all must be settled: one more may be needed for what moved while it was decided upon.
const LAST_RUNS: u32 = 4;

/// What may happen to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accident {
    /// Nothing.
    None,
    /// The client dies at a point of its own.
    Point,
    /// The client dies at any moment.
    Client,
    /// The server ends its sessions.
    Sessions,
    /// The local database ends its sessions.
    LocalSessions,
    /// The server loses its power.
    Server,
    /// The local database's server does.
    LocalServer,
}

use Accident::{Client, LocalServer, LocalSessions, Point, Server, Sessions};

/// What happened to runs, by number.
#[derive(Debug, Default)]
struct Toll {
    deaths: u32,
    sessions: u64,
    crashes: u32,
}

struct History<'s> {
    world: World<'s>,
    rng: Rng,
    here: LocalSession,
    there: LocalSession,
}

impl<'s> History<'s> {
    fn new(site: &'s Site<'s>, local: LocalDatabase, policy: &str, seed: u64, client: &Path) -> Self {
        let client_id = site.cluster.unique(&format!("{policy}_{}", local.kind().name()));
        println!("PLIMSOLL_SEED={seed} under {policy} with {}", local.kind().name());
        let mut rng = Rng::with_seed(seed);
        let mut world = World::new(site, &client_id, local, policy);
        world.agent.home.set_binary(client.to_owned());
        let (mut here, there) = (world.local.connect(), world.connect_there());
        if world.local.kind() == Kind::Sqlite && rng.bool() {
            here.run("PRAGMA journal_mode = WAL");
        }
        History { world, rng, here, there }
    }

    /// Somebody changes a row of a side.
    fn edit(&mut self) {
        let World { ledger, here, there, agent, .. } = &self.world;
        let name = agent.client_id.as_str();
        match self.rng.bool() {
            true => transact(&mut self.here, &mut self.rng, &[(here, ledger, name)]),
            false => transact(&mut self.there, &mut self.rng, &[(there, ledger, name)]),
        };
    }

    fn befall(&mut self, accident: Accident, running: &mut Running, toll: &mut Toll) {
        let World { site, agent, local, .. } = &self.world;
        match accident {
            // There is none yet, or for a moment, at times.
            Sessions | LocalSessions => {
                for _ in 0..20 {
                    let ended = match accident {
                        Sessions => end_connections(site.cluster, &agent.login.role),
                        _ => local.end_connections(),
                    };
                    toll.sessions += ended;
                    if ended > 0 || !running.is_running() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(self.rng.u64(0..15)));
                }
            }
            Server => {
                site.cluster.stop_server(StopMode::Immediate).expect("the server stops");
                site.cluster.start_server().expect("the server starts");
                self.there = self.world.connect_there();
                toll.crashes += 1;
            }
            LocalServer => {
                toll.crashes += u32::from(local.crash());
                self.here = self.world.local.connect();
            }
            _ => {}
        }
    }

    /// A round: edits, and a run to which something may happen.
    fn round(&mut self, accidents: &[Accident], toll: &mut Toll) {
        for _ in 0..self.rng.u32(0..8) {
            self.edit();
        }
        let accident = *self.rng.choice(accidents).expect("one");
        let (point, most) = POINTS[self.rng.usize(..POINTS.len())];
        match accident {
            Point => {
                let time = self.rng.u32(1..=most);
                self.world.agent.home.set_env("PLIMSOLL_FAULT", &format!("{point}:{time}"));
            }
            _ => self.world.agent.home.unset_env("PLIMSOLL_FAULT"),
        }
        let mut running = self.world.start();
        let steps = self.rng.u32(1..5);
        let when = self.rng.u32(0..steps);
        for step in 0..steps {
            a_while(&mut self.rng);
            if step == when && running.is_running() {
                self.befall(accident, &mut running, toll);
            }
            self.edit();
        }
        let finished = match accident {
            Client => running.kill(),
            _ => running.wait(Duration::from_secs(120)),
        };
        toll.deaths += u32::from(finished.code.is_none());
        ended_well(&finished);
        // Who died holds its lease still, and another agent would have to wait for it.
        if finished.code == Some(0) && self.rng.u8(..6) == 0 {
            let _ = std::fs::remove_file(self.world.agent.home.path("plimsoll.state.json"));
        }
        if self.rng.bool() {
            self.world.decide(&mut self.rng);
        }
    }

    fn live(mut self, accidents: &[Accident], toll: &mut Toll) {
        for _ in 0..ROUNDS {
            self.round(accidents, toll);
        }
        self.world.settle(LAST_RUNS);
    }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Has histories of all policies happen: each seed as often as is asked for.
fn histories(default: u64, mut history: impl FnMut(&'static str, u64)) {
    let seed = env("PLIMSOLL_SEED");
    let histories = if seed.is_some() { 1 } else { env("PLIMSOLL_HISTORIES").unwrap_or(default) };
    for _ in 0..histories {
        for policy in POLICIES {
            history(policy, seed.unwrap_or_else(|| fastrand::u64(..)));
        }
    }
}

fn both_sides_end_equal(kind: Kind, default: u64) {
    let client = faulty_client();
    let site = site();
    let mut toll = Toll::default();
    histories(default, |policy, seed| {
        let history = History::new(&site, LocalDatabase::new(kind), policy, seed, &client);
        history.live(&[Accident::None, Point, Point, Point, Client, Sessions, LocalSessions], &mut toll);
    });
    std::fs::remove_file(client).expect("the copy goes");
    println!("{toll:?}");
    assert!(env("PLIMSOLL_SEED").is_some() || toll.deaths > 0, "nobody died");
}

#[test]
fn both_sides_end_equal_wherever_the_client_dies_beside_sqlite() {
    both_sides_end_equal(Kind::Sqlite, 1);
}

#[test]
fn both_sides_end_equal_wherever_the_client_dies_beside_postgres() {
    both_sides_end_equal(Kind::Postgres, 1);
}

#[test]
fn both_sides_end_equal_wherever_the_client_dies_beside_mariadb() {
    both_sides_end_equal(Kind::MariaDb, 1);
}

#[test]
fn both_sides_end_equal_though_their_servers_crash() {
    let client = faulty_client();
    let cluster = TestCluster::start();
    let site = site_on(&cluster);
    let mut toll = Toll::default();
    let kinds = [Kind::Postgres, Kind::MariaDb, Kind::Sqlite];
    histories(1, |policy, seed| {
        let kind = kinds[(seed % 3) as usize];
        let history = History::new(&site, LocalDatabase::with_own_server(kind), policy, seed, &client);
        history.live(&[Server, LocalServer, Server, LocalServer, Sessions, Point], &mut toll);
    });
    std::fs::remove_file(client).expect("the copy goes");
    println!("{toll:?}");
    assert!(env("PLIMSOLL_SEED").is_some() || toll.crashes > 0, "no server crashed");
}
