//! A small shop with everything that makes order matter: foreign keys, a unique value, a rule that rows can
//! break; with a table that has no version, one that has no key, and one that goes over as a whole; and its daily life.

use fastrand::Rng;
use plimsoll_tests::{Agent, Comparison, Site};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

/// The tables, a child first: the client must find the order itself.
pub const ORDERED: &[&str] = &["lines", "customers", "orders"];

/// With those whose rows have no order: without a version, and without a key; and with one of which snapshots are made.
pub const ALL: &[&str] = &["lines", "customers", "orders", "settings", "visits", SNAPSHOT];

/// The table of which snapshots are made.
const SNAPSHOT: &str = "prices";

/// Small steps, so that there are many moments to die at.
pub const SETTINGS: &str =
    "[sync]\nmax_batch_rows = 20\nwindow_rows = 60\nmax_window_rows = 60\ntail_rows = 20\n";

pub const LOCAL_SQL: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE counter (value INTEGER NOT NULL);
    INSERT INTO counter VALUES (0);
    CREATE TABLE customers (id INTEGER PRIMARY KEY, email TEXT NOT NULL, credit NUMERIC(12,2),
        row_version INTEGER NOT NULL);
    CREATE TABLE orders (customer_id INTEGER NOT NULL, no INTEGER NOT NULL, note TEXT,
        row_version INTEGER NOT NULL, PRIMARY KEY (customer_id, no));
    CREATE TABLE lines (customer_id INTEGER NOT NULL, no INTEGER NOT NULL, line INTEGER NOT NULL,
        weight REAL, row_version INTEGER NOT NULL, PRIMARY KEY (customer_id, no, line));
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE visits (page TEXT, seconds INTEGER);
    CREATE TABLE prices (item INTEGER PRIMARY KEY, price INTEGER);
    CREATE INDEX customers_version ON customers (row_version);
    CREATE INDEX orders_version ON orders (row_version);
    CREATE INDEX lines_version ON lines (row_version);";

/// What a DBA adds to the tables that `plimsoll schema` proposes.
const CONSTRAINTS: &str = "
    ALTER TABLE customers ADD CONSTRAINT customers_email UNIQUE (client_id, database_id, email),
        ADD CONSTRAINT customers_credit CHECK (credit >= 0);
    ALTER TABLE orders ADD FOREIGN KEY (client_id, database_id, customer_id) REFERENCES customers;
    ALTER TABLE lines ADD FOREIGN KEY (client_id, database_id, customer_id, no) REFERENCES orders;";

pub const CUSTOMERS_AT_FIRST: i64 = 60;

/// The agent of a new shop whose managed tables, which are these, are made.
pub fn open(site: &Site<'_>, tables: &[&str]) -> Agent {
    let agent = site.agent("shop", LOCAL_SQL, tables, SETTINGS);
    site.create_tables(&agent);
    site.owner().batch_execute(CONSTRAINTS).expect("constraints");
    let table = |name: &&str| {
        let direction = if *name == SNAPSHOT { "direction = \"snapshot\"\n" } else { "" };
        format!("\n[[table]]\nname = \"{name}\"\n{direction}")
    };
    agent.write_config(&format!("{SETTINGS}{}", tables.iter().map(table).collect::<String>()));
    // Whole orders come and go here; the guard has tests of its own.
    let option = "SELECT plimsoll.set_option($1, 'guard_fraction', '1')";
    site.superuser().execute(option, &[&agent.registered.id]).expect("an option");
    agent
}

pub fn comparisons(local: &Connection, tables: &[&str]) -> Vec<Comparison> {
    let table = |name: &&str| {
        let plain = Comparison::of(local, name, &format!("public.{name}"));
        match *name {
            "customers" => {
                let local = "CASE WHEN credit IS NOT NULL THEN printf('%.2f', credit) END";
                plain.with("credit", local, "credit::text")
            }
            // Quarters, which both sides write alike with two digits.
            "lines" => {
                let local = "CASE WHEN weight IS NOT NULL THEN printf('%.2f', weight) END";
                plain.with("weight", local, "weight::numeric(20, 2)::text")
            }
            _ => plain,
        }
    };
    tables.iter().map(table).collect()
}

fn version(day: &Transaction<'_>) -> i64 {
    let sql = "UPDATE counter SET value = value + 1 RETURNING value";
    day.query_row(sql, [], |row| row.get(0)).expect("a version")
}

fn new_customer(day: &Transaction<'_>, rng: &mut Rng, credit: f64) -> i64 {
    let id = rng.i64(1..1 << 40);
    day.execute(
        "INSERT INTO customers VALUES (?1, ?2, ?3, ?4)",
        params![id, format!("{id}@shop.example"), credit, version(day)],
    )
    .expect("a customer");
    id
}

