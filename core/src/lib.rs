//! The rules of Plimsoll, free of I/O: bytes and values in, decisions out.
//!
//! | room | what lives there |
//! |---|---|
//! | [`value`] | column types, and values as Postgres would store them |
//! | [`schema`] | the columns of a managed table, with their stable numbers |
//! | [`row`] | row encoding version 1: encode, decode, digest form, batches |
//! | [`digest`] | row digests, keyed per database |
//! | [`fingerprint`] | count and sum of row digests |
//! | [`dyadic`], [`leaves`] | ranges of the position axis whose boundaries nest; made out of rows |
//! | [`dyadic`] | ranges of the position axis whose boundaries nest |
//! | [`blocks`] | kept manifests: blocks, and changes not yet added to them |
//! | [`manifest`] | row manifests as they travel |
//! | [`store`] | the traits through which the algorithm reaches data |
//! | [`sync`] | the sync algorithm |
//! | [`batch`] | how large the next batch is |
//! | [`token`] | login: what the token proves, what the server keeps of it |

pub mod batch;
pub mod blocks;
pub mod digest;
pub mod dyadic;
mod error;
pub mod fingerprint;
pub mod leaves;
pub mod manifest;
pub mod row;
pub mod schema;
pub mod store;
pub mod sync;
pub mod token;
pub mod value;

pub use error::{Error, ErrorKind, Result};

/// The version of the row encoding and of the digests made from it.
pub const ENCODING_VERSION: u8 = 1;
