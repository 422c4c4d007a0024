//! Settings that a role may change: what rows are as bytes, and who may do what, must not depend on them.

use plimsoll_core::row::BatchWriter;

use crate::attempt::{Attempt, DENIED, Expect, Outcome, Trials, by, expect};
use crate::world::{Rows, Session, Who, World, hex};

/// Settings of Postgres that change how values are written and read, or how statements are run.
const SETTINGS: [&str; 29] = [
    "DateStyle = 'German, DMY'",
    "DateStyle = 'SQL, YMD'",
    "IntervalStyle = 'sql_standard'",
    "IntervalStyle = 'iso_8601'",
    "TimeZone = 'Asia/Kathmandu'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "lc_monetary = 'C'",
    "lc_numeric = 'C'",
    "quote_all_identifiers = on",
    "standard_conforming_strings = off",
    "backslash_quote = on",
    "escape_string_warning = off",
    "array_nulls = off",
    "xmloption = 'document'",
    "transform_null_equals = on",
    "row_security = off",
    "constraint_exclusion = on",
    "plan_cache_mode = 'force_generic_plan'",
    "plan_cache_mode = 'force_custom_plan'",
    "enable_seqscan = off; SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_nestloop = off; SET jit = off",
    "work_mem = '64kB'; SET hash_mem_multiplier = 1; SET temp_buffers = 100",
    "parallel = on",
    "jit = on; SET jit_above_cost = 0; SET jit_optimize_above_cost = -1",
    "search_path = ''",
    "default_transaction_isolation = 'serializable'",
    "client_encoding = 'LATIN1'",
    "gin_fuzzy_search_limit = 1; SET from_collapse_limit = 1; SET join_collapse_limit = 1; SET geqo_threshold = 2",
    "default_text_search_config = 'simple'; SET check_function_bodies = off; SET default_toast_compression = 'pglz'",
];

const ATTEMPTS: &[Attempt] = &[
    by(Who::Granted, "triggers switched off for the session", "SET session_replication_role = replica", DENIED),
    by(Who::Granted, "system tables opened", "SET allow_system_table_mods = on", Expect::Refused(&["42501"])),
    by(Who::Granted, "indexes of system tables ignored", "SET ignore_system_indexes = on", Expect::Refused(&["42501", "55P02"])),
    by(Who::Granted, "a library loaded into the session", "SET session_preload_libraries = 'plimsoll'", Expect::Refused(&["42501", "55P02"])),
    by(Who::Granted, "a library loaded from a place of one's own", "SET dynamic_library_path = '/tmp'", DENIED),
    by(Who::Granted, "roles adopted, as an admin may", "SET plimsoll.adopt_roles = on; SELECT * FROM plimsoll.table_versions('{B}')", DENIED),
    by(Who::Granted, "a setting of ours that is none", "SET plimsoll.admin = on; SELECT * FROM plimsoll.table_versions('{B}')", DENIED),
    by(Who::Granted, "another database's id as a setting",
        "SELECT set_config('plimsoll.database_id', '{B}', false); SELECT * FROM plimsoll.upload('{B}', 'shop.customer', '[]'::jsonb)", DENIED),
    by(Who::Granted, "row-level security switched off", "SET row_security = off; SELECT * FROM shop.customer", DENIED),
    by(Who::Granted, "messages of statements in the server's log", "SET log_statement = 'none'", DENIED),
    by(Who::Granted, "a read-only transaction writes nothing",
        "BEGIN READ ONLY; SELECT * FROM plimsoll.upload('{A}', 'shop.customer', '[{\"id\": 77, \"version\": 77}]'::jsonb)",
        Expect::Refused(&["25006"])),
    by(Who::Granted, "a time limit in the middle of an upload stores nothing",
        "SET statement_timeout = '20ms'; SELECT * FROM plimsoll.upload('{A}', 'shop.customer',
             (SELECT jsonb_agg(jsonb_build_object('id', i, 'name', repeat('x', 50), 'version', i)) FROM generate_series(1000, 60000) i))",
        Expect::Refused(&["57014"])),
];

