//! Mutated uploads, and mutated arguments of the other functions that take encoded bytes, thrown at a server by an
//! agent of one database: nothing crashes, nothing of another database changes, and the kept manifest stays right.
//!
//! `PLIMSOLL_FUZZ_UPLOADS=1000000 cargo test --release -p plimsoll-tests --test hostile` throws so many; without it a
//! bounded time is spent. `PLIMSOLL_FUZZ_SEED` makes the same ones again.

#[path = "../../core/tests/fuzz/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use plimsoll_core::ranges::{pack_ranges, read_ranges};
use plimsoll_core::row::{BatchReader, BatchWriter};
use plimsoll_core::store::PositionRange;
use plimsoll_tests::{Registered, TestCluster};
use postgres::Client;
use uuid::Uuid;

/// How long mutated bytes are thrown where no number is given.
const SECONDS: Duration = Duration::from_secs(20);

/// Calls in one statement.
const TOGETHER: usize = 250;

/// Rows of each database at the beginning.
const ROWS: i32 = 60;

const TABLES: &str = "
    CREATE TYPE shop.mood AS ENUM ('good', 'bad');
    CREATE DOMAIN shop.small AS int CHECK (VALUE < 1000);
    CREATE TABLE shop.plain (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL, name text,
        version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));
    CREATE TABLE shop.every (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
        code varchar(12) NOT NULL, amount numeric(12,2), rough float8, doc jsonb, raw bytea, at timestamptz, day date,
        clock time(3), span interval, tags int[], names text[], mood shop.mood, small shop.small, fixed char(4),
        address inet, token uuid, yes boolean, note json, version bigint NOT NULL, changed timestamptz,
        PRIMARY KEY (client_id, database_id, id, code), UNIQUE (client_id, database_id, token));
    CREATE TABLE shop.keyed (client_id text NOT NULL, database_id uuid NOT NULL, number numeric NOT NULL,
        address inet NOT NULL, text text, at timestamp(0) NOT NULL, parent bigint,
        PRIMARY KEY (client_id, database_id, number, address),
        FOREIGN KEY (client_id, database_id, parent) REFERENCES shop.plain DEFERRABLE INITIALLY DEFERRED);";

const FILL: &str = "
    INSERT INTO shop.plain SELECT $C, $D, i, 'name ' || i, i FROM generate_series(1, $N) i;
    INSERT INTO shop.every SELECT $C, $D, i, 'c' || i, i + 0.25, i / 3.0::float8, jsonb_build_object('b', i, 'a', '[1]'::jsonb),
        decode(md5(i::text), 'hex'), '2024-01-01'::timestamptz + i * interval '1 minute', '2024-01-01'::date + i, '12:34:56.789',
        i * interval '1 hour', ARRAY[i, NULL, 3], ARRAY['x', i::text], 'good', i, 'ab', '10.0.0.1', md5(i::text)::uuid,
        i % 2 = 0, '{\"n\": 1}', i, '2024-05-05' FROM generate_series(1, $N) i;
    INSERT INTO shop.keyed SELECT $C, $D, i + 0.5, ('10.0.0.' || i)::inet, repeat('t', i), '2024-01-01'::timestamp + i * interval '1 second', i
        FROM generate_series(1, $N) i;";

/// Runs each call in a subtransaction of its own, and answers how often it ended with which SQLSTATE.
const THROW: &str = "
    CREATE FUNCTION public.throw(call text, id uuid, arguments bytea[]) RETURNS jsonb LANGUAGE plpgsql AS $$
    DECLARE argument bytea; counts jsonb := '{}'; code text; message text;
    BEGIN
        FOREACH argument IN ARRAY arguments LOOP
            BEGIN
                EXECUTE call USING id, argument;
                code := '00000';
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
                IF code LIKE 'XX%' THEN
                    RAISE EXCEPTION 'an internal error: % % for %', code, message, encode(argument, 'hex');
                END IF;
            END;
            counts := jsonb_set(counts, ARRAY[code], to_jsonb(COALESCE((counts ->> code)::int, 0) + 1));
        END LOOP;
        RETURN counts;
    END $$;";

