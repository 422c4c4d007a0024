//! The whole way back: the server is right, and the client's command writes a local database of the kind. Both are
//! compared by the databases' own text, and what the server has stays as it is.

use fastrand::Rng;

use super::kind::{Cell, LocalKind, Table};
use super::whole_way::{Replica, changes, damage, row, tables};

/// First pull, changes on the server, whatever an application does here: level each time.
pub fn what_the_server_has_is_pulled<K: LocalKind>() {
    let tables = tables();
    let mut replica = Replica::<K>::written(&tables.iter().collect::<Vec<_>>());
    let seed = std::env::var("PLIMSOLL_SEED")
        .ok()
        .map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    println!("PLIMSOLL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);
    let filled: Vec<&Table> = tables.iter().filter(|table| table.name != "empty").collect();
    for table in &filled {
        let rows: Vec<Vec<Cell>> = (0..1_000).map(|i| row(table, i, i / 3, &mut rng)).collect();
        replica.local.insert(table, &rows);
    }
    replica.make_level();
    // From here on the other way.
    let config = std::fs::read_to_string(replica.home.path("plimsoll.toml")).expect("the configuration");
    replica.home.write("plimsoll.toml", &config.replace("[[table]]\n", "[[table]]\ndirection = \"pull\"\n"));
    let mut version = 10_000;
    for round in 0..3 {
        match round {
            // As if it were the first pull.
            0 => filled.iter().for_each(|table| {
                replica.local.run(&format!("DELETE FROM {}", K::quoted(&table.name)));
            }),
            1 => damage(&mut replica, &filled, &mut rng),
            _ => changes(&mut replica.local, &filled, &mut version, &mut rng),
        }
        let content = |replica: &Replica<'_, K>| -> Vec<Vec<String>> {
            tables.iter().map(|table| replica.site.content(&format!("public.\"{}\"", table.name))).collect()
        };
        let before = content(&replica);
        replica.make_level();
        assert!(content(&replica) == before, "round {round}: the server was changed");
        tables.iter().for_each(|table| replica.assert_equal(table));
    }
}
