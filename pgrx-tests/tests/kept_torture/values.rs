//! Random values and rows, as SQL writes them.

use fastrand::Rng;

use crate::world::{COMMON_SHIPS, PARTITION_BOUNDS, Tenant, World};

/// Positions that many rows share.
const CROWDED: [i64; 3] = [-1, 0, 7];
const EXTREMES: [i64; 4] = [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX];

/// Mostly a registered database, now and then a tenant that is none.
pub fn tenant<'w>(world: &'w World<'_>, rng: &mut Rng) -> &'w Tenant {
    let from = if rng.u8(..20) == 0 { &world.strays } else { &world.tenants };
    &from[rng.usize(..from.len())]
}

/// A registered database.
pub fn registered<'w>(world: &'w World<'_>, rng: &mut Rng) -> &'w Tenant {
    &world.tenants[rng.usize(..world.tenants.len())]
}

/// A position: dense, crowded, far apart, at the ends of the axis.
pub fn stamp(rng: &mut Rng) -> i64 {
    match rng.u8(..20) {
        0..=8 => rng.i64(0..5_000),
        9..=12 => CROWDED[rng.usize(..CROWDED.len())],
        13..=15 => 1_700_000_000_000_000 + rng.i64(0..1_000_000_000),
        16 | 17 => rng.i64(-1_000..1_000),
        18 => EXTREMES[rng.usize(..EXTREMES.len())],
        _ => rng.i64(..),
    }
}

/// Two positions in order, the second excluded.
pub fn range(rng: &mut Rng) -> (i64, i64) {
    let (one, other) = (stamp(rng), stamp(rng));
    (one.min(other), one.max(other).max(i64::MIN + 1))
}

/// A timestamp with time zone.
pub fn changed(rng: &mut Rng) -> String {
    match rng.u8(..20) {
        0..=4 => "NULL".to_owned(),
        5 => "'infinity'".to_owned(),
        6 => "'-infinity'".to_owned(),
        7 => "'0044-03-15 12:00:00Z BC'".to_owned(),
        _ => format!(
            "'2026-{:02}-{:02} 12:{:02}:00.{:06}Z'",
            rng.u8(1..13),
            rng.u8(1..29),
            rng.u8(..60),
            rng.u32(..1_000_000)
        ),
    }
}

/// The name of a ship; some set off triggers, some are stored apart from their row.
pub fn name(rng: &mut Rng) -> String {
    match rng.u8(..40) {
        0..=3 => "NULL".to_owned(),
        4 | 5 => "''".to_owned(),
        6 | 7 => "'nest'".to_owned(),
        8 => "'late'".to_owned(),
        9 => "'ünïcødé 😀 '' \\'".to_owned(),
        10 => format!("repeat('x{}', 2000)", rng.u8(..)),
        11 => format!(
            "(SELECT string_agg(md5(i::text), '') FROM generate_series({0}, {0} + 300) i)",
            rng.u16(..)
        ),
        _ => format!("'ship {}'", rng.u16(..)),
    }
}

/// The label of a crate; some set off triggers.
pub fn label(rng: &mut Rng) -> String {
    match rng.u8(..16) {
        0 => "NULL".to_owned(),
        1 => "'skip'".to_owned(),
        2 => "'shout'".to_owned(),
        3 => "'stays'".to_owned(),
        _ => format!("'crate {}'", rng.u16(..)),
    }
}

fn cargo(rng: &mut Rng) -> &'static str {
    ["NULL", "1.50", "1.5", "0", "'-0.00'", "1e400", "'NaN'", "123456789.123456789"][rng.usize(..8)]
}

fn weight(rng: &mut Rng) -> &'static str {
    ["NULL", "'-0'", "0", "'NaN'", "'Infinity'", "0.1", "1e-300"][rng.usize(..7)]
}

fn state(rng: &mut Rng) -> &'static str {
    ["NULL", "'new'", "'afloat'", "'sunk'"][rng.usize(..4)]
}

/// The number of a ship that many statements use.
pub fn ship(rng: &mut Rng) -> i32 {
    rng.i32(0..COMMON_SHIPS)
}

/// The number of a crate, of any partition.
pub fn crate_no(rng: &mut Rng) -> i32 {
    rng.i32(0..PARTITION_BOUNDS[1] + 10)
}

pub const SHIP_COLUMNS: &str = "client_id, database_id, id, name, cargo, state, stamp, changed";
pub const CRATE_COLUMNS: &str = "client_id, database_id, ship_id, no, label, weight, stamp, changed";

/// A ship as `VALUES` lists it, each value with its type.
pub fn ship_row(tenant: &Tenant, rng: &mut Rng) -> String {
    let (id, name, cargo) = (ship(rng), name(rng), cargo(rng));
    let (state, stamp, changed) = (state(rng), stamp(rng), changed(rng));
    format!(
        "({}, {id}, {name}::text, {cargo}::numeric, {state}::yard.state, '{stamp}'::bigint,
            {changed}::timestamptz)",
        tenant.values()
    )
}

/// A crate of a ship as `VALUES` lists it, each value with its type.
pub fn crate_row(tenant: &Tenant, rng: &mut Rng) -> String {
    let (ship, no, label) = (ship(rng), crate_no(rng), label(rng));
    let (weight, stamp, changed) = (weight(rng), stamp(rng), changed(rng));
    format!(
        "({}, {ship}, {no}, {label}::text, {weight}::float8, '{stamp}'::bigint, {changed}::timestamptz)",
        tenant.values()
    )
}

/// What an `UPDATE` of ships sets: sometimes nothing new, often the position.
pub fn ship_change(rng: &mut Rng) -> String {
    match rng.u8(..10) {
        0 => "name = t.name".to_owned(),
        1 | 2 => format!("stamp = {}", stamp(rng)),
        3 => "stamp = t.stamp / 2".to_owned(),
        4 => format!("cargo = {}, state = {}", cargo(rng), state(rng)),
        5 => format!("changed = {}", changed(rng)),
        _ => format!("name = {}, stamp = {}, changed = {}", name(rng), stamp(rng), changed(rng)),
    }
}

/// What an `UPDATE` of crates sets.
pub fn crate_change(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => format!("weight = {}", weight(rng)),
        1 => "stamp = t.stamp / 2".to_owned(),
        2 => format!("changed = {}", changed(rng)),
        _ => format!("label = {}, stamp = {}", label(rng), stamp(rng)),
    }
}

/// The position of the i-th row of a statement that makes many: one after the other, all the same, far apart,
/// or all over the axis.
pub fn many_stamps(rng: &mut Rng) -> String {
    match rng.u8(..6) {
        0..=2 => format!("{} + i", rng.i64(0..20_000)),
        3 => format!("{}", stamp(rng)),
        4 => format!("{} + i * 1000003::bigint", rng.i64(-1_000_000..1_000_000)),
        _ => "hashint8extended(i, 7)".to_owned(),
    }
}
