//! The server dies while rows are written and blocks are split and joined; what is kept after recovery is what
//! the rows amount to.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use plimsoll_cluster::StopMode;
use plimsoll_tests::TestCluster;
use postgres::Client;

use crate::calls::heavy;
use crate::judge::check_all_kept;
use crate::statements::{Actor, Statement};
use crate::world::World;
use crate::{number, seed};

const WRITERS: usize = 3;
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// Makes large changes and folds until the server dies; answers how many.
fn write(world: &World<'_>, rng: &mut Rng) -> u64 {
    let mut client = world.connect();
    let mut statements = 0;
    loop {
        let Statement { actor, sql, .. } = heavy(world, rng);
        let role = if actor == Actor::Agent { &world.agent } else { &world.application };
        let sql = match rng.u8(..4) {
            0 => format!("BEGIN; SET ROLE {role}; {sql}; ROLLBACK"),
            _ => format!("BEGIN; SET ROLE {role}; {sql}; COMMIT"),
        };
        match client.batch_execute(&sql) {
            Ok(()) => statements += 1,
            Err(_) if client.is_closed() => return statements,
            // Errors of the application's own making are none of this test's business.
            Err(_) => {
                if client.batch_execute("ROLLBACK").is_err() {
                    return statements;
                }
            }
        }
    }
}

/// Whoever folds at this moment, else whoever writes.
fn victim(client: &mut Client) -> Option<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()
                   AND backend_type = 'client backend'
               ORDER BY query LIKE '%fold_manifest%' DESC LIMIT 1";
    client.query_opt(sql, &[]).expect("the backends").map(|row| row.get(0))
}

fn wait_until_ready(cluster: &TestCluster, old: &mut Client) {
    let begun = Instant::now();
    while old.batch_execute("SELECT 1").is_ok() && begun.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    while !cluster.is_ready() {
        assert!(begun.elapsed() < TIME_LIMIT, "the server does not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_kept_is_right_after_every_crash() {
    let begun = Instant::now();
    let mut rng = Rng::with_seed(seed());
    let cluster = TestCluster::start();
    let world = &World::open(&cluster, false);
    world.fill(2_500);
    let lasts = Duration::from_secs(number("PLIMSOLL_SECONDS", 8) * 5 / 2);
    let (mut statements, mut kills, mut stops) = (0, 0, 0);
    while begun.elapsed() < lasts {
        let mut server = world.connect();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|_| {
                    let mut rng = rng.fork();
                    scope.spawn(move || write(world, &mut rng))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(rng.u64(20..500)));
            if rng.u8(..3) == 0 {
                cluster.stop_server(StopMode::Immediate).expect("the server stops");
                cluster.start_server().expect("the server starts");
                stops += 1;
            } else if let Some(pid) = victim(&mut server) {
                let mut kill = Command::new("kill");
                kill.args(["-KILL", &pid.to_string()]).stderr(Stdio::null());
                kills += u64::from(kill.status().expect("kill runs").success());
                wait_until_ready(&cluster, &mut server);
            } else {
                cluster.stop_server(StopMode::Immediate).expect("the server stops");
                cluster.start_server().expect("the server starts");
                stops += 1;
            }
            for writer in writers {
                statements += writer.join().expect("a writer ends with the server");
            }
        });
        let mut client = world.connect();
        check_all_kept(&mut client, world);
        // A small world is checked soon.
        for (tenant, relation) in world.replicas() {
            let is = tenant.is("t");
            let thin = format!("DELETE FROM {relation} t WHERE {is} AND abs(hashint8(stamp)) % 3 > 0");
            client.batch_execute(&thin).expect("rows go");
        }
    }
    println!("{kills} kills, {stops} stops, {statements} statements, {:.1} s", begun.elapsed().as_secs_f64());
    assert!(kills + stops > 2, "the server hardly ever died");
}
