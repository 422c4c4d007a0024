//! Two-way sync: both sides of a table may change, and revisions decide.

mod decide;
mod merge;

pub use decide::{Case, Decision, Policy, RowState, Rules, Verdict, decide};
pub use merge::{Changed, Merging};
