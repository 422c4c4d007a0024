//! Runs tests and counts them, from what `cargo test` prints at the end of each file of them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// How many tests there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Count {
    /// Runs `cargo test`, whose output is passed on, and adds its tests.
    ///
    /// # Errors
    /// When it fails: a test did, or did not compile, or its process ended early, whose tests are not counted then.
    pub(crate) fn run(&mut self, tests: &mut Command) -> Result<()> {
        let mut running = tests.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
        let output = running.stdout.take().context("cargo has no output")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("cannot read what cargo prints")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            self.add(&line);
        }
        let status = running.wait().context("cannot wait for cargo")?;
        if !status.success() {
            bail!("cargo test failed ({status}): {} tests passed, {} failed", self.passed, self.failed);
        }
        Ok(())
    }

    /// Adds what a line says, where it is one that ends a file of tests.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        for part in counts.split(['.', ';']) {
            match part.trim().split_once(' ').map(|(number, what)| (number.parse::<usize>(), what)) {
                Some((Ok(number), "passed")) => self.passed += number,
                Some((Ok(number), "failed")) => self.failed += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn every_file_of_tests_is_added() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test passed ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.41s",
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s",
        ] {
            count.add(line);
        }
        assert_eq!(count, Count { passed: 17, failed: 2 });
    }
}
