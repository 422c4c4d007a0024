//! A call that is cancelled ends soon, wherever it is: `statement_timeout` and a user who gives up are honoured.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use plimsoll_core::manifest::{ItemsWriter, read_keyed};
use plimsoll_core::ranges::pack_ranges;
use plimsoll_core::row::BatchWriter;
use plimsoll_core::short::read_items;
use plimsoll_core::store::PositionRange;
use postgres::Client;
use postgres::types::ToSql;
use uuid::Uuid;

use super::shop::{bytes, range};
use super::stock;

/// Rows of the replica that the calls are about.
const ROWS: i64 = 100_000;

/// Within so long a cancelled call has ended, on however busy a machine. On a quiet one it takes a few milliseconds;
/// what it took is printed.
const SOON: Duration = Duration::from_secs(1);

/// After these shares of the time it takes, each call is cancelled.
const MOMENTS: [f64; 3] = [0.15, 0.5, 0.85];

/// Tries at each moment: the machine may be busy with something else, and the call quicker than it was.
const TRIES: usize = 5;

/// What takes no longer need not be cancelled.
const QUICK: Duration = Duration::from_millis(30);

struct Call {
    database: Uuid,
    sql: String,
    argument: Option<Vec<u8>>,
}

fn run(client: &mut Client, call: &Call) -> Result<usize, postgres::Error> {
    let mut transaction = client.transaction()?;
    let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![&call.database];
    if let Some(argument) = &call.argument {
        arguments.push(argument);
    }
    let rows = transaction.query(&call.sql, &arguments)?;
    transaction.rollback()?;
    Ok(rows.len())
}

/// The keys of rows, as they are looked up.
fn keys_of(keyed: &[u8]) -> Vec<u8> {
    let mut keys = BatchWriter::new();
    read_keyed(keyed).expect("keys").0.iter().for_each(|row| keys.push(&row.key));
    keys.finish()
}

/// Runs a call and cancels it after a while: how long it took to end from then on; `None` where it had ended already.
fn cancel(client: &mut Client, admin: &mut Client, call: &Call, after: Duration) -> Option<Duration> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).expect("a backend").get(0);
    let (begun, begins) = mpsc::channel();
    std::thread::scope(|scope| {
        let cancelled = scope.spawn(move || {
            begins.recv().expect("it begins");
            std::thread::sleep(after);
            let at = Instant::now();
            let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
                       WHERE pid = $1 AND state = 'active' AND query LIKE '%plimsoll%'";
            admin.query(sql, &[&pid]).expect("a signal");
            at
        });
        begun.send(()).expect("the other thread");
        let outcome = run(client, call);
        let ended = Instant::now();
        let at = cancelled.join().expect("the other thread");
        match outcome {
            Ok(_) => None,
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert_eq!(code.as_deref(), Some("57014"), "{}: {error:?}", call.sql);
                Some(ended.saturating_duration_since(at))
            }
        }
    })
}

