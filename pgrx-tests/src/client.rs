//! The client's binary, run as a user would: with a configuration file in a directory of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plimsoll_cluster::{Runner, Workspace};
use tempfile::TempDir;
use wait_timeout::ChildExt;

use crate::Registered;

/// A command of the client that takes longer hangs.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// A temporary directory in which the client runs; removed with this value.
#[derive(Debug)]
pub struct ClientHome {
    directory: TempDir,
    binary: PathBuf,
    environment: Vec<(String, String)>,
}

/// How a command of the client ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it reported.
    pub stderr: String,
}

/// A command of the client that still runs; killed when the value is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl ClientHome {
    /// An empty directory. The client is `PLIMSOLL_CLIENT` where that is set, else the release build.
    pub fn new() -> Self {
        let binary = match std::env::var_os("PLIMSOLL_CLIENT") {
            Some(path) => path.into(),
            None => {
                let runner = Runner::current().expect("a user");
                Workspace::find(&runner).expect("a workspace").release_artefact("plimsoll")
            }
        };
        assert!(
            binary.exists(),
            "{} is missing: run `cargo build --release --package plimsoll-client`",
            binary.display()
        );
        let directory = tempfile::Builder::new().prefix("plimsoll-client-").tempdir().expect("a directory");
        ClientHome { directory, binary, environment: Vec::new() }
    }

    /// The path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only the user can read, such as `plimsoll.toml` or a token.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        use std::io::Write;
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("a file");
        file.write_all(content.as_bytes()).expect("the file is written");
        path
    }

    /// Sets an environment variable for every command from now on.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.retain(|(found, _)| found != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Takes such a variable away again.
    pub fn unset_env(&mut self, name: &str) {
        self.environment.retain(|(found, _)| found != name);
    }

    /// Takes another build of the client from now on.
    pub fn set_binary(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Has the client obey the permissions of files from now on, also where root runs the tests.
    pub fn obey_permissions(&mut self) {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        if fs::metadata(self.directory.path()).is_ok_and(|made| made.uid() != 0) {
            return;
        }
        let text = format!(
            "#!/bin/sh\nexec setpriv --bounding-set=-dac_override,-dac_read_search -- '{}' \"$@\"\n",
            self.binary.display()
        );
        let script = self.write("obedient", &text);
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("a script");
        self.binary = script;
    }

    /// Writes `plimsoll.toml`, which the client finds by itself, and the token's file.
    pub fn configure(&self, url: &str, database: &Registered, sqlite: &str, tables: &[(&str, &str)]) {
        self.write("token", &database.token);
        let mut text = format!(
            "[server]\nurl = \"{url}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n[source]\nsqlite = \"{sqlite}\"\n",
            database.id
        );
        for (local, remote) in tables {
            text.push_str(&format!("\n[[table]]\nname = \"{local}\"\nremote = \"{remote}\"\n"));
        }
        self.write("plimsoll.toml", &text);
    }

    /// Opens, or makes, a SQLite database in the directory.
    pub fn sqlite(&self, name: &str) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path(name)).expect("a SQLite database")
    }

    /// Runs the client and waits for it.
    pub fn run<I>(&self, arguments: I) -> Finished
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.start(arguments).wait(TIME_LIMIT)
    }

    /// Starts the client. Nothing of the tests' own environment that means something to it comes along.
    pub fn start<I>(&self, arguments: I) -> Running
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let scratch = tempfile::Builder::new().prefix("output-").tempdir_in(self.directory.path());
        let scratch = scratch.expect("a directory").keep();
        let (stdout, stderr) = (scratch.join("stdout"), scratch.join("stderr"));
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("PG") || text.starts_with("PLIMSOLL") || text.starts_with("RUST_LOG") {
                command.env_remove(&name);
            }
        }
        let child = command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.directory.path())
            .env("XDG_STATE_HOME", self.directory.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("a file"))
            .stderr(File::create(&stderr).expect("a file"))
            .spawn()
            .expect("the client starts");
        Running { child, stdout, stderr }
    }
}

impl Default for ClientHome {
    fn default() -> Self {
        Self::new()
    }
}

impl Running {
    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has reported so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the client can be waited for").is_none()
    }

    /// Ends it as a power failure would (SIGKILL).
    pub fn kill(mut self) -> Finished {
        self.child.kill().expect("the client can be killed");
        self.wait(TIME_LIMIT)
    }

    /// Asks it to end (SIGTERM); wait for it afterwards.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Has it stand still, all of it, as a machine that sleeps.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on after that.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().expect("kill runs");
        assert!(status.success(), "the client can be signalled");
    }

    /// Waits for its end; longer than the limit is a failure.
    pub fn wait(mut self, limit: Duration) -> Finished {
        let status: ExitStatus = match self.child.wait_timeout(limit).expect("the client can be waited for") {
            Some(status) => status,
            None => {
                let _ = self.child.kill();
                panic!("the client did not end within {limit:?}\n{}\n{}", self.stdout(), self.stderr());
            }
        };
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Finished {
    /// Fails the test unless the exit code is as expected.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// What was printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}):\n{}\n{}", self.stdout, self.stderr))
    }
}

/// A build of the client that ends where `PLIMSOLL_FAULT` says, and whose clock is wrong by the seconds of `PLIMSOLL_CLOCK_AHEAD`:
/// a copy for the caller, who removes it.
pub fn faulty_client() -> PathBuf {
    static BUILT: Mutex<u32> = Mutex::new(0);
    let mut copies = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    *copies += 1;
    let workspace = Workspace::find(&Runner::current().expect("a user")).expect("a workspace");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "plimsoll-client", "--features", "fault-points"])
        .current_dir(&workspace.root)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the client cannot be built with fault points");
    // Another build may put a client without points in its place.
    let place = workspace.target.join("fault-points");
    std::fs::create_dir_all(&place).expect("a directory");
    let copy = place.join(format!("plimsoll-{}-{copies}", std::process::id()));
    std::fs::copy(workspace.target.join("debug/plimsoll"), &copy).expect("a copy");
    copy
}

fn read(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
