//! The way of a whole database: the client's own commands against two real databases, and the rows of both compared as
//! text by Postgres itself.

use plimsoll_tests::{Agent, Finished, Site, shared, table_of};
use postgres::Client;

use crate::local::Local;

/// A local database, the shared one, and the agent between them.
pub struct Way {
    /// The local database.
    pub local: Local,
    /// The shared one.
    pub site: Site<'static>,
    /// The agent.
    pub agent: Agent,
}

impl Way {
    /// A local database with what `sql` makes in it, and an agent configured for these tables.
    pub fn new(sql: &str, tables: &[&str], settings: &str) -> Self {
        let (local, site) = (Local::new(sql), Site::new(shared()));
        let agent = site.agent("acme", "", &[], "");
        let way = Way { local, site, agent };
        let list: String = tables.iter().map(|name| format!("\n[[table]]\nname = '{name}'\n")).collect();
        way.configure(&way.local.url(), &format!("{settings}\n{list}"));
        way
    }

    /// Writes the configuration with this source, and everything behind it as given.
    pub fn configure(&self, source: &str, rest: &str) {
        let server = shared().client_url(&self.agent.login, &self.site.database);
        let text = format!(
            "[server]\nurl = \"{server}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n\
             [source]\npostgres = \"{source}\"\n\n{rest}",
            self.agent.registered.id
        );
        self.agent.home.write("plimsoll.toml", &text);
    }

    /// Makes the managed tables as `plimsoll schema` prints them.
    pub fn create_tables(&self) {
        self.site.create_tables(&self.agent);
    }

