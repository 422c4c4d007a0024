//! How Postgres' statements are written. The search path is `pg_catalog` alone.

use std::borrow::Cow;

use super::catalogue::quoted;
use super::shape::{Operators, Shape};
use super::source::ReadTable;
use crate::source::plan::TablePlan;
use crate::source::query::Order;
use crate::source::statement::{Dialect, Parameter};

impl ReadTable {
    fn shape(&self, place: usize) -> &Shape {
        &self.shapes[place]
    }

    /// Whether a column's values are compared by their text: they have no order, or one in which values that differ may be
    /// the same (1.0 and 1.00), which would not tell the rows of a table without a key apart.
    fn is_compared_as_text(&self, plan: &TablePlan, place: usize) -> bool {
        self.operators.get(place).is_some_and(|operators| plan.shares_places || *operators == Operators::None)
    }

    /// The shape of the version.
    pub fn version_shape(&self, plan: &TablePlan) -> &Shape {
        plan.version_place().map_or(&Shape::Int8, |place| self.shape(place))
    }
}

/// A column by its type's text output. A cast to text may say other than that, as inet's does.
pub fn written(name: &str) -> String {
    format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN format('%s', {name}) END")
}

/// The text of a column whose values come as text. That of an amount would have a currency sign.
fn text_of(shape: &Shape, name: &str) -> String {
    match shape {
        Shape::Money => format!("{name}::numeric::text"),
        Shape::Array(element) if **element == Shape::Money => format!("{name}::numeric[]::text"),
        _ => written(name),
    }
}

impl Dialect for ReadTable {
    fn quoted(&self, name: &str) -> String {
        quoted(name)
    }

    fn mark(&self, number: usize, parameter: &Parameter<'_>, plan: &TablePlan) -> String {
        let own_type = match parameter {
            Parameter::Least(_) => match self.version_shape(plan) {
                Shape::Xid8 => "xid8",
                Shape::Timestamp => "timestamp",
                Shape::Timestamptz => "timestamptz",
                Shape::Bytea => "bytea",
                _ => "int8",
            },
            Parameter::Rows(_) => "int8",
            // What is compared as text was read as its own type.
            Parameter::Read(place, _) if self.is_compared_as_text(plan, *place) => {
                return match self.shape(*place).is_written() {
                    true => format!("${number}::text"),
                    false => format!("format('%s', ${number}::{})", plan.columns[*place].declared),
                };
            }
            // It has the type of the column that it is compared with.
            Parameter::Version(..) | Parameter::Read(..) => return format!("${number}"),
        };
        format!("${number}::{own_type}")
    }

    fn version(&self, plan: &TablePlan) -> String {
        if let Some(position) = self.position.as_ref().filter(|_| plan.version_place().is_none()) {
            return position.clone();
        }
        let name = plan.version().map(|column| quoted(&column.name)).unwrap_or_default();
        // Numbers of objects have no order with negative ones.
        if *self.version_shape(plan) == Shape::Oid { format!("{name}::int8") } else { name }
    }

    fn selected(&self, plan: &TablePlan, place: usize) -> String {
        let name = quoted(&plan.columns[place].name);
        match self.shape(place) {
            shape if shape.is_written() => text_of(shape, &name),
            _ => name,
        }
    }

    fn ordered(&self, plan: &TablePlan, place: usize) -> String {
        match plan.columns.get(place) {
            None => plan.row_id.clone().unwrap_or_default(),
            Some(column) if self.is_compared_as_text(plan, place) => {
                format!("({}) COLLATE \"C\"", text_of(self.shape(place), &quoted(&column.name)))
            }
            Some(column) => quoted(&column.name),
        }
    }

    fn operator(&self, plan: &TablePlan, place: usize, sign: &'static str) -> Cow<'static, str> {
        match self.operators.get(place).filter(|_| !self.is_compared_as_text(plan, place)) {
            Some(Operators::Schema(schema)) => format!("OPERATOR({}.{sign})", quoted(schema)).into(),
            _ => sign.into(),
        }
    }

    fn comes_in_order(&self, plan: &TablePlan, order: Order) -> bool {
        // Scans go through a table from its first row to its last; a sort would read all of it for each batch.
        order == Order::Reading && plan.row_id.is_some() && plan.version_place().is_none()
    }

    fn compares_rows(&self) -> bool {
        true
    }

    fn nulls_first(&self) -> bool {
        false
    }
}
