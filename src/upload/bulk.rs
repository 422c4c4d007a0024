//! Rows handed to the table's access method, where that stores them exactly as they were sent.

use plimsoll_core::digest::Digester;
use plimsoll_core::row::{Fields, examine_each};
use plimsoll_core::value::ColumnType;

use super::IncomingRow;
use super::change::{Expected, short};
use super::height::{height, is_lower};
use crate::access::Database;
use crate::datum::{BulkInsert, BulkUpdate, Codec, FixedColumn, Sent, Witness, is_deterministic};
use crate::error::{Answer, Problem, state};
use crate::kept;
use crate::table::ManagedTable;

/// What became of rows that were looked up by their key.
#[derive(Default)]
pub struct Sorted<'u> {
    /// Rows that are stored now in place of ones that stood lower, or as high where the version does not tell.
    pub updated: Vec<IncomingRow<'u>>,
    /// Rows that are stored with the same content.
    pub unchanged: Vec<IncomingRow<'u>>,
    /// Rows of which there is none with the same key.
    pub new: Vec<IncomingRow<'u>>,
    /// Rows that differ from stored ones that stand higher, or as high where the version tells; nothing was done
    /// with them.
    pub others: Vec<IncomingRow<'u>>,
    /// Rows in whose place the replica does not have what was expected; nothing was done with them.
    pub unexpected: Vec<IncomingRow<'u>>,
}

/// Whether keys that the index calls equal are the same value: citext says so of `A` and `a`.
pub fn has_exact_keys(table: &ManagedTable) -> bool {
    table.schema.key_indexes().iter().all(|place| {
        let collation = table.physical[*place].collation;
        has_exact_equality(&table.schema.columns()[*place].column_type) && is_deterministic(collation)
    })
}

/// Whether values of a type that are equal have the same digest. A month and 30 days are equal intervals, and what
/// other types call equal is their own matter.
fn has_exact_equality(column_type: &ColumnType) -> bool {
    match column_type {
        ColumnType::Citext | ColumnType::Interval(_) | ColumnType::Other(_) => false,
        ColumnType::Array(inner) | ColumnType::Range(inner) | ColumnType::Multirange(inner) => {
            has_exact_equality(inner)
        }
        ColumnType::Composite(attributes) => {
            attributes.iter().all(|attribute| has_exact_equality(&attribute.column_type))
        }
        _ => true,
    }
}

fn sent_columns(table: &ManagedTable) -> Vec<&str> {
    table.physical.iter().map(|column| column.name.as_str()).collect()
}

fn tenant_columns(database: &Database, table: &ManagedTable) -> Vec<FixedColumn> {
    let pairs = table.tenant.iter().zip(table.tenant_texts(database));
    pairs.map(|(column, text)| FixedColumn { name: column.name.clone(), text }).collect()
}

/// Hands each field's place among the sent columns and its value to `take`, as a datum in the current context.
fn each_datum(
    row: &[u8],
    columns: &[plimsoll_core::schema::Column],
    codecs: &mut [Codec],
    mut take: impl FnMut(usize, pgrx::pg_sys::Datum),
) -> Answer<()> {
    let mut place = 0;
    for field in Fields::new(row) {
        let field = field?;
        while columns.get(place).is_some_and(|column| column.number < field.number) {
            place += 1;
        }
        if let Some(codec) = codecs.get_mut(place) {
            take(place, codec.make_datum(&field.value)?);
        }
    }
    Ok(())
}

fn begin_update(
    database: &Database,
    table: &ManagedTable,
    witness: Option<Box<dyn Witness>>,
) -> Answer<Option<BulkUpdate>> {
    if !has_exact_keys(table) {
        return Ok(None);
    }
    let key = table.schema.key_indexes();
    let identities = (0..table.physical.len()).filter(|place| table.physical[*place].always_identity);
    let kept: Vec<usize> = key.iter().copied().chain(identities).collect();
    let fixed = tenant_columns(database, table);
    BulkUpdate::begin(table.oid, &sent_columns(table), key, &kept, &fixed, witness)
}

/// Whether one of these rows exists; `false` too where the table needs statements to tell.
pub fn one_exists(database: &Database, table: &mut ManagedTable, rows: &[&[u8]]) -> Answer<bool> {
    let Some(mut update) = begin_update(database, table, None)? else { return Ok(false) };
    let (columns, codecs) = (table.schema.columns(), &mut table.codecs);
    let mut datums = vec![None; columns.len()];
    let mut found = false;
    for row in rows {
        update.with_row(|update| {
            datums.fill(None);
            // Rows that the columns do not hold are refused later, one by one.
            let made = each_datum(row, columns, codecs, |place, value| datums[place] = Some(value));
            found |= made.is_ok() && update.find(&datums).is_some();
            Ok(())
        })?;
    }
    update.finish()?;
    Ok(found)
}

