//! Postgres.

use plimsoll_client::source::Place;
use plimsoll_tests::{Login, shared};
use postgres::Client;

use super::kind::{LocalKind, Table, Type};

/// A database without the extension, and a role that may read it.
pub struct PostgresKind {
    database: String,
    reader: Login,
    writer: Client,
}

impl PostgresKind {
    fn url(&self) -> String {
        shared().client_url(&self.reader, &self.database)
    }
}

impl LocalKind for PostgresKind {
    fn new() -> Self {
        let database = shared().create_empty_database();
        let mut writer = shared().superuser(&database);
        let reader = shared().create_login(&[]);
        let role = &reader.role;
        let sql = format!(
            "CREATE EXTENSION citext;
             ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {role}; GRANT USAGE ON SCHEMA public TO {role}"
        );
        writer.batch_execute(&sql).expect("a reader");
        PostgresKind { database, reader, writer }
    }

    fn place(&self) -> Place {
        Place::Postgres { url: self.url(), password: None }
    }

    fn setting(&self) -> String {
        format!("postgres = \"{}\"", self.url())
    }

    fn allow_writing(&mut self) {
        let role = &self.reader.role;
        let sql = format!(
            "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
             CREATE SCHEMA {role} AUTHORIZATION {role}"
        );
        self.writer.batch_execute(&sql).expect("rights");
    }

    fn trigger_on_delete(table: &str, other: &str, column: &str) -> String {
        format!(
            "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 DELETE FROM public.{other} WHERE {column} = OLD.id; RETURN NULL; END $$;
             CREATE TRIGGER told AFTER DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION told()"
        )
    }

    /// What it names is found by the role's own search path.
    fn trigger_that_spoils(table: &str, column: &str) -> String {
        format!(
            "CREATE TABLE words (word text); INSERT INTO words VALUES ('spoil');
             CREATE FUNCTION spoils() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF EXISTS (SELECT FROM words WHERE word = NEW.{column}) THEN NEW.{column} := 'spoilt'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER spoils BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION spoils()"
        )
    }

    fn run(&mut self, sql: &str) {
        self.writer.batch_execute(sql).unwrap_or_else(|error| panic!("{error:?}\n{sql:.300}"));
    }

    fn texts(&mut self, table: &Table) -> Vec<Vec<Option<String>>> {
        let text = |(name, of): &(String, Type)| match of {
            Type::Bytes => format!("encode({}, 'hex')", Self::quoted(name)),
            Type::Stamp => format!("to_char({}, 'YYYY-MM-DD HH24:MI:SS.US')", Self::quoted(name)),
            _ => format!("{}::text", Self::quoted(name)),
        };
        let list: Vec<String> = table.columns.iter().map(text).collect();
        let sql = format!("SELECT {} FROM {}", list.join(", "), Self::quoted(&table.name));
        let rows = self.writer.query(&sql, &[]).expect("rows");
        rows.iter().map(|row| (0..list.len()).map(|place| row.get(place)).collect()).collect()
    }

    fn declared(of: Type) -> &'static str {
        match of {
            Type::Number => "bigint",
            Type::Text => "text",
            Type::Folded => "citext",
            Type::Bytes => "bytea",
            Type::Stamp => "timestamp",
        }
    }

    fn configured(name: &str) -> String {
        if name.contains(['.', '"']) { Self::quoted(name) } else { name.to_owned() }
    }

    /// Text is never taken for a number or a uuid here.
    fn spelled() -> Vec<(&'static str, [&'static str; 2], Option<&'static str>)> {
        vec![("jsonb", [r#"{"a":1}"#, r#"{"a": 1}"#], None), ("jsonb", ["[1,2]", "[1, 2.0]"], None)]
    }

    fn bytes(hex: &str) -> String {
        format!("'\\x{hex}'")
    }
}
