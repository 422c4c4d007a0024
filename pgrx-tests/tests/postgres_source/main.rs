//! Postgres as the source, on real servers: types, keys, late commits, bad input, and the way of whole databases.

mod golden;
mod local;
