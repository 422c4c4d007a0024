//! A fingerprint under way, kept in bytes: rows wait in it until enough of them can be hashed side by side.
//!
//! ```text
//! gathering = count(8) sum(32) [ key(32) waiting(1) *8 end(2) forms ]
//! ```
//! The long form has a fixed length; a gathering begins short, so that many small ones take little memory.

use super::lanes::{LANES, MAX_LENGTH};
use super::{Digester, FingerprintKey};
use crate::fingerprint::{FINGERPRINT_BYTES, Fingerprint};

const KEY: usize = FINGERPRINT_BYTES;
const WAITING: usize = KEY + 32;
const ENDS: usize = WAITING + 1;
const FORMS: usize = ENDS + 2 * LANES;
/// Room for eight rows of usual length.
const ROOM: usize = 4096;

/// How long a gathering is in which no row waits, and in which rows may wait.
pub const GATHERING_BYTES: [usize; 2] = [FINGERPRINT_BYTES, FORMS + ROOM];

/// From how many rows on the room for waiting ones is worth its memory.
const MANY: u64 = 1000;

/// The rows that a gathering has so far; a view of its bytes.
pub struct Gathering<B>(B);

impl<B: AsRef<[u8]>> Gathering<B> {
    /// A gathering from its bytes; `None` where they are none.
    #[inline]
    pub fn new(bytes: B) -> Option<Self> {
        let gathering = Gathering(bytes);
        let sound = gathering.waiting() < LANES && gathering.end(gathering.waiting()) <= ROOM;
        (GATHERING_BYTES.contains(&gathering.0.as_ref().len()) && sound).then_some(gathering)
    }

    #[inline]
    fn is_short(&self) -> bool {
        self.0.as_ref().len() == FINGERPRINT_BYTES
    }

    #[inline]
    fn hashed(&self) -> Fingerprint {
        self.0.as_ref().first_chunk().map(Fingerprint::from_bytes).unwrap_or_default()
    }

    /// How many rows wait.
    #[inline]
    fn waiting(&self) -> usize {
        self.0.as_ref().get(WAITING).map_or(0, |waiting| usize::from(*waiting))
    }

    /// Where the waiting row of this number ends; the one before the first ends at 0.
    #[inline]
    fn end(&self, row: usize) -> usize {
        let Some(place) = row.checked_sub(1).map(|row| ENDS + 2 * row) else { return 0 };
        let end = self.0.as_ref().get(place..).and_then(<[u8]>::first_chunk::<2>);
        end.map_or(0, |end| usize::from(u16::from_le_bytes(*end)))
    }

    /// The fingerprint of all its rows, of those that wait too.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut fingerprint = self.hashed();
        let bytes = self.0.as_ref();
        let key = bytes.get(KEY..).and_then(<[u8]>::first_chunk::<32>);
        if let (Some(key), Some(forms)) = (key, bytes.get(FORMS..)) {
            let mut rows = [&[][..]; LANES];
            for (i, row) in rows.iter_mut().enumerate().take(self.waiting()) {
                *row = forms.get(self.end(i)..self.end(i + 1)).unwrap_or(&[]);
            }
            let digester = Digester::new(FingerprintKey::new(*key));
            digester.digest_forms(&rows[..self.waiting()], |digest| fingerprint.insert(&digest));
        }
        fingerprint
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Gathering<B> {
    /// Adds a row in digest form. Whether the gathering is short and should be long by now.
    #[inline]
    pub fn add(&mut self, digester: &Digester, form: &[u8]) -> bool {
        if self.is_short() || form.len() > MAX_LENGTH {
            let mut fingerprint = self.hashed();
            fingerprint.insert(&digester.digest_of_form(form));
            self.set_hashed(&fingerprint);
            return self.is_short() && fingerprint.row_count() >= MANY;
        }
        let last = self.end(self.waiting());
        if last + form.len() > ROOM || self.0.as_ref()[KEY..WAITING] != digester.key.0 {
            self.settle();
        }
        let waiting = self.waiting();
        let start = self.end(waiting);
        let (end, place) = (start + form.len(), ENDS + 2 * waiting);
        let bytes = self.0.as_mut();
        bytes[KEY..WAITING].copy_from_slice(&digester.key.0);
        bytes[FORMS + start..FORMS + end].copy_from_slice(form);
        // The room is shorter than 2^16.
        bytes[place..place + 2].copy_from_slice(&(end as u16).to_le_bytes());
        bytes[WAITING] = waiting as u8 + 1;
        if waiting + 1 == LANES {
            self.settle();
        }
        false
    }

    /// Hashes the rows that wait.
    pub fn settle(&mut self) {
        let fingerprint = self.fingerprint();
        self.set_hashed(&fingerprint);
        if let Some(waiting) = self.0.as_mut().get_mut(WAITING) {
            *waiting = 0;
        }
    }

    #[inline]
    fn set_hashed(&mut self, fingerprint: &Fingerprint) {
        self.0.as_mut()[..FINGERPRINT_BYTES].copy_from_slice(&fingerprint.to_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(long: bool, rows: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0; GATHERING_BYTES[usize::from(long)]];
        for (other_key, row) in rows {
            let digester = Digester::new(FingerprintKey::new([u8::from(*other_key); 32]));
            Gathering::new(&mut bytes[..]).expect("a gathering").add(&digester, row);
        }
        bytes
    }

    fn one_by_one(rows: &[(bool, Vec<u8>)]) -> Fingerprint {
        let digest = |(other_key, row): &(bool, Vec<u8>)| {
            Digester::new(FingerprintKey::new([u8::from(*other_key); 32])).digest_of_form(row)
        };
        rows.iter().map(digest).collect()
    }

    proptest! {
        #[test]
        fn whatever_waits_the_fingerprint_is_that_of_all_rows(
            rows in prop::collection::vec(
                (prop::bool::weighted(0.1), prop::collection::vec(any::<u8>(), 0..1500)), 0..40),
        ) {
            for long in [false, true] {
                let mut bytes = gathered(long, &rows);
                let mut gathering = Gathering::new(&mut bytes[..]).expect("a gathering");
                prop_assert_eq!(gathering.fingerprint(), one_by_one(&rows));
                gathering.settle();
                prop_assert_eq!(gathering.fingerprint(), one_by_one(&rows));
            }
        }

        #[test]
        fn no_bytes_panic(
            start in prop::collection::vec(any::<u8>(), FORMS..FORMS + 9),
            short: bool,
            row in prop::collection::vec(any::<u8>(), 0..1200),
        ) {
            let mut bytes = start;
            bytes.resize(GATHERING_BYTES[usize::from(!short)], 0);
            if let Some(mut gathering) = Gathering::new(&mut bytes[..]) {
                let _ = gathering.fingerprint();
                for _ in 0..LANES {
                    gathering.add(&Digester::new(FingerprintKey::new([1; 32])), &row);
                }
            }
        }
    }

    #[test]
    fn short_gatherings_ask_to_become_long_once_they_have_many_rows() {
        let digester = Digester::new(FingerprintKey::new([0; 32]));
        let mut bytes = [0; FINGERPRINT_BYTES];
        let mut gathering = Gathering::new(&mut bytes[..]).expect("a gathering");
        let asked = (1..=MANY).position(|_| gathering.add(&digester, b"row"));
        assert_eq!(asked, Some(MANY as usize - 1));
        assert!(Gathering::new(&[0; 41][..]).is_none());
    }
}
