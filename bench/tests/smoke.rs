//! Every case on few rows, so that the benchmarks cannot rot: reports come out, and what they say adds up.

use plimsoll_bench::bench;
use plimsoll_bench::case::CASES;
use plimsoll_bench::progress::Progress;
use plimsoll_bench::report::Verdict;
use plimsoll_bench::scale::Scale;
use plimsoll_cluster::{MariaDb, Runner, Workspace};
use serde_json::Value;

const ROWS: u64 = 20_000;

#[test]
fn every_case_reports() {
    let workspace = Workspace::find(&Runner::current().expect("a user")).expect("a workspace");
    assert!(
        workspace.release_artefact("plimsoll").exists(),
        "run `cargo build --release --package plimsoll --package plimsoll-client`"
    );
    // The test goes without MariaDB where there is none; without `sqlite3` or `mariadb` their lines are missing alone.
    let cases: Vec<_> = CASES
        .iter()
        .filter(|case| MariaDb::is_installed() || case.name != "first-sync-mariadb")
        .copied()
        .collect();
    let directory = tempfile::tempdir().expect("a directory");
    let report =
        bench::run(Scale::smoke(ROWS), &cases, Progress::silent(), directory.path()).expect("a report");
    let failures: Vec<_> =
        report.cases.iter().filter_map(|case| Some((case.name, case.failure.as_ref()?))).collect();
    assert_eq!(failures, []);
    for case in &report.cases {
        assert!(!case.lines.is_empty() && !case.measured_on.is_empty(), "{} says nothing", case.name);
        for line in &case.lines {
            // So little work may take less than a tick of the processor's clock.
            let least = if line.what().ends_with("processor time") { 0.0 } else { f64::MIN_POSITIVE };
            assert!((least..f64::INFINITY).contains(&line.median()), "{}: {}", case.name, line.what());
        }
    }
    let bytes = report.cases.iter().find(|case| case.name == "bytes").expect("the case");
    let missing = bytes.lines.iter().find(|line| line.what() == "1 missing row").expect("its line");
    // Whatever else, a small table's one missing row is found in few bytes, however slow the machine is.
    assert_ne!(missing.verdict(), Verdict::Missed, "{:?}", missing.cells());
    let contains = |what: &str| bytes.lines.iter().any(|line| line.what().contains(what));
    assert!(contains("to the server") && contains("from the server"));

    report.write(directory.path()).expect("files");
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("a file");
    let json: Value = serde_json::from_str(&read("bench.json")).expect("JSON");
    let lines = json["cases"][0]["lines"].as_array().expect("lines");
    for field in ["what", "median", "min", "max", "ratio", "bar", "aim", "verdict"] {
        assert!(lines[0].get(field).is_some(), "no {field} in {}", lines[0]);
    }
    let markdown = read("bench.md");
    for case in &cases {
        assert!(markdown.contains(&format!("## {}", case.title)), "{} is not in bench.md", case.name);
    }
}
