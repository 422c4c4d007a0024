//! What the configuration takes, and what it says to what it does not.

use super::*;

const BASE: &str = r#"
[server]
url = "postgres://agent@db.example/replicas?sslmode=verify-full"
database_id = "6b3e7f7e-6f0c-4e0c-9a57-0f2f0e6f0c11"

[source]
sqlite = "shop.sqlite"
"#;

fn refused(text: &str) -> String {
    Config::parse(text).expect_err("refused").message
}

#[test]
fn durations_and_tables_are_read() {
    let text = format!(
        "{BASE}\n[sync]\ntarget_batch = \"500ms\"\nsweep_interval = \"6h\"\n
         [[table]]\nname = \"Orders\"\nremote = \"shop.orders\"\nversion = \"changed\"\nleave_out = [\"note\"]\n"
    );
    let config = Config::parse(&text).expect("sound");
    let settings = config.settings(Some(Duration::from_secs(60)), true);
    assert_eq!(settings.target_batch, 500_000);
    assert_eq!(settings.sweep_interval, 6 * 3_600_000_000);
    assert_eq!(settings.run_interval, 60_000_000);
    assert!(settings.dry_run);
    assert_eq!(config.tables[0].leave_out, ["note"]);
    let again = Config::parse(&config.to_toml().expect("text")).expect("its own text");
    assert_eq!(again.tables[0].remote.as_deref(), Some("shop.orders"));
    assert_eq!(again.sync, config.sync);
}

#[test]
fn mistakes_are_named_with_their_line() {
    let unknown = refused(&BASE.replace("database_id", "databaseid"));
    assert!(unknown.contains("databaseid") && unknown.contains("line 4"), "{unknown}");
    let duration = refused(&format!("{BASE}\n[sync]\nrun_budget = \"soon\"\n"));
    assert!(duration.contains("line 10"), "{duration}");
    assert!(refused("[source]\nsqlite = \"x\"\n").contains("server"));
    assert!(refused(&BASE.replace("6b3e7f7e", "x")).contains("line 4"));
    let twice = format!("{BASE}\n[[table]]\nname = \"a\"\n[[table]]\nname = \"A\"\n");
    assert!(refused(&twice).contains("\"A\" is configured twice"));
    let zero = format!("{BASE}\n[sync]\nwindow_rows = 0\n");
    assert!(refused(&zero).contains("window_rows"));
    let many = format!("{BASE}\n[sync]\nmax_batch_rows = 1000001\n");
    assert!(refused(&many).contains("max_batch_rows must be 1000000 or less"));
}

#[test]
fn a_source_is_one_database_of_one_kind() {
    let with = |source: &str| Config::parse(&BASE.replace("sqlite = \"shop.sqlite\"", source));
    let failure = |source: &str| with(source).expect_err("refused").to_string();
    for several in ["sqlite = \"a\"\npostgres = \"b\"", "postgres = \"a\"\nmysql = \"b\""] {
        assert!(failure(several).contains("several databases"), "{several}");
    }
    assert!(failure("").contains("names no database") && failure("").contains("mysql = "));
    assert!(failure("oracle = \"x\"").contains("oracle"));
    assert!(failure("sqlite = \"a\"\npassword_file = \"b\"").contains("password_file"));
    let url = "postgres://reader@shop.example/shop";
    let config = with(&format!("postgres = \"{url}\"")).expect("sound");
    let place = config.source_place().expect("a place");
    assert!(matches!(&place, Place::Postgres { url: found, .. } if found == url), "{place:?}");
    let Err(failure) = crate::source::open(&Place::Mysql { url: "mysql://a".into(), password: None }) else {
        panic!("opened");
    };
    assert!(failure.to_string().contains("mysql://user@host:port/database"), "{failure}");
}

#[cfg(unix)]
#[test]
fn the_password_of_a_source_stands_in_a_file_that_nobody_else_reads() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let source = "mysql = \"mysql://reader@shop.example/shop\"\npassword_file = \"secret\"";
    let mut config = Config::parse(&BASE.replace("sqlite = \"shop.sqlite\"", source)).expect("sound");
    config.folder = folder.path().to_owned();
    let path = folder.path().join("secret");
    std::fs::write(&path, "open sesame\n").expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("set");
    assert!(config.source_place().expect_err("open to others").message.contains("password file"));
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("set");
    let place = config.source_place().expect("a place");
    assert!(matches!(&place, Place::Mysql { password: Some(Password(text)), .. } if text == "open sesame"));
    assert!(!format!("{place:?}").contains("sesame"));
}

#[test]
fn a_missing_file_is_said_with_what_to_do() {
    let failure = Config::load(Path::new("/nowhere/plimsoll.toml")).expect_err("missing");
    assert!(failure.message.contains("/nowhere/plimsoll.toml"));
    assert!(failure.hint.expect("a hint").contains("plimsoll init"));
}

#[test]
fn the_memory_stands_beside_the_configuration() {
    let mut config = Config::parse(BASE).expect("sound");
    (config.folder, config.path) = ("/etc/shop".into(), "/etc/shop/plimsoll.toml".into());
    assert_eq!(config.state_path(), Path::new("/etc/shop/plimsoll.state.json"));
    assert_eq!(config.source_place(), Ok(Place::Sqlite("/etc/shop/shop.sqlite".into())));
}