pub fn attack(trials: &mut Trials) {
    trials.all(ATTEMPTS);
    let mut session = trials.world.connect(Who::Granted);
    let usual = content(&trials.world, &mut session);
    for setting in SETTINGS {
        trials.one(&format!("rows are the same bytes under {setting}"), |world| {
            let mut session = world.connect(Who::Granted);
            let parallel = world.parallel_setting();
            session.must(&format!("SET {}", setting.replace("parallel = on", &format!("{parallel} = on"))));
            let found = content(world, &mut session);
            if found == usual { Ok(()) } else { Err(format!("{found:?} instead of {usual:?}")) }
        });
    }
    trials.touching(
        "rows are stored as they are sent under other settings",
        &["A's rows", "A's history"],
        stored,
    );
}

/// What A's rows are, as hashes of what functions answer.
fn content(world: &World, session: &mut Session) -> Rows {
    let hash = "pg_catalog.md5(pg_catalog.encode(x, 'hex'))";
    let queries = [
        "SELECT pg_catalog.string_agg(pg_catalog.encode(fingerprint, 'hex'), ',' ORDER BY relation) FROM plimsoll.table_versions('{A}')".to_owned(),
        format!("SELECT {hash} FROM plimsoll.packed_manifest('{{A}}', 'shop.wide', '(,)', 100) x"),
        format!("SELECT pg_catalog.string_agg({hash}, ',' ORDER BY x) FROM plimsoll.download('{{A}}', 'shop.wide', '(,)', 100) AS d (x, y)"),
        format!("SELECT {hash} FROM plimsoll.sketch('{{A}}', 'shop.wide', '{{(,)}}', 0, 20) x"),
        "SELECT pg_catalog.string_agg(pg_catalog.encode(digest, 'hex'), ',' ORDER BY version) FROM plimsoll.manifest('{A}', 'shop.wide', '(,)')".to_owned(),
        "SELECT pg_catalog.count(*) FROM plimsoll.check_manifest('{A}', 'shop.wide')".to_owned(),
        "SELECT pg_catalog.encode(plimsoll.fingerprint(pg_catalog.decode('00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff', 'hex'),
             0.1::pg_catalog.float8, 1::pg_catalog.float4, pg_catalog.make_interval(days => 3), pg_catalog.make_date(2026, 1, 2),
             pg_catalog.make_timestamptz(2026, 1, 2, 3, 4, 5, 'UTC'), pg_catalog.decode('0a', 'hex'), 1.50), 'hex')".to_owned(),
    ];
    let mut rows = Rows::new();
    for query in queries {
        rows.append(&mut session.must(&world.filled(&query)));
    }
    rows
}

/// An upload of bytes, with all settings at once that could change what values mean.
fn stored(world: &mut World) -> Outcome {
    let rows = "SELECT encode(d.row, 'hex') FROM plimsoll.download('{A}', 'shop.wide', '[4,5)', 10) d";
    let mut session = world.connect(Who::Granted);
    let row: String = session.must(&world.filled(rows))[0][0].clone().expect("a row");
    session.must(&world.filled("SELECT * FROM plimsoll.delete_range('{A}', 'shop.wide', '[4,5)')"));
    session.must(
        "SET DateStyle = 'German, DMY'; SET IntervalStyle = 'sql_standard'; SET TimeZone = 'Asia/Kathmandu';
         SET extra_float_digits = -15; SET bytea_output = 'escape'; SET array_nulls = off; SET transform_null_equals = on",
    );
    let bytes = from_hex(&row);
    let mut batch = BatchWriter::new();
    batch.push(&bytes);
    let upload = format!(
        "SELECT inserted FROM plimsoll.upload('{{A}}', 'shop.wide', '{}'::bytea)",
        hex(&batch.finish())
    );
    expect(&mut session, &world.filled(&upload), Expect::Answer("1"))?;
    let again: String = session.must(&world.filled(rows))[0][0].clone().expect("a row");
    if again == row { Ok(()) } else { Err(format!("{again} instead of {row}")) }
}

/// The bytes of hexadecimal digits.
fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("digits");
    (0..text.len()).step_by(2).map(byte).collect()
}
