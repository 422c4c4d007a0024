//! Tables that both sides change, end to end.

mod accidents;
mod applications;
mod clocks;
mod example;
mod histories;
mod kinds;
mod ledger;
mod pair;
mod references;
mod refused;
mod rules;
mod together;
