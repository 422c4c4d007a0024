//! What writing a table needs to know of it: its columns' types without their modifiers, so that a value that does not fit
//! is refused and not cut; what refers to it; and what is checked late.

use std::sync::{Arc, LazyLock};

use plimsoll_core::store::Outcome;
use plimsoll_core::value::ColumnType;
use tokio_postgres::types::Type;

use super::super::catalogue::{Found, quoted};
use super::super::session::Session;
use super::super::shape::{Operators, Shape};
use crate::source::plan::TablePlan;

/// A column's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnOf {
    /// The type that is left when domains are taken off.
    pub oid: u32,
    /// Its name.
    pub own_type: String,
    /// That of arrays of it; empty where there are none.
    pub array_type: String,
    /// Whether it is an amount of money.
    pub is_money: bool,
}

/// A table that is written to.
#[derive(Debug)]
pub struct WriteTable {
    /// By the plan's places; those that are not local have none.
    columns: Vec<Option<Arc<ColumnOf>>>,
    /// As which types values are written out, by the plan's places: attributes of composite types in the local order.
    text_types: Vec<ColumnType>,
    /// By which operator columns are compared.
    equals: Vec<String>,
    /// The places of columns whose numbers the database alone gives.
    counted: Vec<usize>,
    /// The columns that are neither written nor computed.
    pub others: Vec<(String, Arc<ColumnOf>)>,
    /// Whether some constraint may be checked at the end of the transaction.
    pub puts_off: bool,
    /// The foreign keys that act on other rows when rows are deleted.
    pub acting: Arc<[ActingKey]>,
    /// Whether a row can be taken out and put in again without anything noticing: no other row, no trigger, also of a
    /// partition, and no rule.
    pub is_exchangeable: bool,
}

/// A foreign key that acts on other rows when rows are deleted.
#[derive(Debug)]
pub struct ActingKey {
    /// The table that refers, as a configuration names it.
    pub name: String,
    /// The same as it stands in a statement.
    pub relation: String,
    /// Whether it is the table itself, or a part of it.
    pub is_own: bool,
    /// The conditions between rows `t` of the table and rows `c` that refer to them.
    pub refers: String,
}

/// The id of a row.
static CTID: LazyLock<Arc<ColumnOf>> = LazyLock::new(|| {
    let (own_type, array_type) = ("pg_catalog.tid".to_owned(), "pg_catalog._tid".to_owned());
    Arc::new(ColumnOf { oid: 27, own_type, array_type, is_money: false })
});

/// The type of row ids.
pub fn ctid() -> Arc<ColumnOf> {
    Arc::clone(&CTID)
}

const COLUMNS: &str = "SELECT a.attname::text, a.attidentity = 'a', a.attgenerated <> '', b.oid,
         pg_catalog.format('%I.%I', bn.nspname, b.typname),
         coalesce(pg_catalog.quote_ident(an.nspname) || '.' || pg_catalog.quote_ident(ar.typname), '')
     FROM pg_catalog.pg_attribute a
         CROSS JOIN LATERAL (
             WITH RECURSIVE d(oid) AS (
                 SELECT a.atttypid
                 UNION ALL SELECT t.typbasetype FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype = 'd')
             SELECT t.oid, t.typname, t.typnamespace, t.typarray
             FROM d JOIN pg_catalog.pg_type t ON t.oid = d.oid WHERE t.typtype <> 'd') b
         JOIN pg_catalog.pg_namespace bn ON bn.oid = b.typnamespace
         LEFT JOIN pg_catalog.pg_type ar ON ar.oid = b.typarray
         LEFT JOIN pg_catalog.pg_namespace an ON an.oid = ar.typnamespace
     WHERE a.attrelid = $1::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum";

const CONSTRAINTS: &str = "WITH RECURSIVE tree(oid) AS (
         SELECT $1::pg_catalog.regclass::oid
         UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
     SELECT
         EXISTS (SELECT FROM pg_catalog.pg_constraint k
             WHERE k.condeferrable AND $1::pg_catalog.regclass IN (k.conrelid, k.confrelid)),
         EXISTS (SELECT FROM pg_catalog.pg_trigger g WHERE g.tgrelid IN (SELECT oid FROM tree)
             AND NOT g.tgisinternal AND g.tgtype & 8 <> 0)
         OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class IN (SELECT oid FROM tree)
             AND r.ev_type = '4')";

const ACTING: &str = "WITH RECURSIVE tree(oid) AS (
         SELECT $1::pg_catalog.regclass::oid
         UNION SELECT i.inhrelid FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid)
     SELECT n.nspname::text, c.relname::text, c.relkind::text, c.oid,
         k.conrelid IN (SELECT oid FROM tree),
         (SELECT pg_catalog.string_agg(pg_catalog.format('t.%I OPERATOR(%I.%s) c.%I',
                 parent.attname, s.nspname, o.oprname, child.attname), ' AND ')
             FROM ROWS FROM (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey),
                 pg_catalog.unnest(k.conpfeqop)) AS u(child, parent, equal)
                 JOIN pg_catalog.pg_attribute child ON child.attrelid = k.conrelid AND child.attnum = u.child
                 JOIN pg_catalog.pg_attribute parent ON parent.attrelid = k.confrelid AND parent.attnum = u.parent
                 JOIN pg_catalog.pg_operator o ON o.oid = u.equal
                 JOIN pg_catalog.pg_namespace s ON s.oid = o.oprnamespace)
     FROM pg_catalog.pg_constraint k
         JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid IN (SELECT oid FROM tree)
         AND k.confdeltype IN ('c', 'n', 'd')
     ORDER BY k.oid";

