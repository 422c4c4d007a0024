//! Plimsoll's own numbers of columns: stable while names and attribute numbers are not, never used twice.
//!
//! A column is known by the place where it stands in its table, so that one that is renamed keeps its number, and the
//! digests of its rows. Places mean nothing once the table is another, after a restore: then names say which is
//! which.

use std::collections::HashMap;

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;

use crate::datum::{Attribute, select_planned};
use crate::error::{Answer, Problem, state};

/// A column that has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// Its number.
    pub number: u32,
    /// The name that it was last seen with: registrations name it so.
    pub recorded: String,
    /// Its name now; `None` where the table has no such column any more.
    pub name: Option<String>,
    /// Where it stands in the table, if that was recorded.
    place: Option<i16>,
    /// Whether what is recorded is how it is.
    settled: bool,
}

/// The numbers of a table's columns, in order, and which of its attributes have them.
pub fn of(table_id: i32, oid: Oid, attributes: &[Attribute]) -> Answer<Vec<Numbered>> {
    let mut numbers: Vec<Numbered> = Spi::connect(|client| {
        let rows = select_planned(
            client,
            "SELECT c.column_number, c.column_name::pg_catalog.text, p.attribute_number
             FROM plimsoll.column_record c
             LEFT JOIN plimsoll.column_place p ON p.table_id OPERATOR(pg_catalog.=) c.table_id
                 AND p.column_number OPERATOR(pg_catalog.=) c.column_number
                 AND p.relation_oid OPERATOR(pg_catalog.=) $2
             WHERE c.table_id OPERATOR(pg_catalog.=) $1 ORDER BY c.column_number",
            None,
            &[table_id.into(), oid.into()],
        )?;
        rows.map(|row| {
            Ok::<_, Problem>(Numbered {
                number: row.get::<i32>(1)?.unwrap_or_default() as u32,
                recorded: row.get(2)?.unwrap_or_default(),
                name: None,
                place: row.get(3)?,
                settled: false,
            })
        })
        .collect::<Answer<_>>()
    })?;
    assign(&mut numbers, attributes.iter().map(|attribute| (attribute.number, attribute.name.as_str())));
    Ok(numbers)
}

/// Finds the attribute of each number: by its place, else by its name.
fn assign<'a>(numbers: &mut [Numbered], attributes: impl Iterator<Item = (i16, &'a str)> + Clone) {
    let mut by_place: HashMap<i16, &str> = attributes.clone().collect();
    for column in numbers.iter_mut() {
        column.name = column.place.and_then(|place| by_place.remove(&place)).map(str::to_owned);
        column.settled = column.name.as_ref() == Some(&column.recorded);
    }
    // One whose place is known is not found by its name: it was dropped, and what was added under its name is another.
    let by_name: HashMap<&str, i16> = by_place.into_iter().map(|(place, name)| (name, place)).collect();
    for column in numbers.iter_mut().filter(|column| column.place.is_none()) {
        column.place = by_name.get(column.recorded.as_str()).copied();
        column.name = column.place.map(|_| column.recorded.clone());
    }
}

/// Whether all attributes have numbers, and all that is recorded of them is how it is.
pub fn are_settled(numbers: &[Numbered], attributes: &[Attribute]) -> bool {
    let there = numbers.iter().filter(|column| column.name.is_some());
    there.clone().all(|column| column.settled) && there.count() == attributes.len()
}

/// The columns that were renamed: the names that registrations know them by, and those they have.
pub fn renamed(numbers: &[Numbered]) -> HashMap<&str, &str> {
    let pairs = numbers.iter().filter_map(|column| Some((column.recorded.as_str(), column.name.as_deref()?)));
    pairs.filter(|(recorded, name)| recorded != name).collect()
}

/// Gives columns the numbers that they have elsewhere.
///
/// # Errors
/// `BAD_ARGUMENT` where a column or a number is taken already: numbers never change.
pub fn take(table_id: i32, shown: &str, numbers: &[(String, i32)]) -> Answer<()> {
    for (column, number) in numbers {
        let done = Spi::connect_mut(|client| {
            let taken = client.update(
                "INSERT INTO plimsoll.column_record (table_id, column_number, column_name)
                 VALUES ($1, $2, $3::pg_catalog.name) ON CONFLICT DO NOTHING",
                None,
                &[table_id.into(), (*number).into(), column.as_str().into()],
            )?;
            if !taken.is_empty() {
                return Ok(true);
            }
            let same = client.select(
                "SELECT 1 FROM plimsoll.column_record c WHERE c.table_id OPERATOR(pg_catalog.=) $1
                     AND c.column_number OPERATOR(pg_catalog.=) $2
                     AND c.column_name OPERATOR(pg_catalog.=) $3::pg_catalog.name",
                Some(1),
                &[table_id.into(), (*number).into(), column.as_str().into()],
            )?;
            Ok::<_, Problem>(!same.is_empty())
        })?;
        if !done {
            return Err(Problem::new(
                state::BAD_ARGUMENT,
                format!("column \"{column}\" of {shown} cannot have number {number}"),
            )
            .detail("Another column has the number, or the column has another number.")
            .hint("Numbers never change: give the ones that plimsoll.table_schema shows."));
        }
    }
    Ok(())
}

