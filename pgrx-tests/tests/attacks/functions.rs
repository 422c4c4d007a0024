//! Every function of the extension, called with the other database's id: by each attacker. A function that is not
//! in the list fails the suite.

use std::collections::BTreeSet;

use crate::attempt::{DENIED, Expect, Outcome, Trials, expect, judged};
use crate::world::{Session, Who, World};

/// A run of somebody else and one that never was read the same; a reader may not call the function at all.
const NOT_YOUR_RUN: Expect = Expect::Refused(&["55000", "42501"]);
const NO_LOGIN: Expect = Expect::Refused(&["28000", "42501"]);

/// Functions by their signature, the arguments, and what must come of the call.
const CALLS: [(&str, &str, Expect); 85] = [
    (
        "adopt_database(uuid,text,text,bytea)",
        "'{B}', 'acme', 'mine', decode(repeat('00', 32), 'hex')",
        DENIED,
    ),
    ("batch_history(uuid,text,integer)", "'{B}', 'shop.customer', 5", DENIED),
    ("begin_run(uuid,text,text,integer,text,jsonb,jsonb,uuid,boolean)", "'{B}', 'thief', '1', 1", DENIED),
    ("check_manifest(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    (
        "clear_rejected(bigint,text,bytea[])",
        "{run}, 'shop.customer', ARRAY[decode(repeat('5e', 16), 'hex')]",
        NOT_YOUR_RUN,
    ),
    ("clear_rejected(uuid,text)", "'{B}'::uuid, 'shop.customer'", DENIED),
    ("delete_all(uuid,text,bigint)", "'{B}', 'shop.customer'", DENIED),
    ("delete_range(uuid,text,int8range,bigint)", "'{B}', 'shop.customer', '(,)', {run}", DENIED),
    ("delete_rows(uuid,text,bytea,bigint,bigint)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    (
        "delete_rows(uuid,text,jsonb,bigint)",
        "'{B}', 'shop.customer', '[{\"key\": {\"id\": 1}}]'::jsonb",
        DENIED,
    ),
    ("download(uuid,text,int8range,integer,bytea)", "'{B}', 'shop.customer', '(,)', 100", DENIED),
    ("end_run(bigint,text,jsonb,text)", "{run}, 'finished'", NOT_YOUR_RUN),
    (
        "fingerprint(bytea,\"any\")",
        "decode(repeat('00', 32), 'hex'), t.*) FROM (SELECT * FROM shop.customer) t WHERE (true",
        DENIED,
    ),
    (
        "fingerprint_add(bytea,bytea,\"any\")",
        "decode(repeat('00', 40), 'hex'), decode(repeat('00', 32), 'hex'), 1",
        DENIED,
    ),
    ("fingerprint_combine(bytea,bytea)", "'\\x00'::bytea, decode(repeat('00', 4000), 'hex')", DENIED),
    ("fingerprint_sum(bytea)", "''::bytea", DENIED),
    ("fold_manifest(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("forget_database(uuid)", "'{B}'", DENIED),
    ("forget_side(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("grant_database(uuid,name)", "'{B}', current_user", DENIED),
    (
        "keep_manifest(regclass,boolean)",
        "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass, false",
        DENIED,
    ),
    ("kept_rewrite()", "", DENIED),
    ("kept_subscription()", "", DENIED),
    ("kept_trigger()", "", DENIED),
    ("login(uuid,bytea)", "'{B}', decode(repeat('00', 32), 'hex')", NO_LOGIN),
    (
        "manage_table(regclass,name[],name,name,text,name[],name[],boolean,boolean,jsonb,uuid,text[])",
        "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass, version_column => 'version'",
        DENIED,
    ),
    ("manifest(uuid,text,int8range)", "'{B}', 'shop.customer', '(,)'", DENIED),
    (
        "packed_batch(uuid,text,bytea,integer,bigint)",
        "'{B}', 'shop.customer', NULL::bytea, 10, 1000::bigint",
        DENIED,
    ),
    ("packed_fingerprints(uuid,text,bytea)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    ("packed_items(uuid,text,bytea)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    ("packed_keys(uuid,text,bytea)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    ("packed_lookup(uuid,text,bytea)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    ("packed_manifest(uuid,text,int8range,integer)", "'{B}', 'shop.customer', '(,)', 10", DENIED),
    ("packed_ranges(uuid,text,bytea,integer)", "'{B}', 'shop.customer', '\\x00'::bytea, 10", DENIED),
    ("packed_rows(uuid,text,bytea)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    (
        "packed_sketch(uuid,text,bytea,integer,integer)",
        "'{B}', 'shop.customer', '\\x00'::bytea, 0, 10",
        DENIED,
    ),
    ("packed_summaries(uuid,text,bytea)", "'{B}', 'shop.customer', '\\x00'::bytea", DENIED),
    ("packed_windows(uuid,text,bytea,integer)", "'{B}', 'shop.customer', '\\x00'::bytea, 10", DENIED),
    ("range_fingerprint(uuid,text,int8range)", "'{B}', 'shop.customer', '(,)'", DENIED),
    ("range_manifest(uuid,text,int8range,integer)", "'{B}', 'shop.customer', '(,)', 10", DENIED),
    ("rebuild_manifest(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    (
        "record_batch(bigint,text,text,bigint,bigint,bigint,text)",
        "{run}, 'shop.customer', 'upload', 1, 1, 1",
        NOT_YOUR_RUN,
    ),
    ("register_database(text,text)", "'acme', 'another'", DENIED),
    ("reject_rows(bigint,text,jsonb)", "{run}, 'shop.customer', '[]'", NOT_YOUR_RUN),
    ("rejected_keys(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("release_hold(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("renew_lease(bigint)", "{run}", NOT_YOUR_RUN),
    ("resume_database(uuid)", "'{B}'", DENIED),
    ("revoke_database(uuid,name)", "'{B}', current_user", DENIED),
    ("rotate_token(uuid,interval)", "'{B}', '1 day'", DENIED),
    ("end_old_tokens(uuid)", "'{B}'", DENIED),
    ("failed_login_count()", "", DENIED),
    ("held_secret()", "", DENIED),
    ("role_oid(name)", "'postgres'", DENIED),
    ("acts_stay()", "", DENIED),
    (
        "protect_table(regclass,boolean)",
        "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass",
        DENIED,
    ),
    ("unprotect_table(regclass)", "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass", DENIED),
    ("visible_clients()", "", Expect::Refused(&[])),
    (
        "set_directions(regclass,text[])",
        "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass, '{}'",
        DENIED,
    ),
    ("set_option(uuid,text,text)", "'{B}', 'guard_fraction', '1'", DENIED),
    ("sketch(uuid,text,int8multirange,integer,integer)", "'{B}', 'shop.customer', '{(,)}', 0, 10", DENIED),
    ("suspend_database(uuid)", "'{B}'", DENIED),
    ("change_mark(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("tail_start(uuid,text,bigint,integer)", "'{B}', 'shop.customer', 5, 1", DENIED),
    ("table_schema(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("table_version(uuid,text)", "'{B}', 'shop.customer'", DENIED),
    ("table_versions(uuid)", "'{B}'", DENIED),
    ("unmanage_table(regclass)", "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass", DENIED),
    ("unmanage_table(text)", "'shop.customer'::text", DENIED),
    (
        "upload(uuid,text,bytea,bigint,bigint,integer[],bigint)",
        "'{B}', 'shop.customer', '\\x00'::bytea, {run}",
        DENIED,
    ),
    (
        "upload(uuid,text,jsonb,bigint)",
        "'{B}', 'shop.customer', '[{\"id\": 1, \"version\": 99}]'::jsonb, {run}",
        DENIED,
    ),
    ("resolve_conflict(bigint,text)", "1, 'remote'::text", DENIED),
    ("resolve_conflict(bigint,jsonb)", "1, '{}'::jsonb", DENIED),
    ("stamp_trigger()", "", DENIED),
    ("stamp_versions(regclass)", "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass", DENIED),
    ("unstamp_versions(regclass)", "(SELECT oid FROM pg_class WHERE relname = 'customer')::regclass", DENIED),
    ("two_way_begin(uuid,text,bigint,boolean)", "'{B}', 'shop.customer', {run}", DENIED),
    ("two_way_base(uuid,text,bigint)", "'{B}', 'shop.customer', {run}", DENIED),
    ("two_way_settle(uuid,text,bigint,bigint,bigint)", "'{B}', 'shop.customer', {run}, 1, 1", DENIED),
    ("two_way_fetch(uuid,text,bytea,integer)", "'{B}', 'shop.customer', '\\x00'::bytea, 10", DENIED),
    (
        "two_way_apply(uuid,text,bigint,bigint,bytea,bigint,integer,integer,bigint)",
        "'{B}', 'shop.customer', {run}, 16777217, '\\x0100'::bytea",
        DENIED,
    ),
    ("two_way_close(uuid,text,bigint,bytea)", "'{B}', 'shop.customer', {run}, '\\x0100'::bytea", DENIED),
    // The last ones name no database.
    ("login_challenge()", "", Expect::Refused(&[])),
    ("version()", "", Expect::Refused(&[])),
    ("visible_databases()", "", Expect::Refused(&[])),
];

const ATTACKERS: [Who; 5] = [Who::Granted, Who::Shared, Who::Maker, Who::Reader, Who::Stranger];

pub fn attack(trials: &mut Trials) {
    trials.one("every function has an attempt", every_function_is_listed);
    let mut sessions: Vec<(Who, Session)> =
        ATTACKERS.iter().map(|who| (*who, trials.world.connect(*who))).collect();
    for (signature, arguments, wanted) in calls() {
        trials.one(&format!("{signature} of another database"), |world| {
            for (who, session) in &mut sessions {
                call(world, *who, session, signature, arguments, *wanted)
                    .map_err(|wrong| format!("{who:?}: {wrong}"))?;
            }
            Ok(())
        });
    }
    for (function, own) in
        [("visible_databases", trials.world.a.id.to_string()), ("visible_clients", "acme".to_owned())]
    {
        trials.one(&format!("{function}() are one's own"), |world| {
            for (who, session) in &mut sessions {
                if *who == Who::Shared {
                    session.log_in(&world.a);
                }
                let outcome =
                    session.run(&format!("SELECT string_agg(v::text, ',') FROM plimsoll.{function}() v"));
                match (*who, outcome) {
                    (Who::Stranger, outcome) => judged(&outcome, DENIED)?,
                    (_, Ok(found)) if found == [[Some(own.clone())]] => {}
                    (_, outcome) => return Err(format!("{who:?} sees {outcome:?}")),
                }
                session.run("ROLLBACK").ok();
            }
            Ok(())
        });
    }
}

/// The calls that name a database, a run or a table.
fn calls() -> impl Iterator<Item = &'static (&'static str, &'static str, Expect)> {
    CALLS.iter().filter(|(_, _, wanted)| !matches!(wanted, Expect::Refused([])))
}

fn call(
    world: &World,
    who: Who,
    session: &mut Session,
    signature: &str,
    arguments: &str,
    wanted: Expect,
) -> Outcome {
    let name = signature.split('(').next().unwrap_or_default();
    let sql = world.filled(&format!("SELECT * FROM (SELECT plimsoll.{name}({arguments})) AS answer"));
    if who == Who::Shared {
        session.log_in(&world.a);
        let outcome = expect(session, &sql, wanted);
        session.must("ROLLBACK");
        return outcome;
    }
    let wanted = if who == Who::Stranger { DENIED } else { wanted };
    expect(session, &sql, wanted)
}

fn every_function_is_listed(world: &mut World) -> Outcome {
    let sql = "SELECT ltrim(replace(p.oid::regprocedure::text, 'plimsoll.', '')) FROM pg_proc p
               WHERE pronamespace = 'plimsoll'::regnamespace";
    let rows = world.superuser.query(sql, &[]).expect("the functions");
    let there: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let listed: BTreeSet<String> = CALLS.iter().map(|(signature, ..)| (*signature).to_owned()).collect();
    let missing: Vec<_> = there.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&there).collect();
    if missing.is_empty() && gone.is_empty() {
        return Ok(());
    }
    Err(format!("no attempt for {missing:?}; no function for {gone:?}"))
}
