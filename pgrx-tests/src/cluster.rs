//! A private server with the extension in it, and databases and roles in that.

use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use plimsoll_cluster::{Cluster, Installation, Options, Runner, Stage, Workspace, install};
use postgres::Client;
use uuid::Uuid;

/// The database that every test's database is a copy of: it holds the extension and nothing else. (A second
/// `CREATE EXTENSION` in one cluster would find the group roles with members.)
const TEMPLATE: &str = "plimsoll_template";

/// A private server with the extension in its directories, stopped when the value is dropped or the process
/// ends.
#[derive(Debug)]
pub struct TestCluster {
    cluster: Cluster,
    counter: AtomicU32,
}

/// A login role and its password.
#[derive(Debug, Clone)]
pub struct Login {
    /// The role's name.
    pub role: String,
    /// Its password.
    pub password: String,
}

/// A registered database as its agent knows it.
#[derive(Debug, Clone)]
pub struct Registered {
    /// Its id.
    pub id: Uuid,
    /// Its token, as shown once.
    pub token: String,
}

/// The server that the tests of one binary share. Tests that stop or crash a server start their own.
pub fn shared() -> &'static TestCluster {
    static SHARED: OnceLock<TestCluster> = OnceLock::new();
    SHARED.get_or_init(TestCluster::start)
}

impl TestCluster {
    /// Starts a server without `fsync`; a test that stops it in immediate mode loses nothing by that, because
    /// the machine itself goes on.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further settings for `postgresql.conf`.
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let cluster = Self::start_bare(settings);
        let mut postgres = cluster.superuser("postgres");
        postgres.batch_execute(&format!("CREATE DATABASE {TEMPLATE}")).expect("the template is made");
        cluster
            .superuser(TEMPLATE)
            .batch_execute("CREATE EXTENSION plimsoll")
            .expect("the extension is created");
        cluster
    }

    /// Starts a server that has the extension's files, but no database with the extension in it.
    pub fn start_bare(settings: &[(&str, &str)]) -> Self {
        let runner = Runner::current().expect("somebody can run a server");
        let workspace = Workspace::find(&runner).expect("a directory for private servers");
        let installation = Installation::find().expect("Postgres is installed: run `cargo xtask setup`");
        let stage = Stage::prepare(&workspace, &installation).expect("a staged server");
        install(&workspace, &stage.installation)
            .expect("the extension is built: run `cargo build --release --package plimsoll`");
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let options = Options { settings, ..Options::default() };
        let cluster = Cluster::start(&workspace, &stage, &runner, &options).expect("a private server");
        TestCluster { cluster, counter: AtomicU32::new(0) }
    }

    /// A new database with the extension in it, and nothing else; answers its name.
    pub fn create_database(&self) -> String {
        let name = self.unique("db");
        self.superuser("postgres")
            .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
            .expect("a database is made");
        name
    }

    /// A new database without the extension; answers its name.
    pub fn create_empty_database(&self) -> String {
        let name = self.unique("db");
        self.superuser("postgres")
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .expect("a database is made");
        name
    }

    /// A new login role, a member of the given group roles.
    pub fn create_login(&self, member_of: &[&str]) -> Login {
        let role = self.unique("role");
        let password = self.cluster.create_login(&role, member_of).expect("a role is made");
        Login { role, password }
    }

    /// A new login role as an agent has it.
    pub fn create_agent(&self) -> Login {
        self.create_login(&["plimsoll_agent"])
    }

    /// A new role that cannot log in, as owners of managed tables are; answers its name.
    pub fn create_owner(&self) -> String {
        let role = self.unique("owner");
        self.superuser("postgres")
            .batch_execute(&format!("CREATE ROLE {role} NOLOGIN"))
            .expect("a role is made");
        role
    }

    /// Registers a database of a client.
    pub fn register(&self, database: &str, client_id: &str, name: &str) -> Registered {
        let row = self
            .superuser(database)
            .query_one("SELECT * FROM plimsoll.register_database($1, $2)", &[&client_id, &name])
            .expect("a database is registered");
        Registered { id: row.get("database_id"), token: row.get("token") }
    }

    /// The address that a client of ours is configured with, password included.
    pub fn client_url(&self, login: &Login, database: &str) -> String {
        let Login { role, password } = login;
        format!("postgresql://{role}:{password}@127.0.0.1:{}/{database}", self.port())
    }

    /// The server's major version, 14 to 18.
    pub fn major(&self) -> u32 {
        self.cluster.stage().installation.major
    }

    /// A name that no other object of this server has.
    pub fn unique(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.counter.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection as superuser.
    pub fn superuser(&self, database: &str) -> Client {
        self.cluster.superuser(database).expect("the superuser can connect")
    }

    /// A connection as a login role.
    pub fn connect(&self, login: &Login, database: &str) -> Client {
        self.cluster.connect(&login.role, &login.password, database).expect("the role can connect")
    }
}

impl Deref for TestCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
