//! A private MariaDB server for tests: its data in a folder of its own, a socket there and a port on loopback. It ends with
//! the process that started it, however that ends: a watchdog holds a pipe from us and kills the server when the pipe closes.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Params, Row, Value};
use tokio::runtime::{Builder, Runtime};

use crate::Runner;
use crate::cluster::random_hex;

/// How long a server may take to come up on a busy machine.
const START: Duration = Duration::from_secs(60);
/// How often another port is tried when somebody took the one that was free.
const PORT_ATTEMPTS: u32 = 5;
/// Where distributions keep the scripts that make the system tables.
const SHARES: [&str; 2] = ["/usr/share/mysql", "/usr/share/mariadb"];
/// Those scripts, in the order in which they are run.
const SCRIPTS: [&str; 3] =
    ["mysql_system_tables.sql", "mysql_performance_tables.sql", "mysql_system_tables_data.sql"];

/// Waits for the end of its input, then ends the server. `$1`: the server's folder.
const WATCHDOG: &str = r#"read -r word
[ -f "$1/pid" ] && kill -9 "$(cat "$1/pid")" 2> /dev/null
rm -rf "$1"
exit 0"#;
/// Starts a server whose process number is known before it runs. `$1`: the file for the number, then the command.
const NUMBERED: &str = r#"echo $$ > "$1"; shift; exec "$@""#;

/// A private server. Dropping it ends the server and removes its folder.
#[derive(Debug)]
pub struct MariaDb {
    runner: Runner,
    home: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Option<Child>,
    watchdog: Option<(Child, ChildStdin)>,
}

impl MariaDb {
    /// Makes a server and starts it. `settings`: further options as on the command line, `--max-allowed-packet=1M`.
    ///
    /// # Errors
    /// Where MariaDB is not installed, or the server does not come up; the message has its last words.
    pub fn start(settings: &[&str]) -> Result<Self> {
        let runner = Runner::current()?;
        // Where the path of a socket is short, and the watchdog may remove it.
        let home = PathBuf::from(format!("/tmp/plimsoll-maria-{}", random_hex::<8>()?));
        let mut database = MariaDb {
            runner,
            home,
            port: 0,
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            server: None,
            watchdog: None,
        };
        database.runner.make_directory(&database.home)?;
        database.runner.make_directory(&database.home.join("data"))?;
        database.runner.make_directory(&database.temporary())?;
        database.watch()?;
        database.initialise()?;
        let mut outcome = Ok(());
        for _ in 0..PORT_ATTEMPTS {
            database.port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            outcome = database.launch();
            if outcome.is_ok() {
                break;
            }
        }
        outcome.map(|()| database)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's folder: its socket is there, and only the server and we can enter.
    pub fn folder(&self) -> &Path {
        &self.home
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("socket")
    }

    /// The number of the server's process.
    ///
    /// # Errors
    /// Where it is not running.
    pub fn process(&self) -> Result<i32> {
        let text = fs::read_to_string(self.home.join("pid")).context("the private MariaDB has no process")?;
        text.trim().parse().context("the private MariaDB has no process")
    }

    /// Whether the programs of a server are on this machine.
    pub fn is_installed() -> bool {
        share().join(SCRIPTS[0]).exists() && program().is_absolute()
    }

    /// The address of a database, without a password.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("mysql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection as administrator, over the socket.
    ///
    /// # Errors
    /// Where the server refuses it.
    pub fn admin(&self) -> Result<MariaSession> {
        let opts = OptsBuilder::default()
            .socket(Some(self.socket().display().to_string()))
            .user(Some("root"))
            .max_allowed_packet(Some(1 << 30));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connection =
            runtime.block_on(Conn::new(opts)).context("cannot connect to the private MariaDB")?;
        Ok(MariaSession { runtime, connection: Some(connection) })
    }

    /// Makes an empty database and answers a connection to it.
    ///
    /// # Errors
    /// Where there is one of that name.
    pub fn create_database(&self, name: &str) -> Result<MariaSession> {
        let mut session = self.admin()?;
        session.run(&format!("CREATE DATABASE `{name}`; USE `{name}`"))?;
        Ok(session)
    }

    /// Makes a user who may log in over TCP with this password.
    ///
    /// # Errors
    /// Where there is one of that name.
    pub fn create_user(&self, name: &str, password: &str) -> Result<()> {
        self.admin()?.run(&format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'"))
    }

    /// Ends the server at once, as a crash does. [`launch`](Self::launch) brings it back.
    ///
    /// # Errors
    /// Where it cannot be ended.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.kill().and_then(|()| server.wait().map(drop)).context("the server does not end")?;
        }
        Ok(())
    }

