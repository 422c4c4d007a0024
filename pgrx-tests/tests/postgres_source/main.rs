//! Postgres as the source, on real servers: types, keys, late commits, bad input, and the way of whole databases.

mod altered;
mod bad_input;
mod baseball;
mod changes;
mod golden;
mod local;
mod way;
mod written;
