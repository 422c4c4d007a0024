//! Plimsoll's own numbers of columns: stable while attribute numbers are not, never used twice.

use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;

use crate::datum::select_planned;
use crate::error::{Answer, Problem, state};

/// The numbers of a table's columns, in order.
pub fn of(table_id: i32) -> Answer<Vec<(u32, String)>> {
    Spi::connect(|client| {
        let rows = select_planned(
            client,
            "SELECT c.column_number, c.column_name::pg_catalog.text FROM plimsoll.column_record c
             WHERE c.table_id OPERATOR(pg_catalog.=) $1 ORDER BY c.column_number",
            None,
            &[table_id.into()],
        )?;
        rows.map(|row| Ok((row.get::<i32>(1)?.unwrap_or_default() as u32, row.get(2)?.unwrap_or_default())))
            .collect()
    })
}

/// Gives columns the numbers that they have elsewhere.
///
/// # Errors
/// `BAD_ARGUMENT` where a column or a number is taken already: numbers never change.
pub fn take(table_id: i32, shown: &str, numbers: &[(String, i32)]) -> Answer<()> {
    for (column, number) in numbers {
        let taken = Spi::connect_mut(|client| {
            let taken = client.update(
                "INSERT INTO plimsoll.column_record (table_id, column_number, column_name)
                 VALUES ($1, $2, $3::pg_catalog.name) ON CONFLICT DO NOTHING",
                None,
                &[table_id.into(), (*number).into(), column.as_str().into()],
            )?;
            Ok::<_, Problem>(!taken.is_empty())
        })?;
        if !taken && !of(table_id)?.contains(&(*number as u32, column.clone())) {
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

/// Gives numbers to columns that have none yet: new columns of the table.
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
    crate::kept::tell_registrations_changed()
}
