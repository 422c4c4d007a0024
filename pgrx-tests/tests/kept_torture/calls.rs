//! What agents ask of the server while applications change rows.

use fastrand::Rng;

use crate::statements::{Statement, delete_many, insert_many, update_many};
use crate::values::{range, registered, ship, stamp};
use crate::world::{TABLES, Tenant, World};

/// A statement of many rows, or a fold of what such statements left.
pub fn heavy(world: &World<'_>, rng: &mut Rng) -> Statement {
    let tenant = registered(world, rng);
    let (id, table) = (tenant.database_id, TABLES[rng.usize(..2)]);
    Statement::application(match rng.u8(..20) {
        0..=5 => insert_many(tenant, rng),
        6 => delete_many(tenant, rng),
        7..=9 => update_many(tenant, rng),
        10 => return Statement::agent(upload(tenant, rng)),
        11 => return Statement::agent(format!("SELECT plimsoll.rebuild_manifest('{id}', '{table}')")),
        _ => return Statement::agent(format!("SELECT plimsoll.fold_manifest('{id}', '{table}')")),
    })
}

/// What agents call.
pub fn call(tenant: &Tenant, rng: &mut Rng) -> String {
    let (id, table) = (tenant.database_id, TABLES[rng.usize(..2)]);
    let (from, to) = range(rng);
    match rng.u32(..100) {
        0..45 => upload(tenant, rng),
        45..60 => format!(
            "SELECT plimsoll.delete_rows('{id}', 'yard.ship', '[{{\"key\": {{\"id\": {}}}}}, {{\"key\": {{\"id\": {}}}}}]'::jsonb)",
            ship(rng),
            ship(rng)
        ),
        60..65 => format!(
            "SELECT plimsoll.delete_range('{id}', '{table}', int8range({from}, {}))",
            to.min(from.saturating_add(200))
        ),
        65 => format!("SELECT plimsoll.delete_all('{id}', '{table}')"),
        66..90 => format!("SELECT plimsoll.fold_manifest('{id}', '{table}')"),
        90..95 => format!("SELECT plimsoll.rebuild_manifest('{id}', '{table}')"),
        _ => format!(
            "SELECT plimsoll.end_run(r.run_id, 'finished') FROM plimsoll.begin_run('{id}', 'agent', '1.0', 1) r"
        ),
    }
}

fn upload(tenant: &Tenant, rng: &mut Rng) -> String {
    let id = tenant.database_id;
    if rng.u8(..4) == 0 {
        let (first, base, count) = (rng.i32(20_000..2_000_000), rng.i64(0..100_000), rng.i32(50..1_500));
        return format!(
            "SELECT plimsoll.upload('{id}', 'yard.ship', (SELECT jsonb_agg(jsonb_build_object('id', i,
                 'name', 'sent', 'stamp', {base} + i)) FROM generate_series({first}, {}) i))",
            first + count
        );
    }
    let rows: Vec<String> = (0..rng.usize(1..20))
        .map(|_| {
            format!(
                "{{\"id\": {}, \"name\": \"sent {}\", \"stamp\": {}}}",
                ship(rng),
                rng.u16(..),
                stamp(rng)
            )
        })
        .collect();
    format!("SELECT plimsoll.upload('{id}', 'yard.ship', '[{}]'::jsonb)", rows.join(", "))
}
