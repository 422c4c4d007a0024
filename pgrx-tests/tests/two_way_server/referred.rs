//! Rows that the server does not let go, or would not let go alone.

use plimsoll_core::store::Applied;

use crate::till::{Contact, Till, contact, refusal};

const WAITS: Option<(bool, &str)> = Some((true, "23503"));

fn is(id: i64) -> Contact {
    contact(id, &format!("p{id}"), 5)
}

/// One that refers to another.
fn under(id: i64, other: i64) -> Contact {
    (id, Some(format!("p{id}")), Some(other), 5)
}

fn put(till: &mut Till, contacts: &[Contact]) {
    contacts.iter().for_each(|contact| till.put(contact));
}

#[test]
fn a_row_goes_alone_or_with_what_goes_anyway() {
    let mut till = Till::with(
        "UNIQUE (client_id, database_id, phone),
         FOREIGN KEY (client_id, database_id, rank) REFERENCES shop.contact ON DELETE CASCADE",
    );
    // By a unique value, of another owner; by the key; by the key, and emptied.
    till.edit(
        "CREATE TABLE shop.card (client_id text, database_id uuid, phone text, FOREIGN KEY (client_id, database_id, phone)
             REFERENCES shop.contact (client_id, database_id, phone) ON DELETE CASCADE)",
    );
    till.edit(
        "CREATE TABLE shop.call (client_id text, database_id uuid, contact int, FOREIGN KEY (client_id, database_id, contact)
             REFERENCES shop.contact ON DELETE SET NULL)",
    );
    put(&mut till, &(1..=9).filter(|id| ![3, 4].contains(id)).map(is).collect::<Vec<_>>());
    put(&mut till, &[under(3, 1), under(4, 3), under(8, 7)]);
    till.edit("INSERT INTO shop.card VALUES ('acme', $1, 'p2'), ('acme', $1, NULL)");
    till.edit("INSERT INTO shop.call VALUES ('acme', $1, 5), ('acme', $1, 5), (NULL, NULL, 6)");
    let acts = [
        till.delete(&is(1)),
        till.delete(&under(3, 1)),
        till.delete(&under(4, 3)),
        till.delete(&is(2)),
        till.delete(&is(5)),
        till.delete(&is(6)),
        till.delete(&is(7)),
    ];
    let applied = till.apply(&acts);
    let waits: Vec<bool> = applied.iter().map(|applied| refusal(applied) == WAITS).collect();
    assert_eq!(waits, [false, false, false, true, true, false, true], "{applied:?}");
    assert_eq!(applied.iter().filter(|applied| **applied == Applied::Done).count(), 4);
    let named = |place: usize| match &applied[place] {
        Applied::Refused { reason, .. } => reason.message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(named(3).contains("shop.card") && named(4).contains("shop.call"), "{applied:?}");
    assert!(named(6).contains("shop.contact"), "{applied:?}");
    let ids: Vec<i64> = till.rows().iter().map(|row| row.0).collect();
    assert_eq!(ids, [2, 5, 7, 8, 9]);
    assert_eq!(till.shop.value::<i64>("SELECT count(*) FROM shop.call WHERE contact = 5"), 2);
    assert_eq!(till.shop.value::<i64>("SELECT count(*) FROM shop.card"), 2);
    // Once they are gone it goes; and a row that refers to another one in the same batch lets its first one go.
    till.edit("DELETE FROM shop.card");
    let moved = (8, Some("p8".to_owned()), Some(9), 6);
    let acts = [till.delete(&is(2)), till.delete(&is(7)), till.upsert(&moved, Some(&under(8, 7)))];
    assert_eq!(till.apply(&acts), [Applied::Done, Applied::Done, Applied::Done]);
    till.assert_kept();
}

#[test]
fn a_row_that_rows_nobody_may_see_could_refer_to_waits_and_stops_no_other() {
    let mut till = Till::with("UNIQUE (client_id, database_id, phone)");
    put(&mut till, &[is(1), is(2)]);
    let other = till.shop.server.create_owner();
    till.shop
        .superuser
        .batch_execute(&format!(
            "CREATE SCHEMA crm AUTHORIZATION {other};
             CREATE TABLE crm.card (client_id text, database_id uuid, phone text, FOREIGN KEY (client_id, database_id, phone)
                 REFERENCES shop.contact (client_id, database_id, phone) ON DELETE CASCADE);
             ALTER TABLE crm.card OWNER TO {other}"
        ))
        .expect("a table of another owner");
    let acts = [till.delete(&is(1)), till.upsert(&contact(2, "changed", 6), Some(&is(2)))];
    let applied = till.apply(&acts);
    assert_eq!((refusal(&applied[0]), &applied[1]), (WAITS, &Applied::Done));
    let Applied::Refused { reason, .. } = &applied[0] else { panic!("{applied:?}") };
    assert!(reason.message.contains("crm.card") && reason.message.contains("nobody may read"), "{reason:?}");
    till.edit("DROP TABLE crm.card");
    assert_eq!(till.apply(&acts[..1]), [Applied::Done]);
}

#[test]
fn rows_of_other_databases_that_refer_are_neither_deleted_nor_an_error() {
    let mut till = Till::with("UNIQUE (id)");
    till.edit(
        "CREATE TABLE shop.note (client_id text, id int REFERENCES shop.contact (id) ON DELETE CASCADE)",
    );
    put(&mut till, &[is(1), is(2)]);
    till.edit("INSERT INTO shop.note VALUES ('other', 1)");
    let acts = [till.delete(&is(1)), till.delete(&is(2))];
    let applied = till.apply(&acts);
    assert_eq!((refusal(&applied[0]), &applied[1]), (WAITS, &Applied::Done));
    assert_eq!(till.shop.value::<i64>("SELECT count(*) FROM shop.note"), 1);
}

#[test]
fn what_a_trigger_raises_refuses_the_row_alone() {
    for (code, waits) in [("P0001", false), ("23514", false), ("22012", false), ("23503", true)] {
        let mut till = Till::with("CHECK (rank > 0)");
        put(&mut till, &(1..=20).map(is).collect::<Vec<_>>());
        let owner: String =
            till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
        till.shop
            .superuser
            .batch_execute(&format!(
                "SET ROLE {owner};
                 CREATE FUNCTION shop.stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     RAISE EXCEPTION 'it stays' USING ERRCODE = '{code}'; END $$;
                 CREATE TRIGGER stays BEFORE DELETE OR UPDATE ON shop.contact FOR EACH ROW
                     WHEN (OLD.id IN (3, 13)) EXECUTE FUNCTION shop.stays();
                 RESET ROLE"
            ))
            .expect("a trigger");
        let mut acts: Vec<_> = (1..=10).map(|id| till.delete(&is(id))).collect();
        acts.extend((11..=20).map(|id| till.upsert(&contact(id, "changed", 6), Some(&is(id)))));
        let applied = till.apply(&acts);
        for (id, applied) in (1..).zip(&applied) {
            match id {
                3 | 13 => assert_eq!(refusal(applied), Some((waits, code)), "{id}"),
                _ => assert_eq!(*applied, Applied::Done, "{id}"),
            }
        }
        assert_eq!(till.rows().len(), 11);
        till.assert_kept();
    }
}