#[test]
fn every_long_call_ends_soon_after_it_is_cancelled() {
    let mut shop = stock::open();
    let till = stock::stocked(&mut shop, "acme", ROWS);
    let id = till.id;
    let unkept = shop.register("umbrella", 0);
    shop.superuser
        .execute(
            "INSERT INTO shop.sale SELECT 'umbrella', $1, i, 'note ' || i, i FROM generate_series(1, $2::bigint) i",
            &[&unkept.id, &ROWS],
        )
        .expect("rows");
    let mut client = shop.server.superuser(&shop.database);
    let all = pack_ranges(&[PositionRange::ALL]);
    let many: Vec<PositionRange> = (0..16_384).map(|i| range(6 * i, 6 * i + 5)).collect();
    let items = bytes(&mut client, "packed_items($1, 'shop.sale', $2)", &[&id, &all]);
    assert_eq!(read_items(&items).expect("items").len() as i64, ROWS);
    let keyed = bytes(&mut client, "packed_keys($1, 'shop.sale', $2)", &[&id, &items]);
    assert!(keyed.len() > ItemsWriter::new(true).finish(None).len());
    let json = "(SELECT jsonb_agg(jsonb_build_object('id', i, 'note', 'note ' || i, 'version', i + 500000))
                 FROM generate_series(1, 30000) i)";
    let keys = "(SELECT jsonb_agg(jsonb_build_object('key', jsonb_build_object('id', i))) FROM generate_series(1, 30000) i)";
    let upload = "SELECT inserted FROM plimsoll.upload($1, 'shop.sale', $2::bytea)";
    let with =
        |sql: &str, argument: Vec<u8>| Call { database: id, sql: sql.to_owned(), argument: Some(argument) };
    let plain = |sql: &str| Call { database: id, sql: sql.to_owned(), argument: None };
    // Of a replica whose manifest is not trusted: everything is scanned.
    let scanned = |sql: &str| Call { database: unkept.id, sql: sql.to_owned(), argument: None };
    let calls = [
        // Uploads: new rows, newer ones, the same, rows that must be read back, and rows that are all refused.
        with(upload, stock::upload(ROWS + 1, ROWS, 0, "new")),
        with(upload, stock::upload(1, ROWS, ROWS, "newer")),
        with(upload, stock::upload(1, ROWS, 0, "note")),
        with(upload, stock::upload(1, ROWS / 2, -1, "older")),
        with(upload, stock::upload(ROWS + 1, 5_000, 0, "1 is no letter")),
        with(upload, stock::upload(ROWS + 1, ROWS, 0, "\0")),
        plain(&format!("SELECT inserted FROM plimsoll.upload($1, 'shop.sale', {json})")),
        // Reading.
        plain("SELECT count(*) FROM plimsoll.manifest($1, 'shop.sale', '(,)')"),
        plain("SELECT count(*) FROM plimsoll.download($1, 'shop.sale', '(,)', 1000000)"),
        plain("SELECT plimsoll.packed_manifest($1, 'shop.sale', '(,)', 1000000)"),
        scanned("SELECT * FROM plimsoll.range_manifest($1, 'shop.sale', '(,)', 16384)"),
        scanned("SELECT * FROM plimsoll.range_fingerprint($1, 'shop.sale', '(,)')"),
        scanned("SELECT * FROM plimsoll.table_versions($1)"),
        plain("SELECT plimsoll.sketch($1, 'shop.sale', '{(,)}', 0, 131072)"),
        with("SELECT plimsoll.packed_summaries($1, 'shop.sale', $2)", pack_ranges(&many)),
        with("SELECT plimsoll.packed_items($1, 'shop.sale', $2)", all.clone()),
        with("SELECT plimsoll.packed_windows($1, 'shop.sale', $2, 1000000)", all.clone()),
        Call {
            database: unkept.id,
            sql: "SELECT plimsoll.packed_fingerprints($1, 'shop.sale', $2)".to_owned(),
            argument: Some(all),
        },
        plain("SELECT * FROM plimsoll.packed_batch($1, 'shop.sale', NULL, 1000000, 1000000000)"),
        with("SELECT plimsoll.packed_lookup($1, 'shop.sale', $2)", keys_of(&keyed)),
        with("SELECT plimsoll.packed_keys($1, 'shop.sale', $2)", items.clone()),
        with("SELECT plimsoll.packed_rows($1, 'shop.sale', $2)", items),
        plain("SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.sale')"),
        plain(
            "SELECT plimsoll.fingerprint(decode(repeat('00', 32), 'hex'), s) FROM shop.sale s WHERE database_id = $1",
        ),
        // Writing.
        plain("SELECT plimsoll.rebuild_manifest($1, 'shop.sale')"),
        plain("SELECT * FROM plimsoll.delete_range($1, 'shop.sale', '(,)')"),
        plain("SELECT * FROM plimsoll.delete_all($1, 'shop.sale')"),
        with("SELECT * FROM plimsoll.delete_rows($1, 'shop.sale', $2::bytea)", keyed),
        plain(&format!("SELECT * FROM plimsoll.delete_rows($1, 'shop.sale', {keys})")),
        plain("SELECT plimsoll.forget_database($1)"),
        // What triggers do for an application.
        plain(
            "WITH changed AS (UPDATE shop.sale SET version = version + 1 WHERE database_id = $1 RETURNING 1)
             SELECT count(*), 'plimsoll' FROM changed",
        ),
    ];
    let mut worst = Duration::ZERO;
    for call in &calls {
        let begun = Instant::now();
        let rows = run(&mut client, call).unwrap_or_else(|error| panic!("{}: {error:?}", call.sql));
        assert!(rows > 0, "{}", call.sql);
        let whole = begun.elapsed();
        let mut took = whole;
        let mut latencies = Vec::new();
        for moment in MOMENTS {
            let mut best: Option<Duration> = None;
            for _ in 0..TRIES {
                match cancel(&mut client, &mut shop.superuser, call, took.mul_f64(moment)) {
                    // It was quicker than the first time.
                    None => took = took.mul_f64(0.6),
                    Some(latency) => {
                        best = Some(best.map_or(latency, |best| best.min(latency)));
                        if latency < SOON / 4 {
                            break;
                        }
                    }
                }
            }
            latencies.extend(best);
        }
        let slowest = latencies.iter().max().copied();
        println!(
            "{slowest:?} of {took:?}: {}",
            call.sql.split_whitespace().take(14).collect::<Vec<_>>().join(" ")
        );
        let Some(slowest) = slowest else {
            assert!(whole < QUICK, "it could not be cancelled in {whole:?}: {}", call.sql);
            continue;
        };
        assert!(slowest < SOON, "{slowest:?} until it ended: {}", call.sql);
        worst = worst.max(slowest);
    }
    println!("the slowest took {worst:?}");
}

#[test]
fn a_statement_timeout_ends_a_call_and_leaves_nothing_behind() {
    let mut shop = stock::open();
    let till = stock::stocked(&mut shop, "acme", 10);
    let mut agent = shop.agent(&till);
    agent.batch_execute("SET statement_timeout = '20ms'").expect("a setting");
    let upload = stock::upload(11, ROWS, 0, "new");
    let sql = "SELECT inserted FROM plimsoll.upload($1, 'shop.sale', $2::bytea)";
    let error = agent.query(sql, &[&till.id, &upload]).expect_err("it takes longer");
    assert_eq!(error.code().expect("a code").code(), "57014");
    agent.batch_execute("RESET statement_timeout").expect("a setting");
    assert_eq!(shop.value::<i64>("SELECT count(*) FROM shop.sale"), 10);
    let again: i64 = agent.query_one(sql, &[&till.id, &upload]).expect("stored").get(0);
    assert_eq!(again, ROWS);
    let wrong = "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.sale')";
    assert_eq!(shop.superuser.query_one(wrong, &[&till.id]).expect("a check").get::<_, i64>(0), 0);
}
