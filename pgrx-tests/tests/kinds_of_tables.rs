//! Every kind of table either works from end to end, or is refused with the reason. The table in
//! docs/administration.md says the same.

mod shop;

use plimsoll_tests::{Registered, shared};
use postgres::Client;
use serde_json::{Value, json};
use shop::{Shop, refused};

/// Whether manifests are kept of it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kept {
    /// They are, and seen to be right after every step.
    Right,
    /// No trigger would see all changes, so everything is answered by scans.
    Scanned,
}

/// A kind of table: what it is called in a failure, SQL that makes `shop.item`, and more about it.
struct Kind {
    name: &'static str,
    /// `OWN` stands for the columns that each has, `ITS_KEY` for its primary key.
    sql: &'static str,
    /// Columns that are not sent.
    server: &'static str,
    /// What a row has besides `id`, `v` and `name`.
    more: fn(i64) -> Value,
    kept: Kept,
    /// The first major of Postgres that has it.
    since: u32,
}

const fn kind(name: &'static str, sql: &'static str) -> Kind {
    Kind { name, sql, server: "", more: nothing, kept: Kept::Right, since: 14 }
}

fn nothing(_: i64) -> Value {
    json!({})
}

impl Kind {
    const fn server(self, server: &'static str) -> Self {
        Kind { server, ..self }
    }

    const fn more(self, more: fn(i64) -> Value) -> Self {
        Kind { more, ..self }
    }

    const fn scanned(self) -> Self {
        Kind { kept: Kept::Scanned, ..self }
    }

    const fn since(self, since: u32) -> Self {
        Kind { since, ..self }
    }
}

const OWN: &str =
    "client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL, v bigint NOT NULL, name text";
const KEY: &str = "PRIMARY KEY (client_id, database_id, id)";

