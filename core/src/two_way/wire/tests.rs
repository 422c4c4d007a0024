use proptest::prelude::*;

use super::*;
use crate::ENCODING_VERSION;
use crate::digest::RowDigest;
use crate::manifest::Item;
use crate::short::ShortItem;
use crate::store::{Choice, SourceRow, Wanted};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..12)
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![Just(Seen::Absent), any::<[u8; 16]>().prop_map(Seen::Row), Just(Seen::Unreadable)]
}

fn key() -> impl Strategy<Value = MemoryKey> {
    (any::<i64>(), any::<[u8; 8]>()).prop_map(|(position, tail)| MemoryKey { position, tail })
}

fn reason() -> impl Strategy<Value = Reason> {
    ("\\PC{0,9}", "[0-9A-Z]{5}", prop::option::of("\\PC{0,9}"), "\\PC{0,9}")
        .prop_map(|(key_text, sqlstate, column, message)| Reason { key_text, sqlstate, column, message })
}

fn source_row() -> impl Strategy<Value = SourceRow> {
    bytes().prop_map(|row| SourceRow {
        item: Item { position: 0, digest: RowDigest([0; 32]) },
        key: Vec::new(),
        row,
    })
}

fn act() -> impl Strategy<Value = RemoteAct> {
    let digest = prop::option::of(any::<[u8; 16]>());
    let upsert = (source_row(), digest.clone()).prop_map(|(row, expected)| Change::Upsert { row, expected });
    let delete = (any::<i64>(), bytes(), any::<[u8; 16]>())
        .prop_map(|(position, key, expected)| Change::Delete { position, key, expected });
    let kind = prop::sample::select(KINDS.to_vec());
    let parts =
        (prop::option::of(bytes()), prop::option::of(source_row()), digest, prop::option::of(reason()));
    let record = (key(), kind, seen(), seen(), parts).prop_map(|(key, kind, local, remote, parts)| {
        let (encoded_key, local_row, base, reason) = parts;
        Record { key, encoded_key, kind, local, remote, local_row, base, reason }
    });
    prop_oneof![
        upsert.prop_map(RemoteAct::Change),
        delete.prop_map(RemoteAct::Change),
        record.prop_map(|record| RemoteAct::Record(Box::new(record))),
    ]
}

fn applied() -> impl Strategy<Value = Applied> {
    let refused = (any::<bool>(), reason())
        .prop_map(|(waits, reason)| Applied::Refused { waits, reason: Box::new(reason) });
    prop_oneof![Just(Applied::Done), Just(Applied::Changed), Just(Applied::Held), refused]
}

fn acts_of(bytes: &[u8]) -> Result<Vec<Act<'_>>> {
    read_acts(bytes)?.collect()
}

proptest! {
    #[test]
    fn acts_come_back(acts in prop::collection::vec(act(), 0..6), base_row in prop::option::of(bytes())) {
        let acts: Vec<Act<'_>> = acts.iter().map(|act| Act::of(act, base_row.as_deref())).collect();
        let packed = pack_acts(acts.iter().copied());
        prop_assert_eq!(packed.len(), 2 + acts.iter().map(packed_len).sum::<usize>());
        for cut in 0..packed.len() {
            prop_assert!(acts_of(&packed[..cut]).is_err());
        }
        prop_assert_eq!(acts_of(&packed), Ok(acts));
    }

    #[test]
    fn answers_come_back(applied in prop::collection::vec(applied(), 0..6)) {
        let packed = pack_applied(&applied);
        for cut in 0..packed.len() {
            prop_assert!(read_applied(&packed[..cut]).is_err());
        }
        prop_assert_eq!(read_applied(&packed), Ok(applied));
    }

    #[test]
    fn keys_choices_and_wishes_come_back(
        keys in prop::collection::vec(key(), 0..4),
        choices in prop::collection::vec((key(), any::<bool>(), seen(), seen()), 0..4),
        wanted in prop::collection::vec((any::<i64>(), any::<[u8; 16]>(), any::<bool>()), 0..4),
    ) {
        let side = |remote: bool| if remote { Side::Remote } else { Side::Local };
        let choices: Vec<Choice> = choices
            .into_iter()
            .map(|(key, remote, local, seen)| Choice { key, side: side(remote), local, remote: seen })
            .collect();
        let wanted: Vec<Wanted> = wanted
            .into_iter()
            .map(|(position, digest, content)| Wanted { item: ShortItem { position, digest }, content })
            .collect();
        prop_assert_eq!(read_keys(&pack_keys(&keys)), Ok(keys));
        prop_assert_eq!(read_choices(&pack_choices(&choices)), Ok(choices));
        prop_assert_eq!(read_wanted(&pack_wanted(&wanted)), Ok(wanted));
    }

    #[test]
    fn rows_come_back(rows in prop::collection::vec((bytes(), any::<i64>(), any::<bool>()), 0..4), looked_for in 0..9usize) {
        let found = |(key, revision, whole): (Vec<u8>, i64, bool)| match whole {
            true => Found::Row(key),
            false => Found::Key { item: Item { position: 3, digest: RowDigest([7; 32]) }, revision, key },
        };
        let rows: Vec<Found> = rows.into_iter().map(found).collect();
        prop_assert_eq!(read_fetched(&pack_fetched(looked_for, &rows)), Ok((looked_for, rows)));
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        bytes.insert(0, ENCODING_VERSION);
        let _ = acts_of(&bytes);
        let _ = read_applied(&bytes);
        let _ = read_keys(&bytes);
        let _ = read_choices(&bytes);
        let _ = read_wanted(&bytes);
        let _ = read_fetched(&bytes);
    }
}
