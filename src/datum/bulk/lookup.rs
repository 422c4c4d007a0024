//! Rows looked up by their key in a unique index.

use pgrx::pg_sys::{self, Datum};

use super::{Target, is_simple};
use crate::datum::{Scratch, release};

/// From so many neighbours found one after the other on, going on in the index costs less than a search for each.
const WORTHWHILE: u32 = 8;

/// Look-ups by search after neighbours were not those that were wanted.
const PAUSE: u32 = 256;

/// A scan of the index that begins anew for each row, or goes on from one to the next: rows that are sent in the order
/// of their keys stand side by side in it.
pub(super) struct Lookup {
    scan: pg_sys::IndexScanDesc,
    keys: Vec<Key>,
    /// What the scan is told of each key.
    conditions: Vec<pg_sys::ScanKeyData>,
    /// Values among these that are looked at again when the row that they came with is gone.
    told: Scratch,
    /// The row that was read last.
    pub(super) row: *mut pg_sys::TupleTableSlot,
    /// Where what lasts longer than a row is allocated.
    lasting: pg_sys::MemoryContext,
    /// Whether the scan can go on, which it cannot where its last key is a fixed value.
    goes_on: bool,
    /// Whether it does so now, and how many rows it found that way since it began.
    going_on: bool,
    found: u32,
    /// Look-ups until it is tried again.
    pause: u32,
}

/// A column of the index.
struct Key {
    /// Its place in the table.
    place: usize,
    /// The sent column that it is compared with; `None` where the value is fixed.
    source: Option<usize>,
    /// The row with exactly this value, and this value or a higher one.
    equal: pg_sys::ScanKeyData,
    onwards: Option<pg_sys::ScanKeyData>,
    by_value: bool,
    /// As `pg_attribute.attlen` has it: negative where lengths vary.
    length: i32,
}

impl Key {
    /// A value in the current context.
    ///
    /// # Safety
    /// It is one of the column's type, which is passed by reference.
    unsafe fn copy(&self, value: Datum) -> Datum {
        // SAFETY: by the caller's promise; the allocation is as long as the value.
        unsafe {
            match usize::try_from(self.length) {
                Ok(length) => {
                    let place = pg_sys::palloc(length).cast::<u8>();
                    std::ptr::copy_nonoverlapping(value.cast_mut_ptr::<u8>(), place, length);
                    Datum::from(place)
                }
                Err(_) => Datum::from(pg_sys::pg_detoast_datum_copy(value.cast_mut_ptr())),
            }
        }
    }
}

impl Lookup {
    /// Look-ups by the plain unique index over the wanted places, each given with its source and fixed value;
    /// `None` where there is none.
    ///
    /// # Safety
    /// The target was started, in a context that outlives the answer.
    pub(super) unsafe fn begin(target: &Target, wanted: &[(usize, Option<usize>, Datum)]) -> Option<Lookup> {
        // SAFETY: by the caller's promise; the snapshot is that of the start.
        unsafe {
            let (index, keys) = target
                .indexes()
                .find_map(|(index, info)| Some((index, keys(target, index, info, wanted)?)))?;
            let last = keys.last()?;
            Some(Lookup {
                scan: release::begin_index_scan(target.relation, index, keys.len() as i32),
                conditions: keys.iter().map(|key| key.equal).collect(),
                told: Scratch::new(),
                row: pg_sys::table_slot_create(target.relation, std::ptr::null_mut()),
                lasting: pg_sys::CurrentMemoryContext,
                goes_on: last.source.is_some() && last.onwards.is_some(),
                keys,
                going_on: false,
                found: 0,
                pause: 0,
            })
        }
    }

    /// Whether there is a row with the key of `row`, which has a value for each sent column; it is read then.
    ///
    /// # Safety
    /// The values are of the columns' types, and live until the look-up is done.
    pub(super) unsafe fn find(&mut self, row: &[Option<Datum>]) -> bool {
        for key in &mut self.keys {
            if let Some(value) = key.source.and_then(|column| row[column]) {
                key.equal.sk_argument = value;
            }
        }
        // SAFETY: scan and slot are open; by the caller's promise.
        unsafe {
            if self.going_on {
                if self.read() && self.is_wanted() {
                    self.found += 1;
                    return true;
                }
                self.going_on = false;
                if self.found < WORTHWHILE {
                    self.pause = PAUSE;
                }
            }
            self.going_on = self.goes_on && self.pause == 0;
            self.pause = self.pause.saturating_sub(1);
            self.found = 0;
            self.told.reset();
            let last = self.keys.len() - 1;
            for (place, (condition, key)) in self.conditions.iter_mut().zip(&self.keys).enumerate() {
                *condition = match key.onwards {
                    Some(onwards) if self.going_on && place == last => onwards,
                    _ => key.equal,
                };
                let value = key.equal.sk_argument;
                condition.sk_argument = match self.going_on && key.source.is_some() && !key.by_value {
                    true => self.told.within(|| key.copy(value)),
                    false => value,
                };
            }
            let saved = pg_sys::MemoryContextSwitchTo(self.lasting);
            let (conditions, count) = (self.conditions.as_mut_ptr(), self.conditions.len() as i32);
            pg_sys::index_rescan(self.scan, conditions, count, std::ptr::null_mut(), 0);
            pg_sys::MemoryContextSwitchTo(saved);
            self.read() && self.is_wanted()
        }
    }

