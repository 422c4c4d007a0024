use super::*;
use crate::digest::RowDigest;
use crate::store::PositionRange;
use proptest::prelude::*;

/// A row of the model.
#[derive(Debug, Clone, Copy)]
struct Row {
    position: i64,
    digest: RowDigest,
    modified: Option<i64>,
}

impl Row {
    fn change(&self, added: bool) -> Change {
        Change { position: self.position, digest: self.digest, modified: self.modified, added }
    }
}

/// What a replica holds, row by row, and what is kept of it.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    blocks: Vec<Node>,
    entries: Vec<Entry>,
    made: u64,
}

/// A step: rows added around a position so far apart, or a share of all rows taken away.
#[derive(Debug, Clone)]
enum Step {
    Add { around: i64, apart: i64, rows: u16, modified: Option<i64> },
    Remove { one_in: usize, from: usize },
    Fold,
}

fn step() -> impl Strategy<Value = Step> {
    let around = prop_oneof![Just(0i64), Just(i64::MAX), Just(i64::MIN), any::<i64>(), -5_000i64..5_000];
    let add =
        (around, prop_oneof![Just(0i64), Just(1), Just(3), Just(1 << 40)], 1u16..4_000, any::<Option<i8>>());
    prop_oneof![
        3 => add.prop_map(|(around, apart, rows, modified)| {
            Step::Add { around, apart, rows, modified: modified.map(i64::from) }
        }),
        2 => (1usize..40, any::<usize>()).prop_map(|(one_in, from)| Step::Remove { one_in, from }),
        2 => Just(Step::Fold),
    ]
}

