//! The private server itself: it is a copy that looks for its files in its own place, it takes the library of its own
//! major only, and it goes with whoever started it.

use std::os::unix::fs::PermissionsExt;

use plimsoll_cluster::{Cluster, Installation, Options, Runner, Stage, StopMode, Workspace, sweep};

fn machine() -> (Workspace, Stage, Runner) {
    let runner = Runner::current().expect("a user");
    let workspace = Workspace::find(&runner).expect("a workspace");
    let installation = Installation::find().expect("Postgres is installed");
    let stage = Stage::prepare(&workspace, &installation).expect("a stage");
    (workspace, stage, runner)
}

#[test]
fn a_staged_server_finds_its_files_in_its_own_place() {
    let (workspace, stage, runner) = machine();
    let cluster = Cluster::start(&workspace, &stage, &runner, &Options::default()).expect("a server");
    let mut client = cluster.superuser("postgres").expect("a connection");
    for name in ["BINDIR", "SHAREDIR", "PKGLIBDIR"] {
        let row = client.query_one("SELECT setting FROM pg_config WHERE name = $1", &[&name]).expect(name);
        let path: String = row.get(0);
        assert!(path.starts_with(&workspace.private.display().to_string()), "{name} is {path}");
    }
    let data: String = client.query_one("SHOW data_directory", &[]).expect("a setting").get(0);
    assert!(data.starts_with(&cluster.directory().display().to_string()), "{data}");
    let hosts: String = client.query_one("SHOW listen_addresses", &[]).expect("a setting").get(0);
    assert_eq!(hosts, "127.0.0.1");
}

#[test]
fn passwords_are_needed_over_tcp_and_what_is_committed_survives_a_crash() {
    let (workspace, stage, runner) = machine();
    let cluster = Cluster::start(&workspace, &stage, &runner, &Options::default()).expect("a server");
    let password = cluster.create_login("somebody", &[]).expect("a role");
    assert!(cluster.connect("somebody", "not the password", "postgres").is_err());
    let mut client = cluster.connect("somebody", &password, "postgres").expect("a connection");
    client.batch_execute("SELECT 1").expect("a statement");
    cluster
        .superuser("postgres")
        .and_then(|mut client| Ok(client.batch_execute("CREATE TABLE kept AS SELECT 42 AS n; CHECKPOINT")?))
        .expect("a table");
    cluster.stop_server(StopMode::Immediate).expect("it stops");
    assert!(!cluster.is_ready());
    cluster.start_server().expect("it starts again");
    assert!(cluster.is_ready());
    let mut client = cluster.superuser("postgres").expect("a connection");
    let kept: i32 = client.query_one("SELECT n FROM kept", &[]).expect("the table").get(0);
    assert_eq!(kept, 42);
}

#[test]
fn nothing_is_left_of_a_server_that_is_dropped() {
    let (workspace, stage, runner) = machine();
    let cluster = Cluster::start(&workspace, &stage, &runner, &Options::default()).expect("a server");
    let (port, directory) = (cluster.port(), cluster.directory().to_owned());
    drop(cluster);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!directory.exists());
}

#[test]
fn a_server_in_use_is_not_swept() {
    let (workspace, stage, runner) = machine();
    let cluster = Cluster::start(&workspace, &stage, &runner, &Options::default()).expect("a server");
    sweep(&workspace, &stage, &runner).expect("a sweep");
    assert!(cluster.is_ready());
}

/// The library with the major in it that it says it was built for: the number stands before limits that all majors share
/// (arguments of a function, columns of an index, bytes of a name, floats by value).
fn built_for_another(library: &[u8], from: u32, to: u32) -> Vec<u8> {
    let words = |major: u32| {
        [major * 100, 100, 32, 64, 1].into_iter().flat_map(u32::to_ne_bytes).collect::<Vec<u8>>()
    };
    let (own, other) = (words(from), words(to));
    let places: Vec<usize> =
        library.windows(own.len()).enumerate().filter(|(_, found)| *found == own).map(|(at, _)| at).collect();
    let [place] = places[..] else { panic!("the library says {} times what it was built for", places.len()) };
    let mut changed = library.to_vec();
    changed[place..place + other.len()].copy_from_slice(&other);
    changed
}

#[test]
fn a_library_that_was_built_for_another_major_is_refused() {
    let (workspace, stage, runner) = machine();
    let cluster = Cluster::start(&workspace, &stage, &runner, &Options::default()).expect("a server");
    let own = stage.installation.major;
    let other = if own == 15 { 16 } else { 15 };
    let library =
        std::fs::read(workspace.release_artefact("libplimsoll.so")).expect("the extension is built");
    let directory = tempfile::tempdir_in(&workspace.private).expect("a directory");
    std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))
        .expect("others may enter it");
    let load = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).expect("a library");
        let mut client = cluster.superuser("postgres").expect("a connection");
        client.batch_execute(&format!("LOAD '{}'", path.display()))
    };
    load("own.so", &library).expect("its own library is taken");
    let refused = load("other.so", &built_for_another(&library, own, other)).expect_err("another's is not");
    let refused = refused.as_db_error().expect("the server refuses it");
    assert!(refused.message().contains("incompatible library"), "{refused:?}");
    let detail = refused.detail().unwrap_or_default();
    assert_eq!(detail, format!("Server is version {own}, library is version {other}."));
}
