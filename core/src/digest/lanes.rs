//! BLAKE3 of eight short inputs side by side, one in each lane of a vector register.
//!
//! A single input of a few hundred bytes leaves a processor waiting for itself: each step needs the one before.
//! BLAKE3's own code works side by side within long inputs only. The compression function is that of the BLAKE3
//! paper (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020), section 2.2, for inputs of one chunk.

/// How many inputs are hashed side by side.
pub const LANES: usize = 8;

/// The longest input that is hashed here: one chunk.
pub const MAX_LENGTH: usize = 1024;

/// The keyed BLAKE3 hash of each input, where this processor can do that side by side. None of them may be
/// longer than [`MAX_LENGTH`].
#[cfg(target_arch = "x86_64")]
pub fn keyed_hashes(key: &[u8; 32], inputs: &[&[u8]; LANES]) -> Option<[[u8; 32]; LANES]> {
    if !is_x86_feature_detected!("avx2") || inputs.iter().any(|input| input.len() > MAX_LENGTH) {
        return None;
    }
    // SAFETY: the processor has AVX2, as was just made sure of.
    Some(unsafe { avx2::keyed_hashes(key, inputs) })
}

/// The keyed BLAKE3 hash of each input, where this processor can do that side by side: not this one.
#[cfg(not(target_arch = "x86_64"))]
pub fn keyed_hashes(_: &[u8; 32], _: &[&[u8]; LANES]) -> Option<[[u8; 32]; LANES]> {
    None
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_epi32, _mm256_blendv_epi8, _mm256_extract_epi64, _mm256_or_si256,
        _mm256_permute2x128_si256, _mm256_set_epi8, _mm256_set_epi32, _mm256_set_epi64x, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32,
        _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
        _mm256_xor_si256,
    };
    use std::array::from_fn;

    use super::LANES;

    const BLOCK: usize = 64;
    const IV: [u32; 4] = [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a];
    const CHUNK_START: i32 = 1;
    const CHUNK_END: i32 = 2;
    const ROOT: i32 = 8;
    const KEYED_HASH: i32 = 16;
    const ROUNDS: usize = 7;

    /// Which word of the message each round takes where.
    const SCHEDULE: [[usize; 16]; ROUNDS] = {
        let permutation = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8];
        let mut schedule = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]; ROUNDS];
        let mut round = 1;
        while round < ROUNDS {
            let mut i = 0;
            while i < 16 {
                schedule[round][i] = schedule[round - 1][permutation[i]];
                i += 1;
            }
            round += 1;
        }
        schedule
    };

    #[target_feature(enable = "avx2")]
    pub(super) fn keyed_hashes(key: &[u8; 32], inputs: &[&[u8]; LANES]) -> [[u8; 32]; LANES] {
        let counts: [usize; LANES] = from_fn(|lane| inputs[lane].len().div_ceil(BLOCK).max(1));
        let (least, most) =
            counts.iter().fold((usize::MAX, 0), |(l, m), count| (l.min(*count), m.max(*count)));
        let words = key.as_chunks::<4>().0;
        let mut chain: [__m256i; 8] = from_fn(|i| _mm256_set1_epi32(i32::from_le_bytes(words[i])));
        for block in 0..most {
            let (mut low, mut high) = ([_mm256_setzero_si256(); LANES], [_mm256_setzero_si256(); LANES]);
            let (mut lengths, mut flags, mut active) = ([0; LANES], [0; LANES], [0; LANES]);
            for lane in 0..LANES {
                if block >= counts[lane] {
                    continue;
                }
                let rest = &inputs[lane][block * BLOCK..];
                let mut padded = [0; BLOCK];
                let bytes = match rest.first_chunk::<BLOCK>() {
                    Some(bytes) => bytes,
                    None => {
                        padded[..rest.len()].copy_from_slice(rest);
                        &padded
                    }
                };
                (low[lane], high[lane]) = (load(&bytes[..32]), load(&bytes[32..]));
                active[lane] = -1;
                lengths[lane] = rest.len().min(BLOCK) as i32;
                let first = if block == 0 { CHUNK_START } else { 0 };
                let last = if block + 1 == counts[lane] { CHUNK_END | ROOT } else { 0 };
                flags[lane] = KEYED_HASH | first | last;
            }
            let next = compress(&chain, transpose(low), transpose(high), lanes(lengths), lanes(flags));
            chain = match block < least {
                true => next,
                // Inputs that have ended keep what they had.
                false => from_fn(|i| _mm256_blendv_epi8(chain[i], next[i], lanes(active))),
            };
        }
        transpose(chain).map(|register| store(register))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn compress(
        chain: &[__m256i; 8],
        low: [__m256i; 8],
        high: [__m256i; 8],
        lengths: __m256i,
        flags: __m256i,
    ) -> [__m256i; 8] {
        let message: [__m256i; 16] = from_fn(|i| if i < 8 { low[i] } else { high[i - 8] });
        let zero = _mm256_setzero_si256();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = *chain;
        let [i0, i1, i2, i3] = IV.map(|word| _mm256_set1_epi32(word as i32));
        // The chunk's number, in two words, is 0.
        let mut s = [c0, c1, c2, c3, c4, c5, c6, c7, i0, i1, i2, i3, zero, zero, lengths, flags];
        for order in &SCHEDULE {
            let m = |i: usize| message[order[i]];
            mix(&mut s, [0, 4, 8, 12], m(0), m(1));
            mix(&mut s, [1, 5, 9, 13], m(2), m(3));
            mix(&mut s, [2, 6, 10, 14], m(4), m(5));
            mix(&mut s, [3, 7, 11, 15], m(6), m(7));
            mix(&mut s, [0, 5, 10, 15], m(8), m(9));
            mix(&mut s, [1, 6, 11, 12], m(10), m(11));
            mix(&mut s, [2, 7, 8, 13], m(12), m(13));
            mix(&mut s, [3, 4, 9, 14], m(14), m(15));
        }
        from_fn(|i| _mm256_xor_si256(s[i], s[i + 8]))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn mix(s: &mut [__m256i; 16], [a, b, c, d]: [usize; 4], x: __m256i, y: __m256i) {
        // Rotations by whole bytes are one shuffle.
        let by_16 = _mm256_set_epi8(
            13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6, 1, 0, 3, 2, 13, 12, 15, 14, 9, 8, 11, 10, 5, 4, 7, 6,
            1, 0, 3, 2,
        );
        let by_8 = _mm256_set_epi8(
            12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5, 0, 3, 2, 1, 12, 15, 14, 13, 8, 11, 10, 9, 4, 7, 6, 5,
            0, 3, 2, 1,
        );
        s[a] = _mm256_add_epi32(_mm256_add_epi32(s[a], s[b]), x);
        s[d] = _mm256_shuffle_epi8(_mm256_xor_si256(s[d], s[a]), by_16);
        s[c] = _mm256_add_epi32(s[c], s[d]);
        let turned = _mm256_xor_si256(s[b], s[c]);
        s[b] = _mm256_or_si256(_mm256_srli_epi32::<12>(turned), _mm256_slli_epi32::<20>(turned));
        s[a] = _mm256_add_epi32(_mm256_add_epi32(s[a], s[b]), y);
        s[d] = _mm256_shuffle_epi8(_mm256_xor_si256(s[d], s[a]), by_8);
        s[c] = _mm256_add_epi32(s[c], s[d]);
        let turned = _mm256_xor_si256(s[b], s[c]);
        s[b] = _mm256_or_si256(_mm256_srli_epi32::<7>(turned), _mm256_slli_epi32::<25>(turned));
    }

    /// Eight lanes of eight words to eight words of eight lanes, and back.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
        let low = |i: usize| _mm256_unpacklo_epi32(rows[i], rows[i + 1]);
        let high = |i: usize| _mm256_unpackhi_epi32(rows[i], rows[i + 1]);
        let pairs: [[__m256i; 2]; 4] = from_fn(|i| [low(2 * i), high(2 * i)]);
        let quads = |i: usize, half: usize| {
            let (one, other) = (pairs[2 * i][half], pairs[2 * i + 1][half]);
            [_mm256_unpacklo_epi64(one, other), _mm256_unpackhi_epi64(one, other)]
        };
        let ([a, b], [c, d]) = (quads(0, 0), quads(0, 1));
        let ([e, f], [g, h]) = (quads(1, 0), quads(1, 1));
        let first = |one, other| _mm256_permute2x128_si256::<0x20>(one, other);
        let second = |one, other| _mm256_permute2x128_si256::<0x31>(one, other);
        [
            first(a, e),
            first(b, f),
            first(c, g),
            first(d, h),
            second(a, e),
            second(b, f),
            second(c, g),
            second(d, h),
        ]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn lanes([a, b, c, d, e, f, g, h]: [i32; LANES]) -> __m256i {
        _mm256_set_epi32(h, g, f, e, d, c, b, a)
    }

    /// 32 bytes to a register.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8]) -> __m256i {
        let words = bytes.as_chunks::<8>().0;
        let at = |i: usize| i64::from_le_bytes(words[i]);
        _mm256_set_epi64x(at(3), at(2), at(1), at(0))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn store(register: __m256i) -> [u8; 32] {
        let words = [
            _mm256_extract_epi64::<0>(register),
            _mm256_extract_epi64::<1>(register),
            _mm256_extract_epi64::<2>(register),
            _mm256_extract_epi64::<3>(register),
        ];
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(key: &[u8; 32], inputs: &[&[u8]; LANES]) -> [[u8; 32]; LANES] {
        inputs.map(|input| *blake3::keyed_hash(key, input).as_bytes())
    }

    #[test]
    fn lengths_around_every_block_have_the_hash_that_blake3_gives_them() {
        let bytes: Vec<u8> = (0..MAX_LENGTH + 1).map(|i| (i * 31 % 251) as u8).collect();
        for start in 0..=MAX_LENGTH {
            // Lengths that differ in each way, and equal ones.
            for step in [0, 63, 129] {
                let inputs: [&[u8]; LANES] =
                    std::array::from_fn(|lane| &bytes[..(start + lane * step) % (MAX_LENGTH + 1)]);
                if let Some(found) = keyed_hashes(&[9; 32], &inputs) {
                    assert_eq!(found, one_by_one(&[9; 32], &inputs), "{start} {step}");
                }
            }
        }
        assert_eq!(keyed_hashes(&[9; 32], &[&bytes[..]; LANES]), None, "two chunks");
    }

    proptest! {
        #[test]
        fn any_bytes_have_the_hash_that_blake3_gives_them(
            key: [u8; 32],
            inputs in prop::array::uniform8(prop::collection::vec(any::<u8>(), 0..MAX_LENGTH)),
        ) {
            let inputs: [&[u8]; LANES] = std::array::from_fn(|lane| &inputs[lane][..]);
            if let Some(found) = keyed_hashes(&key, &inputs) {
                prop_assert_eq!(found, one_by_one(&key, &inputs));
            }
        }
    }
}
