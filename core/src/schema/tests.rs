//! Which parts columns can play.

use super::*;

fn columns() -> Vec<Column> {
    let column = |(number, name, text): (u32, &str, &str)| Column {
        number,
        name: name.to_owned(),
        column_type: text.parse().expect("a type"),
        not_null: false,
    };
    [(4, "note", "text"), (1, "shop", "int4"), (2, "order", "int8"), (3, "stamp", "bytea")]
        .map(column)
        .to_vec()
}

fn schema(roles: Roles<'_>) -> Result<TableSchema, String> {
    TableSchema::new(columns(), &roles).map_err(|error| error.message().to_owned())
}

#[test]
fn rows_stand_at_their_version_or_at_a_hash() {
    let key = &["order", "shop"][..];
    let versioned = schema(Roles { key, version: Some("stamp"), ..Roles::default() }).expect("a schema");
    assert_eq!((versioned.axis(), versioned.placed_by().len()), (Axis::Version(2), 0));
    assert!(!versioned.is_keyless());
    let hashed =
        schema(Roles { key, version: Some("stamp"), placed_by: key, ..Roles::default() }).expect("a schema");
    assert_eq!((hashed.axis(), hashed.version_index()), (Axis::Hash, Some(2)));
    assert_eq!(hashed.placed_by().map(|column| column.number).collect::<Vec<_>>(), [1, 2]);
    let keyless = schema(Roles { placed_by: &["note", "shop"], ..Roles::default() }).expect("a schema");
    assert!(keyless.is_keyless() && keyless.version().is_none() && keyless.key().len() == 0);
    assert_eq!(keyless.placed_by_indexes(), [0, 3]);
}

#[test]
fn parts_that_make_no_sense_are_refused() {
    let refused = |roles| schema(roles).expect_err("refused");
    assert_eq!(refused(Roles::default()), "no version column, and no column that places rows");
    assert_eq!(
        refused(Roles { version: Some("note"), ..Roles::default() }),
        "column \"note\" of type text is no version"
    );
    assert_eq!(
        refused(Roles { key: &["shop"], placed_by: &["shop", "note"], ..Roles::default() }),
        "column \"note\" places rows, and is not of their key"
    );
    assert_eq!(refused(Roles { key: &["x"], ..Roles::default() }), "no column \"x\"");
}
