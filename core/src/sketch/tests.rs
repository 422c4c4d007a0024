use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const MILLION: PositionRange = PositionRange { from: Some(1), to: Some(1_000_001) };

fn item(rng: &mut StdRng) -> ShortItem {
    ShortItem { position: rng.random_range(1..=1_000_000), digest: rng.random() }
}

fn sketch(ranges: &[PositionRange], first: u32, symbols: u32, items: &[ShortItem]) -> Sketch {
    let mut sketch = Sketch::new(ranges, first, symbols).expect("a sketch");
    items.iter().for_each(|item| sketch.add(item));
    sketch
}

fn decode(
    ranges: &[PositionRange],
    symbols: u32,
    local: &[ShortItem],
    remote: &[ShortItem],
) -> Option<Decoded> {
    let remote = sketch(ranges, 0, symbols, remote).pack();
    let remote = Sketch::read(ranges, 0, &remote).expect("a sketch");
    let mut decoded = remote.decode(&sketch(ranges, 0, symbols, local))?;
    decoded.local_only.sort_unstable();
    decoded.remote_only.sort_unstable();
    Some(decoded)
}

#[test]
fn symbols_for_each_difference_are_about_what_the_paper_says() {
    for (differences, most) in [(10usize, 2.5), (100, 1.8), (1_000, 1.5)] {
        let mut needed = 0.0;
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let remote: Vec<_> = (0..differences).map(|_| item(&mut rng)).collect();
            let step = (differences as u32 / 50).max(1);
            let enough = (1..).map(|n| n * step).find(|n| decode(&[MILLION], *n, &[], &remote).is_some());
            needed += f64::from(enough.expect("symbols")) / differences as f64 / 20.0;
        }
        assert!((1.0..most).contains(&needed), "{needed} symbols for each of {differences} differences");
    }
}

#[test]
fn an_item_is_in_each_symbol_as_often_as_the_paper_says() {
    let mut hits = [0u32; 64];
    for seed in 0..100_000u128 {
        for index in Indices::new(hash(7, seed)).take_while(|index| *index < 64) {
            hits[index as usize] += 1;
        }
    }
    assert_eq!(hits[0], 100_000);
    for (index, hits) in hits.iter().enumerate().skip(1) {
        let expected = 100_000.0 / (1.0 + index as f64 / 2.0);
        assert!((f64::from(*hits) / expected - 1.0).abs() < 0.12, "symbol {index}: {hits} of {expected}");
    }
}

#[test]
fn a_symbol_of_a_million_rows_takes_25_bytes() {
    assert_eq!(sketch(&[MILLION], 0, 100, &[]).pack().len(), 2_501);
    assert_eq!(Sketch::packed_len(&[MILLION], 100), 2_501);
    assert_eq!(sketch(&[PositionRange::ALL], 0, 1, &[]).pack().len(), 31);
}

#[test]
fn one_difference_needs_one_symbol_whatever_both_have() {
    let mut rng = StdRng::seed_from_u64(1);
    let remote: Vec<_> = (0..10_000).map(|_| item(&mut rng)).collect();
    let decoded = decode(&[MILLION], 1, &remote[1..], &remote).expect("decoded");
    assert_eq!(decoded, Decoded { local_only: vec![], remote_only: vec![remote[0]] });
}

#[test]
fn the_first_symbols_are_the_same_however_many_follow() {
    let mut rng = StdRng::seed_from_u64(2);
    let items: Vec<_> = (0..1_000).map(|_| item(&mut rng)).collect();
    let mut parts = sketch(&[MILLION], 0, 30, &items);
    assert!(parts.append(&sketch(&[MILLION], 30, 70, &items)));
    assert_eq!(parts, sketch(&[MILLION], 0, 100, &items));
    assert!(!parts.append(&sketch(&[MILLION], 30, 70, &items)));
}

