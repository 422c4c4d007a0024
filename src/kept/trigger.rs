//! The statement trigger: the only writer of changes. It locks nothing of ours and never updates; what it writes
//! is one row a statement and replica.

use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{IntoDatum, pg_guard};
use plimsoll_core::blocks::{Change, Changes, pack_entries};
use plimsoll_core::digest::{DigestQueue, FingerprintKey, RowDigest};
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::row::digest_form;

use super::mapping::{self, Mapping, Seen, Tenant};
use super::{counting, load, read, truncate};
use crate::access::Database;
use crate::datum::{Event, Fired, Row, Sent, Witness, insert_row, may_have_children};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::table::ManagedTable;

/// The version of the calling convention, as Postgres asks for it beside each function.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_kept_trigger_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// `plimsoll.kept_trigger()`. On a table that is not registered it does nothing: its name, arguments and owner
/// are whoever's made the trigger, and are not looked at.
///
/// # Safety
/// Called by Postgres.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn kept_trigger_wrapper(fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: Postgres' own argument, used within the call.
    match unsafe { Fired::new(fcinfo) } {
        Some(fired) => fire(&fired).or_raise(),
        None => {
            Problem::new(state::BAD_ARGUMENT, "kept_trigger can only be a trigger after a statement").raise()
        }
    }
    Datum::from(0usize)
}

/// The changes of one database's rows.
struct Touched {
    tenant: Rc<Tenant>,
    /// Rows that wait to be hashed together, and whether they were added.
    waiting: DigestQueue<(Seen, bool)>,
    changes: Changes,
    /// Where the blocks are, once asked.
    blocks: Option<Vec<Dyadic>>,
    /// A row had no digest: nothing is known any more.
    unknown: bool,
}

/// What a statement did, database by database.
struct Statement {
    mapping: Rc<Mapping>,
    touched: Vec<Touched>,
    /// The place in `touched` of each tenant that has one, by the bytes that its rows are known by.
    places: HashMap<Vec<u8>, usize>,
    /// The tenant of the row before, and its place in `touched`.
    last: (Vec<u8>, Option<usize>),
    bytes: Vec<u8>,
    /// Rows may be among these that no replica counts: nothing is known afterwards.
    unknown: bool,
}

fn fire(fired: &Fired) -> Answer<()> {
    let Some(mapping) = mapping::mapping(fired.relation())? else { return Ok(()) };
    if fired.event() == Event::Truncate {
        return truncate::truncated(mapping.table_id, mapping.root == fired.relation());
    }
    let unknown = fired.may_have_children() && load::has_children(fired.relation())?;
    let mut statement = Statement::new(mapping, unknown);
    fired.rows_before(&mut |row| statement.take(row, false, None))?;
    fired.rows_after(&mut |row| statement.take(row, true, None))?;
    statement.write()
}

/// Takes rows where they are written, in place of the trigger, which would do the same with them.
struct Told {
    function: Oid,
    statement: Statement,
    /// With which the digests of sent rows are made.
    key: FingerprintKey,
}

/// Who is to be told of rows of a database that are written to a table without a statement; `None` where nothing is
/// kept of it.
pub fn witness(database: &Database, table: &ManagedTable) -> Answer<Option<Box<dyn Witness>>> {
    if !table.keep_manifest {
        return Ok(None);
    }
    let (Some(mapping), Some(function)) = (mapping::mapping(table.oid)?, mapping::trigger_function()) else {
        return Ok(None);
    };
    let unknown = may_have_children(table.oid) && load::has_children(table.oid)?;
    let (statement, key) = (Statement::new(mapping, unknown), database.fingerprint_key.clone());
    Ok(Some(Box::new(Told { function, statement, key })))
}

impl Witness for Told {
    fn function(&self) -> Oid {
        self.function
    }

    fn added(&mut self, row: &Row<'_>, sent: Sent<'_>) -> Answer<()> {
        self.statement.take(row, true, Some((sent, &self.key)))
    }

    fn removed(&mut self, row: &Row<'_>) -> Answer<()> {
        self.statement.take(row, false, None)
    }

    fn end(self: Box<Self>) -> Answer<()> {
        self.statement.write()
    }
}

impl Statement {
    fn new(mapping: Rc<Mapping>, unknown: bool) -> Self {
        Statement {
            mapping,
            touched: Vec::new(),
            places: HashMap::new(),
            last: (vec![u8::MAX], None),
            bytes: Vec::new(),
            unknown,
        }
    }

    /// Writes what was taken.
    fn write(self) -> Answer<()> {
        self.touched.into_iter().try_for_each(|touched| touched.write(&self.mapping))
    }