    /// Reads the scan's next row.
    ///
    /// # Safety
    /// The scan has begun.
    unsafe fn read(&mut self) -> bool {
        // SAFETY: scan and slot are open. The scan keeps what it allocates from one row to the next.
        unsafe {
            let saved = pg_sys::MemoryContextSwitchTo(self.lasting);
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let read = pg_sys::index_getnext_slot(self.scan, forward, self.row);
            pg_sys::MemoryContextSwitchTo(saved);
            if read {
                pg_sys::slot_getallattrs(self.row);
            }
            read
        }
    }

    /// Whether the row that was read has the key that is looked for. Whatever the scan was told holds.
    ///
    /// # Safety
    /// A row was read, with all its columns; the keys have values.
    unsafe fn is_wanted(&mut self) -> bool {
        // SAFETY: by the caller's promise; the function is the one by which the index tells what is equal.
        unsafe {
            if !self.going_on {
                return true;
            }
            let row = self.row;
            self.keys.iter_mut().filter(|key| key.source.is_some()).all(|key| {
                let (stored, wanted) = (*(*row).tts_values.add(key.place), key.equal.sk_argument);
                let equal = &mut key.equal;
                !*(*row).tts_isnull.add(key.place)
                    && (key.by_value && stored.value() == wanted.value()
                        || pg_sys::FunctionCall2Coll(&mut equal.sk_func, equal.sk_collation, stored, wanted)
                            .value()
                            != 0)
            })
        }
    }

    /// Ends the look-ups.
    pub(super) fn end(self) {
        // SAFETY: opened by `begin`.
        unsafe {
            pg_sys::index_endscan(self.scan);
            pg_sys::ExecDropSingleTupleTableSlot(self.row);
        }
    }
}

/// The keys of an index that is a plain unique one over the wanted places, which are given with source and fixed value.
///
/// # Safety
/// Both belong to one open index of the target.
unsafe fn keys(
    target: &Target,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    wanted: &[(usize, Option<usize>, Datum)],
) -> Option<Vec<Key>> {
    // SAFETY: by the caller's promise; the index's arrays have a place for each key column.
    unsafe {
        let form = (*index).rd_index;
        let columns = (*form).indnkeyatts as usize;
        let is_plain_btree = (*(*index).rd_rel).relam == pg_sys::BTREE_AM_OID && is_simple(index, info);
        if !(*form).indisunique || !(*form).indisvalid || !is_plain_btree || columns != wanted.len() {
            return None;
        }
        let numbers = std::slice::from_raw_parts((*form).indkey.values.as_ptr(), columns);
        let key = |(column, number): (usize, &i16)| {
            let (place, source, value) =
                wanted.iter().find(|(place, ..)| i32::from(*number) == *place as i32 + 1)?;
            let collation = *(*index).rd_indcollation.add(column);
            let attribute = &*release::attribute(target.descriptor, *place);
            // Another collation than the column's may call other values equal; a column that comes twice leaves
            // another one out.
            if collation != attribute.attcollation || numbers[..column].contains(number) {
                return None;
            }
            let (family, type_oid) = (*(*index).rd_opfamily.add(column), *(*index).rd_opcintype.add(column));
            let condition = |strategy: u32| {
                let operator = pg_sys::get_opfamily_member(family, type_oid, type_oid, strategy as i16);
                let mut key = pg_sys::ScanKeyData::default();
                let function = pg_sys::get_opcode(operator);
                pg_sys::ScanKeyInit(&mut key, column as i16 + 1, strategy as u16, function, *value);
                key.sk_collation = collation;
                key
            };
            let descends = *(*index).rd_indoption.add(column) as u32 & pg_sys::INDOPTION_DESC != 0;
            Some(Key {
                place: *place,
                source: *source,
                equal: condition(pg_sys::BTEqualStrategyNumber),
                onwards: (!descends).then(|| condition(pg_sys::BTGreaterEqualStrategyNumber)),
                by_value: attribute.attbyval,
                length: i32::from(attribute.attlen),
            })
        };
        numbers.iter().enumerate().map(key).collect()
    }
}
