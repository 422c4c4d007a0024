//! What the engine asks a database for, without any SQL.

use plimsoll_core::store::{PositionRange, TableId};

use super::plan::TablePlan;

/// A value as the database itself has it: the class and the bytes that [`LocalRow::raw`](super::kind::LocalRow::raw)
/// told.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RawValue {
    /// Which class of values it is of; 0 is NULL.
    pub class: u8,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl RawValue {
    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        self.class == 0
    }
}

/// Which columns are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// All that the plan sends, in its order, and the row's own id behind them where the plan has one.
    Row,
    /// The key's columns in the order of the managed table's columns.
    Key,
    /// The version alone.
    Version,
}

/// Which rows are selected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Condition<'q> {
    /// All there are.
    All,
    /// Those at these positions, of a table whose rows stand at their version: no others, and none whose version is NULL.
    At(PositionRange),
    /// Those that come behind this one in the order of [`Order::Reading`].
    Behind {
        /// Where the row stands, and its version as the database has it; `None` where rows are not ordered by version.
        version: Option<(i64, &'q RawValue)>,
        /// Its values in the columns of the plan's order. Any may be NULL.
        order: &'q [RawValue],
        /// Whether those that share its place come too.
        or_there: bool,
    },
    /// Those whose columns of the plan's order equal these values, in the database's own terms; NULL equals NULL.
    Key(&'q [RawValue]),
    /// Those whose version is none, of a table whose rows stand at their version.
    Misplaced,
}

/// The order in which rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Any.
    Any,
    /// By version.
    Version,
    /// By version, the highest first.
    VersionDown,
    /// By version, where rows stand at it, then by the columns of the plan's order. No two rows share a place, but those of a
    /// keyless table without row ids that are the same byte by byte.
    Reading,
}

/// Rows of one table.
#[derive(Debug, Clone, Copy)]
pub struct Query<'q> {
    /// The table's place in the run's list.
    pub table: TableId,
    /// What is known of it.
    pub plan: &'q TablePlan,
    /// Which columns.
    pub select: Select,
    /// Which rows.
    pub condition: Condition<'q>,
    /// In which order.
    pub order: Order,
    /// How many rows of the order are passed over.
    pub skip: u64,
    /// More rows than this are not asked for. A kind may take no notice.
    pub limit: Option<u64>,
    /// About how many rows will be taken before `each` breaks; `None` where all will be. Who fetches rows in portions
    /// fetches so many.
    pub expected: Option<u64>,
}

impl<'q> Query<'q> {
    /// All rows of a table, in any order.
    pub fn of_rows(table: TableId, plan: &'q TablePlan) -> Self {
        Query {
            table,
            plan,
            select: Select::Row,
            condition: Condition::All,
            order: Order::Any,
            skip: 0,
            limit: None,
            expected: None,
        }
    }
}

/// Appends a value: `class length(4) bytes`. `fill` appends the bytes and answers the class.
#[inline]
pub fn put_raw(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>) -> u8) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    let class = fill(out);
    // No value of a database has 4 GiB.
    let length = u32::try_from(out.len() - start - HEAD).unwrap_or(u32::MAX);
    let [a, b, c, d] = length.to_le_bytes();
    out[start..start + HEAD].copy_from_slice(&[class, a, b, c, d]);
}

/// Reads all values; `None` where the bytes are none that [`put_raw`] wrote.
pub fn read_raw(mut bytes: &[u8]) -> Option<Vec<RawValue>> {
    let mut values = Vec::new();
    while let Some(([class, length @ ..], rest)) = bytes.split_first_chunk::<HEAD>() {
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        values.push(RawValue { class: *class, bytes: value.to_vec() });
        bytes = rest;
    }
    bytes.is_empty().then_some(values)
}

/// Class and length.
const HEAD: usize = 5;
