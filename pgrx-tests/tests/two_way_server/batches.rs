//! What a batch does, what is remembered of it, and what is left as it is.

use plimsoll_core::direction::Direction;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{Applied, BatchId, RemoteAct, RemoteSide, Settled, Wanted};

use crate::till::{Contact, Till, contact, refusal};

#[test]
fn each_act_is_done_only_where_the_side_has_what_it_was_decided_upon() {
    let mut till = Till::open();
    let stored: Vec<Contact> = (1..=6).map(|id| contact(id, "old", 1)).collect();
    stored.iter().for_each(|row| till.put(row));
    let [to, other] = ["new", "other"].map(|phone| move |id| contact(id, phone, 2));
    till.put(&other(5));
    till.put(&to(6));
    let acts = [
        till.upsert(&to(1), Some(&stored[0])),
        till.delete(&stored[1]),
        till.upsert(&to(7), None),
        // Not as it was decided upon: there is another row, none, or one where none was.
        till.upsert(&to(5), Some(&stored[4])),
        till.upsert(&to(8), Some(&contact(8, "gone", 1))),
        till.upsert(&to(3), None),
        till.delete(&other(4)),
        // Done already.
        till.upsert(&to(6), Some(&stored[5])),
        till.delete(&contact(9, "gone", 1)),
    ];
    use Applied::{Changed, Done};
    let expected = [Done, Done, Done, Changed, Changed, Changed, Changed, Done, Done];
    assert_eq!(till.apply(&acts), expected);
    let rows = [to(1), stored[2].clone(), stored[3].clone(), other(5), to(6), to(7)];
    assert_eq!(till.rows(), rows);
    till.assert_kept();
}

#[test]
fn a_number_is_applied_once_and_answered_from_memory_from_then_on() {
    let mut till = Till::open();
    let (old, new) = (contact(1, "old", 1), contact(1, "new", 2));
    let acts = [till.upsert(&old, None), till.delete(&contact(2, "never", 1))];
    let first = till.number();
    assert_eq!(till.try_apply(first, &acts, 0).expect("a batch"), [Applied::Done, Applied::Done]);
    // An application goes on; what is asked again is answered as it was, and nothing is done.
    till.put(&new);
    assert_eq!(till.try_apply(first, &acts, 0).expect("from memory"), [Applied::Done, Applied::Done]);
    assert_eq!(till.rows(), std::slice::from_ref(&new));
    let failure = till.try_apply(first, &acts[..1], 0).expect_err("other acts");
    assert!(failure.message.contains("other acts"), "{failure}");
    let second = till.number();
    let changed = [till.upsert(&old, Some(&old))];
    assert_eq!(till.try_apply(second, &changed, 0).expect("a batch"), [Applied::Changed]);
    // In a later run too; but nothing new is applied under a number of an earlier one, or of a later one.
    let memory = till.begin();
    assert_eq!((memory.last.number, memory.begun, memory.version.row_count), (second, false, Some(1)));
    assert_eq!(till.try_apply(first, &acts, 0).expect("from memory"), [Applied::Done, Applied::Done]);
    for number in [second + 1, (till.run + 1) << 24 | 1] {
        let act = [till.upsert(&old, Some(&new))];
        let failure = till.try_apply(number, &act, 0).expect_err("no number of this run");
        assert!(failure.message.contains("of another run"), "{failure}");
    }
    assert_eq!(till.rows(), [new]);
    // What became of a batch is told; one that was not applied never will be.
    assert_eq!(till.settle(first), Ok(Settled::Applied(vec![true, true])));
    assert_eq!(till.settle(second), Ok(Settled::Applied(vec![false])));
    assert_eq!(till.settle(second + 1), Ok(Settled::Never));
    // Nor was one of another run with the same number: this server gave it out again.
    for number in [first, second] {
        let batch = till.batch(number);
        let other = BatchId { mark: batch.mark ^ 1, ..batch };
        assert_eq!(till.remote().settle(0, other), Ok(Settled::Never));
    }
    // A week later it is forgotten which, once others came.
    till.edit("UPDATE plimsoll.two_way_batch SET applied_at = now() - interval '8 days'");
    assert_eq!(till.begin().last.number, second, "the highest number stays");
    assert_eq!(till.settle(first), Ok(Settled::Applied(vec![true, true])), "the last ones stay");
    assert_eq!(till.apply(&[]), []);
    assert_eq!(till.settle(first), Ok(Settled::Forgotten));
    assert_eq!(till.settle(second), Ok(Settled::Forgotten));
    assert_eq!(till.settle(second + 1), Ok(Settled::Never));
    // Of runs it is known for a month how far they came; of the last one that came anywhere, until the next one does.
    let third = till.begin().last;
    till.edit("UPDATE plimsoll.two_way_run SET followed_at = now() - interval '31 days'");
    assert_eq!(till.settle(second), Ok(Settled::Forgotten));
    assert_eq!(till.apply(&[]), []);
    assert_eq!(till.settle(second), Ok(Settled::Never));
    assert_eq!(till.settle(third.number), Ok(Settled::Applied(Vec::new())));
}

