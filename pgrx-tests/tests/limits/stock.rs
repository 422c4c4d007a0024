//! A database of many rows.

use plimsoll_core::row::{BatchWriter, RowWriter};
use plimsoll_core::value::Value;
use plimsoll_tests::Registered;

use super::shop::Shop;

/// A shop with one more managed table, `shop.sale`, that nothing refers to and whose notes begin with a letter.
pub fn open() -> Shop {
    let mut shop = Shop::open();
    let owner: String =
        shop.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'shop.customer'::regclass");
    shop.superuser
        .batch_execute(&format!(
            "SET ROLE {owner};
             CREATE TABLE shop.sale (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                 note text CHECK (note ~ '^[a-z]'), version bigint NOT NULL,
                 PRIMARY KEY (client_id, database_id, id));
             RESET ROLE;
             SELECT plimsoll.manage_table('shop.sale', version_column => 'version')"
        ))
        .expect("a managed table");
    shop
}

/// Registers a database with so many rows in `shop.sale`, and rebuilds its manifest.
pub fn stocked(shop: &mut Shop, client_id: &str, rows: i64) -> Registered {
    let registered = shop.register(client_id, 0);
    shop.superuser
        .execute(
            "INSERT INTO shop.sale SELECT $1, $2, i, 'note ' || i, i FROM generate_series(1, $3::bigint) i",
            &[&client_id, &registered.id, &rows],
        )
        .expect("rows");
    shop.superuser
        .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.sale')", &[&registered.id])
        .expect("a manifest");
    registered
}

/// An upload of rows numbered `first..first + rows`, their versions raised by `by`.
pub fn upload(first: i64, rows: i64, by: i64, note: &str) -> Vec<u8> {
    let mut batch = BatchWriter::new();
    let mut row = Vec::new();
    for id in first..first + rows {
        row.clear();
        let mut writer = RowWriter::new(&mut row);
        writer.field(3, &Value::Int(id));
        writer.field(4, &Value::Text(&format!("{note} {id}")));
        writer.field(5, &Value::Int(id + by));
        batch.push(&row);
    }
    batch.finish()
}
