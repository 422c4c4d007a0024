//! Rows written through the access methods of a table and its indexes, without a statement: nothing is planned
//! and no row is copied on the way.
//!
//! What only a statement does (row triggers that run before, but for the one that leaves rows of a sync as they are, rules, partitions, generated columns) is left to
//! one: such a table is no target. Everything else is as in a statement: NOT NULL, CHECK, domains, unique and
//! exclusion constraints, foreign keys, triggers after the row and on the statement with their transition tables.
//!
//! All of it works inside a subtransaction only: whatever fails leaves buffers, locks and open relations behind,
//! which the rollback takes back.

//!
//! | file | what lives there |
//! |---|---|
//! | `insert`, `update` | new rows, and rows found by their key and changed |
//! | `lookup` | where the rows with a key are |
//! | `index` | index entries of many rows |
//! | `triggers` | triggers on the statement, and who is told of rows in place of one |

mod index;
mod insert;
mod lookup;
mod triggers;
mod update;

pub use insert::BulkInsert;
pub use triggers::{Sent, Witness};
pub use update::BulkUpdate;

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use super::{c_string, release};
use triggers::{LeftOut, TransitionMemory, changes_rows};

use crate::error::{Answer, Problem, state};

/// A column that has the same value in every row.
pub struct FixedColumn {
    /// Its name.
    pub name: String,
    /// Its value's text form.
    pub text: String,
}

/// Whether other tables may inherit from a table without being partitions: their rows belong to it too, and its
/// indexes know nothing of them.
pub fn may_have_children(oid: Oid) -> bool {
    // SAFETY: the oid is a table's that was looked up in this call; the lock is kept to the transaction's end.
    unsafe {
        let relation = pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32);
        let class = (*relation).rd_rel;
        let answer = (*class).relhassubclass && (*class).relkind as u8 == pg_sys::RELKIND_RELATION;
        pg_sys::table_close(relation, pg_sys::NoLock as i32);
        answer
    }
}

/// What is done to the rows of a target.
#[derive(Clone, Copy, PartialEq)]
enum Operation {
    Insert,
    Update,
}

/// A table that rows are written to.
struct Target {
    relation: pg_sys::Relation,
    descriptor: pg_sys::TupleDesc,
    /// How many attributes it has, dropped ones among them.
    columns: usize,
    operation: Operation,
    /// From `start` on.
    estate: *mut pg_sys::EState,
    info: *mut pg_sys::ResultRelInfo,
    /// Collects the transition tables, where a trigger asks for some.
    capture: *mut pg_sys::TransitionCaptureState,
    constraints: Constraints,
    /// Whether triggers on the statement have begun.
    begun: bool,
    /// Who is told of each row from then on, in place of the trigger that is left out.
    witness: Option<Box<dyn Witness>>,
    left_out: Option<LeftOut>,
}

impl Target {
    /// Opens a table with the rights of the current user; `None` where it needs statements.
    fn open(oid: Oid, operation: Operation, witness: Option<Box<dyn Witness>>) -> Option<Target> {
        // SAFETY: the oid is a table's that was looked up in this call; the lock is kept to the transaction's end.
        let relation = unsafe { pg_sys::table_open(oid, pg_sys::RowExclusiveLock as i32) };
        // SAFETY: an open relation has a descriptor.
        let (descriptor, columns) = unsafe { ((*relation).rd_att, (*(*relation).rd_att).natts as usize) };
        let mut target = Target {
            relation,
            descriptor,
            columns,
            operation,
            estate: std::ptr::null_mut(),
            info: std::ptr::null_mut(),
            capture: std::ptr::null_mut(),
            constraints: Constraints::default(),
            begun: false,
            witness,
            left_out: None,
        };
        if target.is_fit() {
            target.constraints = target.constraints();
            return Some(target);
        }
        target.abandon();
        None
    }