/// What is thrown: a call, valid arguments of it, and how they are mutated.
struct Target {
    call: &'static str,
    seeds: Vec<Vec<u8>>,
    mutate: fn(&mut Rng, &mut Vec<u8>, &[u8]),
    /// How often among the others.
    weight: usize,
}

struct Field {
    server: TestCluster,
    database: String,
    superuser: Client,
    /// One for each connection: they would wait for each other's rows.
    attackers: [Registered; 2],
    victim: Registered,
}

impl Field {
    fn lay_out() -> Self {
        let server = TestCluster::start();
        let database = server.create_database();
        let owner = server.create_owner();
        let mut superuser = server.superuser(&database);
        superuser
            .batch_execute(&format!(
                "CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner}; {TABLES} RESET ROLE;
                 SELECT plimsoll.manage_table('shop.plain', version_column => 'version');
                 SELECT plimsoll.manage_table('shop.every', version_column => 'version', modified_column => 'changed');
                 SELECT plimsoll.manage_table('shop.keyed', version_column => 'at'); {THROW}"
            ))
            .expect("managed tables");
        let mut register = |client: &str| {
            let registered = server.register(&database, client, "till");
            let fill = FILL
                .replace("$C", &format!("'{client}'"))
                .replace("$D", &format!("'{}'::uuid", registered.id))
                .replace("$N", &ROWS.to_string());
            superuser.batch_execute(&fill).expect("rows");
            for table in ["shop.plain", "shop.every", "shop.keyed"] {
                superuser
                    .execute("SELECT plimsoll.rebuild_manifest($1, $2)", &[&registered.id, &table])
                    .expect("a manifest");
            }
            // Deletes go on all day.
            superuser
                .execute("SELECT plimsoll.set_option($1, 'guard_fraction', '1')", &[&registered.id])
                .expect("an option");
            registered
        };
        let (attackers, victim) = (["attacker", "accomplice"].map(&mut register), register("victim"));
        Field { server, database, superuser, attackers, victim }
    }

    fn connect(&mut self, id: Uuid) -> Client {
        let login = self.server.create_agent();
        self.superuser
            .execute("SELECT plimsoll.grant_database($1, $2::text::name)", &[&id, &login.role])
            .expect("a grant");
        let client = self.server.connect(&login, &self.database);
        self.superuser.batch_execute("GRANT USAGE ON SCHEMA public TO PUBLIC").expect("a grant");
        client
    }

    /// What the victim has.
    fn victims_rows(&mut self) -> Vec<String> {
        let mut rows = Vec::new();
        for table in ["shop.plain", "shop.every", "shop.keyed"] {
            let sql = format!("SELECT t::text FROM {table} t WHERE database_id = $1 ORDER BY 1");
            let found = self.superuser.query(&sql, &[&self.victim.id]).expect("rows");
            rows.extend(found.iter().map(|row| row.get::<_, String>(0)));
        }
        rows
    }

    /// Ranges of which the manifests say something else than the rows.
    fn wrong(&mut self) -> i64 {
        let mut wrong = 0;
        for table in ["shop.plain", "shop.every", "shop.keyed"] {
            for id in self.attackers.iter().chain([&self.victim]).map(|registered| registered.id) {
                let sql = "SELECT count(*) FROM plimsoll.check_manifest($1, $2)";
                wrong += self.superuser.query_one(sql, &[&id, &table]).expect("a check").get::<_, i64>(0);
            }
        }
        wrong
    }

    fn started(&mut self) -> String {
        self.superuser.query_one("SELECT pg_postmaster_start_time()::text", &[]).expect("a time").get(0)
    }
}

