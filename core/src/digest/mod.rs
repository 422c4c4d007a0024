//! Row digests: `BLAKE3 keyed_hash(fingerprint_key, digest form of the row)`, 32 bytes.
//!
//! Keyed, because a plain additive hash can be forged by whoever chooses rows.

mod gathering;
mod lanes;

pub use gathering::{GATHERING_BYTES, Gathering};
pub use lanes::LANES;

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::row::digest_form;
use lanes::{MAX_LENGTH, keyed_hashes};

/// The secret of one database from which its row digests are made. Never printed.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// A key from its 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        FingerprintKey(bytes)
    }

    /// A key from a slice; `None` unless it has 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(FingerprintKey(bytes.try_into().ok()?))
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

/// The digest of one row's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowDigest(pub [u8; 32]);

impl fmt::Debug for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..6] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("..")
    }
}

/// From how many rows on hashing side by side costs less than one by one: it costs the same for two and for eight.
const WORTHWHILE: usize = 3;

/// Large rows do not wait for others.
const MOST_BYTES: usize = 1 << 16;

/// Makes row digests with one key, reusing its buffer from row to row.
#[derive(Debug, Clone)]
pub struct Digester {
    key: FingerprintKey,
    form: Vec<u8>,
}

impl Digester {
    /// A digester for the rows of the database that `key` belongs to.
    pub fn new(key: FingerprintKey) -> Self {
        Digester { key, form: Vec::new() }
    }

    /// Takes another key, or goes on with the same.
    ///
    /// # Errors
    /// `Malformed` where it has not 32 bytes.
    #[inline]
    pub fn set_key(&mut self, key: &[u8]) -> Result<()> {
        if key != self.key.0 {
            let wrong = || Error::new(ErrorKind::Malformed, "a fingerprint key has 32 bytes");
            self.key = FingerprintKey::from_slice(key).ok_or_else(wrong)?;
        }
        Ok(())
    }

    /// Whether its digests are made with this key.
    pub fn has_key(&self, key: &FingerprintKey) -> bool {
        self.key.0 == key.0
    }

    /// The digest of a row given in wire form (its fields, without a length in front).
    ///
    /// # Errors
    /// `Malformed` where `row` breaks the grammar.
    pub fn digest(&mut self, row: &[u8]) -> Result<RowDigest> {
        self.form.clear();
        digest_form(row, &mut self.form)?;
        Ok(self.digest_of_form(&self.form))
    }

    /// The digest of a row given in digest form.
    pub fn digest_of_form(&self, form: &[u8]) -> RowDigest {
        RowDigest(*blake3::keyed_hash(&self.key.0, form).as_bytes())
    }

    /// Hands the digest of each row given in digest form to `take`, in order. [`LANES`] at a time, which costs
    /// a quarter of one by one on processors with AVX2.
    pub fn digest_forms(&self, forms: &[&[u8]], mut take: impl FnMut(RowDigest)) {
        for group in forms.chunks(LANES) {
            let mut inputs = [&[][..]; LANES];
            for (input, form) in inputs.iter_mut().zip(group).filter(|(_, form)| form.len() <= MAX_LENGTH) {
                *input = form;
            }
            let hashes = if group.len() >= WORTHWHILE { keyed_hashes(&self.key.0, &inputs) } else { None };
            match hashes {
                Some(hashes) => group.iter().zip(hashes).for_each(|(form, hash)| {
                    let short = form.len() <= MAX_LENGTH;
                    take(if short { RowDigest(hash) } else { self.digest_of_form(form) });
                }),
                None => group.iter().for_each(|form| take(self.digest_of_form(form))),
            }
        }
    }
}

/// Rows of which digests are made together, in the order in which they came. `T` is what else is known of each.
#[derive(Debug, Clone)]
pub struct DigestQueue<T> {
    digester: Digester,
    forms: Vec<u8>,
    /// Where each row's form ends.
    rows: Vec<(usize, T)>,
}

impl<T> DigestQueue<T> {
    /// An empty queue. The digester's key is that of its rows.
    pub fn new(digester: &Digester) -> Self {
        DigestQueue { digester: digester.clone(), forms: Vec::with_capacity(256), rows: Vec::new() }
    }

