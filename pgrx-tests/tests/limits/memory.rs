//! Memory of a call does not grow with the replica.

use postgres::Client;

use super::stock;

/// Kilobytes of its own memory that a backend had at most; pages of the shared buffers that it looked at are not its
/// own.
pub fn peak(client: &mut Client) -> i64 {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).expect("a backend").get(0);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the backend's status");
    let kilobytes = |name: &str| -> i64 {
        let line = status.lines().find(|line| line.starts_with(name)).expect(name);
        line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("kilobytes")
    };
    kilobytes("VmHWM:") - kilobytes("RssShmem:")
}

/// Rows of the two replicas that are compared.
const FEW: i64 = 70_000;
const MANY: i64 = 300_000;

/// Bytes of memory that a row of the replica may cost a call.
const BYTES_A_ROW: i64 = 40;

/// Kilobytes that a statement or a scan gathers for a manifest before it sums them up, of however many rows.
const GATHERED: i64 = 24 << 10;

/// What is called; `$1` is the database.
const CALLS: [&str; 12] = [
    "SELECT count(*) FROM plimsoll.manifest($1, 'shop.sale', '(,)')",
    "SELECT count(*) FROM plimsoll.download($1, 'shop.sale', '(,)', 1000000)",
    "SELECT count(*) FROM (SELECT plimsoll.download($1, 'shop.sale', '(,)', 1000000)) d",
    "SELECT plimsoll.packed_manifest($1, 'shop.sale', '(,)', 1000)",
    "SELECT count(*) FROM plimsoll.range_manifest($1, 'shop.sale', '(,)', 100)",
    "SELECT plimsoll.sketch($1, 'shop.sale', '{(,)}', 0, 1000)",
    "SELECT count(*) FROM plimsoll.check_manifest($1, 'shop.sale')",
    "SELECT plimsoll.rebuild_manifest($1, 'shop.sale')",
    "SELECT plimsoll.fingerprint('\\x0000000000000000000000000000000000000000000000000000000000000000', s)
     FROM shop.sale s WHERE database_id = $1",
    "SELECT deleted FROM plimsoll.delete_range($1, 'shop.sale', '(,)')",
    "SELECT deleted FROM plimsoll.delete_all($1, 'shop.sale')",
    "SELECT plimsoll.forget_database($1)",
];

#[test]
fn a_call_takes_no_more_memory_for_a_larger_replica() {
    let mut shop = stock::open();
    let few = stock::stocked(&mut shop, "small", FEW);
    let many = stock::stocked(&mut shop, "large", MANY);
    for call in CALLS {
        let [least, most] = [&few, &many].map(|replica| {
            let mut client = shop.server.superuser(&shop.database);
            client.batch_execute("SET work_mem = '1MB'; SET jit = off").expect("settings");
            let before = peak(&mut client);
            client.batch_execute("BEGIN").expect("a transaction");
            client.query(call, &[&replica.id]).unwrap_or_else(|error| panic!("{call}: {error:?}"));
            let after = peak(&mut client);
            client.batch_execute("ROLLBACK").expect("it is undone");
            (after - before).max(0)
        });
        let grown = most - least;
        println!("{:>8} kB more, {least} kB and {most} kB: {call}", grown);
        let gathers = ["rebuild_manifest", "forget_database"].iter().any(|name| call.contains(name));
        let gathered = if gathers { GATHERED } else { 0 };
        let allowed = gathered + (MANY - FEW) * BYTES_A_ROW / 1024;
        assert!(grown <= allowed, "{call}: {least} kB and {most} kB");
    }
}

#[test]
fn large_values_are_in_memory_one_at_a_time() {
    let mut shop = stock::open();
    let till = shop.register("acme", 0);
    const ROWS: i64 = 60;
    const MEGABYTES: i64 = 4;
    shop.superuser
        .execute(
            "INSERT INTO shop.sale
             SELECT 'acme', $1, i, 'n' || repeat(md5(i::text), 32768 * $3::int), i FROM generate_series(1, $2::bigint) i",
            &[&till.id, &ROWS, &(MEGABYTES as i32)],
        )
        .expect("rows");
    for call in [
        "SELECT count(*) FROM plimsoll.manifest($1, 'shop.sale', '(,)')",
        "SELECT count(*) FROM plimsoll.download($1, 'shop.sale', '(,)', 1000)",
        "SELECT deleted FROM plimsoll.delete_all($1, 'shop.sale')",
        "SELECT plimsoll.rebuild_manifest($1, 'shop.sale')",
    ] {
        let mut client = shop.server.superuser(&shop.database);
        let before = peak(&mut client);
        client.batch_execute("BEGIN").expect("a transaction");
        client.query(call, &[&till.id]).unwrap_or_else(|error| panic!("{call}: {error:?}"));
        let grown = (peak(&mut client) - before) / 1024;
        client.batch_execute("ROLLBACK").expect("it is undone");
        println!("{grown} MB for rows of {MEGABYTES} MB: {call}");
        assert!(grown < ROWS * MEGABYTES / 2, "{call}: {grown} MB");
    }
}
