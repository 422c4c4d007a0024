//! Things that happen to tables besides statements on their rows.

/// What calls answer after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// What is right, kept or scanned; once rebuilt, from what is kept.
    Rebuilt,
    /// What is right, and it was kept all along.
    Kept,
    /// What is right, by scans, rebuilt or not.
    Scanned,
    /// A refusal for one table.
    Refused,
}

/// An event: what is run, as superuser, a statement or a transaction each.
pub struct Event {
    pub name: &'static str,
    pub steps: &'static [&'static str],
    pub after: After,
}

const fn event(name: &'static str, after: After, steps: &'static [&'static str]) -> Event {
    Event { name, steps, after }
}

use After::{Kept, Rebuilt, Refused, Scanned};

const SHIPS: &str = "UPDATE yard.ship SET stamp = stamp + 1, name = 'unseen' WHERE id % 3 = 0";
const MIDDLE: &str = "UPDATE yard.crate_middle SET stamp = stamp + 1 WHERE ship_id % 3 = 0";
const MORE_MIDDLE: &str =
    "INSERT INTO yard.crate_middle (client_id, database_id, ship_id, no, label, weight, stamp)
     SELECT client_id, database_id, id, 17, 'unseen', 1, 9 FROM yard.ship WHERE id % 4 = 0 ON CONFLICT DO NOTHING";

pub const EVENTS: &[Event] = &[
    event("nothing at all", Kept, &[SHIPS, MIDDLE, MORE_MIDDLE]),
    event("a disabled trigger", Rebuilt, &[
        "ALTER TABLE yard.ship DISABLE TRIGGER plimsoll_kept_update",
        SHIPS,
        "ALTER TABLE yard.ship ENABLE ALWAYS TRIGGER plimsoll_kept_update",
    ]),
    event("a trigger disabled within one transaction", Rebuilt, &[
        "BEGIN;
         ALTER TABLE yard.ship DISABLE TRIGGER plimsoll_kept_update;
         UPDATE yard.ship SET stamp = stamp + 1 WHERE id % 3 = 0;
         ALTER TABLE yard.ship ENABLE ALWAYS TRIGGER plimsoll_kept_update;
         COMMIT",
    ]),
    event("a trigger disabled within a transaction that was undone", Kept, &[
        "BEGIN; ALTER TABLE yard.ship DISABLE TRIGGER ALL; UPDATE yard.ship SET stamp = stamp + 1 WHERE id % 3 = 0; ROLLBACK",
        SHIPS,
    ]),
    event("all triggers disabled and enabled", Rebuilt, &[
        "ALTER TABLE yard.ship DISABLE TRIGGER ALL",
        SHIPS,
        "ALTER TABLE yard.ship ENABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        SHIPS,
        "RESET session_replication_role",
        "SELECT plimsoll.keep_manifest('yard.ship', true)",
    ]),
    event("a partition's disabled triggers", Rebuilt, &[
        "ALTER TABLE yard.crate_middle DISABLE TRIGGER USER",
        MIDDLE,
        MORE_MIDDLE,
        "ALTER TABLE yard.crate_middle ENABLE ALWAYS TRIGGER plimsoll_kept_insert",
        "ALTER TABLE yard.crate_middle ENABLE ALWAYS TRIGGER plimsoll_kept_update",
        "ALTER TABLE yard.crate_middle ENABLE ALWAYS TRIGGER plimsoll_kept_delete",
        "ALTER TABLE yard.crate_middle ENABLE ALWAYS TRIGGER plimsoll_kept_truncate",
    ]),
    event("a dropped trigger", Rebuilt, &[
        "DROP TRIGGER plimsoll_kept_update ON yard.ship",
        SHIPS,
        "SELECT plimsoll.keep_manifest('yard.ship', true)",
    ]),
    event("a session that plays a replica", Kept, &["SET session_replication_role = replica", SHIPS, MIDDLE]),
    event("keeping switched off and on", Rebuilt, &[
        "SELECT plimsoll.keep_manifest('yard.ship', false)",
        SHIPS,
        "SELECT plimsoll.keep_manifest('yard.ship', true)",
    ]),
    event("keeping switched off", Scanned, &[
        "SELECT plimsoll.keep_manifest('yard.ship', false)",
        "SELECT plimsoll.keep_manifest('yard.crate', false)",
        SHIPS,
    ]),
    event("a table that was not managed for a while", Rebuilt, &[
        "SELECT plimsoll.unmanage_table('yard.ship'::regclass)",
        SHIPS,
        "SELECT plimsoll.manage_table('yard.ship', version_column => 'stamp', modified_column => 'changed')",
    ]),
    event("another registration", Rebuilt, &[
        "SELECT plimsoll.manage_table('yard.ship', version_column => 'stamp', modified_column => 'changed',
             server_columns => '{name}')",
    ]),
    event("a registration without the time of changes", Rebuilt, &[
        "SELECT plimsoll.manage_table('yard.ship', version_column => 'stamp')",
    ]),
    event("another version column", Rebuilt, &[
        "SELECT plimsoll.manage_table('yard.ship', version_column => 'id', modified_column => 'changed')",
    ]),
    event("a partition that goes and comes back", Rebuilt, &[
        "ALTER TABLE yard.crate DETACH PARTITION yard.crate_middle",
        MIDDLE,
        "DELETE FROM yard.crate_middle WHERE ship_id % 5 = 0",
        "ALTER TABLE yard.crate ATTACH PARTITION yard.crate_middle FOR VALUES FROM (10) TO (20)",
    ]),
    event("a partition that goes and comes back in one transaction", Rebuilt, &[
        "BEGIN;
         ALTER TABLE yard.crate DETACH PARTITION yard.crate_middle;
         DELETE FROM yard.crate_middle WHERE ship_id % 5 = 0;
         ALTER TABLE yard.crate ATTACH PARTITION yard.crate_middle FOR VALUES FROM (10) TO (20);
         COMMIT",
    ]),
    event("a partition that goes", Rebuilt, &[
        "ALTER TABLE yard.crate DETACH PARTITION yard.crate_middle",
        MIDDLE,
        MORE_MIDDLE,
    ]),
    event("a partition that goes while others work", Rebuilt, &[
        "ALTER TABLE yard.crate DETACH PARTITION yard.crate_middle CONCURRENTLY",
        MIDDLE,
    ]),
    event("a dropped partition", Rebuilt, &["DROP TABLE yard.crate_middle"]),
    event("a partition in place of another", Rebuilt, &[
        "DROP TABLE yard.crate_middle",
        "CREATE TABLE yard.crate_middle PARTITION OF yard.crate FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE yard.crate_middle OWNER TO {owner}",
        MORE_MIDDLE,
        "SELECT plimsoll.keep_manifest('yard.crate', true)",
    ]),
    event("a new partition below a partition", Rebuilt, &[
        "BEGIN;
         ALTER TABLE yard.crate_high DETACH PARTITION yard.crate_high_1;
         CREATE TABLE yard.crate_high_3 PARTITION OF yard.crate_high FOR VALUES WITH (MODULUS 4, REMAINDER 1);
         CREATE TABLE yard.crate_high_4 PARTITION OF yard.crate_high FOR VALUES WITH (MODULUS 4, REMAINDER 3);
         ALTER TABLE yard.crate_high_3 OWNER TO {owner};
         ALTER TABLE yard.crate_high_4 OWNER TO {owner};
         INSERT INTO yard.crate SELECT * FROM yard.crate_high_1;
         COMMIT",
        "UPDATE yard.crate_high_3 SET stamp = stamp + 1",
        "SELECT plimsoll.keep_manifest('yard.crate', true)",
    ]),
    event("a child table", Scanned, &[
        "CREATE TABLE yard.boat (CHECK (id < 0)) INHERITS (yard.ship)",
        "INSERT INTO yard.boat (client_id, database_id, id, stamp)
         SELECT client_id, database_id, -id, 4 FROM yard.ship WHERE id % 9 = 0",
        SHIPS,
    ]),
    event("a child table for a while", Rebuilt, &[
        "CREATE TABLE yard.boat () INHERITS (yard.ship)",
        "INSERT INTO yard.boat (client_id, database_id, id, stamp)
         SELECT client_id, database_id, -id, 4 FROM yard.ship WHERE id % 9 = 0",
        "UPDATE yard.ship SET stamp = 5 WHERE id < 0",
        "DROP TABLE yard.boat",
    ]),
    event("a type that changes with a rewrite", Rebuilt, &["ALTER TABLE yard.ship ALTER cargo TYPE numeric(20, 1)"]),
    event("a type that changes without a rewrite", Rebuilt, &["ALTER TABLE yard.ship ALTER name TYPE varchar(500)"]),
    event("values that change with their type", Rebuilt, &["ALTER TABLE yard.ship ALTER name TYPE text USING upper(name)"]),
    event("positions that change with their type", Rebuilt, &["ALTER TABLE yard.crate ALTER stamp TYPE int USING stamp * 2"]),
    event("a column with a default", Rebuilt, &["ALTER TABLE yard.ship ADD COLUMN crew int DEFAULT 7", SHIPS]),
    event("a column with values of its own", Rebuilt, &["ALTER TABLE yard.crate ADD COLUMN random float8 DEFAULT random()"]),
    event("an empty column", Rebuilt, &["ALTER TABLE yard.ship ADD COLUMN crew int", SHIPS]),
    event("a column with another name", Rebuilt, &["ALTER TABLE yard.ship RENAME COLUMN name TO title"]),
    event("columns that swap their names", Rebuilt, &[
        "BEGIN;
         ALTER TABLE yard.ship ADD COLUMN motto text DEFAULT 'none';
         COMMIT",
        "SELECT plimsoll.rebuild_manifest('{database}', 'yard.ship')",
        "BEGIN;
         ALTER TABLE yard.ship RENAME COLUMN name TO aside;
         ALTER TABLE yard.ship RENAME COLUMN motto TO name;
         ALTER TABLE yard.ship RENAME COLUMN aside TO motto;
         COMMIT",
    ]),
    event("the version column with another name", Rebuilt, &["ALTER TABLE yard.ship RENAME COLUMN stamp TO revision"]),
    event("the version column with another name for a while", Rebuilt, &[
        "ALTER TABLE yard.ship RENAME COLUMN stamp TO revision",
        "UPDATE yard.ship SET revision = revision + 1 WHERE id % 3 = 0",
        "ALTER TABLE yard.ship RENAME COLUMN revision TO stamp",
    ]),
    event("a label with another name", Rebuilt, &["ALTER TYPE yard.state RENAME VALUE 'new' TO 'fresh'"]),
    event("labels that swap their names", Rebuilt, &[
        "BEGIN;
         UPDATE yard.ship SET state = 'sunk' WHERE id % 2 = 0;
         ALTER TYPE yard.state RENAME VALUE 'new' TO 'aside';
         ALTER TYPE yard.state RENAME VALUE 'sunk' TO 'new';
         ALTER TYPE yard.state RENAME VALUE 'aside' TO 'sunk';
         COMMIT",
    ]),
    event(
        "a label within an array of a domain",
        Rebuilt,
        &[
            "CREATE DOMAIN yard.past AS yard.state[]",
            "ALTER TABLE yard.ship ADD COLUMN past yard.past",
            "UPDATE yard.ship SET past = ARRAY['new', 'sunk']::yard.state[]",
            "SELECT plimsoll.rebuild_manifest('{database}', 'yard.ship')",
            "ALTER TYPE yard.state RENAME VALUE 'sunk' TO 'wreck'",
        ],
    ),
    event(
        "a column that has no encoding",
        Refused,
        &[
            "ALTER TABLE yard.ship ADD COLUMN price money",
            SHIPS,
            "UPDATE yard.ship SET price = 1 WHERE id % 2 = 0",
        ],
    ),
    event(
        "a column that has no encoding for a while",
        Rebuilt,
        &["ALTER TABLE yard.ship ADD COLUMN price money", SHIPS, "ALTER TABLE yard.ship DROP COLUMN price"],
    ),
    event(
        "a column of a composite type",
        Rebuilt,
        &[
            "CREATE TYPE yard.size AS (width int, length int)",
            "ALTER TABLE yard.ship ADD COLUMN size yard.size",
            SHIPS,
            "UPDATE yard.ship SET size = ROW(1, id) WHERE id % 2 = 0",
        ],
    ),
    event("a dropped column", Rebuilt, &["ALTER TABLE yard.ship DROP COLUMN name"]),
    event("a column dropped and made anew", Rebuilt, &[
        "BEGIN; ALTER TABLE yard.ship DROP COLUMN name; ALTER TABLE yard.ship ADD COLUMN name text; COMMIT",
        "UPDATE yard.ship SET name = 'new name' WHERE id % 3 = 0",
    ]),
    event("a table written anew", Kept, &[
        "VACUUM FULL yard.ship",
        "CLUSTER yard.ship USING ship_pkey",
        "VACUUM FULL yard.crate_middle",
        "VACUUM FREEZE yard.ship",
        "ANALYZE yard.ship",
        "REINDEX TABLE yard.ship",
        "CREATE INDEX ON yard.ship (name)",
        SHIPS,
    ]),
    event("a catalogue written anew", Rebuilt, &[
        "VACUUM FULL pg_catalog.pg_attribute",
        "VACUUM FULL pg_catalog.pg_class",
        "VACUUM FULL pg_catalog.pg_trigger",
        "VACUUM FREEZE pg_catalog.pg_attribute",
        SHIPS,
    ]),
    event("a table with another name", Refused, &["ALTER TABLE yard.ship RENAME TO boat"]),
    event("a table with another name for a while", Rebuilt, &[
        "ALTER TABLE yard.ship RENAME TO boat",
        "UPDATE yard.boat SET stamp = stamp + 1 WHERE id % 3 = 0",
        "ALTER TABLE yard.boat RENAME TO ship",
    ]),
    event("a schema with another name for a while", Rebuilt, &[
        "ALTER SCHEMA yard RENAME TO dock",
        "UPDATE dock.ship SET stamp = stamp + 1 WHERE id % 3 = 0",
        "ALTER SCHEMA dock RENAME TO yard",
    ]),
    event("tables that swap their names", Rebuilt, &[
        "CREATE TABLE yard.other (LIKE yard.ship INCLUDING ALL)",
        "ALTER TABLE yard.other OWNER TO {owner}",
        "INSERT INTO yard.other (client_id, database_id, id, name, stamp)
         SELECT client_id, database_id, id, 'other', 3 FROM yard.ship WHERE id % 2 = 0",
        "BEGIN; ALTER TABLE yard.ship RENAME TO aside; ALTER TABLE yard.other RENAME TO ship; COMMIT",
        "UPDATE yard.aside SET stamp = stamp + 1 WHERE id % 3 = 0",
        "SELECT plimsoll.keep_manifest('yard.ship', true)",
    ]),
    event("another owner", Refused, &["ALTER TABLE yard.ship OWNER TO {application}"]),
    event("another owner for a while", Rebuilt, &[
        "ALTER TABLE yard.ship OWNER TO {application}",
        SHIPS,
        "ALTER TABLE yard.ship OWNER TO {owner}",
    ]),
    event("a suspended database", Kept, &[
        "SELECT plimsoll.suspend_database('{database}')",
        SHIPS,
        "SELECT plimsoll.resume_database('{database}')",
    ]),
    event("truncated partitions", Rebuilt, &[
        "TRUNCATE yard.crate_middle",
        "TRUNCATE yard.crate_high",
        "BEGIN; SAVEPOINT s; TRUNCATE yard.ship CASCADE; ROLLBACK TO SAVEPOINT s; UPDATE yard.ship SET stamp = 3 WHERE id % 7 = 0; COMMIT",
    ]),
    event("tables filled and truncated in one transaction", Kept, &[
        "BEGIN;
         UPDATE yard.ship SET stamp = stamp + 1 WHERE id % 3 = 0;
         TRUNCATE yard.ship CASCADE;
         INSERT INTO yard.ship (client_id, database_id, id, stamp) SELECT {values}, i, i FROM generate_series(1, 500) i;
         COMMIT",
    ]),
    event("rows that a policy hides", Kept, &[
        "CREATE POLICY half ON yard.ship USING (id % 2 = 0)",
        "ALTER TABLE yard.ship ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE yard.ship FORCE ROW LEVEL SECURITY",
    ]),
    event("a database forgotten and its rows left by others", Kept, &[
        "BEGIN; DELETE FROM yard.ship t WHERE {is} AND id % 2 = 0; SELECT plimsoll.delete_all('{database}', 'yard.ship'); ROLLBACK",
        "SELECT plimsoll.delete_all('{database}', 'yard.crate')",
    ]),
];
