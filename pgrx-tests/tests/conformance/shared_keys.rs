//! Keys that the local database tells apart and the managed table does not, by its type or by its index; and keys of
//! which one spelling takes the place of the other.

use plimsoll_tests::{shared, table_of};
use serde_json::Value as Json;

use super::kind::{Cell, LocalKind, Table, Type};
use super::whole_way::Replica;

/// Rows with keys of their own, in each table.
const ROWS: i64 = 40;

/// A table on both sides.
struct Case {
    table: Table,
    /// The managed key column, in SQL.
    key: String,
    /// Two local keys that are one there.
    spellings: [&'static str; 2],
    /// Whether it is the index that does not tell them apart: the managed type does.
    waits: bool,
    /// How keys are converted.
    conversion: Option<&'static str>,
}

impl Case {
    fn new(name: &str, key: &str, of: Type, spellings: [&'static str; 2], version: bool) -> Self {
        let columns = [("k", of), ("note", Type::Text), ("v", Type::Number)];
        let name = format!("{name} {}", if version { "versions" } else { "hashes" });
        let table = Table::new(&name, &columns, &["k"], version.then_some("v"));
        Case { table, key: key.to_owned(), spellings, waits: key.contains("text"), conversion: None }
    }

    /// Each with a version and without.
    fn both(name: &str, key: &str, of: Type, spellings: [&'static str; 2]) -> [Self; 2] {
        [true, false].map(|version| Case::new(name, key, of, spellings, version))
    }

    fn managed(&self, owner: &str) -> String {
        let Case { table, key, .. } = self;
        let version = table.version.map(|name| format!(", version_column => '{name}'")).unwrap_or_default();
        format!(
            "CREATE TABLE public.\"{name}\" (client_id text NOT NULL, database_id uuid NOT NULL, k {key} NOT NULL,
                 note text, v int8, PRIMARY KEY (client_id, database_id, k));
             ALTER TABLE public.\"{name}\" ALTER v SET NOT NULL, OWNER TO {owner};
             SELECT plimsoll.manage_table('public.\"{name}\"', key_columns => '{{k}}'{version});",
            name = table.name
        )
    }

    /// Another key than those of the case.
    fn other(&self, number: i64) -> String {
        match self.key.as_str() {
            "uuid" => uuid::Uuid::from_u128(number as u128).to_string(),
            _ if self.waits => format!("n{number}"),
            _ => format!("{}", number + 100),
        }
    }

    fn row(&self, key: &str, note: &str, version: i64) -> Vec<Cell> {
        vec![key.into(), note.into(), version.into()]
    }
}

/// Managed types whose collations ignore case, and blanks too; none where the server has no ICU.
fn blind() -> Option<[&'static str; 2]> {
    let icu = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')";
    if shared().superuser("postgres").query_one(icu, &[]).expect("an answer").get(0) {
        return Some(["text COLLATE public.ignoring_case", "text COLLATE public.ignoring_blanks"]);
    }
    eprintln!("not tested, as this server has no ICU: collations that are not deterministic");
    None
}

/// Both sides, with the rows that are nobody's other spelling.
fn replica<K: LocalKind>(cases: &[Case]) -> Replica<'static, K> {
    let tables: Vec<&Table> = cases.iter().map(|case| &case.table).collect();
    let mut replica = Replica::<K>::unmanaged(&tables);
    let mut config = std::fs::read_to_string(replica.home.path("plimsoll.toml")).expect("a configuration");
    for case in cases {
        let Some(conversion) = case.conversion else { continue };
        let remote = format!("remote = 'public.\"{}\"'\n", case.table.name);
        config = config.replace(&remote, &format!("{remote}convert = {{ k = \"{conversion}\" }}\n"));
    }
    replica.home.write("plimsoll.toml", &config);
    let mut superuser = replica.site.superuser();
    if blind().is_some() {
        let collations = "CREATE COLLATION public.ignoring_case
             (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE COLLATION public.ignoring_blanks
             (provider = icu, locale = 'und-u-ka-shifted', deterministic = false)";
        superuser.batch_execute(collations).expect("collations");
    }
    for case in cases {
        let managed = case.managed(&replica.site.owner);
        superuser.batch_execute(&managed).unwrap_or_else(|error| panic!("{error:?}\n{managed}"));
        let rows: Vec<Vec<Cell>> = (0..ROWS).map(|i| case.row(&case.other(i), "own", i)).collect();
        replica.local.insert(&case.table, &rows);
    }
    replica
}

/// What a run did with each table.
#[track_caller]
fn run<K: LocalKind>(replica: &Replica<'_, K>, cases: &[Case]) -> Vec<Json> {
    let report = replica.home.run(["sync", "--quiet", "--json"]).expect_code(0).json();
    cases.iter().map(|case| table_of(&report, &K::configured(&case.table.name)).clone()).collect()
}

/// Nothing was sent or deleted.
#[track_caller]
fn assert_quiet(reports: &[Json]) {
    for report in reports {
        let sent = ["inserted", "updated", "deleted"].map(|count| report[count].as_u64());
        assert_eq!(sent, [Some(0); 3], "{report:#}");
    }
}

/// Makes runs until each table says that one row is not stored, at most three; it is never level on the way.
#[track_caller]
fn told<K: LocalKind>(replica: &Replica<'_, K>, cases: &[Case]) {
    for last in [false, false, true] {
        let reports = run(replica, cases);
        assert!(reports.iter().all(|report| report["status"] != "level"), "{reports:#?}");
        let is_told = |(report, case): (&Json, &Case)| {
            let counts = (report["rejected"].as_u64(), report["waiting"].as_u64());
            let told = (Some(u64::from(!case.waits)), Some(u64::from(case.waits)));
            report["status"] == "level_except" && counts == told
        };
        if reports.iter().zip(cases).all(is_told) {
            break;
        }
        assert!(!last, "{reports:#?}");
    }
    let mut superuser = replica.site.superuser();
    for case in cases {
        let name = &case.table.name;
        let sql = "SELECT key::text, message FROM plimsoll.rejected_rows WHERE relation::text LIKE $1";
        let rows = superuser.query(sql, &[&format!("%{name}%")]).expect("the rejected rows");
        assert_eq!(rows.len(), 1, "{name}");
        let (key, message): (String, String) = (rows[0].get(0), rows[0].get(1));
        let shown = case.spellings.map(|key| Json::from(key).to_string());
        assert!(shown.iter().all(|spelling| message.contains(spelling.as_str())), "{name}: {message}");
        assert!(shown.iter().any(|spelling| key.contains(spelling.as_str())), "{name}: {key}");
    }
    // Nothing goes to and fro while it lasts, and verify says what becomes of the row.
    let reports = run(replica, cases);
    assert!(reports.iter().all(|report| report["status"] == "level_except"), "{reports:#?}");
    assert_quiet(&reports);
    let verdict = replica.home.run(["verify", "--quiet", "--json"]).expect_code(1).json();
    for case in cases {
        let table = table_of(&verdict, &K::configured(&case.table.name));
        let counts = ["rejected", "missing", "excess", "altered"].map(|kind| table[kind].as_u64());
        assert_eq!((counts, &table["level"]), ([1, 0, 0, 0].map(Some), &Json::from(false)), "{table:#}");
        let difference = &table["differences"][0];
        assert_eq!(difference["kind"], "rejected", "{table:#}");
        let reason = difference["reason"].as_str().unwrap_or_default();
        assert!(case.waits || reason.contains("the key of another row"), "{difference}");
    }
}

/// Makes one run, after which all tables are level.
#[track_caller]
fn level<K: LocalKind>(replica: &Replica<'_, K>, cases: &[Case]) {
    for report in run(replica, cases) {
        let left = (report["rejected"].as_u64(), report["waiting"].as_u64());
        assert_eq!(left, (Some(0), Some(0)), "{report:#}");
    }
    replica.home.run(["verify", "--quiet"]).expect_code(0);
}

/// The rows that are stored besides those of their own: the key as text, and the note.
fn stored<K: LocalKind>(replica: &Replica<'_, K>, case: &Case) -> Vec<(String, String)> {
    let sql = format!("SELECT k::text, note FROM public.\"{}\" WHERE note <> 'own'", case.table.name);
    let rows = replica.site.superuser().query(&sql, &[]).expect("the rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The note of the one row that is stored of two.
#[track_caller]
fn only<K: LocalKind>(replica: &Replica<'_, K>, case: &Case) -> String {
    let [(_, note)] = &stored(replica, case)[..] else { panic!("{}", case.table.name) };
    note.clone()
}

/// Of two rows whose keys become one, one is stored and the other is told; it is stored when its place is free.
pub fn rows_of_one_managed_key_are_told_and_one_is_stored<K: LocalKind>() {
    let mut cases: Vec<Case> = Vec::new();
    cases.extend(Case::both("citext", "citext", Type::Text, ["a", "A"]));
    if let Some([case, blanks]) = blind() {
        cases.extend(Case::both("case", case, Type::Text, ["\u{e9}t\u{e9}", "\u{c9}T\u{c9}"]));
        cases.push(Case::new("blanks", blanks, Type::Text, ["a", "a "], true));
    }
    for (number, (key, spellings, conversion)) in (1..).zip(K::spelled()) {
        let both = Case::both(&format!("spelled {number}"), key, Type::Text, spellings);
        cases.extend(both.map(|case| Case { conversion, ..case }));
    }
    let mut replica = replica::<K>(&cases);
    for case in &cases {
        let [one, other] = case.spellings;
        let rows = [case.row(one, "first", 3), case.row(other, "second", ROWS - 3)];
        replica.local.insert(&case.table, &rows);
    }
    told(&replica, &cases);
    let (k, note, v) = (K::quoted("k"), K::quoted("note"), K::quoted("v"));
    // The one that is stored changes, and stays where it is.
    for case in &cases {
        let (name, held) = (K::quoted(&case.table.name), only(&replica, case));
        let set = format!("{note} = 'changed', {v} = {ROWS}");
        replica.local.run(&format!("UPDATE {name} SET {set} WHERE {note} = '{held}'"));
    }
    told(&replica, &cases);
    for case in &cases {
        assert_eq!(only(&replica, case), "changed", "{}", case.table.name);
    }
    // It goes, and the other one takes its place.
    for case in &cases {
        replica.local.run(&format!("DELETE FROM {} WHERE {note} = 'changed'", K::quoted(&case.table.name)));
    }
    level(&replica, &cases);
    // One comes again, and the one that is not stored goes.
    let mut third = Vec::new();
    for case in &cases {
        let spelling = case.spellings[usize::from(only(&replica, case) == "first")];
        replica.local.insert(&case.table, &[case.row(spelling, "third", ROWS + 1)]);
        third.push(spelling);
    }
    told(&replica, &cases);
    for case in &cases {
        let (name, held) = (K::quoted(&case.table.name), only(&replica, case));
        replica.local.run(&format!("DELETE FROM {name} WHERE {note} <> 'own' AND {note} <> '{held}'"));
    }
    level(&replica, &cases);
    // Both are there again, and the one that is stored gets another key.
    for (case, third) in cases.iter().zip(third) {
        let third_is_here = only(&replica, case) == "third";
        let missing = case.spellings.into_iter().find(|spelling| (*spelling == third) != third_is_here);
        replica.local.insert(&case.table, &[case.row(missing.expect("one of two"), "fourth", ROWS + 2)]);
    }
    told(&replica, &cases);
    for case in &cases {
        let (name, held) = (K::quoted(&case.table.name), only(&replica, case));
        let (key, version) = (K::literal(&Cell::Text(case.other(ROWS))), ROWS + 3);
        replica.local.run(&format!("UPDATE {name} SET {k} = {key}, {v} = {version} WHERE {note} = '{held}'"));
    }
    level(&replica, &cases);
    for case in &cases {
        assert_eq!(stored(&replica, case).len(), 2, "{}", case.table.name);
    }
}

/// A key that the local database itself takes for the one before is spelled in the new way on the server too.
pub fn a_key_that_changes_its_spelling_alone_is_spelled_so_after_one_run<K: LocalKind>() {
    let mut cases: Vec<Case> = Vec::new();
    let blind = blind().map(|[case, _]| case);
    let keys = [("citext", Some("citext")), ("case", blind), ("exact", Some("text"))];
    for (name, key) in keys.into_iter().filter_map(|(name, key)| Some((name, key?))) {
        cases.extend(Case::both(name, key, Type::Folded, ["word", "Word"]));
    }
    let mut replica = replica::<K>(&cases);
    for case in &cases {
        replica.local.insert(&case.table, &[case.row("word", "first", 5)]);
    }
    level(&replica, &cases);
    let (k, v) = (K::quoted("k"), K::quoted("v"));
    for (version, spelling) in [(ROWS, "Word"), (ROWS + 1, "WORD"), (ROWS + 2, "word")] {
        for case in &cases {
            let name = K::quoted(&case.table.name);
            // Where rows have no version, nothing but the key changes.
            let set = case.table.version.map(|_| format!(", {v} = {version}")).unwrap_or_default();
            replica.local.run(&format!("UPDATE {name} SET {k} = '{spelling}'{set} WHERE {k} = 'word'"));
        }
        level(&replica, &cases);
        for case in &cases {
            let expected = [(spelling.to_owned(), "first".to_owned())];
            assert_eq!(stored(&replica, case), expected, "{}", case.table.name);
        }
        assert_quiet(&run(&replica, &cases));
    }
}