    /// Where the next row's digest form is to be appended, before it is pushed.
    pub fn form(&mut self) -> &mut Vec<u8> {
        &mut self.forms
    }

    /// Ends the row. Whether there are enough now to be taken out.
    pub fn push(&mut self, row: T) -> bool {
        self.rows.push((self.forms.len(), row));
        self.rows.len() >= LANES || self.forms.len() > MOST_BYTES
    }

    /// Takes the rows out, each with its digest and its digest form, until `take` fails or answers that it has
    /// enough; what is left then is dropped. Whether `take` would have more.
    pub fn take_all<E>(
        &mut self,
        mut take: impl FnMut(T, RowDigest, &[u8]) -> std::result::Result<bool, E>,
    ) -> std::result::Result<bool, E> {
        let (mut start, mut more) = (0, Ok(true));
        while matches!(more, Ok(true)) && !self.rows.is_empty() {
            let count = self.rows.len().min(LANES);
            let mut forms = [&[][..]; LANES];
            for (form, (end, _)) in forms.iter_mut().zip(&self.rows) {
                *form = &self.forms[start..*end];
                start = *end;
            }
            let mut digests = [RowDigest([0; 32]); LANES];
            let mut places = digests.iter_mut();
            self.digester.digest_forms(&forms[..count], |digest| {
                if let Some(place) = places.next() {
                    *place = digest;
                }
            });
            for (((_, row), digest), form) in self.rows.drain(..count).zip(digests).zip(forms) {
                more = take(row, digest, form);
                if !matches!(more, Ok(true)) {
                    break;
                }
            }
        }
        self.rows.clear();
        self.forms.clear();
        more
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_together_have_the_digests_of_rows_alone(
            rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1100), 0..20),
        ) {
            let digester = Digester::new(FingerprintKey::new([3; 32]));
            let alone: Vec<_> = rows.iter().map(|row| digester.digest_of_form(row)).collect();
            let forms: Vec<&[u8]> = rows.iter().map(|row| &row[..]).collect();
            let mut together = Vec::new();
            digester.digest_forms(&forms, |digest| together.push(digest));
            prop_assert_eq!(&together, &alone);
            let mut queue = DigestQueue::new(&digester);
            let mut taken = Vec::new();
            let mut take = |i: usize, digest, form: &[u8]| {
                assert_eq!(form, rows[i]);
                taken.push((i, digest));
                Ok::<_, ()>(true)
            };
            for (i, row) in rows.iter().enumerate() {
                queue.form().extend_from_slice(row);
                // Now and then too late: the rows are more than go side by side.
                if queue.push(i) && i % 3 > 0 {
                    prop_assert_eq!(queue.take_all(&mut take), Ok(true));
                }
            }
            prop_assert_eq!(queue.take_all(&mut take), Ok(true));
            prop_assert_eq!(taken, alone.into_iter().enumerate().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_queue_gives_no_more_once_enough_was_taken() {
        let mut queue = DigestQueue::new(&Digester::new(FingerprintKey::new([3; 32])));
        for i in 0..3 {
            assert!(!queue.push(i), "three rows are not many");
        }
        let mut taken = Vec::new();
        let answer = queue.take_all(|i, _, _| {
            taken.push(i);
            Ok::<_, ()>(i < 1)
        });
        assert_eq!((answer, taken), (Ok(false), vec![0, 1]));
        assert_eq!(queue.take_all(|i, _, _| Err(i)), Ok(true), "nothing is left");
        queue.form().resize(1 << 20, 0);
        assert!(queue.push(7), "a large row does not wait for others");
    }

    #[test]
    fn a_key_of_another_length_is_refused() {
        let mut digester = Digester::new(FingerprintKey::new([3; 32]));
        let before = digester.digest_of_form(b"row");
        assert!(digester.set_key(&[3; 31]).is_err());
        assert_eq!(digester.digest_of_form(b"row"), before);
        digester.set_key(&[4; 32]).expect("a key");
        assert_ne!(digester.digest_of_form(b"row"), before);
    }
}
