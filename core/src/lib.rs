//! The rules of Plimsoll, free of I/O: bytes and values in, decisions out.
//!
//! | room | what lives there |
//! |---|---|
//! | [`value`] | column types, and values as Postgres would store them |
//! | [`schema`] | the columns of a managed table, with their stable numbers |
//! | [`row`] | row encoding version 1: encode, decode, digest form, batches |
//! | [`direction`] | which side of a table is right, and which ways are allowed |
//! | [`digest`] | row digests, keyed per database |
//! | [`fingerprint`] | count and sum of row digests |
//! | [`dyadic`], [`leaves`] | ranges of the position axis whose boundaries nest; made out of rows |
//! | [`blocks`] | kept manifests: blocks, and changes not yet added to them |
//! | [`manifest`], [`short`] | row manifests as they travel |
//! | [`ranges`] | what ranges hold, as it travels, and how a range is divided |
//! | [`sketch`] | coded symbols, from which the difference of two sets of rows is found |
//! | [`reconcile`] | finds the rows in which two sides differ |
//! | [`store`] | the traits through which the algorithm reaches data |
//! | [`sync`] | the sync algorithm |
//! | [`two_way`] | two-way sync: both sides may change |
//! | [`batch`] | how large the next batch is |
//! | [`token`] | login: what the token proves, what the server keeps of it |

pub mod batch;
pub mod blocks;
pub mod digest;
pub mod direction;
pub mod dyadic;
mod error;
pub mod fingerprint;
pub mod guard;
pub mod leaves;
pub mod manifest;
mod passes;
pub mod ranges;
pub mod reconcile;
pub mod row;
pub mod schema;
pub mod short;
pub mod sketch;
pub mod sqlstate;
pub mod store;
pub mod sync;
pub mod token;
pub mod two_way;
pub mod value;

pub use error::{Error, ErrorKind, Result};

/// The version of the row encoding and of the digests made from it.
pub const ENCODING_VERSION: u8 = 1;
