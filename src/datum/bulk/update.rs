//! Rows looked up by their key, and changed where they are found: no plan, no lock and no look-up besides.

use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};

use super::index::Indexes;
use super::lookup::Lookup;
use super::{
    Domain, FixedColumn, Operation, Sent, Target, Witness, attribute_name, clear, domains, hold_values, input,
};
use crate::datum::release::{self, Touched};
use crate::datum::{Row, Scratch};
use crate::error::Answer;

/// Rows between two looks at whether the caller wants to go on.
const ROWS_BETWEEN_INTERRUPTS: usize = 1_000;

/// Rows whose index entries are added together.
const ROWS_TOGETHER: usize = 1_000;

/// Look-ups by key in a table, and an UPDATE of the rows found. All look-ups see the same snapshot.
pub struct BulkUpdate {
    target: Target,
    lookup: Lookup,
    /// Changed rows that are stored, without their index entries; behind them slots that are empty.
    changed: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    /// `None` where each row goes to all indexes by itself.
    indexes: Option<Indexes>,
    /// The table's place of each sent column.
    places: Vec<usize>,
    /// The sent columns that an UPDATE sets.
    set: Vec<usize>,
    domains: Vec<Domain>,
    /// The sent columns of the row found last.
    values: Vec<Datum>,
    nulls: Vec<bool>,
    scratch: Rc<Scratch>,
    /// Where what lasts longer than a row is allocated.
    lasting: pg_sys::MemoryContext,
    rows: usize,
}

impl BulkUpdate {
    /// Opens a table for look-ups by the columns `key` among the `sent` ones, together with the fixed ones, and
    /// for updates of the sent columns that are not named in `kept`, of which `witness` may be told. `None` where
    /// the table needs statements, or has no plain unique index over these columns.
    pub fn begin(
        oid: Oid,
        sent: &[&str],
        key: &[usize],
        kept: &[usize],
        fixed: &[FixedColumn],
        witness: Option<Box<dyn Witness>>,
    ) -> Answer<Option<BulkUpdate>> {
        let Some(mut target) = Target::open(oid, Operation::Update, witness) else { return Ok(None) };
        let places = target.places(sent)?;
        let mut wanted: Vec<(usize, Option<usize>, Datum)> =
            key.iter().map(|column| (places[*column], Some(*column), Datum::from(0usize))).collect();
        for (place, attribute) in target.attributes() {
            let name = attribute_name(attribute);
            if let Some(column) = fixed.iter().find(|column| column.name == name) {
                wanted.push((place, None, input(attribute, &column.text)?));
            }
        }
        let set: Vec<usize> = (0..sent.len()).filter(|column| !kept.contains(column)).collect();
        target.start(&set.iter().map(|column| places[*column]).collect::<Vec<_>>());
        // SAFETY: the context outlives the answer, which is used within one piece of work.
        let Some(lookup) = (unsafe { Lookup::begin(&target, &wanted) }) else {
            target.finish()?;
            return Ok(None);
        };
        Ok(Some(BulkUpdate {
            lookup,
            changed: Vec::new(),
            used: 0,
            indexes: None,
            domains: domains(&target, &places),
            values: vec![Datum::from(0usize); places.len()],
            nulls: vec![true; places.len()],
            places,
            set,
            target,
            scratch: Rc::new(Scratch::new()),
            // SAFETY: reads a variable of the backend.
            lasting: unsafe { pg_sys::CurrentMemoryContext },
            rows: 0,
        }))
    }

