//! The golden corpus against a real server: what plain SQL stored is handed out with the corpus' bytes and
//! digests, and the same bytes uploaded store what plain SQL stored.

mod bench;
#[path = "../../../core/tests/golden/corpus.rs"]
mod corpus;
mod refused;
mod travels;