#[test]
fn no_run_goes_on_where_batches_are_missing() {
    let mut till = Till::open();
    let act = [till.upsert(&contact(1, "a", 1), None)];
    let [first, second, third] = [(); 3].map(|()| till.number());
    assert_eq!(till.try_apply(first, &act, 0).expect("a batch"), [Applied::Done]);
    let failure = till.try_apply(third, &[], 0).expect_err("one is missing");
    assert!(failure.message.contains(&format!("comes before batch {second}")), "{failure}");
    assert_eq!(till.try_apply(second, &[], 0), Ok(Vec::new()));
    assert_eq!(till.try_apply(third, &[], 0), Ok(Vec::new()));
    // Each run begins with its first.
    let memory = till.begin();
    assert_eq!(memory.last, till.batch(third));
    till.number();
    let second = till.number();
    let failure = till.try_apply(second, &[], 0).expect_err("the first is missing");
    assert!(failure.message.contains("comes before batch"), "{failure}");
}

#[test]
fn a_dry_run_begins_none_and_a_base_is_remembered() {
    let mut till = Till::open();
    let before = till.run;
    let memory = till.remote().remembered(0, true).expect("what is remembered");
    assert_eq!((memory.run, memory.begun), (before, false));
    let row = contact(1, "a", 1);
    assert_eq!(till.apply(&[till.upsert(&row, None)]), [Applied::Done], "the run goes on");
    till.put(&contact(2, "b", 1));
    let conflict = till.conflict(&contact(2, "c", 1), &contact(2, "b", 1));
    assert_eq!(till.apply(&[conflict]), [Applied::Done]);
    till.remote().base_begun(0).expect("a base");
    assert!(till.begin().begun);
    let open: i64 = till.shop.value("SELECT count(*) FROM plimsoll.conflicts WHERE closed_at IS NULL");
    assert_eq!(open, 0, "what was recorded is decided anew");
    let mut remote = till.remote();
    remote.remembered(0, true).expect("what is remembered");
    let skew = remote.skew().expect("the clocks were compared");
    assert!(skew.abs() < 5_000_000, "one machine has one clock: {skew}");
}

