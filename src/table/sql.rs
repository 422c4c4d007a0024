//! Pieces of the statements on a managed table. Identifiers are quoted, values are parameters, and the
//! tenant predicate is in every one as a plain equality.

use pgrx::pg_sys;
use plimsoll_core::schema::Axis;

use super::ManagedTable;
use crate::access::Database;
use crate::datum::{IncomingColumn, Indexes, Parameter, long_array, quoted};
use crate::error::Answer;

/// Collects the parameters of a statement and answers their placeholders.
pub struct Placeholders {
    parameters: Vec<Parameter>,
}

impl Placeholders {
    /// The tenant's parameters come first.
    pub fn for_tenant(table: &ManagedTable, database: &Database) -> Answer<Self> {
        Ok(Placeholders { parameters: table.tenant_parameters(database)? })
    }

    /// Adds a parameter; its placeholder.
    pub fn add(&mut self, parameter: Parameter) -> String {
        self.parameters.push(parameter);
        format!("${}", self.parameters.len())
    }

    /// The parameters, in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl ManagedTable {
    /// `t.client_id = $1 AND t.database_id = $2`, by the operators of the columns' types; `true` where all rows
    /// belong to one database.
    pub fn tenant_predicate(&self) -> String {
        self.tenant_predicate_of("t")
    }

