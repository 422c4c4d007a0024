//! Values that reach their type by its own functions: what those refuse, or would keep as another value, must
//! reject its own row, and not stop the rows around it.

use plimsoll_core::row::Fields;

use super::store::fault;
use super::{IncomingRow, RefusedRow, Report};
use crate::datum::{Caught, Scratch, attempt};
use crate::error::{Answer, Problem, state};
use crate::identity::as_owner;
use crate::manifest::{shown_key, shown_value};
use crate::run::shortened;
use crate::table::ManagedTable;

/// The rows whose values their columns' types take as they are; the others are refused in the report.
pub fn with_readable_values<'u>(
    table: &mut ManagedTable,
    rows: Vec<IncomingRow<'u>>,
    report: &mut Report,
) -> Answer<Vec<IncomingRow<'u>>> {
    let particular = particular(table, |_| true);
    let (readable, unreadable) = separate(table, rows, &particular, |row| row.row)?;
    for row in unreadable {
        report.refused.push(refused(table, &row, &particular)?);
    }
    Ok(readable)
}

/// The keys that their columns' types take as they are, each with its place: no row can have another.
pub fn readable_keys<'k>(
    table: &mut ManagedTable,
    keys: Vec<(usize, &'k [u8])>,
) -> Answer<Vec<(usize, &'k [u8])>> {
    let particular = particular(table, |place| table.schema.key_indexes().contains(&place));
    Ok(separate(table, keys, &particular, |(_, key)| key)?.0)
}

/// The columns among these whose types may refuse a value.
fn particular(table: &ManagedTable, is_asked_for: impl Fn(usize) -> bool) -> Vec<usize> {
    let places = 0..table.codecs.len();
    places.filter(|place| is_asked_for(*place) && table.codecs[*place].is_particular()).collect()
}

/// The rows whose values at these places are taken, and those of which one is not.
fn separate<'u, T>(
    table: &mut ManagedTable,
    rows: Vec<T>,
    places: &[usize],
    bytes_of: fn(&T) -> &'u [u8],
) -> Answer<(Vec<T>, Vec<T>)> {
    if places.is_empty() {
        return Ok((rows, Vec::new()));
    }
    let (mut readable, mut unreadable) = (Vec::with_capacity(rows.len()), Vec::new());
    // Halves that are still to be read, the first on top, so that the order is kept.
    let mut groups = vec![rows];
    while let Some(mut group) = groups.pop() {
        pgrx::check_for_interrupts!();
        if read(table, group.iter().map(bytes_of), places)?.is_none() {
            readable.append(&mut group);
        } else if group.len() > 1 {
            let rest = group.split_off(group.len() / 2);
            groups.extend([rest, group]);
        } else {
            unreadable.append(&mut group);
        }
    }
    Ok((readable, unreadable))
}

/// Why a value was not taken.
struct Refusal {
    sqlstate: String,
    message: String,
}

impl Refusal {
    fn of_problem(problem: &Problem) -> Self {
        Refusal { sqlstate: problem.sqlstate(), message: problem.message().to_owned() }
    }

    fn of_error(caught: &Caught) -> Self {
        Refusal { sqlstate: caught.sqlstate(), message: caught.message.clone() }
    }
}

/// Makes the values at these places once, and forgets them; why one could not be made.
fn read<'u>(
    table: &mut ManagedTable,
    rows: impl Iterator<Item = &'u [u8]>,
    places: &[usize],
) -> Answer<Option<Refusal>> {
    let owner = table.owner;
    match attempt(|| as_owner(owner, || make_values(table, rows, places))) {
        Ok(Ok(())) => Ok(None),
        Ok(Err(problem)) if problem.code() == state::WOULD_CHANGE => Ok(Some(Refusal::of_problem(&problem))),
        Ok(Err(problem)) => Err(problem),
        Err(caught) if fault(&caught).is_none() => caught.raise(),
        Err(caught) => Ok(Some(Refusal::of_error(&caught))),
    }
}

fn make_values<'u>(
    table: &mut ManagedTable,
    rows: impl Iterator<Item = &'u [u8]>,
    places: &[usize],
) -> Answer<()> {
    let scratch = Scratch::new();
    for row in rows {
        scratch.reset();
        let mut wanted = places.iter().copied().peekable();
        for field in Fields::new(row) {
            let field = field?;
            let columns = table.schema.columns();
            while wanted.next_if(|place| columns[*place].number < field.number).is_some() {}
            if let Some(place) = wanted.next_if(|place| columns[*place].number == field.number) {
                scratch.within(|| table.codecs[place].make_datum(&field.value))?;
            }
        }
    }
    Ok(())
}

/// Tells the first column of a row whose value is not taken, and why.
fn refused(table: &mut ManagedTable, row: &IncomingRow<'_>, places: &[usize]) -> Answer<RefusedRow> {
    let mut found = None;
    for place in places {
        if let Some(refusal) = read(table, std::iter::once(row.row), &[*place])? {
            found = Some((*place, refusal));
            break;
        }
    }
    // It was refused a moment ago.
    let gone = || Problem::new(state::NOT_IN_STATE, format!("types of {} change meanwhile", table.name));
    let (place, refusal) = found.ok_or_else(gone)?;
    let column = &table.schema.columns()[place];
    let shown = shown_value(row.row, column.number)?;
    let (name, why) = (&column.name, refusal.message);
    let message = shortened(&format!("column \"{name}\": {why}: {shown}; correct the value"));
    Ok(RefusedRow {
        ordinal: row.ordinal,
        waits: false,
        holder: None,
        sqlstate: refusal.sqlstate,
        column: Some(column.name.clone()),
        key: shown_key(row.row, &table.schema)?,
        message,
    })
}
