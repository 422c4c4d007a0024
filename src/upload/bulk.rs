//! New rows handed to the table's access method, where that stores them exactly as they were sent.

use plimsoll_core::row::Fields;

use super::IncomingRow;
use super::readable::is_parsed;
use crate::access::Database;
use crate::datum::{BulkInsert, FixedColumn};
use crate::error::Answer;
use crate::table::ManagedTable;

/// Inserts the rows; `false` where the table needs a statement for that, or where only reading a row back
/// tells how its values were stored: an input function may write `10.0.0.1/32` as `10.0.0.1`.
pub fn insert_all(database: &Database, table: &mut ManagedTable, rows: &[&IncomingRow<'_>]) -> Answer<bool> {
    if table.schema.columns().iter().any(|column| is_parsed(&column.column_type)) {
        return Ok(false);
    }
    let sent: Vec<&str> = table.physical.iter().map(|column| column.name.as_str()).collect();
    let pairs = table.tenant.iter().zip(table.tenant_texts(database));
    let fixed: Vec<FixedColumn> =
        pairs.map(|(column, text)| FixedColumn { name: column.name.clone(), text }).collect();
    let Some(mut insert) = BulkInsert::begin(table.oid, &sent, &fixed)? else { return Ok(false) };
    let (columns, codecs) = (table.schema.columns(), &mut table.codecs);
    for row in rows {
        insert.push(row.row.len(), |values| {
            let mut place = 0;
            for field in Fields::new(row.row) {
                let field = field?;
                while columns.get(place).is_some_and(|column| column.number < field.number) {
                    place += 1;
                }
                if let Some(codec) = codecs.get_mut(place) {
                    values.set(place, codec.make_datum(&field.value)?);
                }
            }
            Ok(())
        })?;
    }
    insert.finish();
    Ok(true)
}
