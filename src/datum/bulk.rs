//! Rows inserted many at a time through the access methods of the table and its indexes, as COPY does: no
//! statement is planned, and each page of the table is locked and logged once for all rows that it takes.
//!
//! What only a statement does (row triggers that run before, rules, partitions, generated columns) is left to
//! one: [`BulkInsert::begin`] answers `None` for such a table. Everything else is as in an INSERT: NOT NULL,
//! CHECK, domains, unique and exclusion constraints, foreign keys, triggers after the row and on the statement
//! with their transition tables.
//!
//! It works inside a subtransaction only: whatever fails leaves buffers, locks and open relations behind, which
//! the rollback takes back.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use super::{Scratch, c_string, release};
use crate::error::{Answer, Problem, state};

/// Rows that are stored together.
const ROWS_TOGETHER: usize = 1_000;
/// Bytes of rows that are stored together, so that they are still in the processor's cache then.
const BYTES_TOGETHER: usize = 256 << 10;

/// A column that has the same value in every row.
pub struct FixedColumn {
    /// Its name.
    pub name: String,
    /// Its value's text form.
    pub text: String,
}

/// A domain whose constraints are checked for each value of a column.
struct Domain {
    place: usize,
    type_oid: Oid,
    /// What `domain_check` keeps from call to call.
    kept: *mut core::ffi::c_void,
}

