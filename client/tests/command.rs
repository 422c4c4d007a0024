//! The binary as a user meets it, as far as no server is needed.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const TOKEN: &str = "plimsoll_000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const ID: &str = "6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11";

/// Runs the client in a folder, with this on its standard input.
fn plimsoll(folder: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("PLIMSOLL_TOKEN")
        .env_remove("PLIMSOLL_CONFIG")
        .env_remove("PGPASSWORD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the client starts");
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().expect("an input").write_all(input.as_bytes());
    child.wait_with_output().expect("the client ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn shop(folder: &Path) {
    let connection = rusqlite::Connection::open(folder.join("shop.sqlite")).expect("a database");
    connection
        .execute_batch(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, total NUMERIC(9,2), row_version INTEGER NOT NULL);
             CREATE INDEX v ON orders (row_version);
             CREATE TABLE \"Old Notes\" (note TEXT);",
        )
        .expect("sound SQL");
}

/// `init` for a server at a port where nothing listens.
fn init(folder: &Path) -> Output {
    let server = "postgres://agent:geheim@127.0.0.1:1/replicas?sslmode=disable";
    let arguments = ["init", "--source", "shop.sqlite", "--server", server, "--database-id", ID];
    plimsoll(folder, &arguments, &format!("{TOKEN}\n"))
}

#[test]
fn init_writes_a_configuration_that_the_other_commands_take() {
    let folder = tempfile::tempdir().expect("a folder");
    shop(folder.path());
    let output = init(folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(
        said.contains("No version column") && said.contains("equal rows are counted in\n  Old Notes\n"),
        "{said}"
    );
    assert!(!said.contains(TOKEN) && !text(&output.stderr).contains(TOKEN));
    let config = std::fs::read_to_string(folder.path().join("plimsoll.toml")).expect("written");
    assert!(
        config.contains("remote = \"public.orders\"") && config.contains("name = \"Old Notes\""),
        "{config}"
    );
    assert!(!config.contains(TOKEN));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            std::fs::metadata(folder.path().join("plimsoll.token")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let again = init(folder.path());
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is there already"));
    let schema = plimsoll(folder.path(), &["schema", "--owner", "shop_owner"], "");
    assert_eq!(schema.status.code(), Some(0));
    let sql = text(&schema.stdout);
    assert!(sql.contains("CREATE TABLE public.orders (") && sql.contains("total numeric(9,2)"), "{sql}");
}

#[test]
fn a_server_that_does_not_answer_is_exit_code_2_and_an_error_in_json() {
    let folder = tempfile::tempdir().expect("a folder");
    shop(folder.path());
    init(folder.path());
    for command in ["sync", "verify"] {
        let output = plimsoll(folder.path(), &[command, "--json"], "");
        assert_eq!(output.status.code(), Some(2), "{command}");
        let error: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(message.contains("127.0.0.1:1/replicas"), "{message}");
        assert!(!text(&output.stderr).contains("geheim"));
    }
    let status = plimsoll(folder.path(), &["status"], "");
    assert_eq!(status.status.code(), Some(2));
    assert!(text(&status.stdout).contains("connection was refused"));
}

#[test]
fn a_run_tries_again_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    shop(folder.path());
    init(folder.path());
    let child = Command::new(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["run", "--every", "50ms", "--json", "--quiet"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the client starts");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let killed = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("the client ends");
    assert_eq!(output.status.code(), Some(0));
    let lines = text(&output.stdout);
    assert!(lines.lines().count() >= 2, "{lines}");
    assert!(lines.lines().all(|line| line.contains("refused")), "{lines}");
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = plimsoll(folder.path(), &["sync"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("plimsoll init"));
    shop(folder.path());
    init(folder.path());
    std::fs::remove_file(folder.path().join("shop.sqlite")).expect("removed");
    let output = plimsoll(folder.path(), &["sync"], "");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is no file shop.sqlite"), "{}", text(&output.stderr));
    let output = plimsoll(folder.path(), &["sync", "--table", "nothere"], "");
    assert!(text(&output.stderr).contains("no table \"nothere\" is configured"));
}
