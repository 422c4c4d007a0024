//! `plimsoll`: keeps the replicas of one local database level with it, and proves it. The command is thin; all of
//! it is here.
//!
//! | room | what lives there |
//! |---|---|
//! | `command`, `cli`, `config` | what the user says |
//! | `init`, `schema_sql`, `discover` | help to begin: the configuration, the managed tables' SQL |
//! | `agent` | runs and comparisons |
//! | `source` | the local side |
//! | `server` | the remote side |
//! | `target` | the local side where it is written to |
//! | `two_way` | the local side of tables that both sides may change |
//! | `names` | names of Postgres' tables |
//! | `state`, `stop` | what is remembered between runs, and the wish to end |
//! | `fault` | where tests end the process |
//! | `progress`, `report` | what the user sees |

/// Prints a line on standard output. Who closed it does not want it: that is no reason to end.
macro_rules! outln {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The same on standard error.
macro_rules! errln {
    ($($text:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod agent;
mod cli;
mod command;
pub mod config;
mod conflicts;
mod discover;
mod failure;
mod fault;
mod init;
mod names;
mod progress;
mod report;
mod schema_sql;
pub mod server;
pub mod source;
mod state;
mod stop;
mod target;
pub mod two_way;

pub use agent::{LocalScan, scan};
pub use command::main;
