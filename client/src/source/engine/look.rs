//! The rows of ranges with their content.

use std::ops::ControlFlow;

use plimsoll_core::store::{BadRow, Outcome, PositionRange, SourceRow};

use super::encode::{Digests, Encoded, Encoder};
use super::read::TO_COME;
use super::scan::{joined, place_of};
use super::{Reader, Step, all_rows};
use crate::source::kind::Kind;
use crate::source::query::{Condition, Query};
use crate::source::write::RowSeen;
use plimsoll_core::manifest::Item;

/// What is done with each row.
type Each<'e> = dyn FnMut(RowSeen<'_>) -> Outcome<()> + 'e;

impl<K: Kind> Reader<'_, K> {
    /// Hands out the rows of ranges that ascend and may meet. Without an index to find them by, all rows are gone
    /// through once.
    pub(super) fn seen(&mut self, ranges: &[PositionRange], each: &mut Each<'_>) -> Step<()> {
        let (table, plan) = (self.table, self.plan);
        let open_below = ranges.iter().position(|range| range.from.is_none());
        let is_found = self.kind.finds_positions(table, plan)?;
        let are_all = !is_found && joined(ranges) == [PositionRange::ALL];
        // Rows whose digests are made together.
        let mut rows: Vec<SourceRow> = Vec::new();
        let mut digests = self.encoder.digests();
        let mut take = |encoder: &mut Encoder, row: &K::Row<'_>| {
            let position = if are_all { None } else { encoder.position(plan, row) };
            let is_wanted = match position {
                _ if are_all => true,
                Some(position) => place_of(ranges, position).is_some(),
                // Where an index finds the others, these are looked for by themselves.
                None => open_below.is_some() && !is_found,
            };
            if !is_wanted {
                return Ok(ControlFlow::Continue(()));
            }
            match encoder.encode(plan, row) {
                Encoded::Good(position) => {
                    rows.push(encoder.take_row(Item { position, digest: TO_COME }));
                    if encoder.queue(&mut digests, rows.len() - 1) {
                        hand_out(&mut rows, &mut digests, each)?;
                    }
                }
                Encoded::Bad(bad) => each(RowSeen::Bad(&bad))?,
            }
            Ok(ControlFlow::Continue(()))
        };
        match is_found {
            true => {
                for range in joined(ranges) {
                    let query = Query { condition: Condition::At(range), ..all_rows(table, plan) };
                    self.each(&query, &mut take)?;
                }
            }
            false => self.each_of_all(&mut take)?,
        }
        hand_out(&mut rows, &mut digests, each)?;
        if open_below.is_some() && is_found {
            let misplaced: Vec<BadRow> = self.misplaced()?;
            misplaced.iter().try_for_each(|bad| each(RowSeen::Bad(bad)))?;
        }
        Ok(())
    }
}

fn hand_out(rows: &mut Vec<SourceRow>, digests: &mut Digests, each: &mut Each<'_>) -> Outcome<()> {
    digests.take(|number, digest| rows[number].item.digest = digest);
    rows.drain(..).try_for_each(|row| each(RowSeen::Row(&row)))
}
