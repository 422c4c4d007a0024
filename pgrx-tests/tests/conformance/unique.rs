//! Unique values besides the key that change places between rows: in one batch, and in batches of one and two rows.

use super::kind::{Cell, LocalKind, Table, Type};
use super::whole_way::Replica;

/// Rows by their number whose words move: each takes the word of the next, the last that of the first.
const MOVES: [&[i64]; 4] = [&[1, 40], &[5, 6], &[10, 30, 20], &[11, 12, 13, 14]];

/// Swaps and longer cycles are level after one run, whatever batches their rows come in.
pub fn unique_values_change_places<K: LocalKind>() {
    use Type::{Number, Text};
    let columns = [("id", Number), ("word", Text), ("v", Number)];
    let versioned = Table::new("versioned", &columns, &["id"], Some("v"));
    let hashed = Table { name: "hashed".to_owned(), version: None, indexed: false, ..versioned.clone() };
    let tables = [&versioned, &hashed];
    let mut replica = Replica::<K>::new(&tables);
    for table in tables {
        let row = |i: i64| -> Vec<Cell> { vec![i.into(), Cell::Text(format!("word {i}")), i.into()] };
        replica.local.insert(table, &(1..=40).map(row).collect::<Vec<_>>());
        let sql = format!("CREATE UNIQUE INDEX ON {} (client_id, database_id, word)", table.name);
        replica.site.owner().batch_execute(&sql).expect("an index");
    }
    // Rows that make room for each other are taken out and put in again, which counts as deleted.
    let sql = format!("SELECT plimsoll.set_option('{}', 'guard_fraction', '1')", replica.registered.id);
    replica.site.superuser().batch_execute(&sql).expect("an option");
    replica.make_level();
    let config = std::fs::read_to_string(replica.home.path("plimsoll.toml")).expect("a configuration");
    let mut version = 1_000;
    for rows in [100_000, 1, 2] {
        let limited = config.replacen("[source]", &format!("[sync]\nmax_batch_rows = {rows}\n\n[source]"), 1);
        replica.home.write("plimsoll.toml", &limited);
        for table in tables {
            let [name, id, word, v] = [table.name.as_str(), "id", "word", "v"].map(K::quoted);
            for moving in MOVES {
                let texts = replica.local.texts(table);
                let word_of = |number: &i64| {
                    let number = Some(number.to_string());
                    texts.iter().find(|row| row[0] == number).and_then(|row| row[1].clone()).expect("a word")
                };
                for (number, next) in moving.iter().zip(moving.iter().cycle().skip(1)) {
                    version += 1;
                    let text = K::literal(&Cell::Text(word_of(next)));
                    replica.local.run(&format!(
                        "UPDATE {name} SET {word} = {text}, {v} = {version} WHERE {id} = {number}"
                    ));
                }
            }
        }
        replica.home.run(["sync", "--quiet"]).expect_code(0);
        replica.home.run(["verify", "--quiet"]).expect_code(0);
        tables.into_iter().for_each(|table| replica.assert_equal(table));
    }
}
