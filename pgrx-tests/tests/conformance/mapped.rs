//! Tables that are mapped: renamed columns, constants, columns left out, a condition; and conditions that are none.

use plimsoll_tests::{Finished, table_of};

use super::kind::{Cell, LocalKind, Table, Type};
use super::whole_way::Replica;

/// A local table; its managed one is made from how it is mapped.
fn orders(version: Option<&'static str>) -> Table {
    use Type::{Number, Text};
    let name = if version.is_some() { "orders" } else { "orders by hash" };
    let columns = [("no", Number), ("txt", Text), ("branch", Number), ("secret", Text), ("changed", Number)];
    Table::new(name, &columns, &["no"], version)
}

/// What the configuration says of a table, with this condition.
fn mapping(table: &Table, condition: &str) -> String {
    let version = table.version.map(|name| format!("version = \"{name}\"\n")).unwrap_or_default();
    format!(
        "\n[[table]]\nname = \"{0}\"\nremote = 'public.\"{0}\"'\n{version}columns = {{ no = \"number\", txt = \"note\", changed = \
         \"version\" }}\nconstants = {{ shop = 7 }}\nleave_out = [\"branch\", \"secret\"]\nwhere = '''{condition}'''\n",
        table.name
    )
}

/// A local database whose tables are mapped, and the configuration up to its tables.
struct Mapped<'c, K> {
    replica: Replica<'c, K>,
    tables: Vec<Table>,
    head: String,
}

impl<K: LocalKind> Mapped<'_, K> {
    fn new() -> Self {
        let tables = vec![orders(Some("changed")), orders(None)];
        let beside = Table::new("beside", &[("id", Type::Number), ("v", Type::Number)], &["id"], Some("v"));
        let mut replica = Replica::<K>::new(&[&beside]);
        replica.local.insert(&beside, &[vec![1.into(), 1.into()]]);
        for table in &tables {
            replica.local.create(table);
            let row = |i: i64| -> Vec<Cell> {
                vec![i.into(), Cell::Text(format!("order {i}")), (i % 4).into(), "secret".into(), i.into()]
            };
            replica.local.insert(table, &(1..=200).map(row).collect::<Vec<_>>());
        }
        let head = std::fs::read_to_string(replica.home.path("plimsoll.toml")).expect("a configuration");
        let mapped = Mapped { replica, tables, head };
        mapped.take("branch = 1 -- ours");
        let chosen = mapped.tables.iter().flat_map(|table| ["--table", &table.name]);
        let arguments = ["schema", "--owner", &mapped.replica.site.owner].into_iter().chain(chosen);
        let printed = mapped.replica.home.run(arguments).expect_code(0).stdout;
        mapped
            .replica
            .site
            .superuser()
            .batch_execute(&printed)
            .unwrap_or_else(|error| panic!("{error:?}\n{printed}"));
        mapped
    }

    /// From now on these rows are taken.
    fn take(&self, condition: &str) {
        let tables: String = self.tables.iter().map(|table| mapping(table, condition)).collect();
        self.replica.home.write("plimsoll.toml", &(self.head.clone() + &tables));
    }

    /// Runs a statement on each mapped table, which it calls `{}`.
    fn run(&mut self, sql: &str) {
        for table in &self.tables {
            self.replica.local.run(&sql.replace("{}", &K::quoted(&table.name)));
        }
    }

    fn sync(&self) -> Finished {
        self.replica.home.run(["sync", "--quiet", "--json"])
    }

    /// Level by the client's word, and by a look at both sides: rows of branch 1.
    #[track_caller]
    fn assert_level(&mut self) {
        self.replica.make_level();
        for table in &self.tables {
            let texts = self.replica.local.texts(table);
            let mut here: Vec<_> = texts
                .into_iter()
                .filter(|row| row[2].as_deref() == Some("1"))
                .map(|row| [Some("7".to_owned()), row[0].clone(), row[1].clone(), row[4].clone()])
                .collect();
            let sql = format!(
                "SELECT shop::text, number::text, note, version::text FROM public.\"{}\"",
                table.name
            );
            let rows = self.replica.site.superuser().query(&sql, &[]).expect("rows");
            let mut there: Vec<[Option<String>; 4]> =
                rows.iter().map(|row| std::array::from_fn(|place| row.get(place))).collect();
            here.sort_unstable();
            there.sort_unstable();
            assert_eq!(here, there, "{}", table.name);
        }
    }
}