    /// Runs `work` with memory that lasts until the next row.
    pub fn with_row<T>(&mut self, work: impl FnOnce(&mut Self) -> Answer<T>) -> Answer<T> {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_BETWEEN_INTERRUPTS) {
            pgrx::check_for_interrupts!();
        }
        let scratch = Rc::clone(&self.scratch);
        scratch.reset();
        scratch.within(|| work(self))
    }

    /// The sent columns of the stored row with the key of `row`, which has a value for each sent column.
    pub fn find(&mut self, row: &[Option<Datum>]) -> Option<Row<'_>> {
        // SAFETY: values are of the columns' types; the slot's arrays have a place for each attribute, all of them read.
        unsafe {
            if !self.lookup.find(row) {
                return None;
            }
            let old = self.lookup.row;
            for (column, place) in self.places.iter().enumerate() {
                self.values[column] = *(*old).tts_values.add(*place);
                self.nulls[column] = *(*old).tts_isnull.add(*place);
            }
        }
        Some(Row::new(&self.values, &self.nulls))
    }

    /// Changes the row that was found last to `row`, sent so; `false` where somebody else changed it meanwhile.
    ///
    /// # Errors
    /// Those of the witness.
    pub fn update(&mut self, row: &[Option<Datum>], sent: Sent<'_>) -> Answer<bool> {
        // SAFETY: the context outlives `self`; what triggers keep outlives the row.
        let saved = unsafe { pg_sys::MemoryContextSwitchTo(self.lasting) };
        if !self.target.begun {
            self.target.begin();
            // A trigger that is told of each row is told once it is in all indexes.
            if !self.target.has_row_triggers() {
                let set: Vec<usize> = self.set.iter().map(|column| self.places[*column]).collect();
                self.indexes = Indexes::of(&self.target, Some(&set));
            }
        }
        if self.used == self.changed.len() {
            // SAFETY: the relation is open; the slot is dropped by `finish`.
            self.changed
                .push(unsafe { pg_sys::table_slot_create(self.target.relation, std::ptr::null_mut()) });
        }
        // SAFETY: it was current before.
        unsafe { pg_sys::MemoryContextSwitchTo(saved) };
        let (old, new, columns) = (self.lookup.row, self.changed[self.used], self.target.columns);
        let Target { relation, estate, info, capture, .. } = self.target;
        // SAFETY: the old slot holds the row found last, all its columns read; its values live as long as it is
        // held. The new slot is empty, with arrays of the same length.
        unsafe {
            std::ptr::copy_nonoverlapping((*old).tts_values, (*new).tts_values, columns);
            std::ptr::copy_nonoverlapping((*old).tts_isnull, (*new).tts_isnull, columns);
            for column in &self.set {
                let place = self.places[*column];
                *(*new).tts_values.add(place) = row[*column].unwrap_or(Datum::from(0usize));
                *(*new).tts_isnull.add(place) = row[*column].is_none();
            }
            for domain in &mut self.domains {
                let (value, null) =
                    (*(*new).tts_values.add(domain.place), *(*new).tts_isnull.add(domain.place));
                domain.check(value, null, estate);
            }
            (*new).tts_tableOid = (*relation).rd_id;
            hold_values(new, columns);
            self.target.check(new);
            self.target.tell(old, |witness, row| witness.removed(row))?;
            self.target.tell(new, |witness, row| witness.added(row, sent))?;
            let Some(touched) = release::update_tuple(info, old, new) else { return Ok(false) };
            if self.indexes.is_some() && touched == Touched::All {
                self.used += 1;
            } else {
                let recheck = release::update_index_tuples(info, estate, new, touched);
                if self.target.has_row_triggers() {
                    release::after_row_update(estate, info, old, new, recheck, capture);
                }
                pg_sys::ExecClearTuple(new);
            }
            pg_sys::ReScanExprContext(release::per_tuple_context(estate));
        }
        if self.used == ROWS_TOGETHER {
            self.index();
        }
        Ok(true)
    }

    /// Adds the rows to the indexes that are not there yet.
    fn index(&mut self) {
        let changed = &self.changed[..self.used];
        // SAFETY: the slots hold rows that were stored, which are read here, because the values that they were
        // made of are gone.
        unsafe {
            if let Some(indexes) = &self.indexes {
                changed.iter().for_each(|slot| pg_sys::slot_getallattrs(*slot));
                indexes.add(&self.target, changed);
                clear(changed);
                pg_sys::ReScanExprContext(release::per_tuple_context(self.target.estate));
            }
        }
        self.used = 0;
    }

    /// Ends the UPDATE.
    ///
    /// # Errors
    /// Those of the witness.
    pub fn finish(mut self) -> Answer<()> {
        self.index();
        self.lookup.end();
        for slot in &self.changed {
            // SAFETY: made by `update`.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(*slot) };
        }
        self.target.finish()
    }
}
