//! Two-way sync over a model of both sides: rules one by one, and random histories.

mod histories;
mod model;
mod rules;