    /// Takes a row; one that was sent, by its digest if that was made with the key its database has.
    fn take(&mut self, row: &Row<'_>, added: bool, sent: Option<(Sent<'_>, &FingerprintKey)>) -> Answer<()> {
        let Some(place) = self.place(row)? else { return Ok(()) };
        let touched = &mut self.touched[place];
        let form = touched.waiting.form();
        let start = form.len();
        let Some(seen) = self.mapping.encode(row, form) else {
            form.truncate(start);
            touched.unknown = true;
            return Ok(());
        };
        if let Some((sent, key)) = sent {
            if !has_form(sent.row, &form[start..], &mut self.bytes)? {
                let message = "a row that would not be stored as it was sent";
                return Err(Problem::new(state::UNSUPPORTED, message));
            }
            if let Some(digest) = sent.digest.filter(|_| touched.tenant.digester.has_key(key)) {
                form.truncate(start);
                note(&mut touched.changes, (&self.mapping, &touched.tenant), seen, *digest, added);
                return if touched.changes.is_full() { touched.flush(&self.mapping) } else { Ok(()) };
            }
        }
        if touched.waiting.push((seen, added)) { touched.take_in(&self.mapping) } else { Ok(()) }
    }

    /// Where in `touched` the changes of the row's database are; `None` for rows of nobody.
    fn place(&mut self, row: &Row<'_>) -> Answer<Option<usize>> {
        self.bytes.clear();
        if !self.mapping.tenant_bytes(row, &mut self.bytes) {
            return Ok(None);
        }
        if self.bytes == self.last.0 {
            return Ok(self.last.1);
        }
        let place = match self.places.get(&self.bytes) {
            Some(place) => Some(*place),
            None => self.mapping.tenant(row, &self.bytes)?.map(|tenant| self.begin(tenant)),
        };
        std::mem::swap(&mut self.last.0, &mut self.bytes);
        self.last.1 = place;
        Ok(place)
    }

    /// Makes a place for the changes of the tenant whose bytes were just read.
    fn begin(&mut self, tenant: Rc<Tenant>) -> usize {
        let place = self.touched.len();
        let waiting = DigestQueue::new(&tenant.digester);
        let (changes, unknown) = (Changes::default(), self.unknown);
        self.touched.push(Touched { tenant, waiting, changes, blocks: None, unknown });
        self.places.insert(self.bytes.clone(), place);
        place
    }
}

impl Touched {
    /// Takes in the rows that wait.
    fn take_in(&mut self, mapping: &Mapping) -> Answer<()> {
        let Touched { tenant, waiting, changes, .. } = self;
        waiting.take_all(|(seen, added), digest, _| {
            note(changes, (mapping, tenant), seen, digest, added);
            Ok::<_, Problem>(true)
        })?;
        if self.changes.is_full() { self.flush(mapping) } else { Ok(()) }
    }

    fn flush(&mut self, mapping: &Mapping) -> Answer<()> {
        if self.blocks.is_none() {
            self.blocks = Some(read::block_ranges(self.tenant.id, mapping.table_id)?);
        }
        self.changes.flush(self.blocks.as_deref().unwrap_or_default());
        Ok(())
    }

    fn write(mut self, mapping: &Mapping) -> Answer<()> {
        self.take_in(mapping)?;
        if self.changes.are_many() && !self.unknown {
            self.flush(mapping)?;
        }
        let blocks = self.blocks.unwrap_or_default();
        if self.unknown {
            return write_delta(&self.tenant, mapping.table_id, None);
        }
        let mut entries = self.changes.finish(&blocks);
        // Rows that are what they were before.
        entries.retain(|entry| entry.change != Fingerprint::default());
        if entries.is_empty() {
            return Ok(());
        }
        write_delta(&self.tenant, mapping.table_id, Some(&pack_entries(&entries)))
    }
}

/// Notes a row whose digest was made.
fn note(
    changes: &mut Changes,
    (mapping, tenant): (&Mapping, &Tenant),
    seen: Seen,
    digest: RowDigest,
    added: bool,
) {
    counting::count(mapping.table_id, tenant.id, &digest, added);
    changes.push(Change { position: seen.position, digest, modified: seen.modified, added });
}

/// Whether a row in wire form has this digest form. `buffer` is overwritten.
fn has_form(row: &[u8], form: &[u8], buffer: &mut Vec<u8>) -> Answer<bool> {
    // Most values have one form only.
    if row == form {
        return Ok(true);
    }
    buffer.clear();
    digest_form(row, buffer)?;
    Ok(*buffer == form)
}

/// Writes what a statement changed of one replica; without entries: that nobody knows.
fn write_delta(tenant: &Tenant, table_id: i32, entries: Option<&[u8]>) -> Answer<()> {
    let Some(table) = mapping::delta_table() else { return Ok(()) };
    let values =
        [tenant.id.into_datum(), table_id.into_datum(), tenant.stamp.into_datum(), entries.into_datum()];
    insert_row(table, &values);
    Ok(())
}