    fn tenant_predicate_of(&self, stored: &str) -> String {
        let equal = |(i, column): (usize, &super::TenantColumn)| {
            format!("{stored}.{} OPERATOR(pg_catalog.=) ${}", quoted(&column.name), i + 1)
        };
        if self.tenant.is_empty() {
            return "true".to_owned();
        }
        self.tenant.iter().enumerate().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// The sent columns, each with `prefix` in front.
    pub fn column_list(&self, prefix: &str) -> String {
        let columns = self.physical.iter().map(|column| format!("{prefix}{}", quoted(&column.name)));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// What rows are read in order by: position and key, or where they lie where they have no key.
    pub fn order(&self) -> String {
        let mut order = vec![self.position("t.")];
        if self.schema.is_keyless() {
            order.extend(["t.tableoid", "t.ctid"].map(str::to_owned));
        }
        order.extend(self.schema.key().map(|column| format!("t.{}", quoted(&column.name))));
        order.join(", ")
    }

    /// The tenant predicate, with what lets our index on the position be used where positions do not say so.
    pub fn placed_predicate(&self) -> String {
        let condition = self.position_condition("t.").filter(|_| self.is_hashed());
        let condition = condition.map_or(String::new(), |condition| format!(" AND {condition}"));
        self.tenant_predicate() + &condition
    }

    /// `AND`-joined equality of the key between the table and incoming rows.
    pub fn key_predicate(&self) -> String {
        self.key_predicate_of("t", "i")
    }

    fn key_predicate_of(&self, stored: &str, incoming: &str) -> String {
        let equal = |i: &usize| {
            let column = &self.physical[*i];
            let operator = column.equality.as_deref().unwrap_or("OPERATOR(pg_catalog.=)");
            let name = quoted(&column.name);
            format!("{stored}.{name} {operator} {incoming}.{name}")
        };
        self.schema.key_indexes().iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// Reads the tenant's rows of one piece of the axis. It always has two bounds: without statistics the planner
    /// takes a third of the replica to lie beyond a single one, and reads all of it.
    pub fn piece_statement(
        &self,
        bounds: (i64, i64),
        ordered: bool,
        placeholders: &mut Placeholders,
    ) -> String {
        let [first, last] =
            [bounds.0, bounds.1].map(|position| placeholders.add(self.position_parameter(position)));
        let (columns, position) = (self.column_list("t."), self.position("t."));
        let order = if ordered { format!(" ORDER BY {position}") } else { String::new() };
        format!(
            "SELECT {columns} FROM {} t WHERE {} AND {position} OPERATOR(pg_catalog.>=) {first}
                 AND {position} OPERATOR(pg_catalog.<=) {last}{order}",
            self.name,
            self.placed_predicate()
        )
    }

    /// Reads the tenant's rows of several pieces of the axis, each by its first and last position, in one
    /// statement. The fence makes the planner look each piece up by index.
    pub fn pieces_statement(
        &self,
        bounds: &[(i64, i64)],
        ordered: bool,
        placeholders: &mut Placeholders,
    ) -> String {
        let element = self.position_parameter(0).type_oid;
        let (firsts, lasts): (Vec<i64>, Vec<i64>) = bounds.iter().copied().unzip();
        let firsts = placeholders.add(long_array(element, &firsts));
        let lasts = placeholders.add(long_array(element, &lasts));
        let (columns, position) = (self.column_list("t."), self.position("t."));
        let order = if ordered { format!(" ORDER BY {position}") } else { String::new() };
        format!(
            "SELECT {columns} FROM ROWS FROM (pg_catalog.unnest({firsts}), pg_catalog.unnest({lasts}))
                 AS b (\"plimsoll first\", \"plimsoll last\")
             CROSS JOIN LATERAL (SELECT {columns} FROM {name} t WHERE {tenant}
                 AND {position} OPERATOR(pg_catalog.>=) b.\"plimsoll first\"
                 AND {position} OPERATOR(pg_catalog.<=) b.\"plimsoll last\" OFFSET 0) t{order}",
            name = self.name,
            tenant = self.placed_predicate()
        )
    }

    /// The tenant's rows with positions in `[from, to)`, `None` for open. There is always a lower bound: it
    /// tells the planner that the position is not NULL, which our index asks for.
    pub fn range_predicate(
        &self,
        from: Option<i64>,
        to: Option<i64>,
        placeholders: &mut Placeholders,
    ) -> String {
        let (mut predicate, position) = (self.placed_predicate(), self.position("t."));
        for (bound, operator) in [(Some(from.unwrap_or(i64::MIN)), ">="), (to, "<")] {
            if let Some(bound) = bound {
                let placeholder = placeholders.add(self.position_parameter(bound));
                predicate += &format!(" AND {position} OPERATOR(pg_catalog.{operator}) {placeholder}");
            }
        }
        predicate
    }

    /// The index that finds a row by its key.
    pub fn key_index(&self) -> Indexes {
        let columns = self.tenant_names().chain(self.schema.key().map(|column| column.name.clone()));
        Indexes::over(self.oid, columns.collect())
    }

    /// The index that finds rows by their positions.
    pub fn position_index(&self) -> Indexes {
        let version = match self.schema.axis() {
            Axis::Version(place) if !self.position_is_computed() => {
                Some(self.schema.columns()[place].name.clone())
            }
            Axis::Version(_) | Axis::Hash => None,
        };
        let computed = version.is_none();
        Indexes::leading(self.oid, self.tenant_names().chain(version).collect(), computed)
    }

    fn tenant_names(&self) -> impl Iterator<Item = String> {
        self.tenant.iter().map(|column| column.name.clone())
    }

    /// Incoming rows joined with the stored rows of the same keys, looked up one by one: without statistics
    /// the planner would join the other way round and read all of the replica for each incoming row.
    pub fn incoming_with_stored(&self, columns: &str, fence: &str) -> String {
        format!(
            "incoming i CROSS JOIN LATERAL (SELECT {columns} FROM {} t WHERE {} AND {} {fence}) t",
            self.name,
            self.tenant_predicate(),
            self.key_predicate()
        )
    }

    /// Locks the stored rows of the incoming rows' keys; answers ordinal and ctid.
    pub fn lock_statement(&self) -> String {
        format!(
            "SELECT i.\"plimsoll ordinal\", t.ctid FROM {}",
            self.incoming_with_stored("t.ctid", "FOR UPDATE")
        )
    }

    /// Which stored row an incoming row is, once it is locked. Tenant and key are there so that a ctid of
    /// another partition means nothing, in a form that offers the planner no index: it would read the replica.
    pub fn locked_predicate(&self) -> String {
        self.locked_predicate_of("t", "i")
    }

    /// The same between tables of these names.
    pub fn locked_predicate_of(&self, stored: &str, incoming: &str) -> String {
        format!(
            "{stored}.ctid = {incoming}.\"plimsoll ctid\" AND ({} AND {}) IS TRUE",
            self.tenant_predicate_of(stored),
            self.key_predicate_of(stored, incoming)
        )
    }

    /// The columns of incoming rows: the ordinal, the stored row's ctid, then the sent columns.
    pub fn incoming_columns(&self) -> Vec<IncomingColumn> {
        let own = |name: &str, type_oid| IncomingColumn {
            name: name.to_owned(),
            type_oid,
            typmod: -1,
            collation: pg_sys::InvalidOid,
        };
        let ordinal = own("plimsoll ordinal", pg_sys::INT8OID);
        let ctid = own("plimsoll ctid", pg_sys::TIDOID);
        let sent = self.physical.iter().zip(&self.codecs).map(|(column, codec)| IncomingColumn {
            name: column.name.clone(),
            type_oid: codec.type_oid,
            typmod: codec.typmod,
            collation: column.collation,
        });
        [ordinal, ctid].into_iter().chain(sent).collect()
    }
}
