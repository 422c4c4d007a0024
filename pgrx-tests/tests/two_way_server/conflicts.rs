//! What is recorded for a person, what a person decides, and who may.

use plimsoll_core::reconcile::Side;
use plimsoll_core::store::{Applied, OpenKind, Reason, RemoteAct, RemoteSide, Seen};
use plimsoll_core::two_way::wire::pack_keys;
use plimsoll_tests::Registered;
use postgres::Client;
use serde_json::{Value, json};

use crate::meanwhile::until_one_waits;
use crate::shop::refused;
use crate::till::{Contact, Till, contact};

/// Open records, by id.
fn open(client: &mut Client) -> Vec<Value> {
    let sql = "SELECT to_jsonb(c) FROM plimsoll.conflicts c WHERE c.closed_at IS NULL ORDER BY conflict_id";
    client.query(sql, &[]).expect("conflicts").iter().map(|row| row.get(0)).collect()
}

fn id_of(conflict: &Value) -> i64 {
    conflict["conflict_id"].as_i64().expect("a number")
}

fn resolve(client: &mut Client, id: i64, side: &str) -> Result<u64, postgres::Error> {
    client.execute("SELECT plimsoll.resolve_conflict($1, $2::text)", &[&id, &side])
}

fn resolve_by(client: &mut Client, id: i64, row: &Value) -> Result<u64, postgres::Error> {
    client.execute("SELECT plimsoll.resolve_conflict($1, $2::jsonb)", &[&id, row])
}

/// A till with a recorded conflict about row 1, and the rows of both sides.
fn till_with_conflict() -> (Till, Contact, Contact, i64) {
    let mut till = Till::open();
    let (local, remote) = (contact(1, "555-3210", 7), contact(1, "123-4567", 4));
    till.put(&remote);
    assert_eq!(till.apply(&[till.conflict(&local, &remote)]), [Applied::Done]);
    let id = id_of(&open(&mut till.shop.superuser)[0]);
    (till, local, remote, id)
}

#[test]
fn a_conflict_is_recorded_once_with_both_rows_and_again_when_a_side_changes() {
    let (mut till, local, remote, id) = till_with_conflict();
    let conflict = &open(&mut till.shop.superuser)[0];
    let row = |phone, rev| json!({"id": 1, "phone": phone, "rank": null, "rev": rev});
    assert_eq!(conflict["local_row"], row("555-3210", 7));
    assert_eq!(conflict["remote_row"], row("123-4567", 4));
    assert_eq!(
        (&conflict["kind"], &conflict["side"], &conflict["key"]),
        (&json!("conflict"), &json!(null), &json!({"id": 1}))
    );
    assert_eq!((&conflict["relation"], &conflict["client_id"]), (&json!("shop.contact"), &json!("acme")));
    // The same again is the same record; so is one that is sent twice at once.
    let same = till.conflict(&local, &remote);
    assert_eq!(till.apply(&[same.clone(), same]), [Applied::Done, Applied::Done]);
    assert_eq!(open(&mut till.shop.superuser).iter().map(id_of).collect::<Vec<_>>(), [id]);
    // Not what the side has: nothing is recorded.
    let wrong = [
        till.conflict(&local, &contact(1, "gone", 4)),
        till.record(OpenKind::Conflict, 1, Some(&local), None),
    ];
    assert_eq!(till.apply(&wrong), [Applied::Changed, Applied::Changed]);
    // Either side changed: another conflict.
    let newer = contact(1, "555-9999", 8);
    assert_eq!(till.apply(&[till.conflict(&newer, &remote)]), [Applied::Done]);
    let now = open(&mut till.shop.superuser);
    assert!(now.len() == 1 && id_of(&now[0]) > id && now[0]["local_row"] == row("555-9999", 8), "{now:?}");
    let outcome: String =
        till.shop.value("SELECT outcome FROM plimsoll.conflicts ORDER BY conflict_id LIMIT 1");
    assert_eq!(outcome, "replaced");
    let key = till.memory_key(1);
    till.remote().close(0, &[key]).expect("closed");
    assert!(open(&mut till.shop.superuser).is_empty());
    let outcome: String =
        till.shop.value("SELECT outcome FROM plimsoll.conflicts ORDER BY conflict_id DESC LIMIT 1");
    assert_eq!(outcome, "agreed");
}

