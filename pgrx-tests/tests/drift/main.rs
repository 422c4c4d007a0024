//! Tables that are altered, on either side, between runs and during one: what is sent again, what a person is told,
//! and that other tables go on. And columns that are mapped.

mod local;
mod mapping;
mod server;
mod shop;