#[test]
fn a_refused_act_undoes_no_other() {
    let mut till = Till::with("CHECK (rank > 0), UNIQUE (client_id, database_id, phone)");
    till.edit("INSERT INTO shop.contact SELECT 'acme', $1, i, 'p' || i, i, 1 FROM generate_series(1, 9) i");
    let is = |id: i64| (id, Some(format!("p{id}")), Some(id), 1);
    let with = |id: i64, phone: i64, rank: i64| (id, Some(format!("p{phone}")), Some(rank), 2);
    let acts = [
        till.upsert(&with(1, 1, -1), Some(&is(1))),
        // Two swap their unique values; one takes that of a row that goes; one what another row keeps.
        till.upsert(&with(2, 3, 2), Some(&is(2))),
        till.upsert(&with(3, 2, 3), Some(&is(3))),
        till.upsert(&with(10, 4, 4), None),
        till.delete(&is(4)),
        till.upsert(&with(11, 5, 5), None),
        till.upsert(&with(6, 66, 6), Some(&is(6))),
    ];
    let applied = till.apply(&acts);
    assert_eq!(refusal(&applied[0]), Some((false, "23514")), "{applied:?}");
    assert_eq!(refusal(&applied[5]), Some((true, "23505")), "{applied:?}");
    let Applied::Refused { reason, .. } = &applied[5] else { unreachable!() };
    assert!(reason.message.contains(r#"{"id":5}"#) && reason.key_text.contains("11"), "{reason:?}");
    for done in [1, 2, 3, 4, 6] {
        assert_eq!(applied[done], Applied::Done, "{done}: {applied:?}");
    }
    let rows =
        [is(1), with(2, 3, 2), with(3, 2, 3), is(5), with(6, 66, 6), is(7), is(8), is(9), with(10, 4, 4)];
    assert_eq!(till.rows(), rows);
    till.assert_kept();
}

#[test]
fn rows_that_others_refer_to_wait_and_code_of_the_owner_is_believed_about_what_it_did() {
    let mut till = Till::open();
    let owner: String =
        till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    till.edit("INSERT INTO shop.contact SELECT 'acme', $1, i, 'p', NULL, 1 FROM generate_series(1, 4) i");
    till.shop
        .superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.call (client_id text, database_id uuid, contact int, FOREIGN KEY
                 (client_id, database_id, contact) REFERENCES shop.contact);
             INSERT INTO shop.call SELECT client_id, database_id, 1 FROM shop.contact WHERE id = 1;
             CREATE FUNCTION shop.meddle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF TG_OP = 'DELETE' THEN RETURN CASE WHEN OLD.id = 2 THEN NULL ELSE OLD END; END IF;
                 NEW.phone := CASE WHEN NEW.id = 4 THEN 'meddled' ELSE NEW.phone END; RETURN NEW; END $$;
             CREATE TRIGGER meddle BEFORE UPDATE OR DELETE ON shop.contact FOR EACH ROW EXECUTE FUNCTION shop.meddle();
             RESET ROLE"
        ))
        .expect("a child table and a trigger");
    let is = |id| contact(id, "p", 1);
    let acts = [
        till.delete(&is(1)),
        till.delete(&is(2)),
        till.delete(&is(3)),
        till.upsert(&contact(4, "q", 2), Some(&is(4))),
    ];
    let applied = till.apply(&acts);
    assert_eq!(refusal(&applied[0]), Some((true, "23503")), "{applied:?}");
    assert_eq!(refusal(&applied[1]), Some((false, "22000")), "{applied:?}");
    assert_eq!(applied[2], Applied::Done);
    assert_eq!(refusal(&applied[3]), Some((false, "22000")), "{applied:?}");
    assert_eq!(till.rows(), [is(1), is(2), is(4)]);
    till.assert_kept();
}

#[test]
fn the_guard_holds_what_destroys_and_nothing_else() {
    let mut till = Till::open();
    till.edit("INSERT INTO shop.contact SELECT 'acme', $1, i, 'p', NULL, 5 FROM generate_series(1, 100) i");
    till.guard_by(100);
    let is = |id| contact(id, "p", 5);
    // By what the run still plans, not by what one batch brings.
    let number = till.number();
    let acts =
        [till.delete(&is(1)), till.upsert(&contact(2, "q", 6), Some(&is(2))), till.upsert(&is(101), None)];
    let applied = till.try_apply(number, &acts, 90).expect("a batch");
    assert_eq!(applied, [Applied::Held, Applied::Done, Applied::Done]);
    // A replica on hold loses nothing, not even a version.
    let acts = [
        till.delete(&is(3)),
        till.upsert(&contact(4, "older", 4), Some(&is(4))),
        till.upsert(&contact(5, "newer", 6), Some(&is(5))),
    ];
    assert_eq!(till.apply(&acts), [Applied::Held, Applied::Held, Applied::Done]);
    assert_eq!(till.rows().len(), 101);
    let planned: i64 =
        till.shop.value("SELECT hold_planned FROM plimsoll.replicas WHERE relation = 'shop.contact'");
    assert_eq!(planned, 90);
    let id = till.registered.id;
    till.shop
        .superuser
        .execute("SELECT plimsoll.release_hold($1, 'shop.contact')", &[&id])
        .expect("a release");
    let number = till.number();
    assert_eq!(till.try_apply(number, &[till.delete(&is(1))], 90).expect("a batch"), [Applied::Done]);
    assert_eq!(till.rows().len(), 100);
    till.assert_kept();
}

