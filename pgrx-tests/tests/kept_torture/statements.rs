//! Random statements: whatever an application may do to rows, and what agents ask of the server meanwhile.

use fastrand::Rng;

use crate::calls::call;
use crate::values::{
    CRATE_COLUMNS, SHIP_COLUMNS, changed, crate_change, crate_no, crate_row, label, many_stamps, name,
    registered, ship, ship_change, ship_row, stamp, tenant,
};
use crate::world::{Tenant, World};

/// The most rows one statement makes.
const MOST_ROWS: i32 = 3_000;

/// As whom a statement runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    Application,
    Agent,
}

/// A statement, and the rows that follow it where it is a COPY.
#[derive(Debug)]
pub struct Statement {
    pub actor: Actor,
    pub sql: String,
    pub copied: Option<String>,
}

impl Statement {
    pub fn application(sql: String) -> Self {
        Statement { actor: Actor::Application, sql, copied: None }
    }

    pub fn agent(sql: String) -> Self {
        Statement { actor: Actor::Agent, sql, copied: None }
    }
}

/// Some statement.
pub fn any(world: &World<'_>, rng: &mut Rng) -> Statement {
    let tenant = tenant(world, rng);
    let sql = match rng.u32(..1_000) {
        0..150 => insert(tenant, rng),
        150..175 => insert_many(tenant, rng),
        175..330 => update(tenant, rng),
        330..370 => update_many(tenant, rng),
        370..410 => move_rows(world, tenant, rng),
        410..490 => delete(tenant, rng),
        490..510 => delete_many(tenant, rng),
        510..590 => upsert(tenant, rng),
        // Postgres 14 has no MERGE.
        590..640 if world.cluster.major() < 15 => upsert(tenant, rng),
        590..640 => merge(tenant, rng),
        640..690 => with(tenant, rng),
        690..740 => return copy(tenant, rng),
        740..790 => on_partition(tenant, rng),
        790..830 => block(tenant, rng),
        830..833 => truncate(rng),
        833..840 => "UPDATE yard.ship SET stamp = 1 WHERE false".to_owned(),
        _ => return Statement::agent(call(registered(world, rng), rng)),
    };
    Statement::application(sql)
}

fn insert(tenant: &Tenant, rng: &mut Rng) -> String {
    let count = if rng.bool() { 1 } else { rng.usize(2..12) };
    if rng.bool() {
        let rows: Vec<String> = (0..count).map(|_| ship_row(tenant, rng)).collect();
        let conflict = if rng.u8(..4) == 0 { "" } else { " ON CONFLICT DO NOTHING" };
        format!("INSERT INTO yard.ship ({SHIP_COLUMNS}) VALUES {}{conflict}", rows.join(", "))
    } else {
        let rows: Vec<String> = (0..count).map(|_| crate_row(tenant, rng)).collect();
        // Only of ships that are there.
        format!(
            "INSERT INTO yard.crate ({CRATE_COLUMNS})
             SELECT v.* FROM (VALUES {}) AS v (a, b, c, d, e, f, g, h)
             JOIN yard.ship s ON s.client_id = v.a AND s.database_id = v.b AND s.id = v.c
             ON CONFLICT DO NOTHING",
            rows.join(", ")
        )
    }
}

/// Rows that one statement makes.
pub fn insert_many(tenant: &Tenant, rng: &mut Rng) -> String {
    let (count, stamps, changed) = (rng.i32(100..MOST_ROWS), many_stamps(rng), changed(rng));
    if rng.u8(..3) > 0 {
        let first = rng.i32(1_000..20_000);
        format!(
            "INSERT INTO yard.ship ({SHIP_COLUMNS}) SELECT {}, i, 'many ' || i, i / 8.0, 'new', {stamps},
                 {changed}::timestamptz + i * interval '1 second' FROM generate_series({first}, {}) i
             ON CONFLICT DO NOTHING",
            tenant.values(),
            first + count
        )
    } else {
        format!(
            "INSERT INTO yard.crate ({CRATE_COLUMNS}) SELECT s.client_id, s.database_id, s.id, i % 30,
                 'many', i / 8.0, {stamps}, {changed}::timestamptz
             FROM yard.ship s, generate_series(1, 30) i WHERE {} AND s.id BETWEEN 0 AND {}
             ON CONFLICT DO NOTHING",
            tenant.is("s"),
            count / 30
        )
    }
}