/// An INSERT that takes its rows one by one.
pub struct BulkInsert {
    relation: pg_sys::Relation,
    estate: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    /// Collects the transition table, where a trigger asks for one.
    capture: *mut pg_sys::TransitionCaptureState,
    pages: pg_sys::BulkInsertState,
    command: pg_sys::CommandId,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    used: usize,
    bytes: usize,
    columns: usize,
    /// The table's place of each sent column.
    places: Vec<usize>,
    fixed: Vec<(usize, Datum)>,
    defaults: Vec<(usize, *mut pg_sys::ExprState)>,
    domains: Vec<Domain>,
    has_constraints: bool,
    is_partition: bool,
    has_row_triggers: bool,
    index_by_index: bool,
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

/// What is known of one attribute before rows come.
enum Filled {
    Sent,
    Fixed(Datum),
    Default(*mut pg_sys::ExprState),
    Null,
}

impl BulkInsert {
    /// Begins to insert into a table, with the rights of the current user; `sent` names the columns that come
    /// with each row. `None` where the table needs a statement.
    pub fn begin(oid: Oid, sent: &[&str], fixed: &[FixedColumn]) -> Answer<Option<BulkInsert>> {
        // SAFETY: the oid is a table's that was looked up in this call; the lock is kept to the transaction's end.
        let relation = unsafe { pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32) };
        // SAFETY: an open relation.
        if !unsafe { may_bypass_statements(relation) } {
            // SAFETY: opened above.
            unsafe { pg_sys::table_close(relation, pg_sys::NoLock as i32) };
            return Ok(None);
        }
        // SAFETY: an open relation has a descriptor with a place for each attribute.
        let (descriptor, columns) = unsafe { ((*relation).rd_att, (*(*relation).rd_att).natts as usize) };
        let (mut fixed_values, mut defaults, mut domains) = (Vec::new(), Vec::new(), Vec::new());
        let mut places = vec![usize::MAX; sent.len()];
        for place in 0..columns {
            // SAFETY: below the number of attributes.
            let attribute = unsafe { &*release::attribute(descriptor, place) };
            if attribute.attisdropped {
                continue;
            }
            // SAFETY: a NUL-terminated name of the catalogue.
            let name = unsafe { CStr::from_ptr(attribute.attname.data.as_ptr()) }.to_string_lossy();
            if let Some(column) = sent.iter().position(|sent| *sent == name) {
                places[column] = place;
            }
            // SAFETY: an attribute of the open relation.
            let Some(filled) = (unsafe { fill(relation, place, attribute, &name, sent, fixed)? }) else {
                // SAFETY: opened above.
                unsafe { pg_sys::table_close(relation, pg_sys::NoLock as i32) };
                return Ok(None);
            };
            let is_sent = matches!(filled, Filled::Sent);
            match filled {
                Filled::Sent | Filled::Null => {}
                Filled::Fixed(value) => fixed_values.push((place, value)),
                Filled::Default(expression) => defaults.push((place, expression)),
            }
            // SAFETY: looks the type up in the catalogue.
            if is_sent && unsafe { pg_sys::get_typtype(attribute.atttypid) } as u8 == b'd' {
                domains.push(Domain { place, type_oid: attribute.atttypid, kept: std::ptr::null_mut() });
            }
        }
        if places.contains(&usize::MAX) {
            let message = "a column of the table was renamed or dropped during the call";
            return Err(Problem::new(state::NOT_IN_STATE, message).hint("Call again."));
        }
        // SAFETY: the relation is open and locked; whatever is made here lives in the current context or is
        // given back by `finish` or the rollback of the subtransaction.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let estate = pg_sys::CreateExecutorState();
            let target = release::open_target(estate, relation);
            pg_sys::ExecOpenIndices(target, false);
            let triggers = (*relation).trigdesc;
            pg_sys::AfterTriggerBeginQuery();
            let capture = pg_sys::MakeTransitionCaptureState(triggers, oid, pg_sys::CmdType::CMD_INSERT);
            pg_sys::ExecBSInsertTriggers(estate, target);
            let has_row_triggers =
                !capture.is_null() || !triggers.is_null() && (*triggers).trig_insert_after_row;
            Ok(Some(BulkInsert {
                relation,
                estate,
                target,
                capture,
                pages: pg_sys::GetBulkInsertState(),
                command: pg_sys::GetCurrentCommandId(true),
                slots: Vec::new(),
                used: 0,
                bytes: 0,
                columns,
                places,
                fixed: fixed_values,
                defaults,
                domains,
                has_constraints: !(*descriptor).constr.is_null(),
                is_partition: (*(*relation).rd_rel).relispartition,
                has_row_triggers,
                index_by_index: has_simple_indexes(target),
                values: Scratch::new(),
            }))
        }
    }

    /// Adds a row of about `bytes` bytes, which `fill` sets the sent columns of. Values may be allocated in the
    /// current context, in which they live until the row is stored.
    pub fn push(&mut self, bytes: usize, fill: impl FnOnce(&mut RowValues<'_>) -> Answer<()>) -> Answer<()> {
        if self.used == self.slots.len() {
            // SAFETY: the relation is open; the slot is dropped by `finish`.
            self.slots.push(unsafe { pg_sys::table_slot_create(self.relation, std::ptr::null_mut()) });
        }
        let slot = self.slots[self.used];
        // SAFETY: a slot of the relation is empty here and has arrays with a place for each attribute.
        let (values, nulls) = unsafe {
            (*slot).tts_tableOid = (*self.relation).rd_id;
            (
                std::slice::from_raw_parts_mut((*slot).tts_values, self.columns),
                std::slice::from_raw_parts_mut((*slot).tts_isnull, self.columns),
            )
        };
        nulls.fill(true);
        for (place, value) in &self.fixed {
            (values[*place], nulls[*place]) = (*value, false);
        }
        let mut row = RowValues { values, nulls, places: &self.places };
        self.values.within(|| fill(&mut row))?;
        for (place, expression) in &self.defaults {
            // SAFETY: expressions were made for this executor state, and need no row.
            unsafe {
                let context = release::per_tuple_context(self.estate);
                let (saved, mut null) = (pg_sys::CurrentMemoryContext, false);
                pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
                let value = pg_sys::ExecEvalExpr(*expression, context, &mut null);
                pg_sys::MemoryContextSwitchTo(saved);
                (values[*place], nulls[*place]) = (value, null);
            }
        }
        for domain in &mut self.domains {
            let (value, null) = (values[domain.place], nulls[domain.place]);
            // SAFETY: a value of the domain's base type; what is kept lives as long as the executor state.
            unsafe {
                let context = (*self.estate).es_query_cxt;
                pg_sys::domain_check(value, null, domain.type_oid, &mut domain.kept, context);
            }
        }
        // SAFETY: every place of the slot is filled; constraints are those of the open target.
        unsafe {
            pg_sys::ExecStoreVirtualTuple(slot);
            if self.has_constraints {
                pg_sys::ExecConstraints(self.target, slot, self.estate);
            }
            if self.is_partition {
                pg_sys::ExecPartitionCheck(self.target, slot, self.estate, true);
            }
        }
        self.used += 1;
        self.bytes += bytes;
        if self.used == ROWS_TOGETHER || self.bytes >= BYTES_TOGETHER {
            self.store();
        }
        Ok(())
    }

    /// Stores the rows that were added since the last time.
    fn store(&mut self) {
        pgrx::check_for_interrupts!();
        // SAFETY: the first `used` slots hold rows whose values are alive; all else belongs to this insert. What
        // the access method allocates goes with the context that is reset at the end.
        unsafe {
            let context = release::per_tuple_context(self.estate);
            let saved = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            pg_sys::table_multi_insert(
                self.relation,
                self.slots.as_mut_ptr(),
                self.used as i32,
                self.command,
                0,
                self.pages,
            );
            pg_sys::MemoryContextSwitchTo(saved);
            if self.index_by_index {
                self.index_all(context);
            }
            for slot in &self.slots[..self.used] {
                let mut recheck = std::ptr::null_mut();
                if !self.index_by_index {
                    recheck = release::insert_index_tuples(self.target, *slot, self.estate);
                }
                if self.has_row_triggers {
                    pg_sys::ExecARInsertTriggers(self.estate, self.target, *slot, recheck, self.capture);
                }
                if !recheck.is_null() {
                    pg_sys::list_free(recheck);
                }
                pg_sys::ExecClearTuple(*slot);
            }
            pg_sys::ReScanExprContext(context);
        }
        self.values.reset();
        (self.used, self.bytes) = (0, 0);
    }

    /// Adds the rows that were just stored to one index after the other: the pages of an index stay in the
    /// processor's cache that way.
    ///
    /// # Safety
    /// The first `used` slots hold rows that were just stored, and [`is_simple`] holds for every index.
    unsafe fn index_all(&self, context: *mut pg_sys::ExprContext) {
        // SAFETY: the arrays of the target have a place for each of its open indexes; values and nulls have one
        // for each column that an index may have.
        unsafe {
            let count = (*self.target).ri_NumIndices as usize;
            let indexes = std::slice::from_raw_parts((*self.target).ri_IndexRelationDescs, count);
            let infos = std::slice::from_raw_parts((*self.target).ri_IndexRelationInfo, count);
            let mut values = [Datum::from(0usize); pg_sys::INDEX_MAX_KEYS as usize];
            let mut nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
            let saved = pg_sys::MemoryContextSwitchTo((*context).ecxt_per_tuple_memory);
            for (index, info) in indexes.iter().zip(infos) {
                let unique = match (*(**index).rd_index).indisunique {
                    true => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_YES,
                    false => pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                };
                for slot in &self.slots[..self.used] {
                    pg_sys::FormIndexDatum(
                        *info,
                        *slot,
                        self.estate,
                        values.as_mut_ptr(),
                        nulls.as_mut_ptr(),
                    );
                    pg_sys::index_insert(
                        *index,
                        values.as_mut_ptr(),
                        nulls.as_mut_ptr(),
                        &raw mut (**slot).tts_tid,
                        self.relation,
                        unique,
                        false,
                        *info,
                    );
                }
            }
            pg_sys::MemoryContextSwitchTo(saved);
        }
    }

    /// Stores what is left, and runs what runs after a statement: foreign keys, deferred checks, triggers.
    pub fn finish(mut self) {
        self.store();
        // SAFETY: ends what `begin` began, in the order in which COPY does so.
        unsafe {
            pg_sys::FreeBulkInsertState(self.pages);
            pg_sys::ExecASInsertTriggers(self.estate, self.target, self.capture);
            pg_sys::AfterTriggerEndQuery(self.estate);
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::table_finish_bulk_insert(self.relation, 0);
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
            pg_sys::ExecCloseResultRelations(self.estate);
            pg_sys::ExecCloseRangeTableRelations(self.estate);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::table_close(self.relation, pg_sys::NoLock as i32);
            pg_sys::PopActiveSnapshot();
            pg_sys::CommandCounterIncrement();
        }
    }
}