/// Rows that come and go by the condition, change and are deleted, with a version and without.
pub fn rows_of_a_condition_are_level<K: LocalKind>() {
    let mut mapped = Mapped::<K>::new();
    mapped.assert_level();
    mapped.run("UPDATE {} SET branch = 2 WHERE no = 5");
    mapped.run("UPDATE {} SET branch = 2, changed = 1001 WHERE no = 9");
    mapped.run("UPDATE {} SET branch = 1 WHERE no = 6");
    mapped.run("UPDATE {} SET txt = 'changed', changed = 1002 WHERE no = 13");
    mapped.run("UPDATE {} SET no = 1000, changed = 1003 WHERE no = 17");
    mapped.run("UPDATE {} SET secret = NULL WHERE no = 21");
    mapped.run("DELETE FROM {} WHERE no = 25");
    mapped.assert_level();
    // A look-up by key must not find what is there and not taken.
    let mut owner = mapped.replica.site.owner();
    for table in &mapped.tables {
        let sql = format!("UPDATE public.\"{}\" SET number = 2, note = 'moved' WHERE number = 1", table.name);
        owner.batch_execute(&sql).expect("damage");
    }
    mapped.assert_level();
}

/// What is no condition by itself stops its table alone: it never becomes part of anything else.
pub fn what_is_no_condition_stops_its_table<K: LocalKind>() {
    let mut mapped = Mapped::<K>::new();
    mapped.assert_level();
    for condition in [
        "branch = 1)",
        "(branch = 1",
        "branch = 1) OR (1 = 1",
        "branch = 1 THEN 1 END, CASE WHEN 2 = 2",
        "branch = 1; DELETE FROM beside",
        "branch = 1 /* ",
        "branch = 1 ORDER BY no",
        "branch = 1 LIMIT 5",
        "branch = 1 UNION SELECT 1",
        "brunch = 1",
        "branch = '1",
    ] {
        mapped.take(condition);
        mapped.replica.local.run(&format!("UPDATE {} SET v = v + 1", K::quoted("beside")));
        let report = mapped.sync().expect_code(1).json();
        assert_eq!(table_of(&report, "beside")["updated"], 1, "{condition}: {report}");
        for table in &mapped.tables {
            let told = table_of(&report, &table.name);
            let failure =
                told["failure"]["message"].as_str().unwrap_or_else(|| panic!("{condition}: {told}"));
            assert!(
                failure.contains(&format!("\"{}\" where {condition}: ", table.name)),
                "{condition}: {failure}"
            );
            assert!(told["failure"]["hint"].is_string(), "{condition}: {told}");
            assert_eq!((&told["inserted"], &told["deleted"]), (&0.into(), &0.into()), "{condition}: {told}");
        }
    }
    mapped.take("branch = 1 -- ours");
    mapped.assert_level();
}

/// Rows without a key that differ in what a conversion loses are equal ones on the server, and as many.
pub fn rows_that_a_conversion_makes_equal_are_counted<K: LocalKind>() {
    let table = Table::new("readings", &[("n", Type::Number), ("at", Type::Stamp)], &[], None);
    let mut replica = Replica::<K>::new(&[&table]);
    let (owner, config) = (&replica.site.owner, replica.home.path("plimsoll.toml"));
    let sql = format!(
        "DROP TABLE readings; CREATE TABLE readings (client_id text NOT NULL, database_id uuid NOT NULL, n bigint, at timestamp(0));
         ALTER TABLE readings OWNER TO {owner}; SELECT plimsoll.manage_table('readings', key_columns => '{{}}')"
    );
    replica.site.superuser().batch_execute(&sql).unwrap_or_else(|error| panic!("{error:?}"));
    let config = std::fs::read_to_string(config).expect("a configuration");
    replica.home.write("plimsoll.toml", &(config + "convert = { at = \"truncate\" }\n"));
    let second = 1_000_000;
    let row = |i: i64| vec![(i % 3).into(), Cell::Stamp(700_000_000 * second + i % 2 * second + i)];
    replica.local.insert(&table, &(0..60).map(row).collect::<Vec<_>>());
    let counts = |replica: &Replica<'_, K>, expected: [(i64, i64); 2]| {
        replica.make_level();
        let sql = "SELECT extract(second FROM at)::bigint, count(*) FROM readings GROUP BY 1 ORDER BY 1";
        let rows = replica.site.superuser().query(sql, &[]).expect("rows");
        let found: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(found, expected);
    };
    let first = 700_000_000 % 60;
    counts(&replica, [(first, 30), (first + 1, 30)]);
    // One goes, one comes, and one changes in what is lost alone.
    let (name, at) = (K::quoted("readings"), K::quoted("at"));
    let stamp = |micros: i64| K::literal(&Cell::Stamp(700_000_000 * second + micros));
    replica.local.run(&format!("DELETE FROM {name} WHERE {at} = {}", stamp(4)));
    replica.local.run(&format!("UPDATE {name} SET {at} = {} WHERE {at} = {}", stamp(999), stamp(6)));
    replica.local.insert(&table, &[vec![2.into(), Cell::Stamp(700_000_000 * second + second + 5)]]);
    counts(&replica, [(first, 29), (first + 1, 31)]);
}