    /// The rows of a local table, and of the managed one, as text of these expressions.
    pub fn rows(&mut self, local: &str, remote: &str, columns: &str) -> (Vec<String>, Vec<String>) {
        let texts = |client: &mut Client, relation: &str, condition: &str| -> Vec<String> {
            let query = format!("SELECT ROW({columns})::text FROM {relation} WHERE {condition} ORDER BY 1");
            let rows = client.query(&query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
            rows.iter().map(|row| row.get(0)).collect()
        };
        let mine = format!("database_id = '{}'", self.agent.registered.id);
        (texts(&mut self.local.writer, local, "true"), texts(&mut self.site.superuser(), remote, &mine))
    }

    /// Fails the test where both sides differ.
    #[track_caller]
    pub fn assert_equal(&mut self, local: &str, remote: &str, columns: &str) {
        let (here, there) = self.rows(local, remote, columns);
        assert_eq!(here.len(), there.len(), "{local}: rows");
        let differing = here.iter().zip(&there).find(|(here, there)| here != there);
        assert_eq!(differing, None, "{local}");
    }

    /// `plimsoll verify`, which must say level.
    #[track_caller]
    pub fn verify(&self) -> Finished {
        self.agent.home.run(["verify", "--quiet"]).expect_code(0)
    }
}

/// Every type that a managed column can have, under odd names, in a schema of its own.
const ODD: &str = "
    CREATE EXTENSION citext; CREATE SCHEMA \"Odd.Shop\";
    CREATE DOMAIN price AS numeric(12,2) CHECK (VALUE >= 0); CREATE DOMAIN net AS price;
    CREATE TYPE mood AS ENUM ('sad', 'it''s ok');
    CREATE TABLE \"Odd.Shop\".\"Order \"\"Lines\"\"\" (
        \"Branch No\" text COLLATE \"C\" NOT NULL, number int NOT NULL, version int8 NOT NULL,
        identity int GENERATED ALWAYS AS IDENTITY, doubled int GENERATED ALWAYS AS (number * 2) STORED,
        amount net, mood mood, tag citext, small int2, large xid8, exact numeric, single float4, double float8,
        name varchar(20), code char(5), pad bpchar, id uuid, data bytea, day date, at time(3), atz timetz,
        stamp timestamp(3), stampz timestamptz, span interval, doc json, docb jsonb, ok bool, host inet, net cidr,
        mac macaddr, flags bit(3), flagsv varbit, lsn pg_lsn, words tsvector, numbers int[], grid numeric[][],
        moods mood[], hosts inet[], tables oid, cash money, boxes box[], amounts money[], few int2vector, objects regclass[],
        \"select\" text,
        PRIMARY KEY (\"Branch No\", number));
    CREATE INDEX ON \"Odd.Shop\".\"Order \"\"Lines\"\"\" (version, \"Branch No\", number);
    GRANT USAGE ON SCHEMA \"Odd.Shop\" TO PUBLIC;
    INSERT INTO \"Odd.Shop\".\"Order \"\"Lines\"\"\" (\"Branch No\", number, version, amount, mood, tag, small, large, exact,
        single, double, name, code, pad, id, data, day, at, atz, stamp, stampz, span, doc, docb, ok, host, net, mac, flags,
        flagsv, lsn, words, numbers, grid, moods, hosts, tables, cash, boxes, amounts, few, objects, \"select\")
    SELECT 'b' || i % 7, i, i / 3, i * 1.5, (CASE i % 3 WHEN 0 THEN 'sad' WHEN 1 THEN 'it''s ok' END)::mood, 'Tag' || i, i, i::text::xid8,
        i * 1e-7, i / 3.0, i / 7.0, 'näme ' || i, 'c' || i % 9, 'x  ', md5(i::text)::uuid, sha256(i::text::bytea),
        DATE '2000-01-01' - i * 1000, TIME '00:00' + i * INTERVAL '1.001 s', '10:00:00+05:30', '1999-12-31 23:59:59.999',
        TIMESTAMPTZ '1850-01-01 00:00:00+00' + i * INTERVAL '1.000001 s', i * INTERVAL '1 month -1 day 0.5 s',
        '{\"b\":1, \"a\": 2}', '{\"b\":1.50, \"a\": [2, null]}', i % 2 = 0, ('10.0.0.' || i % 250)::inet, '10.0.0.0/8',
        '08:00:2b:01:02:03', B'101', B'10', '16/B374D848', 'fat:2 cat:3', ARRAY[i, NULL, -i], ARRAY[[1.50, 2], [NULL, 4]],
        ARRAY['sad']::mood[], ARRAY['10.0.0.1', '::1/64', NULL]::inet[], 4294967295, i * 1.25,
        ARRAY[box '((1,1),(0,0))', NULL, box(point(i, 0.1), point(-1, -2))], ARRAY[i * 1.25, NULL]::money[], '3 -4'::int2vector,
        ARRAY['pg_class']::regclass[], 'reserved'
    FROM generate_series(1, 500) i";

const ODD_COLUMNS: &str = "\"Branch No\", number, version, identity, doubled, amount, mood::text, tag::text, small, large, exact,
    single, double, name, code, rtrim(pad::text), id, data, day, at, atz, stamp, stampz, span, doc, docb, ok, host, net, mac,
    flags, flagsv, lsn, words, numbers, grid, moods::text, hosts, tables::int8, cash::numeric, boxes::text,
    amounts::numeric[], few::int2[], objects::text[], \"select\"";

#[test]
fn a_table_of_every_type_under_odd_names_is_level_and_stays_it() {
    let mut way = Way::new(ODD, &[], "");
    // The configuration is the client's own work.
    let url = shared().client_url(&way.agent.login, &way.site.database);
    let id = way.agent.registered.id.to_string();
    way.agent.home.write("token", &way.agent.registered.token);
    let source = way.local.url();
    let arguments = [
        "init",
        "--force",
        "--source",
        &source,
        "--server",
        &url,
        "--database-id",
        &id,
        "--token-file",
        "token",
    ];
    let told = way.agent.home.run(arguments).expect_code(0).stdout;
    assert!(told.contains("1 tables are in"), "{told}");
    way.site.superuser().batch_execute("CREATE EXTENSION citext").expect("a type");
    way.create_tables();
    let report = way.agent.sync().expect_code(0).json();
    // The managed table has the local one's schema and name.
    let local = "\"Odd.Shop\".\"Order \"\"Lines\"\"\"";
    assert_eq!(report["tables"][0]["relation"], local, "{report:#}");
    assert_eq!(report["tables"][0]["inserted"], 500, "{report:#}");
    way.assert_equal(local, local, ODD_COLUMNS);
    way.verify();
    let changes = format!(
        "UPDATE {local} SET version = version + 1000, hosts = NULL, tag = 'other', span = span * 2 WHERE number % 50 = 0;
         DELETE FROM {local} WHERE number % 77 = 0;
         INSERT INTO {local} (\"Branch No\", number, version) VALUES ('new', -1, 5), ('', 0, -7)"
    );
    way.local.writer.batch_execute(&changes).expect("changes");
    let runs = way.agent.level_within(3);
    way.assert_equal(local, local, ODD_COLUMNS);
    println!("level within {runs} runs");
    way.agent.home.run(["status"]).expect_code(0);
}

/// The kinds of tables that a catalogue tells apart.
const KINDS: &str = "
    CREATE TABLE parts (id int8, kept int, version int8 NOT NULL, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (100);
    CREATE TABLE parts_high (version int8 NOT NULL, id int8 NOT NULL, kept int);
    ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM (100) TO (MAXVALUE);
    INSERT INTO parts SELECT i, i, i FROM generate_series(1, 200) i;
    CREATE TABLE parent (id int PRIMARY KEY, version int NOT NULL);
    CREATE TABLE child (more text) INHERITS (parent);
    INSERT INTO parent VALUES (1, 1), (2, 2); INSERT INTO child VALUES (1, 3, 'x');
    CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, version timestamptz NOT NULL);
    CREATE UNIQUE INDEX ON by_index (lower(b || a)); CREATE UNIQUE INDEX ON by_index (b) WHERE a > 1;
    CREATE UNIQUE INDEX ON by_index (a, b) INCLUDE (version);
    INSERT INTO by_index VALUES (1, 'x', 'infinity'), (1, 'y', '-infinity'), (2, 'x', '1000-01-01 00:00 BC');
    CREATE VIEW looked AS SELECT * FROM parent;
    CREATE MATERIALIZED VIEW stored AS SELECT id, version FROM ONLY parent; CREATE UNIQUE INDEX ON stored (id)";

#[test]
fn partitions_children_indexes_and_views_are_what_they_are() {
    let mut way = Way::new(KINDS, &["parts", "parent", "by_index"], "");
    way.create_tables();
    let report = way.agent.sync().expect_code(0).json();
    for (table, rows) in [("parts", 200), ("parent", 2), ("by_index", 3)] {
        assert_eq!(table_of(&report, table)["inserted"], rows, "{report}");
    }
    way.assert_equal("parts", "public.parts", "id, kept, version");
    way.assert_equal("ONLY parent", "public.parent", "id, version");
    way.assert_equal("by_index", "public.by_index", "a, b, version");
    way.verify();
    // What a configuration cannot name is said, and nothing else stops.
    let rest = "[[table]]\nname = 'looked'\nremote = 'public.parent'\n[[table]]\nname = 'parts'\n[[table]]\nname = 'nowhere'\nremote = 'public.by_index'\n";
    way.configure(&way.local.url(), rest);
    let run = way.agent.sync().expect_code(1);
    let report = run.json();
    let of = |table: &str| table_of(&report, table).to_string();
    assert!(of("looked").contains("is a view"), "{report}");
    assert!(of("nowhere").contains("has no table"), "{report}");
    assert_eq!(table_of(&report, "parts")["concluded"], true, "{report}");
}