    /// Whether a statement does no more for this table than what is done here, and the current user may.
    fn is_fit(&self) -> bool {
        // SAFETY: the relation is open; descriptors that are not null are complete.
        unsafe {
            let relation = self.relation;
            let triggers = (*relation).trigdesc;
            let (rights, has_row_triggers) = match self.operation {
                Operation::Insert => (
                    [pg_sys::ACL_INSERT, pg_sys::ACL_INSERT],
                    !triggers.is_null()
                        && (changes_rows(triggers, self.operation) || (*triggers).trig_insert_instead_row),
                ),
                Operation::Update => (
                    [pg_sys::ACL_SELECT, pg_sys::ACL_UPDATE],
                    !triggers.is_null()
                        && (changes_rows(triggers, self.operation) || (*triggers).trig_update_instead_row),
                ),
            };
            let may = |right: u32| {
                pg_sys::pg_class_aclcheck((*relation).rd_id, pg_sys::GetUserId(), right as pg_sys::AclMode)
                    == pg_sys::AclResult::ACLCHECK_OK
            };
            (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION
                && !has_row_triggers
                && !(*(*relation).rd_rel).relhasrules
                && !pg_sys::XactReadOnly
                && rights.into_iter().all(may)
                && self.attributes().all(|(_, attribute)| attribute.attgenerated == 0)
        }
    }

    /// The columns that there are, with their places.
    fn attributes(&self) -> impl Iterator<Item = (usize, &pg_sys::FormData_pg_attribute)> {
        let attribute = |place| {
            // SAFETY: below the number of attributes; the descriptor lives as long as the open relation.
            (place, unsafe { &*release::attribute(self.descriptor, place) })
        };
        (0..self.columns).map(attribute).filter(|(_, attribute)| !attribute.attisdropped)
    }

    /// The place of each of these columns in the table.
    fn places(&self, names: &[&str]) -> Answer<Vec<usize>> {
        names
            .iter()
            .map(|name| {
                let found = self.attributes().find(|(_, attribute)| attribute_name(attribute) == *name);
                found.map(|(place, _)| place).ok_or_else(|| {
                    let message = format!("column \"{name}\" was renamed or dropped during the call");
                    Problem::new(state::NOT_IN_STATE, message).hint("Call again.")
                })
            })
            .collect()
    }

    /// Makes the executor's state, under a new snapshot; `updated` are the columns that an UPDATE sets.
    fn start(&mut self, updated: &[usize]) {
        // SAFETY: the relation is open and locked; what is made is given back by `finish`, or by the rollback of
        // the subtransaction.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            self.estate = pg_sys::CreateExecutorState();
            self.info = release::open_target(self.estate, self.relation, updated);
            pg_sys::ExecOpenIndices(self.info, false);
        }
    }

    /// Begins what is a statement to triggers.
    fn begin(&mut self) {
        self.leave_out();
        // SAFETY: the executor's state was made by `start`.
        unsafe {
            pg_sys::AfterTriggerBeginQuery();
            if self.operation == Operation::Update {
                // Refuses what subscribers could not follow.
                pg_sys::CheckCmdReplicaIdentity(self.relation, pg_sys::CmdType::CMD_UPDATE);
            }
            let (triggers, oid) = ((*self.info).ri_TrigDesc, (*self.relation).rd_id);
            let (command, before): (_, unsafe fn(_, _)) = match self.operation {
                Operation::Insert => (pg_sys::CmdType::CMD_INSERT, pg_sys::ExecBSInsertTriggers),
                Operation::Update => (pg_sys::CmdType::CMD_UPDATE, pg_sys::ExecBSUpdateTriggers),
            };
            let memory = TransitionMemory::raise();
            self.capture = pg_sys::MakeTransitionCaptureState(triggers, oid, command);
            drop(memory);
            before(self.estate, self.info);
        }
        self.begun = true;
    }

    /// Runs what runs after a statement (foreign keys, deferred checks, triggers) and closes the table.
    fn finish(mut self) -> Answer<()> {
        // SAFETY: ends what `start` and `begin` began, in the order in which COPY does so.
        unsafe {
            if self.begun {
                match self.operation {
                    Operation::Insert => pg_sys::ExecASInsertTriggers(self.estate, self.info, self.capture),
                    Operation::Update => pg_sys::ExecASUpdateTriggers(self.estate, self.info, self.capture),
                }
                self.put_back();
                if let Some(witness) = self.witness.take() {
                    witness.end()?;
                }
                pg_sys::AfterTriggerEndQuery(self.estate);
            }
            pg_sys::ExecResetTupleTable((*self.estate).es_tupleTable, false);
            pg_sys::ExecCloseResultRelations(self.estate);
            pg_sys::ExecCloseRangeTableRelations(self.estate);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::PopActiveSnapshot();
            pg_sys::CommandCounterIncrement();
        }
        self.abandon();
        Ok(())
    }

