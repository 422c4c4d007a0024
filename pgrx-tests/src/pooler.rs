//! PgBouncer before a test server, as applications with one shared role have it.

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use plimsoll_cluster::Runner;
use postgres::{Client, Config, NoTls};

use crate::{Login, TestCluster};

/// Ends PgBouncer when its input does, however the test ended. `$1`: the program, `$2`: its configuration.
const WATCHDOG: &str = r#""$1" -q "$2" & pooler=$!; read -r _; kill "$pooler"; wait "$pooler""#;

/// A pooler in transaction mode with a single connection to the server, which all of its clients share.
#[derive(Debug)]
pub struct Pooler {
    port: u16,
    login: Login,
    database: String,
    watchdog: Child,
    pipe: Option<ChildStdin>,
    _directory: tempfile::TempDir,
}

impl Pooler {
    /// Starts one before a database, for one role; with PgBouncer's own defaults but for what is said above.
    pub fn start(cluster: &TestCluster, login: &Login, database: &str) -> Self {
        let runner = Runner::current().expect("a user");
        let directory =
            tempfile::Builder::new().prefix("plimsoll-pooler-").tempdir_in("/tmp").expect("a directory");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(directory.path(), mode).expect("the server's user reads it");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = port.expect("a free port").port();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let Login { role, password } = login;
        fs::write(path("users"), format!("\"{role}\" \"{password}\"\n")).expect("a file");
        let settings = format!(
            "[databases]\n{database} = host=127.0.0.1 port={} dbname={database}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\nlogfile = {}\n\
             pool_mode = transaction\ndefault_pool_size = 1\nmax_db_connections = 1\n",
            cluster.port(),
            path("users"),
            path("log"),
        );
        fs::write(path("pgbouncer.ini"), settings).expect("a file");
        fs::write(path("log"), "").expect("a file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(path("log"), mode).expect("the server's user writes it");
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = program.into_iter().find(|program| fs::exists(program).unwrap_or(false));
        let program = program.expect("PgBouncer is installed: run `cargo xtask setup`");
        let mut watchdog = runner
            .command("/bin/sh")
            .args(["-c", WATCHDOG, "watchdog", program, &path("pgbouncer.ini")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let pipe = watchdog.stdin.take();
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(path("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(20), "PgBouncer does not answer: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let (login, database) = (login.clone(), database.to_owned());
        Pooler { port, login, database, watchdog, pipe, _directory: directory }
    }

    /// A connection of another client.
    pub fn connect(&self) -> Client {
        Config::new()
            .host("127.0.0.1")
            .port(self.port)
            .user(&self.login.role)
            .password(&self.login.password)
            .dbname(&self.database)
            .connect(NoTls)
            .expect("the pooler lets the role in")
    }

    /// The address that a client of ours is configured with, password included.
    pub fn client_url(&self) -> String {
        let Login { role, password } = &self.login;
        format!("postgresql://{role}:{password}@127.0.0.1:{}/{}", self.port, self.database)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.watchdog.wait();
    }
}
