//! Queries as SELECT statements, for kinds that speak SQL. What their dialects differ in is asked of [`Dialect`].

use std::borrow::Cow;

use super::plan::TablePlan;
use super::query::{Condition, Order, Query, RawValue, Select};

/// A value that a statement is run with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Parameter<'q> {
    /// The least version that stands at this position or above.
    Least(i64),
    /// The version of a row read before, and where it stands.
    Version(i64, &'q RawValue),
    /// A value read before, of the order's column at this place: of the plan's columns, or behind them the row's id.
    Read(usize, &'q RawValue),
    /// A number of rows.
    Rows(u64),
}

/// How a kind of database writes statements.
pub trait Dialect {
    /// A name, quoted.
    fn quoted(&self, name: &str) -> String;

    /// The place of the parameter with this number, from 1. The kind may cast it to what it is compared with.
    fn mark(&self, number: usize, parameter: &Parameter<'_>, plan: &TablePlan) -> String;

    /// What statements compare and order versions by. The version column where nothing else is said.
    fn version(&self, plan: &TablePlan) -> String {
        plan.version().map(|column| self.quoted(&column.name)).unwrap_or_default()
    }

    /// A condition that keeps out rows whose version is NULL, and others that have no position where that is cheap: for
    /// queries that no bound keeps them out of.
    fn placed(&self, plan: &TablePlan) -> String {
        format!("{} IS NOT NULL", self.version(plan))
    }

    /// A condition that holds for the rows that have no position.
    fn misplaced(&self, plan: &TablePlan) -> String {
        format!("{} IS NULL", self.version(plan))
    }

    /// A column as it is selected; `place` is its place among the plan's columns.
    fn selected(&self, plan: &TablePlan, place: usize) -> String {
        self.quoted(&plan.columns[place].name)
    }

    /// A column of the plan's order as rows are ordered and compared by it: the key's columns as the index compares that
    /// makes them unique. In keyless tables an expression that tells apart whatever has other bytes, which a
    /// collation, -0 and 0, or 1.0 and 1.00 may not: rows that the database calls the same would be passed over.
    fn ordered(&self, plan: &TablePlan, place: usize) -> String {
        match plan.columns.get(place) {
            Some(column) => self.quoted(&column.name),
            None => plan.row_id.clone().unwrap_or_default(),
        }
    }

    /// The operator that compares a column of the plan's order. Where it is another than is asked for, rows are not compared
    /// as `(a, b) > (x, y)`.
    fn operator(&self, plan: &TablePlan, place: usize, sign: &'static str) -> Cow<'static, str> {
        let _ = (plan, place);
        sign.into()
    }

    /// Whether `(a, b) > (x, y)` is found by an index.
    fn compares_rows(&self) -> bool;

    /// Whether rows come in this order without being asked to.
    fn comes_in_order(&self, plan: &TablePlan, order: Order) -> bool {
        let _ = (plan, order);
        false
    }

    /// Whether no two rows have one version: they are in order by it alone. Databases may sort rows by what stands behind it
    /// all the same.
    fn has_unique_versions(&self, plan: &TablePlan) -> bool {
        let _ = plan;
        false
    }

    /// Which index a query is read by, as it stands behind the table's name with a blank in front: for databases that would
    /// sort all rows to find the first of them.
    fn index(&self, query: &Query<'_>) -> String {
        let _ = query;
        String::new()
    }

    /// Whether NULL comes before all values in ascending order.
    fn nulls_first(&self) -> bool;

    /// `LIMIT` and `OFFSET` with a blank in front, or nothing where neither is given.
    fn limits(&self, limit: Option<String>, skip: Option<String>) -> String {
        let limit = limit.map(|mark| format!(" LIMIT {mark}")).unwrap_or_default();
        limit + &skip.map(|mark| format!(" OFFSET {mark}")).unwrap_or_default()
    }
}

/// A statement and what it is run with, in the order of its marks.
#[derive(Debug)]
pub struct Rendered<'q> {
    /// The statement. It is the same for all queries that differ in values alone.
    pub sql: String,
    /// The parameters.
    pub parameters: Vec<Parameter<'q>>,
}

/// A query as a statement.
pub fn render<'q, D: Dialect>(dialect: &D, query: &Query<'q>) -> Rendered<'q> {
    let mut writer = Writer { dialect, plan: query.plan, parameters: Vec::new() };
    let mut sql = format!("SELECT {} FROM {}", writer.selection(query.select), query.plan.relation);
    sql.push_str(&dialect.index(query));
    let mut conditions = writer.conditions(&query.condition);
    conditions.extend(query.plan.condition());
    if !conditions.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&conditions.join(" AND "));
    }
    sql.push_str(&writer.order(query.order));
    let limit = query.limit.map(|rows| writer.add(Parameter::Rows(rows)));
    let skip = (query.skip > 0).then(|| writer.add(Parameter::Rows(query.skip)));
    sql.push_str(&dialect.limits(limit, skip));
    Rendered { sql, parameters: writer.parameters }
}

