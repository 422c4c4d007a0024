//! `cargo xtask demo`

mod shop;
mod words;