#[test]
fn every_kind_is_recorded_with_side_and_reason_and_the_base_where_it_is_kept() {
    let mut till = Till::open();
    let stored = contact(1, "here", 3);
    till.put(&stored);
    let with = |act: RemoteAct, reason: Reason| {
        let RemoteAct::Record(mut record) = act else { unreachable!() };
        record.reason = Some(reason);
        RemoteAct::Record(record)
    };
    let reason = Reason {
        sqlstate: "23514".to_owned(),
        column: Some("rank".to_owned()),
        message: "too low\0".to_owned(),
        ..Reason::default()
    };
    let unreadable =
        Reason { key_text: "id=\u{fffd}".to_owned(), message: "no UTF-8".to_owned(), ..Reason::default() };
    let mut nameless = till.record(OpenKind::Rejected(Side::Local), 5, None, None);
    if let RemoteAct::Record(record) = &mut nameless {
        (record.encoded_key, record.local) = (None, Seen::Unreadable);
    }
    let acts = [
        till.record(OpenKind::Undecided, 1, None, Some(&stored)),
        with(till.record(OpenKind::Rejected(Side::Remote), 2, Some(&contact(2, "a", 1)), None), reason),
        till.record(OpenKind::Waiting(Side::Local), 3, Some(&contact(3, "b", 1)), None),
        with(nameless, unreadable),
    ];
    let number = till.number();
    let base = (till.memory_key(3), till.row(&contact(3, "base", 1)).row);
    let mut remote = till.remote();
    remote.base_rows([base].into());
    assert_eq!(remote.apply(0, number, &acts, 0).expect("a batch"), vec![Applied::Done; 4]);
    let records = open(&mut till.shop.superuser);
    let told: Vec<Value> = records.iter().map(|r| json!([r["kind"], r["side"], r["key"]])).collect();
    let expected = json!([
        ["undecided", null, {"id": 1}],
        ["rejected", "remote", {"id": 2}],
        ["waiting", "local", {"id": 3}],
        ["rejected", "local", "id=\u{fffd}"],
    ]);
    let mut told = told;
    told.sort_by_key(|told| expected.as_array().expect("a list").iter().position(|e| e == told));
    assert_eq!(json!(told), expected);
    let of = |key: Value| records.iter().find(|record| record["key"] == key).expect("a record");
    assert_eq!(
        of(json!({"id": 2}))["reason"],
        json!({"sqlstate": "23514", "column": "rank", "message": "too low\u{fffd}"})
    );
    assert_eq!(of(json!({"id": 3}))["base_row"]["phone"], json!("base"));
    assert_eq!(of(json!({"id": 1}))["local_row"], Value::Null);
    assert_eq!(of(json!({"id": 1}))["remote_row"]["phone"], json!("here"));
}

#[test]
fn what_a_person_chooses_is_told_to_the_next_run_until_both_sides_agree() {
    let (mut till, local, remote, id) = till_with_conflict();
    assert!(till.begin().choices.is_empty());
    let mut person = till.connect();
    resolve(&mut person, id, "local").expect("a decision");
    let choices = till.begin().choices;
    assert_eq!(choices.len(), 1, "{choices:?}");
    let (key, seen) = (till.memory_key(1), (till.seen(Some(&local)), till.seen(Some(&remote))));
    assert_eq!((choices[0].key, choices[0].side), (key, Side::Local));
    assert_eq!((choices[0].local, choices[0].remote), seen);
    // A second thought, as long as it is not carried out.
    resolve(&mut person, id, "remote").expect("a decision");
    assert_eq!(till.begin().choices[0].side, Side::Remote);
    till.remote().close(0, &[key]).expect("closed");
    assert!(till.begin().choices.is_empty());
    let (outcome, by): (String, bool) = {
        let row = till
            .shop
            .superuser
            .query_one("SELECT outcome, resolved_by IS NOT NULL FROM plimsoll.conflicts", &[])
            .expect("a row");
        (row.get(0), row.get(1))
    };
    assert_eq!((outcome.as_str(), by), ("resolved", true));
    let message = refused(resolve(&mut person, id, "local"), "55000");
    assert!(message.contains("closed"), "{message}");
}

