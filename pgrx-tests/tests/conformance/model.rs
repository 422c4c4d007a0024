//! What a source must say of rows: made from their values by the core's encoding alone.

use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{RowWriter, key_of, position_in};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::SourceRow;
use plimsoll_core::value::Value;

use super::kind::{Cell, KEY};

/// The row that a source must hand out.
pub fn row_of(schema: &TableSchema, cells: &[Cell]) -> SourceRow {
    let mut wire = Vec::new();
    let mut writer = RowWriter::new(&mut wire);
    for (column, cell) in schema.columns().iter().zip(cells) {
        let value = match cell {
            Cell::Null => continue,
            Cell::Number(number) => Value::Int(*number),
            Cell::Text(text) => Value::Text(text),
            Cell::Bytes(bytes) => Value::Bytea(bytes),
            Cell::Stamp(micros) => Value::Timestamp(*micros),
        };
        writer.field(column.number, &value);
    }
    let digest = Digester::new(FingerprintKey::new(KEY)).digest(&wire).expect("a digest");
    let position = position_in(&wire, schema).expect("a position");
    let key = key_of(&wire, schema).expect("a key");
    SourceRow { item: Item { position, digest }, key, row: wire }
}

/// All of them, in the order of positions, then keys.
pub fn rows_of(schema: &TableSchema, rows: &[Vec<Cell>]) -> Vec<SourceRow> {
    let mut rows: Vec<SourceRow> = rows.iter().map(|cells| row_of(schema, cells)).collect();
    sort(&mut rows);
    rows
}

/// Puts rows in an order in which lists of them can be compared.
pub fn sort(rows: &mut [SourceRow]) {
    rows.sort_by(|a, b| (a.item, &a.row).cmp(&(b.item, &b.row)));
}
