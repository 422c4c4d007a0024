//! Reads ahead: while a batch is on its way to the server, the next one is read, on a thread of its own.
//!
//! What was read ahead is as old as the call before; the algorithm looks at each of its steps as at a
//! snapshot of its own and needs no more. Anything else than the next batch or window is read when asked.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    BatchLimit, Cursor, Failure, FailureKind, Outcome, PositionRange, RangeHeld, Source, SourceBatch,
    SourceKey, SourceRecord, SourceRow, SourceWindow, TableId,
};

/// Batches of so many rows have nearly grown as large as they will: no more rows are read ahead than that.
const LARGE_BATCH: usize = 50_000;

type Job = Box<dyn FnOnce(&mut dyn Source) + Send>;

/// What is being read ahead: which call it answers, and where the answer will be.
struct Pending<Q, A> {
    question: Q,
    answer: Receiver<Outcome<A>>,
}

/// The batch after this row of a table.
type BatchQuestion = (TableId, Cursor);
/// The window from this position of a table on.
type WindowQuestion = (TableId, PositionRange);

/// A source whose next batch or window is read while the last one is dealt with.
pub struct ReadAhead {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    batch: Option<Pending<BatchQuestion, SourceBatch>>,
    window: Option<Pending<WindowQuestion, SourceWindow>>,
    /// Where the last window ended: a second one in a row says that more are to come.
    last_window: Option<(TableId, Option<i64>)>,
}

fn gone<E>(_: E) -> Failure {
    Failure::new(FailureKind::Run, "the reader of the local database ended unexpectedly")
}

impl ReadAhead {
    /// Moves the source to a thread of its own.
    ///
    /// # Errors
    /// `Run` where the system starts no thread.
    pub fn new(mut source: Box<dyn Source + Send>) -> Outcome<Self> {
        let (jobs, queue) = channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("source".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job(source.as_mut())))
            .map_err(|error| Failure::new(FailureKind::Run, format!("no thread for the source: {error}")))?;
        Ok(ReadAhead { jobs: Some(jobs), thread: Some(thread), batch: None, window: None, last_window: None })
    }

    fn start<A: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Source) -> Outcome<A> + Send + 'static,
    ) -> Outcome<Receiver<Outcome<A>>> {
        let (sender, answer) = channel();
        let jobs = self.jobs.as_ref().ok_or_else(|| gone(()))?;
        // An answer that nobody waits for any more is dropped.
        jobs.send(Box::new(move |source| drop(sender.send(work(source))))).map_err(gone)?;
        Ok(answer)
    }

    /// What was read ahead is of another snapshot.
    fn forget(&mut self) {
        (self.batch, self.window, self.last_window) = (None, None, None);
    }

    fn ask<A: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Source) -> Outcome<A> + Send + 'static,
    ) -> Outcome<A> {
        self.start(work)?.recv().map_err(gone)?
    }
}

/// The answer that was read ahead, where it is one to this question and reading went well.
fn take<Q: PartialEq, A>(pending: &mut Option<Pending<Q, A>>, question: &Q) -> Option<A> {
    let pending = pending.take().filter(|pending| pending.question == *question)?;
    pending.answer.recv().ok()?.ok()
}

