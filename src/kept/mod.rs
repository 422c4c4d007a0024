//! Kept manifests: fingerprints of each replica's rows, kept as the rows change, so that nobody scans to learn
//! what a replica holds.
//!
//! ```text
//! statement -> trigger -> kept_delta    what the statement changed, in the same transaction; never updated
//! fold      -> kept_block, kept_head    under the replica's lock: deltas added to disjoint ranges
//! reader    =  head + blocks + deltas   in one snapshot
//! ```
//! | file | what lives there |
//! |---|---|
//! | `definition` | what the catalogue says of a table, and whether its triggers see everything |
//! | `load`, `mapping`, `trigger`, `counting` | from the rows of a statement to one row of changes |
//! | `truncate` | tables that are emptied at once |
//! | `distrust` | what no trigger on a table sees, told by triggers of events |
//! | `read` | what a replica holds: its root, its nodes |
//! | `fold`, `rebuild` | changes added to blocks; blocks made out of rows |
//! | `install` | triggers made and dropped |
//! | `report` | the functions for agents and people |
//!
//! What triggers do not see makes a replica **untrusted**, never silently wrong: answers come from scans then,
//! until it is rebuilt.

mod counting;
mod definition;
mod distrust;
mod fold;
mod install;
mod load;
mod mapping;
mod read;
mod rebuild;
mod report;
mod trigger;
mod truncate;

pub use counting::{Counted, Counting};
pub use fold::{Due, fold_if_due};
pub use install::{drop_data, drop_triggers, forget, set_kept, wait_for_writers};
pub use mapping::{mapping, tell_databases_changed, tell_registrations_changed};
pub use read::{Root, State, mark, nodes, root, rows_at_least, state};
pub use rebuild::rebuild_if_empty;
pub use trigger::witness;