    /// Starts the server, on the port and with the data that it had.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn launch(&mut self) -> Result<()> {
        let home = self.home.clone();
        let mut command = self.runner.command("/bin/sh");
        command.args(["-c", NUMBERED, "numbered"]).arg(home.join("pid")).arg(program());
        self.options(&mut command, "data");
        command
            .arg(format!("--port={}", self.port))
            .arg("--bind-address=127.0.0.1")
            .arg(format!("--socket={}", self.socket().display()))
            .arg(format!("--log-error={}", home.join("log").display()))
            .arg("--skip-name-resolve")
            .args(&self.settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        self.server = Some(command.spawn().context("cannot run mariadbd")?);
        let started = Instant::now();
        while self.admin().is_err() {
            let ended = self.server.as_mut().is_none_or(|server| !matches!(server.try_wait(), Ok(None)));
            if ended || started.elapsed() > START {
                let words = fs::read_to_string(home.join("log")).unwrap_or_default();
                self.kill()?;
                bail!("the private MariaDB did not start; its log says:\n{words}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the server is always run with. Its data need not survive a power failure.
    fn options(&self, command: &mut Command, data: &str) {
        command
            .arg("--no-defaults")
            .arg(format!("--user={}", self.runner.name()))
            .arg(format!("--datadir={}", self.home.join(data).display()))
            .arg(format!("--lc-messages-dir={}", share().display()))
            .arg(format!("--tmpdir={}", self.temporary().display()))
            .args([
                "--innodb-flush-method=nosync",
                "--innodb-log-file-size=64M",
                "--innodb-buffer-pool-size=64M",
            ]);
    }

    /// Where temporary tables are. A server that starts removes all that it finds there, of other servers too.
    fn temporary(&self) -> PathBuf {
        self.home.join("temporary")
    }

    fn watch(&mut self) -> Result<()> {
        let mut watchdog = self
            .runner
            .command("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell")?;
        let pipe = watchdog.stdin.take().context("the watchdog has no input")?;
        self.watchdog = Some((watchdog, pipe));
        Ok(())
    }

    /// Makes the system tables, as `mariadb-install-db` does, which needs the client's package too.
    fn initialise(&self) -> Result<()> {
        let mut script = "create database mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n".to_owned();
        for name in SCRIPTS {
            let path = share().join(name);
            script.push_str(
                &fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?,
            );
        }
        let mut command = self.runner.command(program());
        self.options(&mut command, "data");
        command.args(["--bootstrap", "--enforce-storage-engine="]);
        let mut server = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run mariadbd: is the package mariadb-server-core installed?")?;
        let mut input = server.stdin.take().context("mariadbd has no input")?;
        // Written beside reading its messages: either pipe may be full.
        let writer = std::thread::spawn(move || input.write_all(script.as_bytes()));
        let output = server.wait_with_output()?;
        let written = writer.join().is_ok_and(|written| written.is_ok());
        if !output.status.success() || !written {
            bail!("the system tables were not made: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.kill();
        if let Some((mut watchdog, pipe)) = self.watchdog.take() {
            drop(pipe);
            let _ = watchdog.wait();
        }
    }
}

/// Debian keeps it where only root looks for programs.
fn program() -> &'static Path {
    let known = ["/usr/sbin/mariadbd", "/usr/bin/mariadbd", "/usr/libexec/mariadbd"].map(Path::new);
    known.into_iter().find(|path| path.exists()).unwrap_or(Path::new("mariadbd"))
}

fn share() -> &'static Path {
    let holds = |path: &Path| path.join(SCRIPTS[0]).exists();
    SHARES.map(Path::new).into_iter().find(|path| holds(path)).unwrap_or(Path::new(SHARES[0]))
}

/// A connection that waits for each answer.
#[derive(Debug)]
pub struct MariaSession {
    runtime: Runtime,
    connection: Option<Conn>,
}

impl MariaSession {
    fn connection(&mut self) -> Result<(&Runtime, &mut Conn)> {
        Ok((&self.runtime, self.connection.as_mut().context("the connection is closed")?))
    }

    /// Runs statements that answer no rows, separated by semicolons.
    ///
    /// # Errors
    /// As the server says.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        let (runtime, connection) = self.connection()?;
        runtime.block_on(connection.query_drop(sql)).with_context(|| shortened(sql))
    }

    /// Runs one statement with values for its `?`.
    ///
    /// # Errors
    /// As the server says.
    pub fn run_with(&mut self, sql: &str, values: Vec<Value>) -> Result<()> {
        let (runtime, connection) = self.connection()?;
        let values = if values.is_empty() { Params::Empty } else { Params::Positional(values) };
        runtime.block_on(connection.exec_drop(sql, values)).with_context(|| shortened(sql))
    }

    /// The rows that a statement answers, over the binary protocol.
    ///
    /// # Errors
    /// As the server says.
    pub fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let (runtime, connection) = self.connection()?;
        let rows: Vec<Row> = runtime.block_on(connection.exec(sql, ())).with_context(|| shortened(sql))?;
        Ok(rows.into_iter().map(Row::unwrap).collect())
    }
}

impl Drop for MariaSession {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.runtime.block_on(connection.disconnect());
        }
    }
}

fn shortened(sql: &str) -> String {
    sql.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_data_when_it_is_killed_and_ends_with_its_value() {
        let mut database = MariaDb::start(&[]).expect("a server");
        let folder = database.home.clone();
        let mut session = database.create_database("kept").expect("a database");
        session.run("CREATE TABLE t (a INT); INSERT INTO t VALUES (7)").expect("a table");
        database.kill().expect("ended");
        assert!(session.rows("SELECT 1").is_err());
        drop(session);
        database.launch().expect("started again");
        let mut session = database.admin().expect("a session");
        assert_eq!(session.rows("SELECT a FROM kept.t").expect("rows"), [[Value::Int(7)]]);
        let process = fs::read_to_string(folder.join("pid")).expect("its number");
        drop(session);
        drop(database);
        assert!(!folder.exists());
        assert!(!Path::new("/proc").join(process.trim()).exists());
    }
}
