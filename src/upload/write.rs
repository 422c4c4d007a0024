//! The statements that write a group of rows, and what they stored.

use std::collections::HashMap;

use plimsoll_core::digest::Digester;
use plimsoll_core::row::key_of;

use super::read_back::ReadBack;
use super::store::{Mode, Writer, key_rows, push};
use super::{IncomingRow, bulk};
use crate::datum::{Ctid, IncomingRows, Row, by_index, by_place, execute};
use crate::error::Answer;
use crate::table::{Placeholders, quoted};

impl<'u> Writer<'_, 'u> {
    /// Writes the group, and reads it back.
    pub(super) fn write(&mut self, rows: &[(IncomingRow<'u>, bool)], mode: Mode) -> Answer<ReadBack> {
        let mut stored = ReadBack::default();
        let places = self.lock(rows)?;
        let vanished = rows.iter().filter(|(row, exists)| *exists && !places.contains_key(&row.ordinal));
        stored.gone.extend(vanished.map(|(row, _)| row.ordinal));
        let existing: Vec<&IncomingRow<'u>> =
            rows.iter().filter(|(_, exists)| *exists).map(|(row, _)| row).collect();
        let new: Vec<&IncomingRow<'u>> =
            rows.iter().filter(|(_, exists)| !exists).map(|(row, _)| row).collect();
        match mode {
            _ if existing.is_empty() => {}
            Mode::Update => self.run(&self.update_statement(), &existing, &places, &mut stored)?,
            Mode::Replace => self.run(&self.replace_statement(), &existing, &places, &mut stored)?,
        }
        if !new.is_empty() && self.past_statements {
            stored.new_as_sent = bulk::insert(self.database, self.table, new.iter().copied())?;
        }
        if !new.is_empty() && !stored.new_as_sent {
            self.run(&self.insert_statement(), &new, &places, &mut stored)?;
        }
        Ok(stored)
    }

    /// Locks the rows that exist, and answers where they are.
    fn lock(&mut self, rows: &[(IncomingRow<'u>, bool)]) -> Answer<HashMap<usize, Ctid>> {
        let mut places = HashMap::new();
        let existing = rows.iter().filter(|(_, exists)| *exists).map(|(row, _)| row);
        if existing.clone().next().is_some() {
            let placeholders = Placeholders::for_tenant(self.table, self.database)?;
            let keys = key_rows(self.table, existing)?;
            let mut take = |row: &Row<'_>| {
                if let (Some(ordinal), Some(ctid)) = (row.int8(0), row.ctid(1)) {
                    places.insert(ordinal as usize, ctid);
                }
                Ok(())
            };
            let (index, sql) = (self.table.key_index(), self.table.lock_statement());
            by_index(index, || execute(&sql, placeholders.parameters(), Some(&keys), &mut take))?;
        }
        Ok(places)
    }

    /// The tenant columns, quoted, and the placeholders of their values.
    fn tenant_lists(&self) -> (String, String) {
        let columns = self.table.tenant.iter().map(|column| format!("{}, ", quoted(&column.name)));
        let values = (1..=columns.len()).map(|i| format!("${i}, "));
        (columns.collect(), values.collect())
    }

    fn insert_statement(&self) -> String {
        let table = &self.table;
        let (tenant, values) = self.tenant_lists();
        format!(
            "INSERT INTO {} AS t ({tenant}{}) OVERRIDING SYSTEM VALUE
             SELECT {values}{} FROM incoming i RETURNING {}",
            table.name,
            table.column_list(""),
            table.column_list("i."),
            table.column_list("t.")
        )
    }

    /// Takes rows out and puts them in again, with what the server had filled in.
    fn replace_statement(&self) -> String {
        let table = &self.table;
        let (tenant, values) = self.tenant_lists();
        let sent = table.physical.iter().map(|column| ("i", &column.name));
        let columns: Vec<_> = sent.chain(table.server_filled.iter().map(|name| ("t", name))).collect();
        let list = |of: &dyn Fn(usize, &str, &str) -> String| {
            let items = columns.iter().enumerate().map(|(i, (from, name))| of(i, from, &quoted(name)));
            items.collect::<Vec<_>>().join(", ")
        };
        // The join waits until every row to be replaced is gone.
        format!(
            "WITH gone AS (DELETE FROM {} t USING incoming i WHERE {} RETURNING {}),
                  counted AS (SELECT pg_catalog.count(*) AS gone FROM gone)
             INSERT INTO {} AS t ({tenant}{}) OVERRIDING SYSTEM VALUE
             SELECT {values}{} FROM gone g CROSS JOIN counted c WHERE c.gone OPERATOR(pg_catalog.>=) 0
             RETURNING {}",
            table.name,
            table.locked_predicate(),
            list(&|i, from, name| format!("{from}.{name} AS c{i}")),
            table.name,
            list(&|_, _, name| name.to_owned()),
            list(&|i, _, _| format!("g.c{i}")),
            table.column_list("t.")
        )
    }

    fn update_statement(&self) -> String {
        let table = &self.table;
        let key = table.schema.key_indexes();
        let columns = table.physical.iter().enumerate();
        let may_change = columns.filter(|(i, column)| !key.contains(i) && !column.always_identity);
        let mut columns: Vec<_> = may_change.map(|(_, column)| column).collect();
        if columns.is_empty() {
            // Such a table has no row that could be changed; a statement needs a column all the same.
            columns.extend(table.physical.first());
        }
        let set: Vec<String> = columns
            .into_iter()
            .map(|column| {
                let name = pgrx::spi::quote_identifier(&column.name);
                format!("{name} = i.{name}")
            })
            .collect();
        format!(
            "UPDATE {} t SET {} FROM incoming i WHERE {} RETURNING {}",
            table.name,
            set.join(", "),
            table.locked_predicate(),
            table.column_list("t.")
        )
    }

    fn run(
        &mut self,
        sql: &str,
        rows: &[&IncomingRow<'_>],
        places: &HashMap<usize, Ctid>,
        stored: &mut ReadBack,
    ) -> Answer<()> {
        let placeholders = Placeholders::for_tenant(self.table, self.database)?;
        let mut incoming = IncomingRows::new(&self.table.incoming_columns())?;
        for row in rows {
            push(self.table, row, None, places.get(&row.ordinal).copied(), &mut incoming)?;
        }
        let mut digester = Digester::new(self.database.fingerprint_key.clone());
        let numbers = self.table.numbers();
        let (schema, codecs) = (&self.table.schema, &mut self.table.codecs);
        let mut encoded = Vec::new();
        // Rows come back in the order they were written; the few that do not are told apart by their keys.
        let mut expected = rows.iter();
        let mut take = |row: &Row<'_>| {
            encoded.clear();
            row.encode(0, &numbers, codecs, &mut encoded)?;
            let next = expected.next();
            // The same bytes have the same digest; others may have too (1.5 comes back as 1.50).
            if let Some(as_sent) = next.filter(|next| next.row == encoded) {
                stored.as_sent.insert(as_sent.ordinal);
                return Ok(());
            }
            let digest = digester.digest(&encoded)?;
            match next.filter(|next| next.digest == digest) {
                Some(as_sent) => drop(stored.as_sent.insert(as_sent.ordinal)),
                None => stored.other(key_of(&encoded, schema)?, digest, &encoded),
            }
            Ok(())
        };
        by_place(|| execute(sql, placeholders.parameters(), Some(&incoming), &mut take))?;
        Ok(())
    }
}
