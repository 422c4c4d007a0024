//! `cargo xtask test`: everything that must hold before a change is taken.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use plimsoll_cluster::sweep;

use crate::{Machine, build, command, pgspot, setup};

/// Where tests look for the baseball database unless `PLIMSOLL_BASEBALL` names it.
const BASEBALL: &str = "../shared/data/baseball.sqlite.gz";

/// One step's name, how long it took, and why it failed.
struct Step {
    name: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// Runs every step; a later step runs also where an earlier one failed, unless it cannot without it.
pub(crate) fn run() -> Result<ExitCode> {
    let begun = Instant::now();
    let machine = Machine::set_up_with(setup::TEST)?;
    let (workspace, installation) = (&machine.workspace, &machine.installation);
    println!("Testing against {}", installation.version);
    let mut steps = Vec::new();
    let mut step = |name: &'static str, work: &mut dyn FnMut() -> Result<()>| -> bool {
        println!("\n== {name}");
        let begun = Instant::now();
        let failure = work().err().map(|error| format!("{error:#}"));
        if let Some(failure) = &failure {
            eprintln!("error: {failure}");
        }
        let passed = failure.is_none();
        steps.push(Step { name, took: begun.elapsed(), failure });
        passed
    };
    let cargo = || build::cargo(workspace, installation);
    let feature = format!("plimsoll/{}", installation.feature());

    step("formatting", &mut || command::run(cargo().args(["fmt", "--all", "--check"])));
    step("lints", &mut || {
        let mut clippy = cargo();
        clippy.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--no-default-features",
            "--features",
            &feature,
        ]);
        command::run(clippy.args(["--", "--deny", "warnings"]))
    });
    step("pgspot over the SQL scripts", &mut || pgspot::run(&workspace.root, &workspace.target));
    let built = step("release build of the extension and the client", &mut || {
        build::extension(workspace, installation)?;
        build::client(workspace, installation).map(drop)
    });
    if built {
        let stage = machine.stage()?;
        step("tests", &mut || {
            // The extension's own package has no tests that run outside a server.
            let mut tests = cargo();
            tests.args(["test", "--workspace", "--exclude", "plimsoll", "--no-fail-fast"]);
            command::run(&mut tests)
        });
        // A test process that was killed leaves its server to its watchdog; none may outlive this command.
        sweep(workspace, &stage, &machine.runner)?;
        step("real data present", &mut || real_data_is_present(&machine));
    }
    Ok(summary(&steps, begun.elapsed()))
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

fn summary(steps: &[Step], took: Duration) -> ExitCode {
    println!("\n== summary");
    for step in steps {
        let outcome = if step.failure.is_some() { "FAILED" } else { "passed" };
        println!("{outcome}  {:>6.1} s  {}", step.took.as_secs_f64(), step.name);
    }
    let failed = steps.iter().filter(|step| step.failure.is_some()).count();
    println!("{} in {:.1} s", if failed == 0 { "All passed" } else { "Not passed" }, took.as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