const WORKING: &[Kind] = &[
    kind("an ordinary one", "CREATE TABLE shop.item (OWN, ITS_KEY)"),
    kind(
        "partitioned by tenant, by hash",
        "CREATE TABLE shop.item (OWN, ITS_KEY) PARTITION BY HASH (client_id, database_id);
         CREATE TABLE shop.item_0 PARTITION OF shop.item FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE shop.item_1 PARTITION OF shop.item FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    ),
    kind(
        "partitioned by client, by list",
        "CREATE TABLE shop.item (OWN, ITS_KEY) PARTITION BY LIST (client_id);
         CREATE TABLE shop.acme PARTITION OF shop.item FOR VALUES IN ('acme', 'zeta');
         CREATE TABLE shop.rest PARTITION OF shop.item DEFAULT",
    ),
    kind(
        "partitioned by range of keys, in two levels, columns in another order",
        "CREATE TABLE shop.item (OWN, ITS_KEY) PARTITION BY RANGE (id);
         CREATE TABLE shop.low (gone int, name text, v bigint NOT NULL, id int NOT NULL, database_id uuid NOT NULL,
             client_id text NOT NULL);
         ALTER TABLE shop.low DROP COLUMN gone;
         ALTER TABLE shop.item ATTACH PARTITION shop.low FOR VALUES FROM (0) TO (3);
         CREATE TABLE shop.rest PARTITION OF shop.item DEFAULT PARTITION BY LIST (client_id);
         CREATE TABLE shop.deep PARTITION OF shop.rest DEFAULT",
    ),
    kind(
        "foreign key to a managed table",
        "CREATE TABLE shop.item (OWN, customer_id int, ITS_KEY,
             FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer)",
    )
    .more(|id| json!({"customer_id": id % 10 + 1})),
    kind(
        "foreign key to a managed table, deferred, from a single partition",
        "CREATE TABLE shop.item (OWN, customer_id int, ITS_KEY) PARTITION BY RANGE (id);
         CREATE TABLE shop.low PARTITION OF shop.item FOR VALUES FROM (0) TO (10);
         CREATE TABLE shop.high PARTITION OF shop.item FOR VALUES FROM (10) TO (10000);
         ALTER TABLE shop.low ADD FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer
             DEFERRABLE INITIALLY DEFERRED",
    )
    .more(|id| json!({"customer_id": id})),
    kind(
        "foreign key to a table that is not managed",
        "CREATE TABLE shop.colour (code text PRIMARY KEY); INSERT INTO shop.colour VALUES ('red'), ('blue');
         ALTER TABLE shop.colour ENABLE ROW LEVEL SECURITY; ALTER TABLE shop.colour FORCE ROW LEVEL SECURITY;
         CREATE TABLE shop.item (OWN, colour text REFERENCES shop.colour, ITS_KEY)",
    )
    .more(|id| json!({"colour": if id % 2 == 0 { "red" } else { "blue" }})),
    kind(
        "foreign key to itself, restricting",
        "CREATE TABLE shop.item (OWN, above int, ITS_KEY,
             FOREIGN KEY (client_id, database_id, above) REFERENCES shop.item ON DELETE RESTRICT)",
    )
    .more(|id| json!({"above": if id < 9 { Some(id + 1) } else { None }})),
    kind(
        "foreign key to itself, cascading",
        "CREATE TABLE shop.item (OWN, above int, ITS_KEY,
             FOREIGN KEY (client_id, database_id, above) REFERENCES shop.item ON DELETE CASCADE ON UPDATE CASCADE)",
    )
    .more(|id| json!({"above": if id < 9 { Some(id + 1) } else { None }})),
    kind(
        "foreign key to itself, set to null",
        "CREATE TABLE shop.item (OWN, above int, ITS_KEY,
             FOREIGN KEY (client_id, database_id, above) REFERENCES shop.item ON DELETE SET NULL (above))",
    )
    .more(|id| json!({"above": if id < 9 { Some(id + 1) } else { None }}))
    .since(15),
    kind(
        "check constraints, one of them not valid",
        "CREATE TABLE shop.item (OWN, ITS_KEY, CHECK (name <> 'bad'), CHECK (id > 0 AND v > 0));
         ALTER TABLE shop.item ADD CHECK (length(name) < 20) NOT VALID",
    ),
    kind(
        "generated columns",
        "CREATE TABLE shop.item (OWN, twice int GENERATED ALWAYS AS (id * 2) STORED,
             upper text GENERATED ALWAYS AS (upper(name)) STORED NOT NULL, ITS_KEY)",
    ),
    kind(
        "identity column always, filled by the server",
        "CREATE TABLE shop.item (OWN, serial int GENERATED ALWAYS AS IDENTITY, ITS_KEY)",
    )
    .server("serial"),
    kind(
        "identity column always, sent",
        "CREATE TABLE shop.item (OWN, serial int GENERATED ALWAYS AS IDENTITY, ITS_KEY)",
    )
    .more(|id| json!({"serial": id})),
    kind(
        "identity column always, the key",
        "CREATE TABLE shop.item (client_id text NOT NULL, database_id uuid NOT NULL,
             id int GENERATED ALWAYS AS IDENTITY, v bigint NOT NULL, name text, ITS_KEY)",
    ),
    kind(
        "identity column by default",
        "CREATE TABLE shop.item (OWN, serial int GENERATED BY DEFAULT AS IDENTITY, other serial, ITS_KEY)",
    )
    .server("other")
    .more(|id| json!({"serial": id})),
    kind(
        "defaults, of columns that are sent and of others",
        "CREATE TABLE shop.item (OWN, colour text DEFAULT 'red', filled text NOT NULL DEFAULT 'here',
             at timestamptz NOT NULL DEFAULT now(), ITS_KEY)",
    )
    .server("filled,at")
    .more(|id| json!({"colour": if id % 2 == 0 { Some("blue") } else { None }})),
    kind(
        "triggers of every time that leave rows alone",
        "CREATE TABLE shop.log (what text);
         CREATE TABLE shop.item (OWN, ITS_KEY);
         CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO shop.log VALUES (concat_ws(' ', TG_WHEN, TG_LEVEL, TG_OP));
             RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
         CREATE TRIGGER a BEFORE INSERT OR UPDATE OR DELETE ON shop.item EXECUTE FUNCTION shop.note();
         CREATE TRIGGER b BEFORE INSERT OR UPDATE OR DELETE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note();
         CREATE TRIGGER c AFTER INSERT OR UPDATE OR DELETE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note();
         CREATE TRIGGER d AFTER INSERT OR UPDATE OR DELETE ON shop.item EXECUTE FUNCTION shop.note();
         CREATE CONSTRAINT TRIGGER e AFTER INSERT OR UPDATE OR DELETE ON shop.item DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION shop.note()",
    ),
    kind(
        "trigger before each row that fills a column of the server",
        "CREATE TABLE shop.item (OWN, changed timestamptz, ITS_KEY);
         CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.changed := clock_timestamp(); RETURN NEW; END $$;
         CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.stamp()",
    )
    .server("changed"),
    kind(
        "trigger after each row that writes to another managed table",
        "CREATE TABLE shop.item (OWN, ITS_KEY);
         CREATE FUNCTION shop.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE shop.customer SET name = NEW.name
             WHERE (client_id, database_id, id) = (NEW.client_id, NEW.database_id, NEW.id); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT OR UPDATE ON shop.item FOR EACH ROW EXECUTE FUNCTION shop.note()",
    ),
    kind(
        "exclusion constraints",
        "CREATE TABLE shop.item (OWN, low int, ITS_KEY, EXCLUDE USING gist (int4range(low, low, '[]') WITH &&),
             EXCLUDE (client_id WITH =, database_id WITH =, name WITH =) WHERE (id > 1000) DEFERRABLE)",
    )
    .more(|id| json!({"low": id})),
    kind("unlogged", "CREATE UNLOGGED TABLE shop.item (OWN, ITS_KEY)").scanned(),
    kind(
        "with children that inherit from it",
        "CREATE TABLE shop.item (OWN, ITS_KEY); CREATE TABLE shop.child (extra int) INHERITS (shop.item)",
    )
    .scanned(),
    kind(
        "inheriting from another",
        "CREATE TABLE shop.parent (OWN); CREATE TABLE shop.item (ITS_KEY) INHERITS (shop.parent)",
    ),
    kind(
        "of a composite type",
        "CREATE TYPE shop.shape AS (client_id text, database_id uuid, id int, v bigint, name text);
         CREATE TABLE shop.item OF shop.shape (v NOT NULL, ITS_KEY)",
    ),
    kind(
        "domains over domains, arrays of domains, enums",
        "CREATE DOMAIN shop.short AS varchar(10); CREATE DOMAIN shop.code AS shop.short CHECK (VALUE ~ '^c') NOT NULL;
         CREATE TYPE shop.state AS ENUM ('new', 'old');
         CREATE TABLE shop.item (OWN, code shop.code, codes shop.code[], state shop.state DEFAULT 'new', ITS_KEY)",
    )
    .more(|id| json!({"code": format!("c{id}"), "codes": ["c1", "c2"], "state": "old"})),
    kind(
        "storage and compression of columns, options of the table",
        "CREATE TABLE shop.item (OWN, long text COMPRESSION pglz, outside text, ITS_KEY)
             WITH (fillfactor = 30, autovacuum_enabled = off, toast_tuple_target = 128);
         ALTER TABLE shop.item ALTER COLUMN outside SET STORAGE EXTERNAL",
    )
    .more(|id| json!({"long": "x".repeat(9_000 + id as usize), "outside": "y".repeat(9_000)})),
    kind(
        "columns that were dropped and added",
        "CREATE TABLE shop.item (gone int, OWN, other text, ITS_KEY); ALTER TABLE shop.item DROP COLUMN gone, DROP COLUMN other;
         ALTER TABLE shop.item ADD COLUMN late text DEFAULT 'late'",
    )
    .more(|id| json!({"late": id.to_string()})),
    kind(
        "indexes of every kind",
        "CREATE TABLE shop.item (OWN, tags int[], doc jsonb, ITS_KEY);
         CREATE INDEX ON shop.item USING gin (tags); CREATE INDEX ON shop.item USING brin (v);
         CREATE INDEX ON shop.item USING hash (name); CREATE INDEX ON shop.item (lower(name)) WHERE id > 3;
         CREATE UNIQUE INDEX ON shop.item (client_id, database_id, (doc ->> 'a'));
         CREATE UNIQUE INDEX ON shop.item (client_id, database_id, name) INCLUDE (v) WHERE id < 0",
    )
    .more(|id| json!({"tags": [id, 1], "doc": {"a": id}})),
    kind(
        "key with further columns included, and checked at the end",
        "CREATE TABLE shop.item (OWN, UNIQUE (client_id, database_id, id) INCLUDE (v) DEFERRABLE INITIALLY DEFERRED)",
    ),
    kind(
        "published with the whole row as its identity",
        "CREATE TABLE shop.item (OWN, ITS_KEY); ALTER TABLE shop.item REPLICA IDENTITY FULL",
    ),
    kind(
        "row-level security, forced",
        "CREATE TABLE shop.item (OWN, ITS_KEY); ALTER TABLE shop.item ENABLE ROW LEVEL SECURITY;
         ALTER TABLE shop.item FORCE ROW LEVEL SECURITY; CREATE POLICY no ON shop.item AS RESTRICTIVE USING (false)",
    ),
    kind(
        "unique values, of which NULL is one",
        "CREATE TABLE shop.item (OWN, code int, ITS_KEY, UNIQUE NULLS NOT DISTINCT (client_id, database_id, code))",
    )
    .more(|id| json!({"code": if id == 5 { None } else { Some(id) }}))
    .since(15),
    kind(
        "generated columns that are not stored",
        "CREATE TABLE shop.item (OWN, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL, ITS_KEY,
             upper text GENERATED ALWAYS AS (upper(name)) VIRTUAL NOT NULL, CHECK (twice > 0))",
    )
    .since(18),
    kind(
        "constraints against NULL with names, not valid, not inherited",
        "CREATE TABLE shop.item (OWN, other text, CONSTRAINT named NOT NULL name NO INHERIT, ITS_KEY);
         ALTER TABLE shop.item ADD CONSTRAINT later NOT NULL other NOT VALID",
    )
    .more(|id| json!({"other": id.to_string()}))
    .since(18),
    kind(
        "constraints that are not enforced",
        "CREATE TABLE shop.item (OWN, customer_id int, ITS_KEY, CHECK (id < 0) NOT ENFORCED,
             FOREIGN KEY (client_id, database_id, customer_id) REFERENCES shop.customer NOT ENFORCED)",
    )
    .more(|id| json!({"customer_id": -id}))
    .since(18),
    kind(
        "exclusion of periods that overlap, as a unique constraint",
        "CREATE TABLE shop.item (OWN, self int4range GENERATED ALWAYS AS (int4range(id, id, '[]')) STORED,
             during int4range GENERATED ALWAYS AS (int4range(id, id + 5)) STORED, ITS_KEY,
             UNIQUE (self, during WITHOUT OVERLAPS))",
    )
    .since(18),
];

