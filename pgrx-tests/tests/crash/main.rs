//! The client, its backend or the whole server dies, at named points and at random moments, while both sides
//! change; the next runs bring both sides together, with nothing lost and nothing doubled.
//!
//! `PLIMSOLL_SEED` replays a seed, `PLIMSOLL_KILLS` sets how many deaths there are in all.

mod shop;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use plimsoll_cluster::StopMode;
use plimsoll_tests::{Agent, Comparison, Running, Site, TestCluster, faulty_client, shared};
use postgres::Client;
use rusqlite::Connection;

/// Runs after a death until both sides must be level: as many as there are windows in a table of this size (a
/// window a run is promised), and three, because a row that only a window finds may hold up others.
const MOST_RUNS: u32 = 240_u32.div_ceil(60) + 3;

/// Changes that are made during a run at most.
const MOST_WRITES: u32 = 15;

const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The points that the client is built with, and the most times that a run of this size passes each.
const POINTS: [(&str, u32); 21] = [
    ("before-begin", 1),
    ("after-begin", 1),
    ("transaction-begun", 30),
    ("waiting-for-answers", 150),
    ("committed", 30),
    ("before-upload", 6),
    ("after-upload", 6),
    ("before-reject", 2),
    ("after-reject", 2),
    ("before-clear", 2),
    ("after-clear", 2),
    ("before-delete", 3),
    ("after-delete", 3),
    ("before-memory", 6),
    ("after-memory", 6),
    ("memory-written-not-renamed", 6),
    ("transaction-held", 1),
    ("before-commit", 1),
    ("snapshot-committed", 1),
    ("before-end", 1),
    ("after-end", 1),
];

/// Those that a run passes only where a snapshot is to be made.
const OF_SNAPSHOTS: [&str; 3] = ["transaction-held", "before-commit", "snapshot-committed"];

fn seed() -> u64 {
    let given = std::env::var("PLIMSOLL_SEED").ok();
    let seed =
        given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("PLIMSOLL_SEED is a number"));
    println!("PLIMSOLL_SEED={seed}");
    seed
}

/// A test's part of all deaths, of which there are at least 500 unless said otherwise.
fn share(percent: u32) -> u32 {
    let all = std::env::var("PLIMSOLL_KILLS").map_or(520, |text| text.parse().expect("a number"));
    (all * percent).div_ceil(100)
}

/// One shop, its replica, and how often somebody died.
struct Lane<'c> {
    site: Site<'c>,
    agent: Agent,
    tables: &'static [&'static str],
    local: Connection,
    rng: Rng,
    deaths: u32,
    most_runs: u32,
    /// How long a run takes that nobody kills.
    run_takes: Duration,
}

