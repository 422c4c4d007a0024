//! `pgspot` over the install and upgrade scripts: it knows the mistakes by which a script, or what it makes, lets
//! somebody else's code run with its owner's rights. What it finds is mended, or accepted with a reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::python;

/// What is installed from the Python package index.
const PACKAGE: &str = "pgspot==0.9.4";

/// What was found and stays.
const ACCEPTED: &str = include_str!("../pgspot.toml");

/// A script with a mistake: a tool that finds nothing in it checks nothing.
const MISTAKEN: &str =
    "CREATE FUNCTION plimsoll.mistake() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1';";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptedFile {
    #[serde(default)]
    accepted: Vec<Accepted>,
}

/// One finding that stays.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accepted {
    /// The script's file name.
    script: String,
    /// What pgspot says, without the line's number.
    finding: String,
    /// Why it does no harm.
    reason: String,
}

/// Checks every script in `sql/`; the tool is installed under `target` once.
pub(crate) fn run(root: &Path, target: &Path) -> Result<()> {
    let program = install(target)?;
    let mistaken = directory(target).join("mistaken.sql");
    std::fs::write(&mistaken, MISTAKEN).with_context(|| format!("cannot write {}", mistaken.display()))?;
    ensure!(
        !findings(&program, &mistaken)?.is_empty(),
        "pgspot finds nothing in a script with a known mistake"
    );
    let mut accepted = toml::from_str::<AcceptedFile>(ACCEPTED).context("xtask/pgspot.toml")?.accepted;
    for entry in &accepted {
        ensure!(!entry.reason.trim().is_empty(), "{} is accepted without a reason", entry.finding);
    }
    let scripts = scripts(&root.join("sql"))?;
    ensure!(!scripts.is_empty(), "there is no script in sql/");
    let mut wrong = Vec::new();
    for script in &scripts {
        let name = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
        wrong.extend(not_accepted(&name, findings(&program, script)?, &mut accepted));
    }
    wrong.extend(
        accepted
            .iter()
            .map(|entry| format!("accepted, but found no more in {}: {}", entry.script, entry.finding)),
    );
    if !wrong.is_empty() {
        bail!("mend the script, or accept it with a reason in xtask/pgspot.toml\n{}", wrong.join("\n"));
    }
    println!("nothing to mend in {} scripts", scripts.len());
    Ok(())
}

/// What was found in a script and is not accepted; what is accepted is taken out of the list.
fn not_accepted(script: &str, found: Vec<String>, accepted: &mut Vec<Accepted>) -> Vec<String> {
    let mut wrong = Vec::new();
    for finding in found {
        let unnumbered = without_line(&finding);
        match accepted.iter().position(|entry| entry.script == script && entry.finding == unnumbered) {
            Some(place) => drop(accepted.remove(place)),
            None => wrong.push(format!("{script}: {finding}")),
        }
    }
    wrong
}

fn without_line(finding: &str) -> &str {
    match finding.rsplit_once(" at line ") {
        Some((text, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => text,
        _ => finding,
    }
}

fn scripts(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut scripts: Vec<PathBuf> = paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    scripts.sort();
    Ok(scripts)
}

/// What pgspot says of a script.
fn findings(program: &Path, script: &Path) -> Result<Vec<String>> {
    let output = Command::new(program).arg(script).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    read(&text).with_context(|| format!("pgspot could not read {}: {}", script.display(), words.trim()))
}

/// The findings of an answer, which must account for every one of them.
fn read(text: &str) -> Result<Vec<String>> {
    let found: Vec<String> =
        text.lines().filter(|line| is_finding(line)).map(|line| line.trim().to_owned()).collect();
    let summary =
        text.lines().find(|line| line.trim_start().starts_with("Errors:")).context("it counts nothing")?;
    let counts: Vec<usize> = summary.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [errors, warnings, unknown] = counts[..] else { bail!("it counts something else: {summary}") };
    ensure!(unknown == 0, "there are {unknown} statements that it does not know");
    ensure!(
        found.len() == errors + warnings,
        "it counts {} findings and names {}",
        errors + warnings,
        found.len()
    );
    let rest = text.lines().map(str::trim);
    let rest: Vec<&str> =
        rest.filter(|line| !line.is_empty() && !is_finding(line) && *line != summary.trim()).collect();
    ensure!(rest.is_empty(), "{}", rest.join("; "));
    Ok(found)
}

fn is_finding(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("PS")
        && line.get(2..5).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Where it is installed: each version in a place of its own.
fn directory(target: &Path) -> PathBuf {
    target.join(PACKAGE.replace("==", "-"))
}

fn install(target: &Path) -> Result<PathBuf> {
    let directory = directory(target);
    let program = directory.join("bin/pgspot");
    if program.exists() {
        return Ok(program);
    }
    println!("Installing {PACKAGE} from the Python package index into {}", directory.display());
    let mut install = Command::new(python::pip(&directory)?);
    python::fetch(install.args(["install", "--quiet", PACKAGE]), PACKAGE)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = "PS001: Unqualified operator: '=' in a = 1 at line 881\n\
                          PS016: Unqualified function call: lower at line 882\n\n\
                          Errors: 0 Warnings: 2 Unknown: 0 \n";

    fn accepted(finding: &str) -> Accepted {
        Accepted { script: "a.sql".to_owned(), finding: finding.to_owned(), reason: "none".to_owned() }
    }

    #[test]
    fn findings_are_those_that_are_counted_and_nothing_may_be_left_unread() {
        assert_eq!(read(ANSWER).expect("an answer").len(), 2);
        assert!(read("\nErrors: 0 Warnings: 0 Unknown: 0 \n").expect("an answer").is_empty());
        for wrong in [
            "",
            "\nErrors: 0 Warnings: 1 Unknown: 0 \n",
            "\nErrors: 0 Warnings: 0 Unknown: 1 \n",
            "\nErrors: 0 Warnings: 0 Unknown: 0 \n syntax error at or near \"NOT\", at index 48022\n",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_new_finding_and_one_too_often_accepted_both_count() {
        let found = || read(ANSWER).expect("an answer");
        let operator = "PS001: Unqualified operator: '=' in a = 1";
        let mut list = vec![accepted(operator), accepted(operator)];
        let wrong = not_accepted("a.sql", found(), &mut list);
        assert_eq!(wrong, ["a.sql: PS016: Unqualified function call: lower at line 882"]);
        assert_eq!(list.len(), 1, "accepted once more than it is found");
        assert_eq!(not_accepted("b.sql", found(), &mut list).len(), 2, "accepted in another script");
    }

    #[test]
    fn what_is_accepted_has_reasons() {
        let file: AcceptedFile = toml::from_str(ACCEPTED).expect("xtask/pgspot.toml");
        assert!(file.accepted.iter().all(|entry| !entry.reason.trim().is_empty()));
    }
}
