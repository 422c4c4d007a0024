//! Very many rows at one position.

use plimsoll_tests::shared;

use crate::judge::check_all_kept;
use crate::number;
use crate::world::World;

#[test]
fn a_position_may_have_any_number_of_rows() {
    let world = World::open(shared(), false);
    world.fill(0);
    let mut client = world.connect();
    let (crowd, tenant) = (number("PLIMSOLL_CROWD", 100_000) as i32, &world.tenants[0]);
    let (values, is) = (tenant.values(), tenant.is("t"));
    let check = |client: &mut postgres::Client| check_all_kept(client, &world);
    // Dense neighbours first, so that there are blocks around the position; then the crowd, in parts.
    for sql in [
        format!(
            "INSERT INTO yard.ship (client_id, database_id, id, name, stamp) SELECT {values}, -i, 'near', i - 3000
             FROM generate_series(1, 6000) i"
        ),
        format!(
            "INSERT INTO yard.ship (client_id, database_id, id, name, stamp) SELECT {values}, i, 'crowd', 77
             FROM generate_series(1, {}) i",
            crowd / 2
        ),
        format!(
            "INSERT INTO yard.ship (client_id, database_id, id, name, stamp) SELECT {values}, i, 'crowd', 77
             FROM generate_series({} + 1, {crowd}) i",
            crowd / 2
        ),
    ] {
        client.batch_execute(&sql).expect("rows");
        world.fold(&mut client, tenant, "yard.ship");
    }
    check(&mut client);
    for sql in [
        // Some move next door and back, some to the ends of the axis; the crowd changes as a whole; most go.
        format!("UPDATE yard.ship t SET stamp = 76 + id % 3 WHERE {is} AND id > {}", crowd / 10 * 9),
        format!("UPDATE yard.ship t SET stamp = CASE WHEN id % 2 = 0 THEN 9223372036854775807 ELSE -9223372036854775808 END
                 WHERE {is} AND id BETWEEN 1 AND 3000"),
        format!("UPDATE yard.ship t SET name = 'changed', changed = now() WHERE {is} AND stamp = 77"),
        format!("DELETE FROM yard.ship t WHERE {is} AND stamp = 77 AND id % 50 > 0"),
    ] {
        client.batch_execute(&sql).expect("a change");
        world.fold(&mut client, tenant, "yard.ship");
    }
    check(&mut client);
    client.batch_execute(&format!("DELETE FROM yard.ship t WHERE {is}")).expect("all rows go");
    world.fold(&mut client, tenant, "yard.ship");
    check(&mut client);
}