/// Kinds that are refused from Postgres 18 on, as [`REFUSED`]; no earlier major can make them.
const REFUSED_SINCE_18: &[(&str, &str, &str)] = &[
    (
        "a version that may be missing from rows that were there before",
        "CREATE TABLE shop.item (client_id text, database_id uuid, id int, v bigint, ITS_KEY);
         ALTER TABLE shop.item ADD CONSTRAINT later NOT NULL v NOT VALID",
        "ALTER TABLE shop.item ALTER COLUMN v SET NOT NULL",
    ),
    (
        "a version that is generated, and not stored",
        "CREATE TABLE shop.item (client_id text, database_id uuid, id int, ITS_KEY,
             v bigint GENERATED ALWAYS AS (id) VIRTUAL NOT NULL)",
        "version column \"v\" of shop.item is generated",
    ),
    (
        "a key that may be missing from rows that were there before",
        "CREATE TABLE shop.item (client_id text NOT NULL, database_id uuid NOT NULL, id int, v bigint NOT NULL,
             UNIQUE (client_id, database_id, id));
         ALTER TABLE shop.item ADD CONSTRAINT later NOT NULL id NOT VALID",
        "no usable key",
    ),
    (
        "a key whose periods may not overlap",
        "RESET ROLE; CREATE EXTENSION btree_gist; GRANT ALL ON SCHEMA shop TO PUBLIC; CREATE ROLE timekeeper;
         SET ROLE timekeeper;
         CREATE TABLE shop.item (OWN, during int4range, PRIMARY KEY (client_id, database_id, id, during WITHOUT OVERLAPS))",
        "CREATE UNIQUE INDEX ON shop.item (client_id, database_id, id, during)",
    ),
];

