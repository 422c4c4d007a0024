//! One attempt, and the judge of all.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::world::{Refusal, Rows, Session, Snapshot, Who, World};

/// What must come of an attempt.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// It is refused with one of these SQLSTATEs.
    Refused(&'static [&'static str]),
    /// It is refused with this SQLSTATE, and says so.
    Says(&'static str, &'static str),
    /// It goes well and answers no row.
    Nothing,
    /// It goes well and answers this as its only value.
    Answer(&'static str),
}

/// Not yours, or no such thing.
pub const DENIED: Expect = Expect::Refused(&["42501"]);

/// An attempt in SQL. `{A}` and `{B}` are the ids of the databases; see [`World::filled`].
pub struct Attempt {
    pub name: &'static str,
    pub who: Who,
    /// What the attacker prepares; it must go well.
    pub before: &'static str,
    pub attack: &'static str,
    pub expect: Expect,
}

/// An attempt that needs no preparation.
pub const fn by(who: Who, name: &'static str, attack: &'static str, expect: Expect) -> Attempt {
    Attempt { name, who, before: "", attack, expect }
}

/// An attempt of the maker, who prepares something.
pub const fn made(name: &'static str, before: &'static str, attack: &'static str, expect: Expect) -> Attempt {
    Attempt { name, who: Who::Maker, before, attack, expect }
}

/// What went wrong, where something did.
pub type Outcome = Result<(), String>;

/// All attempts: their names, and those that did harm.
pub struct Trials {
    pub world: World,
    names: BTreeSet<String>,
    before: Snapshot,
    harm: Vec<String>,
}

impl Trials {
    pub fn begin() -> Self {
        let mut world = World::open();
        let before = world.snapshot();
        Trials { world, names: BTreeSet::new(), before, harm: Vec::new() }
    }

    /// How many attempts there were; fails where one did harm.
    pub fn end(self) -> usize {
        let log = std::fs::read_to_string(self.world.server.log_path()).expect("the server's log");
        let crashes: Vec<&str> =
            log.lines().filter(|line| line.contains("was terminated by signal")).collect();
        assert!(crashes.is_empty(), "a backend crashed: {crashes:?}");
        let panics: Vec<&str> = log.lines().filter(|line| line.contains("panicked at")).collect();
        assert!(panics.is_empty(), "{panics:?}");
        assert!(self.harm.is_empty(), "{} attempts did harm:\n{}", self.harm.len(), self.harm.join("\n\n"));
        self.names.len()
    }

    /// Takes what there is now for what must stay: an admin changed something.
    pub fn settle(&mut self) {
        self.before = self.world.snapshot();
    }

    /// Attempts in SQL, one after the other.
    pub fn all(&mut self, attempts: &[Attempt]) {
        // Postgres 14 has no MERGE.
        let has_merge = self.world.server.major() >= 15;
        for attempt in attempts.iter().filter(|attempt| has_merge || !attempt.attack.contains("MERGE INTO")) {
            self.one(attempt.name, |world| attempt.run(world));
        }
    }

    /// An attempt after which nothing may be other than before.
    pub fn one(&mut self, name: &str, attack: impl FnOnce(&mut World) -> Outcome) {
        self.touching(name, &[], attack);
    }

    /// An attempt that may change these parts of the snapshot: what is the attacker's own.
    pub fn touching(&mut self, name: &str, parts: &[&str], attack: impl FnOnce(&mut World) -> Outcome) {
        assert!(self.names.insert(name.to_owned()), "two attempts are called {name:?}");
        let outcome = catch_unwind(AssertUnwindSafe(|| attack(&mut self.world)));
        let outcome = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default())
        });
        self.world.reset_maker();
        let mut wrong: Vec<String> = outcome.err().into_iter().collect();
        wrong.extend(self.world.leaked().map(|text| format!("the attacker was sent {text}")));
        let after = self.world.snapshot();
        let all: BTreeSet<&String> = self.before.keys().chain(after.keys()).collect();
        let changed = all.into_iter().filter(|part| self.before.get(*part) != after.get(*part));
        wrong.extend(
            changed.filter(|part| !parts.contains(&part.as_str())).map(|part| format!("changed: {part}")),
        );
        if !wrong.is_empty() {
            self.harm.push(format!("{name}: {}", wrong.join("; ")));
        }
        if parts.contains(&"A's rows") {
            self.world.stock_a();
            self.settle();
        } else {
            self.before = after;
        }
    }
}

impl Attempt {
    fn run(&self, world: &mut World) -> Outcome {
        let (before, attack) = (world.filled(self.before), world.filled(self.attack));
        let mut session = world.connect(self.who);
        if self.who == Who::Shared {
            session.log_in(&world.a);
        }
        if !before.is_empty() {
            session.must(&before);
        }
        let outcome = session.run(&attack);
        if self.who == Who::Shared && outcome.is_ok() {
            session.must("COMMIT");
        }
        judged(&outcome, self.expect)
    }
}

/// Whether a statement ended as it must.
pub fn judged(outcome: &Result<Rows, Refusal>, expect: Expect) -> Outcome {
    let as_expected = match (outcome, expect) {
        (Err(refusal), Expect::Refused(states)) => states.contains(&refusal.sqlstate.as_str()),
        (Err(refusal), Expect::Says(state, words)) => {
            refusal.sqlstate == state && refusal.text.contains(words)
        }
        (Ok(rows), Expect::Nothing) => rows.is_empty(),
        (Ok(rows), Expect::Answer(value)) => {
            matches!(rows.as_slice(), [row] if row.first().and_then(Option::as_deref) == Some(value))
        }
        _ => false,
    };
    if as_expected { Ok(()) } else { Err(format!("{expect:?} was expected, not {outcome:?}")) }
}

/// Runs a statement of a session that must end so.
pub fn expect(session: &mut Session, sql: &str, expect: Expect) -> Outcome {
    judged(&session.run(sql), expect).map_err(|wrong| format!("{sql}: {wrong}"))
}
