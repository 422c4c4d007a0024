//! What a batch costs beside an upload of the same rows, in processor time of the server process. Measured only where
//! `PLIMSOLL_MEASURE` is set: `PLIMSOLL_MEASURE=1 cargo test -p plimsoll-tests --test two_way_server cost -- --nocapture`.

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

fn apply(agent: &mut postgres::Client, till: &mut Till, acts: &[plimsoll_core::store::RemoteAct]) {
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