/// Kinds that are refused: SQL, and what the refusal says.
const REFUSED: &[(&str, &str, &str)] = &[
    ("a view", "CREATE TABLE shop.base (OWN, ITS_KEY); CREATE VIEW shop.item AS TABLE shop.base", "a view"),
    (
        "a materialized view",
        "CREATE TABLE shop.base (OWN, ITS_KEY); CREATE MATERIALIZED VIEW shop.item AS TABLE shop.base",
        "a materialized view",
    ),
    (
        "a partition",
        "CREATE TABLE shop.base (OWN, ITS_KEY) PARTITION BY LIST (client_id);
         CREATE TABLE shop.item PARTITION OF shop.base DEFAULT",
        "Manage the table it is a partition of",
    ),
    (
        "a rule",
        "CREATE TABLE shop.item (OWN, ITS_KEY); CREATE RULE quiet AS ON DELETE TO shop.item DO INSTEAD NOTHING",
        "rule \"quiet\"",
    ),
    (
        "a rule beside",
        "CREATE TABLE shop.item (OWN, ITS_KEY); CREATE TABLE shop.log (id int);
         CREATE RULE copied AS ON INSERT TO shop.item DO ALSO INSERT INTO shop.log VALUES (NEW.id)",
        "rule \"copied\"",
    ),
    (
        "partitions by the version, which every key would hold",
        "CREATE TABLE shop.item (OWN, UNIQUE (client_id, database_id, id, v)) PARTITION BY RANGE (v)",
        "no usable key",
    ),
    ("no key", "CREATE TABLE shop.item (OWN)", "no usable key"),
    ("a version that may be missing", "CREATE TABLE shop.item (client_id text, database_id uuid, id int, v bigint, ITS_KEY)",
        "version column \"v\" of shop.item takes NULL"),
    ("a version of another type",
        "CREATE TABLE shop.item (client_id text, database_id uuid, id int, v text NOT NULL, ITS_KEY)", "bigint"),
    ("a tenant that may be missing",
        "CREATE TABLE shop.item (client_id text, database_id uuid, id int PRIMARY KEY, v bigint NOT NULL)",
        "tenant column \"client_id\" of shop.item takes NULL"),
    ("a tenant column that holds no database",
        "CREATE TABLE shop.item (client_id text, database_id bigint, id int, v bigint NOT NULL, ITS_KEY)",
        "tenant column \"database_id\" of shop.item has type"),
    ("a tenant column that is generated",
        "CREATE TABLE shop.item (client_id text GENERATED ALWAYS AS ('acme') STORED, database_id uuid, id int,
             v bigint NOT NULL, ITS_KEY)",
        "tenant column \"client_id\" of shop.item is generated"),
    ("a version that is generated",
        "CREATE TABLE shop.item (client_id text, database_id uuid, id int, v bigint GENERATED ALWAYS AS (id) STORED NOT NULL, ITS_KEY)",
        "version column \"v\" of shop.item is generated"),
    ("a key that is generated",
        "CREATE TABLE shop.item (client_id text, database_id uuid, n int, id int GENERATED ALWAYS AS (n) STORED,
             v bigint NOT NULL, ITS_KEY)",
        "key column \"id\" of shop.item is generated"),
    ("a type without an encoding", "CREATE TABLE shop.item (OWN, price money, ITS_KEY)", "server_columns"),
];

