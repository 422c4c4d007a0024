//! One running private server: its data directory, port, socket and log, and how it ends. A watchdog process
//! holds a pipe from us and stops the server when the pipe closes, however we ended; what even that misses
//! (the watchdog itself was killed) is found by [`sweep`](crate::sweep), because a cluster's directory is locked as long as
//! somebody uses it.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use postgres::{Client, Config, NoTls};

use crate::remains::{TEMPORARY, clusters_dir, discard, lock_path, stop};
use crate::{Runner, Stage, Workspace};

/// The longest path of a socket that every system takes.
const SOCKET_PATH_LIMIT: usize = 100;

/// How often another port is tried when somebody took the one that was free.
const PORT_ATTEMPTS: u32 = 5;

/// Waits for the end of its input and stops the server unless it was told to keep it. `$1`: pg_ctl, `$2`: the
/// cluster's directory.
const WATCHDOG: &str = r#"read -r word; [ "$word" = keep ] && exit 0
[ -f "$2/data/postmaster.pid" ] && "$1" -D "$2/data" -m immediate -t 60 stop
rm -rf "$2/data" "$2/socket"
exit 0"#;

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended, everything is written.
    Fast,
    /// As if the power failed: the next start recovers from the log.
    Immediate,
}

impl StopMode {
    pub(crate) fn name(self) -> &'static str {
        match self {
            StopMode::Fast => "fast",
            StopMode::Immediate => "immediate",
        }
    }
}

/// What a cluster is started with.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The directory's name; a cluster with a name is kept by [`sweep`](crate::sweep). Without one a name is made up.
    pub name: Option<String>,
    /// Whether committed work survives a power failure; otherwise it survives the end of the server only.
    pub durable: bool,
    /// Further settings for `postgresql.conf`, names and values as written there.
    pub settings: Vec<(String, String)>,
}

/// A private server. Dropping it stops the server and removes its directory.
#[derive(Debug)]
pub struct Cluster {
    runner: Runner,
    stage: Stage,
    directory: PathBuf,
    socket_dir: PathBuf,
    /// Holds a socket directory that did not fit into the cluster's own.
    _short_dir: Option<tempfile::TempDir>,
    port: u16,
    _lock: File,
    watchdog: Option<(Child, ChildStdin)>,
}

impl Cluster {
    /// The superuser's name.
    pub const SUPERUSER: &str = "postgres";

