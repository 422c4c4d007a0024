//! Tables of one configuration that go different ways.

use plimsoll_tests::{Kind, LocalDatabase, table_of};

use crate::site::{ITEM, PERSON, Pull, SALE, Table};

/// As it is here, it is to be there.
const STOCK: Table = Table {
    name: "stock",
    managed: "id bigint NOT NULL, name text, weight double precision, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id INTEGER PRIMARY KEY, name TEXT, weight DOUBLE PRECISION",
    text: "id || ',' || coalesce(name, '-')",
};

/// As it is there, it is to be here.
const PRICE: Table = Table {
    name: "price",
    managed: "id bigint NOT NULL, name text, PRIMARY KEY (client_id, database_id, id)",
    manage: "",
    local: "id INTEGER PRIMARY KEY, name TEXT",
    text: "id || ',' || coalesce(name, '-')",
};

fn each_table_goes_its_own_way(kind: Kind) {
    let mut pull = Pull::beside(LocalDatabase::new(kind), &[&SALE, &ITEM, &STOCK, &PRICE, &PERSON], "");
    pull.configure_each(&[
        (&SALE, "direction = \"push\""),
        (&ITEM, "direction = \"pull\""),
        (&STOCK, "direction = \"snapshot\""),
        (&PRICE, "direction = \"snapshot\"\nsnapshot_from = \"remote\""),
        (&PERSON, "direction = \"two-way\""),
    ]);
    pull.here(
        "INSERT INTO sale VALUES (1, 'a', 1, 1), (2, 'b', NULL, 2), (3, 'c', 3, 3);
         INSERT INTO stock VALUES (1, 'bolt', 1.5), (2, NULL, NULL), (3, 'nut', 0.25), (4, 'cap', 4);
         INSERT INTO person VALUES (1, 'Jane', 1), (2, 'John', 1)",
    );
    pull.there(
        "INSERT INTO item SELECT $T, i, 'item ' || i FROM generate_series(1, 5) i;
         INSERT INTO price SELECT $T, i, 'price ' || i FROM generate_series(1, 6) i;
         INSERT INTO person VALUES ($T, 3, 'Joan', 1)",
    );
    let moved = |report: &serde_json::Value, table: &str| {
        let moved = &table_of(report, table)["moved"];
        let of = |name: &str| moved[name].as_u64().unwrap_or_else(|| panic!("{table}: {report}"));
        (of("sent"), of("received"), of("deleted_here"), of("deleted_there"))
    };
    let first = pull.sync();
    let expected =
        [("sale", (3, 0, 0, 0)), ("item", (0, 5, 0, 0)), ("stock", (4, 0, 0, 0)), ("price", (0, 6, 0, 0))];
    for (table, expected) in expected {
        assert_eq!(moved(&first, table), expected, "{table}: {first}");
    }
    assert_eq!(moved(&first, "person"), (2, 1, 0, 0), "{first}");
    pull.assert_level("the first run");
    pull.here(
        "DELETE FROM sale WHERE id = 1; UPDATE stock SET weight = 2.5 WHERE id = 1; DELETE FROM stock WHERE id = 4;
         UPDATE person SET name = 'Ann', version = 2 WHERE id = 1",
    );
    pull.there(
        "DELETE FROM item WHERE id = 1; UPDATE price SET name = 'other' WHERE id = 1; DELETE FROM person WHERE id = 2",
    );
    let second = pull.sync();
    let expected =
        [("sale", (0, 0, 0, 1)), ("item", (0, 0, 1, 0)), ("stock", (1, 0, 0, 1)), ("price", (0, 1, 0, 0))];
    for (table, expected) in expected {
        assert_eq!(moved(&second, table), expected, "{table}: {second}");
    }
    assert_eq!(moved(&second, "person"), (1, 0, 1, 0), "{second}");
    pull.assert_level("changes on both sides");
    let third = pull.sync();
    for table in ["sale", "item", "stock", "price", "person"] {
        assert_eq!(moved(&third, table), (0, 0, 0, 0), "{table}: {third}");
    }
}

beside_each_kind!(each_table_goes_its_own_way);
