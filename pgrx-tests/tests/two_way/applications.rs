//! Applications that change people, on either side, and tell a ledger what they did.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use plimsoll_tests::{Agent, Finished, Kind, LocalDatabase, LocalSession, Running, Site};

use crate::ledger::{Ledger, Side};
use crate::pair::{people_in, table};

/// Keys are below this. Rows with an even one are never deleted.
const KEYS: i64 = 30;

/// People on one side, as statements of that side know them.
pub struct Place {
    side: Side,
    begin: &'static str,
    /// Condition on the tenant, and values of the tenant's columns.
    mine: String,
    tenant: String,
    lock: &'static str,
    stamp: &'static str,
}

/// A local database, its replica, and what was done to both.
pub struct World<'s> {
    pub site: &'s Site<'s>,
    pub agent: Agent,
    pub local: LocalDatabase,
    pub ledger: Ledger,
    pub here: Place,
    pub there: Place,
    policy: String,
}

impl<'s> World<'s> {
    /// Empty tables. `policy` is the table's.
    pub fn new(site: &'s Site<'s>, client_id: &str, local: LocalDatabase, policy: &str) -> Self {
        people_in(&local);
        let agent = site.agent_of(client_id, local.setting());
        agent.write_config(&table(&format!("policy = \"{policy}\"")));
        // More rows go and come here than are there, so that the guard holds some back at times, as it should: whoever makes the
        // last runs agrees. It has tests of its own.
        for (name, value) in [("guard_fraction", "1"), ("allow_agent_release", "true")] {
            let option = "SELECT plimsoll.set_option($1, $2, $3)";
            site.superuser().execute(option, &[&agent.registered.id, &name, &value]).expect("an option");
        }
        let kind = local.kind();
        let here = Place {
            side: Side::Here,
            begin: if kind == Kind::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" },
            mine: String::new(),
            tenant: String::new(),
            lock: if kind == Kind::Sqlite { "" } else { " FOR UPDATE" },
            stamp: match kind {
                Kind::Sqlite => "datetime(changed_at)",
                Kind::Postgres => "to_char(changed_at, 'YYYY-MM-DD HH24:MI:SS')",
                Kind::MariaDb => "DATE_FORMAT(changed_at, '%Y-%m-%d %H:%i:%s')",
            },
        };
        let id = agent.registered.id;
        let there = Place {
            side: Side::There,
            begin: "BEGIN",
            mine: format!("database_id = '{id}' AND "),
            tenant: format!("'{client_id}', '{id}', "),
            lock: " FOR UPDATE",
            stamp: "to_char(changed_at, 'YYYY-MM-DD HH24:MI:SS')",
        };
        World { site, agent, local, ledger: Ledger::default(), here, there, policy: policy.to_owned() }
    }

    /// A connection of an application of the server.
    pub fn connect_there(&self) -> LocalSession {
        let mut session = LocalSession::Postgres(self.site.owner());
        session.run("SET timezone = 'UTC'");
        session
    }

    /// Starts a run.
    pub fn start(&self) -> Running {
        self.agent.home.start(["sync", "--quiet", "--json"])
    }

    /// Makes so many runs as may be needed for what moved while it was decided upon, and one more that moves nothing; then
    /// all must hold that the ledger asks for.
    #[track_caller]
    pub fn settle(&mut self, most: u32) {
        self.agent.home.unset_env("PLIMSOLL_FAULT");
        let mut last = None;
        for _ in 0..most {
            let run = self.agent.home.run(["sync", "--quiet", "--json", "--allow-mass-delete"]);
            assert!(!run.stderr.contains("restored"), "nothing that was committed is lost: {run:?}");
            last = Some(run);
        }
        let quiet = self.agent.sync();
        assert_eq!(quiet.code, Some(0), "{quiet:?}, before it {last:?}");
        let moved = crate::pair::Pair::moved(plimsoll_tests::table_of(&quiet.json(), "people"));
        assert_eq!(moved, [], "a further run moves nothing; before it {last:?}");
        let (here, there) = (people(&mut self.local.connect(), &self.here), self.people_there());
        let numbers = |people: &BTreeMap<i64, Person>| -> BTreeMap<i64, usize> {
            people.iter().map(|(key, person)| (*key, person.number)).collect()
        };
        self.ledger.check(&self.policy, &numbers(&here), &numbers(&there), &self.records());
        for person in here.values().chain(there.values()) {
            assert_eq!(person.name, self.agent.client_id, "{person:?} is of somebody else");
        }
        for (person, other) in here.iter().filter_map(|(key, person)| Some((person, there.get(key)?))) {
            assert!(person == other || person.number != other.number, "{person:?} is {other:?} there");
        }
    }

    fn people_there(&self) -> BTreeMap<i64, Person> {
        people(&mut self.connect_there(), &self.there)
    }

    /// All conflicts that were ever recorded, with how often.
    fn records(&self) -> BTreeMap<(i64, Option<usize>, Option<usize>), u32> {
        let sql = "SELECT (key ->> 'id')::int8, local_row ->> 'phone', remote_row ->> 'phone' FROM plimsoll.conflicts
                   WHERE database_id = $1 AND kind = 'conflict'";
        let rows = self.site.superuser().query(sql, &[&self.agent.registered.id]).expect("records");
        let mut records = BTreeMap::new();
        for row in rows {
            let [ours, theirs] =
                [1, 2].map(|place| row.get::<_, Option<String>>(place).map(|text| number(&text)));
            *records.entry((row.get(0), ours, theirs)).or_default() += 1;
        }
        records
    }