impl WriteTable {
    /// Reads it from the catalogue. `shapes` and `operators` are those of the plan's columns.
    ///
    /// # Errors
    /// What the server says.
    pub fn read(
        session: &Session,
        plan: &TablePlan,
        shapes: Vec<Shape>,
        operators: Vec<Operators>,
    ) -> Outcome<Self> {
        let relation = plan.relation.strip_prefix("ONLY ").unwrap_or(&plan.relation);
        let (rows, constraints, acting) = session.ask(async |client| {
            let named: &(dyn tokio_postgres::types::ToSql + Sync) = &relation;
            let cast = |sql: &str| {
                sql.replace("$1::pg_catalog.regclass", "$1::pg_catalog.text::pg_catalog.regclass")
            };
            let rows = client.query_typed(&cast(COLUMNS), &[(named, Type::TEXT)]).await?;
            let constraints = client.query_typed_one(&cast(CONSTRAINTS), &[(named, Type::TEXT)]).await?;
            let mut acting = Vec::new();
            for row in &client.query_typed(&cast(ACTING), &[(named, Type::TEXT)]).await? {
                let (child, is_own, refers) = (Found::of(row)?, row.try_get(4)?, row.try_get(5)?);
                let relation = format!("{}.{}", quoted(&child.schema), quoted(&child.name));
                acting.push(ActingKey { name: child.local_name(), relation, is_own, refers });
            }
            let mut read = Vec::with_capacity(rows.len());
            for row in &rows {
                let (name, counted, generated): (String, bool, bool) =
                    (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                let (oid, own_type, array_type): (u32, String, String) =
                    (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
                let is_money = oid == MONEY;
                let of = Arc::new(ColumnOf { oid, own_type, array_type, is_money });
                read.push((name, counted, generated, of));
            }
            Ok((read, (constraints.try_get(0)?, constraints.try_get::<_, bool>(1)?), acting))
        })?;
        let local = |place: usize| {
            let sent = &plan.columns[place];
            rows.iter().find(|(name, ..)| sent.is_local() && *name == sent.name)
        };
        let places = 0..plan.columns.len();
        let columns = places.clone().map(|place| local(place).map(|(.., of)| of.clone())).collect();
        let counted =
            places.clone().filter(|place| local(*place).is_some_and(|(_, counted, ..)| *counted)).collect();
        let is_sent = |name: &str| plan.columns.iter().any(|sent| sent.is_local() && sent.name == name);
        let others = rows
            .iter()
            .filter(|(name, _, generated, _)| !generated && !is_sent(name))
            .map(|(name, .., of)| (name.clone(), of.clone()))
            .collect();
        let text_types = places
            .zip(&shapes)
            .map(|(place, shape)| in_order(&plan.schema.columns()[place].column_type, shape))
            .collect();
        let equals = operators.iter().map(equals).collect();
        let (puts_off, tells_of_deletes) = constraints;
        let is_exchangeable = acting.is_empty() && !tells_of_deletes;
        Ok(WriteTable {
            columns,
            text_types,
            equals,
            counted,
            others,
            puts_off,
            acting: acting.into(),
            is_exchangeable,
        })
    }

    /// The type of the column at this place.
    pub fn column(&self, place: usize) -> Arc<ColumnOf> {
        self.columns.get(place).cloned().flatten().unwrap_or_else(ctid)
    }

    /// As which type its values are written out.
    pub fn text_type(&self, place: usize) -> &ColumnType {
        &self.text_types[place]
    }

    /// The operator by which it is compared.
    pub fn equals(&self, place: usize) -> String {
        self.equals.get(place).cloned().unwrap_or_else(|| "OPERATOR(pg_catalog.=)".to_owned())
    }

    /// Whether the database alone gives its numbers, so that no update may name it.
    pub fn is_counted(&self, place: usize) -> bool {
        self.counted.contains(&place)
    }
}

/// The OID of `money`.
const MONEY: u32 = 790;

fn equals(operators: &Operators) -> String {
    match operators {
        Operators::Schema(schema) => format!("OPERATOR({}.=)", quoted(schema)),
        Operators::Catalogue | Operators::None => "OPERATOR(pg_catalog.=)".to_owned(),
    }
}

/// A type with the attributes of its composite types in the order in which the local type has them.
fn in_order(column_type: &ColumnType, shape: &Shape) -> ColumnType {
    let inner = |part: &ColumnType, shape: &Shape| Box::new(in_order(part, shape));
    match (column_type, shape) {
        (ColumnType::Array(part), Shape::Array(own)) => ColumnType::Array(inner(part, own)),
        (ColumnType::Range(part), Shape::Range(own)) => ColumnType::Range(inner(part, own)),
        (ColumnType::Multirange(part), Shape::Multirange(own)) => ColumnType::Multirange(inner(part, own)),
        (ColumnType::Composite(attributes), Shape::Composite(own)) => {
            let of = |(name, shape): &(String, Shape)| {
                let mut attribute = attributes.iter().find(|attribute| attribute.name == *name)?.clone();
                attribute.column_type = in_order(&attribute.column_type, shape);
                Some(attribute)
            };
            ColumnType::Composite(own.iter().filter_map(of).collect())
        }
        _ => column_type.clone(),
    }
}
