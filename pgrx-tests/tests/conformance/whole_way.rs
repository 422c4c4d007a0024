//! The whole way: the client's command reads a local database of the kind, and the managed tables are compared with it by
//! the databases' own text, nothing of ours in between.

use fastrand::Rng;
use plimsoll_tests::{ClientHome, Registered, Site, shared};
use postgres::Client;

use super::kind::{Cell, LocalKind, Table, Type};

/// The column that counts the changes of each row for itself, where a table has it.
const REVISION: &str = "changed_times";

/// A local database with an agent of its own.
pub struct Replica<'c, K> {
    /// Where the managed tables are.
    pub site: Site<'c>,
    /// The local database.
    pub local: K,
    /// The database, as the server registered it.
    pub registered: Registered,
    /// The client.
    pub home: ClientHome,
}

impl<K: LocalKind> Replica<'_, K> {
    /// One with these tables on both sides, still empty.
    pub fn new(tables: &[&Table]) -> Self {
        Self::managed(Self::unmanaged(tables), tables)
    }

    /// The same where the client may write to the local tables.
    pub fn written(tables: &[&Table]) -> Self {
        let mut local = K::new();
        local.allow_writing();
        Self::managed(Self::with(local, tables), tables)
    }

    fn managed(replica: Self, tables: &[&Table]) -> Self {
        let Replica { site, home, .. } = &replica;
        let printed = home.run(["schema", "--owner", &site.owner]).expect_code(0).stdout;
        let mut superuser = site.superuser();
        // One by one, as psql does: in one transaction the locks of a thousand tables would not fit.
        for statement in printed.split_inclusive(";\n") {
            superuser.batch_execute(statement).unwrap_or_else(|error| panic!("{error:?}\n{statement}"));
        }
        for table in tables.iter().filter(|table| table.columns.iter().any(|(name, _)| name == REVISION)) {
            let arguments = format!("version_column => '{REVISION}', version_scope => 'row'");
            let sql = format!("SELECT plimsoll.manage_table('public.\"{}\"', {arguments})", table.name);
            superuser.batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}\n{sql}"));
        }
        replica
    }

    /// One with these tables on the local side alone, still empty.
    pub fn unmanaged(tables: &[&Table]) -> Self {
        Self::with(K::new(), tables)
    }

    fn with(mut local: K, tables: &[&Table]) -> Self {
        tables.iter().for_each(|table| local.create(table));
        let site = Site::new(shared());
        let registered = site.cluster.register(&site.database, "client", "local");
        let login = site.cluster.create_agent();
        let url = site.cluster.client_url(&login, &site.database);
        let home = ClientHome::new();
        home.write("token", &registered.token);
        let mut config = format!(
            "[server]\nurl = \"{url}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n[source]\n{}\n",
            registered.id,
            local.setting()
        );
        for table in tables {
            let (local, remote) = (K::configured(&table.name), &table.name);
            config.push_str(&format!("\n[[table]]\nname = '{local}'\nremote = 'public.\"{remote}\"'\n"));
            if let Some(version) = table.version {
                config.push_str(&format!("version = \"{version}\"\n"));
            }
        }
        home.write("plimsoll.toml", &config);
        let prepare = format!("CREATE EXTENSION citext; GRANT CREATE ON SCHEMA public TO {}", site.owner);
        site.superuser().batch_execute(&prepare).expect("a grant");
        Replica { site, local, registered, home }
    }

    /// Makes runs until the comparison finds nothing.
    #[track_caller]
    pub fn make_level(&self) {
        for _ in 0..4 {
            self.home.run(["sync", "--quiet", "--allow-mass-delete"]).expect_code(0);
            if self.home.run(["verify", "--quiet"]).code == Some(0) {
                return;
            }
        }
        let last = self.home.run(["verify", "--quiet"]);
        panic!("not level after four runs:\n{}\n{}", last.stdout, last.stderr);
    }

    /// Compares a table by text.
    #[track_caller]
    pub fn assert_equal(&mut self, table: &Table) {
        let mut here = in_one_spelling(table, self.local.texts(table));
        let mut there = in_one_spelling(table, remote_texts(&mut self.site.superuser(), table));
        here.sort_unstable();
        there.sort_unstable();
        let only = |a: &[Vec<Option<String>>], b: &[Vec<Option<String>>]| -> Vec<Vec<Option<String>>> {
            a.iter().filter(|row| b.binary_search(row).is_err()).take(3).cloned().collect()
        };
        assert!(
            here == there,
            "{}: {} rows here, {} there; only here {:?}, only there {:?}",
            table.name,
            here.len(),
            there.len(),
            only(&here, &there),
            only(&there, &here)
        );
    }
}

