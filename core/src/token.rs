//! Login by challenge and response. The token never crosses the wire, and what the server keeps of it
//! logs nobody in (the idea of SCRAM, RFC 5802; no iteration count, because a token is 256 random bits
//! and no password that could be guessed).
//!
//! ```text
//! client key = BLAKE3 derive_key(context, token)        stored key = BLAKE3(client key)
//! mask       = BLAKE3 keyed_hash(stored key, challenge || database id)
//! proof      = client key XOR mask
//! ```
//! The server computes the mask, unmasks the client key and compares its hash with the stored key.

use std::fmt;

const CONTEXT: &str = "plimsoll 2026-11 login client key v1";
const PREFIX: &str = "plimsoll_";

/// A database's token, as shown once by `register_database`. Never printed by `Debug`.
#[derive(Clone)]
pub struct Token(String);

/// What the server keeps of a token: enough to check a proof, not enough to make one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoredKey(pub [u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredKey(..)")
    }
}

impl Token {
    /// A token from 32 random bytes.
    pub fn from_random(bytes: &[u8; 32]) -> Self {
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in bytes {
            text.push_str(&format!("{byte:02x}"));
        }
        Token(text)
    }

    /// A token as a person pasted it; `None` where it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX)?;
        let sound = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        sound.then(|| Token(text.to_owned()))
    }

    /// The token's text, to be shown once or saved in a file only its user can read.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn client_key(&self) -> [u8; 32] {
        blake3::derive_key(CONTEXT, self.0.as_bytes())
    }

    /// What the server keeps.
    pub fn stored_key(&self) -> StoredKey {
        StoredKey(*blake3::hash(&self.client_key()).as_bytes())
    }

    /// The answer to a challenge: 32 bytes that are of no use for any other challenge or database.
    pub fn prove(&self, challenge: &[u8], database_id: &[u8; 16]) -> [u8; 32] {
        xor(self.client_key(), self.stored_key().mask(challenge, database_id))
    }
}

impl StoredKey {
    fn mask(&self, challenge: &[u8], database_id: &[u8; 16]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(challenge).update(database_id);
        *hasher.finalize().as_bytes()
    }

    /// Whether `proof` answers `challenge` for `database_id`. Takes the same time whatever the proof.
    pub fn accepts(&self, proof: &[u8], challenge: &[u8], database_id: &[u8; 16]) -> bool {
        let Ok(proof) = <[u8; 32]>::try_from(proof) else { return false };
        let client_key = xor(proof, self.mask(challenge, database_id));
        // `blake3::Hash` compares in constant time.
        blake3::hash(&client_key) == blake3::Hash::from_bytes(self.0)
    }
}

fn xor(mut a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    for (a, b) in a.iter_mut().zip(b) {
        *a ^= b;
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_fits_its_challenge_database_and_token_only() {
        let token = Token::from_random(&[7; 32]);
        let stored = token.stored_key();
        let proof = token.prove(b"nonce", &[1; 16]);
        assert!(stored.accepts(&proof, b"nonce", &[1; 16]));
        assert!(!stored.accepts(&proof, b"other", &[1; 16]));
        assert!(!stored.accepts(&proof, b"nonce", &[2; 16]));
        assert!(!stored.accepts(&proof[..31], b"nonce", &[1; 16]));
        assert!(!Token::from_random(&[8; 32]).stored_key().accepts(&proof, b"nonce", &[1; 16]));
    }

    #[test]
    fn what_is_stored_logs_nobody_in() {
        let token = Token::from_random(&[7; 32]);
        let stored = token.stored_key();
        assert!(!stored.accepts(&stored.0, b"nonce", &[1; 16]));
        assert!(!stored.accepts(&xor(stored.0, stored.mask(b"nonce", &[1; 16])), b"nonce", &[1; 16]));
    }

    #[test]
    fn a_token_survives_pasting_and_is_never_printed() {
        let token = Token::from_random(&[0xab; 32]);
        let pasted = Token::parse(&format!("  {}\n", token.reveal())).expect("a token");
        assert_eq!(pasted.stored_key(), token.stored_key());
        assert!(!format!("{token:?}").contains("abab"));
        assert!(Token::parse("plimsoll_abc").is_none());
        assert!(Token::parse("secret").is_none());
    }
}
