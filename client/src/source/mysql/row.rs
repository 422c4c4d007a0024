//! A row of a query.

use mysql_async::{Row, Value as Raw};
use plimsoll_core::value::{ColumnType, Value};
use serde_json::Value as Json;

use super::super::kind::{LocalRow, Scratch};
use super::types::LocalType;
use super::{convert, raw};

/// A row, by the local types of its columns.
pub struct MysqlRow<'r> {
    pub(super) row: &'r Row,
    pub(super) types: &'r [LocalType],
}

impl MysqlRow<'_> {
    fn cell(&self, place: usize) -> (&Raw, &LocalType) {
        const MISSING: LocalType = LocalType::Year;
        (self.row.as_ref(place).unwrap_or(&Raw::NULL), self.types.get(place).unwrap_or(&MISSING))
    }
}

impl LocalRow for MysqlRow<'_> {
    fn value<'v>(
        &'v self,
        place: usize,
        column_type: &ColumnType,
        scratch: &'v mut Scratch,
    ) -> plimsoll_core::Result<Option<Value<'v>>> {
        let (raw, local) = self.cell(place);
        convert::convert(raw, local, column_type, scratch)
    }

    fn raw(&self, place: usize, bytes: &mut Vec<u8>) -> u8 {
        let (raw, local) = self.cell(place);
        raw::put(raw, local, bytes)
    }

    fn shown(&self, place: usize) -> Json {
        let (raw, local) = self.cell(place);
        raw::shown(raw, local)
    }
}