#[test]
fn equal_rows_count_one_by_one() {
    let mut rng = StdRng::seed_from_u64(3);
    let (row, other) = (item(&mut rng), item(&mut rng));
    for copies in [2usize, 3, 4, 6, 7, 8, 16, 48] {
        let decoded = decode(&[MILLION], 24, &[row], &vec![row; copies + 1]).expect("decoded");
        assert_eq!(decoded.remote_only, vec![row; copies]);
        let decoded = decode(&[PositionRange::ALL], 24, &[row, row, other], &[row]).expect("decoded");
        assert_eq!((decoded.local_only.len(), decoded.remote_only.len()), (2, 0));
    }
}

#[test]
fn a_sketch_of_a_few_bytes_does_not_stand_for_millions_of_rows() {
    let mut rng = StdRng::seed_from_u64(5);
    // As many copies as a symbol counts, of rows that a symbol or two are each made of.
    let mut crowd = |rows: usize, copies: usize| -> Vec<ShortItem> {
        let rows: Vec<ShortItem> = (0..rows).map(|_| item(&mut rng)).collect();
        rows.iter().flat_map(|row| std::iter::repeat_n(*row, copies)).collect()
    };
    let few = crowd(3, 32_767);
    assert_eq!(decode(&[MILLION], 60, &[], &few).map(|decoded| decoded.remote_only.len()), Some(3 * 32_767));
    assert_eq!(decode(&[MILLION], 60, &[], &crowd(5, 32_767)), None);
}

#[test]
fn too_few_symbols_are_told_and_not_guessed() {
    let mut rng = StdRng::seed_from_u64(4);
    for _ in 0..200 {
        let remote: Vec<_> = (0..200).map(|_| item(&mut rng)).collect();
        assert_eq!(decode(&[MILLION], 100, &[], &remote), None);
    }
}

#[test]
fn sketches_of_other_ranges_or_places_are_not_compared() {
    let ones = sketch(&[MILLION], 0, 8, &[]);
    assert!(ones.decode(&ones).is_some());
    assert!(ones.decode(&sketch(&[MILLION], 0, 9, &[])).is_none());
    assert!(ones.decode(&sketch(&[MILLION], 8, 8, &[])).is_none());
    assert!(ones.decode(&sketch(&[PositionRange::ALL], 0, 8, &[])).is_none());
}

#[test]
fn a_sketch_has_no_more_symbols_than_it_may() {
    assert!(Sketch::new(&[MILLION], 0, MOST_SYMBOLS).is_ok());
    assert!(Sketch::new(&[MILLION], 1, MOST_SYMBOLS).is_err());
    assert!(Sketch::new(&[MILLION], u32::MAX, 2).is_err());
}

proptest! {
    #[test]
    fn the_difference_is_exact(
        seed: u64,
        shared in 0..300usize,
        local in 0..40usize,
        remote in 0..40usize,
        // All at one position, in a small range, or anywhere.
        span in prop_oneof![Just(1i64), Just(300), Just(i64::MAX)],
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let from = if span == i64::MAX { None } else { Some(-100) };
        let ranges = [PositionRange { from, to: from.map(|from| from + span) }];
        let mut make = |count: usize| -> Vec<ShortItem> {
            let position = |rng: &mut StdRng| match span {
                i64::MAX => rng.random(),
                span => -100 + rng.random_range(0..span),
            };
            (0..count).map(|_| ShortItem { position: position(&mut rng), digest: rng.random() }).collect()
        };
        let (both, mut local, mut remote) = (make(shared), make(local), make(remote));
        let whole = |own: &[ShortItem]| [both.as_slice(), own].concat();
        let decoded = decode(&ranges, 400, &whole(&local), &whole(&remote));
        local.sort_unstable();
        remote.sort_unstable();
        prop_assert_eq!(decoded, Some(Decoded { local_only: local, remote_only: remote }));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), open: bool) {
        let ranges = [if open { PositionRange::ALL } else { MILLION }];
        for bytes in [bytes.clone(), [&[ENCODING_VERSION], bytes.as_slice()].concat()] {
            if let Ok(sketch) = Sketch::read(&ranges, 0, &bytes) {
                let _ = sketch.decode(&Sketch::new(&ranges, 0, sketch.symbols()).expect("a sketch"));
            }
        }
    }
}