/// Rows in which a stamp has no more digits than it needs: SQLite has what was written, whoever wrote it.
fn in_one_spelling(table: &Table, mut rows: Vec<Vec<Option<String>>>) -> Vec<Vec<Option<String>>> {
    for row in &mut rows {
        let stamps = row.iter_mut().zip(&table.columns).filter(|(_, (_, of))| *of == Type::Stamp);
        for text in stamps.filter_map(|(text, _)| text.as_mut()).filter(|text| text.contains('.')) {
            text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        }
    }
    rows
}

fn remote_texts(server: &mut Client, table: &Table) -> Vec<Vec<Option<String>>> {
    let text = |(name, of): &(String, Type)| match of {
        Type::Bytes => format!("encode(\"{name}\", 'hex')"),
        Type::Stamp => format!("to_char(\"{name}\", 'YYYY-MM-DD HH24:MI:SS.US')"),
        _ => format!("\"{name}\"::text"),
    };
    let list: Vec<String> = table.columns.iter().map(text).collect();
    let sql = format!("SELECT {} FROM public.\"{}\"", list.join(", "), table.name);
    let rows = server.query(&sql, &[]).expect("the remote rows");
    rows.iter().map(|row| (0..list.len()).map(|place| row.get(place)).collect()).collect()
}

/// The tables; whether they have a version.
pub fn tables() -> Vec<Table> {
    use Type::{Bytes, Folded, Number, Stamp, Text};
    vec![
        Table::new("items", &[("id", Number), ("name", Text), ("v", Number)], &["id"], Some("v")),
        Table::new(
            "order.lines",
            &[("branch", Text), ("no", Number), ("data", Bytes), ("note", Folded), ("at", Stamp)],
            &["no", "branch"],
            Some("at"),
        ),
        Table::new("empty", &[("id", Number), ("v", Number)], &["id"], Some("v")),
        Table::new("unversioned", &[("k", Text), ("n", Number), ("note", Text)], &["k"], None),
        Table::new("loose", &[("n", Number), ("word", Text)], &[], None),
        Table::new("pages", &[("id", Number), ("body", Text), (REVISION, Number)], &["id"], None),
    ]
}

/// A row of a table; `number` makes it different from others.
pub fn row(table: &Table, number: i64, version: i64, rng: &mut Rng) -> Vec<Cell> {
    let cell = |(name, of): &(String, Type)| match (of, table.version == Some(name.as_str())) {
        (Type::Number, true) => Cell::Number(version),
        (Type::Stamp, true) => Cell::Stamp(700_000_000_000_000 + version * 1_000_003),
        // Of the table without a key every row is there several times.
        (Type::Number, _) if table.key.is_empty() => Cell::Number(number / 3),
        (Type::Number, _) => Cell::Number(number),
        (Type::Text, _) if table.key.contains(&name.as_str()) => {
            Cell::Text(format!("kéy {}", number % 7_919))
        }
        (Type::Text, _) if table.key.is_empty() => Cell::Text(format!("text {}", number % 2)),
        (_, _) if rng.u8(..5) == 0 => Cell::Null,
        (Type::Stamp, _) => Cell::Stamp(rng.i64(0..800_000_000_000_000)),
        (Type::Bytes, _) => Cell::Bytes(vec![rng.u8(..); rng.usize(..30)]),
        (Type::Text | Type::Folded, _) => Cell::Text(format!("Name {} 'quoted' é", rng.u32(..))),
    };
    table.columns.iter().map(cell).collect()
}

/// Choices by chance, which `PLIMSOLL_SEED` makes again.
pub fn seeded() -> Rng {
    let given = std::env::var("PLIMSOLL_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |text| text.parse().expect("a number"));
    println!("PLIMSOLL_SEED={seed}");
    Rng::with_seed(seed)
}

/// Puts so many rows into each table but the one that stays empty; answers the others.
pub fn fill<'t, K: LocalKind>(
    local: &mut K,
    tables: &'t [Table],
    rows: i64,
    rng: &mut Rng,
) -> Vec<&'t Table> {
    let filled: Vec<&Table> = tables.iter().filter(|table| table.name != "empty").collect();
    for table in &filled {
        let rows: Vec<Vec<Cell>> = (0..rows).map(|i| row(table, i, i / 3, rng)).collect();
        local.insert(table, &rows);
    }
    filled
}

/// Both sides level, each table with a thousand rows, and from then on the server is right: the tables go as `direction`, a
/// line of their configuration, says.
pub fn turned<K: LocalKind>(tables: &[Table], direction: &str, rng: &mut Rng) -> Replica<'static, K> {
    let mut replica = Replica::<K>::written(&tables.iter().collect::<Vec<_>>());
    fill(&mut replica.local, tables, 1_000, rng);
    replica.make_level();
    let path = replica.home.path("plimsoll.toml");
    let config = std::fs::read_to_string(path).expect("the configuration");
    replica.home.write("plimsoll.toml", &config.replace("[[table]]\n", &format!("[[table]]\n{direction}\n")));
    replica
}

