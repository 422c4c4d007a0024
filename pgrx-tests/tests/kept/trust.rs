//! What triggers do not see makes a manifest untrusted, never silently wrong.

use crate::site::{COLUMNS, Site, assert_right};

#[test]
fn a_trigger_that_was_disabled_for_a_while_is_noticed() {
    let mut site = Site::open();
    site.insert(1, 20);
    site.run("ALTER TABLE shop.item DISABLE TRIGGER plimsoll_kept_delete");
    site.run("DELETE FROM shop.item WHERE id = 1");
    site.off();
    site.run("ALTER TABLE shop.item ENABLE ALWAYS TRIGGER plimsoll_kept_delete");
    site.untrusted_then_rebuilt();
    site.run(
        "ALTER TABLE shop.item DISABLE TRIGGER ALL; DELETE FROM shop.item WHERE id = 2;
              ALTER TABLE shop.item ENABLE TRIGGER ALL",
    );
    site.off();
    site.superuser
        .batch_execute("SELECT plimsoll.keep_manifest('shop.item', true)")
        .expect("repaired triggers");
    site.untrusted_then_rebuilt();
}

#[test]
fn changes_of_a_replica_that_is_not_trusted_do_not_pile_up() {
    let mut site = Site::open();
    site.insert(1, 20);
    site.run("ALTER TABLE shop.item ADD COLUMN extra int");
    for _ in 0..5 {
        site.run("UPDATE shop.item SET name = name || 'x'");
    }
    assert!(site.fold() >= 5);
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.kept_delta"), 0);
    site.run("DELETE FROM shop.item WHERE id = 1");
    site.untrusted_then_rebuilt();
}

#[test]
fn a_session_that_fires_no_ordinary_triggers_fires_these() {
    let mut site = Site::open();
    site.insert(1, 20);
    site.superuser.batch_execute("SET session_replication_role = replica").expect("a setting");
    site.run("DELETE FROM shop.item WHERE id < 5; UPDATE shop.item SET name = 'x'");
    site.superuser.batch_execute("RESET session_replication_role").expect("a setting");
    site.right();
    assert_eq!(site.rows(), 16);
}

#[test]
fn columns_that_change_are_noticed() {
    for change in [
        "ALTER TABLE shop.item ALTER amount TYPE numeric(12,3) USING amount * 2",
        "ALTER TABLE shop.item ADD COLUMN extra int DEFAULT 5",
        "ALTER TABLE shop.item DROP COLUMN name",
        "ALTER TABLE shop.item RENAME COLUMN name TO title",
        "ALTER TABLE shop.item ALTER amount TYPE numeric(10,2) USING amount + 1",
    ] {
        let mut site = Site::open();
        site.insert(1, 2_000);
        site.right();
        site.run(change);
        site.untrusted_then_rebuilt();
        site.run("UPDATE shop.item SET amount = 3 WHERE id < 100");
        site.right();
    }
}

#[test]
fn a_label_that_is_renamed_is_noticed() {
    let mut site = Site::with(&format!(
        "CREATE TYPE shop.mood AS ENUM ('fine', 'sad');
         CREATE TABLE shop.item ({COLUMNS}, mood shop.mood, PRIMARY KEY (client_id, database_id, id))"
    ));
    site.run("INSERT INTO shop.item SELECT $C, $D, i, 'x', 1, now(), i, 'sad' FROM generate_series(1, 10) i");
    site.right();
    site.run("ALTER TYPE shop.mood RENAME VALUE 'sad' TO 'blue'");
    site.untrusted_then_rebuilt();
    site.run(
        "UPDATE shop.item SET mood = 'fine' WHERE id = 1; UPDATE shop.item SET mood = 'blue' WHERE id = 2",
    );
    site.right();
}

#[test]
fn a_renamed_table_and_one_that_changed_hands_lose_no_change() {
    let mut site = Site::open();
    site.insert(1, 20);
    site.run("ALTER TABLE shop.item RENAME TO article");
    site.run("DELETE FROM shop.article WHERE id = 1");
    site.run("ALTER TABLE shop.article RENAME TO item");
    site.right();
    let owner = site.owner.clone();
    site.superuser
        .batch_execute(&format!(
            "ALTER TABLE shop.item OWNER TO CURRENT_USER; DELETE FROM shop.item WHERE id = 2;
             ALTER TABLE shop.item OWNER TO {owner}"
        ))
        .expect("a change behind the registration's back");
    site.right();
    assert_eq!(site.rows(), 18);
}

#[test]
fn a_manifest_is_switched_off_and_on_again() {
    let mut site = Site::open();
    site.insert(1, 20);
    let switch = |site: &mut Site, on: bool| -> bool {
        site.value(&format!("SELECT plimsoll.keep_manifest('shop.item', {on})"))
    };
    assert!(!switch(&mut site, false));
    site.off();
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'plimsoll%'";
    assert_eq!(site.value::<i64>(triggers), 0);
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.blocks"), 0);
    site.run("DELETE FROM shop.item WHERE id = 1");
    assert!(switch(&mut site, true));
    assert_eq!(site.value::<i64>(triggers), 4);
    site.untrusted_then_rebuilt();
    site.superuser.batch_execute("SELECT plimsoll.unmanage_table('shop.item'::regclass)").expect("an end");
    assert_eq!(site.value::<i64>(triggers), 0);
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.kept_head"), 0);
    site.run("DELETE FROM shop.item WHERE id = 2");
    site.superuser
        .batch_execute("SELECT plimsoll.manage_table('shop.item', version_column => 'version', modified_column => 'changed')")
        .expect("managed again");
    site.untrusted_then_rebuilt();
}