impl Source for ReadAhead {
    fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
        self.ask(|source| source.change_token())
    }

    fn max_position(&mut self, table: TableId) -> Outcome<Option<i64>> {
        self.ask(move |source| source.max_position(table))
    }

    fn row_count(&mut self, table: TableId) -> Outcome<u64> {
        self.ask(move |source| source.row_count(table))
    }

    fn tail_start(&mut self, table: TableId, upto: i64, rows: u64) -> Outcome<Option<i64>> {
        self.ask(move |source| source.tail_start(table, upto, rows))
    }

    fn settled(&mut self, table: TableId) -> Outcome<Option<i64>> {
        self.ask(move |source| source.settled(table))
    }

    fn is_scanned(&mut self, table: TableId) -> Outcome<bool> {
        self.ask(move |source| source.is_scanned(table))
    }

    fn kept(&mut self, table: TableId) -> Outcome<Option<Fingerprint>> {
        self.ask(move |source| source.kept(table))
    }

    fn kept_ranges(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Option<Vec<Fingerprint>>> {
        let ranges = ranges.to_vec();
        self.ask(move |source| source.kept_ranges(table, &ranges))
    }

    fn read_batch(
        &mut self,
        table: TableId,
        after: Option<&Cursor>,
        limit: BatchLimit,
    ) -> Outcome<SourceBatch> {
        let after = after.cloned();
        let ahead = after.as_ref().and_then(|after| take(&mut self.batch, &(table, after.clone())));
        let batch = match ahead {
            Some(batch) => batch,
            None => self.ask(move |source| source.read_batch(table, after.as_ref(), limit))?,
        };
        if let Some(next) = batch.next.clone() {
            let question = (table, next.clone());
            // The next batch may be up to twice as large. Where it is not, it is sent in two pieces.
            let rows = if limit.rows < LARGE_BATCH { limit.rows * 2 } else { limit.rows };
            let limit = BatchLimit { rows, ..limit };
            let answer = self.start(move |source| source.read_batch(table, Some(&next), limit))?;
            self.batch = Some(Pending { question, answer });
        }
        Ok(batch)
    }

    fn window(&mut self, table: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
        let follows = range.from.is_some() && self.last_window == Some((table, range.from));
        let window = match take(&mut self.window, &(table, range)) {
            Some(window) => window,
            None => self.ask(move |source| source.window(table, range, rows))?,
        };
        self.last_window = Some((table, window.range.to));
        if follows && window.range.to.is_some() && window.range.to != range.to {
            let next = PositionRange { from: window.range.to, to: range.to };
            let answer = self.start(move |source| source.window(table, next, rows))?;
            self.window = Some(Pending { question: (table, next), answer });
        }
        Ok(window)
    }

    fn windows(&mut self, table: TableId, ranges: &[PositionRange], rows: u64) -> Outcome<Vec<SourceWindow>> {
        let ranges = ranges.to_vec();
        self.ask(move |source| source.windows(table, &ranges, rows))
    }

    fn fingerprints(&mut self, table: TableId, ranges: &[PositionRange]) -> Outcome<Vec<RangeHeld>> {
        let ranges = ranges.to_vec();
        self.ask(move |source| source.fingerprints(table, &ranges))
    }

    fn rows_of(&mut self, table: TableId, items: &[Item]) -> Outcome<Vec<SourceRow>> {
        let items = items.to_vec();
        self.ask(move |source| source.rows_of(table, &items))
    }

    fn lookup(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
        let keys = keys.to_vec();
        self.ask(move |source| source.lookup(table, &keys))
    }

    fn sharing(&mut self, table: TableId, keys: &[SourceKey]) -> Outcome<Vec<SourceRecord>> {
        let keys = keys.to_vec();
        self.ask(move |source| source.sharing(table, &keys))
    }

    fn hold(&mut self) -> Outcome<()> {
        self.forget();
        self.ask(|source| source.hold())
    }

    fn let_go(&mut self) {
        self.forget();
        // Where the reader is gone, so is its snapshot.
        let _ = self.ask(|source| {
            source.let_go();
            Ok(())
        });
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        // The thread ends when there are no more jobs.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so; its calls failed.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source of positions 0, 1, 2..., that notes what it was asked.
    #[derive(Default)]
    struct Counting {
        asked: Vec<Option<i64>>,
        fail_at: Option<usize>,
    }

    impl Source for Counting {
        fn change_token(&mut self) -> Outcome<Option<Vec<u8>>> {
            Ok(None)
        }
        fn max_position(&mut self, _: TableId) -> Outcome<Option<i64>> {
            Ok(Some(self.asked.len() as i64))
        }
        fn row_count(&mut self, _: TableId) -> Outcome<u64> {
            Ok(self.asked.len() as u64)
        }
        fn tail_start(&mut self, _: TableId, _: i64, _: u64) -> Outcome<Option<i64>> {
            Ok(None)
        }
        fn read_batch(&mut self, _: TableId, after: Option<&Cursor>, _: BatchLimit) -> Outcome<SourceBatch> {
            let after = after.map(|cursor| cursor.position);
            self.asked.push(after);
            if self.fail_at == Some(self.asked.len()) {
                return Err(Failure::new(FailureKind::Passing, "locked"));
            }
            let position = after.unwrap_or(0) + 1;
            let next = (position < 5).then_some(Cursor { position, key: None });
            Ok(SourceBatch { records: Vec::new(), next })
        }
        fn window(&mut self, _: TableId, range: PositionRange, rows: u64) -> Outcome<SourceWindow> {
            self.asked.push(range.from);
            let to = range.from.unwrap_or(0) + rows as i64;
            Ok(SourceWindow { range: PositionRange { from: range.from, to: Some(to) }, ..Default::default() })
        }
        fn rows_of(&mut self, _: TableId, _: &[Item]) -> Outcome<Vec<SourceRow>> {
            Ok(Vec::new())
        }
        fn lookup(&mut self, _: TableId, _: &[SourceKey]) -> Outcome<Vec<Option<SourceRecord>>> {
            Ok(Vec::new())
        }
    }

    const LIMIT: BatchLimit = BatchLimit { rows: 1, bytes: 1 };

    fn read_all(source: &mut ReadAhead) -> Vec<Outcome<Option<i64>>> {
        let (mut cursor, mut seen) = (None, Vec::new());
        loop {
            let batch = source.read_batch(0, cursor.as_ref(), LIMIT);
            seen.push(batch.clone().map(|batch| batch.next.map(|next| next.position)));
            match batch.map(|batch| batch.next) {
                Ok(Some(next)) => cursor = Some(next),
                _ => return seen,
            }
        }
    }

    #[test]
    fn each_batch_is_read_once_and_in_order() {
        let mut source = ReadAhead::new(Box::new(Counting::default())).expect("a thread");
        let seen = read_all(&mut source);
        assert_eq!(seen, [Ok(Some(1)), Ok(Some(2)), Ok(Some(3)), Ok(Some(4)), Ok(None)]);
        assert_eq!(source.row_count(0), Ok(5));
    }

    #[test]
    fn a_failure_while_reading_ahead_is_asked_again_and_then_told() {
        let failing = Counting { fail_at: Some(2), ..Default::default() };
        let mut source = ReadAhead::new(Box::new(failing)).expect("a thread");
        assert_eq!(read_all(&mut source).len(), 5);
        let failing = Counting { fail_at: Some(1), ..Default::default() };
        let mut source = ReadAhead::new(Box::new(failing)).expect("a thread");
        assert!(source.read_batch(0, None, LIMIT).is_err());
    }

    #[test]
    fn another_place_than_the_next_is_read_anew() {
        let mut source = ReadAhead::new(Box::new(Counting::default())).expect("a thread");
        source.read_batch(0, None, LIMIT).expect("a batch");
        let elsewhere = Cursor { position: 3, key: None };
        let batch = source.read_batch(0, Some(&elsewhere), LIMIT).expect("a batch");
        assert_eq!(batch.next.map(|next| next.position), Some(4));
    }

    #[test]
    fn a_single_window_reads_no_other() {
        let mut source = ReadAhead::new(Box::new(Counting::default())).expect("a thread");
        let from = |from| PositionRange { from, to: None };
        source.window(0, from(Some(7)), 10).expect("a window");
        assert_eq!(source.row_count(0), Ok(1));
        // A second one that goes on from there has its successor read.
        source.window(0, from(Some(17)), 10).expect("a window");
        assert_eq!(source.row_count(0), Ok(3));
        assert_eq!(source.window(0, from(Some(27)), 10).expect("a window").range.to, Some(37));
    }
}
