//! What a batch reads; and what it costs beside an upload of the same rows, in processor time of the server process, which
//! is measured only where `PLIMSOLL_MEASURE` is set: `PLIMSOLL_MEASURE=1 cargo test -p plimsoll-tests --test two_way_server cost -- --nocapture`.

use plimsoll_core::row::BatchWriter;
use plimsoll_core::store::Applied;
use plimsoll_core::two_way::wire::{Act, pack_acts, read_applied};

use crate::till::{Till, contact};

const ROWS: i64 = 4_096;
const ROUNDS: i64 = 16;

/// Hundredths of a second that a process worked.
fn worked(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name")..].split(' ').collect();
    fields[12].parse::<u64>().expect("user time") + fields[13].parse::<u64>().expect("system time")
}

#[test]
fn a_batch_costs_about_what_an_upload_does() {
    if std::env::var_os("PLIMSOLL_MEASURE").is_none() {
        return;
    }
    let mut till = Till::open();
    let mut agent = till.connect();
    let pid: i32 = agent.query_one("SELECT pg_backend_pid()", &[]).expect("a pid").get(0);
    let (id, run_id) = (till.registered.id, till.run_id);
    let row = |id: i64, round: i64| contact(id, &format!("number {id} of round {round}"), round + 1);
    let (mut upload, mut changes, mut inserts, mut inserted) = (0, 0, 0, 0);
    for round in 0..ROUNDS {
        let (first, other) = (1, ROWS + 1);
        // The same rows of two parts of the table: one is uploaded, the other one changed by a batch; then new ones.
        let begun = worked(pid);
        let mut writer = BatchWriter::new();
        (first..first + ROWS).for_each(|id| writer.push(&till.row(&row(id, round)).row));
        let bytes = writer.finish();
        agent
            .query_one(
                "SELECT plimsoll.upload($1, 'shop.contact', $2::bytea, $3)::text",
                &[&id, &bytes, &run_id],
            )
            .expect("an upload");
        let uploaded = worked(pid);
        let acts: Vec<_> = (other..other + ROWS)
            .map(|id| till.upsert(&row(id, round), (round > 0).then(|| row(id, round - 1)).as_ref()))
            .collect();
        apply(&mut agent, &mut till, &acts);
        let applied = worked(pid);
        let new = 10_000 + round * 2 * ROWS;
        let mut writer = BatchWriter::new();
        (new..new + ROWS).for_each(|id| writer.push(&till.row(&row(id, 0)).row));
        let bytes = writer.finish();
        agent
            .query_one(
                "SELECT plimsoll.upload($1, 'shop.contact', $2::bytea, $3)::text",
                &[&id, &bytes, &run_id],
            )
            .expect("an upload");
        let uploaded_new = worked(pid);
        let acts: Vec<_> = (new + ROWS..new + 2 * ROWS).map(|id| till.upsert(&row(id, 0), None)).collect();
        apply(&mut agent, &mut till, &acts);
        if round > 0 {
            upload += uploaded - begun;
            changes += applied - uploaded;
            inserted += uploaded_new - applied;
            inserts += worked(pid) - uploaded_new;
        }
    }
    println!("{ROWS} rows, {} rounds, hundredths of a second of the server process:", ROUNDS - 1);
    println!("  changed: upload {upload}, batch {changes}; new: upload {inserted}, batch {inserts}");
    assert!(changes <= 2 * upload + 10 && inserts <= 3 * inserted + 10);
}

#[test]
fn a_batch_reads_its_own_rows_alone_whatever_the_planner_knows_of_indexes() {
    let (all, few) = (3_000, 1_500..1_520);
    // A trigger before each row has them stored by statements.
    let by_statements =
        "CREATE FUNCTION shop.same() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER same BEFORE UPDATE ON shop.contact FOR EACH ROW EXECUTE FUNCTION shop.same();";
    for more in ["", by_statements] {
        let mut till = Till::open();
        till.shop
            .superuser
            .batch_execute(&format!(
                "{more}
                 ALTER TABLE shop.contact SET (autovacuum_enabled = off);
                 CREATE INDEX ON shop.contact (client_id, database_id);
                 CREATE INDEX ON shop.contact (client_id, database_id, phone);
                 CREATE INDEX ON shop.contact (client_id, database_id, rank, id);
                 CREATE INDEX ON shop.contact (client_id, database_id, rank);
                 INSERT INTO shop.contact SELECT 'acme', '{}', i, 'p', NULL, 1 FROM generate_series(1, {all}) i",
                till.registered.id
            ))
            .expect("indexes and rows");
        let mut agent = till.connect();
        for change in [true, false] {
            let row = |id| if change { contact(id, "p", 1) } else { contact(id, "q", 2) };
            let act = |till: &Till, id| match change {
                true => till.upsert(&contact(id, "q", 2), Some(&row(id))),
                false => till.delete(&row(id)),
            };
            // The guard against destruction counts a replica when it is asked first, and remembers that.
            let one = [act(&till, few.start - 1)];
            apply(&mut agent, &mut till, &one);
            let acts: Vec<_> = few.clone().map(|id| act(&till, id)).collect();
            let mut transaction = agent.transaction().expect("a transaction");
            let before = read(&mut transaction);
            apply(&mut transaction, &mut till, &acts);
            let read = read(&mut transaction) - before;
            transaction.commit().expect("the end");
            assert!(read <= 10 * (few.end - few.start), "{read} rows read, to change them: {change}; {more}");
        }
        till.assert_kept();
    }
}

/// Rows of the table that the session read, of late. A transaction's own are told after those that came before.
fn read(transaction: &mut postgres::Transaction<'_>) -> i64 {
    let sql = "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint FROM pg_stat_xact_all_tables
               WHERE schemaname = 'shop'";
    transaction.query_one(sql, &[]).expect("counters").get(0)
}

fn apply(
    agent: &mut impl postgres::GenericClient,
    till: &mut Till,
    acts: &[plimsoll_core::store::RemoteAct],
) {
    let bytes = pack_acts(acts.iter().map(|act| Act::of(act, None)));
    let number = till.number() as i64;
    let sql = "SELECT plimsoll.two_way_apply($1, 'shop.contact', $2, $3, $4)";
    let answer =
        agent.query_one(sql, &[&till.registered.id, &till.run_id, &number, &bytes]).expect("a batch");
    let applied = read_applied(answer.get(0)).expect("an answer");
    assert!(
        applied.iter().all(|applied| *applied == Applied::Done),
        "{:?}",
        applied.iter().find(|a| **a != Applied::Done)
    );
}
