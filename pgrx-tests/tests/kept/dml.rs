//! Every way in which rows change is told to the manifest, in the same transaction.

use crate::site::{Site, assert_right};

#[test]
fn inserts_updates_and_deletes_are_kept() {
    let mut site = Site::open();
    site.right();
    site.insert(1, 10);
    site.right();
    site.run("UPDATE shop.item SET name = 'other' WHERE id = 3");
    site.right();
    site.run("UPDATE shop.item SET version = version + 100, amount = NULL WHERE id IN (4, 5)");
    site.right();
    site.run("UPDATE shop.item SET changed = now() WHERE id = 1");
    site.right();
    site.run("DELETE FROM shop.item WHERE id = 1");
    site.right();
    site.insert(11, 5_000);
    site.right();
    site.run("UPDATE shop.item SET amount = amount + 1 WHERE id % 7 = 0");
    site.right();
    site.run("DELETE FROM shop.item WHERE id BETWEEN 100 AND 4000");
    site.right();
    site.run("DELETE FROM shop.item");
    site.right();
    assert_eq!(site.value::<i64>("SELECT count(*) FROM plimsoll.blocks"), 0);
}
