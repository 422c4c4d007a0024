//! Tables and columns whose names are traps, through every function that puts them into a statement.

use crate::attempt::{Expect, Outcome, Trials, expect};
use crate::world::{Who, World};

/// Names of a table and of one of its columns.
const NAMES: [(&str, &str, &str); 12] = [
    ("a quote", "quo\"te", "co\"l"),
    (
        "a quote that ends a statement",
        "x\"; DROP TABLE shop.customer; --",
        "y\" = 1; DROP TABLE shop.customer; --",
    ),
    ("an apostrophe", "o'clock", "d''oh"),
    ("dollars", "pay$$me$x$", "$1"),
    ("a line break", "two\nlines", "tab\tand\nline"),
    ("signs of formats", "100%I %s %% %L", "%1$s {0} {} {name}"),
    ("words of SQL", "select", "from"),
    ("capitals and blanks", "My Table ", " My Column"),
    ("letters of many alphabets", "größe✓表", "\u{202e}имя\u{200b}"),
    (
        "63 bytes",
        "ttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttttt",
        "ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    ),
    ("names of our own statements", "incoming", "incoming"),
    ("points and backslashes", "a.b\\.c", "\\x00.\\"),
];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

pub fn attack(trials: &mut Trials) {
    trials.one("a column with a name of our own statements", reserved);
    for (what, table, column) in NAMES {
        trials.touching(
            &format!("names with {what}"),
            &["registrations", "catalogue", "A's history", "B's history", "kept manifests"],
            |world| {
                let outcome = through_every_function(world, table, column);
                world.admin(&format!(
                    "SELECT plimsoll.unmanage_table({}); DROP TABLE shop.{}",
                    literal(&format!("shop.{}", quoted(table))),
                    quoted(table)
                ));
                outcome
            },
        );
    }
}

/// A column that has the name of one of our own statements' is refused when its table is handed over.
fn reserved(world: &mut World) -> Outcome {
    world.admin(
        "CREATE TABLE public.odd (client_id text, database_id uuid, id int, \"plimsoll ordinal\" int, version bigint NOT NULL,
             PRIMARY KEY (client_id, database_id, id)); ALTER TABLE public.odd OWNER TO {owner}",
    );
    let outcome = world
        .superuser
        .batch_execute("SELECT plimsoll.manage_table('public.odd', version_column => 'version')");
    world.admin("DROP TABLE public.odd");
    match outcome.as_ref().err().and_then(|error| error.code()) {
        Some(code) if code.code() == "42P16" => Ok(()),
        _ => Err(format!("{outcome:?}")),
    }
}

