//! What a client with valid credentials of one database and any SQL tool may try, and must not bring about.
//!
//! | file | what lives there |
//! |---|---|
//! | `world` | the server under attack: two databases, their attackers, all that must stay as it is |
//! | `attempt` | one attempt: who, what, what must come of it; and the judge |
//! | `functions` | every function of the extension, called with the other database's id |
//! | `arguments` | casts, domains, overloads, shadows in `pg_temp` |
//! | `hostile_code`, `hostile_owner`, `spy` | code of an attacker's that runs within our functions |
//! | `relations` | what is passed as `relation` |
//! | `logins` | proofs: forged, replayed, moved; savepoints, roles |
//! | `sessions` | statements, cursors, runs that outlive a right; suspension under way |
//! | `maintenance` | what an admin does to a hostile table |
//! | `settings` | settings of ours and of Postgres |
//! | `uploads` | tenant columns in rows, bytes that lie |
//! | `names` | tables and columns whose names are traps |
//! | `errors` | reading through errors, views, plans |
//! | `protected` | a managed table that people read themselves, under policies of ours |
//! | `direct` | our tables, sequences, functions and types, without our functions |
//!
//! One server, one attempt after the other: after each, everything that is not the attacker's is compared with
//! what it was before, and nothing that the attacker was sent may hold a value of the other database.

mod arguments;
mod attempt;
mod direct;
mod errors;
mod functions;
mod hostile_code;
mod hostile_owner;
mod logins;
mod maintenance;
mod names;
mod protected;
mod relations;
mod sessions;
mod settings;
mod spy;
mod uploads;
mod world;

use attempt::Trials;

/// How many attempts there must be at least.
const ATTEMPTS: usize = 140;

#[test]
fn no_attempt_of_a_stranger_succeeds() {
    let mut trials = Trials::begin();
    for family in [
        functions::attack,
        arguments::attack,
        hostile_code::attack,
        hostile_owner::attack,
        relations::attack,
        logins::attack,
        sessions::attack,
        maintenance::attack,
        settings::attack,
        uploads::attack,
        names::attack,
        errors::attack,
        direct::attack,
        protected::attack,
    ] {
        family(&mut trials);
    }
    let attempts = trials.end();
    println!("{attempts} attempts");
    assert!(attempts >= ATTEMPTS, "{attempts} attempts");
}
