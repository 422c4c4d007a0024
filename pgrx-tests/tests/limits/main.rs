//! What one call may take and hold: limits that are settings, memory, and how soon a call can be cancelled.

#[path = "../shop/mod.rs"]
mod shop;

mod cancelled;
mod memory;
mod settings;
mod stock;
mod sweep;
