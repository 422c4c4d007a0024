//! Rows inserted many at a time, as COPY does: each page of the table is locked and logged once for all rows
//! that it takes.

use pgrx::pg_sys::{self, Datum, Oid};

use super::index::Indexes;
use super::{
    Domain, FixedColumn, Operation, Sent, Target, Witness, attribute_name, clear, domains, hold_values, input,
};
use crate::datum::{Scratch, release};
use crate::error::Answer;

/// Rows that are stored together.
const ROWS_TOGETHER: usize = 1_000;
/// Bytes of rows that are stored together, so that they are still in the processor's cache then.
const BYTES_TOGETHER: usize = 256 << 10;

/// The access method of ordinary tables.
const HEAP: Oid = Oid::from_u32(2);

/// An INSERT that takes its rows one by one.
pub struct BulkInsert {
    target: Target,
    pages: pg_sys::BulkInsertState,
    command: pg_sys::CommandId,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    bytes: usize,
    /// The table's place of each sent column.
    places: Vec<usize>,
    fixed: Vec<(usize, Datum)>,
    defaults: Vec<(usize, *mut pg_sys::ExprState)>,
    domains: Vec<Domain>,
    has_row_triggers: bool,
    /// `None` where each row goes to all indexes by itself.
    indexes: Option<Indexes>,
    /// Whether slots keep what they were filled with once their rows are stored.
    keeps_values: bool,
    /// Values of the rows that are not stored yet.
    values: Scratch,
}

/// The row that is being filled; columns that are not set stay NULL.
pub struct RowValues<'a> {
    values: &'a mut [Datum],
    nulls: &'a mut [bool],
    places: &'a [usize],
}

impl RowValues<'_> {
    /// Sets a sent column, counted as in the list given to [`BulkInsert::begin`].
    pub fn set(&mut self, column: usize, value: Datum) {
        if let Some(place) = self.places.get(column) {
            self.values[*place] = value;
            self.nulls[*place] = false;
        }
    }
}

impl BulkInsert {
    /// Begins to insert into a table, with the rights of the current user; `sent` names the columns that come
    /// with each row; `witness` may be told of each row. `None` where the table needs a statement.
    pub fn begin(
        oid: Oid,
        sent: &[&str],
        fixed: &[FixedColumn],
        witness: Option<Box<dyn Witness>>,
    ) -> Answer<Option<BulkInsert>> {
        let Some(mut target) = Target::open(oid, Operation::Insert, witness) else { return Ok(None) };
        let places = target.places(sent)?;
        let (mut fixed_values, mut defaults) = (Vec::new(), Vec::new());
        let mut needs_statement = false;
        for (place, attribute) in target.attributes().filter(|(place, _)| !places.contains(place)) {
            let name = attribute_name(attribute);
            if let Some(column) = fixed.iter().find(|column| column.name == name) {
                fixed_values.push((place, input(attribute, &column.text)?));
                continue;
            }
            // SAFETY: attributes are numbered from 1; the answer is null or an expression in the current context.
            unsafe {
                let default = pg_sys::build_column_default(target.relation, place as i32 + 1);
                if !default.is_null() {
                    let planned = pg_sys::expression_planner(default.cast());
                    // A function that changes from row to row may look at the rows stored before.
                    needs_statement |= pg_sys::contain_volatile_functions_not_nextval(planned.cast());
                    defaults.push((place, pg_sys::ExecInitExpr(planned, std::ptr::null_mut())));
                }
            }
        }
        if needs_statement {
            target.abandon();
            return Ok(None);
        }
        // Columns that nothing comes for are NULL, which their domain may not take.
        let is_fixed = |place: &usize| fixed_values.iter().any(|(fixed, _)| fixed == place);
        let unfixed: Vec<usize> =
            target.attributes().map(|(place, _)| place).filter(|place| !is_fixed(place)).collect();
        target.start(&[]);
        target.begin();
        // SAFETY: the relation is open; what is got here is given back by `finish`.
        let (keeps_values, pages, command) = unsafe {
            (
                (*(*target.relation).rd_rel).relam == HEAP,
                pg_sys::GetBulkInsertState(),
                pg_sys::GetCurrentCommandId(true),
            )
        };
        Ok(Some(BulkInsert {
            pages,
            command,
            slots: Vec::new(),
            used: 0,
            bytes: 0,
            fixed: fixed_values,
            defaults,
            domains: domains(&target, &unfixed),
            has_row_triggers: target.has_row_triggers(),
            indexes: Indexes::of(&target, None),
            keeps_values,
            places,
            target,
            values: Scratch::new(),
        }))
    }

