//! What the torture happens in: two managed tables with every nuisance that rows and triggers have, and the
//! replicas of several databases in them.

use plimsoll_tests::TestCluster;
use postgres::Client;
use uuid::Uuid;

/// The managed tables: an ordinary one, and a partitioned one that refers to it.
pub const TABLES: [&str; 2] = ["yard.ship", "yard.crate"];

/// Ships that statements meet each other at; bulk statements use higher numbers.
pub const COMMON_SHIPS: i32 = 200;

/// Where partitions begin: crates below, between and from these numbers on.
pub const PARTITION_BOUNDS: [i32; 2] = [10, 20];

/// Tables with columns of many types and gaps between attribute numbers; partitions whose columns stand in
/// another order, and partitions of partitions.
const SCHEMA: &str = "
    CREATE TYPE yard.state AS ENUM ('new', 'afloat', 'sunk');
    CREATE TABLE yard.ship (gone int, client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
        name text, cargo numeric, state yard.state, stamp bigint NOT NULL, changed timestamptz,
        odd boolean GENERATED ALWAYS AS (id % 2 = 1) STORED, PRIMARY KEY (client_id, database_id, id));
    ALTER TABLE yard.ship DROP COLUMN gone;
    CREATE TABLE yard.crate (client_id text NOT NULL, database_id uuid NOT NULL, ship_id int NOT NULL,
        no int NOT NULL, label text, weight float8, stamp bigint NOT NULL, changed timestamptz,
        PRIMARY KEY (client_id, database_id, ship_id, no),
        FOREIGN KEY (client_id, database_id, ship_id) REFERENCES yard.ship ON DELETE CASCADE ON UPDATE CASCADE)
        PARTITION BY RANGE (no);
    CREATE TABLE yard.crate_low PARTITION OF yard.crate FOR VALUES FROM (MINVALUE) TO (10);
    CREATE TABLE yard.crate_middle (changed timestamptz, stamp bigint NOT NULL, gone text, label text,
        weight float8, no int NOT NULL, ship_id int NOT NULL, database_id uuid NOT NULL, client_id text NOT NULL);
    ALTER TABLE yard.crate_middle DROP COLUMN gone;
    ALTER TABLE yard.crate ATTACH PARTITION yard.crate_middle FOR VALUES FROM (10) TO (20);
    CREATE TABLE yard.crate_high PARTITION OF yard.crate FOR VALUES FROM (20) TO (MAXVALUE)
        PARTITION BY HASH (ship_id);
    CREATE TABLE yard.crate_high_0 PARTITION OF yard.crate_high FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE yard.crate_high_1 PARTITION OF yard.crate_high FOR VALUES WITH (MODULUS 2, REMAINDER 1);";

/// Triggers of the application: statements within statements, in subtransactions that fail, at commit; rows
/// that are changed or skipped on their way in. What runs at commit runs as whoever commits, so with its owner's
/// rights.
const TRIGGERS: &str = "
    CREATE FUNCTION yard.nest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        UPDATE yard.ship s SET stamp = 0, name = 'nested' WHERE s.client_id = NEW.client_id
            AND s.database_id = NEW.database_id AND s.id = (NEW.id + 1) % 200;
        BEGIN
            DELETE FROM yard.crate c WHERE c.client_id = NEW.client_id AND c.database_id = NEW.database_id
                AND c.ship_id = (NEW.id + 2) % 200;
            INSERT INTO yard.ship VALUES (NEW.client_id, NEW.database_id, -NEW.id - 1, 'undone', 1, 'sunk', 5);
            RAISE 'undone';
        EXCEPTION WHEN raise_exception OR unique_violation OR foreign_key_violation THEN NULL;
        END;
        RETURN NEW;
    END $$;
    CREATE TRIGGER nest AFTER INSERT OR UPDATE ON yard.ship FOR EACH ROW
        WHEN (pg_trigger_depth() = 0 AND NEW.name = 'nest') EXECUTE FUNCTION yard.nest();
    CREATE FUNCTION yard.late() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
        INSERT INTO yard.crate SELECT NEW.client_id, NEW.database_id, NEW.id, 15, 'late', 0.5, NEW.stamp
            FROM yard.ship s WHERE s.client_id = NEW.client_id AND s.database_id = NEW.database_id
                AND s.id = NEW.id
            ON CONFLICT (client_id, database_id, ship_id, no) DO UPDATE SET label = 'later';
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON yard.ship DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.name = 'late') EXECUTE FUNCTION yard.late();
    CREATE FUNCTION yard.mangle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'DELETE' THEN
            IF OLD.label = 'stays' THEN RETURN NULL; END IF;
            RETURN OLD;
        END IF;
        IF NEW.label = 'skip' THEN RETURN NULL; END IF;
        IF NEW.label = 'shout' THEN NEW.label := 'SHOUT'; NEW.stamp := NEW.no; END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER mangle BEFORE INSERT OR UPDATE OR DELETE ON yard.crate FOR EACH ROW
        EXECUTE FUNCTION yard.mangle();
    CREATE FUNCTION yard.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM count(*) FROM gone WHERE label IS NULL;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER DELETE ON yard.crate REFERENCING OLD TABLE AS gone
        EXECUTE FUNCTION yard.note();";

/// A value of the tenant columns.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub client_id: String,
    pub database_id: Uuid,
}

