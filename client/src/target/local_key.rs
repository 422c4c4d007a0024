//! Keys of rows that no encoding holds, among encoded keys: the server has no row with such a key.

use plimsoll_core::store::SourceKey;

/// No encoded key begins so: columns are numbered from 1.
const MARK: u8 = 0;
const RAW: u8 = 1;
const LONG: u8 = 2;

/// Whether this is such a key.
pub fn is_one(key: &[u8]) -> bool {
    key.first() == Some(&MARK)
}

/// A key as it stands among encoded ones.
pub fn put(key: &SourceKey) -> Vec<u8> {
    match key {
        SourceKey::Encoded(key) => key.clone(),
        SourceKey::Raw(raw) => [&[MARK, RAW], raw.as_slice()].concat(),
        SourceKey::Long(id) => [&[MARK, LONG], id.as_slice()].concat(),
    }
}

/// The key that [`put`] was given.
pub fn take(key: &[u8]) -> SourceKey {
    match key {
        [MARK, RAW, raw @ ..] => SourceKey::Raw(raw.to_vec()),
        [MARK, LONG, id @ ..] if id.len() == 16 => {
            let mut long = [0; 16];
            long.copy_from_slice(id);
            SourceKey::Long(long)
        }
        key => SourceKey::Encoded(key.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        for key in [
            SourceKey::Encoded(vec![1, 2, 3]),
            SourceKey::Encoded(Vec::new()),
            SourceKey::Raw(vec![1, 2]),
            SourceKey::Raw(Vec::new()),
            SourceKey::Long([7; 16]),
        ] {
            let put = put(&key);
            assert_eq!(take(&put), key);
            assert_eq!(is_one(&put), !matches!(key, SourceKey::Encoded(_)));
        }
    }
}