fn begin_insert(database: &Database, table: &ManagedTable) -> Answer<Option<BulkInsert>> {
    let fixed = tenant_columns(database, table);
    BulkInsert::begin(table.oid, &sent_columns(table), &fixed, kept::witness(database, table)?)
}

/// Inserts the rows; `false` where the table needs a statement for that.
pub fn insert<'r>(
    database: &Database,
    table: &mut ManagedTable,
    rows: impl Iterator<Item = &'r IncomingRow<'r>>,
) -> Answer<bool> {
    let Some(mut insert) = begin_insert(database, table)? else { return Ok(false) };
    let (columns, codecs) = (table.schema.columns(), &mut table.codecs);
    for row in rows {
        insert.push(row.sent(), |values| {
            each_datum(row.row, columns, codecs, |place, value| values.set(place, value))
        })?;
    }
    insert.finish()?;
    Ok(true)
}

/// Inserts rows that nobody has looked at yet, each as soon as it is checked; how many. `None` where the table needs
/// a statement for that, or a row is none that its columns hold: the caller rolls back. Each is handed to `take`.
pub fn insert_checked<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: impl Iterator<Item = plimsoll_core::Result<&'u [u8]>>,
    mut take: impl FnMut(&'u [u8]) -> Answer<()>,
) -> Answer<Option<u64>> {
    let Some(mut insert) = begin_insert(database, table)? else { return Ok(None) };
    let (schema, codecs) = (&table.schema, &mut table.codecs);
    let mut count = 0;
    for row in rows {
        let Ok(row) = row else { return Ok(None) };
        let mut fits = true;
        let pushed = insert.push(Sent { row, digest: None }, |values| {
            let examined = examine_each(row, schema, |place, field, _| {
                match codecs[place].make_datum(&field.value) {
                    Ok(datum) => values.set(place, datum),
                    Err(_) => fits = false,
                }
                Ok(())
            });
            fits &= examined.is_ok();
            if fits { Ok(()) } else { Err(Problem::new(state::MALFORMED, "no row of the table")) }
        });
        if !fits {
            return Ok(None);
        }
        pushed?;
        take(row)?;
        count += 1;
    }
    insert.finish()?;
    Ok(Some(count))
}

/// Looks each row up by its key, and stores those that raise the version of a stored one; where rows do not stand at
/// their version, those that do not lower it; where something is expected, those alone in whose place the replica has
/// that. `None` where the table needs statements for that, or where somebody else changed a row meanwhile: the caller
/// rolls back.
pub fn update_raised<'u>(
    database: &Database,
    table: &mut ManagedTable,
    rows: &[IncomingRow<'u>],
    expected: Option<&Expected>,
) -> Answer<Option<Sorted<'u>>> {
    let witness = kept::witness(database, table)?;
    let Some(mut update) = begin_update(database, table, witness)? else { return Ok(None) };
    let (numbers, version, is_hashed) = (table.numbers(), table.schema.version_index(), table.is_hashed());
    let schema = table.schema.clone();
    let (columns, codecs) = (table.schema.columns(), &mut table.codecs);
    let digester = Digester::new(database.fingerprint_key.clone());
    let mut datums = vec![None; columns.len()];
    let mut form = Vec::new();
    let mut sorted = Sorted::default();
    for row in rows {
        let went_well = update.with_row(|update| {
            datums.fill(None);
            each_datum(row.row, columns, codecs, |place, value| datums[place] = Some(value))?;
            let expected = expected.map(|expected| expected.of(row));
            let Some(stored) = update.find(&datums) else {
                match expected {
                    Some(Some(_)) => sorted.unexpected.push(*row),
                    _ => sorted.new.push(*row),
                }
                return Ok(true);
            };
            let before = match version {
                Some(version) => stored.position(version, &mut codecs[version])?,
                None => None,
            };
            let now = if is_hashed { height(row.row, &schema)? } else { Some(row.position) };
            if !is_lower(before, now) || expected.is_some() {
                form.clear();
                stored.encode_digest_form(0, &numbers, codecs, &mut form)?;
                let digest = digester.digest_of_form(&form);
                if digest == row.digest {
                    sorted.unchanged.push(*row);
                    return Ok(true);
                }
                if expected.is_some_and(|expected| expected != Some(short(&digest))) {
                    sorted.unexpected.push(*row);
                    return Ok(true);
                }
            }
            if !is_lower(before, now) && (!is_hashed || is_lower(now, before)) {
                sorted.others.push(*row);
                return Ok(true);
            }
            sorted.updated.push(*row);
            update.update(&datums, row.sent())
        })?;
        if !went_well {
            return Ok(None);
        }
    }
    update.finish()?;
    Ok(Some(sorted))
}
