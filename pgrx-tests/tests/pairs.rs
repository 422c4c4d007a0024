//! Never wrongly equal, never wrongly different: pairs of values that Postgres calls equal or not, against their digests
//! on a real server, as they are stored, and once they went through an upload.

#[path = "../../core/tests/golden/corpus.rs"]
mod corpus;

use corpus::{Pair, pairs};
use plimsoll_core::row::BatchWriter;
use plimsoll_tests::shared;
use postgres::Client;

/// What Postgres says of the two.
fn comparison(client: &mut Client, pair: &Pair) -> String {
    let collation = pair.declared.strip_prefix(plain(pair.declared)).unwrap_or_default();
    let sql = format!("SELECT $1::text::{0}{collation} = $2::text::{0}{collation}", plain(pair.declared));
    match client.query_one(&sql, &[&pair.one, &pair.other]) {
        Ok(row) if row.get(0) => "equal".to_owned(),
        Ok(_) => "different".to_owned(),
        Err(error) if error.code().is_some_and(|code| code.code() == "42883") => "not compared".to_owned(),
        Err(error) => format!("{error:?}"),
    }
}

/// The type without its collation.
fn plain(declared: &str) -> &str {
    declared.split(" COLLATE ").next().unwrap_or(declared)
}

#[test]
fn digests_of_stored_and_uploaded_values_are_the_same_where_the_list_says_so() {
    let cluster = shared();
    let database = cluster.create_database();
    let owner = cluster.create_owner();
    let stored = cluster.register(&database, "shop", "stored");
    let uploaded = cluster.register(&database, "shop", "uploaded");
    let mut client = cluster.superuser(&database);
    client
        .batch_execute(&format!(
            "CREATE EXTENSION citext;
             GRANT ALL ON SCHEMA public TO {owner};
             UPDATE plimsoll.database_record SET fingerprint_key = sha256('one key');
             CREATE TYPE public.priced AS (price numeric);
             CREATE TYPE public.named AS (name citext)"
        ))
        .expect("types");
    let icu = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')";
    let icu: bool = client.query_one(icu, &[]).expect("an answer").get(0);
    if icu {
        client
            .batch_execute(
                "CREATE COLLATION public.ignoring_case
                     (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            )
            .expect("a collation");
    }
    let mut compared = 0;
    for (i, pair) in pairs().iter().filter(|pair| pair.database == "Postgres").enumerate() {
        if pair.declared.contains("COLLATE") && !icu {
            eprintln!("not tested, as this server has no ICU: {pair:?}");
            continue;
        }
        let named = format!("{}: {} and {}", pair.declared, pair.one, pair.other);
        assert_eq!(comparison(&mut client, pair), pair.says, "{named}");
        let table = format!("public.pair_{i}");
        let create = format!(
            "CREATE TABLE {table} (client_id text NOT NULL, database_id uuid NOT NULL, id int8 NOT NULL,
                 v int8 NOT NULL, value {declared}, PRIMARY KEY (client_id, database_id, id));
             ALTER TABLE {table} OWNER TO {owner};
             SELECT plimsoll.manage_table('{table}', version_column => 'v', keep_manifest => true);
             SELECT plimsoll.rebuild_manifest('{id}', '{table}')",
            declared = pair.declared,
            id = stored.id
        );
        client.batch_execute(&create).unwrap_or_else(|error| panic!("{named}: {error:?}"));
        let insert = format!(
            "INSERT INTO {table} VALUES ('shop', $1, 1, 1, $2::text::{0}), ('shop', $1, 2, 2, $3::text::{0})",
            plain(pair.declared)
        );
        client.execute(&insert, &[&stored.id, &pair.one, &pair.other]).expect(&named);
        let alone = format!(
            "SELECT plimsoll.fingerprint(sha256('one key'), ROW(value)) FROM {table} WHERE database_id = $1
             GROUP BY id ORDER BY id"
        );
        let digests = |client: &mut Client, id| {
            let rows = client.query(&alone, &[&id]).expect(&named);
            (rows[0].get::<_, Vec<u8>>(0), rows[1].get::<_, Vec<u8>>(0))
        };
        let (one, other) = digests(&mut client, stored.id);
        assert_eq!(one == other, pair.same, "{named}: as stored");
        // The kept manifest counted the same digests as are read now.
        let wrong = "SELECT FROM plimsoll.check_manifest($1, $2)";
        assert!(client.query(wrong, &[&stored.id, &table]).expect(&named).is_empty(), "{named}: kept");
        let rows = "SELECT row FROM plimsoll.download($1, $2, int8range(NULL, NULL), 10)";
        let rows: Vec<Vec<u8>> =
            client.query(rows, &[&stored.id, &table]).expect(&named).iter().map(|row| row.get(0)).collect();
        let mut upload = BatchWriter::new();
        rows.iter().for_each(|row| upload.push(row));
        let sql = "SELECT inserted, rejected::text FROM plimsoll.upload($1, $2, $3::bytea)";
        let answer = client.query_one(sql, &[&uploaded.id, &table, &upload.finish()]).expect(&named);
        assert_eq!((answer.get(0), answer.get(1)), (2i64, "[]"), "{named}");
        assert_eq!(digests(&mut client, uploaded.id), (one, other), "{named}: as uploaded");
        compared += 1;
    }
    assert!(compared > 35, "only {compared} pairs were compared");
}