#[test]
fn what_is_wrong_in_a_manifest_is_found_and_repaired() {
    let mut site = Site::open();
    site.insert(1, 5_000);
    site.right();
    site.superuser
        .batch_execute("UPDATE plimsoll.kept_block SET row_count = row_count + 1 WHERE first_position <= 2000 AND last_position >= 2000")
        .expect("damage");
    let check =
        "SELECT range @> 2000::int8, kept_rows - actual_rows FROM plimsoll.check_manifest($1, 'shop.item')
                 WHERE range <> '(,)'";
    let id = site.till.id;
    let wrong = site.superuser.query(check, &[&id]).expect("a check");
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].get::<_, bool>(0) && wrong[0].get::<_, i64>(1) == 1);
    site.superuser
        .batch_execute(
            "DELETE FROM plimsoll.kept_block WHERE first_position <= 2000 AND last_position >= 2000",
        )
        .expect("damage");
    let stray = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.item') WHERE kept_rows = 0";
    assert!(site.superuser.query_one(stray, &[&id]).expect("a check").get::<_, i64>(0) > 100);
    site.rebuild();
    site.right();
}

#[test]
fn readers_of_an_older_snapshot_are_not_misled() {
    let mut site = Site::open();
    site.insert(1, 5_000);
    site.fold();
    let id = site.till.id;
    let mut other = site.connect();
    let mut reader = other
        .build_transaction()
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()
        .expect("a reader");
    assert_right(&mut reader, id);
    site.run("DELETE FROM shop.item WHERE id % 3 = 0");
    assert_right(&mut reader, id);
    site.fold();
    assert_right(&mut reader, id);
    site.rebuild();
    assert_right(&mut reader, id);
    reader.batch_execute("UPDATE shop.item SET name = 'own' WHERE id = 1").expect("an update");
    assert_right(&mut reader, id);
    let folded = "SELECT plimsoll.fold_manifest($1, 'shop.item')";
    let folded: i64 = reader.query_one(folded, &[&id]).expect("no fold at this isolation").get(0);
    assert_eq!(folded, 0);
    reader.commit().expect("a commit");
    site.right();
    assert_eq!(site.rows(), 3_334);
}

#[test]
fn a_restored_dump_is_scanned_once() {
    let mut site = Site::open();
    site.insert(1, 3_000);
    site.right();
    let restored = site.server.create_empty_database();
    let dump = site.server.command("pg_dump").args(["-Fp", &site.database]).output().expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &dump.stdout).expect("a dump");
    let psql = site
        .server
        .command("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &restored, "-f", "-"])
        .stdin(std::fs::File::open(file.path()).expect("the dump"))
        .output()
        .expect("psql");
    assert!(psql.status.success(), "{}", String::from_utf8_lossy(&psql.stderr));
    site.superuser = site.server.superuser(&restored);
    site.untrusted_then_rebuilt();
    site.run("UPDATE shop.item SET name = 'after' WHERE id < 10");
    site.right();
}

#[test]
fn a_trigger_of_somebody_else_is_no_way_in() {
    let mut site = Site::open();
    site.insert(1, 10);
    let login = site.server.create_login(&["plimsoll_agent"]);
    let mut hostile = site.server.connect(&login, &site.database);
    site.superuser
        .batch_execute(&format!("GRANT CREATE ON SCHEMA public TO {}", login.role))
        .expect("a grant");
    hostile
        .batch_execute(
            "CREATE TABLE public.item (client_id text, database_id uuid, id int, name text, amount numeric(10,2),
                 changed timestamptz, version bigint)",
        )
        .expect("a table of one's own");
    let trigger = "CREATE TRIGGER plimsoll_kept_insert AFTER INSERT ON public.item REFERENCING NEW TABLE AS n
                   FOR EACH STATEMENT EXECUTE FUNCTION plimsoll.kept_trigger()";
    let refused = hostile.batch_execute(trigger).expect_err("nobody may make one");
    assert_eq!(refused.code().map(|code| code.code()), Some("42501"));
    // Where an admin was talked into it, it does nothing all the same.
    site.superuser.batch_execute(trigger).expect("a superuser's mistake");
    let row = site.filled("INSERT INTO public.item VALUES ($C, $D, 99, 'forged', 1, now(), 99)");
    hostile.batch_execute(&row).expect("a row");
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.kept_delta WHERE entries IS NULL"), 0);
    site.right();
    assert_eq!(site.rows(), 10);
    let called = hostile.query("SELECT plimsoll.kept_trigger()", &[]).expect_err("no function to be called");
    assert!(called.as_db_error().is_some());
}

#[test]
fn a_manifest_is_not_given_up_for_what_passes() {
    let mut site = Site::open();
    site.insert(1, 20);
    let keep = "SELECT plimsoll.keep_manifest('shop.item', true)";
    for (code, passes) in [("53200", true), ("40001", true), ("57014", true), ("0A000", false)] {
        let stop = format!(
            "SELECT plimsoll.keep_manifest('shop.item', false);
             CREATE OR REPLACE FUNCTION stop() RETURNS event_trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE 'not now' USING ERRCODE = '{code}'; END $$;
             CREATE EVENT TRIGGER stop ON ddl_command_start WHEN TAG IN ('CREATE TRIGGER') EXECUTE FUNCTION stop()"
        );
        site.superuser.batch_execute(&stop).expect("triggers are stopped");
        let outcome = site.superuser.batch_execute(keep);
        let told = outcome.err().and_then(|error| error.code().map(|code| code.code().to_owned()));
        assert_eq!(told, passes.then(|| code.to_owned()), "{code}");
        site.superuser.batch_execute("DROP EVENT TRIGGER stop").expect("no longer");
    }
    site.superuser.batch_execute(keep).expect("now it is kept");
    site.untrusted_then_rebuilt();
}
