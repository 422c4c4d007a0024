//! Tables without a key: rows are added as they are sent, and go copy by copy.

use plimsoll_core::manifest::Item;
use plimsoll_core::value::Value as Field;
use serde_json::json;

use crate::site::{NO_DIGEST, Site, encoded, refused};

const TABLE: &str = "CREATE TABLE shop.item (TENANT, name text, price int)";
const KEYLESS: &str = ", key_columns => '{}'";

impl Site {
    /// `count` rows of this name, encoded.
    fn rows(&mut self, name: &str, count: usize) -> Vec<u8> {
        let number = self.number("name");
        encoded(&vec![vec![(number, Field::Text(name))]; count])
    }

    fn count(&mut self) -> i64 {
        self.value("SELECT count(*) FROM shop.item WHERE database_id = $D")
    }
}

#[test]
fn an_upload_that_is_repeated_is_stored_once() {
    let mut site = Site::with(TABLE, KEYLESS);
    let (one, two) = (site.rows("one", 3), site.rows("two", 2));
    let run = site.begin();
    let first = site.upload_batch(&one, Some(run), Some(1)).expect("an upload");
    assert_eq!(first.numbers, [3, 0, 0, 0]);
    assert_eq!(site.upload_batch(&one, Some(run), Some(1)).expect("the same"), first, "answered from memory");
    assert_eq!(site.count(), 3);
    let message = refused(site.upload_batch(&two, Some(run), Some(1)), "55000");
    assert!(message.contains("other rows"), "{message}");
    // The same bytes under a later number are more rows; those before it are over.
    assert_eq!(site.upload_batch(&one, Some(run), Some(2)).expect("more").numbers, [3, 0, 0, 0]);
    assert_eq!(site.upload_batch(&two, Some(run), Some(5)).expect("a gap").numbers, [2, 0, 0, 0]);
    refused(site.upload_batch(&one, Some(run), Some(2)), "55000");
    assert_eq!(site.count(), 8);
    // What was rolled back is not remembered.
    let mut transaction = site.agent.transaction().expect("a transaction");
    let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.item', $2::bytea, $3, batch_number => 6)";
    transaction.query_one(sql, &[&site.till.id, &two, &run]).expect("an upload");
    transaction.rollback().expect("it is");
    assert_eq!(site.upload_batch(&two, Some(run), Some(6)).expect("again").numbers, [2, 0, 0, 0]);
    assert_eq!(site.count(), 10);
    // By hand there is no number, within the run or without one.
    refused(site.upload_batch(&two, Some(run), Some(0)), "22023");
    refused(site.upload_batch(&two, Some(run + 99), Some(1)), "55000");
    assert_eq!(site.upload_batch(&two, Some(run), None).expect("by hand").numbers, [2, 0, 0, 0]);
    site.right();
    // The memory goes with the run.
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.upload_record"), 1);
    site.agent.execute("SELECT plimsoll.end_run($1, 'finished')", &[&run]).expect("its end");
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.upload_record"), 0);
    let message = refused(site.upload_batch(&two, None, Some(1)), "22023");
    assert!(message.contains("without run_id"), "{message}");
    let run = site.begin();
    assert_eq!(site.upload_batch(&one, Some(run), Some(1)).expect("another run").numbers, [3, 0, 0, 0]);
    site.begin();
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.upload_record"), 0, "it was taken over");
}

#[test]
fn what_was_refused_is_answered_again_and_numbers_are_of_a_table() {
    let mut site = Site::with(
        &format!(
            "{TABLE}; ALTER TABLE shop.item ADD CHECK (name <> 'bad'); CREATE TABLE shop.more (TENANT, name text)"
        ),
        KEYLESS,
    );
    site.superuser
        .batch_execute("SELECT plimsoll.manage_table('shop.more', key_columns => '{}')")
        .expect("another");
    let number = site.number("name");
    let rows: Vec<Vec<(u32, Field<'_>)>> =
        ["a", "bad", "b", "bad"].iter().map(|name| vec![(number, Field::Text(name))]).collect();
    let rows = encoded(&rows);
    let run = site.begin();
    let first = site.upload_batch(&rows, Some(run), Some(1)).expect("an upload");
    assert_eq!((first.numbers, first.rejected.len()), ([2, 0, 0, 0], 2));
    assert_eq!(first.rejected[1]["ordinal"], json!(3));
    assert_eq!(first.rejected[1]["sqlstate"], json!("23514"));
    assert_eq!(first.rejected[1]["key"], json!({"name": "bad"}), "the row is its key");
    assert_eq!(site.upload_batch(&rows, Some(run), Some(1)).expect("the same"), first);
    assert_eq!(site.count(), 2);
    let more = encoded(&[vec![(3, Field::Text("a"))]]);
    let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.more', $2::bytea, $3, batch_number => 1)";
    let inserted: i64 =
        site.agent.query_one(sql, &[&site.till.id, &more, &run]).expect("another table").get(0);
    assert_eq!(inserted, 1);
    // Of a table with a key the number is nothing: what is there is found.
    site.run("CREATE TABLE shop.keyed (client_id text, database_id uuid, id int, PRIMARY KEY (client_id, database_id, id))");
    site.superuser.batch_execute("SELECT plimsoll.manage_table('shop.keyed')").expect("a third");
    let keyed = encoded(&[vec![(3, Field::Int(1))]]);
    let sql =
        "SELECT inserted, unchanged FROM plimsoll.upload($1, 'shop.keyed', $2::bytea, $3, batch_number => 1)";
    for expected in [(1, 0), (0, 1)] {
        let row = site.agent.query_one(sql, &[&site.till.id, &keyed, &run]).expect("an upload");
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), expected);
    }
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.upload_record"), 2);
}

