//! Random histories: both sides are edited, also while a run is under way, and the client dies at points between any two
//! steps. Then both sides must be equal, and no edit gone that was not beaten by one made without knowledge of it.
//! `PLIMSOLL_SEED` replays a history, `PLIMSOLL_HISTORIES` says how many are made of each policy.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use plimsoll_tests::faulty_client;
use rusqlite::{OptionalExtension, TransactionBehavior};

use crate::pair::{Pair, site};

/// The points at which the client dies, with how often a run of this size passes them at most.
const POINTS: [(&str, u32); 10] = [
    ("before-two-way-begin", 1),
    ("after-two-way-begin", 1),
    ("two-way-prepared", 3),
    ("before-apply", 3),
    ("after-apply", 3),
    ("two-way-before-conclusion", 3),
    ("two-way-concluding", 3),
    ("two-way-concluded", 3),
    ("committed", 12),
    ("before-end", 1),
];

const KEYS: i64 = 30;
const ROUNDS: u32 = 7;
/// Runs after which all must be settled: one more may be needed for what moved while it was decided upon.
const LAST_RUNS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Here,
    There,
}

/// An edit: what its phone number says, whose it is, what its maker saw, and its stamp.
#[derive(Debug, Clone)]
struct Edit {
    key: i64,
    side: Side,
    parent: Option<usize>,
    stamp: i64,
}

struct History<'s> {
    pair: Pair<'s>,
    rng: Rng,
    edits: Vec<Edit>,
}

/// A number of an edit as it is in the row; nothing where the row is not there.
fn number(phone: Option<String>) -> Option<usize> {
    phone.map(|phone| phone.parse().expect("a number of an edit"))
}

