//! The worked example of docs/directions.md.

use crate::pair::{Pair, counts, site};

/// Seconds of an hour.
const HOUR: i64 = 3_600;

#[test]
fn john_and_jane_doe_have_the_newer_number_on_both_systems() {
    let site = site();
    let mut pair = Pair::new(&site, "acme", "");
    // System A is the local database, system B the server. Jane's row is newer in A, John's is newer in B.
    pair.put_here(1, "John Doe", "555-0001", HOUR);
    pair.put_here(2, "Jane Doe", "555-3210", 5 * HOUR);
    pair.put_there(1, "John Doe", "123-4567", 4 * HOUR);
    pair.put_there(2, "Jane Doe", "555-0002", 2 * HOUR);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 1), ("received", 1), ("conflicts", 2)]));
    let people = pair.both();
    assert_eq!(Pair::phones(&people), [(1, "123-4567"), (2, "555-3210")]);
    let stamps: Vec<i64> = people.iter().map(|person| person.4 - 1_704_067_200).collect();
    assert_eq!(stamps, [4 * HOUR, 5 * HOUR], "the winners' stamps");
    let report = pair.sync();
    assert_eq!((Pair::moved(&report), report["status"].as_str()), (counts(&[]), Some("level")));
    assert_eq!(pair.both(), people);
    pair.agent.home.run(["verify"]).expect_code(0);
}