fn new_order(day: &Transaction<'_>, rng: &mut Rng, customer: i64) {
    let no = rng.i64(1..1 << 40);
    let note = rng.bool().then(|| "ünïcode 'quoted' \\ text ".repeat(rng.usize(0..4)));
    day.execute("INSERT INTO orders VALUES (?1, ?2, ?3, ?4)", params![customer, no, note, version(day)])
        .expect("an order");
    for line in 0..rng.i64(0..4) {
        let weight = rng.bool().then(|| f64::from(rng.u16(..)) / 4.0);
        day.execute(
            "INSERT INTO lines VALUES (?1, ?2, ?3, ?4, ?5)",
            params![customer, no, line, weight, version(day)],
        )
        .expect("a line");
    }
}

/// Some customer; there always is one.
fn some_customer(day: &Transaction<'_>, rng: &mut Rng) -> i64 {
    let query = "SELECT id FROM customers ORDER BY id < ?1, id LIMIT 1";
    day.query_row(query, [rng.i64(1..1 << 40)], |row| row.get(0)).expect("a customer")
}

fn update(day: &Transaction<'_>, rng: &mut Rng) {
    let customer = some_customer(day, rng);
    let credit = f64::from(rng.u16(..)) / 4.0;
    let sql = "UPDATE customers SET credit = ?2, row_version = ?3 WHERE id = ?1";
    day.execute(sql, params![customer, credit, version(day)]).expect("an update");
}

/// Versions stay as they are: only windows find this.
fn update_in_place(day: &Transaction<'_>, rng: &mut Rng) {
    let customer = some_customer(day, rng);
    let sql = "UPDATE customers SET credit = coalesce(credit, 0) + 0.25 WHERE id = ?1 AND credit >= 0";
    day.execute(sql, [customer]).expect("an update");
}

fn swap_emails(day: &Transaction<'_>, rng: &mut Rng) {
    let (one, other) = (some_customer(day, rng), some_customer(day, rng));
    if one == other {
        return;
    }
    let email = |id| -> String {
        day.query_row("SELECT email FROM customers WHERE id = ?1", [id], |row| row.get(0)).expect("an email")
    };
    for (id, email) in [(one, email(other)), (other, email(one))] {
        let sql = "UPDATE customers SET email = ?2, row_version = ?3 WHERE id = ?1";
        day.execute(sql, params![id, email, version(day)]).expect("an update");
    }
}

fn delete_lines(day: &Transaction<'_>, rng: &mut Rng) {
    let sql = "DELETE FROM lines WHERE row_version IN
               (SELECT row_version FROM lines ORDER BY customer_id < ?1, customer_id LIMIT 2)";
    day.execute(sql, [rng.i64(1..1 << 40)]).expect("a delete");
}

fn delete_customer(day: &Transaction<'_>, rng: &mut Rng) {
    let count: i64 = day.query_row("SELECT count(*) FROM customers", [], |row| row.get(0)).expect("a count");
    // The shop neither dies out nor grows without end.
    let doomed = if count < CUSTOMERS_AT_FIRST { 0 } else { 1 + (count - CUSTOMERS_AT_FIRST) / 4 };
    for _ in 0..doomed {
        let customer = some_customer(day, rng);
        for sql in [
            "DELETE FROM lines WHERE customer_id = ?1",
            "DELETE FROM orders WHERE customer_id = ?1",
            "DELETE FROM customers WHERE id = ?1",
        ] {
            day.execute(sql, [customer]).expect("a delete");
        }
    }
}

/// Rows without a key come and go, many equal ones among them: about as many as five uploads take.
fn visit(day: &Transaction<'_>, rng: &mut Rng) {
    for _ in 0..rng.u8(1..6) {
        let sql = "INSERT INTO visits SELECT 'page ' || ?1, ?2 FROM customers LIMIT ?3";
        day.execute(sql, params![rng.u8(..4), rng.u8(..3), rng.u8(1..15)]).expect("visits");
    }
    let sql = "DELETE FROM visits WHERE rowid IN (SELECT rowid FROM visits ORDER BY rowid % ?1, rowid LIMIT -1 OFFSET 100)";
    day.execute(sql, [rng.u8(1..7)]).expect("old visits go");
    let sql = "UPDATE visits SET seconds = NULL WHERE rowid % 11 = ?1";
    day.execute(sql, [rng.u8(..11)]).expect("altered visits");
}