impl History<'_> {
    fn note(&mut self, key: i64, side: Side, parent: Option<usize>) -> (usize, i64) {
        let before = parent.map_or(0, |parent| self.edits[parent].stamp);
        let stamp = before + self.rng.i64(1..4);
        self.edits.push(Edit { key, side, parent, stamp });
        (self.edits.len() - 1, stamp)
    }

    /// Somebody changes a row of a side, having seen what is there. Rows with an odd key are deleted too.
    fn edit(&mut self) {
        let key = self.rng.i64(0..KEYS);
        let deletes = key % 2 == 1 && self.rng.u8(..4) == 0;
        if self.rng.bool() {
            let mut local = self.pair.agent.local();
            let transaction = local.transaction_with_behavior(TransactionBehavior::Immediate).expect("begun");
            if deletes {
                transaction.execute("DELETE FROM people WHERE id = ?", [key]).expect("deleted");
            } else {
                let sql = "SELECT phone FROM people WHERE id = ?";
                let seen = transaction.query_row(sql, [key], |row| row.get(0)).optional().expect("a row");
                let (edit, stamp) = self.note(key, Side::Here, number(seen));
                let sql = "INSERT OR REPLACE INTO people
                           VALUES (?, 'here', ?, NULL, datetime(1704067200 + ?, 'unixepoch'))";
                transaction.execute(sql, (key, edit.to_string(), stamp)).expect("stored");
            }
            transaction.commit().expect("committed");
        } else {
            let (client, database) = (self.pair.agent.client_id.clone(), self.pair.agent.registered.id);
            let mut owner = self.pair.site.owner();
            let mut transaction = owner.transaction().expect("begun");
            let id = i32::try_from(key).expect("a key");
            if deletes {
                let sql = "DELETE FROM people WHERE database_id = $1 AND id = $2";
                transaction.execute(sql, &[&database, &id]).expect("deleted");
            } else {
                let sql = "SELECT phone FROM people WHERE database_id = $1 AND id = $2 FOR UPDATE";
                let seen =
                    transaction.query_opt(sql, &[&database, &id]).expect("a row").map(|row| row.get(0));
                let was_there = seen.is_some();
                let (edit, stamp) = self.note(key, Side::There, number(seen));
                let sql = match was_there {
                    true => {
                        "UPDATE people SET name = 'there', phone = $4, changed_at = to_timestamp($5)
                             WHERE client_id = $1 AND database_id = $2 AND id = $3"
                    }
                    false => "INSERT INTO people VALUES ($1, $2, $3, 'there', $4, NULL, to_timestamp($5))",
                };
                let stamp = (1_704_067_200 + stamp) as f64;
                let values: [&(dyn postgres::types::ToSql + Sync); 5] =
                    [&client, &database, &id, &edit.to_string(), &stamp];
                match transaction.execute(sql, &values) {
                    // A run put a row there meanwhile: nobody made this edit.
                    Err(error) if error.code().is_some_and(|code| code.code() == "23505") => {
                        self.edits.pop();
                        return;
                    }
                    done => drop(done.expect("stored")),
                }
            }
            transaction.commit().expect("committed");
        }
    }

    fn known_to(&self, edit: usize) -> BTreeSet<usize> {
        std::iter::successors(Some(edit), |edit| self.edits[*edit].parent).collect()
    }

    /// A round: edits, and a run in which the client may die.
    fn round(&mut self, deaths: &mut u32) {
        for _ in 0..self.rng.u32(0..8) {
            self.edit();
        }
        let dies = self.rng.u8(..3) > 0;
        let (point, most) = POINTS[self.rng.usize(..POINTS.len())];
        match dies {
            true => {
                let time = self.rng.u32(1..=most);
                self.pair.agent.home.set_env("PLIMSOLL_FAULT", &format!("{point}:{time}"));
            }
            false => self.pair.agent.home.unset_env("PLIMSOLL_FAULT"),
        }
        let running = self.pair.agent.home.start(["sync", "--quiet", "--json"]);
        for _ in 0..self.rng.u32(0..4) {
            std::thread::sleep(Duration::from_millis(self.rng.u64(0..60)));
            self.edit();
        }
        let finished = running.wait(Duration::from_secs(120));
        match finished.code {
            None => *deaths += 1,
            Some(0 | 1) => {}
            Some(_) => panic!("{finished:?}"),
        }
        // Who died holds its lease still, and another agent would have to wait for it.
        if finished.code.is_some() && self.rng.u8(..6) == 0 {
            let _ = std::fs::remove_file(self.pair.agent.home.path("plimsoll.state.json"));
        }
    }

    /// What must hold at the end.
    fn check(&mut self, policy: &str) {
        let of = |people: Vec<crate::pair::Person>| {
            people.into_iter().map(|person| (person.0, number(person.2).expect("a number"))).collect()
        };
        let here: BTreeMap<i64, usize> = of(self.pair.people_here());
        let there: BTreeMap<i64, usize> = of(self.pair.people_there());
        let recorded = self.records();
        for key in 0..KEYS {
            let (ours, theirs) = (here.get(&key).copied(), there.get(&key).copied());
            if ours != theirs {
                assert_eq!(policy, "ask", "{key} differs: {ours:?}, {theirs:?}");
                assert!(
                    recorded.contains_key(&(key, ours, theirs)),
                    "{key}: {ours:?} and {theirs:?} are not recorded"
                );
            }
            if key % 2 == 1 {
                continue;
            }
            // Never deleted: what is gone was built upon, or is beaten.
            let left: Vec<BTreeSet<usize>> =
                [ours, theirs].into_iter().flatten().map(|edit| self.known_to(edit)).collect();
            let parents: BTreeSet<usize> = self.edits.iter().filter_map(|edit| edit.parent).collect();
            let own = (0..self.edits.len()).filter(|edit| self.edits[*edit].key == key);
            for lost in own.filter(|edit| !parents.contains(edit)) {
                if left.iter().any(|known| known.contains(&lost)) {
                    continue;
                }
                let known_to_lost = self.known_to(lost);
                let beats = |by: &usize| match policy {
                    "newest" => self.edits[*by].stamp >= self.edits[lost].stamp,
                    "local" => self.edits[*by].side == Side::Here && self.edits[lost].side == Side::There,
                    "remote" => self.edits[*by].side == Side::There && self.edits[lost].side == Side::Here,
                    _ => false,
                };
                let is_beaten = left.iter().flatten().filter(|edit| !known_to_lost.contains(edit)).any(beats);
                assert!(is_beaten, "{key}: edit {lost} {:?} is gone, left are {left:?}", self.edits[lost]);
            }
        }
        for ((key, ours, theirs), times) in recorded {
            assert_eq!(times, 1, "{key}: {ours:?} and {theirs:?} are recorded more than once");
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                let apart = !self.known_to(ours).contains(&theirs) && !self.known_to(theirs).contains(&ours);
                assert!(apart, "{key}: a false conflict of {ours} and {theirs}");
            }
        }
    }

    /// All conflicts that were ever recorded, with how often.
    fn records(&self) -> BTreeMap<(i64, Option<usize>, Option<usize>), u32> {
        let sql = "SELECT (key ->> 'id')::int8, local_row ->> 'phone', remote_row ->> 'phone' FROM plimsoll.conflicts
                   WHERE database_id = $1 AND kind = 'conflict'";
        let rows = self.pair.site.superuser().query(sql, &[&self.pair.agent.registered.id]).expect("records");
        let mut records = BTreeMap::new();
        for row in rows {
            *records.entry((row.get(0), number(row.get(1)), number(row.get(2)))).or_default() += 1;
        }
        records
    }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn both_sides_end_equal_wherever_the_client_dies() {
    let client = faulty_client();
    let site = site();
    let first = env("PLIMSOLL_SEED");
    let histories = if first.is_some() { 1 } else { env("PLIMSOLL_HISTORIES").unwrap_or(3) };
    let mut deaths = 0;
    for at in 0..histories {
        for policy in ["newest", "local", "remote", "ask"] {
            let seed = first.unwrap_or_else(|| fastrand::u64(..));
            println!("PLIMSOLL_SEED={seed} under {policy}");
            let mut pair = Pair::new(&site, &format!("{policy}{at}"), &format!("policy = \"{policy}\""));
            pair.agent.home.set_binary(client.clone());
            let mut history = History { pair, rng: Rng::with_seed(seed), edits: Vec::new() };
            for _ in 0..ROUNDS {
                history.round(&mut deaths);
            }
            history.pair.agent.home.unset_env("PLIMSOLL_FAULT");
            for _ in 0..LAST_RUNS {
                history.pair.agent.home.run(["sync", "--quiet", "--allow-mass-delete"]);
            }
            assert_eq!(Pair::moved(&history.pair.sync()), [], "a further run moves nothing");
            history.check(policy);
        }
    }
    assert!(first.is_some() || deaths > 0, "nobody died");
}
