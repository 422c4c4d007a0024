//! A client whose clock is wrong. Applications beside it stamp their rows by that clock, those of the server by the right one.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use plimsoll_tests::{Kind, LocalDatabase, Site, faulty_client, table_of};

use crate::pair::{Pair, counts, site};
use crate::references;

const HOUR: i64 = 3_600;

/// The moment from which [`Pair::put_here`] and [`Pair::put_there`] count, in seconds of the Unix epoch.
const FROM: i64 = 1_704_067_200;

/// A build of the client whose clock can be set; gone with the value.
struct Client(PathBuf);

impl Drop for Client {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The right time, as people are stamped.
fn present() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_secs() as i64 - FROM
}

/// Eight people on both sides, and a client whose clock is ahead by so many seconds.
fn level<'s>(site: &'s Site<'static>, client: &Path, ahead: i64) -> Pair<'s> {
    let mut pair = Pair::new(site, &format!("ahead by {ahead}"), "");
    for id in 1..=8 {
        pair.put_here(id, &format!("person {id}"), "1", 0);
    }
    pair.agent.home.set_binary(client.to_owned());
    pair.agent.home.set_env("PLIMSOLL_CLOCK_AHEAD", &ahead.to_string());
    assert_eq!(Pair::moved(&pair.sync()), counts(&[("sent", 8)]));
    pair
}

/// Changes a person on both sides, with these stamps.
fn change(pair: &mut Pair<'_>, id: i64, [here, there]: [i64; 2]) {
    pair.put_here(id, "John", "here", here);
    pair.put_there(id, "John", "there", there);
}

/// Which side's phone and stamp both sides have.
#[track_caller]
fn won(pair: &mut Pair<'_>, id: i64) -> (String, i64) {
    let person = pair.both().into_iter().find(|person| person.0 == id).expect("a person");
    (person.2.unwrap_or_default(), person.4 - FROM)
}

#[track_caller]
fn assert_skew(report: &serde_json::Value, ahead: i64) {
    let skew = report["moved"]["skew"].as_i64().expect("the clocks were compared");
    assert!((skew - ahead * 1_000_000).abs() < 5_000_000, "{skew} where it is {ahead} s");
}

#[test]
fn a_stamp_of_a_fast_clock_wins_no_conflict_before_its_time_and_is_told_of() {
    let (client, site) = (Client(faulty_client()), site());
    let mut pair = level(&site, &client.0, 2 * HOUR);
    let now = present();
    let fast = now + 2 * HOUR;
    change(&mut pair, 1, [fast - 10, now - 300]);
    change(&mut pair, 2, [fast - 20, now - 200]);
    // Ahead by less than a minute: no clock is ever quite right.
    change(&mut pair, 3, [now + 40, now - 100]);
    // Alone, it is copied with its stamp.
    pair.put_here(4, "Jane", "here", fast - 30);
    // Of an older row the future does not matter.
    pair.put_there(5, "Jack", "there", fast + HOUR);
    let shown = pair.agent.home.run(["sync"]).expect_code(0);
    for told in ["2 rows in conflict with a stamp of the future", " s ahead of the server's"] {
        assert!(shown.stdout.contains(told), "{told}: {}", shown.stdout);
    }
    assert!(shown.stderr.contains("2 rows have stamps of the future"), "{}", shown.stderr);
    let winners = [1, 2, 3, 4, 5].map(|id| won(&mut pair, id));
    let expected = [("there", now - 300), ("there", now - 200), ("here", now + 40), ("here", fast - 30)];
    assert_eq!(winners[..4], expected.map(|(phone, stamp)| (phone.to_owned(), stamp)));
    assert_eq!(winners[4], ("there".to_owned(), fast + HOUR));
    // It stands for as long as nobody else changes the row, and no longer.
    pair.put_there(4, "Jane", "there", now);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("received", 1)]), "{report}");
    assert_skew(&report, 2 * HOUR);
    assert_eq!(won(&mut pair, 4), ("there".to_owned(), now));
    // The next run moves nothing, and measures the clock again.
    pair.agent.home.set_env("PLIMSOLL_CLOCK_AHEAD", "0");
    pair.put_here(6, "Joan", "here", now);
    let report = pair.sync();
    assert_eq!(Pair::moved(&report), counts(&[("sent", 1)]), "{report}");
    assert_skew(&report, 0);
    let shown = pair.agent.home.run(["sync"]).expect_code(0);
    assert!(!shown.stdout.contains("the clock here"), "{}", shown.stdout);
}

#[test]
fn a_slow_clock_takes_no_right_stamp_for_one_of_the_future() {
    let (client, site) = (Client(faulty_client()), site());
    let mut pair = level(&site, &client.0, -2 * HOUR);
    let now = present();
    let slow = now - 2 * HOUR;
    // By the clock here both of these are of the future: the higher one wins, as ever.
    change(&mut pair, 1, [slow, now]);
    change(&mut pair, 2, [now - 20, now - 30]);
    // What the server's applications stamp wrongly is so here, too.
    change(&mut pair, 3, [slow, now + HOUR]);
    let report = pair.sync();
    let expected = counts(&[("sent", 2), ("received", 1), ("conflicts", 3), ("future_stamps", 1)]);
    assert_eq!(Pair::moved(&report), expected, "{report}");
    assert_skew(&report, -2 * HOUR);
    let winners = [1, 2, 3].map(|id| won(&mut pair, id));
    assert_eq!(
        winners,
        [("there", now), ("here", now - 20), ("here", slow)].map(|(phone, at)| (phone.to_owned(), at))
    );
    pair.put_here(4, "Jane", "here", slow);
    let shown = pair.agent.home.run(["sync"]).expect_code(0);
    assert!(shown.stdout.contains(" s behind the server's"), "{}", shown.stdout);
}

#[test]
fn with_numbers_no_clock_matters() {
    let client = Client(faulty_client());
    for ahead in [2 * HOUR, -2 * HOUR] {
        let (site, local) = (references::site("CASCADE"), LocalDatabase::new(Kind::Sqlite));
        let mut pair = references::Pair::new(&site, &local);
        pair.here.run(&references::tables("", "CASCADE"));
        pair.agent.home.set_binary(client.0.clone());
        pair.agent.home.set_env("PLIMSOLL_CLOCK_AHEAD", &ahead.to_string());
        pair.here.run("INSERT INTO orders VALUES (1, 'level', 1), (2, 'level', 1)");
        pair.sync();
        // Each is a stamp of a year to come, if it is one.
        let year = 4_000_000_000_000_000_i64;
        pair.here.run(&format!(
            "UPDATE orders SET note = 'here', version = {year} WHERE id = 1; UPDATE orders SET note = 'here', version = 2 WHERE id = 2"
        ));
        pair.there(&format!(
            "UPDATE orders SET note = 'there', version = 3 WHERE id = 1; UPDATE orders SET note = 'there', version = {year} WHERE id = 2"
        ));
        let report = pair.sync().json();
        let moved = &table_of(&report, "orders")["moved"];
        assert_eq!((&moved["conflicts"], &moved["future_stamps"]), (&2.into(), &0.into()), "{moved}");
        assert!(moved["skew"].is_null(), "{moved}");
        let rows = [format!("1,0,here,{year}"), format!("2,0,there,{year}")].to_vec();
        assert_eq!(pair.rows("orders"), [rows.clone(), rows], "ahead by {ahead} s");
    }
}