impl<'c> Lane<'c> {
    fn open(cluster: &'c TestCluster, tables: &'static [&'static str], seed: u64) -> Self {
        let site = Site::new(cluster);
        let agent = shop::open(&site, tables);
        let mut lane = Lane {
            local: agent.local(),
            site,
            agent,
            tables,
            rng: Rng::with_seed(seed),
            deaths: 0,
            most_runs: 0,
            run_takes: Duration::ZERO,
        };
        shop::fill(&mut lane.local, &mut lane.rng);
        lane.converge();
        lane
    }

    /// Lets both sides change, has somebody die by `kill` during a run, and sees to it that all is well after.
    /// `kill` is told how far into a run a random moment is, and answers whether somebody died.
    fn round(&mut self, kill: impl FnOnce(&mut Self, Running, Duration) -> bool) {
        for _ in 0..self.rng.u32(1..12) {
            shop::live(&mut self.local, &mut self.rng);
        }
        if self.rng.u8(..4) == 0 {
            let damage = shop::damage(self.tables, &mut self.rng);
            self.site.owner().batch_execute(damage).expect("damage");
        }
        let moment = self.run_takes.mul_f64(self.rng.f64());
        let mut writer_rng = self.rng.fork();
        let mut writer = self.rng.bool().then(|| self.agent.local());
        let over = AtomicBool::new(false);
        let died = std::thread::scope(|scope| {
            if let Some(local) = &mut writer {
                let over = &over;
                scope.spawn(move || {
                    for _ in 0..MOST_WRITES {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        shop::live(local, &mut writer_rng);
                        std::thread::sleep(Duration::from_millis(10));
                    }
                });
            }
            let run = self.agent.home.start(["sync", "--json", "--quiet"]);
            let died = kill(self, run, moment);
            over.store(true, Ordering::Relaxed);
            died
        });
        self.deaths += u32::from(died);
        self.converge();
    }

    fn converge(&mut self) {
        shop::mend(&mut self.local);
        // As many rows as are deleted here go in many days, and so many days pass.
        self.site.superuser().batch_execute("DELETE FROM plimsoll.guard_record").expect("a new day");
        self.agent.home.unset_env("PLIMSOLL_FAULT");
        let tables = shop::comparisons(&self.local, self.tables);
        for runs in 1.. {
            let begun = Instant::now();
            let run = self.agent.sync();
            self.run_takes = begun.elapsed();
            let mut server = self.site.superuser();
            let database = self.agent.registered.id;
            let differ = |table: &Comparison| table.differences(&self.local, &mut server, database);
            let differences: Vec<String> = tables.iter().flat_map(differ).collect();
            if differences.is_empty() {
                self.most_runs = self.most_runs.max(runs);
                break;
            }
            // So many visits may go in one run that the guard holds them: a person agrees.
            let released = "SELECT count(plimsoll.release_hold(database_id, relation)) FROM plimsoll.replicas
                 WHERE database_id = $1 AND hold_since IS NOT NULL";
            let released: i64 = server.query_one(released, &[&database]).expect("releases").get(0);
            let told =
                format!("{}\n{released} holds\n{}\n{}", differences.join("\n"), run.stdout, run.stderr);
            assert!(runs < MOST_RUNS, "after {} deaths not level within {runs} runs:\n{told}", self.deaths);
        }
        self.agent.home.run(["verify", "--quiet"]).expect_code(0);
    }

    fn summary(&self, what: &str, begun: Instant) {
        println!(
            "{} {what}, level again within {} runs each (at most {MOST_RUNS}), {:.1} s",
            self.deaths,
            self.most_runs,
            begun.elapsed().as_secs_f64()
        );
    }
}

#[test]
fn the_client_dies_at_named_points() {
    let (begun, seed) = (Instant::now(), seed());
    let client = faulty_client();
    let mut lane = Lane::open(shared(), shop::ALL, seed);
    lane.agent.home.set_binary(client.clone());
    let wanted = share(35);
    let mut struck = [0u32; POINTS.len()];
    for round in 0.. {
        if lane.deaths == wanted {
            break;
        }
        assert!(round < 100 + wanted * 4, "the points are hardly ever passed: {struck:?}");
        let place = round as usize % POINTS.len();
        let (point, most) = POINTS[place];
        let time = lane.rng.u32(1..=most);
        if point.ends_with("-clear") {
            // There must be a rejected row that fits by now.
            shop::live_badly(&mut lane.local, &mut lane.rng);
            lane.agent.sync();
            shop::mend(&mut lane.local);
        }
        if OF_SNAPSHOTS.contains(&point) {
            shop::live_dearly(&mut lane.local, &mut lane.rng);
        }
        lane.agent.home.set_env("PLIMSOLL_FAULT", &format!("{point}:{time}"));
        lane.round(|_, run, _| {
            let died = run.wait(TIME_LIMIT).code.is_none();
            struck[place] += u32::from(died);
            died
        });
    }
    std::fs::remove_file(client).expect("the copy goes");
    lane.summary("deaths of the client at named points", begun);
    for ((point, _), struck) in POINTS.iter().zip(struck) {
        println!("  {struck:>4} {point}");
        assert!(struck > 0 || wanted < 150, "nobody died at {point}");
    }
}

/// What is written between two words of a text, each time.
fn between<'t>(text: &'t str, begin: &'t str, end: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(begin).skip(1).filter_map(move |rest| rest.split(end).next())
}