struct Writer<'w, 'q, D> {
    dialect: &'w D,
    plan: &'q TablePlan,
    parameters: Vec<Parameter<'q>>,
}

impl<'q, D: Dialect> Writer<'_, 'q, D> {
    /// Adds a parameter and answers its mark.
    fn add(&mut self, parameter: Parameter<'q>) -> String {
        self.parameters.push(parameter);
        self.dialect.mark(self.parameters.len(), &parameter, self.plan)
    }

    fn selection(&self, select: Select) -> String {
        let plan = self.plan;
        let names = |places: &mut dyn Iterator<Item = usize>| {
            let column = |place: usize| match plan.columns[place].is_local() {
                true => self.dialect.selected(plan, place),
                false => "NULL".to_owned(),
            };
            places.map(column).collect::<Vec<_>>()
        };
        let list = match select {
            Select::Row => {
                let mut list = names(&mut (0..plan.columns.len()));
                list.extend(plan.row_id.clone());
                list
            }
            Select::Key => names(&mut plan.schema.key_indexes().iter().copied()),
            Select::Version => names(&mut plan.version_place().into_iter()),
        };
        list.join(", ")
    }

    fn conditions(&mut self, condition: &Condition<'q>) -> Vec<String> {
        let version = self.dialect.version(self.plan);
        match *condition {
            Condition::All => Vec::new(),
            Condition::Misplaced => vec![self.dialect.misplaced(self.plan)],
            Condition::At(range) => {
                let mut conditions = Vec::new();
                if let Some(from) = range.from {
                    conditions.push(format!("{version} >= {}", self.add(Parameter::Least(from))));
                }
                if let Some(to) = range.to {
                    conditions.push(format!("{version} < {}", self.add(Parameter::Least(to))));
                }
                // What a bound does not keep out.
                if conditions.is_empty() {
                    conditions.push(self.dialect.placed(self.plan));
                }
                conditions
            }
            Condition::Key(values) => {
                let order = self.plan.order.iter().zip(values);
                let steps: Vec<_> = order.map(|(place, value)| self.step(*place, value)).collect();
                steps.iter().map(|step| self.equal(step)).collect()
            }
            Condition::Behind { version: cursor, order, or_there } => {
                let mut steps: Vec<_> = Vec::with_capacity(order.len() + 1);
                if let Some((position, value)) = cursor {
                    let parameter = Parameter::Version(position, value);
                    steps.push(Step { name: version, parameter, value, never_null: true });
                }
                steps
                    .extend(self.plan.order.iter().zip(order).map(|(place, value)| self.step(*place, value)));
                vec![self.behind(&steps, or_there)]
            }
        }
    }

    /// Behind these values in the order of their columns, or there too.
    fn behind(&mut self, steps: &[Step<'q>], or_there: bool) -> String {
        let nulls_first = self.dialect.nulls_first();
        let is_plain = |step: &Step<'_>| !step.value.is_null() && (nulls_first || step.never_null);
        let is_usual = |step: &Step<'_>| is_plain(step) && self.operator(step, ">") == ">";
        if self.dialect.compares_rows() && steps.iter().all(is_usual) {
            let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
            let marks: Vec<String> = steps.iter().map(|step| self.add(step.parameter)).collect();
            let sign = if or_there { ">=" } else { ">" };
            return format!("({}) {sign} ({})", names.join(", "), marks.join(", "));
        }
        let mut conditions = Vec::new();
        if let Some(first) = steps.first().filter(|step| is_plain(step)) {
            // What an index finds.
            let sign = self.operator(first, ">=");
            conditions.push(format!("{} {sign} {}", first.name, self.add(first.parameter)));
        }
        // Equal in the columns before, and behind in this one.
        let mut ways = Vec::new();
        for (i, step) in steps.iter().enumerate() {
            // Nothing comes behind NULL where it is the last.
            if step.value.is_null() && !nulls_first {
                continue;
            }
            let mut way: Vec<String> = steps[..i].iter().map(|step| self.equal(step)).collect();
            let (name, sign) = (&step.name, self.operator(step, ">"));
            way.push(match (step.value.is_null(), nulls_first || step.never_null) {
                (true, _) => format!("{name} IS NOT NULL"),
                (false, true) => format!("{name} {sign} {}", self.add(step.parameter)),
                (false, false) => format!("({name} {sign} {} OR {name} IS NULL)", self.add(step.parameter)),
            });
            ways.push(way.join(" AND "));
        }
        if or_there {
            let there: Vec<String> = steps.iter().map(|step| self.equal(step)).collect();
            ways.push(there.join(" AND "));
        }
        conditions.push(match ways.is_empty() {
            true => "1 = 0".to_owned(),
            false => format!("({})", ways.join(" OR ")),
        });
        conditions.join(" AND ")
    }

    fn equal(&mut self, step: &Step<'q>) -> String {
        match step.value.is_null() {
            true => format!("{} IS NULL", step.name),
            false => format!("{} {} {}", step.name, self.operator(step, "="), self.add(step.parameter)),
        }
    }

    /// The operator that a column is compared by; the version has the usual ones.
    fn operator(&self, step: &Step<'_>, sign: &'static str) -> Cow<'static, str> {
        match step.parameter {
            Parameter::Read(place, _) => self.dialect.operator(self.plan, place, sign),
            _ => sign.into(),
        }
    }

    fn order(&self, order: Order) -> String {
        let version = || self.dialect.version(self.plan);
        if self.dialect.comes_in_order(self.plan, order) {
            return String::new();
        }
        let columns = match order {
            Order::Any => return String::new(),
            Order::Version => vec![version()],
            Order::Reading if self.dialect.has_unique_versions(self.plan) => vec![version()],
            Order::VersionDown => vec![format!("{} DESC", version())],
            Order::Reading => {
                let version = self.plan.version_place().map(|_| version());
                version.into_iter().chain(self.plan.order.iter().map(|place| self.name(*place))).collect()
            }
        };
        format!(" ORDER BY {}", columns.join(", "))
    }

    fn name(&self, place: usize) -> String {
        self.dialect.ordered(self.plan, place)
    }

    /// A column of the plan's order with the value that it is compared with.
    fn step(&self, place: usize, value: &'q RawValue) -> Step<'q> {
        let never_null = self.plan.columns.get(place).is_none_or(|column| column.not_null);
        Step { name: self.name(place), parameter: Parameter::Read(place, value), value, never_null }
    }
}

/// A column in a comparison of several.
struct Step<'q> {
    name: String,
    parameter: Parameter<'q>,
    value: &'q RawValue,
    never_null: bool,
}
