//! Row digests: `BLAKE3 keyed_hash(fingerprint_key, digest form of the row)`, 32 bytes.
//!
//! Keyed, because a plain additive hash can be forged by whoever chooses rows.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::row::digest_form;

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
}