#[test]
fn as_many_copies_go_as_are_named_and_not_one_more() {
    let mut site = Site::with(TABLE, KEYLESS);
    site.superuser
        .execute("SELECT plimsoll.set_option($1, 'guard_fraction', '1')", &[&site.till.id])
        .expect("an option");
    for (name, count) in [("a", 5), ("b", 1), ("c", 3)] {
        let rows = site.rows(name, count);
        site.upload_batch(&rows, None, None).expect("an upload");
    }
    site.run("INSERT INTO shop.item SELECT $O, name, price FROM shop.item");
    let items = site.items();
    let of = |count: usize| -> Item {
        let at = |item: &&Item| items.iter().filter(|other| other == item).count() == count;
        *items.iter().find(at).expect("a row")
    };
    let (a, b, c) = (of(5), of(1), of(3));
    assert_eq!(site.delete_items(&[a, a]), (2, 0));
    assert_eq!(site.delete_items(&[a, b, b, c, Item { digest: NO_DIGEST, ..c }]), (3, 0));
    assert_eq!(site.count(), 4);
    assert_eq!(site.delete_items(&[a; 9]), (2, 0), "as many as there are");
    assert_eq!(site.delete_items(&[a, b, Item { position: 7, ..a }]), (0, 0));
    site.right();
    // Of rows at one position that differ in a column that came later, exactly the one that is meant.
    site.run("ALTER TABLE shop.item ADD later int");
    site.run("UPDATE shop.item SET later = 1 WHERE ctid = (SELECT max(ctid) FROM shop.item WHERE database_id = $D)");
    site.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&site.till.id])
        .expect("a scan");
    site.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&site.other.id])
        .expect("a scan");
    let items = site.items();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0].position, items[1].position);
    assert_ne!(items[0].digest, items[1].digest);
    let marked = "SELECT count(later) FROM shop.item WHERE database_id = $D";
    assert_eq!(site.delete_items(&[items[1], items[1]]), (1, 0));
    assert_eq!(site.items(), [items[0]]);
    assert!(site.value::<i64>(marked) <= 1);
    assert_eq!(site.value::<i64>("SELECT count(*) FROM shop.item WHERE client_id = 'umbrella'"), 9);
    site.right();
}

#[test]
fn the_guard_counts_copies() {
    let mut site = Site::with(TABLE, KEYLESS);
    let rows = site.rows("a", 100);
    site.upload_batch(&rows, None, None).expect("an upload");
    let item = site.items()[0];
    assert_eq!(site.delete_items(&[item; 30]), (30, 0));
    assert_eq!(site.delete_items(&[item; 30]), (0, 30), "it is on hold");
    let sql = "SELECT held FROM plimsoll.delete_all($1, 'shop.item')";
    assert_eq!(site.agent.query_one(sql, &[&site.till.id]).expect("an answer").get::<_, i64>(0), 70);
    assert_eq!(site.count(), 70);
    site.right();
}

#[test]
fn rows_that_a_trigger_changes_or_skips_are_refused_one_by_one() {
    let mut site = Site::with(
        &format!(
            "{TABLE};
             CREATE FUNCTION shop.meddle() RETURNS trigger LANGUAGE plpgsql AS $f$
             BEGIN
                 IF NEW.name = 'skip' THEN RETURN NULL; END IF;
                 IF NEW.name = 'change' THEN NEW.name := 'other'; END IF;
                 RETURN NEW;
             END $f$;
             CREATE TRIGGER meddle BEFORE INSERT ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.meddle()"
        ),
        KEYLESS,
    );
    let names = ["a", "skip", "a", "change", "other", "a", "skip"];
    let rows: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
    let uploaded = site.upload(&json!(rows));
    assert_eq!(uploaded.numbers, [4, 0, 0, 0]);
    let refused: Vec<_> =
        uploaded.rejected.iter().map(|row| row["ordinal"].as_i64().expect("a number")).collect();
    assert_eq!(refused, [1, 3, 6]);
    let stored: String = site.value("SELECT string_agg(name, ' ' ORDER BY name) FROM shop.item");
    assert_eq!(stored, "a a a other");
    site.right();
}

#[test]
fn unique_values_of_rows_without_a_key_are_waited_for() {
    let mut site = Site::with(
        &format!("{TABLE}; CREATE UNIQUE INDEX ON shop.item (client_id, database_id, price)"),
        KEYLESS,
    );
    let first = site
        .upload(&json!([{"name": "a", "price": 1}, {"name": "b", "price": 2}, {"name": "b"}, {"name": "b"}]));
    assert_eq!(first.numbers, [4, 0, 0, 0]);
    let second = site.upload(&json!([{"name": "c", "price": 1}, {"name": "d", "price": 3}]));
    assert_eq!((second.numbers, second.rejected.len()), ([1, 0, 0, 0], 1));
    assert_eq!(
        (&second.rejected[0]["waits"], &second.rejected[0]["sqlstate"]),
        (&json!(true), &json!("23505"))
    );
    assert!(second.rejected[0]["holder"].is_string(), "who holds it is told: {second:?}");
    site.right();
}
