//! What mutation begins with: the golden encodings, and one of each kind of packed list.

use plimsoll_core::blocks::{Entry, pack_entries};
use plimsoll_core::digest::RowDigest;
use plimsoll_core::dyadic::Dyadic;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::{Item, ItemsWriter};
use plimsoll_core::ranges::{RangeSummary, ShortSum, pack_ranges, pack_summaries};
use plimsoll_core::reconcile::Side;
use plimsoll_core::row::BatchWriter;
use plimsoll_core::short::{ShortItem, pack_items};
use plimsoll_core::sketch::Sketch;
use plimsoll_core::store::{Applied, Choice, MemoryKey, OpenKind, PositionRange, Reason, Seen, Wanted};
use plimsoll_core::two_way::wire::{
    Act, Found, Noted, Told, pack_acts, pack_applied, pack_choices, pack_fetched, pack_keys, pack_wanted,
};

use super::golden::entries as golden;
use super::targets::SKETCHED;

/// Rows of one field, and some with all of the golden fields behind each other.
pub fn rows() -> Vec<Vec<u8>> {
    let mut rows: Vec<Vec<u8>> = golden().into_iter().filter_map(|entry| entry.wire).collect();
    let sound: Vec<Vec<u8>> =
        golden().into_iter().filter(|entry| entry.refused.is_none()).map(|entry| entry.stored).collect();
    for group in sound.chunks(12) {
        let fields = group.iter().filter(|field| field.first() == Some(&1));
        let numbered = fields.zip(1u8..).flat_map(|(field, number)| [&[number], &field[1..]].concat());
        rows.push(numbered.collect());
    }
    rows
}

pub fn uploads() -> Vec<Vec<u8>> {
    let rows = rows();
    let uploads = rows.chunks(7).map(|rows| {
        let mut upload = BatchWriter::new();
        rows.iter().for_each(|row| upload.push(row));
        upload.finish()
    });
    uploads.chain([BatchWriter::new().finish()]).collect()
}

pub fn json() -> Vec<Vec<u8>> {
    let golden = golden().into_iter().filter(|entry| entry.column_type.to_string().starts_with("json"));
    let mut texts: Vec<Vec<u8>> = golden.filter_map(|entry| Some(entry.text?.into_bytes())).collect();
    texts.push(
        b"{\"b\": [1.50, -0, 1e131071], \"aa\": {\"\\u00e9\\n\": null}, \"b\": \"\\ud834\\udd1e\"}".to_vec(),
    );
    texts
}

pub fn texts() -> Vec<Vec<u8>> {
    let values = golden().into_iter().filter_map(|entry| entry.text);
    let types = golden().into_iter().map(|entry| entry.column_type.to_string());
    values.chain(types).map(String::into_bytes).collect()
}

fn some_ranges() -> Vec<PositionRange> {
    let bounds =
        [(None, Some(-4_096)), (Some(-4_096), Some(0)), (Some(1_024), Some(1_088)), (Some(1 << 40), None)];
    bounds.map(|(from, to)| PositionRange { from, to }).to_vec()
}

pub fn ranges() -> Vec<Vec<u8>> {
    let all = some_ranges();
    vec![pack_ranges(&[]), pack_ranges(&[PositionRange::ALL]), pack_ranges(&all), pack_ranges(&all[1..3])]
}

pub fn summaries() -> Vec<Vec<u8>> {
    let summaries: Vec<RangeSummary> = some_ranges()
        .into_iter()
        .zip(1..)
        .map(|(range, row_count)| RangeSummary { range, row_count, sum: ShortSum(row_count << 50) })
        .collect();
    vec![pack_summaries(&[]), pack_summaries(&summaries), pack_summaries(&summaries[1..2])]
}

fn some_items() -> Vec<Item> {
    [-5, 7, 7, 1 << 33]
        .into_iter()
        .zip(1..)
        .map(|(position, byte)| Item { position, digest: RowDigest([byte; 32]) })
        .collect()
}

pub fn short_items() -> Vec<Vec<u8>> {
    let items: Vec<ShortItem> = some_items().iter().map(ShortItem::from).collect();
    vec![pack_items(&[]), pack_items(&items), pack_items(&items[..1])]
}

