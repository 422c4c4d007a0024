//! Writing rows, and what becomes of those that a constraint refuses: a statement over many is made again with its halves,
//! until the rows at fault stand alone; rows that hold each other's unique values are taken out together and put in again.

use plimsoll_core::store::Outcome;

use super::{Apply, Job, Op};
use crate::source::write::{Aside, Place, RowError, Savepoint, Stopped, WriteKind, Written};

/// Rows of one call at most.
const MOST_ROWS: usize = 5_000;
/// Bytes of one call at most; one row comes whatever its size.
const MOST_BYTES: usize = 16 << 20;
/// How often rows that stand in each other's way are tried.
const ROUNDS: usize = 16;

/// Rows that were not written, and why.
pub(super) type Refused = Vec<(usize, RowError)>;

impl<K: WriteKind> Apply<'_, K> {
    /// Makes changes: what goes makes room for what comes.
    pub(super) fn put_all(&mut self, jobs: &[Job<'_>], todo: &[usize]) -> Outcome<Refused> {
        let of = |op: Op| -> Vec<usize> { todo.iter().copied().filter(|at| jobs[*at].op() == op).collect() };
        let mut refused = Refused::new();
        for op in [Op::Delete, Op::Update, Op::Insert] {
            self.put(jobs, op, &of(op), &mut refused)?;
        }
        self.contested(jobs, refused)
    }

    /// Makes changes of one sort.
    fn put(&mut self, jobs: &[Job<'_>], op: Op, list: &[usize], refused: &mut Refused) -> Outcome<()> {
        let mut parts = portions(jobs, list);
        parts.reverse();
        while let Some(part) = parts.pop() {
            self.reader.kind.savepoint(Savepoint::Set)?;
            match self.write_rows(jobs, op, part) {
                Ok(()) => self.reader.kind.savepoint(Savepoint::Release)?,
                Err(Stopped::Failed(failure)) => return Err(failure),
                Err(Stopped::At(place, error)) => {
                    self.reader.kind.savepoint(Savepoint::Release)?;
                    refused.extend(part.get(place).map(|at| (*at, error)));
                    parts.extend(part.get(place + 1..).filter(|rest| !rest.is_empty()));
                }
                Err(Stopped::Somewhere(error)) => {
                    self.give_back()?;
                    match part {
                        [one] => refused.push((*one, error)),
                        many => {
                            let (first, second) = many.split_at(many.len() / 2);
                            parts.extend([second, first]);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn write_rows(&mut self, jobs: &[Job<'_>], op: Op, part: &[usize]) -> Result<(), Stopped> {
        let (kind, table, write) = (&mut *self.reader.kind, self.reader.table, self.write);
        let rows: Vec<Written<'_>> = part.iter().map(|at| jobs[*at].written()).collect();
        match op {
            Op::Insert => kind.insert(table, write, &rows),
            Op::Update => kind.update(table, write, &rows),
            Op::Delete => {
                let places: Vec<&Place> = rows.iter().filter_map(|row| row.at).collect();
                kind.delete(table, write, &places)
            }
        }
    }

    /// Tries again what other rows kept out: they may have come, gone or changed since, or may wait for this one.
    fn contested(&mut self, jobs: &[Job<'_>], refused: Refused) -> Outcome<Refused> {
        let (mut waiting, mut refused): (Refused, Refused) =
            refused.into_iter().partition(|(_, error)| error.waits());
        for _ in 0..ROUNDS {
            let before = waiting.len();
            // From the other end: rows that refer to each other may stand in the wrong order.
            waiting.reverse();
            let mut again = Refused::new();
            for op in [Op::Delete, Op::Update, Op::Insert] {
                let of = |(at, _): &(usize, RowError)| (jobs[*at].op() == op).then_some(*at);
                let list: Vec<usize> = waiting.iter().filter_map(of).collect();
                self.put(jobs, op, &list, &mut again)?;
            }
            waiting = again;
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        let is_contested = |(at, error): &(usize, RowError)| error.is_unique() && jobs[*at].row.is_some();
        let (mut contested, others): (Refused, Refused) = waiting.into_iter().partition(is_contested);
        refused.extend(others);
        for _ in 0..ROUNDS {
            let updates = contested.iter().filter(|(at, _)| jobs[*at].op() == Op::Update).count();
            if contested.len() < 2 || updates == 0 {
                break;
            }
            let failed = self.exchange(jobs, &contested)?;
            if failed.is_empty() {
                contested.clear();
                break;
            }
            let (out, rest): (Refused, Refused) =
                contested.into_iter().partition(|(at, _)| failed.contains(at));
            refused.extend(out);
            contested = rest;
        }
        refused.extend(contested);
        Ok(refused)
    }

    /// Takes rows out that are to be changed, and puts them all in as they are to be. Answers which could not be, and has
    /// changed nothing then.
    fn exchange(&mut self, jobs: &[Job<'_>], contested: &Refused) -> Outcome<Vec<usize>> {
        self.reader.kind.savepoint(Savepoint::Set)?;
        let (mut failed, mut aside): (Vec<usize>, Vec<(usize, Aside)>) = (Vec::new(), Vec::new());
        let list = || contested.iter().map(|(at, _)| *at);
        for at in list().filter(|at| jobs[*at].op() == Op::Update) {
            let Some(found) = &jobs[at].found else { continue };
            let taken = self.one(|kind, table, write| kind.take_out(table, write, &found.at))?;
            match taken.flatten() {
                Some(taken) => aside.push((at, taken)),
                None => failed.push(at),
            }
        }
        if failed.is_empty() {
            for (at, aside) in &aside {
                let row = jobs[*at].written();
                let put = self.one(|kind, table, write| kind.put_back(table, write, &row, aside))?;
                failed.extend(put.is_none().then_some(*at));
            }
            for at in list().filter(|at| jobs[*at].op() == Op::Insert) {
                let row = jobs[at].written();
                let put = self.one(|kind, table, write| kind.insert(table, write, &[row]))?;
                failed.extend(put.is_none().then_some(at));
            }
        }
        match failed.is_empty() {
            true => self.reader.kind.savepoint(Savepoint::Release)?,
            false => self.give_back()?,
        }
        Ok(failed)
    }

    /// Writes one row, or not: `None`.
    fn one<T>(
        &mut self,
        write: impl FnOnce(&mut K, usize, &crate::source::write::WritePlan) -> Result<T, Stopped>,
    ) -> Outcome<Option<T>> {
        self.reader.kind.savepoint(Savepoint::Set)?;
        match write(self.reader.kind, self.reader.table, self.write) {
            Ok(done) => {
                self.reader.kind.savepoint(Savepoint::Release)?;
                Ok(Some(done))
            }
            Err(Stopped::Failed(failure)) => Err(failure),
            Err(Stopped::At(..) | Stopped::Somewhere(_)) => {
                self.give_back()?;
                Ok(None)
            }
        }
    }
}

/// A list in parts of so many rows and bytes as one call takes.
fn portions<'l>(jobs: &[Job<'_>], list: &'l [usize]) -> Vec<&'l [usize]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (place, at) in list.iter().enumerate() {
        let own = jobs[*at].bytes();
        if place > start && (place - start >= MOST_ROWS || bytes + own > MOST_BYTES) {
            parts.push(&list[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes += own;
    }
    if start < list.len() {
        parts.push(&list[start..]);
    }
    parts
}
