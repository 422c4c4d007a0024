//! Batches at random against a simple model of what they must do, with applications at work between them.

use std::collections::BTreeMap;

use plimsoll_core::store::{Applied, Settled};

use crate::till::{Contact, Till};

/// `PLIMSOLL_SEED=n` plays one game again.
fn seed() -> u64 {
    match std::env::var("PLIMSOLL_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => fastrand::u64(..),
    }
}

const KEYS: i64 = 40;

struct Game {
    till: Till,
    rows: BTreeMap<i64, Contact>,
    random: fastrand::Rng,
}

impl Game {
    fn contact(&mut self, id: i64) -> Contact {
        let phone = self.random.bool().then(|| format!("p{}", self.random.u8(..4)));
        // Now and then one that a constraint refuses.
        let rank = self.random.bool().then(|| self.random.i64(-1..8));
        (id, phone, rank.filter(|rank| *rank != 0), self.random.i64(1..6))
    }

    /// What an application does: a valid row or none.
    fn edit(&mut self) {
        let id = self.random.i64(1..=KEYS);
        let mut row = self.contact(id);
        row.2 = row.2.map(i64::abs);
        if self.random.u8(..4) == 0 {
            self.till.edit(&format!("DELETE FROM shop.contact WHERE id = {id}"));
            self.rows.remove(&id);
        } else {
            self.till.put(&row);
            self.rows.insert(id, row);
        }
    }

    /// A row that may or may not be what is there.
    fn guess(&mut self, id: i64) -> Option<Contact> {
        match self.random.u8(..8) {
            0 => None,
            1 => Some(self.contact(id)),
            _ => self.rows.get(&id).cloned(),
        }
    }

    fn batch(&mut self) {
        let mut ids: Vec<i64> = (1..=KEYS).collect();
        self.random.shuffle(&mut ids);
        ids.truncate(self.random.usize(0..20));
        let (mut acts, mut expected, mut rows) = (Vec::new(), Vec::new(), self.rows.clone());
        for id in ids {
            let (now, guess, to) = (self.rows.get(&id).cloned(), self.guess(id), self.contact(id));
            match (self.random.u8(..3), guess) {
                (0, Some(guess)) => {
                    acts.push(self.till.delete(&guess));
                    expected.push(match now {
                        None => Some(Applied::Done),
                        Some(now) if now == guess => {
                            rows.remove(&id);
                            Some(Applied::Done)
                        }
                        Some(_) => Some(Applied::Changed),
                    });
                }
                (_, guess) => {
                    acts.push(self.till.upsert(&to, guess.as_ref()));
                    expected.push(match now == Some(to.clone()) {
                        true => Some(Applied::Done),
                        false if now != guess => Some(Applied::Changed),
                        // `None`: refused by the constraint.
                        false if to.2 == Some(-1) => None,
                        false => {
                            rows.insert(id, to);
                            Some(Applied::Done)
                        }
                    });
                }
            }
        }
        let number = self.till.number();
        let applied = self.till.try_apply(number, &acts, 0).expect("a batch");
        assert_eq!(applied.len(), expected.len());
        for (applied, expected) in applied.iter().zip(&expected) {
            match expected {
                Some(expected) => assert_eq!(applied, expected),
                None => assert!(matches!(applied, Applied::Refused { waits: false, .. }), "{applied:?}"),
            }
        }
        self.rows = rows;
        if self.random.bool() {
            self.edit();
            assert_eq!(self.till.try_apply(number, &acts, 0).expect("from memory"), applied);
        }
        if self.random.u8(..4) == 0 {
            self.till.begin();
            let done = applied.iter().map(|applied| *applied == Applied::Done).collect();
            assert_eq!(self.till.settle(number), Ok(Settled::Applied(done)));
        }
    }
}

#[test]
fn batches_at_random_do_what_a_model_says() {
    let seed = seed();
    println!("PLIMSOLL_SEED={seed}");
    let till = Till::open();
    let mut game = Game { till, rows: BTreeMap::new(), random: fastrand::Rng::with_seed(seed) };
    for round in 0..60 {
        for _ in 0..game.random.u8(..5) {
            game.edit();
        }
        game.batch();
        let rows: Vec<Contact> = game.rows.values().cloned().collect();
        assert_eq!(game.till.rows(), rows, "seed {seed}, round {round}");
    }
    game.till.assert_kept();
}