/// Acts of each kind, alone and together.
pub fn acts() -> Vec<Vec<u8>> {
    let key = MemoryKey { position: -7, tail: *b"the tail" };
    let reason = Told { key_text: "id=1", sqlstate: "23514", column: Some("rank"), message: "too low" };
    let noted = Noted {
        key,
        encoded_key: Some(b"\x01\x05\x01k"),
        kind: OpenKind::Rejected(Side::Remote),
        local: Seen::Row([3; 16]),
        remote: Seen::Unreadable,
        local_row: Some(b"\x01\x05\x01k"),
        base: Some([4; 16]),
        base_row: Some(b""),
        reason: Some(reason),
    };
    let bare =
        Noted { encoded_key: None, local_row: None, base: None, base_row: None, reason: None, ..noted };
    let acts = [
        Act::Upsert { row: b"\x01\x05\x01k", expected: None },
        Act::Upsert { row: b"", expected: Some([1; 16]) },
        Act::Delete { position: 5, key: b"\x01\x05\x01k", expected: [2; 16] },
        Act::Record(noted),
        Act::Record(bare),
    ];
    let mut lists: Vec<Vec<u8>> = acts.iter().map(|act| pack_acts([*act].into_iter())).collect();
    lists.extend([pack_acts(acts.into_iter()), pack_acts([].into_iter())]);
    lists
}

pub fn outcomes() -> Vec<Vec<u8>> {
    let reason = Reason { key_text: "1".to_owned(), sqlstate: "23503".to_owned(), ..Reason::default() };
    let refused = Applied::Refused { waits: true, reason: Box::new(reason) };
    vec![pack_applied(&[Applied::Done, Applied::Changed, Applied::Held, refused]), pack_applied(&[])]
}

pub fn wishes() -> Vec<Vec<u8>> {
    let key = MemoryKey { position: i64::MIN, tail: [9; 8] };
    let choice = Choice { key, side: Side::Remote, local: Seen::Absent, remote: Seen::Row([5; 16]) };
    let item = some_items()[0];
    let wanted = Wanted { item: ShortItem::from(&item), content: true };
    let found = [Found::Row(b"\x01\x05\x01k".to_vec()), Found::Key { item, revision: -1, key: vec![1] }];
    vec![
        pack_keys(&[key, key]),
        pack_choices(&[choice]),
        pack_wanted(&[wanted, Wanted { content: false, ..wanted }]),
        pack_fetched(3, &found),
    ]
}

pub fn manifests() -> Vec<Vec<u8>> {
    let lists = [false, true].map(|keys| {
        let mut writer = ItemsWriter::new(keys);
        some_items().iter().for_each(|item| writer.push(item, b"\x01\x05\x01k"));
        writer
    });
    let [plain, keyed] = lists;
    vec![plain.finish(None), keyed.finish(Some(-1)), ItemsWriter::new(true).finish(None)]
}

pub fn sketches() -> Vec<Vec<u8>> {
    let sketch = |items: &[(i64, u8)], symbols| {
        let mut sketch = Sketch::new(&SKETCHED, 0, symbols).expect("a sketch");
        items
            .iter()
            .for_each(|(position, byte)| sketch.add(&ShortItem { position: *position, digest: [*byte; 16] }));
        sketch.pack()
    };
    let crowd: Vec<(i64, u8)> = (0..200).map(|i| (i % 7, 9)).collect();
    vec![sketch(&[], 0), sketch(&[], 8), sketch(&[(5, 1), (900, 2), (65_000, 3)], 12), sketch(&crowd, 30)]
}

pub fn entries() -> Vec<Vec<u8>> {
    let change = Fingerprint::from_iter([RowDigest([9; 32])]);
    let mut gone = Fingerprint::default();
    gone.remove(&RowDigest([8; 32]));
    let entries = [
        Entry { range: Dyadic::point(5), change, added: Some(77), removed: None },
        Entry { range: Dyadic::enclosing(1_024, 2_047), change: gone, added: None, removed: Some(i64::MIN) },
        Entry { range: Dyadic::ALL, change, added: None, removed: None },
    ];
    vec![pack_entries(&[]), pack_entries(&entries), pack_entries(&entries[..1])]
}