#[test]
fn rows_are_fetched_as_they_are_now_as_many_as_there_is_room_for() {
    let mut till = Till::open();
    let rows: Vec<Contact> = (1..=50).map(|id| contact(id, &"x".repeat(100), id)).collect();
    rows.iter().for_each(|row| till.put(row));
    let mut sources: Vec<_> = rows.iter().map(|row| (till.row(row), row.3)).collect();
    sources.sort_by_key(|(source, _)| source.item.position);
    let wanted: Vec<Wanted> = sources
        .iter()
        .map(|(source, revision)| Wanted { item: ShortItem::from(&source.item), content: revision % 2 == 0 })
        .collect();
    let fetched = till.remote().fetch(0, &wanted, 1 << 20).expect("rows");
    assert_eq!((fetched.rows.len(), fetched.looked_for), (50, 50));
    for (row, (source, revision)) in fetched.rows.iter().zip(&sources) {
        assert_eq!((&row.item, &row.key, row.revision), (&source.item, &source.key, *revision));
        assert_eq!(row.row.as_ref(), (revision % 2 == 0).then_some(&source.row));
    }
    // In parts, and one that is larger than the room alone.
    let (mut from, mut calls) = (0, 0);
    while from < wanted.len() {
        let fetched = till.remote().fetch(0, &wanted[from..], 300).expect("rows");
        assert!(
            (1..10).contains(&fetched.looked_for) && fetched.rows.len() == fetched.looked_for,
            "{fetched:?}"
        );
        (from, calls) = (from + fetched.looked_for, calls + 1);
    }
    assert!(calls > 10, "{calls}");
    assert_eq!(till.remote().fetch(0, &wanted, 0).expect("rows").looked_for, 1);
    // Rows that changed are left out, and others that come in their place.
    till.edit("UPDATE shop.contact SET phone = 'y' WHERE id <= 25");
    let fetched = till.remote().fetch(0, &wanted, 1 << 20).expect("rows");
    assert_eq!((fetched.rows.len(), fetched.looked_for), (25, 50));
    let backwards: Vec<Wanted> = wanted.iter().rev().copied().collect();
    assert_eq!(till.remote().fetch(0, &backwards, 1 << 20).expect("rows").looked_for, 1);
}

#[test]
fn a_batch_that_is_too_large_for_a_call_comes_in_parts_of_one_number() {
    let mut till = Till::open();
    till.shop.set_option(&till.registered.clone(), "max_upload_bytes", Some("65536"));
    till.shop.set_option(&till.registered.clone(), "max_upload_rows", Some("1000"));
    let big = |id: i64, bytes: usize| contact(id, &"x".repeat(bytes), 1);
    let mut rows: Vec<Contact> = vec![big(1, 40_000), big(2, 40_000), big(3, 100_000), big(4, 10)];
    rows.extend((5..=2_500).map(|id| big(id, 10)));
    let acts: Vec<RemoteAct> = rows.iter().map(|row| till.upsert(row, None)).collect();
    till.begin();
    let number = till.number();
    let mut remote = till.remote();
    remote.remembered(0, true).expect("the limits");
    let applied = remote.apply(0, number, &acts, 0).expect("a batch");
    let again = remote.apply(0, number, &acts, 0).expect("from memory");
    assert_eq!(applied, again);
    assert_eq!(refusal(&applied[2]), Some((false, "54000")));
    let done: Vec<bool> = applied.iter().map(|applied| *applied == Applied::Done).collect();
    assert_eq!(done.iter().filter(|done| **done).count(), 2_499);
    till.begin();
    assert_eq!(till.settle(number), Ok(Settled::Applied(done)));
    assert_eq!(till.rows().len(), 2_499);
    // A batch without acts is remembered too.
    let number = till.number();
    assert_eq!(till.try_apply(number, &[], 0), Ok(Vec::new()));
    till.begin();
    assert_eq!(till.settle(number), Ok(Settled::Applied(Vec::new())));
}