/// Whatever may happen where the server is right, in three rounds: all is gone here as before the first run, rows are
/// damaged there, rows change here.
pub fn happens<K: LocalKind>(replica: &mut Replica<'_, K>, round: u32, filled: &[&Table], rng: &mut Rng) {
    match round {
        0 => filled.iter().for_each(|table| {
            replica.local.run(&format!("DELETE FROM {}", K::quoted(&table.name)));
        }),
        1 => damage(replica, filled, rng),
        _ => changes(&mut replica.local, filled, &mut 10_000, rng),
    }
}

/// First sync, changes of all sorts, damage on the server: level each time, by the client's own word and by text.
pub fn whatever_happens_is_made_level<K: LocalKind>() {
    let tables = tables();
    let mut replica = Replica::<K>::new(&tables.iter().collect::<Vec<_>>());
    let mut rng = seeded();
    let filled = fill(&mut replica.local, &tables, 2_000, &mut rng);
    let mut version = 10_000;
    for round in 0..4 {
        replica.make_level();
        tables.iter().for_each(|table| replica.assert_equal(table));
        match round {
            0 => changes(&mut replica.local, &filled, &mut version, &mut rng),
            1 => swaps(&mut replica.local, &mut version),
            2 => damage(&mut replica, &filled, &mut rng),
            _ => {}
        }
    }
}

/// Rows come, go, change and get other keys, with versions above all others and below.
pub fn changes<K: LocalKind>(local: &mut K, tables: &[&Table], version: &mut i64, rng: &mut Rng) {
    for table in tables {
        let name = K::quoted(&table.name);
        let first = &table.columns[0].0;
        for i in 0..60 {
            let (some, other) = (rng.i64(0..2_000), rng.i64(0..2_000));
            *version += 1;
            let mut new = row(table, 5_000 + i, if i % 4 == 0 { some } else { *version }, rng);
            let old = row(table, some, 0, rng);
            let equal = |cells: &[Cell], columns: &[&str]| {
                let place = |column: &&str| table.columns.iter().position(|(name, _)| name == column);
                let pairs = columns.iter().filter_map(|column| Some((column, &cells[place(column)?])));
                let pairs =
                    pairs.map(|(column, cell)| format!("{} = {}", K::quoted(column), K::literal(cell)));
                pairs.collect::<Vec<_>>()
            };
            let key: Vec<&str> = if table.key.is_empty() { vec![first] } else { table.key.clone() };
            let which = equal(&old, &key).join(" AND ");
            match i % 3 {
                0 => local.insert(table, &[new]),
                1 => local.run(&format!("DELETE FROM {name} WHERE {which}")),
                _ => {
                    // Sometimes the key changes too.
                    let columns: Vec<&str> = table.columns.iter().map(|(name, _)| name.as_str()).collect();
                    let keeps_key = other % 2 == 0;
                    if keeps_key {
                        for (place, column) in columns.iter().enumerate() {
                            if key.contains(column) {
                                new[place] = old[place].clone();
                            }
                        }
                    }
                    let set = equal(&new, &columns).join(", ");
                    local.run(&format!("UPDATE {name} SET {set} WHERE {which}"));
                }
            }
        }
    }
}

/// Two rows of a table swap their keys.
pub fn swaps<K: LocalKind>(local: &mut K, version: &mut i64) {
    let (name, id, v) = (K::quoted("items"), K::quoted("id"), K::quoted("v"));
    local.insert(
        &tables()[0],
        &[vec![90_001.into(), "one".into(), 1.into()], vec![90_002.into(), "two".into(), 2.into()]],
    );
    for (from, to) in [(90_001, -1), (90_002, 90_001), (-1, 90_002)] {
        *version += 1;
        local.run(&format!("UPDATE {name} SET {id} = {to}, {v} = {version} WHERE {id} = {from}"));
    }
}

/// Rows are changed on the server behind everybody's back.
pub fn damage<K: LocalKind>(replica: &mut Replica<'_, K>, tables: &[&Table], rng: &mut Rng) {
    let mut owner = replica.site.owner();
    for table in tables {
        let name = format!("public.\"{}\"", table.name);
        let odd = rng.u32(..7);
        let chosen = format!("ctid IN (SELECT ctid FROM {name} ORDER BY ctid OFFSET {odd} LIMIT 9)");
        owner.batch_execute(&format!("DELETE FROM {name} WHERE {chosen}")).expect("rows deleted");
        let text =
            table.columns.iter().find(|(name, of)| *of == Type::Text && !table.key.contains(&name.as_str()));
        if let Some((column, _)) = text {
            let sql = format!("UPDATE {name} SET \"{column}\" = 'damaged' WHERE {chosen}");
            owner.batch_execute(&sql).expect("rows changed");
        }
        if table.key.is_empty() {
            // One copy too many of some rows, as there is one too few of those that were deleted.
            let sql = format!("INSERT INTO {name} SELECT * FROM {name} ORDER BY ctid DESC LIMIT 9");
            owner.batch_execute(&sql).expect("rows added");
        }
    }
}
