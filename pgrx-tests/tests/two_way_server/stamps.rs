//! Versions that a trigger raises where applications change rows, and leaves alone where a sync stores them.

use plimsoll_core::store::{Applied, RemoteSide};

use crate::till::{Contact, Till, contact};

fn stamped() -> Till {
    let mut till = Till::open();
    till.edit("SELECT plimsoll.stamp_versions('shop.contact')");
    till
}

/// The versions of all rows, by id.
fn versions(till: &mut Till) -> Vec<i64> {
    till.rows().iter().map(|row| row.3).collect()
}

#[test]
fn applications_raise_versions_by_whatever_statement_and_changing_nothing_raises_none() {
    let mut till = stamped();
    till.edit("INSERT INTO shop.contact (client_id, database_id, id, phone) SELECT 'acme', $1, i, 'a' FROM generate_series(1, 3) i");
    assert_eq!(versions(&mut till), [1, 1, 1], "rows without a version get one");
    till.edit("INSERT INTO shop.contact VALUES ('acme', $1, 4, 'a', NULL, 40)");
    till.edit("UPDATE shop.contact SET phone = 'b' WHERE id IN (1, 4)");
    assert_eq!(versions(&mut till), [2, 1, 1, 41]);
    till.edit("UPDATE shop.contact SET phone = phone, rank = NULL");
    assert_eq!(versions(&mut till), [2, 1, 1, 41], "what changes nothing raises nothing");
    // An application that keeps versions itself, and one that would set one back.
    till.edit(
        "UPDATE shop.contact SET phone = 'c', rev = CASE id WHEN 1 THEN 10 ELSE 0 END WHERE id IN (1, 4)",
    );
    assert_eq!(versions(&mut till), [10, 1, 1, 42]);
    till.edit(
        "INSERT INTO shop.contact (client_id, database_id, id, phone) VALUES ('acme', $1, 2, 'd'), ('acme', $1, 5, 'd')
         ON CONFLICT (client_id, database_id, id) DO UPDATE SET phone = excluded.phone",
    );
    assert_eq!(versions(&mut till), [10, 2, 1, 42, 1]);
    let id = till.registered.id;
    let copy = "COPY shop.contact (client_id, database_id, id, phone, rev) FROM STDIN";
    let mut rows = till.shop.superuser.copy_in(copy).expect("a copy");
    std::io::Write::write_all(&mut rows, format!("acme\t{id}\t6\te\t\\N\nacme\t{id}\t7\te\t9\n").as_bytes())
        .expect("rows");
    rows.finish().expect("copied");
    assert_eq!(versions(&mut till), [10, 2, 1, 42, 1, 1, 9]);
    if till.shop.server.major() >= 15 {
        till.edit(
            "MERGE INTO shop.contact c USING (VALUES (3), (8)) AS n (id) ON c.id = n.id AND c.database_id = $1
             WHEN MATCHED THEN UPDATE SET phone = 'f'
             WHEN NOT MATCHED THEN INSERT (client_id, database_id, id) VALUES ('acme', $1, n.id)",
        );
        assert_eq!(versions(&mut till), [10, 2, 2, 42, 1, 1, 9, 1]);
    }
    till.edit("SET session_replication_role = replica");
    till.edit("UPDATE shop.contact SET phone = 'g' WHERE id = 7");
    till.edit("RESET session_replication_role");
    assert_eq!(till.rows()[6].3, 10, "a session that fires no ordinary triggers fires this one");
    till.assert_kept();
}