#[test]
fn a_decision_is_refused_once_the_row_changed_and_void_when_the_local_side_did() {
    let (mut till, local, remote, id) = till_with_conflict();
    let mut person = till.connect();
    resolve(&mut person, id, "local").expect("a decision");
    // The local side changed since: what is recorded anew takes the place of what was decided.
    let newer = contact(1, "555-9999", 8);
    assert_eq!(till.apply(&[till.conflict(&newer, &remote)]), [Applied::Done]);
    assert!(till.begin().choices.is_empty());
    refused(resolve(&mut person, id, "local"), "55000");
    let id = id_of(&open(&mut till.shop.superuser)[0]);
    till.put(&contact(1, "elsewhere", 5));
    till.server.end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None).expect("the end");
    for outcome in
        [resolve(&mut person, id, "local"), resolve_by(&mut person, id, &json!({"phone": "1", "rank": null}))]
    {
        let message = refused(outcome, "55000");
        assert!(message.contains("changed since"), "{message}");
    }
    assert_eq!(till.rows(), [contact(1, "elsewhere", 5)]);
    drop(local);
}

#[test]
fn a_row_decides_with_a_version_above_both_and_is_checked_like_any_other() {
    let (mut till, local, _, id) = till_with_conflict();
    let mut person = till.connect();
    let row = json!({"phone": "both", "rank": 3});
    let message = refused(resolve_by(&mut person, id, &row), "55006");
    assert!(message.contains("holds the lease"), "a run is under way: {message}");
    till.server.end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None).expect("the end");
    for (row, sqlstate, what) in [
        (json!({"phone": "both"}), "22023", "says nothing of \"rank\""),
        (json!({"phone": "both", "rank": 3, "colour": 1}), "42703", "colour"),
        (json!({"phone": "both", "rank": -3}), "22023", "does not take the row"),
        (json!({"phone": "both", "rank": 3, "id": 2}), "22023", "another key"),
        (json!({"phone": "both", "rank": "x"}), "22P02", "invalid input"),
        (json!([1]), "22023", "no object"),
    ] {
        let message = refused(resolve_by(&mut person, id, &row), sqlstate);
        assert!(message.contains(what), "{row}: {message}");
    }
    assert_eq!(till.rows(), [contact(1, "123-4567", 4)]);
    resolve_by(&mut person, id, &json!({"phone": "both", "rank": 3, "id": 1, "rev": 1})).expect("a decision");
    let both = (1, Some("both".to_owned()), Some(3), 8);
    assert_eq!(till.rows(), std::slice::from_ref(&both));
    till.assert_kept();
    till.begin_run();
    let choices = till.begin().choices;
    let seen = (till.seen(Some(&local)), till.seen(Some(&both)));
    assert_eq!((choices[0].side, (choices[0].local, choices[0].remote)), (Side::Remote, seen));
    let conflict = &open(&mut till.shop.superuser)[0];
    assert_eq!((&conflict["resolution"], &conflict["resolved_row"]["rev"]), (&json!("row"), &json!(8)));
    assert_eq!(conflict["remote_row"]["phone"], json!("123-4567"), "what it was about stays");
}

