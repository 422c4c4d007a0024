//! TLS as the client's url asks for it: verified or refused, with a reason that helps; and nothing worth keeping
//! secret is said to a server before it has proved who it is.

mod certificates;
mod fake;
mod sources;

use std::sync::OnceLock;

use certificates::{Authority, NOW, reload, self_signed, serve};
use fake::{TLS_REQUEST, Told, Trick, listen};
use plimsoll_tests::{ClientHome, Finished, Login, Registered, TestCluster};

const LOCAL: &str = "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, row_version INTEGER NOT NULL);
                     INSERT INTO item VALUES (1, 'one', 1);";

/// Not the server's own: nothing knows it but who it is told to.
const PASSWORD: &str = "correct horse battery staple";

/// A directory with a client's configuration for this address; the authority's certificate lies beside it.
fn home(url: &str, database: &Registered, authority: &Authority) -> ClientHome {
    let home = ClientHome::new();
    home.sqlite("local.sqlite").execute_batch(LOCAL).expect("a table");
    home.configure(url, database, "local.sqlite", &[("item", "shop.item")]);
    home.write("ca.pem", &authority.certificate);
    home
}

/// A server whose certificates change, and a client of it.
struct Site {
    cluster: TestCluster,
    authority: Authority,
    database: String,
    registered: Registered,
    login: Login,
}

impl Site {
    fn start() -> Self {
        let cluster = TestCluster::start();
        let database = cluster.create_database();
        let owner = cluster.create_owner();
        cluster
            .superuser(&database)
            .batch_execute(&format!(
                "CREATE SCHEMA shop AUTHORIZATION {owner};
                 SET ROLE {owner};
                 CREATE TABLE shop.item (client_id text NOT NULL, database_id uuid NOT NULL, id bigint NOT NULL,
                     name text, row_version bigint NOT NULL, PRIMARY KEY (client_id, database_id, id));
                 RESET ROLE;
                 SELECT plimsoll.manage_table('shop.item', version_column => 'row_version')"
            ))
            .expect("a managed table");
        let registered = cluster.register(&database, "acme", "till");
        let login = cluster.create_agent();
        Site { cluster, authority: Authority::new("The test's authority"), database, registered, login }
    }

    /// One run of a client with these settings in its url.
    fn sync(&self, host: &str, settings: &str) -> Finished {
        let Login { role, password } = &self.login;
        let port = self.cluster.port();
        let url = format!("postgresql://{role}:{password}@{host}:{port}/{}?{settings}", self.database);
        home(&url, &self.registered, &self.authority).run(["sync"])
    }

    #[track_caller]
    fn level(&self, host: &str, settings: &str) {
        let run = self.sync(host, settings);
        assert_eq!(run.code, Some(0), "{host} {settings}: {}", run.stderr);
    }

    /// The reason of a refusal, which must have all these words.
    #[track_caller]
    fn refused(&self, host: &str, settings: &str, words: &[&str]) {
        let run = self.sync(host, settings);
        assert_eq!(run.code, Some(2), "{host} {settings}: {}", run.stderr);
        for word in words {
            assert!(run.stderr.contains(word), "{host} {settings}, no \"{word}\": {}", run.stderr);
        }
        assert!(!run.stderr.contains("SSL routines"), "OpenSSL's own words help nobody: {}", run.stderr);
    }
}