#[test]
fn a_sync_stores_versions_as_they_come_and_nothing_an_application_sets_makes_it_one() {
    let mut till = stamped();
    till.put(&contact(1, "a", 5));
    let (new, over): (Contact, Contact) = (contact(2, "b", 3), contact(1, "b", 4));
    let acts = [till.upsert(&new, None), till.upsert(&over, Some(&contact(1, "a", 5)))];
    assert_eq!(till.apply(&acts), [Applied::Done, Applied::Done]);
    assert_eq!(till.rows(), [over.clone(), new.clone()]);
    // By an upload too, and by statements where it must be by statements.
    till.server.end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None).expect("the end");
    let id = till.registered.id;
    let mut agent = till.connect();
    let upload = "SELECT updated, rejected::text FROM plimsoll.upload($1, 'shop.contact', $2::jsonb)";
    let rows = serde_json::json!([{"id": 1, "phone": "c", "rev": 3}, {"id": 2, "phone": "c", "rev": 3}]);
    let answer = agent.query_one(upload, &[&id, &rows]).expect("an upload");
    assert_eq!((answer.get::<_, i64>(0), answer.get::<_, &str>(1)), (2, "[]"));
    assert_eq!(versions(&mut till), [3, 3]);
    // Settings named as any application could.
    for setting in ["plimsoll.syncing", "plimsoll.sync", "plimsoll.skip"] {
        till.edit(&format!("SET {setting} = on"));
    }
    till.edit("UPDATE shop.contact SET phone = 'd'");
    assert_eq!(versions(&mut till), [4, 4], "in the session that synced a moment ago as in any other");
    agent
        .query_one(upload, &[&id, &serde_json::json!([{"id": 1, "phone": "e", "rev": 9}])])
        .expect("an upload");
    let owner: String =
        till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    // What a trigger of the owner changes while a sync stores rows is an application's change.
    till.shop
        .superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE FUNCTION shop.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.id = 1 THEN UPDATE shop.contact SET rank = 7 WHERE id = 2; END IF; RETURN NULL; END $$;
             CREATE TRIGGER touch AFTER UPDATE ON shop.contact FOR EACH ROW WHEN (OLD.id = 1)
                 EXECUTE FUNCTION shop.touch();
             RESET ROLE"
        ))
        .expect("a trigger");
    let before = till.rows()[1].3;
    agent
        .query_one(upload, &[&id, &serde_json::json!([{"id": 1, "phone": "f", "rev": 10}])])
        .expect("an upload");
    let rows = till.rows();
    assert_eq!((rows[0].3, rows[1].2, rows[1].3), (10, Some(7), before + 1), "{rows:?}");
    till.assert_kept();
}

#[test]
fn stamps_follow_the_clock_and_never_go_back() {
    let mut till = Till::open();
    let owner: String =
        till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    for column in ["timestamptz", "timestamptz(0)", "timestamp(3)", "timestamp"] {
        till.shop
            .superuser
            .batch_execute(&format!(
                "SET ROLE {owner}; DROP TABLE IF EXISTS shop.note;
                 CREATE TABLE shop.note (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                     text text, at {column} NOT NULL, PRIMARY KEY (client_id, database_id, id));
                 RESET ROLE; SET timezone = 'UTC';
                 SELECT plimsoll.manage_table('shop.note', version_column => 'at', version_scope => 'row');
                 SELECT plimsoll.stamp_versions('shop.note')"
            ))
            .expect("a table");
        till.edit("INSERT INTO shop.note (client_id, database_id, id) VALUES ('acme', $1, 1)");
        let at =
            |till: &mut Till| till.shop.value::<f64>("SELECT extract(epoch FROM at)::float8 FROM shop.note");
        let now =
            |till: &mut Till| till.shop.value::<f64>("SELECT extract(epoch FROM clock_timestamp())::float8");
        let mut last = at(&mut till);
        assert!((now(&mut till) - last).abs() < 5.0, "{column}");
        for round in 0..4 {
            till.edit(&format!("UPDATE shop.note SET text = '{round}'"));
            let next = at(&mut till);
            assert!(next > last, "{column}: {next} after {last}");
            last = next;
        }
        // One of the future is not repeated, and none is set into it.
        till.edit("UPDATE shop.note SET text = 'b', at = now() + interval '1 year'");
        assert!(at(&mut till) - now(&mut till) < 10.0, "{column}");
        till.edit("ALTER TABLE shop.note DISABLE TRIGGER zz_plimsoll_stamp");
        till.edit("UPDATE shop.note SET at = now() + interval '1 hour'");
        till.edit("ALTER TABLE shop.note ENABLE ALWAYS TRIGGER zz_plimsoll_stamp");
        let ahead = at(&mut till);
        till.edit("UPDATE shop.note SET text = 'c'");
        let next = at(&mut till);
        assert!(next > ahead && next - ahead < 2.0, "{column}: {next} after {ahead}");
        // What nothing is later than stays.
        till.edit("ALTER TABLE shop.note DISABLE TRIGGER zz_plimsoll_stamp");
        till.edit("UPDATE shop.note SET at = 'infinity'");
        till.edit("ALTER TABLE shop.note ENABLE ALWAYS TRIGGER zz_plimsoll_stamp");
        till.edit("UPDATE shop.note SET text = 'd'");
        assert!(till.shop.value::<bool>("SELECT at = 'infinity' FROM shop.note"), "{column}");
    }
}

