//! The whole way back: the server is right, and the client's command writes a local database of the kind. Both are
//! compared by the databases' own text, and what the server has stays as it is.

use super::kind::{LocalKind, Table};
use super::whole_way::{Replica, happens, seeded, tables, turned};

/// First pull, changes on the server, whatever an application does here: level each time.
pub fn what_the_server_has_is_pulled<K: LocalKind>() {
    let tables = tables();
    let mut rng = seeded();
    let mut replica = turned::<K>(&tables, "direction = \"pull\"", &mut rng);
    let filled: Vec<&Table> = tables.iter().filter(|table| table.name != "empty").collect();
    for round in 0..3 {
        happens(&mut replica, round, &filled, &mut rng);
        let content = |replica: &Replica<'_, K>| -> Vec<Vec<String>> {
            tables.iter().map(|table| replica.site.content(&format!("public.\"{}\"", table.name))).collect()
        };
        let before = content(&replica);
        replica.make_level();
        assert!(content(&replica) == before, "round {round}: the server was changed");
        tables.iter().for_each(|table| replica.assert_equal(table));
    }
}
