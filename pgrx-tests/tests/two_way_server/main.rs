//! The remote side of two-way tables, on a real server: each promise that the algorithm relies on.

#[path = "../shop/mod.rs"]
mod shop;

mod batches;
mod command;
mod conflicts;
mod cost;
mod meanwhile;
mod random;
mod referred;
mod stamps;
mod till;