fn owner(shop: &mut Shop) -> String {
    shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'")
}

fn filled(sql: &str) -> String {
    sql.replace("OWN", OWN).replace("ITS_KEY", KEY)
}

/// A replica of the kind, and what has to be in it.
struct Trial<'k> {
    kind: &'k Kind,
    shop: Shop,
    till: Registered,
    agent: Client,
}

impl<'k> Trial<'k> {
    fn of(kind: &'k Kind) -> Self {
        let mut shop = Shop::open();
        let owner = owner(&mut shop);
        let till = shop.register("acme", 50);
        let other = shop.register("zeta", 0);
        let sql = format!(
            "SET ROLE {owner}; {}; RESET ROLE;
             SELECT plimsoll.manage_table('shop.item', version_column => 'v', server_columns => '{{{}}}',
                 key_columns => '{{id}}')",
            filled(kind.sql),
            kind.server
        );
        shop.superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{}: {error:?}", kind.name));
        shop.superuser
            .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.item')", &[&till.id])
            .map(drop)
            .unwrap_or_else(|error| assert_eq!(kind.kept, Kept::Scanned, "{}: {error:?}", kind.name));
        shop.set_option(&till, "guard_fraction", Some("1"));
        let agent = shop.agent(&till);
        let mut trial = Trial { kind, shop, till, agent };
        // Rows of a neighbour, with the same keys.
        let mut neighbour = trial.shop.agent(&other);
        let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.customer', $2::jsonb)";
        let customers = (1..=50).map(|id| json!({"id": id, "version": id})).collect();
        neighbour.query(sql, &[&other.id, &Value::Array(customers)]).expect("its customers");
        let rows = trial.rows(1, 3, 0, "theirs");
        if !kind.name.starts_with("exclusion") {
            let sql = "SELECT inserted, rejected FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
            // Its first rows refer to none that were not sent.
            let row = neighbour.query_one(sql, &[&other.id, &rows]).expect("its rows");
            assert!(
                row.get::<_, i64>(0) > 0 || kind.name.contains("itself"),
                "{}: {:?}",
                kind.name,
                row.get::<_, Value>(1)
            );
        }
        trial
    }