/// Rows without a version: only a comparison finds these.
fn set(day: &Transaction<'_>, rng: &mut Rng) {
    for _ in 0..rng.u8(1..30) {
        let sql = "INSERT INTO settings VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        day.execute(sql, params![format!("setting {}", rng.u8(..100)), rng.u8(..).to_string()])
            .expect("a setting");
    }
    let sql = "DELETE FROM settings WHERE rowid % 13 = ?1";
    day.execute(sql, [rng.u8(..13)]).expect("settings go");
}

/// The price list is made anew: only as a whole it means something.
fn reprice(day: &Transaction<'_>, rng: &mut Rng) {
    let sql = "INSERT INTO prices VALUES (?1, ?2) ON CONFLICT DO UPDATE SET price = excluded.price";
    let items = rng.i64(1..40);
    for item in 0..items {
        day.execute(sql, [item, rng.i64(1..1_000)]).expect("a price");
    }
    day.execute("DELETE FROM prices WHERE item >= ?1", [items]).expect("what is not sold any more");
}

/// Nothing but new prices.
pub fn live_dearly(local: &mut Connection, rng: &mut Rng) {
    let day = local.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction");
    reprice(&day, rng);
    day.commit().expect("a commit");
}

/// A customer whom the server refuses until it is mended, with an order that waits meanwhile.
fn break_rule(day: &Transaction<'_>, rng: &mut Rng) {
    let customer = new_customer(day, rng, -1.0);
    new_order(day, rng, customer);
}

/// Nothing but such a customer.
pub fn live_badly(local: &mut Connection, rng: &mut Rng) {
    let day = local.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction");
    break_rule(&day, rng);
    day.commit().expect("a commit");
}

/// One change of the shop's own.
pub fn live(local: &mut Connection, rng: &mut Rng) {
    let day = local.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction");
    match rng.u8(..15) {
        0 | 1 => {
            let customer = new_customer(&day, rng, 10.5);
            new_order(&day, rng, customer);
        }
        2 | 3 => {
            let customer = some_customer(&day, rng);
            new_order(&day, rng, customer);
        }
        4 => update(&day, rng),
        5 => update_in_place(&day, rng),
        6 => swap_emails(&day, rng),
        7 => delete_lines(&day, rng),
        8 => delete_customer(&day, rng),
        9..12 => visit(&day, rng),
        12 => set(&day, rng),
        13 => reprice(&day, rng),
        _ => break_rule(&day, rng),
    }
    day.commit().expect("a commit");
}

/// The first customers.
pub fn fill(local: &mut Connection, rng: &mut Rng) {
    let day = local.transaction().expect("a transaction");
    for _ in 0..CUSTOMERS_AT_FIRST {
        let customer = new_customer(&day, rng, 5.25);
        new_order(&day, rng, customer);
    }
    set(&day, rng);
    visit(&day, rng);
    reprice(&day, rng);
    day.commit().expect("a commit");
}

/// Puts right what the server has to refuse.
pub fn mend(local: &mut Connection) {
    let day = local.transaction_with_behavior(TransactionBehavior::Immediate).expect("a transaction");
    let broken: Vec<i64> = day
        .prepare("SELECT id FROM customers WHERE credit < 0")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .expect("the broken customers");
    for id in broken {
        let sql = "UPDATE customers SET credit = 0, row_version = ?2 WHERE id = ?1";
        day.execute(sql, params![id, version(&day)]).expect("an update");
    }
    day.commit().expect("a commit");
}

/// Damage that somebody does behind the server's back, to these tables.
pub fn damage(tables: &[&str], rng: &mut Rng) -> &'static str {
    let done = if tables == ORDERED { &DAMAGE[..3] } else { &DAMAGE };
    done[rng.usize(..done.len())]
}

/// The first three to tables whose rows have an order.
const DAMAGE: [&str; 7] = [
    "DELETE FROM lines WHERE row_version IN (SELECT row_version FROM lines ORDER BY row_version LIMIT 1)",
    "UPDATE orders SET note = 'altered' WHERE row_version = (SELECT min(row_version) FROM orders)",
    "INSERT INTO lines (client_id, database_id, customer_id, no, line, row_version)
     SELECT client_id, database_id, customer_id, no, 99, row_version FROM orders ORDER BY row_version LIMIT 1
     ON CONFLICT DO NOTHING",
    "DELETE FROM visits; DELETE FROM settings WHERE length(value) > 1",
    "INSERT INTO visits SELECT * FROM visits WHERE page = 'page 1'",
    "UPDATE prices SET price = -1 WHERE item % 7 = 3; DELETE FROM prices WHERE item % 7 = 4",
    "DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE seconds = 1 ORDER BY ctid LIMIT 7)",
];
