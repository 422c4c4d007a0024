//! `cargo xtask test`: everything that must hold before a change is taken.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_cluster::{Installation, sweep};

use crate::count::Count;
use crate::{Machine, build, command, pgspot, server, setup};

/// Where tests look for the baseball database unless `PLIMSOLL_BASEBALL` names it.
const BASEBALL: &str = "../shared/data/baseball.sqlite.gz";

/// Which servers the tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    /// The one that the machine has.
    Machine,
    /// One of this major.
    Major(u32),
    /// One of each major, the machine's own last, so that its build stays.
    All,
}

/// One step's name, how long it took, and why it failed.
struct Step {
    name: String,
    took: Duration,
    failure: Option<String>,
}

/// What was run, in order.
#[derive(Default)]
struct Steps(Vec<Step>);

/// What the tests said of one server.
struct Verdict {
    server: Installation,
    took: Duration,
    count: Count,
    passed: bool,
}

impl Steps {
    /// Runs a step, and answers whether it passed.
    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> bool {
        println!("\n== {name}");
        let begun = Instant::now();
        let failure = work().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            eprintln!("error: {failure}");
        }
        let passed = failure.is_none();
        self.0.push(Step { name: name.to_owned(), took: begun.elapsed(), failure });
        passed
    }
}

/// Runs every step; a later step runs also where an earlier one failed, unless it cannot without it. With `files`,
/// nothing but these files of tests against servers.
pub(crate) fn run(servers: Servers, files: &[String]) -> Result<ExitCode> {
    let begun = Instant::now();
    let mut machine = Machine::set_up_with(setup::TEST)?;
    let servers = installations(&machine, servers)?;
    if let [server] = &servers[..] {
        machine.installation = server.clone();
    }
    let versions: Vec<&str> = servers.iter().map(|server| server.version.as_str()).collect();
    println!("Testing against {}", versions.join(", "));
    let mut steps = Steps::default();
    if files.is_empty() {
        look(&machine, &mut steps);
    }
    let built = steps.run("release build of the client", || {
        build::client(&machine.workspace, &machine.installation).map(drop)
    });
    if built && files.is_empty() {
        // The benchmarks' own test puts it into a server.
        let name = format!("release build of the extension for Postgres {}", machine.installation.major);
        steps.run(&name, || build::extension(&machine.workspace, &machine.installation));
        steps.run("tests without a server of their own", || {
            // The extension's own package has no tests that run outside a server.
            let mut tests = build::cargo(&machine.workspace, &machine.installation);
            tests.args(["test", "--workspace", "--exclude", "plimsoll", "--exclude", "plimsoll-tests"]);
            command::run(tests.arg("--no-fail-fast"))
        });
    }
    let mut verdicts = Vec::new();
    if built {
        for server in servers {
            let looked_at = server == machine.installation || !files.is_empty();
            let machine = Machine { installation: server, ..machine.clone() };
            if !looked_at {
                let name = format!("lints of the extension for Postgres {}", machine.installation.major);
                steps.run(&name, || lint(&machine, &["--package", "plimsoll"]));
            }
            verdicts.push(against(machine, files, &mut steps)?);
        }
    }
    if built && files.is_empty() {
        steps.run("real data present", || real_data_is_present(&machine));
    }
    Ok(summary(&steps, verdicts, begun.elapsed()))
}

/// The servers to test against.
fn installations(machine: &Machine, servers: Servers) -> Result<Vec<Installation>> {
    let own = &machine.installation;
    let of_major = |major: u32| server::of_major(&machine.workspace, own, major);
    match servers {
        Servers::Machine => Ok(vec![own.clone()]),
        Servers::Major(major) => Ok(vec![of_major(major)?]),
        Servers::All => {
            let others = Installation::SUPPORTED.filter(|major| *major != own.major);
            others.chain([own.major]).map(of_major).collect()
        }
    }
}

/// What is told from the source alone.
fn look(machine: &Machine, steps: &mut Steps) {
    let Machine { workspace, installation, .. } = machine;
    steps.run("formatting", || {
        command::run(build::cargo(workspace, installation).args(["fmt", "--all", "--check"]))
    });
    steps.run("lints", || lint(machine, &["--workspace"]));
    steps.run("pgspot over the SQL scripts", || pgspot::run(&workspace.root, &workspace.target));
}

fn lint(machine: &Machine, packages: &[&str]) -> Result<()> {
    let mut clippy = build::cargo(&machine.workspace, &machine.installation);
    clippy.arg("clippy").args(packages).args(["--all-targets", "--no-default-features", "--features"]);
    clippy.arg(format!("plimsoll/{}", machine.installation.feature()));
    command::run(clippy.args(["--", "--deny", "warnings"]))
}

/// Builds the extension for the machine's server, and runs the tests against it.
fn against(machine: Machine, files: &[String], steps: &mut Steps) -> Result<Verdict> {
    let Machine { workspace, installation, .. } = &machine;
    let begun = Instant::now();
    let mut count = Count::default();
    let name = format!("release build of the extension for Postgres {}", installation.major);
    let mut passed = steps.run(&name, || build::extension(workspace, installation));
    if passed {
        let stage = machine.stage()?;
        passed = steps.run(&format!("tests against {}", installation.version), || {
            let mut tests = build::cargo(workspace, installation);
            tests.args(["test", "--package", "plimsoll-tests", "--no-fail-fast"]);
            tests.args(files.iter().flat_map(|file| ["--test", file]));
            count.run(&mut tests)
        });
        // A test process that was killed leaves its server to its watchdog; none may outlive this command.
        sweep(workspace, &stage, &machine.runner)?;
    }
    Ok(Verdict { server: machine.installation, took: begun.elapsed(), count, passed })
}

/// Without the baseball database its test is skipped; continuous integration must not skip it.
fn real_data_is_present(machine: &Machine) -> Result<()> {
    let path = match std::env::var_os("PLIMSOLL_BASEBALL") {
        Some(path) => path.into(),
        None => machine.workspace.root.join(BASEBALL),
    };
    if path.exists() {
        println!("yes: {}", path.display());
    } else if std::env::var("CI").is_ok_and(|value| value == "true") {
        anyhow::bail!("{} is missing, so the test on real data was skipped", path.display());
    } else {
        println!("no: {} is missing, so the test on real data was skipped", path.display());
    }
    Ok(())
}

fn summary(steps: &Steps, mut verdicts: Vec<Verdict>, took: Duration) -> ExitCode {
    println!("\n== summary");
    for step in &steps.0 {
        let outcome = if step.failure.is_some() { "FAILED" } else { "passed" };
        println!("{outcome}  {:>6.1} s  {}", step.took.as_secs_f64(), step.name);
    }
    if verdicts.len() > 1 {
        verdicts.sort_by_key(|verdict| verdict.server.major);
        println!("\n{:>5}  {:>6}  {:>6}  {:>8}  server", "major", "passed", "failed", "time");
        for Verdict { server, took, count, passed } in &verdicts {
            println!(
                "{:>5}  {:>6}  {:>6}  {:>6.0} s  {}{}",
                server.major,
                count.passed,
                count.failed,
                took.as_secs_f64(),
                server.version,
                if *passed { "" } else { "  NOT PASSED" }
            );
        }
    }
    let failed = steps.0.iter().filter(|step| step.failure.is_some()).count();
    println!("{} in {:.1} s", if failed == 0 { "All passed" } else { "Not passed" }, took.as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