    /// Makes a cluster and starts it.
    ///
    /// # Errors
    /// When a cluster of that name is in use, or the server does not come up; the message has its last words.
    pub fn start(workspace: &Workspace, stage: &Stage, runner: &Runner, options: &Options) -> Result<Self> {
        let clusters = clusters_dir(workspace)?;
        let name = match &options.name {
            Some(name) => name.clone(),
            None => format!("{TEMPORARY}{}-{}", std::process::id(), random_hex::<4>()?),
        };
        let directory = clusters.join(&name);
        // The lock lies beside the directory, so that it can be had before the directory is touched.
        let lock = File::create(lock_path(&directory))?;
        if lock.try_lock().is_err() {
            bail!("the private cluster {name} is in use by another command");
        }
        if directory.exists() {
            discard(stage, runner, &directory)?;
        }
        runner.make_directory(&directory)?;
        let (socket_dir, short_dir) = make_socket_dir(runner, &directory)?;
        let mut watchdog = runner
            .command("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(stage.installation.program("pg_ctl"))
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell")?;
        let pipe = watchdog.stdin.take().context("the watchdog has no input")?;
        let mut cluster = Cluster {
            runner: runner.clone(),
            stage: stage.clone(),
            directory,
            socket_dir,
            _short_dir: short_dir,
            port: 0,
            _lock: lock,
            watchdog: Some((watchdog, pipe)),
        };
        cluster.initialise(options)?;
        cluster.start_on_a_free_port()?;
        Ok(cluster)
    }

    fn initialise(&self, options: &Options) -> Result<()> {
        let output = self
            .runner
            .command(self.stage.installation.program("initdb"))
            .args(["--no-sync", "--no-locale", "--encoding=UTF8", "--auth-local=trust"])
            .args(["--auth-host=scram-sha-256", "--username", Self::SUPERUSER, "--pgdata"])
            .arg(self.data_dir())
            .output()
            .context("cannot run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let socket_dir = self.socket_dir.display().to_string();
        let mut settings = vec![
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket_dir),
            ("max_connections", "60"),
            ("max_wal_size", "2GB"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
            ("timezone", "UTC"),
        ];
        if !options.durable {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        settings.extend(options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let lines: String = settings
            .iter()
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect();
        let path = self.data_dir().join("postgresql.conf");
        fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn start_on_a_free_port(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        for _ in 0..PORT_ATTEMPTS {
            self.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            outcome = self.start_server();
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Starts a server that was stopped, on the port it had.
    ///
    /// # Errors
    /// When it does not come up; the message has its last words.
    pub fn start_server(&self) -> Result<()> {
        let status = self
            .runner
            .command(self.stage.installation.program("pg_ctl"))
            .args(["start", "--wait", "--silent", "--timeout=60", "--pgdata"])
            .arg(self.data_dir())
            .arg("--log")
            .arg(self.log_path())
            .arg("--options")
            .arg(format!("-p {}", self.port))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run pg_ctl")?;
        if !status.success() {
            bail!("the private server did not start; its log ends with:\n{}", self.last_words());
        }
        Ok(())
    }

    /// Stops the server; its data stay.
    ///
    /// # Errors
    /// When it does not stop within a minute.
    pub fn stop_server(&self, mode: StopMode) -> Result<()> {
        stop(&self.stage, &self.runner, &self.directory, mode)
    }

    /// Whether the server answers.
    pub fn is_ready(&self) -> bool {
        self.command("pg_isready").arg("--quiet").status().is_ok_and(|status| status.success())
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of the server's first process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&self) -> Result<i32> {
        let path = self.data_dir().join("postmaster.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines().next().and_then(|line| line.trim().parse().ok()).context("the server has no process")
    }

    /// Where the unix socket lies; only the server's user and root can enter.
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The server's log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// The cluster's directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The stage that it runs.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The last lines of the server's log.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// A connection as superuser, over the socket.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn superuser(&self, database: &str) -> Result<Client> {
        Config::new()
            .host_path(&self.socket_dir)
            .port(self.port)
            .user(Self::SUPERUSER)
            .dbname(database)
            .connect(NoTls)
            .with_context(|| format!("cannot connect to the private server's database {database}"))
    }

    /// A connection as another role, over TCP.
    ///
    /// # Errors
    /// When the server refuses it.
    pub fn connect(&self, role: &str, password: &str, database: &str) -> Result<Client, postgres::Error> {
        Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(role)
            .password(password)
            .dbname(database)
            .connect_timeout(Duration::from_secs(10))
            .connect(NoTls)
    }

    /// The address of a database as a URL without a password.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgresql://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a login role with a random password, a member of the given roles, and answers the password.
    ///
    /// # Errors
    /// When the role exists.
    pub fn create_login(&self, role: &str, member_of: &[&str]) -> Result<String> {
        let password = random_hex::<16>()?;
        let mut statement = format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'");
        if !member_of.is_empty() {
            statement.push_str(&format!(" IN ROLE {}", member_of.join(", ")));
        }
        self.superuser("postgres")?
            .batch_execute(&statement)
            .with_context(|| format!("cannot make the role {role}"))?;
        Ok(password)
    }

    /// A program of the server's own (`psql`, `pg_dump`), set up to connect as superuser.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.stage.installation.program(program));
        command
            .env("PGHOST", &self.socket_dir)
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", Self::SUPERUSER)
            .env_remove("PGDATABASE")
            .env_remove("PGSERVICE")
            .env_remove("PGOPTIONS")
            .stdin(Stdio::null());
        command
    }

    /// Leaves the server running when this value is gone; [`Cluster::stop_named`] ends it.
    ///
    /// # Errors
    /// When the watchdog is gone already.
    pub fn keep(mut self) -> Result<()> {
        if let Some((mut watchdog, mut pipe)) = self.watchdog.take() {
            pipe.write_all(b"keep\n").context("the watchdog is gone")?;
            drop(pipe);
            watchdog.wait()?;
        }
        if let Some(directory) = self._short_dir.take() {
            let _ = directory.keep();
        }
        Ok(())
    }

    /// Stops a kept cluster and removes it; answers whether there was one.
    ///
    /// # Errors
    /// When it is in use by another command or does not stop.
    pub fn stop_named(workspace: &Workspace, stage: &Stage, runner: &Runner, name: &str) -> Result<bool> {
        let directory = clusters_dir(workspace)?.join(name);
        if !directory.exists() {
            return Ok(false);
        }
        let lock = File::create(lock_path(&directory))?;
        if lock.try_lock().is_err() {
            bail!("the private cluster {name} is in use by another command");
        }
        discard(stage, runner, &directory)?;
        fs::remove_file(lock_path(&directory))?;
        Ok(true)
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Nothing is left to do about a failure here; the next start sweeps what remains.
        if let Some((mut watchdog, pipe)) = self.watchdog.take() {
            drop(pipe);
            let _ = watchdog.wait();
            let _ = fs::remove_dir_all(&self.directory);
            let _ = fs::remove_file(lock_path(&self.directory));
        }
    }
}

fn make_socket_dir(runner: &Runner, directory: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    let inside = directory.join("socket");
    if inside.as_os_str().len() + "/.s.PGSQL.65535.lock".len() <= SOCKET_PATH_LIMIT {
        runner.make_directory(&inside)?;
        return Ok((inside, None));
    }
    let short = tempfile::Builder::new().prefix("plimsoll-").tempdir_in("/tmp")?;
    fs::set_permissions(short.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let socket_dir = short.path().join("s");
    runner.make_directory(&socket_dir)?;
    Ok((socket_dir, Some(short)))
}

/// Random bytes from the operating system, in hexadecimal.
pub(crate) fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