/// Uploads of one to four rows, and of many, that are the attacker's own rows.
fn uploads(client: &mut Client, id: Uuid, table: &str) -> Vec<Vec<u8>> {
    let sql = format!("SELECT \"row\" FROM plimsoll.download($1, '{table}', '(,)', 1000)");
    let rows: Vec<Vec<u8>> = client.query(&sql, &[&id]).expect("rows").iter().map(|row| row.get(0)).collect();
    let pack = |rows: &[Vec<u8>]| {
        let mut batch = BatchWriter::new();
        rows.iter().for_each(|row| batch.push(row));
        batch.finish()
    };
    assert_eq!(rows.len() as i32, ROWS);
    rows.chunks(1).take(20).chain(rows.chunks(3)).chain([&rows[..]]).map(pack).collect()
}

fn targets(client: &mut Client, id: Uuid) -> Vec<Target> {
    let mut targets = vec![
        Target {
            call: "SELECT plimsoll.upload($1, 'shop.plain', $2)",
            seeds: uploads(client, id, "shop.plain"),
            mutate: mutate::upload,
            weight: 5,
        },
        Target {
            call: "SELECT plimsoll.upload($1, 'shop.every', $2)",
            seeds: uploads(client, id, "shop.every"),
            mutate: mutate::upload,
            weight: 6,
        },
        Target {
            call: "SELECT plimsoll.upload($1, 'shop.keyed', $2)",
            seeds: uploads(client, id, "shop.keyed"),
            mutate: mutate::upload,
            weight: 4,
        },
    ];
    let mut bytes = |call: &str, argument: &[u8]| -> Vec<u8> {
        client.query_one(&format!("SELECT plimsoll.{call}"), &[&id, &argument]).expect(call).get(0)
    };
    let all = pack_ranges(&[PositionRange::ALL]);
    let some: Vec<PositionRange> =
        (0..9).map(|i| PositionRange { from: Some(7 * i), to: Some(7 * i + 5) }).collect();
    let ranges = vec![all.clone(), pack_ranges(&some), pack_ranges(&some[2..4])];
    assert!(ranges.iter().all(|packed| read_ranges(packed).is_ok()));
    let items = vec![
        bytes("packed_items($1, 'shop.every', $2)", &pack_ranges(&some[..2])),
        bytes("packed_items($1, 'shop.every', $2)", &all),
    ];
    let keyed: Vec<Vec<u8>> =
        items.iter().map(|items| bytes("packed_keys($1, 'shop.every', $2)", items)).collect();
    let cursors =
        client.query("SELECT \"cursor\" FROM plimsoll.download($1, 'shop.keyed', '(,)', 9)", &[&id]);
    let cursors: Vec<Vec<u8>> = cursors.expect("cursors").iter().map(|row| row.get(0)).collect();
    let mut more = |call, seeds: &[Vec<u8>]| {
        targets.push(Target { call, seeds: seeds.to_vec(), mutate: mutate::bytes, weight: 1 });
    };
    more("SELECT plimsoll.packed_ranges($1, 'shop.every', $2, 8)", &ranges);
    more("SELECT plimsoll.packed_summaries($1, 'shop.keyed', $2)", &ranges);
    more("SELECT plimsoll.packed_sketch($1, 'shop.every', $2, 0, 40)", &ranges);
    more("SELECT plimsoll.packed_items($1, 'shop.plain', $2)", &ranges);
    more("SELECT plimsoll.packed_keys($1, 'shop.every', $2)", &items);
    more("SELECT plimsoll.packed_rows($1, 'shop.every', $2)", &items);
    more("SELECT plimsoll.delete_rows($1, 'shop.every', $2)", &keyed);
    more("SELECT count(*) FROM plimsoll.download($1, 'shop.keyed', '(,)', 50, $2)", &cursors);
    more("SELECT plimsoll.login($1, $2)", &[vec![7; 32]]);
    targets
}