fn update(tenant: &Tenant, rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0 | 1 => format!(
            "UPDATE yard.ship t SET {} WHERE {} AND id = {}",
            ship_change(rng),
            tenant.is("t"),
            ship(rng)
        ),
        2 | 3 => format!(
            "UPDATE yard.crate t SET {} WHERE {} AND ship_id = {}",
            crate_change(rng),
            tenant.is("t"),
            ship(rng)
        ),
        // Partitions change, keys collide.
        4 => format!(
            "UPDATE yard.crate t SET no = {}, stamp = {} WHERE {} AND ship_id = {} AND no = {}",
            crate_no(rng),
            stamp(rng),
            tenant.is("t"),
            ship(rng),
            crate_no(rng)
        ),
        // Cascades to crates.
        _ => format!(
            "UPDATE yard.ship t SET id = {} WHERE {} AND id = {}",
            ship(rng),
            tenant.is("t"),
            ship(rng)
        ),
    }
}

/// A change of many rows.
pub fn update_many(tenant: &Tenant, rng: &mut Rng) -> String {
    let (first, is) = (ship(rng), tenant.is("t"));
    match rng.u8(..4) {
        0 => format!("UPDATE yard.ship t SET {} WHERE {is} AND id >= {first}", ship_change(rng)),
        1 => format!("UPDATE yard.crate t SET {} WHERE {is} AND ship_id >= {first}", crate_change(rng)),
        2 => format!("UPDATE yard.crate t SET no = (no + 10) % 30 WHERE {is} AND ship_id = {first}"),
        // Rows of all tenants.
        _ => format!("UPDATE yard.ship t SET {} WHERE id = {first}", ship_change(rng)),
    }
}

/// Rows go over to another tenant, crates with their ships.
fn move_rows(world: &World<'_>, from: &Tenant, rng: &mut Rng) -> String {
    let to = tenant(world, rng);
    let first = ship(rng);
    format!(
        "UPDATE yard.ship t SET client_id = '{}', database_id = '{}', id = {} + (id - {first}), stamp = {}
         WHERE {} AND id BETWEEN {first} AND {}",
        to.client_id,
        to.database_id,
        rng.i32(200..900),
        stamp(rng),
        from.is("t"),
        first + rng.i32(0..3)
    )
}