impl Model {
    fn write(&mut self, changes: impl Iterator<Item = Change>) {
        let mut collected = Changes::default();
        changes.for_each(|change| collected.push(change));
        let blocks: Vec<Dyadic> = self.blocks.iter().map(|block| block.range).collect();
        let entries = collected.finish(&blocks);
        let packed = pack_entries(&entries);
        assert_eq!(read_entries(&packed).as_ref(), Ok(&entries));
        for cut in [1, packed.len() / 2, packed.len().saturating_sub(1)] {
            let cut = read_entries(&packed[..cut.min(packed.len())]);
            assert!(cut.is_err() || cut.is_ok_and(|cut| cut.len() < entries.len() || entries.is_empty()));
        }
        self.entries.extend(entries);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add { around, apart, rows, modified } => {
                let new: Vec<Row> = (0..i64::from(*rows))
                    .map(|i| {
                        self.made += 1;
                        let digest = RowDigest(*blake3::hash(&self.made.to_le_bytes()).as_bytes());
                        let position = around.saturating_add(apart.saturating_mul(i));
                        Row { position, digest, modified: modified.map(|modified| modified + i % 7) }
                    })
                    .collect();
                self.write(new.iter().map(|row| row.change(true)));
                self.rows.extend(new);
            }
            Step::Remove { one_in, from } => {
                let mut removed = Vec::new();
                let mut place = *from % one_in;
                self.rows.retain(|row| {
                    place += 1;
                    let stays = place % one_in != 0;
                    if !stays {
                        removed.push(*row);
                    }
                    stays
                });
                self.write(removed.iter().map(|row| row.change(false)));
            }
            Step::Fold => self.fold(),
        }
    }

    fn rows_in(&self, range: &Dyadic) -> Vec<Row> {
        let mut rows: Vec<Row> =
            self.rows.iter().filter(|row| range.contains(row.position)).copied().collect();
        rows.sort_by_key(|row| row.position);
        rows
    }

    /// As the server folds: oversize nodes are split by a look at their rows.
    fn fold(&mut self) {
        let mut nodes = Vec::new();
        for node in merge(self.blocks.iter().copied(), &self.entries).unwrap() {
            if node.is_oversize() {
                let mut changes = Changes::default();
                self.rows_in(&node.range).iter().for_each(|row| changes.push(row.change(true)));
                nodes.extend(merge([], &changes.finish(&[])).unwrap());
            } else if node.lost {
                let max_modified = self.rows_in(&node.range).iter().filter_map(|row| row.modified).max();
                nodes.push(Node { max_modified, lost: false, ..node });
            } else {
                nodes.push(node);
            }
        }
        let after = coalesce(&nodes, PositionRange::ALL);
        let difference = difference(&self.blocks, &after);
        self.blocks.retain(|block| !difference.gone.contains(&block.range));
        for node in difference.written {
            self.blocks.retain(|block| block.range.first() != node.range.first());
            self.blocks.push(node);
        }
        self.blocks.sort_by_key(|block| block.range);
        assert_eq!(self.blocks, after);
        self.entries.clear();
    }

    fn check(&self) {
        let nodes = merge(self.blocks.iter().copied(), &self.entries).unwrap();
        for pair in nodes.windows(2) {
            assert!(pair[0].range.last() < pair[1].range.first(), "{pair:?}");
        }
        let mut seen = 0;
        for node in &nodes {
            let rows = self.rows_in(&node.range);
            let actual: Fingerprint = rows.iter().map(|row| row.digest).collect();
            assert_eq!(node.fingerprint, actual);
            let latest = rows.iter().filter_map(|row| row.modified).max();
            assert!(node.max_modified == latest || (node.lost && node.max_modified > latest), "{node:?}");
            seen += rows.len();
        }
        assert_eq!(seen, self.rows.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn blocks_and_entries_always_say_what_the_rows_are(steps in prop::collection::vec(step(), 1..9)) {
        let mut model = Model::default();
        for step in &steps {
            model.step(step);
            model.check();
        }
        model.fold();
        model.check();
        prop_assert!(model.blocks.iter().all(|block| !block.is_oversize() && !block.lost));
        let (blocks, rows) = (model.blocks.len() as u64, model.rows.len() as u64);
        // A bound on what sparse stretches cost: neighbours that could be one block are.
        prop_assert!(blocks <= 2 + 66 * rows / (BLOCK_ROWS / 2), "{} blocks for {} rows", blocks, rows);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read_entries(&bytes);
        let mut versioned = vec![crate::ENCODING_VERSION];
        versioned.extend(bytes);
        if let Ok(entries) = read_entries(&versioned) {
            let _ = merge([], &entries);
        }
    }

    #[test]
    fn ordered_changes_in_any_number_of_flushes_make_disjoint_blocks(
        steps in prop::collection::vec((0i64..5_000, 1usize..3_000), 1..8)
    ) {
        let (mut changes, mut position) = (Changes::default(), 0);
        let mut all = Fingerprint::default();
        let mut made = 0u64;
        for (step, rows) in steps {
            for _ in 0..rows {
                made += 1;
                position += step / 10;
                let digest = RowDigest(*blake3::hash(&made.to_le_bytes()).as_bytes());
                all.insert(&digest);
                changes.push(Change { position, digest, modified: None, added: true });
            }
            changes.flush_ordered();
        }
        let entries = changes.finish_ordered();
        let nodes = merge([], &entries).unwrap();
        let mut sum = Fingerprint::default();
        nodes.iter().for_each(|node| sum.combine(&node.fingerprint));
        prop_assert_eq!(sum, all);
        for node in &nodes {
            prop_assert!(!node.is_oversize(), "{:?}", node);
        }
    }
}

#[test]
fn an_entry_of_one_position_has_one_form() {
    let entry = Entry { range: Dyadic::point(5), change: Fingerprint::default(), added: None, removed: None };
    let bytes = pack_entries(&[entry]);
    assert_eq!(read_entries(&bytes).map(|entries| entries.len()), Ok(1));
    // The same with its level written out.
    let otherwise = [&[bytes[0], bytes[1] & !1, 64], &bytes[2..]].concat();
    assert!(read_entries(&otherwise).is_err());
}

#[test]
fn more_taken_away_than_there_was_is_no_answer() {
    let row = Row { position: 7, digest: RowDigest([9; 32]), modified: None };
    let entry = |added| {
        let mut changes = Changes::default();
        changes.push(row.change(added));
        changes.finish(&[])
    };
    assert!(merge([], &entry(false)).is_err());
    let both = [entry(true), entry(false)].concat();
    assert_eq!(merge([], &both), Ok(vec![]));
    let mut other = entry(false);
    other[0].change = Fingerprint::from_parts(u64::MAX, [1; 32]);
    assert!(merge([], &[entry(true), other].concat()).is_err(), "no row is left, but something of one");
}

#[test]
fn a_crowded_position_is_one_block_however_many_rows_stand_there() {
    let mut model = Model::default();
    for _ in 0..3 {
        model.step(&Step::Add { around: 5, apart: 0, rows: 3_000, modified: Some(1) });
        model.step(&Step::Add { around: 6, apart: 1, rows: 10, modified: Some(2) });
        model.fold();
    }
    model.check();
    assert!(
        model
            .blocks
            .iter()
            .any(|block| block.range == Dyadic::point(5) && block.fingerprint.row_count() == 9_000)
    );
}

#[test]
fn rows_appended_one_by_one_make_blocks_of_a_handy_size() {
    let mut model = Model::default();
    for i in 0..100 {
        for j in 0..100 {
            let row = Step::Add { around: 100_000 + i * 100 + j, apart: 0, rows: 1, modified: Some(i) };
            model.step(&row);
        }
        model.fold();
    }
    model.check();
    let blocks = model.blocks.len();
    assert!((5..=40).contains(&blocks), "{blocks} blocks for 10,000 rows");
}

#[test]
fn nothing_is_joined_with_what_is_not_known() {
    let node = |position: i64| Node {
        range: Dyadic::point(position),
        fingerprint: Fingerprint::from_parts(1, [1; 32]),
        max_modified: None,
        lost: false,
    };
    let nodes = [node(8), node(9), node(12)];
    let known = PositionRange { from: Some(8), to: Some(13) };
    let joined = coalesce(&nodes, known);
    let ranges: Vec<Dyadic> = joined.iter().map(|node| node.range).collect();
    assert_eq!(ranges, [Dyadic::of(8, 63), Dyadic::point(12)], "position 13 to 15 may hold blocks");
}