/// Throws mutated bytes over one connection; how many calls of which outcome there were.
fn throw(
    client: &mut Client,
    id: Uuid,
    targets: &[Target],
    seed: u64,
    enough: &dyn Fn(usize) -> bool,
) -> BTreeMap<String, u64> {
    let mut rng = Rng::with_seed(seed);
    let mut counts = BTreeMap::new();
    let weights: usize = targets.iter().map(|target| target.weight).sum();
    let mut thrown = 0;
    while !enough(thrown) {
        let mut at = rng.usize(0..weights);
        let found = targets.iter().find(|target| match at.checked_sub(target.weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        let Target { call, seeds, mutate, .. } = found.expect("a target");
        let arguments: Vec<Vec<u8>> = (0..TOGETHER)
            .map(|_| {
                let mut argument = seeds[rng.usize(0..seeds.len())].clone();
                // One in a hundred is sound.
                for _ in 0..if rng.u8(0..100) == 0 { 0 } else { rng.u8(1..4) } {
                    let other = rng.usize(0..seeds.len());
                    mutate(&mut rng, &mut argument, &seeds[other]);
                }
                argument
            })
            .collect();
        let answer = client.query_one("SELECT public.throw($1, $2, $3)", &[call, &id, &arguments]);
        let answer = answer.unwrap_or_else(|error| panic!("seed {seed}, after {thrown}: {call}: {error:?}"));
        let outcomes: serde_json::Value = answer.get(0);
        for (code, count) in outcomes.as_object().expect("counts") {
            *counts.entry(code.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        thrown += arguments.len();
    }
    counts
}

#[test]
fn mutated_bytes_do_no_harm() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("PLIMSOLL_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..1 << 48));
    let wanted = number("PLIMSOLL_FUZZ_UPLOADS").map(|number| number as usize);
    let mut field = Field::lay_out();
    let mut attacks: Vec<(Uuid, Client, Vec<Target>)> = Vec::new();
    for id in field.attackers.each_ref().map(|registered| registered.id) {
        let mut client = field.connect(id);
        let targets = targets(&mut client, id);
        attacks.push((id, client, targets));
    }
    let (before, started) = (field.victims_rows(), field.started());
    assert_eq!(field.wrong(), 0);
    let begun = Instant::now();
    let share = wanted.map(|wanted| wanted.div_ceil(attacks.len()));
    let enough = |thrown: usize| match share {
        Some(share) => thrown >= share,
        None => begun.elapsed() > SECONDS,
    };
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = attacks
            .iter_mut()
            .zip(0..)
            .map(|((id, client, targets), place)| {
                let enough = &enough;
                scope.spawn(move || throw(client, *id, targets, seed + place, enough))
            })
            .collect();
        for thread in threads {
            for (code, count) in thread.join().expect("no call failed otherwise") {
                *counts.entry(code).or_default() += count;
            }
        }
    });
    let thrown: u64 = counts.values().sum();
    println!("seed {seed}: {thrown} calls in {:.1} s, by outcome {counts:?}", begun.elapsed().as_secs_f64());
    // Some were sound, some malformed, and some rows were refused one by one.
    assert!(counts.get("00000").is_some_and(|sound| *sound > thrown / 50), "{counts:?}");
    assert!(counts.get("22P03").is_some_and(|malformed| *malformed > thrown / 50), "{counts:?}");
    assert!(field.server.is_ready());
    assert_eq!(field.started(), started, "the server was started anew");
    let log = std::fs::read_to_string(field.server.log_path()).expect("the server's log");
    for trouble in
        ["PANIC", "was terminated by", "terminating any other active", "automatic recovery", "panicked at"]
    {
        let line = log.lines().find(|line| line.contains(trouble));
        assert!(line.is_none(), "{line:?}");
    }
    assert!(field.victims_rows() == before, "rows of another database changed");
    assert_eq!(field.wrong(), 0, "a manifest says something else than the rows");
    // The connections are as good as before.
    for (id, client, targets) in &mut attacks {
        let sound = &targets[1].seeds[0];
        assert_eq!(BatchReader::new(sound).expect("an upload").count(), 1);
        let sql = "SELECT inserted + updated + unchanged FROM plimsoll.upload($1, 'shop.every', $2::bytea)";
        let stored: i64 = client.query_one(sql, &[id, sound]).expect("stored").get(0);
        assert!(stored <= 1);
    }
}
