//! Rows that both sides changed in different columns become one.

use std::collections::BTreeMap;

use super::decide::{Rules, newer_of};
use crate::digest::Digester;
use crate::error::Result;
use crate::manifest::Item;
use crate::reconcile::Side;
use crate::row::{Field, Fields, put_field};
use crate::short::ShortItem;
use crate::store::{ColumnDigests, ShortDigest, SourceRow};

/// What merging by columns needs to know of a table.
#[derive(Debug, Clone)]
pub struct Merging {
    /// Makes the digests, with the database's own key.
    pub digester: Digester,
    /// The number of the version's column, which is in no comparison of columns.
    pub version: u32,
}

/// A row of one side, to be merged with the other side's.
#[derive(Debug, Clone, Copy)]
pub struct Changed<'a> {
    /// The row.
    pub row: &'a SourceRow,
    /// Its revision.
    pub revision: i64,
}

impl Changed<'_> {
    fn rank(&self) -> (i64, ShortDigest) {
        (self.revision, ShortItem::from(&self.row.item).digest)
    }
}

impl Merging {
    /// The digests of a row's columns, as they are remembered.
    ///
    /// # Errors
    /// `Malformed` or `InvalidText` where the row breaks the grammar.
    pub fn columns(&self, row: &[u8]) -> Result<ColumnDigests> {
        let mut columns = ColumnDigests::new();
        for field in Fields::new(row) {
            let field = field?;
            if field.number != self.version {
                columns.push((field.number, self.column(&field)?));
            }
        }
        Ok(columns)
    }

    fn column(&self, field: &Field<'_>) -> Result<u64> {
        let mut form = Vec::with_capacity(field.bytes.len());
        put_field(&mut form, field)?;
        let [a, b, c, d, e, f, g, h, ..] = self.digester.digest_of_form(&form).0;
        Ok(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }

    /// One row out of both: of each column the value of the side that changed it since the base, and the version of the
    /// newer row. `None` where both changed a column, to different values.
    ///
    /// # Errors
    /// As [`Merging::columns`].
    pub fn merge(
        &self,
        base: &[(u32, u64)],
        local: Changed<'_>,
        remote: Changed<'_>,
        rules: &Rules,
    ) -> Result<Option<SourceRow>> {
        let newer = newer_of(local.rank(), remote.rank(), rules);
        let (ours, theirs) = (self.fields(local)?, self.fields(remote)?);
        let base: BTreeMap<u32, u64> = base.iter().copied().collect();
        let mut numbers: Vec<u32> = ours.keys().chain(theirs.keys()).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut row = Vec::with_capacity(local.row.row.len().max(remote.row.row.len()));
        for number in numbers {
            let (our, their) = (ours.get(&number), theirs.get(&number));
            let digest = |field: Option<&(u64, &[u8])>| field.map(|(digest, _)| *digest);
            let then = base.get(&number).copied();
            let from = if number == self.version || digest(our) == digest(their) {
                newer
            } else if digest(our) == then {
                Side::Remote
            } else if digest(their) == then {
                Side::Local
            } else {
                return Ok(None);
            };
            let field = if from == Side::Local { our } else { their };
            row.extend_from_slice(field.map_or(&[], |(_, bytes)| bytes));
        }
        let mut digester = self.digester.clone();
        let digest = digester.digest(&row)?;
        let item = Item { position: local.row.item.position, digest };
        Ok(Some(SourceRow { item, key: local.row.key.clone(), row }))
    }

    fn fields<'a>(&self, changed: Changed<'a>) -> Result<BTreeMap<u32, (u64, &'a [u8])>> {
        let fields = Fields::new(&changed.row.row);
        fields
            .map(|field| field.and_then(|field| Ok((field.number, (self.column(&field)?, field.bytes)))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::decide::Policy;
    use super::*;
    use crate::digest::FingerprintKey;
    use crate::row::RowWriter;

    const VERSION: u32 = 2;
    const RULES: Rules = Rules { policy: Policy::Newest, latest: None };

    fn merging() -> Merging {
        Merging { digester: Digester::new(FingerprintKey::new([5; 32])), version: VERSION }
    }

    /// A row of key, version and three columns; 0 stands for NULL.
    fn row(version: i64, columns: [i64; 3]) -> SourceRow {
        let mut bytes = Vec::new();
        let mut writer = RowWriter::new(&mut bytes);
        writer.int(1, 77);
        writer.int(VERSION, version);
        for (number, value) in (3..).zip(columns) {
            if value != 0 {
                writer.int(number, value);
            }
        }
        let digest = merging().digester.digest(&bytes).expect("a row");
        SourceRow { item: Item { position: 9, digest }, key: vec![77], row: bytes }
    }

    fn merged(base: [i64; 3], local: (i64, [i64; 3]), remote: (i64, [i64; 3])) -> Option<SourceRow> {
        let merging = merging();
        let base = merging.columns(&row(1, base).row).expect("columns");
        let (ours, theirs) = (row(local.0, local.1), row(remote.0, remote.1));
        let ours = Changed { row: &ours, revision: local.0 };
        let theirs = Changed { row: &theirs, revision: remote.0 };
        merging.merge(&base, ours, theirs, &RULES).expect("sound rows")
    }

    #[test]
    fn each_side_keeps_what_it_changed_and_the_higher_revision_stays() {
        assert_eq!(merged([1, 2, 3], (5, [9, 2, 3]), (7, [1, 2, 8])), Some(row(7, [9, 2, 8])));
        assert_eq!(merged([1, 2, 3], (5, [0, 2, 3]), (4, [1, 2, 8])), Some(row(5, [0, 2, 8])), "to NULL");
        assert_eq!(merged([0, 2, 3], (5, [6, 2, 3]), (4, [0, 0, 3])), Some(row(5, [6, 0, 3])), "from NULL");
        assert_eq!(merged([1, 2, 3], (5, [9, 2, 3]), (7, [9, 2, 8])), Some(row(7, [9, 2, 8])), "to the same");
        assert_eq!(merged([1, 2, 3], (5, [9, 2, 3]), (7, [8, 2, 3])), None, "to different values");
        assert_eq!(merged([1, 2, 3], (5, [0, 2, 3]), (7, [8, 2, 3])), None, "NULL against a value");
    }

    proptest! {
        #[test]
        fn merging_knows_no_order_of_sides_and_is_done_once(
            base in prop::array::uniform3(0..3i64),
            local in (2..5i64, prop::array::uniform3(0..3i64)),
            remote in (2..5i64, prop::array::uniform3(0..3i64)),
        ) {
            let one = merged(base, local, remote);
            prop_assert_eq!(&one, &merged(base, remote, local));
            let changed = |side: &[i64; 3], at: usize| side[at] != base[at];
            let both = |at: &usize| changed(&local.1, *at) && changed(&remote.1, *at);
            let clashes = (0..3).filter(both).any(|at| local.1[at] != remote.1[at]);
            prop_assert_eq!(one.is_none(), clashes);
            if let Some(one) = one {
                let expected: [i64; 3] = std::array::from_fn(|at| match changed(&local.1, at) {
                    true => local.1[at],
                    false => remote.1[at],
                });
                prop_assert_eq!(&one, &row(local.0.max(remote.0), expected));
                // Merging the result with either side, over that side, is the result.
                let version = local.0.max(remote.0);
                let again = merged(local.1, local, (version, expected));
                prop_assert_eq!(again, Some(one));
            }
        }
    }
}
