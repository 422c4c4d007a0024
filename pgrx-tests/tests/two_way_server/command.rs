//! `plimsoll conflicts`, as a person uses it.

use plimsoll_core::store::Applied;
use plimsoll_tests::ClientHome;
use serde_json::{Value, json};

use crate::till::{Till, contact};

#[test]
fn a_person_lists_shows_and_decides_conflicts_from_the_command_line() {
    let mut till = Till::open();
    let remotes: Vec<_> = (1..=3).map(|id| contact(id, "123-4567", 4)).collect();
    remotes.iter().for_each(|row| till.put(row));
    let acts: Vec<_> = remotes.iter().map(|row| till.conflict(&contact(row.0, "555-3210", 7), row)).collect();
    assert_eq!(till.apply(&acts), vec![Applied::Done; 3]);
    till.server.end_run(till.run_id, plimsoll_client::server::RunEnd::Finished, &[], None).expect("the end");
    let home = ClientHome::new();
    let login = till.shop.server.create_agent();
    let url = till.shop.server.client_url(&login, &till.shop.database);
    home.sqlite("local.sqlite")
        .execute_batch("CREATE TABLE contact (id INTEGER PRIMARY KEY)")
        .expect("a table");
    home.configure(&url, &till.registered, "local.sqlite", &[("contact", "shop.contact")]);
    let listed = home.run(["conflicts"]).expect_code(0).stdout;
    assert!(listed.contains("shop.contact") && listed.contains("id=2"), "{listed}");
    let all: Value =
        serde_json::from_str(&home.run(["conflicts", "list", "--json"]).expect_code(0).stdout).expect("JSON");
    let of = |id: i64| {
        let found =
            all.as_array().expect("a list").iter().find(|conflict| conflict["key"] == json!({"id": id}));
        found.expect("a conflict")["conflict_id"].to_string()
    };
    let shown = home.run(["conflicts", "show", &of(1)]).expect_code(0).stdout;
    let phone = shown.lines().find(|line| line.contains("phone")).expect("the phone numbers");
    assert!(phone.contains('*') && phone.contains("555-3210") && phone.contains("123-4567"), "{shown}");
    assert!(
        home.run(["conflicts", "resolve", &of(1), "--keep", "local"])
            .expect_code(0)
            .stdout
            .contains("decided:  local")
    );
    home.write("row.json", r#"{"phone": "123-9999", "rank": 9}"#);
    let resolved =
        home.run(["conflicts", "resolve", &of(2), "--row", "row.json", "--json"]).expect_code(0).stdout;
    let resolved: Value = serde_json::from_str(&resolved).expect("JSON");
    assert_eq!((&resolved["resolution"], &resolved["resolved_row"]["rev"]), (&json!("row"), &json!(8)));
    assert_eq!(till.rows()[1], (2, Some("123-9999".to_owned()), Some(9), 8));
    for (arguments, what) in [
        (vec!["conflicts", "show", "4711"], "there is no conflict 4711"),
        (vec!["conflicts", "resolve", "4711", "--keep", "remote"], "there is no conflict 4711"),
        (vec!["conflicts", "resolve", &of(3), "--row", "gone.json"], "gone.json cannot be read"),
    ] {
        let told = home.run(&arguments).expect_code(2).stderr;
        assert!(told.contains(what), "{arguments:?}: {told}");
    }
    let id = till.registered.id;
    till.shop.superuser.execute("UPDATE plimsoll.conflict_record SET closed_at = now(), outcome = 'agreed' WHERE database_id = $1", &[&id]).expect("closed");
    let count = |arguments: &[&str]| {
        let listed = home.run(arguments).expect_code(0).stdout;
        serde_json::from_str::<Vec<Value>>(&listed).expect("JSON").len()
    };
    assert_eq!((count(&["conflicts", "--json"]), count(&["conflicts", "list", "--all", "--json"])), (0, 3));
}
