//! Which row holds a unique value for which another one is refused: people look for it first.

use std::ops::ControlFlow;

use plimsoll_core::store::Outcome;

use super::locate::see;
use super::put::Refused;
use super::{Apply, Job};
use crate::source::engine::all_rows;
use crate::source::engine::change::key_text;
use crate::source::engine::encode::Encoder;
use crate::source::plan::TablePlan;
use crate::source::query::RawValue;
use crate::source::write::{RowError, WriteKind};

/// Refused rows of one call whose holders are looked for.
const MOST_HELD: usize = 20;

impl<K: WriteKind> Apply<'_, K> {
    /// Says of rows that are refused for a unique value of one column which row holds it: of the first ones of a call.
    pub(super) fn tell_holders(&mut self, jobs: &[Job<'_>], refused: &mut Refused) -> Outcome<()> {
        for (at, error) in refused.iter_mut() {
            let Some((place, value)) = self.contested_value(&jobs[*at], error) else { continue };
            if self.holders_sought == MOST_HELD {
                break;
            }
            self.holders_sought += 1;
            if let Some(holder) = self.holder(place, value)?.filter(|holder| holder != jobs[*at].key) {
                let key = key_text(&self.write.plan, &holder);
                error.message.push_str(&format!("; it is held by the row {key}"));
            }
        }
        Ok(())
    }

    /// The value that another row has, and its column's place in the plan.
    fn contested_value(&self, job: &Job<'_>, error: &RowError) -> Option<(usize, RawValue)> {
        let (column, (_, values)) = (error.column.as_ref()?, job.row.as_ref()?);
        let place = self.write.plan.columns.iter().position(|sent| sent.name == *column)?;
        let value = values.get(self.write.places.binary_search(&place).ok()?)?;
        (error.is_unique() && !value.is_null()).then(|| (place, value.clone()))
    }

    /// The encoded key of the row that has a value in a column.
    fn holder(&mut self, place: usize, value: RawValue) -> Outcome<Option<Vec<u8>>> {
        // Rows are named by this column, as they are by their key.
        let plan = TablePlan { order: vec![place], ..self.write.plan.clone() };
        let query = all_rows(self.reader.table, &plan);
        let mut holder = None;
        let encoder: &mut Encoder = self.reader.encoder;
        self.reader.kind.stream_keys(&query, &[vec![value]], false, &mut |row| {
            holder = see(encoder, &plan, row).key;
            ControlFlow::Break(())
        })?;
        Ok(holder)
    }
}