fn delete(tenant: &Tenant, rng: &mut Rng) -> String {
    let (is, ship) = (tenant.is("t"), ship(rng));
    match rng.u8(..3) {
        // Cascades to crates, some of which stay.
        0 => format!("DELETE FROM yard.ship t WHERE {is} AND id = {ship}
                          AND NOT EXISTS (SELECT FROM yard.crate c WHERE c.ship_id = t.id AND c.label = 'stays')"),
        1 => format!("DELETE FROM yard.crate t WHERE {is} AND ship_id = {ship}"),
        _ => format!("DELETE FROM yard.crate t USING yard.ship s WHERE {is} AND s.id = t.ship_id AND s.stamp = 0
                          AND t.client_id = s.client_id AND t.database_id = s.database_id"),
    }
}

/// Many rows that go.
pub fn delete_many(tenant: &Tenant, rng: &mut Rng) -> String {
    let is = tenant.is("t");
    match rng.u8(..4) {
        0 => format!("DELETE FROM yard.ship t WHERE {is} AND id >= 1000"),
        1 => {
            format!("DELETE FROM yard.ship t WHERE {is} AND id >= {} AND id % 3 > 0", rng.i32(1_000..20_000))
        }
        2 => format!("DELETE FROM yard.ship t WHERE {is} AND id >= 1000 AND stamp > {}", stamp(rng)),
        _ => format!("DELETE FROM yard.crate t WHERE {is} AND stamp < {}", stamp(rng)),
    }
}

fn upsert(tenant: &Tenant, rng: &mut Rng) -> String {
    if rng.u8(..3) == 0 {
        return format!(
            "INSERT INTO yard.crate AS t ({CRATE_COLUMNS})
             SELECT s.client_id, s.database_id, s.id, n, {}, 1, {}, {}::timestamptz
             FROM yard.ship s, unnest(ARRAY[{}, 12, 27]) n WHERE {} AND s.id BETWEEN {} AND {}
             ON CONFLICT (client_id, database_id, ship_id, no) DO UPDATE SET {}",
            label(rng),
            stamp(rng),
            changed(rng),
            rng.i32(0..10),
            tenant.is("s"),
            ship(rng),
            ship(rng),
            crate_change(rng)
        );
    }
    let rows: Vec<String> = (0..rng.usize(1..10)).map(|_| ship_row(tenant, rng)).collect();
    // A later row of a list that meets an earlier one is an error; distinct keys make it rarer.
    format!(
        "INSERT INTO yard.ship AS t ({SHIP_COLUMNS})
         SELECT DISTINCT ON (c) * FROM (VALUES {}) AS v (a, b, c, d, e, f, g, h)
         ON CONFLICT (client_id, database_id, id) DO UPDATE
             SET name = excluded.name, stamp = excluded.stamp WHERE t.id % 5 > 0",
        rows.join(", ")
    )
}

fn merge(tenant: &Tenant, rng: &mut Rng) -> String {
    let first = ship(rng);
    if rng.bool() {
        // Rows go from one partition to another.
        return format!(
            "MERGE INTO yard.crate t USING (SELECT s.*, n FROM yard.ship s, unnest(ARRAY[4, 14, 24]) n
                 WHERE {} AND s.id BETWEEN {first} AND {first} + 5) s
                 ON t.client_id = s.client_id AND t.database_id = s.database_id AND t.ship_id = s.id AND t.no = s.n
             WHEN MATCHED AND t.weight IS NULL THEN DELETE
             WHEN MATCHED THEN UPDATE SET no = t.no + {}, stamp = {}
             WHEN NOT MATCHED THEN INSERT ({CRATE_COLUMNS})
                 VALUES (s.client_id, s.database_id, s.id, s.n, {}, 1, s.stamp, NULL)",
            tenant.is("s"),
            rng.i32(-2..3) * 10,
            stamp(rng),
            label(rng)
        );
    }
    format!(
        "MERGE INTO yard.ship t USING (SELECT i, {}::bigint AS stamp FROM generate_series({first}, {}) i) s
             ON {} AND t.id = s.i
         WHEN MATCHED AND t.id % 3 = 0 AND NOT EXISTS (SELECT FROM yard.crate c WHERE c.label = 'stays') THEN DELETE
         WHEN MATCHED THEN UPDATE SET stamp = s.stamp, name = {}
         WHEN NOT MATCHED THEN INSERT ({SHIP_COLUMNS}) VALUES ({}, s.i, {}, 1, NULL, s.stamp, NULL)",
        stamp(rng),
        first + rng.i32(1..20),
        tenant.is("t"),
        name(rng),
        tenant.values(),
        name(rng)
    )
}

/// Several changes in one statement, of one table too.
fn with(tenant: &Tenant, rng: &mut Rng) -> String {
    let (is, one, other) = (tenant.is("t"), ship(rng), ship(rng));
    match rng.u8(..3) {
        0 => format!(
            "WITH gone AS (DELETE FROM yard.crate t WHERE {is} AND ship_id = {one} RETURNING *)
             INSERT INTO yard.crate ({CRATE_COLUMNS})
             SELECT g.client_id, g.database_id, s.id, g.no, g.label, g.weight, {}, g.changed
             FROM gone g JOIN yard.ship s ON s.client_id = g.client_id AND s.database_id = g.database_id
             WHERE s.id = {other} AND s.id <> {one} ON CONFLICT DO NOTHING",
            stamp(rng)
        ),
        1 => format!(
            "WITH one AS (UPDATE yard.ship t SET {} WHERE {is} AND id = {one} RETURNING id),
                 two AS (UPDATE yard.ship t SET stamp = 3 WHERE {is} AND id <> {one} AND id BETWEEN {other} AND {other} + 3
                     RETURNING id),
                 three AS (INSERT INTO yard.ship ({SHIP_COLUMNS}) VALUES {} ON CONFLICT DO NOTHING RETURNING id)
             SELECT count(*) FROM one, two, three",
            ship_change(rng),
            ship_row(tenant, rng)
        ),
        _ => format!(
            "WITH one AS (UPDATE yard.ship t SET stamp = {} WHERE {is} AND id = {one} RETURNING *)
             UPDATE yard.crate t SET stamp = one.stamp, label = {} FROM one WHERE t.ship_id = one.id
                 AND t.client_id = one.client_id AND t.database_id = one.database_id",
            stamp(rng),
            label(rng)
        ),
    }
}

fn copy(tenant: &Tenant, rng: &mut Rng) -> Statement {
    let Tenant { client_id, database_id } = tenant;
    let (sql, lines): (_, Vec<String>) = if rng.u8(..4) == 0 {
        let line = |_| {
            let (ship, no, stamp) = (ship(rng), crate_no(rng), stamp(rng));
            format!("{client_id}\t{database_id}\t{ship}\t{no}\tcopied\t-0\t{stamp}\tinfinity\n")
        };
        (format!("COPY yard.crate ({CRATE_COLUMNS}) FROM STDIN"), (0..3).map(line).collect())
    } else {
        let count = if rng.u8(..8) == 0 { rng.i32(500..MOST_ROWS) } else { rng.i32(1..30) };
        let (first, base) = (rng.i32(20_000..2_000_000), stamp(rng));
        let line = |i| {
            let (id, stamp) = (first + i, base.wrapping_add(i64::from(i)));
            format!("{client_id}\t{database_id}\t{id}\tcopied\\tname\t{i}.50\t\\N\t{stamp}\t\\N\n")
        };
        (format!("COPY yard.ship ({SHIP_COLUMNS}) FROM STDIN"), (0..count).map(line).collect())
    };
    Statement { actor: Actor::Application, sql, copied: Some(lines.concat()) }
}

/// Statements that name partitions themselves.
fn on_partition(tenant: &Tenant, rng: &mut Rng) -> String {
    let (is, ship) = (tenant.is("t"), ship(rng));
    match rng.u8(..6) {
        0 => format!("UPDATE yard.crate_middle t SET {} WHERE {is} AND ship_id >= {ship}", crate_change(rng)),
        1 => format!("UPDATE yard.crate_high t SET {} WHERE {is} AND ship_id >= {ship}", crate_change(rng)),
        2 => format!("DELETE FROM yard.crate_high_0 t WHERE {is} AND ship_id = {ship}"),
        3 => format!("DELETE FROM yard.crate_low t WHERE {is} AND ship_id = {ship}"),
        4 => format!("UPDATE yard.crate_high t SET ship_id = s.id FROM yard.ship s WHERE {is} AND t.ship_id = {ship}
                          AND s.client_id = t.client_id AND s.database_id = t.database_id AND s.id > t.ship_id"),
        _ => format!(
            "INSERT INTO yard.crate_middle ({CRATE_COLUMNS})
             SELECT t.client_id, t.database_id, t.id, {}, 'direct', 0, {}, NULL FROM yard.ship t
             WHERE {is} AND t.id BETWEEN {ship} AND {ship} + 20 ON CONFLICT DO NOTHING",
            rng.i32(10..20),
            stamp(rng)
        ),
    }
}

/// Statements within a block: a cursor, and a part that is undone.
fn block(tenant: &Tenant, rng: &mut Rng) -> String {
    let (is, first) = (tenant.is("t"), ship(rng));
    format!(
        "DO $$ DECLARE c CURSOR FOR SELECT * FROM yard.ship t WHERE {is} AND id BETWEEN {first} AND {} FOR UPDATE;
         BEGIN
             FOR r IN c LOOP UPDATE yard.ship SET stamp = {}, changed = {} WHERE CURRENT OF c; END LOOP;
             BEGIN
                 UPDATE yard.ship t SET {} WHERE {is} AND id = {first};
                 DELETE FROM yard.crate t WHERE {is} AND ship_id = {first};
                 RAISE 'undone';
             EXCEPTION WHEN raise_exception THEN
                 UPDATE yard.crate t SET {} WHERE {is} AND ship_id = {first};
             END;
         END $$",
        first + rng.i32(0..8),
        stamp(rng),
        changed(rng),
        ship_change(rng),
        crate_change(rng)
    )
}

fn truncate(rng: &mut Rng) -> String {
    let what = ["yard.ship CASCADE", "yard.crate", "yard.crate_low", "yard.crate_high", "yard.crate_high_1"];
    format!("TRUNCATE {}", what[rng.usize(..what.len())])
}