#[test]
fn a_row_that_one_side_deleted_can_be_kept_or_made_another() {
    let mut till = Till::open();
    let local = contact(1, "kept", 7);
    let acts = [till.record(OpenKind::Conflict, 1, Some(&local), None)];
    assert_eq!(till.apply(&acts), [Applied::Done]);
    till.server.end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None).expect("the end");
    let id = id_of(&open(&mut till.shop.superuser)[0]);
    let mut admin = till.shop.server.superuser(&till.shop.database);
    resolve_by(&mut admin, id, &json!({"phone": "again", "rank": null})).expect("a decision");
    assert_eq!(till.rows(), [contact(1, "again", 8)]);
    let act: (String, Value) = {
        let row = till
            .shop
            .superuser
            .query_one("SELECT act, arguments FROM plimsoll.acts ORDER BY act_id DESC LIMIT 1", &[])
            .expect("an act");
        (row.get(0), row.get(1))
    };
    assert_eq!(act, ("resolve_conflict".to_owned(), json!({"conflict_id": id, "resolution": "row"})));
}

#[test]
fn another_tenant_sees_nothing_of_a_conflict_and_decides_nothing() {
    let (mut till, _, _, id) = till_with_conflict();
    let other = till.shop.register("umbrella", 0);
    let login = till.shop.server.create_agent();
    till.shop.grant(&other, &login.role);
    let mut thief = till.shop.connect(&login);
    assert!(open(&mut thief).is_empty());
    let unknown = |id: i64| {
        format!("there is no conflict {id}, or it is not yours\nplimsoll.conflicts shows those that are.")
    };
    for id in [id, id + 1000] {
        assert_eq!(refused(resolve(&mut thief, id, "remote"), "42501"), unknown(id));
        assert_eq!(refused(resolve_by(&mut thief, id, &json!({})), "42501"), unknown(id));
    }
    let run: i64 = thief
        .query_one("SELECT run_id FROM plimsoll.begin_run($1, 'thief', '1', 1)", &[&other.id])
        .expect("a run of its own")
        .get(0);
    // Its own run number opens nothing of others, and others' run numbers nothing at all.
    for (database, run) in
        [(till.registered.id, run), (till.registered.id, till.run_id), (other.id, till.run_id)]
    {
        for call in ["two_way_begin($1, 'shop.contact', $2)", "two_way_base($1, 'shop.contact', $2)"] {
            let error =
                thief.query(&format!("SELECT plimsoll.{call}"), &[&database, &run]).expect_err("a refusal");
            let code = error.code().expect("a code").code().to_owned();
            assert!(["42501", "55000"].contains(&code.as_str()), "{call}: {error:?}");
        }
    }
    assert_eq!(open(&mut till.shop.superuser).len(), 1);
    shop_end(&mut thief, run);
    // Each replica has its own runs and records.
    let mut theirs = Till::of(till.shop, other);
    let (mine, there) = (contact(1, "a", 1), contact(1, "b", 1));
    theirs.put_for("umbrella", &there);
    assert_eq!(theirs.apply(&[theirs.conflict(&mine, &there)]), [Applied::Done]);
    assert_eq!(open(&mut theirs.shop.superuser).len(), 2);
    assert_eq!(open(&mut thief).len(), 1);
}

fn shop_end(client: &mut Client, run: i64) {
    client.execute("SELECT plimsoll.end_run($1, 'finished')", &[&run]).expect("the end");
}

#[test]
fn closed_records_are_kept_as_long_as_history() {
    let (mut till, _, _, _) = till_with_conflict();
    let key = till.memory_key(1);
    till.remote().close(0, &[key]).expect("closed");
    let purged = |till: &mut Till| {
        till.edit("UPDATE plimsoll.lease_record SET last_ended_at = now() - interval '2 hours'");
        till.server
            .end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None)
            .expect("the end");
        till.begin_run();
        till.shop.value::<i64>("SELECT count(*) FROM plimsoll.conflicts") == 0
    };
    assert!(!purged(&mut till));
    till.edit("UPDATE plimsoll.conflict_record SET closed_at = now() - interval '31 days'");
    assert!(purged(&mut till));
}