    /// A person decides about one of the conflicts that are open, or about none.
    pub fn decide(&self, rng: &mut Rng) {
        let sql = "SELECT conflict_id, (key ->> 'id')::int8, local_row ->> 'phone', remote_row ->> 'phone'
                   FROM plimsoll.conflicts WHERE database_id = $1 AND kind = 'conflict' AND closed_at IS NULL
                   AND resolution IS NULL";
        let mut superuser = self.site.superuser();
        let open = superuser.query(sql, &[&self.agent.registered.id]).expect("records");
        let Some(row) = rng.choice(&open) else { return };
        let (keeps, given_up, place) =
            if rng.bool() { ("local", Side::There, 3) } else { ("remote", Side::Here, 2) };
        let lost = row.get::<_, Option<String>>(place).map(|text| number(&text));
        let decide = "SELECT plimsoll.resolve_conflict($1, $2)";
        // A run may have closed it meanwhile.
        if superuser.execute(decide, &[&row.get::<_, i64>(0), &keeps]).is_ok() {
            self.ledger.give_up(row.get(1), given_up, lost);
        }
    }
}

/// A run went on to its end, or said why it did not.
#[track_caller]
pub fn ended_well(finished: &Finished) {
    assert!(matches!(finished.code, None | Some(0..=2)), "{finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
}

#[derive(Debug, PartialEq, Eq)]
struct Person {
    number: usize,
    name: String,
    stamp: String,
}

fn number(phone: &str) -> usize {
    phone.parse().unwrap_or_else(|_| panic!("{phone} is the number of no change"))
}

fn people(session: &mut LocalSession, place: &Place) -> BTreeMap<i64, Person> {
    let sql = format!("SELECT id, phone, name, {} FROM people WHERE {}id >= 0", place.stamp, place.mine);
    let person = |row: Vec<Option<String>>| {
        let [id, phone, name, stamp] = row.try_into().expect("four columns");
        let of = |text: Option<String>| text.expect("a value");
        let person = Person { number: number(&of(phone)), name: of(name), stamp: of(stamp) };
        (of(id).parse().expect("an id"), person)
    };
    session.rows(&sql).into_iter().map(person).collect()
}

/// A transaction of an application: changes of one row each, which it made having seen what is there. Whatever is refused
/// (a lock that took too long, a deadlock, a row that came meanwhile) nobody changed.
pub fn transact(session: &mut LocalSession, rng: &mut Rng, changes: &[(&Place, &Ledger, &str)]) -> bool {
    let mut noted = Vec::new();
    let mut outcome = session.attempt(changes[0].0.begin);
    for (place, ledger, name) in changes {
        if outcome.is_ok() {
            outcome = change(session, rng, place, ledger, name, &mut noted);
        }
    }
    let outcome = outcome.and_then(|()| session.attempt("COMMIT"));
    if outcome.is_err() {
        noted.iter().for_each(|(ledger, number)| ledger.strike(*number));
        let _ = session.attempt("ROLLBACK");
    }
    outcome.is_ok()
}

/// Changes some row: stores it, deletes it, or gives it another key.
fn change<'l>(
    session: &mut LocalSession,
    rng: &mut Rng,
    place: &Place,
    ledger: &'l Ledger,
    name: &str,
    noted: &mut Vec<(&'l Ledger, usize)>,
) -> Result<(), String> {
    let key = rng.i64(0..KEYS);
    let what = if key % 2 == 1 { rng.u8(..8) } else { 7 };
    let saw = see(session, place, key)?;
    let mine = &place.mine;
    let (goes, other) = match (what, saw) {
        (0..2, None) => return Ok(()),
        (0..2, Some(saw)) => (Some(saw), None),
        (2, Some(saw)) => {
            let other = rng.i64(0..KEYS / 2) * 2 + 1;
            match see(session, place, other)? {
                // Somebody has that key.
                Some(_) => return Ok(()),
                None => (Some(saw), Some(other)),
            }
        }
        _ => (None, None),
    };
    let mut note = |number| noted.push((ledger, number));
    if let Some(saw) = goes {
        note(ledger.note_delete(key, place.side, saw));
        let Some(other) = other else {
            return session.attempt(&format!("DELETE FROM people WHERE {mine}id = {key}"));
        };
        let (number, stamp) = ledger.note(other, place.side, None, rng);
        note(number);
        let set = set(name, number, stamp);
        return session.attempt(&format!("UPDATE people SET id = {other}, {set} WHERE {mine}id = {key}"));
    }
    let (number, stamp) = ledger.note(key, place.side, saw, rng);
    note(number);
    session.attempt(&match saw {
        Some(_) => {
            format!("UPDATE people SET {} WHERE {mine}id = {key}", set(name, number, stamp))
        }
        None => {
            let tenant = &place.tenant;
            format!(
                "INSERT INTO people VALUES ({tenant}{key}, '{name}', '{number}', NULL, '{}')",
                shown(stamp)
            )
        }
    })
}

fn see(session: &mut LocalSession, place: &Place, key: i64) -> Result<Option<usize>, String> {
    let sql = format!("SELECT phone FROM people WHERE {}id = {key}{}", place.mine, place.lock);
    let rows = session.attempt_rows(&sql)?;
    Ok(rows.first().map(|row| number(row[0].as_deref().expect("a phone"))))
}

fn set(name: &str, number: usize, stamp: i64) -> String {
    format!("name = '{name}', phone = '{number}', changed_at = '{}'", shown(stamp))
}

/// A stamp of the first hours of a year that is long over.
fn shown(stamp: i64) -> String {
    format!("2024-01-01 {:02}:{:02}:{:02}", stamp / 3_600, stamp / 60 % 60, stamp % 60)
}

/// A little while, in which a run of this size does some of its steps.
pub fn a_while(rng: &mut Rng) {
    std::thread::sleep(Duration::from_millis(rng.u64(0..60)));
}
