use super::*;
use proptest::prelude::*;

/// Positions of every size, most often near each other and near the ends.
fn any_position() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        -40i64..40,
        (0i64..40).prop_map(|i| i64::MIN + i),
        (0i64..40).prop_map(|i| i64::MAX - i)
    ]
}

fn any_range() -> impl Strategy<Value = Dyadic> {
    (any_position(), 0u8..=64).prop_map(|(position, level)| Dyadic::of(position, level))
}

#[test]
fn the_axis_begins_and_ends_where_numbers_do() {
    assert_eq!(Dyadic::ALL.range(), PositionRange::ALL);
    assert_eq!((Dyadic::ALL.first(), Dyadic::ALL.last()), (i64::MIN, i64::MAX));
    let (lower, upper) = Dyadic::ALL.halves().unwrap();
    assert_eq!(lower.range(), PositionRange { from: None, to: Some(0) });
    assert_eq!(upper.range(), PositionRange { from: Some(0), to: None });
    assert_eq!(Dyadic::point(i64::MAX).range(), PositionRange { from: Some(i64::MAX), to: None });
    assert_eq!(Dyadic::cover(PositionRange::ALL), [Dyadic::ALL]);
    assert_eq!(Dyadic::enclosing(-1, 0), Dyadic::ALL);
    assert_eq!(Dyadic::enclosing(8, 11), Dyadic::of(8, 62));
}

#[test]
fn an_empty_range_has_an_empty_cover() {
    for (from, to) in [(5, 5), (5, 4), (i64::MAX, i64::MIN)] {
        let range = PositionRange { from: Some(from), to: Some(to) };
        assert_eq!(Dyadic::cover(range), []);
        assert!(!Dyadic::ALL.meets(&range));
    }
}

#[test]
fn the_worst_cover_has_126_parts() {
    let range = PositionRange { from: Some(i64::MIN + 1), to: Some(i64::MAX) };
    assert_eq!(Dyadic::cover(range).len(), 126);
}

proptest! {
    #[test]
    fn halves_and_parents_fit(range in any_range()) {
        if let Some((lower, upper)) = range.halves() {
            prop_assert_eq!(lower.parent(), Some(range));
            prop_assert_eq!(upper.parent(), Some(range));
            prop_assert_eq!(lower.first(), range.first());
            prop_assert_eq!(lower.last().checked_add(1), Some(upper.first()));
            prop_assert_eq!(upper.last(), range.last());
            prop_assert!(range < lower && lower < upper);
        } else {
            prop_assert_eq!(range.first(), range.last());
        }
        prop_assert_eq!(Dyadic::new(range.first(), range.level()), Some(range));
        prop_assert_eq!(range.parent().is_none(), range == Dyadic::ALL);
    }

    #[test]
    fn two_ranges_nest_or_share_nothing(a in any_range(), b in any_range()) {
        let nested = a.contains_range(&b) || b.contains_range(&a);
        prop_assert_eq!(nested, a.meets(&b.range()));
        prop_assert_eq!(a.contains_range(&b), b.lies_in(&a.range()));
        prop_assert_eq!(a.contains_range(&b), a.contains(b.first()) && a.contains(b.last()));
    }

    #[test]
    fn enclosing_is_the_smallest(a in any_position(), b in any_position()) {
        let range = Dyadic::enclosing(a, b);
        prop_assert_eq!(range, Dyadic::enclosing(b, a));
        prop_assert!(range.contains(a) && range.contains(b));
        if let Some((lower, upper)) = range.halves() {
            prop_assert!(!(lower.contains(a) && lower.contains(b)));
            prop_assert!(!(upper.contains(a) && upper.contains(b)));
        }
    }

    #[test]
    fn a_cover_is_exact_in_order_and_cannot_be_shorter(
        from in prop::option::of(any_position()), to in prop::option::of(any_position()), probe in any_position()
    ) {
        let range = PositionRange { from, to };
        let cover = Dyadic::cover(range);
        prop_assert!(cover.len() <= 126);
        prop_assert_eq!(cover.iter().any(|part| part.contains(probe)), range.contains(probe));
        for part in &cover {
            prop_assert!(part.lies_in(&range));
            prop_assert!(part.parent().is_none_or(|parent| !parent.lies_in(&range)));
        }
        for pair in cover.windows(2) {
            prop_assert_eq!(pair[0].last().checked_add(1), Some(pair[1].first()));
        }
        if let (Some(first), Some(last)) = (cover.first(), cover.last()) {
            prop_assert_eq!(first.first(), from.unwrap_or(i64::MIN));
            prop_assert_eq!(last.range().to, to);
        }
    }
}
