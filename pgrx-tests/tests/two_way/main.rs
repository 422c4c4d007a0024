//! Tables that both sides change, end to end.

mod accidents;
mod example;
mod histories;
mod kinds;
mod pair;
mod rules;
