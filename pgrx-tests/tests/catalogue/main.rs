//! The catalogue's account of the extension is as listed: owners, rights, how functions run, options of views. An object
//! that is new, gone or other than listed fails here, so that nobody adds one without saying who may use it.

use plimsoll_tests::shared;

/// One line an object: what it is, then everything about it that decides who may do what with it.
const EXPECTED: &str = include_str!("expected.txt");

/// Everything that belongs to the extension or lies in its schema, a line each. The owner of the schema is called
/// `owner`, and its own rights are left out; `PUBLIC` stands in a list of rights where everybody has them.
const CATALOGUE: &str = include_str!("catalogue.sql");

#[test]
fn every_object_of_the_extension_is_as_listed() {
    let server = shared();
    let mut client = server.superuser(&server.create_database());
    let found: Vec<String> =
        client.query(CATALOGUE, &[]).expect("the catalogue").iter().map(|row| row.get(0)).collect();
    let mut expected: Vec<&str> = EXPECTED.lines().filter(|line| !line.starts_with('#')).collect();
    let mut differences = Vec::new();
    for line in &found {
        match expected.iter().position(|listed| listed == line) {
            Some(place) => drop(expected.remove(place)),
            None => differences.push(format!("found, not listed: {line}")),
        }
    }
    differences.extend(expected.iter().map(|line| format!("listed, not found: {line}")));
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// What indexes on managed tables are made of, and nothing else, is for everybody.
#[test]
fn nothing_but_where_rows_stand_is_for_everybody() {
    let listed = EXPECTED.lines().filter(|line| !line.starts_with('#') && line.contains("PUBLIC"));
    let open: Vec<&str> = listed.filter_map(|line| line.split(" | ").next()).collect();
    let expected = [
        "function plimsoll_open.hash_position(integer[],\"any\")",
        "function plimsoll_open.version_position(bytea)",
        "schema plimsoll_open",
    ];
    assert_eq!(open, expected);
}

#[test]
fn an_object_more_or_a_right_more_is_found() {
    let server = shared();
    let mut client = server.superuser(&server.create_database());
    let lines = |client: &mut postgres::Client| -> Vec<String> {
        client.query(CATALOGUE, &[]).expect("the catalogue").iter().map(|row| row.get(0)).collect()
    };
    let before = lines(&mut client);
    for change in [
        "CREATE TABLE plimsoll.more (a integer)",
        "CREATE SEQUENCE plimsoll.more",
        "CREATE TYPE plimsoll.more AS ENUM ('a')",
        "CREATE DOMAIN plimsoll.more AS integer",
        "CREATE FUNCTION plimsoll.more() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
        "CREATE OPERATOR plimsoll.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq)",
        "CREATE INDEX more ON plimsoll.run_record (outcome)",
        "CREATE POLICY more ON plimsoll.run_record USING (true)",
        "CREATE TRIGGER more BEFORE UPDATE ON plimsoll.run_record EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "CREATE RULE more AS ON UPDATE TO plimsoll.run_record DO ALSO NOTHING",
        "ALTER TABLE plimsoll.run_record ADD more integer",
        "ALTER TABLE plimsoll.run_record ALTER error SET STATISTICS 100",
        "ALTER TABLE plimsoll.run_record ENABLE ROW LEVEL SECURITY",
        "ALTER VIEW plimsoll.runs RESET (security_barrier)",
        "ALTER FUNCTION plimsoll.version() SECURITY DEFINER",
        "ALTER FUNCTION plimsoll.version() PARALLEL UNSAFE",
        "ALTER FUNCTION plimsoll.version() VOLATILE",
        "ALTER FUNCTION plimsoll.version() STRICT",
        "ALTER FUNCTION plimsoll.version() LEAKPROOF",
        "ALTER FUNCTION plimsoll.version() SET work_mem = 64",
        "ALTER FUNCTION plimsoll.version() OWNER TO plimsoll_admin",
        "GRANT EXECUTE ON FUNCTION plimsoll.kept_trigger() TO plimsoll_agent",
        "GRANT EXECUTE ON FUNCTION plimsoll.version() TO PUBLIC",
        "CREATE TABLE plimsoll_open.more (a integer)",
        "GRANT CREATE ON SCHEMA plimsoll_open TO PUBLIC",
        "GRANT SELECT (run_id) ON plimsoll.run_record TO plimsoll_agent",
        "GRANT UPDATE ON plimsoll.runs TO plimsoll_admin",
        "GRANT SELECT ON plimsoll.runs TO plimsoll_agent WITH GRANT OPTION",
        "GRANT USAGE ON SEQUENCE plimsoll.run_number TO plimsoll_agent",
        "GRANT CREATE ON SCHEMA plimsoll TO plimsoll_admin",
        "GRANT USAGE ON TYPE plimsoll.runs TO plimsoll_agent",
        "ALTER EVENT TRIGGER plimsoll_rewrite DISABLE",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA plimsoll GRANT SELECT ON TABLES TO PUBLIC",
    ] {
        let mut transaction = client.transaction().expect("a transaction");
        transaction.batch_execute(change).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        let after: Vec<String> =
            transaction.query(CATALOGUE, &[]).expect("the catalogue").iter().map(|row| row.get(0)).collect();
        transaction.rollback().expect("a rollback");
        assert_ne!(before, after, "{change} goes unseen");
    }
    assert_eq!(before, lines(&mut client));
}