#[test]
fn a_certificate_is_verified_unless_the_url_says_otherwise_and_a_refusal_says_what_to_do() {
    let mut site = Site::start();

    site.level("localhost", "");
    site.level("localhost", "sslmode=disable");
    for mode in ["require", "verify-ca", "verify-full"] {
        site.refused(
            "localhost",
            &format!("sslmode={mode}&sslrootcert=ca.pem"),
            &["offers no TLS", "ssl = on"],
        );
    }

    serve(&site.cluster, &site.authority.sign(&["localhost"], NOW));
    for settings in ["sslmode=verify-full", "sslmode=verify-ca", "sslmode=require", ""] {
        site.level("localhost", &format!("{settings}&sslrootcert=ca.pem"));
    }
    site.level("localhost", "sslmode=verify-full&sslrootcert=ca.pem&channel_binding=require");
    // Whoever wants TLS without asking who answers must say so.
    for settings in ["", "sslmode=prefer", "sslmode=allow"] {
        site.level("localhost", settings);
    }
    site.refused("localhost", "sslmode=disable", &["no encryption"]);
    for mode in ["require", "verify-ca", "verify-full"] {
        for roots in ["", "&sslrootcert=system"] {
            let settings = format!("sslmode={mode}{roots}");
            site.refused(
                "localhost",
                &settings,
                &["no trusted authority (this system's)", "sslrootcert=FILE"],
            );
        }
    }
    for mode in ["require", "verify-full"] {
        let settings = format!("sslmode={mode}&sslrootcert=ca.pem");
        site.refused("127.0.0.1", &settings, &["not made for \"127.0.0.1\"", "sslmode=verify-ca"]);
    }
    site.level("127.0.0.1", "sslmode=verify-ca&sslrootcert=ca.pem");
    site.refused("localhost", "sslmode=verify-full&sslrootcert=none.pem", &["none.pem", "PEM"]);
    site.refused("localhost", "sslmode=verify-full&sslrootcert=token", &["token cannot be read"]);

    serve(&site.cluster, &site.authority.sign(&["db.example"], NOW));
    site.refused("localhost", "sslmode=verify-full&sslrootcert=ca.pem", &["not made for \"localhost\""]);

    serve(&site.cluster, &site.authority.sign(&["localhost", "127.0.0.1"], NOW));
    site.level("127.0.0.1", "sslmode=verify-full&sslrootcert=ca.pem");

    serve(&site.cluster, &site.authority.sign(&["localhost"], (2020, 2021)));
    for mode in ["require", "verify-ca", "verify-full"] {
        site.refused("localhost", &format!("sslmode={mode}&sslrootcert=ca.pem"), &["has expired", "clock"]);
    }
    serve(&site.cluster, &site.authority.sign(&["localhost"], (2099, 2100)));
    site.refused("localhost", "sslmode=verify-full&sslrootcert=ca.pem", &["not valid yet", "clock"]);

    serve(&site.cluster, &Authority::new("Another").sign(&["localhost"], NOW));
    site.refused(
        "localhost",
        "sslmode=verify-full&sslrootcert=ca.pem",
        &["no trusted authority (those in ", "ca.pem"],
    );

    let own = self_signed(&["localhost"]);
    serve(&site.cluster, &own);
    site.refused("localhost", "sslmode=require", &["no trusted authority", "itself"]);
    site.authority.certificate = own.certificate;
    site.level("localhost", "sslmode=require&sslrootcert=ca.pem");

    reload(&site.cluster, "ALTER SYSTEM SET ssl = off");
    site.refused("localhost", "sslmode=require&sslrootcert=ca.pem", &["offers no TLS"]);
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new("The test's authority"))
}

/// What a client tells a server that plays this trick.
fn told(trick: Trick, settings: &str) -> (Told, Finished) {
    let (port, listener) = listen(trick);
    let url = format!(
        "host=localhost hostaddr=127.0.0.1 port={port} user=agent dbname=replicas \
                       password='{PASSWORD}' {settings}"
    );
    let database = Registered { id: uuid::Uuid::new_v4(), token: format!("plimsoll_{}", "5a".repeat(32)) };
    let run = home(&url, &database, authority()).run(["sync"]);
    (listener.join().expect("the fake server"), run)
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
fn a_server_that_denies_tls_learns_nothing() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let (told, run) = told(Trick::NoTls, &format!("sslmode={mode} sslrootcert=ca.pem"));
        assert_eq!(told.on_the_wire, TLS_REQUEST, "{mode}: nothing follows the question for TLS");
        assert_eq!(run.code, Some(2));
        assert!(run.stderr.contains("offers no TLS"), "{}", run.stderr);
    }
    // The test itself: a client that insists on nothing goes on in the clear, and is heard.
    let (told, _) = told(Trick::NoTls, "sslmode=prefer");
    assert!(contains(&told.on_the_wire, "agent") && contains(&told.on_the_wire, "replicas"));
}