    /// Closes a table that nothing was done to.
    fn abandon(self) {
        // SAFETY: opened by `open`.
        unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) };
    }

    /// Whether triggers are told of each row.
    fn has_row_triggers(&self) -> bool {
        // SAFETY: the relation is open.
        let triggers = unsafe { (*self.relation).trigdesc };
        // SAFETY: descriptors that are not null are complete.
        let after_row = || unsafe {
            match self.operation {
                Operation::Insert => (*triggers).trig_insert_after_row,
                Operation::Update => (*triggers).trig_update_after_row,
            }
        };
        !self.capture.is_null() || !triggers.is_null() && after_row()
    }

    fn constraints(&self) -> Constraints {
        let not_null = self.attributes().filter(|(_, attribute)| attribute.attnotnull);
        let not_null = not_null.map(|(place, _)| place).collect();
        // SAFETY: the relation is open, its descriptor complete.
        let (checks, partition) = unsafe {
            let constraints = (*self.descriptor).constr;
            (
                !constraints.is_null() && (*constraints).num_check > 0,
                (*(*self.relation).rd_rel).relispartition,
            )
        };
        Constraints { not_null, checks, partition }
    }

    /// Checks a row against the table's constraints.
    ///
    /// # Safety
    /// `start` was called; the slot holds a row of the table, its arrays filled.
    unsafe fn check(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: by the caller's promise; the arrays have a place for each column.
        unsafe {
            let Constraints { not_null, checks, partition } = &self.constraints;
            if *checks || not_null.iter().any(|place| *(*slot).tts_isnull.add(*place)) {
                pg_sys::ExecConstraints(self.info, slot, self.estate);
            }
            if *partition {
                pg_sys::ExecPartitionCheck(self.info, slot, self.estate, true);
            }
        }
    }

    /// The open indexes, each with what the executor knows of it.
    fn indexes(&self) -> impl Iterator<Item = (pg_sys::Relation, *mut pg_sys::IndexInfo)> {
        // SAFETY: the arrays have a place for each index that `start` opened.
        unsafe {
            let (info, count) = (self.info, (*self.info).ri_NumIndices as usize);
            (0..count)
                .map(move |i| (*(*info).ri_IndexRelationDescs.add(i), *(*info).ri_IndexRelationInfo.add(i)))
        }
    }
}

/// What a row is checked against.
#[derive(Default)]
struct Constraints {
    /// The places of columns that are never NULL.
    not_null: Vec<usize>,
    /// There are CHECK constraints.
    checks: bool,
    /// The table is a partition.
    partition: bool,
}

/// Makes a slot hold the row that its arrays were filled with.
///
/// # Safety
/// The slot is empty, and every place of its arrays is filled, with values that live as long as they are held.
unsafe fn hold_values(slot: *mut pg_sys::TupleTableSlot, columns: usize) {
    // SAFETY: by the caller's promise; this is all that `ExecStoreVirtualTuple` does.
    unsafe {
        (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*slot).tts_nvalid = columns as i16;
    }
}

/// Empties slots.
///
/// # Safety
/// They are slots of an open relation.
unsafe fn clear(slots: &[*mut pg_sys::TupleTableSlot]) {
    // SAFETY: by the caller's promise; an ERROR would leave nothing on this stack that has to be dropped.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            for slot in slots {
                if let Some(clear) = (*(**slot).tts_ops).clear {
                    clear(*slot);
                }
            }
        });
    }
}

/// A domain whose constraints are checked for each value of a column.
struct Domain {
    place: usize,
    type_oid: Oid,
    /// What `domain_check` keeps from call to call.
    kept: *mut core::ffi::c_void,
}

/// The domains among the columns at these places.
fn domains(target: &Target, places: &[usize]) -> Vec<Domain> {
    let of_domain = |(place, attribute): (usize, &pg_sys::FormData_pg_attribute)| {
        // SAFETY: looks the type up in the catalogue.
        let is_domain = unsafe { pg_sys::get_typtype(attribute.atttypid) } as u8 == b'd';
        (is_domain && places.contains(&place)).then_some(Domain {
            place,
            type_oid: attribute.atttypid,
            kept: std::ptr::null_mut(),
        })
    };
    target.attributes().filter_map(of_domain).collect()
}

impl Domain {
    /// Raises an error where the domain does not take the value.
    ///
    /// # Safety
    /// The value is one of the domain's base type; the executor's state is alive as long as `self` is used.
    unsafe fn check(&mut self, value: Datum, null: bool, estate: *mut pg_sys::EState) {
        // SAFETY: by the caller's promise.
        unsafe {
            pg_sys::domain_check(value, null, self.type_oid, &mut self.kept, (*estate).es_query_cxt);
        }
    }
}

fn attribute_name(attribute: &pg_sys::FormData_pg_attribute) -> std::borrow::Cow<'_, str> {
    // SAFETY: a NUL-terminated name of the catalogue.
    unsafe { CStr::from_ptr(attribute.attname.data.as_ptr()) }.to_string_lossy()
}

/// The value of a text for a column, by the column's own input function and limits.
fn input(attribute: &pg_sys::FormData_pg_attribute, text: &str) -> Answer<Datum> {
    let text = c_string(text)?;
    let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: the type comes from the catalogue; the string outlives the call.
    Ok(unsafe {
        pg_sys::getTypeInputInfo(attribute.atttypid, &mut input, &mut parameter);
        pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, attribute.atttypmod)
    })
}

/// Whether an index is one over columns, of all rows, and checks at once what it checks.
///
/// # Safety
/// Both belong to one open index.
unsafe fn is_simple(index: pg_sys::Relation, info: *mut pg_sys::IndexInfo) -> bool {
    // SAFETY: by the caller's promise.
    unsafe {
        (*info).ii_Expressions.is_null()
            && (*info).ii_Predicate.is_null()
            && (*info).ii_ExclusionOps.is_null()
            && (*info).ii_ReadyForInserts
            && (*(*index).rd_index).indimmediate
    }
}