fn through_every_function(world: &mut World, table: &str, column: &str) -> Outcome {
    let (name, key) = (format!("shop.{}", quoted(table)), quoted(column));
    let value = quoted(&format!("v{}", &column.chars().take(20).collect::<String>()));
    let plain_value = format!("v{}", &column.chars().take(20).collect::<String>());
    world.admin(&format!(
        "SET ROLE {{owner}};
         CREATE TABLE {name} (client_id text NOT NULL, database_id uuid NOT NULL, {key} int NOT NULL, {value} text UNIQUE,
             version bigint NOT NULL, PRIMARY KEY (client_id, database_id, {key}));
         RESET ROLE;
         INSERT INTO {name} SELECT 'SECRET-client', '{{B}}', i, 'SECRET ' || i, i FROM generate_series(1, 3) i;
         SELECT plimsoll.manage_table({}, version_column => 'version')",
        literal(&name)
    ));
    let theirs = format!(
        "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {name} t WHERE database_id = '{{B}}'"
    );
    let before: String = world.value(&theirs);
    let mut session = world.connect(Who::Granted);
    let relation = literal(&name);
    let row = |id: i32, text: &str, version: i32| {
        let object = serde_json::json!({ (column): id, (plain_value.as_str()): text, "version": version });
        object.to_string()
    };
    let json = |text: String| format!("{}::jsonb", literal(&text));
    let upload = |rows: Vec<String>| json(format!("[{}]", rows.join(",")));
    let all = "'(,)'";
    for (call, wanted) in [
        (
            format!(
                "SELECT inserted FROM plimsoll.upload('{{A}}', {relation}, {})",
                upload(vec![row(1, "a", 1), row(2, "b", 2)])
            ),
            Some("2"),
        ),
        (
            format!(
                "SELECT updated FROM plimsoll.upload('{{A}}', {relation}, {})",
                upload(vec![row(1, "b", 3), row(2, "a", 4)])
            ),
            Some("2"),
        ),
        (format!("SELECT row_count FROM plimsoll.table_version('{{A}}', {relation})"), Some("2")),
        (format!("SELECT count(*) FROM plimsoll.manifest('{{A}}', {relation}, {all})"), Some("2")),
        (format!("SELECT count(*) FROM plimsoll.download('{{A}}', {relation}, {all}, 9)"), Some("2")),
        (format!("SELECT count(*) FROM plimsoll.table_schema('{{A}}', {relation})"), Some("3")),
        (format!("SELECT row_count FROM plimsoll.range_fingerprint('{{A}}', {relation}, {all})"), Some("2")),
        (
            format!("SELECT sum(row_count) FROM plimsoll.range_manifest('{{A}}', {relation}, {all}, 9)"),
            Some("2"),
        ),
        (format!("SELECT plimsoll.sketch('{{A}}', {relation}, '{{(,)}}', 0, 9) IS NULL"), Some("f")),
        (format!("SELECT plimsoll.packed_manifest('{{A}}', {relation}, {all}, 9) IS NULL"), Some("f")),
        (format!("SELECT plimsoll.rebuild_manifest('{{A}}', {relation})"), Some("2")),
        (format!("SELECT count(*) FROM plimsoll.check_manifest('{{A}}', {relation})"), Some("0")),
        (
            format!(
                "SELECT rejected->0->>'sqlstate' FROM plimsoll.upload('{{A}}', {relation}, {})",
                upload(vec![row(1, "SECRET 1", 9)])
            ),
            Some("23505"),
        ),
        (format!("SELECT count(*) FROM plimsoll.batch_history('{{A}}', {relation})"), Some("0")),
        (format!("SELECT count(*) FROM plimsoll.rejected_keys('{{A}}', {relation})"), Some("0")),
        (
            format!("SELECT count(*) FROM plimsoll.tables WHERE relation = {}", literal(&shown(table))),
            Some("1"),
        ),
        (format!("SELECT row_count FROM plimsoll.table_version('{{B}}', {relation})"), None),
    ] {
        // Own text that is as another's is no leak.
        let call = world.filled(&call);
        match wanted {
            Some(value) => {
                let outcome = session.run(&call);
                world.leaked();
                let found = outcome.map_err(|refusal| format!("{call}: {refusal:?}"))?;
                let found = found.first().and_then(|row| row.first().cloned().flatten());
                if found.as_deref() != Some(value) {
                    return Err(format!("{call}: {found:?} instead of {value}"));
                }
            }
            None => expect(&mut session, &call, Expect::Refused(&["42501"]))?,
        }
    }
    let delete = json(format!("[{{\"key\": {}}}]", serde_json::json!({ (column): 1 })));
    session
        .must(&world.filled(&format!("SELECT * FROM plimsoll.delete_rows('{{A}}', {relation}, {delete})")));
    session.must(&world.filled(&format!("SELECT * FROM plimsoll.delete_range('{{A}}', {relation}, {all})")));
    session.must(&world.filled(&format!("SELECT * FROM plimsoll.delete_all('{{A}}', {relation})")));
    let after: String = world.value(&theirs);
    if after == before { Ok(()) } else { Err("B's rows are others".to_owned()) }
}

/// The name as the views show it.
fn shown(table: &str) -> String {
    let plain = table.chars().all(|c| c.is_ascii_lowercase()) && table != "select";
    if plain { format!("shop.{table}") } else { format!("shop.{}", quoted(table)) }
}