/// Records the names that columns have now. A number without a column gives way where another has got its name.
pub fn rename(table_id: i32, numbers: &[Numbered], attributes: &[Attribute]) -> Answer<()> {
    let has_new_name = |column: &&Numbered| column.name.as_ref().is_some_and(|name| *name != column.recorded);
    let gives_way = |column: &&Numbered| {
        column.name.is_none() && attributes.iter().any(|attribute| attribute.name == column.recorded)
    };
    let number = |column: &Numbered| column.number as i32;
    let freed: Vec<i32> = numbers.iter().filter(|c| has_new_name(c) || gives_way(c)).map(number).collect();
    if freed.is_empty() {
        return Ok(());
    }
    // Two columns may have changed names: nobody has the old one while the new ones are given.
    Spi::run_with_args(
        "UPDATE plimsoll.column_record c
         SET column_name = ('plimsoll column ' OPERATOR(pg_catalog.||) c.column_number)::pg_catalog.name
         WHERE c.table_id OPERATOR(pg_catalog.=) $1 AND c.column_number OPERATOR(pg_catalog.=) ANY ($2)",
        &[table_id.into(), freed.into()],
    )?;
    let named = numbers.iter().filter(has_new_name);
    let (changed, names): (Vec<i32>, Vec<String>) =
        named.filter_map(|column| Some((number(column), column.name.clone()?))).unzip();
    Spi::run_with_args(
        "UPDATE plimsoll.column_record c SET column_name = n.name::pg_catalog.name
         FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS n (number, name)
         WHERE c.table_id OPERATOR(pg_catalog.=) $1 AND c.column_number OPERATOR(pg_catalog.=) n.number",
        &[table_id.into(), changed.into(), names.into()],
    )?;
    crate::kept::tell_registrations_changed()
}

/// Gives numbers to columns that have none yet, new columns of the table, and records where all of them stand.
pub fn complete(table_id: i32, oid: Oid) -> Answer<()> {
    Spi::run_with_args(
        "INSERT INTO plimsoll.column_record (table_id, column_number, column_name)
         SELECT $1, (SELECT COALESCE(pg_catalog.max(c.column_number), 0) FROM plimsoll.column_record c
                     WHERE c.table_id OPERATOR(pg_catalog.=) $1)
                    OPERATOR(pg_catalog.+) pg_catalog.row_number() OVER (ORDER BY a.attnum), a.attname
         FROM pg_catalog.pg_attribute a
         WHERE a.attrelid OPERATOR(pg_catalog.=) $2 AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
           AND NOT EXISTS (SELECT FROM plimsoll.column_record c
                           WHERE c.table_id OPERATOR(pg_catalog.=) $1
                             AND c.column_name OPERATOR(pg_catalog.=) a.attname)
         ON CONFLICT DO NOTHING",
        &[table_id.into(), oid.into()],
    )?;
    Spi::run_with_args(
        "INSERT INTO plimsoll.column_place (table_id, column_number, relation_oid, attribute_number)
         SELECT $1, c.column_number, $2, a.attnum
         FROM plimsoll.column_record c
         JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) $2
              AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
              AND a.attname OPERATOR(pg_catalog.=) c.column_name
         WHERE c.table_id OPERATOR(pg_catalog.=) $1
         ON CONFLICT (table_id, column_number) DO UPDATE
         SET relation_oid = excluded.relation_oid, attribute_number = excluded.attribute_number
         WHERE (column_place.relation_oid, column_place.attribute_number)
             IS DISTINCT FROM (excluded.relation_oid, excluded.attribute_number)",
        &[table_id.into(), oid.into()],
    )?;
    crate::kept::tell_registrations_changed()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What became of recorded columns (number, name, place) in a table with these attributes.
    fn assigned(
        recorded: &[(u32, &str, Option<i16>)],
        attributes: &[(i16, &str)],
    ) -> Vec<(u32, Option<String>)> {
        let column = |(number, name, place): &(u32, &str, Option<i16>)| Numbered {
            number: *number,
            recorded: (*name).to_owned(),
            name: None,
            place: *place,
            settled: false,
        };
        let mut numbers: Vec<Numbered> = recorded.iter().map(column).collect();
        assign(&mut numbers, attributes.iter().copied());
        numbers.into_iter().map(|column| (column.number, column.name)).collect()
    }

    #[test]
    fn a_column_is_known_by_its_place_and_else_by_its_name() {
        let known = [(1, "id", Some(1)), (2, "price", Some(2)), (3, "note", Some(3))];
        let names = |of: [Option<&str>; 3]| -> Vec<(u32, Option<String>)> {
            (1..).zip(of).map(|(number, name)| (number, name.map(str::to_owned))).collect()
        };
        let renamed = assigned(&known, &[(1, "id"), (2, "cost"), (3, "note")]);
        assert_eq!(renamed, names([Some("id"), Some("cost"), Some("note")]));
        let swapped = assigned(&known, &[(1, "id"), (2, "note"), (3, "price")]);
        assert_eq!(swapped, names([Some("id"), Some("note"), Some("price")]));
        let replaced = assigned(&known, &[(1, "id"), (3, "note"), (4, "price")]);
        assert_eq!(replaced, names([Some("id"), None, Some("note")]), "dropped, and another has its name");
        let taken_over = assigned(&known, &[(1, "id"), (3, "price")]);
        assert_eq!(taken_over, names([Some("id"), None, Some("price")]), "dropped, and another has its name");
        let restored =
            assigned(&known.map(|(number, name, _)| (number, name, None)), &[(1, "note"), (2, "id")]);
        assert_eq!(restored, names([Some("id"), None, Some("note")]));
    }
}
