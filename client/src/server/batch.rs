//! Rows of an upload as a statement's parameter: written once, into what goes over the wire.

use std::error::Error;

use bytes::BytesMut;
use plimsoll_core::row::put_batch;
use plimsoll_core::store::SourceRow;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

/// Bytes in front of all rows, and in front of each but the largest.
const MOST_IN_FRONT: usize = 5;

/// The rows of an upload, as a `bytea`.
#[derive(Debug)]
pub struct Batch<'r>(pub &'r [SourceRow]);

impl ToSql for Batch<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let rows: usize = self.0.iter().map(|row| row.row.len() + MOST_IN_FRONT).sum();
        // Growing step by step would take twice the room.
        out.reserve(MOST_IN_FRONT + rows);
        put_batch(self.0.iter().map(|row| row.row.as_slice()), |piece| out.extend_from_slice(piece));
        Ok(IsNull::No)
    }

    fn accepts(column_type: &Type) -> bool {
        *column_type == Type::BYTEA
    }

    to_sql_checked!();
}
