//! Where the rows of a table stand: as statements and indexes say it, and of rows that are read.

use pgrx::pg_sys::{self, Datum};
use plimsoll_core::schema::{Axis, TableSchema, hash_position, position_of};
use plimsoll_core::value::{ColumnType, Value};

use super::{ManagedTable, quoted};
use crate::datum::{Codec, Gathered, Parameter, Row};
use crate::error::Answer;

/// Columns that are given to `hash_position` one by one; more are given as a row, because a call takes 100 arguments.
const MOST_ARGUMENTS: usize = 90;

impl ManagedTable {
    /// Whether rows stand at a hash: the order of positions says nothing, and nothing is beyond them.
    pub fn is_hashed(&self) -> bool {
        self.schema.axis() == Axis::Hash
    }

    /// The type of the version at which rows stand; `None` where they stand at a hash.
    pub fn position_type(&self) -> Option<&ColumnType> {
        match self.schema.axis() {
            Axis::Version(place) => Some(&self.schema.columns()[place].column_type),
            Axis::Hash => None,
        }
    }

    /// Whether statements have the position as a function of columns, and not as a column.
    pub fn position_is_computed(&self) -> bool {
        matches!(self.position_type(), None | Some(ColumnType::Bytea))
    }

    /// The position of a row, over columns with `prefix` in front.
    pub fn position(&self, prefix: &str) -> String {
        let name = |place: usize| format!("{prefix}{}", quoted(&self.schema.columns()[place].name));
        match self.schema.axis() {
            Axis::Version(place) if self.position_is_computed() => {
                format!("plimsoll_open.version_position({})", name(place))
            }
            Axis::Version(place) => name(place),
            Axis::Hash => {
                let places = self.schema.placed_by_indexes();
                let numbers = self.schema.placed_by().map(|column| column.number.to_string());
                let numbers = numbers.collect::<Vec<_>>().join(",");
                let columns = places.iter().map(|place| name(*place)).collect::<Vec<_>>().join(", ");
                let columns = if places.len() > MOST_ARGUMENTS { format!("ROW({columns})") } else { columns };
                format!("plimsoll_open.hash_position('{{{numbers}}}'::pg_catalog.int4[], {columns})")
            }
        }
    }

    /// What our index on the position is partial on, over columns with `prefix` in front: it always holds, and every
    /// range of positions says or implies it, but no look-up by key. While a new table has no statistics the planner
    /// takes both indexes for equal, and would read the whole replica for each key. `None` where it could not:
    /// without tenant columns they have no column in common.
    pub fn position_condition(&self, prefix: &str) -> Option<String> {
        match self.schema.axis() {
            Axis::Version(place) => {
                Some(format!("{prefix}{} IS NOT NULL", quoted(&self.schema.columns()[place].name)))
            }
            // Such as the planner does not see through. Over the position itself it would be computed twice a row.
            Axis::Hash => {
                let tenant = quoted(&self.tenant.last()?.name);
                Some(format!("pg_catalog.num_nulls({prefix}{tenant}) OPERATOR(pg_catalog.=) 0"))
            }
        }
    }

    /// A parameter for a position, of a type that [`position`](Self::position) is compared with.
    pub fn position_parameter(&self, position: i64) -> Parameter {
        let (type_oid, value) = match self.position_type() {
            Some(ColumnType::Timestamp(_)) => (pg_sys::TIMESTAMPOID, position),
            Some(ColumnType::Timestamptz(_)) => (pg_sys::TIMESTAMPTZOID, position),
            Some(ColumnType::Xid8) => (pg_sys::XID8OID, position.max(0)),
            _ => (pg_sys::INT8OID, position),
        };
        Parameter { type_oid, datum: Some(Datum::from(value)) }
    }

    /// The part of `first..=last` in which rows can stand: no xid8 is negative, and none can be compared with one
    /// that is.
    pub fn possible(&self, first: i64, last: i64) -> Option<(i64, i64)> {
        match self.position_type() {
            Some(ColumnType::Xid8) => (last >= 0).then_some((first.max(0), last)),
            _ => Some((first, last)),
        }
    }
}

/// How the positions of rows are found that are read.
pub struct Positions {
    way: Way,
    /// The fields of a row from which its position is hashed.
    fields: Vec<u8>,
}

enum Way {
    /// The version at this place, a value of eight bytes or less.
    Value(usize, ColumnType),
    /// The bytes at this place.
    Bytes(usize),
    /// A hash of all columns.
    Whole,
    /// A hash of the columns that are marked.
    Fields(Vec<bool>),
}

impl Positions {
    /// Of rows whose columns are read as the schema has them.
    pub fn of(schema: &TableSchema) -> Self {
        match schema.axis() {
            Axis::Version(place) => Positions::at_version(place, schema.columns()[place].column_type.clone()),
            Axis::Hash => {
                let placing = schema.placed_by_indexes();
                Positions::hashed((0..schema.columns().len()).map(|place| placing.contains(&place)).collect())
            }
        }
    }

    /// Of rows that stand at the version that a row has at a place.
    pub fn at_version(place: usize, column_type: ColumnType) -> Self {
        let way = match column_type {
            ColumnType::Bytea => Way::Bytes(place),
            column_type => Way::Value(place, column_type),
        };
        Positions { way, fields: Vec::new() }
    }

    /// Of rows that stand at a hash of those of their columns that are marked.
    pub fn hashed(placing: Vec<bool>) -> Self {
        let way = if placing.iter().all(|places| *places) { Way::Whole } else { Way::Fields(placing) };
        Positions { way, fields: Vec::new() }
    }

    /// Appends the digest form of a row to `form`: its columns at `places`, as `codecs` and `numbers` describe them.
    /// Answers where it stands; `None` where it has no version.
    ///
    /// # Errors
    /// `INTERNAL` where a stored value is damaged.
    pub fn encode(
        &mut self,
        row: &Row<'_>,
        places: &[usize],
        numbers: &[u32],
        codecs: &mut [Codec],
        form: &mut Vec<u8>,
    ) -> Answer<Option<i64>> {
        let start = form.len();
        if let Way::Fields(wanted) = &self.way {
            self.fields.clear();
            let gathered = Gathered { wanted, fields: &mut self.fields };
            row.encode_places(places, numbers, codecs, form, Some(gathered))?;
            return Ok(Some(hash_position(&self.fields)));
        }
        row.encode_places(places, numbers, codecs, form, None)?;
        Ok(match &self.way {
            Way::Value(place, ColumnType::Int2) => row.int8(*place).map(|value| i64::from(value as i16)),
            Way::Value(place, ColumnType::Int4) => row.int8(*place).map(|value| i64::from(value as i32)),
            Way::Value(place, _) => row.int8(*place),
            Way::Bytes(place) => row.with_bytes(*place, |bytes| position_of(&Value::Bytea(bytes))).flatten(),
            Way::Whole | Way::Fields(_) => Some(hash_position(&form[start..])),
        })
    }
}