#[test]
fn a_server_whose_certificate_is_wrong_learns_nothing() {
    let wrong = |why: &str| match why {
        "another authority" => Authority::new("Another").sign(&["localhost"], NOW),
        "no authority" => self_signed(&["localhost"]),
        "expired" => authority().sign(&["localhost"], (2020, 2021)),
        _ => authority().sign(&["db.example"], NOW),
    };
    for why in ["another authority", "no authority", "expired", "another host"] {
        for mode in ["require", "verify-ca", "verify-full"] {
            if (why, mode) == ("another host", "verify-ca") {
                continue;
            }
            let (told, run) =
                told(Trick::AskPassword(wrong(why)), &format!("sslmode={mode} sslrootcert=ca.pem"));
            assert!(told.within_tls.is_empty(), "{why}, {mode}: {:?}", told.within_tls);
            assert!(told.on_the_wire.len() > 100 && !contains(&told.on_the_wire, "agent"), "{why}, {mode}");
            assert!(
                run.code == Some(2) && run.stderr.contains("certificate"),
                "{why}, {mode}: {}",
                run.stderr
            );
        }
    }
    // The test itself: who takes any certificate tells such a server the password.
    let (told, _) = told(Trick::AskPassword(self_signed(&["localhost"])), "sslmode=prefer");
    assert!(contains(&told.within_tls, "agent") && contains(&told.within_tls, PASSWORD));
    assert!(!contains(&told.on_the_wire, "agent"), "TLS hides it from others");
}

#[test]
fn a_password_is_not_told_where_channel_binding_is_required() {
    let identity = || authority().sign(&["localhost"], NOW);
    for mode in ["prefer", "verify-full"] {
        let settings = format!("sslmode={mode} sslrootcert=ca.pem channel_binding=require");
        let (told, run) = told(Trick::AskPassword(identity()), &settings);
        assert!(contains(&told.within_tls, "agent"), "{mode}: it began to log in");
        assert!(!contains(&told.within_tls, PASSWORD), "{mode}: the password was told");
        assert_eq!(run.code, Some(2), "{}", run.stderr);
    }
}

#[test]
fn the_token_itself_is_never_sent() {
    let (told, _) = told(Trick::AskPassword(authority().sign(&["localhost"], NOW)), "sslrootcert=ca.pem");
    assert!(contains(&told.within_tls, PASSWORD), "a server that proved who it is may ask for the password");
    for bytes in [&told.within_tls, &told.on_the_wire] {
        assert!(!contains(bytes, "5a5a5a5a") && !bytes.windows(8).any(|window| window == [0x5a; 8]));
    }
}

#[test]
fn init_warns_of_a_server_elsewhere_that_is_not_known_for_certain() {
    let warned = |url: &str| {
        let home = ClientHome::new();
        home.sqlite("local.sqlite").execute_batch(LOCAL).expect("a table");
        let id = uuid::Uuid::new_v4().to_string();
        let init = home.run([
            "init",
            "--source",
            "local.sqlite",
            "--schema",
            "shop",
            "--no-token",
            "--database-id",
            &id,
            "--server",
            url,
        ]);
        let init = init.expect_code(0);
        assert!(home.path("plimsoll.toml").exists());
        init.stderr.contains("warning: nothing protects the connection to ")
            && init.stderr.contains("verify-full")
    };
    for exposed in ["", "?sslmode=disable", "?sslmode=allow", "?sslmode=prefer"] {
        assert!(warned(&format!("postgres://agent@db.example/replicas{exposed}")), "{exposed}");
    }
    assert!(warned("host=localhost hostaddr=192.0.2.7 user=agent dbname=replicas"));
    for safe in ["?sslmode=require", "?sslmode=verify-ca", "?sslmode=verify-full", "?sslrootcert=system"] {
        assert!(!warned(&format!("postgres://agent@db.example/replicas{safe}")), "{safe}");
    }
    for local in
        ["postgres://agent@localhost/replicas", "postgres://agent@[::1]/replicas", "host=/run/postgresql"]
    {
        assert!(!warned(local), "{local}");
    }
}
