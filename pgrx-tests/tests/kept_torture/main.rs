//! Tries to make the kept manifest wrong: by random statements of several sessions, by kills while blocks are
//! split, by changes of the catalogue, by a hundred thousand rows at one position; and tries to make applications
//! wait for it.
//!
//! `PLIMSOLL_SEED` replays a seed, `PLIMSOLL_STATEMENTS` sets how many random statements are made,
//! `PLIMSOLL_SECONDS` for how long sessions are watched and the server is killed, `PLIMSOLL_CROWD` how many rows
//! share a position, `PLIMSOLL_EVENT` which changes of the catalogue are tried (part of their name).

mod apply;
mod calls;
mod catalogue;
mod crowded;
mod events;
mod judge;
mod kills;
mod races;
mod random;
mod session;
mod statements;
mod values;
mod waits;
mod world;

/// The seed given, or a new one; printed, so that a failure can be replayed.
fn seed() -> u64 {
    let given = std::env::var("PLIMSOLL_SEED").ok();
    let seed =
        given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("PLIMSOLL_SEED is a number"));
    println!("PLIMSOLL_SEED={seed}");
    seed
}

/// A number from the environment.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
