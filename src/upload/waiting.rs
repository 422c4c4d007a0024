//! Rows that wait for others of the same upload: values swapped between rows, children before parents.

use std::collections::HashMap;

use plimsoll_core::row::key_of;

use super::store::Writer;
use super::{IncomingRow, holder};
use crate::datum::Caught;
use crate::error::Answer;
use crate::manifest::shown_key;

/// A row that may fit when others have come or gone.
pub struct Waiting<'u> {
    /// The row, and whether its key exists.
    pub row: (IncomingRow<'u>, bool),
    /// Why it was not stored.
    pub caught: Caught,
    /// The key of the row that holds the unique value it needs.
    pub holder: Option<Vec<u8>>,
}

impl<'u> Writer<'_, 'u> {
    /// Rows that wait for each other arrive when they come together: rounds over what waits, as long as
    /// each stores something.
    pub fn retry_waiting(&mut self) -> Answer<()> {
        loop {
            let before = self.waiting.len();
            let (collided, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.waiting).into_iter().partition(|w| w.caught.sqlstate() == "23505");
            self.group(others.into_iter().map(|waiting| waiting.row).collect())?;
            self.retry_chains(collided)?;
            if self.waiting.is_empty() || self.waiting.len() >= before {
                break;
            }
        }
        for Waiting { row: (row, _), caught, holder } in std::mem::take(&mut self.waiting) {
            let holder_key = match &holder {
                Some(holder) => format!("; it is held by the row {}", shown_key(holder, &self.table.schema)?),
                None => String::new(),
            };
            // An exclusion constraint's detail shows the other row, which may be of another database.
            let message = match &caught.detail {
                Some(detail) if caught.sqlstate() != "23P01" => {
                    format!("{}: {detail}{holder_key}", caught.message)
                }
                _ => format!("{}{holder_key}", caught.message),
            };
            self.refuse(&row, true, holder, caught.sqlstate(), message)?;
        }
        Ok(())
    }

    /// Each row that needs a unique value is tried together with the row that holds it, the row that holds
    /// what that one needs, and so on: values swapped in a circle arrive.
    fn retry_chains(&mut self, mut waiting: Vec<Waiting<'u>>) -> Answer<()> {
        for row in &mut waiting {
            row.holder = holder::find(self.database, self.table, &row.row.0)?;
        }
        let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
        for (place, row) in waiting.iter().enumerate() {
            places.insert(key_of(row.row.0.row, &self.table.schema)?, place);
        }
        let mut left: Vec<Option<Waiting<'u>>> = waiting.into_iter().map(Some).collect();
        for start in 0..left.len() {
            let mut chain = Vec::new();
            let mut next = Some(start);
            while let Some(place) = next.filter(|place| !chain.contains(place)) {
                let Some(row) = &left[place] else { break };
                chain.push(place);
                next = row.holder.as_ref().and_then(|key| places.get(key).copied());
            }
            let taken: Vec<Waiting<'u>> = chain.iter().filter_map(|place| left[*place].take()).collect();
            let (rows, rest): (Vec<_>, Vec<_>) =
                taken.into_iter().map(|w| (w.row, (w.caught, w.holder))).unzip();
            if !rows.is_empty() && self.together(&rows)?.is_some() {
                for ((place, row), (caught, holder)) in chain.into_iter().zip(rows).zip(rest) {
                    left[place] = Some(Waiting { row, caught, holder });
                }
            }
        }
        self.waiting.extend(left.into_iter().flatten());
        Ok(())
    }
}