/// Whether an INSERT does no more for this table than what is done here, and the current user may.
///
/// # Safety
/// The relation is open.
unsafe fn may_bypass_statements(relation: pg_sys::Relation) -> bool {
    // SAFETY: by the caller's promise; descriptors that are not null are complete.
    unsafe {
        let triggers = (*relation).trigdesc;
        let has_row_triggers = !triggers.is_null()
            && ((*triggers).trig_insert_before_row || (*triggers).trig_insert_instead_row);
        let is_plain = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION;
        let user = pg_sys::GetUserId();
        is_plain
            && !has_row_triggers
            && !(*(*relation).rd_rel).relhasrules
            && !pg_sys::XactReadOnly
            && pg_sys::pg_class_aclcheck((*relation).rd_id, user, pg_sys::ACL_INSERT as pg_sys::AclMode)
                == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether every index is one over columns, of all rows, and checks at once what it checks.
///
/// # Safety
/// The target's indexes are open.
unsafe fn has_simple_indexes(target: *mut pg_sys::ResultRelInfo) -> bool {
    // SAFETY: the arrays have a place for each open index, by the caller's promise.
    unsafe {
        let count = (*target).ri_NumIndices as usize;
        count > 0
            && (0..count).all(|i| {
                let (index, info) =
                    (*(*target).ri_IndexRelationDescs.add(i), *(*target).ri_IndexRelationInfo.add(i));
                (*info).ii_Expressions.is_null()
                    && (*info).ii_Predicate.is_null()
                    && (*info).ii_ExclusionOps.is_null()
                    && (*info).ii_ReadyForInserts
                    && (*(*index).rd_index).indimmediate
            })
    }
}

/// Where an attribute's values come from; `None` where only a statement can tell.
///
/// # Safety
/// The attribute is the relation's, at this place.
unsafe fn fill(
    relation: pg_sys::Relation,
    place: usize,
    attribute: &pg_sys::FormData_pg_attribute,
    name: &str,
    sent: &[&str],
    fixed: &[FixedColumn],
) -> Answer<Option<Filled>> {
    if attribute.attgenerated != 0 {
        return Ok(None);
    }
    if sent.contains(&name) {
        return Ok(Some(Filled::Sent));
    }
    if let Some(column) = fixed.iter().find(|column| column.name == name) {
        let text = c_string(&column.text)?;
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: the type comes from the catalogue; the string outlives the call.
        let value = unsafe {
            pg_sys::getTypeInputInfo(attribute.atttypid, &mut input, &mut parameter);
            pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, attribute.atttypmod)
        };
        return Ok(Some(Filled::Fixed(value)));
    }
    // SAFETY: attributes are numbered from 1; the answer is null or an expression in the current context.
    unsafe {
        let expression = pg_sys::build_column_default(relation, place as i32 + 1);
        if expression.is_null() {
            return Ok(Some(Filled::Null));
        }
        let planned = pg_sys::expression_planner(expression.cast());
        // A function that changes from row to row may look at the rows stored before.
        if pg_sys::contain_volatile_functions_not_nextval(planned.cast()) {
            return Ok(None);
        }
        Ok(Some(Filled::Default(pg_sys::ExecInitExpr(planned, std::ptr::null_mut()))))
    }
}
