//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

/// Keeps the replicas of a local database level with it, and proves it.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// The configuration file.
    #[arg(
        long,
        global = true,
        env = "PLIMSOLL_CONFIG",
        default_value = "plimsoll.toml",
        value_name = "PATH"
    )]
    pub config: PathBuf,
    /// No progress on standard error.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

const EXIT_CODES: &str = "Exit codes:
  0  done (sync: also with rejected rows, which are named; verify: level)
  1  sync: a table failed, differs or is on hold; verify: not level
  2  it could not be done at all (verify: could not tell)

PLIMSOLL_LOG sets what is logged (error, warn, info, debug).";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a configuration for a local database.
    Init(InitArgs),
    /// Print the SQL that makes the managed tables for the local ones.
    Schema(SchemaArgs),
    /// Make one run.
    Sync(SyncArgs),
    /// Make runs until stopped.
    Run(RunArgs),
    /// Compare all rows of both sides, changing nothing.
    Verify(VerifyArgs),
    /// Show the state of the replicas.
    Status(StatusArgs),
    /// Show and decide what both sides of two-way tables have differently.
    Conflicts(ConflictsArgs),
}

/// `plimsoll init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The local database: a SQLite file, postgres://user@host/database or mysql://user@host/database.
    #[arg(long, value_name = "PATH|URL")]
    pub source: PathBuf,
    /// The server: postgres://user@host/database?sslmode=verify-full, or a key=value list.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// The database as plimsoll.register_database answered it.
    #[arg(long, value_name = "UUID")]
    pub database_id: Uuid,
    /// Where to keep the token; it is read from PLIMSOLL_TOKEN or asked for.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// No token: the login role itself was granted the database.
    #[arg(long, conflicts_with = "token_file")]
    pub no_token: bool,
    /// The Postgres schema of the managed tables.
    #[arg(long, default_value = "public", value_name = "NAME")]
    pub schema: String,
    /// The name of the version columns, where it is none of the usual ones.
    #[arg(long, value_name = "NAME")]
    pub version_column: Option<String>,
    /// Write over a configuration that is there.
    #[arg(long)]
    pub force: bool,
}

/// `plimsoll schema`
#[derive(Debug, Clone, Args)]
pub struct SchemaArgs {
    /// The local tables; those of the configuration, else all, where none is named.
    #[arg(long = "table", value_name = "NAME")]
    pub tables: Vec<String>,
    /// The local database, where there is no configuration: a SQLite file or a url.
    #[arg(long, value_name = "PATH|URL")]
    pub source: Option<PathBuf>,
    /// The role that shall own the tables.
    #[arg(long, value_name = "ROLE")]
    pub owner: Option<String>,
    /// The Postgres schema of the tables that the configuration does not name.
    #[arg(long, default_value = "public", value_name = "NAME")]
    pub schema: String,
    /// The name of the version columns, where it is none of the usual ones.
    #[arg(long, value_name = "NAME")]
    pub version_column: Option<String>,
}

/// `plimsoll sync`
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// Only this table; may be given several times.
    #[arg(long = "table", value_name = "NAME")]
    pub tables: Vec<String>,
    /// Say what would be sent and deleted; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Approve the deletes that replicas on hold planned.
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// Let this local database take the place of another one that replicas are kept level with, where the administrator
    /// permits it.
    #[arg(long)]
    pub take_over: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `plimsoll run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// From the start of a run to the start of the next: 60s, 5m, 1h.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub every: Duration,
    /// Only this table; may be given several times.
    #[arg(long = "table", value_name = "NAME")]
    pub tables: Vec<String>,
    /// Approve, once, the deletes that replicas on hold planned.
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// Print JSON, one line per run.
    #[arg(long)]
    pub json: bool,
}

/// `plimsoll verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this table; may be given several times.
    #[arg(long = "table", value_name = "NAME")]
    pub tables: Vec<String>,
    /// Read every row of the source, whatever manifests the local database keeps of its tables.
    #[arg(long)]
    pub read_rows: bool,
    /// How many differences of each table are listed.
    #[arg(long, default_value_t = 20, value_name = "ROWS")]
    pub limit: usize,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `plimsoll status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `plimsoll conflicts`
#[derive(Debug, Args)]
pub struct ConflictsArgs {
    /// What to do; `list` where nothing is said.
    #[command(subcommand)]
    pub command: Option<ConflictsCommand>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// What `plimsoll conflicts` does.
#[derive(Debug, Subcommand)]
pub enum ConflictsCommand {
    /// One line a conflict.
    List {
        /// Closed ones too.
        #[arg(long)]
        all: bool,
    },
    /// Both rows of one, column by column.
    Show {
        /// Its number.
        #[arg(value_name = "ID")]
        id: i64,
    },
    /// Decide one; the next run carries it out.
    Resolve {
        /// Its number.
        #[arg(value_name = "ID")]
        id: i64,
        /// Whose row, or absence of one, is kept.
        #[arg(long, value_enum, required_unless_present = "row", conflicts_with = "row")]
        keep: Option<Keep>,
        /// A file with the row that both sides shall have: a JSON object with every column, as `show --json` prints them.
        #[arg(long, value_name = "FILE")]
        row: Option<PathBuf>,
    },
}

/// A side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// The local database's.
    Local,
    /// The server's.
    Remote,
}

impl Command {
    /// Whether results are JSON.
    pub fn json(&self) -> bool {
        match self {
            Command::Init(_) | Command::Schema(_) => false,
            Command::Sync(arguments) => arguments.json,
            Command::Run(arguments) => arguments.json,
            Command::Verify(arguments) => arguments.json,
            Command::Status(arguments) => arguments.json,
            Command::Conflicts(arguments) => arguments.json,
        }
    }
}
