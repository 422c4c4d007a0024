//! Changes to bytes, and to rows and uploads, as somebody hostile would make them. Included by the fuzzers of the
//! core and of a running server.
#![allow(dead_code, reason = "each test that includes this file uses what it needs of it")]

use fastrand::Rng;
use plimsoll_core::row::{BatchReader, BatchWriter, Fields, put_varint};

/// Numbers at which code goes wrong.
const EXTREMES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    1 << 20,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Inputs do not grow beyond this many bytes by mutation.
pub const MOST_BYTES: usize = 1 << 14;

fn range(rng: &mut Rng, length: usize) -> std::ops::Range<usize> {
    let start = rng.usize(0..=length);
    // Short ranges most of the time.
    let most = if rng.u8(..) < 200 { 8 } else { length };
    start..(start + rng.usize(0..=most)).min(length)
}

/// Makes one change to bytes; `other` is a further input to take parts from.
pub fn bytes(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let place = rng.usize(0..=input.len());
    match rng.u8(0..12) {
        0 | 1 if place < input.len() => input[place] ^= 1 << rng.u8(0..8),
        2 if place < input.len() => input[place] = rng.u8(..),
        3 if place < input.len() => input[place] = rng.u8(0..32),
        4 => input.truncate(place),
        5 => drop(input.drain(range(rng, input.len()))),
        6 => {
            let copy = input[range(rng, input.len())].to_vec();
            input.splice(place..place, copy);
        }
        7 => {
            let part = other[range(rng, other.len())].to_vec();
            input.splice(place..place, part);
        }
        8 => {
            input.truncate(place);
            input.extend_from_slice(&other[rng.usize(0..=other.len())..]);
        }
        9 => {
            let mut lie = Vec::new();
            put_varint(&mut lie, extreme(rng));
            let end = (place + rng.usize(0..=lie.len())).min(input.len());
            input.splice(place..end, lie);
        }
        10 => {
            let width = [2, 4, 8][rng.usize(0..3)];
            let end = (place + width).min(input.len());
            input.splice(place..end, extreme(rng).to_le_bytes()[..width].to_vec());
        }
        _ => {
            let random: Vec<u8> = (0..rng.usize(0..9)).map(|_| rng.u8(..)).collect();
            input.splice(place..place, random);
        }
    }
    input.truncate(MOST_BYTES);
}

fn extreme(rng: &mut Rng) -> u64 {
    let number = EXTREMES[rng.usize(0..EXTREMES.len())];
    number.wrapping_add(u64::from(rng.u8(0..3))).wrapping_sub(1)
}

/// Makes one change to a row in wire form, among its fields where it has some.
pub fn row(rng: &mut Rng, row: &mut Vec<u8>, other: &[u8]) {
    let Ok(fields) = Fields::new(row).map(|field| field.map(|field| field.bytes.to_vec())).collect() else {
        return bytes(rng, row, other);
    };
    let mut fields: Vec<Vec<u8>> = fields;
    let others: Vec<Vec<u8>> =
        Fields::new(other).map_while(|field| Some(field.ok()?.bytes.to_vec())).collect();
    if fields.is_empty() {
        return bytes(rng, row, other);
    }
    let (one, two) = (rng.usize(0..fields.len()), rng.usize(0..fields.len()));
    match rng.u8(0..8) {
        0 => fields.swap(one, two),
        1 => fields.insert(two, fields[one].clone()),
        2 => drop(fields.remove(one)),
        // Another column's value under this number: most of them of another type.
        3 if !others.is_empty() => {
            let value = &others[rng.usize(0..others.len())];
            fields[one] = [&fields[one][..1], value.get(1..).unwrap_or_default()].concat();
        }
        4 => fields[one][0] = rng.u8(0..12),
        5 => fields[one] = [&fields[one][..1], &value(rng)].concat(),
        _ => bytes(rng, &mut fields[one], other),
    }
    *row = fields.concat();
}

/// Tag and payload of a value at an end of what its type holds, or beyond.
fn value(rng: &mut Rng) -> Vec<u8> {
    let number = extreme(rng).to_le_bytes();
    let text = |rng: &mut Rng| {
        const TEXTS: [&str; 12] = [
            "",
            "\0",
            "NaN",
            "Infinity",
            "1e131071",
            "[[[[[[[[[[",
            "{\"a\":1,\"a\":2}",
            "'; DROP TABLE x; --",
            "{1,2,{3}}",
            "infinity",
            "\u{10ffff}",
            "[1e131071,1e-16383,-0]",
        ];
        let mut bytes = Vec::new();
        let text = TEXTS[rng.usize(0..TEXTS.len())].repeat(if rng.u8(..) < 16 { 40 } else { 1 });
        put_varint(&mut bytes, text.len() as u64);
        bytes.extend_from_slice(text.as_bytes());
        bytes
    };
    let (tag, payload) = match rng.u8(0..20) {
        0 => (1, vec![number[0]]),
        1 => (2, number.to_vec()),
        // A numeric of the greatest weight, of the least, and one that is none.
        2 => (3, vec![0, 0, 0, 0xff, 0x7f, 1, 1, 0]),
        3 => (3, vec![1, 0xff, 0x3f, 0x01, 0xf0, 1, 1, 0]),
        4 => (3, vec![rng.u8(0..6)]),
        5 => (4, number.to_vec()),
        6 => (5, text(rng)),
        7 => (6, text(rng)),
        8 => (7, [number, number].concat()),
        9 => (8, number[..4].to_vec()),
        10 => (9, number.to_vec()),
        11 => (10 + rng.u8(0..2), number.to_vec()),
        12 => (12, [&number[..], &number[..4]].concat()),
        13 => (13, [&number[..], &number[..]].concat()),
        14 => (14, text(rng)),
        15 => (15, text(rng)),
        16 => (16, vec![1, 0]),
        // Arrays that lie about their lengths.
        17 => (16, [&[9, 1][..], &number[..4], &[1, 0, 0, 0]].concat()),
        18 => (20 + rng.u8(0..2), text(rng)),
        _ => (rng.u8(16..20), vec![rng.u8(0..4), rng.u8(..), rng.u8(..)]),
    };
    [&[tag][..], &payload].concat()
}

/// Makes changes to an upload: to its bytes, or to rows that are framed again as they must be.
pub fn upload(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8]) {
    let rows = |upload: &[u8]| -> Option<Vec<Vec<u8>>> {
        BatchReader::new(upload).ok()?.map(|row| row.ok().map(<[u8]>::to_vec)).collect()
    };
    let (Some(mut all), true) = (rows(input), rng.u8(..) < 200) else { return bytes(rng, input, other) };
    if all.is_empty() {
        return bytes(rng, input, other);
    }
    let others = rows(other).filter(|rows| !rows.is_empty()).unwrap_or_else(|| all.clone());
    for _ in 0..rng.u8(1..3) {
        let place = rng.usize(0..all.len());
        let another = &others[rng.usize(0..others.len())];
        match rng.u8(0..12) {
            0 => all.insert(place, another.clone()),
            1 if all.len() > 1 => drop(all.remove(place)),
            _ => row(rng, &mut all[place], another),
        }
    }
    let mut writer = BatchWriter::new();
    all.iter().for_each(|row| writer.push(row));
    *input = writer.finish();
}