#[cfg(unix)]
#[test]
fn a_token_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    let written = plimsoll_core::token::Token::from_random(&[5; 32]);
    std::fs::write(&path, "older").expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("set");
    token::write(&path, &written).expect("written");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(token::read(&path).expect("a token").stored_key(), written.stored_key());
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).expect("set");
        let failure = token::read(&path).expect_err("open to others");
        assert!(failure.message.contains("others can read"), "{failure}");
        assert!(!failure.to_string().contains("0505"), "the token is in {failure}");
    }
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).expect("set");
    std::fs::write(&path, "secret").expect("written");
    let failure = token::read(&path).expect_err("no token");
    assert!(!failure.to_string().contains("secret"), "{failure}");
}

#[test]
fn mappings_that_contradict_each_other_are_refused() {
    let table = |lines: &str| format!("{BASE}\n[[table]]\nname = \"t\"\n{lines}\n");
    let sound = "where = \"branch = 3\"\ncolumns = { a = \"b\" }\nconstants = { c = 1.5, d = \"x\", e = true }\nconvert = { f = \"strip_nul\" }";
    let config = Config::parse(&table(sound)).expect("sound");
    let again = Config::parse(&config.to_toml().expect("text")).expect("its own text");
    assert_eq!(again.tables[0].columns, config.tables[0].columns);
    assert_eq!(again.tables[0].constants, config.tables[0].constants);
    assert_eq!(again.tables[0].filter.as_deref(), Some("branch = 3"));
    assert_eq!(
        again.tables[0].conversion("F").map(|conversion| conversion.to_string()).as_deref(),
        Some("strip_nul")
    );
    for (lines, told) in [
        ("where = \" \"", "no condition"),
        ("columns = { a = \"x\", b = \"X\" }", "both renamed"),
        ("columns = { a = \"x\", A = \"y\" }", "renamed twice"),
        ("columns = { a = \"x\" }\nleave_out = [\"A\"]", "left out, and renamed"),
        ("columns = { a = \"x\" }\nconstants = { x = 1 }", "which is a constant"),
        ("convert = { a = \"trim\" }", "no conversion; there are strip_nul"),
        ("convert = { a = \"round\" }\nleave_out = [\"a\"]", "left out, and converted"),
        ("constants = { a = 2026-01-01 }", "write dates as text"),
    ] {
        let refused = refused(&table(lines));
        assert!(refused.contains(told), "{lines}: {refused}");
    }
}

#[test]
fn directions_are_read_with_the_settings_that_belong_to_them() {
    use plimsoll_core::two_way::Policy;
    let table = |lines: &str| format!("{BASE}\n[[table]]\nname = \"t\"\n{lines}\n");
    for (lines, direction) in [
        ("", Direction::Push),
        ("direction = \"push\"", Direction::Push),
        ("direction = \"pull\"", Direction::Pull),
        ("direction = \"snapshot\"", Direction::SnapshotPush),
        ("direction = \"snapshot\"\nsnapshot_from = \"local\"", Direction::SnapshotPush),
        ("direction = \"snapshot\"\nsnapshot_from = \"remote\"", Direction::SnapshotPull),
        ("direction = \"two-way\"", Direction::TwoWay),
    ] {
        let config = Config::parse(&table(lines)).expect("sound");
        assert_eq!(config.tables[0].direction(), direction, "{lines}");
        let again = Config::parse(&config.to_toml().expect("text")).expect("its own text");
        assert_eq!(again.tables[0].direction(), direction, "{lines}");
    }
    let plain = Config::parse(&table("direction = \"two-way\"")).expect("sound").tables.remove(0);
    assert_eq!(
        (plain.policy(), plain.merges_columns(), plain.keeps_base_rows()),
        (Policy::Newest, false, false)
    );
    let all = "direction = \"two-way\"\npolicy = \"ask\"\nmerge = \"columns\"\nkeep_base_rows = true";
    let all = Config::parse(&table(all)).expect("sound").tables.remove(0);
    assert_eq!((all.policy(), all.merges_columns(), all.keeps_base_rows()), (Policy::Ask, true, true));
    for (lines, told) in [
        ("policy = \"ask\"", "policy belongs to direction = \"two-way\", and the table's is \"push\""),
        ("direction = \"pull\"\nmerge = \"columns\"", "merge belongs to direction = \"two-way\""),
        ("direction = \"snapshot\"\nkeep_base_rows = true", "keep_base_rows belongs to"),
        (
            "direction = \"two-way\"\nsnapshot_from = \"local\"",
            "snapshot_from belongs to direction = \"snapshot\"",
        ),
        (
            "direction = \"both\"",
            "unknown variant `both`, expected one of `push`, `pull`, `snapshot`, `two-way`",
        ),
        ("direction = \"two-way\"\npolicy = \"oldest\"", "unknown variant `oldest`"),
    ] {
        let refused = refused(&table(lines));
        assert!(refused.contains(told), "{lines}: {refused}");
    }
}
