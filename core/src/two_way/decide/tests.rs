//! What must hold of decisions, whatever the case.

use proptest::prelude::*;

use super::*;

fn state() -> impl Strategy<Value = RowState> {
    prop_oneof![
        2 => Just(RowState::Absent),
        8 => (0..4u8, 0..4i64).prop_map(|(digest, revision)| row(digest, revision)),
        1 => Just(RowState::Unreadable),
    ]
}

/// A row; equal digests have equal revisions, which are part of what is digested.
fn row(digest: u8, revision: i64) -> RowState {
    let mut bytes = [digest; 16];
    bytes[15] = revision as u8;
    RowState::Row { digest: bytes, revision }
}

fn digest(state: RowState) -> Option<ShortDigest> {
    state.seen().digest()
}

fn policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(vec![Policy::Newest, Policy::Local, Policy::Remote, Policy::Ask])
}

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(vec![Side::Local, Side::Remote])
}

fn rules() -> impl Strategy<Value = Rules> {
    (policy(), prop::option::of(0..4i64)).prop_map(|(policy, latest)| Rules { policy, latest })
}

fn case() -> impl Strategy<Value = Case> {
    let base = prop::option::of((0..4u8, 0..4i64));
    let memory = (any::<bool>(), any::<bool>());
    (state(), state(), base, memory, any::<bool>(), prop::option::weighted(0.1, side())).prop_map(
        |(local, remote, base, (lost, altered), merges, chosen)| Case {
            local,
            remote,
            base: base.and_then(|(of, revision)| digest(row(of, revision))),
            lost,
            altered,
            merges,
            chosen,
        },
    )
}

fn mirrored(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Copy(side) => Verdict::Copy(side.other()),
        Verdict::Leave(OpenKind::Rejected(side)) => Verdict::Leave(OpenKind::Rejected(side.other())),
        verdict => verdict,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn exchanging_the_sides_exchanges_the_answer(case in case(), rules in rules()) {
        let other_case = Case {
            local: case.remote,
            remote: case.local,
            chosen: case.chosen.map(Side::other),
            ..case
        };
        let other_policy = match rules.policy {
            Policy::Local => Policy::Remote,
            Policy::Remote => Policy::Local,
            policy => policy,
        };
        let (one, other) = (decide(&case, &rules), decide(&other_case, &Rules { policy: other_policy, ..rules }));
        let unreadable = RowState::Unreadable;
        if case.local != unreadable || case.remote != unreadable {
            prop_assert_eq!(mirrored(one.verdict), other.verdict);
        }
        prop_assert_eq!((one.conflict, one.future), (other.conflict, other.future));
    }

    #[test]
    fn nothing_is_deleted_without_a_base_or_a_person(case in case(), rules in rules()) {
        if let Verdict::Copy(from) = decide(&case, &rules).verdict {
            let state = if from == Side::Local { case.local } else { case.remote };
            prop_assert!(state != RowState::Absent || case.base.is_some() || case.chosen.is_some());
        }
    }

    #[test]
    fn what_was_decided_once_agrees(case in case(), rules in rules()) {
        let after = match decide(&case, &rules).verdict {
            Verdict::Copy(Side::Local) => case.local,
            Verdict::Copy(Side::Remote) => case.remote,
            Verdict::Agree => {
                prop_assert_eq!(case.local.seen(), case.remote.seen());
                return Ok(());
            }
            Verdict::Merge => row(9, 3),
            Verdict::Leave(_) => return Ok(()),
        };
        let again = Case { local: after, remote: after, base: digest(after), chosen: None, ..case };
        prop_assert_eq!(decide(&again, &rules), Verdict::Agree.into());
        // Also where the base was not saved.
        prop_assert_eq!(decide(&Case { base: case.base, ..again }, &rules), Verdict::Agree.into());
    }

    #[test]
    fn equal_rows_agree_and_the_side_that_changed_alone_is_copied(
        case in case(),
        changed in state(),
        of in side(),
        rules in rules(),
    ) {
        if case.local == RowState::Unreadable || changed == RowState::Unreadable {
            return Ok(());
        }
        let equal = Case { remote: case.local, ..case };
        prop_assert_eq!(decide(&equal, &rules), Verdict::Agree.into());
        // The base is what one side has; where it has nothing, memory must not be lost.
        let base = digest(case.local);
        if changed.seen() == case.local.seen() || (base.is_none() && case.lost) {
            return Ok(());
        }
        let (local, remote) = if of == Side::Local { (changed, case.local) } else { (case.local, changed) };
        let one_changed = Case { local, remote, base, chosen: None, ..case };
        prop_assert_eq!(decide(&one_changed, &rules), Verdict::Copy(of).into());
    }

    #[test]
    fn a_row_of_one_side_alone_is_undecided_without_memory(of in side(), rules in rules()) {
        let (local, remote) = match of {
            Side::Local => (row(1, 1), RowState::Absent),
            Side::Remote => (RowState::Absent, row(1, 1)),
        };
        let case = Case { local, remote, base: None, lost: true, altered: false, merges: false, chosen: None };
        prop_assert_eq!(decide(&case, &rules).verdict, Verdict::Leave(OpenKind::Undecided));
        prop_assert_eq!(decide(&Case { lost: false, ..case }, &rules).verdict, Verdict::Copy(of));
    }

    #[test]
    fn a_conflict_is_decided_by_the_policy(
        (local, remote) in ((0..4u8, 0..4i64), (0..4u8, 0..4i64)),
        rules in rules(),
    ) {
        let (local, remote) = (row(local.0, local.1), row(remote.0, remote.1));
        prop_assume!(local != remote);
        let case = Case { local, remote, base: digest(row(8, 0)), lost: false, altered: false, merges: false, chosen: None };
        let decision = decide(&case, &rules);
        prop_assert!(decision.conflict);
        let (RowState::Row { revision: ours, .. }, RowState::Row { revision: theirs, .. }) = (local, remote) else {
            unreachable!()
        };
        let future = |revision: i64| rules.latest.is_some_and(|latest| revision > latest);
        prop_assert_eq!(decision.future, future(ours) || future(theirs));
        match (rules.policy, decision.verdict) {
            (Policy::Ask, verdict) => prop_assert_eq!(verdict, Verdict::Leave(OpenKind::Conflict)),
            (Policy::Local, verdict) => prop_assert_eq!(verdict, Verdict::Copy(Side::Local)),
            (Policy::Remote, verdict) => prop_assert_eq!(verdict, Verdict::Copy(Side::Remote)),
            (Policy::Newest, Verdict::Copy(winner)) => {
                let (won, lost) = if winner == Side::Local { (ours, theirs) } else { (theirs, ours) };
                prop_assert!(future(lost) >= future(won), "a stamp of the future won");
                prop_assert!(future(lost) != future(won) || won >= lost, "the older row won");
            }
            (_, verdict) => prop_assert!(false, "{verdict:?}"),
        }
    }
}