    fn rows(&mut self, from: i64, to: i64, raised: i64, name: &str) -> Value {
        let row = |id: i64| {
            let mut row = json!({"id": id, "v": id + raised, "name": format!("{name} {id}")});
            if let (Some(row), Value::Object(more)) = (row.as_object_mut(), (self.kind.more)(id)) {
                row.extend(more);
            }
            row
        };
        Value::Array((from..=to).map(row).collect())
    }

    /// Uploads rows; how many were inserted, updated and unchanged. None is rejected.
    fn upload(&mut self, rows: &Value) -> (i64, i64, i64) {
        let sql =
            "SELECT inserted, updated, unchanged, rejected FROM plimsoll.upload($1, 'shop.item', $2::jsonb)";
        let row = self
            .agent
            .query_one(sql, &[&self.till.id, rows])
            .unwrap_or_else(|e| panic!("{}: {e:?}", self.kind.name));
        assert_eq!(row.get::<_, Value>(3), json!([]), "{}", self.kind.name);
        (row.get(0), row.get(1), row.get(2))
    }

    /// Compares what is answered of the replica with what its rows are, digest by digest made anew.
    fn level(&mut self, step: &str) {
        let what = format!("{}, {step}", self.kind.name);
        let schema = "SELECT column_number, column_name FROM plimsoll.table_schema($1, 'shop.item')";
        let columns = self.shop.superuser.query(schema, &[&self.till.id]).expect("a schema");
        let last = columns.iter().map(|row| row.get::<_, i32>(0)).max().unwrap_or(0);
        let arguments: Vec<String> = (1..=last)
            .map(|number| match columns.iter().find(|row| row.get::<_, i32>(0) == number) {
                Some(row) => format!("t.{}", row.get::<_, &str>(1)),
                None => "NULL::text".to_owned(),
            })
            .collect();
        let actual = format!(
            "SELECT count(*), plimsoll.fingerprint((SELECT fingerprint_key FROM plimsoll.database_record
                     WHERE database_id = $1), {})
             FROM shop.item t WHERE client_id = 'acme' AND database_id = $1",
            arguments.join(", ")
        );
        let actual = self.shop.superuser.query_one(&actual, &[&self.till.id]).expect(&what);
        let actual: (i64, Vec<u8>) = (actual.get(0), actual.get(1));
        let told = "SELECT row_count, fingerprint FROM plimsoll.range_fingerprint($1, 'shop.item', '(,)')";
        let told = self.agent.query_one(told, &[&self.till.id]).expect(&what);
        assert_eq!((told.get::<_, i64>(0), told.get::<_, Vec<u8>>(1)), actual, "{what}");
        let listed = "SELECT count(*) FROM plimsoll.manifest($1, 'shop.item', '(,)')";
        assert_eq!(
            self.agent.query_one(listed, &[&self.till.id]).expect(&what).get::<_, i64>(0),
            actual.0,
            "{what}"
        );
        let check =
            self.agent.query("SELECT * FROM plimsoll.check_manifest($1, 'shop.item')", &[&self.till.id]);
        match self.kind.kept {
            Kept::Right => assert_eq!(check.expect(&what).len(), 0, "{what}"),
            Kept::Scanned => drop(refused(check, "55000")),
        }
    }

    fn stored(&mut self) -> String {
        self.shop.value("SELECT string_agg(name, ', ' ORDER BY id) FROM shop.item WHERE client_id = 'acme'")
    }
}