#[test]
fn at_every_point_of_the_client_some_test_has_it_die() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = texts(&root.join("../client/src"));
    let points: BTreeSet<&str> =
        sources.iter().flat_map(|text| between(text, "fault_point(\"", "\"")).collect();
    assert!(points.len() > 30, "{points:?}");
    let suites = ["crash/main.rs", "pull/deaths.rs", "two_way/histories.rs"];
    let suites = suites.map(|name| std::fs::read_to_string(root.join("tests").join(name)).expect("a suite"));
    let played: BTreeSet<&str> = suites
        .iter()
        .flat_map(|text| between(text, "POINTS: [", "];"))
        .flat_map(|list| between(list, "\"", "\""))
        .map(|point| point.split(':').next().unwrap_or(point))
        .collect();
    let forgotten: Vec<_> = points.difference(&played).collect();
    assert!(forgotten.is_empty(), "nobody dies at {forgotten:?}");
}

/// The texts of all files of a folder and of those in it.
fn texts(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let text = |path: PathBuf| match path.is_dir() {
        true => texts(&path),
        false => vec![std::fs::read_to_string(&path).expect("text")],
    };
    entries.flat_map(text).collect()
}

#[test]
fn the_client_dies_at_random_moments() {
    let begun = Instant::now();
    let mut lane = Lane::open(shared(), shop::ORDERED, seed());
    while lane.deaths < share(45) {
        lane.round(|_, mut run, moment| {
            std::thread::sleep(moment);
            let died = run.is_running();
            drop(run.kill());
            died
        });
    }
    lane.summary("deaths of the client at random moments", begun);
}

/// The client's backend, once there is one; `None` where the client ended first.
fn backend_of(server: &mut Client, role: &str, run: &mut Running) -> Option<i32> {
    let query = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'";
    while run.is_running() {
        if let Some(row) = server.query_opt(query, &[&role]).expect("the backends") {
            return Some(row.get(0));
        }
    }
    None
}

#[test]
fn its_backend_is_terminated() {
    let begun = Instant::now();
    let mut lane = Lane::open(shared(), shop::ALL, seed());
    let mut server = lane.site.superuser();
    while lane.deaths < share(15) {
        lane.round(|lane, mut run, moment| {
            let backend = backend_of(&mut server, &lane.agent.login.role, &mut run);
            std::thread::sleep(moment);
            let terminate = "SELECT pg_terminate_backend($1)";
            let died = backend.is_some_and(|pid| server.query_one(terminate, &[&pid]).expect("it").get(0));
            // The client may well get through, with a new connection.
            run.wait(TIME_LIMIT);
            died
        });
    }
    lane.summary("terminated backends", begun);
}

#[test]
fn the_server_crashes() {
    let begun = Instant::now();
    let cluster = TestCluster::start();
    let mut lane = Lane::open(&cluster, shop::ORDERED, seed());
    let (kills, stops) = (share(5), share(1));
    while lane.deaths < kills + stops {
        let stop = lane.deaths >= kills;
        lane.round(|lane, mut run, moment| {
            let mut server = lane.site.superuser();
            let backend = backend_of(&mut server, &lane.agent.login.role, &mut run);
            std::thread::sleep(moment);
            let died = match backend {
                Some(_) if stop => {
                    cluster.stop_server(StopMode::Immediate).expect("the server stops");
                    cluster.start_server().expect("the server starts");
                    true
                }
                // The server ends all other backends too, recovers and goes on.
                Some(pid) => {
                    let mut kill = Command::new("kill");
                    kill.args(["-KILL", &pid.to_string()]).stderr(Stdio::null());
                    kill.status().expect("kill runs").success()
                }
                None => false,
            };
            run.wait(TIME_LIMIT);
            wait_until_ready(&cluster, &mut server);
            died
        });
    }
    lane.summary("crashes of the server", begun);
}

/// A server that crashed has noticed, and is there again.
fn wait_until_ready(cluster: &TestCluster, old: &mut Client) {
    let begun = Instant::now();
    while old.batch_execute("SELECT 1").is_ok() && begun.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(20));
    }
    while !cluster.is_ready() {
        assert!(begun.elapsed() < TIME_LIMIT, "the server does not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}