#[test]
fn the_number_of_a_batch_is_known_even_where_all_of_it_is_too_large() {
    let mut till = Till::open();
    till.shop.set_option(&till.registered.clone(), "max_upload_bytes", Some("65536"));
    till.begin();
    let acts = [till.upsert(&contact(1, &"x".repeat(100_000), 1), None)];
    let number = till.number();
    let mut remote = till.remote();
    remote.remembered(0, true).expect("the limits");
    let applied = remote.apply(0, number, &acts, 0).expect("a batch");
    assert_eq!(refusal(&applied[0]), Some((false, "54000")));
    assert_eq!(remote.apply(0, number, &acts, 0), Ok(applied));
    assert_eq!(till.begin().last.number, number);
    assert_eq!(till.settle(number), Ok(Settled::Applied(vec![false])));
}

#[test]
fn a_table_that_no_two_sides_can_keep_is_refused() {
    let mut till = Till::open();
    let mut agent = till.connect();
    let (id, run_id) = (till.registered.id, till.run_id);
    for (table, what) in
        [("shop.customer", "version_scope 'table'"), ("shop.note", "without a version column")]
    {
        if table == "shop.note" {
            let owner: String =
                till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
            till.shop
                .superuser
                .batch_execute(&format!(
                    "SET ROLE {owner}; CREATE TABLE shop.note (client_id text NOT NULL, database_id uuid NOT NULL,
                         id int NOT NULL, PRIMARY KEY (client_id, database_id, id)); RESET ROLE;
                     SELECT plimsoll.manage_table('shop.note')"
                ))
                .expect("a table");
        }
        let call = agent.query_one("SELECT plimsoll.two_way_begin($1, $2, $3)", &[&id, &table, &run_id]);
        let message = crate::shop::refused(call, "42P16");
        assert!(message.contains(what), "{message}");
    }
    // Bytes that are no batch change nothing.
    let number = till.number() as i64;
    for bytes in [&b""[..], b"\x01", b"\x01\x01\x00", b"\x01\x01\x09\x00\x00", b"\x02\x00"] {
        let sql = "SELECT plimsoll.two_way_apply($1, 'shop.contact', $2, $3, $4)";
        crate::shop::refused(agent.query_one(sql, &[&id, &run_id, &number, &bytes]), "22P03");
    }
    assert_eq!(till.begin().last.number, 0);
}

#[test]
fn a_replica_that_goes_another_way_forgets_its_base_and_its_records() {
    let mut till = Till::open();
    till.begin_run_towards(Direction::TwoWay);
    till.begin();
    till.remote().base_begun(0).expect("a base");
    let (local, remote) = (contact(1, "a", 1), contact(1, "b", 2));
    till.put(&remote);
    assert_eq!(till.apply(&[till.conflict(&local, &remote)]), [Applied::Done]);
    let open = "SELECT count(*) FROM plimsoll.conflicts WHERE closed_at IS NULL";
    till.begin_run_towards(Direction::TwoWay);
    assert_eq!((till.begin().begun, till.shop.value::<i64>(open)), (true, 1));
    // A run that pushes does no two-way step; the next one that goes both ways begins anew.
    till.begin_run_towards(Direction::Push);
    assert_eq!(till.shop.value::<i64>(open), 0);
    till.begin_run_towards(Direction::TwoWay);
    assert!(!till.begin().begun);
    // What no administrator allows is refused, whatever the run said when it began.
    till.edit("SELECT plimsoll.set_directions('shop.contact', '{push}')");
    let failure = till.remote().remembered(0, false).expect_err("a refusal");
    assert!(failure.message.contains("does not allow direction two-way"), "{failure}");
    let number = till.number();
    let acts = [till.upsert(&local, Some(&remote))];
    till.try_apply(number, &acts, 0).expect_err("a refusal");
    assert_eq!(till.rows(), [remote]);
}