proptest! {
    #[test]
    fn where_nobody_knows_who_changed_a_key_nothing_goes_and_the_higher_revision_stays(
        (local, remote) in (state(), state()),
        was_there: bool,
        rules in rules(),
    ) {
        prop_assume!(local.seen() != remote.seen());
        prop_assume!(local != RowState::Unreadable && remote != RowState::Unreadable);
        // Memory was lost, or the base is of other columns than the rows: none has it.
        let base = was_there.then_some([8; 16]);
        let case = Case { local, remote, base, lost: !was_there, altered: was_there, merges: false, chosen: None };
        let verdict = decide(&case, &rules).verdict;
        let is_alone = local == RowState::Absent || remote == RowState::Absent;
        if is_alone || rules.policy == Policy::Ask {
            prop_assert_eq!(verdict, Verdict::Leave(OpenKind::Undecided));
        } else {
            let newest = Rules { policy: Policy::Newest, ..rules };
            prop_assert_eq!(verdict, decide(&Case { lost: false, altered: false, ..case }, &newest).verdict);
        }
        // A key that the base does not have is new, whatever its columns were.
        if is_alone {
            let new = Case { base: None, lost: false, altered: true, ..case };
            let of = if local == RowState::Absent { Side::Remote } else { Side::Local };
            prop_assert_eq!(decide(&new, &rules).verdict, Verdict::Copy(of));
        }
    }
}

#[test]
fn an_update_wins_against_a_delete_under_newest_and_else_the_policy_decides() {
    let update = row(2, -7);
    for (policy, expected) in [
        (Policy::Newest, Verdict::Copy(Side::Remote)),
        (Policy::Remote, Verdict::Copy(Side::Remote)),
        (Policy::Local, Verdict::Copy(Side::Local)),
        (Policy::Ask, Verdict::Leave(OpenKind::Conflict)),
    ] {
        let case = Case {
            local: RowState::Absent,
            remote: update,
            base: digest(row(1, 1)),
            lost: false,
            altered: false,
            merges: true,
            chosen: None,
        };
        let decision = decide(&case, &Rules { policy, latest: None });
        assert_eq!((decision.verdict, decision.conflict), (expected, true), "{policy:?}");
    }
}

#[test]
fn a_person_decides_what_no_rule_could() {
    let case = Case {
        local: RowState::Absent,
        remote: row(1, 1),
        base: None,
        lost: true,
        altered: false,
        merges: false,
        chosen: Some(Side::Local),
    };
    let rules = Rules { policy: Policy::Ask, latest: None };
    assert_eq!(decide(&case, &rules).verdict, Verdict::Copy(Side::Local));
}