#[test]
fn rows_that_are_too_large_to_be_shown_are_recorded_without_their_content() {
    let mut till = Till::open();
    let (local, remote) = (contact(1, &"x".repeat(1_100_000), 2), contact(1, "y", 1));
    till.put(&remote);
    till.shop.set_option(&Registered { ..till.registered.clone() }, "max_upload_bytes", Some("4194304"));
    let number = till.number();
    let act = till.conflict(&local, &remote);
    let mut client = till.remote();
    let run = client.remembered(0, false).expect("a run").run;
    assert_eq!(client.apply(0, run << 24 | number & 0xff, &[act], 0).expect("a batch"), [Applied::Done]);
    let conflict = &open(&mut till.shop.superuser)[0];
    assert_eq!((&conflict["local_row"], &conflict["remote_row"]["phone"]), (&Value::Null, &json!("y")));
}

#[test]
fn a_record_that_is_too_large_for_a_call_goes_without_rows() {
    let mut till = Till::open();
    till.shop.set_option(&till.registered.clone(), "max_upload_bytes", Some("65536"));
    let sized = |id, bytes| contact(id, &"x".repeat(bytes), 2);
    // The base's row alone does not fit, the local one as well, and neither is too large.
    let locals = [sized(1, 40_000), sized(2, 100_000), sized(3, 10)];
    let acts = locals.each_ref().map(|local| till.record(OpenKind::Conflict, local.0, Some(local), None));
    let bases = [sized(1, 40_000), sized(2, 10), sized(3, 20)];
    let bases = bases.each_ref().map(|base| (till.memory_key(base.0), till.row(base).row));
    let number = till.number();
    let mut remote = till.remote();
    let run = remote.remembered(0, false).expect("a run").run;
    remote.base_rows(bases.into());
    let applied = remote.apply(0, run << 24 | number & 0xff_ffff, &acts, 0).expect("a batch");
    assert_eq!(applied, [Applied::Done, Applied::Done, Applied::Done]);
    let mut told: Vec<(Value, bool, bool)> = open(&mut till.shop.superuser)
        .iter()
        .map(|record| {
            (record["key"]["id"].clone(), record["local_row"].is_null(), record["base_row"].is_null())
        })
        .collect();
    told.sort_by_key(|(id, ..)| id.as_i64());
    assert_eq!(told, [(json!(1), false, true), (json!(2), true, true), (json!(3), false, false)]);
}

#[test]
fn a_person_who_decides_by_a_row_waits_for_the_batch_that_closes_the_record() {
    let (mut till, _, _, id) = till_with_conflict();
    let (database, run_id, key) = (till.registered.id, till.run_id, till.memory_key(1));
    let mut agent = till.connect();
    agent.batch_execute("BEGIN").expect("a transaction");
    // The run has the lease; the person wants it and the record, the run the record too.
    agent
        .query("SELECT plimsoll.two_way_settle($1, 'shop.contact', $2, 1, 1)", &[&database, &run_id])
        .expect("a call of the run");
    let mut admin = till.shop.server.superuser(&till.shop.database);
    let decided = std::thread::spawn(move || {
        refused(resolve_by(&mut admin, id, &json!({"phone": "1", "rank": null})), "55000")
    });
    until_one_waits(&mut till);
    let keys = pack_keys(&[key]);
    let closed = agent
        .query_one("SELECT plimsoll.two_way_close($1, 'shop.contact', $2, $3)", &[&database, &run_id, &keys])
        .expect("no deadlock")
        .get::<_, i64>(0);
    agent.batch_execute("COMMIT").expect("the end");
    let message = decided.join().expect("an answer to the person");
    assert!(closed == 1 && message.contains("is closed"), "{closed}: {message}");
}