    /// Adds a row, which `fill` sets the sent columns of. Values may be allocated in the current context, in which
    /// they live until the row is stored.
    ///
    /// # Errors
    /// Those of `fill` and of the witness.
    pub fn push(
        &mut self,
        sent: Sent<'_>,
        fill: impl FnOnce(&mut RowValues<'_>) -> Answer<()>,
    ) -> Answer<()> {
        let (relation, estate, columns) = (self.target.relation, self.target.estate, self.target.columns);
        if self.used == self.slots.len() {
            // SAFETY: the relation is open; the slot is dropped by `finish`.
            self.slots.push(unsafe { pg_sys::table_slot_create(relation, std::ptr::null_mut()) });
        }
        let slot = self.slots[self.used];
        // SAFETY: a slot of the relation is empty here and has arrays with a place for each attribute.
        let (values, nulls) = unsafe {
            (*slot).tts_tableOid = (*relation).rd_id;
            (
                std::slice::from_raw_parts_mut((*slot).tts_values, columns),
                std::slice::from_raw_parts_mut((*slot).tts_isnull, columns),
            )
        };
        nulls.fill(true);
        for (place, value) in &self.fixed {
            (values[*place], nulls[*place]) = (*value, false);
        }
        let mut row = RowValues { values, nulls, places: &self.places };
        self.values.within(|| fill(&mut row))?;
        for (place, expression) in &self.defaults {
            // SAFETY: expressions were made for this executor's state, and need no row.
            unsafe {
                let context = release::per_tuple_context(estate);
                let (saved, mut null) = (pg_sys::CurrentMemoryContext, false);
                pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
                let value = pg_sys::ExecEvalExpr(*expression, context, &mut null);
                pg_sys::MemoryContextSwitchTo(saved);
                (values[*place], nulls[*place]) = (value, null);
            }
        }
        for domain in &mut self.domains {
            // SAFETY: values were made for the base types of their columns.
            unsafe { domain.check(values[domain.place], nulls[domain.place], estate) };
        }
        // SAFETY: every place of the slot is filled, with values that live until the row is stored.
        unsafe {
            hold_values(slot, columns);
            self.target.check(slot);
            let target = &mut self.target;
            self.values.within(|| target.tell(slot, |witness, row| witness.added(row, sent)))?;
        }
        self.used += 1;
        self.bytes += sent.row.len();
        if self.used == ROWS_TOGETHER || self.bytes >= BYTES_TOGETHER {
            self.store();
        }
        Ok(())
    }

    /// Stores the rows that were added since the last time.
    fn store(&mut self) {
        pgrx::check_for_interrupts!();
        let Target { relation, estate, info, capture, .. } = self.target;
        // SAFETY: the first `used` slots hold rows whose values are alive; all else belongs to this insert. What
        // the access method allocates goes with the context that is reset at the end.
        unsafe {
            let context = release::per_tuple_context(estate);
            let saved = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            pg_sys::table_multi_insert(
                relation,
                self.slots.as_mut_ptr(),
                self.used as i32,
                self.command,
                0,
                self.pages,
            );
            pg_sys::MemoryContextSwitchTo(saved);
            let stored = &self.slots[..self.used];
            if let Some(indexes) = &self.indexes {
                if !self.keeps_values {
                    stored.iter().for_each(|slot| pg_sys::slot_getallattrs(*slot));
                }
                indexes.add(&self.target, stored);
            }
            if self.indexes.is_none() || self.has_row_triggers {
                for slot in stored {
                    let mut recheck = std::ptr::null_mut();
                    if self.indexes.is_none() {
                        recheck = release::insert_index_tuples(info, *slot, estate);
                    }
                    if self.has_row_triggers {
                        pg_sys::ExecARInsertTriggers(estate, info, *slot, recheck, capture);
                    }
                    if !recheck.is_null() {
                        pg_sys::list_free(recheck);
                    }
                }
            }
            clear(stored);
            pg_sys::ReScanExprContext(context);
        }
        self.values.reset();
        (self.used, self.bytes) = (0, 0);
    }

    /// Stores what is left, and ends the INSERT.
    ///
    /// # Errors
    /// Those of the witness.
    pub fn finish(mut self) -> Answer<()> {
        self.store();
        // SAFETY: got by `begin` and `push`.
        unsafe {
            pg_sys::FreeBulkInsertState(self.pages);
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::table_finish_bulk_insert(self.target.relation, 0);
        }
        self.target.finish()
    }
}
