//! What kept manifests save: `PLIMSOLL_KEPT_ROWS=1000000 cargo test -p plimsoll-tests --test postgres_kept figures --
//! --nocapture` prints medians, with and without them in turn.

use std::time::{Duration, Instant};

use plimsoll_tests::shared;

use crate::shop::Shop;

const ROUNDS: usize = 5;

/// Processor time of ended children of a process, in hundredths of a second.
fn of_children(process: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("a process");
    // Behind the name in parentheses; the 14th and 15th of these.
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    ticks(13) + ticks(14)
}

/// What one command took: time, and processor time of the client and of the server.
type Taken = (Duration, u64, u64);

fn taken(shop: &mut Shop, arguments: &[&str]) -> Taken {
    let server = shared().process().expect("a server").to_string();
    let (own, servers, begun) = (of_children("self"), of_children(&server), Instant::now());
    let finished = shop.agent.home.run(arguments);
    let took = begun.elapsed();
    finished.expect_code(0);
    // Ended sessions count when the server has waited for them.
    shop.wait_for_sessions();
    std::thread::sleep(Duration::from_millis(200));
    (took, of_children("self") - own, of_children(&server) - servers)
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values[values.len() / 2]
}

#[test]
fn figures() {
    let Ok(rows) = std::env::var("PLIMSOLL_KEPT_ROWS") else { return };
    let mut shop = Shop::new(1);
    shop.run(&format!(
        "INSERT INTO sale SELECT 'sale ' || i, i, i * 0.5, i * 10 FROM generate_series(2, {rows}) i; ANALYZE sale"
    ));
    shop.manage();
    shop.configure_alone("sale", "");
    shop.agent.home.run(["sync", "--quiet"]).expect_code(0);
    shop.agent.home.run(["sync", "--quiet"]).expect_code(0);
    let cases: [(&str, &str, &[&str]); 4] = [
        ("nothing to do, kept", "", &["sync", "--quiet"]),
        ("nothing to do, read", "use_manifests = false", &["sync", "--quiet"]),
        ("verify, kept", "", &["verify", "--quiet"]),
        ("verify, read", "use_manifests = false", &["verify", "--quiet"]),
    ];
    let mut all: Vec<Vec<Taken>> = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for ((_, setting, arguments), taken_so_far) in cases.iter().zip(&mut all) {
            shop.configure_alone("sale", setting);
            taken_so_far.push(taken(&mut shop, arguments));
        }
    }
    for ((name, ..), taken) in cases.iter().zip(all) {
        println!(
            "{name}: {:?}, client {} ms, server {} ms of processor time",
            median(taken.iter().map(|taken| taken.0).collect()),
            10 * median(taken.iter().map(|taken| taken.1).collect()),
            10 * median(taken.iter().map(|taken| taken.2).collect()),
        );
    }
}