#[test]
fn each_kind_works_from_end_to_end() {
    for kind in WORKING.iter().filter(|kind| kind.since <= shared().major()) {
        let what = kind.name;
        let mut trial = Trial::of(kind);
        let id = trial.till.id;
        let rows = trial.rows(1, 9, 0, "a");
        assert_eq!(trial.upload(&rows), (9, 0, 0), "{what}");
        trial.level("uploaded");
        assert_eq!(trial.upload(&rows), (0, 0, 9), "{what}");
        let raised = trial.rows(1, 4, 200, "b");
        assert_eq!(trial.upload(&raised), (0, 4, 0), "{what}");
        trial.level("changed");
        let lowered = trial.rows(4, 5, -3, "c");
        assert_eq!(trial.upload(&lowered), (0, 2, 0), "{what}");
        trial.level("lowered");
        assert_eq!(trial.stored(), "b 1, b 2, b 3, c 4, c 5, a 6, a 7, a 8, a 9", "{what}");
        // Rows that nothing refers to, and that take nothing along.
        let delete = "SELECT deleted, held FROM plimsoll.delete_rows($1, 'shop.item', $2::jsonb)";
        let named = json!([{"key": {"id": 1}}, {"key": {"id": 2}}]);
        let row = trial.agent.query_one(delete, &[&id, &named]).expect(what);
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (2, 0), "{what}");
        trial.level("deleted");
        assert_eq!(trial.stored(), "b 3, c 4, c 5, a 6, a 7, a 8, a 9", "{what}");
        // An application's statements.
        let owner = owner(&mut trial.shop);
        trial
            .shop
            .superuser
            .batch_execute(&format!(
                "GRANT {owner} TO CURRENT_USER;
                 UPDATE shop.item SET name = 'by hand ' || id, v = v + 500 WHERE id = 6;
                 DELETE FROM shop.item WHERE id = 3"
            ))
            .expect(what);
        trial.level("changed by an application");
        let rows = trial.rows(1, 9, 900, "d");
        assert_eq!(trial.upload(&rows), (3, 6, 0), "{what}");
        trial.level("uploaded again");
        let range = "SELECT deleted FROM plimsoll.delete_range($1, 'shop.item', '[901,903)')";
        assert_eq!(trial.agent.query_one(range, &[&id]).expect(what).get::<_, i64>(0), 2, "{what}");
        let all =
            "SELECT deleted, held, jsonb_array_length(blocked) FROM plimsoll.delete_all($1, 'shop.item')";
        let row = trial.agent.query_one(all, &[&id]).expect(what);
        let gone = (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i32>(2));
        assert_eq!(gone, (7, 0, 0), "{what}");
        trial.level("emptied");
        let forget = trial.shop.superuser.query_one("SELECT plimsoll.forget_database($1)", &[&id]);
        assert_eq!(forget.expect(what).get::<_, i64>(0), 100, "{what}");
    }
}

#[test]
fn each_kind_that_is_refused_is_told_why() {
    let newest = if shared().major() >= 18 { REFUSED_SINCE_18 } else { &[] };
    for (what, sql, told) in REFUSED.iter().chain(newest) {
        let mut shop = Shop::open();
        let owner = owner(&mut shop);
        shop.superuser
            .batch_execute(&format!("SET ROLE {owner}; {}; RESET ROLE", filled(sql)))
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        let error = shop
            .superuser
            .batch_execute("SELECT plimsoll.manage_table('shop.item', version_column => 'v')")
            .expect_err(what);
        let error = error.as_db_error().expect("the server's error");
        let text =
            format!("{}\n{}\n{}", error.message(), error.detail().unwrap_or(""), error.hint().unwrap_or(""));
        assert!(text.contains(told), "{what}: {text}");
        assert!(
            ["0A000", "55000", "42P16", "42703"].contains(&error.code().code()),
            "{what}: {} {text}",
            error.code().code()
        );
    }
}
