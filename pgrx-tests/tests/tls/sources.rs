//! TLS to a local database that is a server: as the source's url asks for it, or not at all.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use plimsoll_cluster::MariaDb;
use plimsoll_tests::{ClientHome, Finished};

use crate::Site;
use crate::certificates::{Authority, NOW, serve};

const TABLE: &str =
    "CREATE TABLE item (id bigint NOT NULL PRIMARY KEY, name varchar(20), row_version bigint NOT NULL)";

/// One run of a client that reads its rows there. The managed table is on the site's server.
fn sync(site: &Site, server: &str, source: &str, authority: &Authority) -> Finished {
    let mut home = ClientHome::new();
    home.set_env("PLIMSOLL_SOURCE_PASSWORD", "open sesame");
    home.write("ca.pem", &authority.certificate);
    home.write("other.pem", &Authority::new("Nobody's").certificate);
    home.write("token", &site.registered.token);
    let config = format!(
        "[server]\nurl = \"{server}\"\ndatabase_id = \"{}\"\ntoken_file = \"token\"\n\n[source]\n{source}\n
         [[table]]\nname = \"item\"\nremote = \"shop.item\"\n",
        site.registered.id
    );
    home.write("plimsoll.toml", &config);
    home.run(["sync"])
}

#[track_caller]
fn judge(run: &Finished, words: &[&str], what: &str) {
    let expected = if words.is_empty() { 0 } else { 2 };
    assert_eq!(run.code, Some(expected), "{what}: {}\n{}", run.stdout, run.stderr);
    for word in words {
        assert!(run.stderr.contains(word), "{what}, no \"{word}\": {}", run.stderr);
    }
}

#[test]
fn a_postgres_source_is_verified_as_its_url_says() {
    let site = Site::start();
    let database = site.cluster.create_empty_database();
    let role = &site.login.role;
    let sql = format!("{TABLE}; INSERT INTO item VALUES (1, 'one', 1); GRANT SELECT ON item TO {role}");
    site.cluster.superuser(&database).batch_execute(&sql).expect("a local database");
    serve(&site.cluster, &site.authority.sign(&["localhost"], NOW));
    let url = |host: &str, database: &str, settings: &str| {
        site.cluster.client_url(&site.login, database).replace("127.0.0.1", host) + "?" + settings
    };
    let server = url("localhost", &site.database, "sslmode=verify-full&sslrootcert=ca.pem");
    let cases: [(&str, &str, &[&str]); 5] = [
        ("localhost", "sslmode=verify-full&sslrootcert=ca.pem", &[]),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=ca.pem", &[]),
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=ca.pem", &["is not made for", "verify-ca"]),
        ("localhost", "sslmode=verify-full&sslrootcert=other.pem", &["no trusted authority", "sslrootcert"]),
        ("localhost", "sslmode=disable", &["refused the connection"]),
    ];
    for (host, settings, words) in cases {
        let source = format!("postgres = \"{}\"", url(host, &database, settings));
        judge(&sync(&site, &server, &source, &site.authority), words, &format!("{host} {settings}"));
    }
}

#[test]
fn a_mariadb_source_is_verified_as_its_url_says() {
    let (site, plain) = (Site::start(), MariaDb::start(&[]).expect("a server"));
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    let identity = site.authority.sign(&["localhost"], NOW);
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let certificate = format!("--ssl-cert={}", file("server.crt", &identity.certificate));
    let key = format!("--ssl-key={}", file("server.key", &identity.key));
    let secure = MariaDb::start(&[&certificate, &key]).expect("a server");
    for server in [&plain, &secure] {
        server.create_user("reader", "open sesame").expect("a user");
        let mut session = server.create_database("shop").expect("a database");
        session
            .run(&format!(
                "GRANT SELECT ON shop.* TO reader@'%'; {TABLE}; INSERT INTO item VALUES (1, 'one', 1)"
            ))
            .expect("rows");
    }
    secure.admin().expect("a session").run("ALTER USER reader@'%' REQUIRE SSL").expect("a user");
    let target = site.cluster.client_url(&site.login, &site.database);
    let cases: [(&MariaDb, &str, &str, &[&str]); 7] = [
        (&secure, "localhost", "ssl-mode=verify_identity&ssl-ca=ca.pem", &[]),
        (&secure, "localhost", "ssl-ca=ca.pem", &[]),
        (&secure, "127.0.0.1", "ssl-mode=verify_ca&ssl-ca=ca.pem", &[]),
        (&secure, "localhost", "ssl-mode=required", &[]),
        (&secure, "127.0.0.1", "ssl-ca=ca.pem", &["is not made for this host", "ssl-mode=verify_ca"]),
        (&secure, "localhost", "ssl-mode=verify_ca&ssl-ca=other.pem", &["ssl-ca=FILE"]),
        (&plain, "localhost", "ssl-mode=required", &["the server offers no TLS"]),
    ];
    for (server, host, settings, words) in cases {
        let url = server.url("reader", "shop").replace("127.0.0.1", host);
        let run = sync(&site, &target, &format!("mysql = \"{url}?{settings}\""), &site.authority);
        judge(&run, words, &format!("{host} {settings}"));
    }
}