#[test]
fn partitions_are_stamped_and_nothing_is_left_when_it_is_taken_back() {
    let mut till = Till::open();
    let owner: String =
        till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    till.shop
        .superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.part (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, text text,
                 rev smallint NOT NULL, PRIMARY KEY (client_id, database_id, id)) PARTITION BY RANGE (id);
             CREATE TABLE shop.part_1 (rev smallint NOT NULL, text text, id int NOT NULL, database_id uuid NOT NULL,
                 client_id text NOT NULL);
             ALTER TABLE shop.part ATTACH PARTITION shop.part_1 FOR VALUES FROM (0) TO (100);
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.part', version_column => 'rev', version_scope => 'row');
             SELECT plimsoll.stamp_versions('shop.part');
             SELECT plimsoll.stamp_versions('shop.part');
             SET ROLE {owner};
             CREATE TABLE shop.part_2 PARTITION OF shop.part FOR VALUES FROM (100) TO (200); RESET ROLE"
        ))
        .expect("a partitioned table");
    till.edit("INSERT INTO shop.part (client_id, database_id, id) VALUES ('acme', $1, 1), ('acme', $1, 150)");
    till.edit("UPDATE shop.part SET text = 'a'");
    till.edit("UPDATE shop.part_1 SET text = 'b', id = id");
    till.edit("UPDATE shop.part SET id = id + 100 WHERE id = 1");
    let revs = "SELECT string_agg(id || ':' || rev, ' ' ORDER BY id) FROM shop.part";
    assert_eq!(till.shop.value::<String>(revs), "101:4 150:2");
    till.edit("UPDATE shop.part SET rev = 32767 WHERE id = 150");
    till.edit("UPDATE shop.part SET text = 'z' WHERE id = 150");
    assert_eq!(
        till.shop.value::<String>(revs),
        "101:4 150:32767",
        "the end of the type stops no application"
    );
    let id = till.registered.id;
    let mut agent = till.connect();
    till.server.end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None).expect("the end");
    let rows = serde_json::json!([{"id": 101, "text": "s", "rev": 9}, {"id": 7, "text": "s", "rev": 3}]);
    let answer = agent
        .query_one("SELECT rejected::text FROM plimsoll.upload($1, 'shop.part', $2::jsonb)", &[&id, &rows]);
    assert_eq!(answer.expect("an upload").get::<_, &str>(0), "[]");
    assert_eq!(till.shop.value::<String>(revs), "7:3 101:9 150:32767");
    // Managed again under another version, it follows.
    till.edit("ALTER TABLE shop.part RENAME COLUMN rev TO revision");
    till.edit("UPDATE shop.part SET text = 't' WHERE id = 7");
    assert_eq!(till.shop.value::<i16>("SELECT revision FROM shop.part WHERE id = 7"), 4);
    let count = "SELECT count(*) FROM pg_trigger WHERE tgname = 'zz_plimsoll_stamp'";
    assert_eq!(till.shop.value::<i64>(count), 3);
    assert!(till.shop.value::<bool>("SELECT plimsoll.unstamp_versions('shop.part')"));
    assert!(!till.shop.value::<bool>("SELECT plimsoll.unstamp_versions('shop.part')"));
    assert_eq!(till.shop.value::<i64>(count), 0);
    till.edit("SELECT plimsoll.stamp_versions('shop.part')");
    till.edit("SELECT plimsoll.unmanage_table('shop.part'::regclass)");
    assert_eq!(till.shop.value::<i64>(count), 0);
    till.edit("SELECT plimsoll.stamp_versions('shop.contact')");
    till.edit("DROP EXTENSION plimsoll");
    assert_eq!(till.shop.value::<i64>(count), 0);
    till.edit("UPDATE shop.contact SET phone = 'free'");
}

#[test]
fn tables_without_a_version_that_can_be_raised_are_refused_and_others_may_not_ask() {
    let mut till = Till::open();
    let owner: String =
        till.shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
    till.shop
        .superuser
        .batch_execute(&format!(
            "SET ROLE {owner}; CREATE TABLE shop.note (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 v xid8 NOT NULL, PRIMARY KEY (client_id, database_id, id)); RESET ROLE"
        ))
        .expect("a table");
    let admin = till.shop.server.create_login(&["plimsoll_admin"]);
    let mut superuser = till.shop.server.superuser(&till.shop.database);
    let call = "SELECT plimsoll.stamp_versions('shop.note')";
    crate::shop::refused(superuser.execute(call, &[]), "42P01");
    till.edit("SELECT plimsoll.manage_table('shop.note')");
    crate::shop::refused(superuser.execute(call, &[]), "42P16");
    till.edit("SELECT plimsoll.manage_table('shop.note', version_column => 'v')");
    crate::shop::refused(superuser.execute(call, &[]), "42P16");
    let mut admin = till.shop.connect(&admin);
    let oid: u32 = till.shop.value("SELECT 'shop.contact'::regclass::oid");
    let message = crate::shop::refused(
        admin.execute("SELECT plimsoll.stamp_versions($1::oid::regclass)", &[&oid]),
        "42501",
    );
    assert!(message.contains("not yours"), "{message}");
    till.remote().close(0, &[]).expect("nothing to close");
}
