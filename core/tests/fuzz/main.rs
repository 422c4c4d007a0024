//! What bytes from outside could do to the decoders: inputs that are mutated at random, from a corpus that is kept
//! beside this file and from the golden encodings.
//!
//! ```text
//! cargo test -p plimsoll-core --test fuzz                                   about 20 seconds in all
//! PLIMSOLL_FUZZ_SECONDS=600 cargo test -p plimsoll-core --test fuzz rows    so many seconds for each target
//! PLIMSOLL_FUZZ_INPUT=hex cargo test -p plimsoll-core --test fuzz rows      one input again
//! PLIMSOLL_FUZZ_SEED=number ...                                             the same inputs again
//! PLIMSOLL_FUZZ_KEEP=1 ...                                                  writes what was new to the corpus
//! ```
//! Of every input: nothing panics; memory is bounded by its length; it takes no longer than a moment; and what is
//! accepted is written back as the same bytes.

#[path = "../golden/corpus.rs"]
mod golden;
mod mutate;
mod runner;
mod seeds;
mod targets;

use runner::fuzz;

#[test]
fn rows() {
    fuzz("rows", seeds::rows(), mutate::row, targets::row);
}

#[test]
fn uploads() {
    fuzz("uploads", seeds::uploads(), mutate::upload, targets::upload);
}

#[test]
fn rows_of_a_table() {
    fuzz("rows_of_a_table", seeds::rows(), mutate::row, targets::examined_row);
}

#[test]
fn json() {
    fuzz("json", seeds::json(), mutate::bytes, targets::json);
}

#[test]
fn texts() {
    fuzz("texts", seeds::texts(), mutate::bytes, targets::text);
}

#[test]
fn sketches() {
    fuzz("sketches", seeds::sketches(), mutate::bytes, targets::sketch);
}

#[test]
fn ranges() {
    fuzz("ranges", seeds::ranges(), mutate::bytes, targets::ranges);
}

#[test]
fn summaries() {
    fuzz("summaries", seeds::summaries(), mutate::bytes, targets::summaries);
}

#[test]
fn short_items() {
    fuzz("short_items", seeds::short_items(), mutate::bytes, targets::short_items);
}

#[test]
fn manifests() {
    fuzz("manifests", seeds::manifests(), mutate::bytes, targets::manifest);
}

#[test]
fn acts() {
    fuzz("acts", seeds::acts(), mutate::bytes, targets::acts);
}

#[test]
fn outcomes() {
    fuzz("outcomes", seeds::outcomes(), mutate::bytes, targets::outcomes);
}

#[test]
fn wishes() {
    fuzz("wishes", seeds::wishes(), mutate::bytes, targets::wishes);
}

#[test]
fn block_entries() {
    fuzz("block_entries", seeds::entries(), mutate::bytes, targets::entries);
}
