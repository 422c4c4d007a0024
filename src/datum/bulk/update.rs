//! Rows looked up by their key, and changed where they are found: no plan, no lock and no look-up besides.

use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};

use super::{
    Domain, FixedColumn, Operation, Sent, Target, Witness, attribute_name, domains, hold_values, input,
    is_simple,
};
use crate::datum::{Row, Scratch, release};
use crate::error::Answer;

/// Rows between two looks at whether the caller wants to go on.
const ROWS_BETWEEN_INTERRUPTS: usize = 1_000;

/// Look-ups by key in a table, and an UPDATE of the rows found. All look-ups see the same snapshot.
pub struct BulkUpdate {
    target: Target,
    scan: pg_sys::IndexScanDesc,
    keys: Vec<pg_sys::ScanKeyData>,
    /// The sent column that each key is compared with; `None` where the value is fixed.
    sources: Vec<Option<usize>>,
    old: *mut pg_sys::TupleTableSlot,
    new: *mut pg_sys::TupleTableSlot,
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
        // SAFETY: the table's indexes are open.
        let Some((index, keys, sources)) = (unsafe { find_index(&target, &wanted) }) else {
            target.finish()?;
            return Ok(None);
        };
        // SAFETY: the relation and its index are open, the snapshot is that of `start`.
        let (scan, old, new) = unsafe {
            (
                release::begin_index_scan(target.relation, index, keys.len() as i32),
                pg_sys::table_slot_create(target.relation, std::ptr::null_mut()),
                pg_sys::table_slot_create(target.relation, std::ptr::null_mut()),
            )
        };
        Ok(Some(BulkUpdate {
            scan,
            keys,
            sources,
            old,
            new,
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
        for (key, source) in self.keys.iter_mut().zip(&self.sources) {
            if let Some(value) = source.and_then(|column| row[column]) {
                key.sk_argument = value;
            }
        }
        // SAFETY: scan and slots are open; the slot's arrays have a place for each attribute. The scan keeps what it
        // allocates from one row to the next.
        unsafe {
            let saved = pg_sys::MemoryContextSwitchTo(self.lasting);
            pg_sys::index_rescan(
                self.scan,
                self.keys.as_mut_ptr(),
                self.keys.len() as i32,
                std::ptr::null_mut(),
                0,
            );
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let found = pg_sys::index_getnext_slot(self.scan, forward, self.old);
            pg_sys::MemoryContextSwitchTo(saved);
            if !found {
                return None;
            }
            pg_sys::slot_getallattrs(self.old);
            for (column, place) in self.places.iter().enumerate() {
                self.values[column] = *(*self.old).tts_values.add(*place);
                self.nulls[column] = *(*self.old).tts_isnull.add(*place);
            }
        }
        Some(Row::new(&self.values, &self.nulls))
    }

    /// Changes the row that was found last to `row`, sent so; `false` where somebody else changed it meanwhile.
    ///
    /// # Errors
    /// Those of the witness.
    pub fn update(&mut self, row: &[Option<Datum>], sent: Sent<'_>) -> Answer<bool> {
        if !self.target.begun {
            // SAFETY: the context outlives `self`; what triggers keep outlives the row.
            let saved = unsafe { pg_sys::MemoryContextSwitchTo(self.lasting) };
            self.target.begin();
            // SAFETY: it was current before.
            unsafe { pg_sys::MemoryContextSwitchTo(saved) };
        }
        let (old, new, columns) = (self.old, self.new, self.target.columns);
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
            let Some(recheck) = release::update_tuple(info, estate, old, new) else { return Ok(false) };
            if self.target.has_row_triggers() {
                release::after_row_update(estate, info, old, new, recheck, capture);
            }
            pg_sys::ExecClearTuple(new);
            pg_sys::ReScanExprContext(release::per_tuple_context(estate));
        }
        Ok(true)
    }

    /// Ends the UPDATE.
    ///
    /// # Errors
    /// Those of the witness.
    pub fn finish(self) -> Answer<()> {
        // SAFETY: opened by `begin`.
        unsafe {
            pg_sys::index_endscan(self.scan);
            pg_sys::ExecDropSingleTupleTableSlot(self.old);
            pg_sys::ExecDropSingleTupleTableSlot(self.new);
        }
        self.target.finish()
    }
}

/// The index to look rows up in, the keys of the scan, and where their values come from.
type KeyIndex = (pg_sys::Relation, Vec<pg_sys::ScanKeyData>, Vec<Option<usize>>);

/// The plain unique index over the wanted places, each given with its source and fixed value.
///
/// # Safety
/// The target's indexes are open.
unsafe fn find_index(target: &Target, wanted: &[(usize, Option<usize>, Datum)]) -> Option<KeyIndex> {
    // SAFETY: indexes are open, by the caller's promise; their arrays have a place for each key column.
    unsafe {
        for (index, info) in target.indexes() {
            let form = (*index).rd_index;
            let columns = (*form).indnkeyatts as usize;
            let is_plain_btree = (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID && is_simple(index, info);
            if !(*form).indisunique || !(*form).indisvalid || !is_plain_btree || columns != wanted.len() {
                continue;
            }
            let mut keys = Vec::with_capacity(columns);
            let mut sources = Vec::with_capacity(columns);
            let numbers = std::slice::from_raw_parts((*form).indkey.values.as_ptr(), columns);
            for (column, number) in numbers.iter().enumerate() {
                let Some((place, source, value)) =
                    wanted.iter().find(|(place, ..)| i32::from(*number) == *place as i32 + 1)
                else {
                    break;
                };
                let collation = *(*index).rd_indcollation.add(column);
                // Another collation than the column's may call other values equal; a column that comes twice
                // leaves another one out.
                if collation != (*release::attribute(target.descriptor, *place)).attcollation
                    || numbers[..column].contains(number)
                {
                    break;
                }
                let strategy = pg_sys::BTEqualStrategyNumber as u16;
                let (family, type_oid) =
                    (*(*index).rd_opfamily.add(column), *(*index).rd_opcintype.add(column));
                let operator = pg_sys::get_opfamily_member(family, type_oid, type_oid, strategy as i16);
                let function = pg_sys::get_opcode(operator);
                let mut key = pg_sys::ScanKeyData::default();
                pg_sys::ScanKeyInit(&mut key, column as i16 + 1, strategy, function, *value);
                key.sk_collation = collation;
                keys.push(key);
                sources.push(*source);
            }
            if keys.len() == columns {
                return Some((index, keys, sources));
            }
        }
    }
    None
}