impl Tenant {
    /// As the first two values of a row.
    pub fn values(&self) -> String {
        format!("'{}', '{}'::uuid", self.client_id, self.database_id)
    }

    /// As a condition on a table's rows.
    pub fn is(&self, alias: &str) -> String {
        format!("{alias}.client_id = '{}' AND {alias}.database_id = '{}'", self.client_id, self.database_id)
    }
}

/// A database with the managed tables in it.
pub struct World<'c> {
    pub cluster: &'c TestCluster,
    pub database: String,
    /// Owns the tables and cannot log in.
    pub owner: String,
    /// May change rows and nothing else: it knows nothing of the extension.
    pub application: String,
    /// May use the registered databases as agents do.
    pub agent: String,
    /// Registered databases.
    pub tenants: Vec<Tenant>,
    /// Tenants that are none: a registered id with another client's name, and an id that nobody registered.
    pub strays: Vec<Tenant>,
}

impl<'c> World<'c> {
    /// Makes the tables; with triggers of the application's own where wanted.
    pub fn open(cluster: &'c TestCluster, with_triggers: bool) -> Self {
        let (database, owner) = (cluster.create_database(), cluster.create_owner());
        let (application, agent) = (cluster.create_owner(), cluster.create_agent().role);
        let mut superuser = cluster.superuser(&database);
        let triggers = if with_triggers { TRIGGERS } else { "" };
        superuser
            .batch_execute(&format!(
                "CREATE SCHEMA yard AUTHORIZATION {owner}; SET ROLE {owner}; {SCHEMA} {triggers}
                 GRANT USAGE ON SCHEMA yard TO {application};
                 GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA yard TO {application};
                 RESET ROLE"
            ))
            .expect("tables");
        for table in TABLES {
            superuser
                .execute(
                    "SELECT plimsoll.manage_table($1::text::regclass, version_column => 'stamp',
                        modified_column => 'changed')",
                    &[&table],
                )
                .expect("a managed table");
        }
        let mut tenants = Vec::new();
        for client_id in ["acme", "acme", "zeta"] {
            let database_id = cluster.register(&database, client_id, &cluster.unique("till")).id;
            superuser
                .batch_execute(&format!(
                    "SELECT plimsoll.grant_database('{database_id}', '{agent}');
                     SELECT plimsoll.set_option('{database_id}', 'guard_fraction', '1')"
                ))
                .expect("a database");
            tenants.push(Tenant { client_id: client_id.to_owned(), database_id });
        }
        let strays = vec![
            Tenant { client_id: "zeta".to_owned(), database_id: tenants[0].database_id },
            Tenant { client_id: "acme".to_owned(), database_id: Uuid::new_v4() },
        ];
        World { cluster, database, owner, application, agent, tenants, strays }
    }

    /// Lets uploads of ships go past statements, which a generated column keeps them from.
    pub fn drop_generated_column(&self) {
        let mut superuser = self.connect();
        superuser.batch_execute("ALTER TABLE yard.ship DROP COLUMN odd").expect("a column less");
    }

    /// A connection as superuser, with limits that make a session that hangs fail, and one in a deadlock end
    /// soon.
    pub fn connect(&self) -> Client {
        let mut client = self.cluster.superuser(&self.database);
        client
            .batch_execute("SET statement_timeout = '60s'; SET deadlock_timeout = '50ms'")
            .expect("settings");
        client
    }

    /// Gives every registered database ships from number 1000 on, one a position from 1 on, and three crates
    /// for each of the first hundred; sees to it that all this is kept.
    pub fn fill(&self, ships: i32) {
        let mut client = self.connect();
        for tenant in &self.tenants {
            let values = tenant.values();
            client
                .batch_execute(&format!(
                    "INSERT INTO yard.ship (client_id, database_id, id, name, cargo, state, stamp, changed)
                     SELECT {values}, 1000 + i, 'ship ' || i, i / 4.0, 'new', i,
                         '2026-01-01Z'::timestamptz + i * interval '1 second' FROM generate_series(1, {ships}) i;
                     INSERT INTO yard.crate SELECT {values}, 1000 + i, no, 'crate', 1.5, i * 3 + no, NULL
                     FROM generate_series(1, {}) i, unnest(ARRAY[5, 15, 25]) no",
                    ships.min(100)
                ))
                .expect("rows");
        }
        for (tenant, relation) in self.replicas() {
            self.rebuild(&mut client, tenant, relation);
        }
    }

    /// Brings a replica's blocks up to date.
    pub fn fold(&self, client: &mut Client, tenant: &Tenant, relation: &str) {
        client
            .execute("SELECT plimsoll.fold_manifest($1, $2)", &[&tenant.database_id, &relation])
            .expect("a fold");
    }

    /// Makes a replica's blocks anew from its rows.
    pub fn rebuild(&self, client: &mut Client, tenant: &Tenant, relation: &str) {
        client
            .execute("SELECT plimsoll.rebuild_manifest($1, $2)", &[&tenant.database_id, &relation])
            .expect("a rebuilt manifest");
    }

    /// Every replica there is.
    pub fn replicas(&self) -> impl Iterator<Item = (&Tenant, &'static str)> {
        self.tenants.iter().flat_map(|tenant| TABLES.map(|table| (tenant, table)))
    }
}
