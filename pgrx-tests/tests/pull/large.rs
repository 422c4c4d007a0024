//! What a first pull of 1,000,000 rows costs beside the databases' own tools, in processor time and memory: with
//! `PLIMSOLL_LARGE=1`. The figures are printed.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use plimsoll_tests::table_of;

use crate::site::{Pull, SALE};

/// Processor time of a process so far, in seconds, and the most memory that it had, in MiB.
fn spent(pid: u32) -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").trim().parse::<f64>().ok());
    Some((ticks / 100.0, peak.unwrap_or(0.0) / 1024.0))
}

/// Watches a process, and the server's sessions, until it ends: processor time of it and of them, and its memory.
fn watch(pull: &mut Pull, pid: u32, is_running: &mut dyn FnMut() -> bool) -> (f64, f64, f64) {
    let (mut own, mut sessions): ((f64, f64), HashMap<u32, (f64, f64)>) = ((0.0, 0.0), HashMap::new());
    let sql =
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while is_running() {
        own = spent(pid).unwrap_or(own);
        for row in pull.server.query(sql, &[]).expect("sessions") {
            let pid = row.get::<_, i32>(0) as u32;
            if let Some((now, _)) = spent(pid) {
                sessions.entry(pid).or_insert((now, now)).1 = now;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (own.0, sessions.values().map(|(first, last)| last - first).sum(), own.1)
}

#[test]
fn a_first_pull_costs_so_many_times_as_much_as_a_copy() {
    if std::env::var_os("PLIMSOLL_LARGE").is_none() {
        return;
    }
    let mut pull = Pull::with(&[&SALE], "[sync]\nrun_budget = \"30m\"");
    pull.there("INSERT INTO sale SELECT $T, i, 'c' || i, i % 7, i FROM generate_series(1, 1000000) i");
    pull.server.batch_execute("VACUUM ANALYZE sale").expect("vacuumed");
    // The databases' own tools: out as text, and in.
    let url = pull.site.cluster.client_url(&pull.agent.login, &pull.site.database);
    let role = pull.agent.login.role.clone();
    pull.server.batch_execute(&format!("GRANT SELECT ON sale TO {role}")).expect("a grant");
    let file = pull.agent.home.path("out.csv");
    let copy = format!("\\copy (SELECT id, code, amount, version FROM sale) TO '{}' CSV", file.display());
    let mut psql =
        Command::new("psql").args([&url, "-qc", &copy]).stdout(Stdio::null()).spawn().expect("psql");
    let out = watch(&mut pull, psql.id(), &mut || psql.try_wait().expect("psql").is_none());
    let other = pull.agent.home.path("other.sqlite");
    let made = format!("CREATE TABLE sale ({})", SALE.local);
    let import = format!(".import --csv {} sale", file.display());
    let mut sqlite = Command::new("sqlite3").arg(&other).args([&made, &import]).spawn().expect("sqlite3");
    let import = watch(&mut pull, sqlite.id(), &mut || sqlite.try_wait().expect("sqlite3").is_none());
    let mut running = pull.agent.home.start(["sync", "--json", "--quiet"]);
    let pid = running.id();
    let own = watch(&mut pull, pid, &mut || running.is_running());
    let report = running.wait(Duration::from_secs(60)).expect_code(0).json();
    assert_eq!(table_of(&report, "sale")["status"], "level", "{report}");
    let tools = out.0 + out.1 + import.0;
    println!(
        "copy out {:.2} s (server {:.2} s), import {:.2} s: {tools:.2} s; first pull: client {:.2} s, server {:.2} s: \
         {:.2} times; peak {:.0} MiB",
        out.0,
        out.1,
        import.0,
        own.0,
        own.1,
        (own.0 + own.1) / tools,
        own.2
    );
    for _ in 0..2 {
        pull.sync();
    }
    let mut running = pull.agent.home.start(["sync", "--json", "--quiet"]);
    let pid = running.id();
    let idle = watch(&mut pull, pid, &mut || running.is_running());
    drop(running.wait(Duration::from_secs(60)).expect_code(0));
    println!("idle: client {:.2} s, server {:.2} s; peak {:.0} MiB", idle.0, idle.1, idle.2);
    // One row changed on the server, and one here.
    pull.there("UPDATE sale SET amount = 99, version = 2000000 WHERE id = 500");
    pull.here("UPDATE sale SET amount = 98 WHERE id = 999000");
    let mut running = pull.agent.home.start(["sync", "--json", "--quiet"]);
    let pid = running.id();
    let some = watch(&mut pull, pid, &mut || running.is_running());
    drop(running.wait(Duration::from_secs(300)));
    println!("two rows: client {:.2} s, server {:.2} s; peak {:.0} MiB", some.0, some.1, some.2);
}
