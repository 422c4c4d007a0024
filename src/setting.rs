//! Options of a database: their names, bounds and defaults. Only what differs from the default is kept.

use plimsoll_core::ranges::MOST_RANGES;
use plimsoll_core::row::MAX_BATCH_ROWS;
use plimsoll_core::sketch::MOST_SYMBOLS;
use serde_json::{Map, Value};

use crate::access::Database;
use crate::error::{Answer, Problem, state};

enum Kind {
    /// A whole number within bounds.
    Whole(i64, i64),
    /// A share above 0, up to 1.
    Share,
    /// `true` or `false`.
    Flag,
}

/// Name and kind of each option. What they mean is said where they are used, and in the docs.
const OPTIONS: [(&str, Kind); 11] = [
    ("guard_fraction", Kind::Share),
    ("lease_seconds", Kind::Whole(5, 3600)),
    ("history_days", Kind::Whole(1, 3650)),
    ("fall_free_rows", Kind::Whole(0, i64::MAX)),
    ("allow_agent_release", Kind::Flag),
    ("allow_take_over", Kind::Flag),
    ("max_upload_bytes", Kind::Whole(1 << 16, 1 << 28)),
    ("max_upload_rows", Kind::Whole(1_000, MAX_BATCH_ROWS as i64)),
    ("max_answer_rows", Kind::Whole(1_000, 1_000_000_000)),
    ("max_ranges", Kind::Whole(16, MOST_RANGES as i64)),
    ("max_symbols", Kind::Whole(64, MOST_SYMBOLS as i64)),
];

/// Seconds until a lease that is not renewed expires.
pub fn lease_seconds(database: &Database) -> f64 {
    database.number_option("lease_seconds").unwrap_or(60.0)
}

/// Days for which runs and batches are kept.
pub fn history_days(database: &Database) -> f64 {
    database.number_option("history_days").unwrap_or(30.0)
}

/// Rows beyond the local maxima up to which several tables may fall back without a hold.
pub fn fall_free_rows(database: &Database) -> f64 {
    database.number_option("fall_free_rows").unwrap_or(20.0)
}

fn most(database: &Database, option: &str, default: usize) -> usize {
    database.number_option(option).map_or(default, |number| number as usize)
}

/// Ranges that one call may name or be answered.
pub fn max_ranges(database: &Database) -> usize {
    most(database, "max_ranges", 16_384)
}

/// Bytes of an upload, or of any other argument that a call carries.
pub fn max_upload_bytes(database: &Database) -> usize {
    most(database, "max_upload_bytes", 64 << 20)
}

/// Acts of a batch, in however many parts it comes.
pub const MOST_ACTS: i32 = MAX_BATCH_ROWS as i32;

/// Rows of an upload.
pub fn max_upload_rows(database: &Database) -> usize {
    most(database, "max_upload_rows", 100_000)
}

/// Rows that one call answers.
pub fn max_answer_rows(database: &Database) -> usize {
    most(database, "max_answer_rows", 1_000_000)
}

/// Symbols of one sketch, from the first on.
pub fn max_symbols(database: &Database) -> usize {
    most(database, "max_symbols", MOST_SYMBOLS as usize)
}

/// What a caller is told who asks for more than one call may carry.
fn beyond(what: String, limit: usize, option: &str) -> Problem {
    Problem::new(state::TOO_LARGE, format!("{what}; {limit} are allowed in one call"))
        .hint(format!("Make several calls, or have an admin raise the option {option} of this database."))
}

/// Makes sure that an argument is not too long.
pub fn check_bytes<'a>(database: &Database, argument: &'a [u8], name: &str) -> Answer<&'a [u8]> {
    let limit = max_upload_bytes(database);
    if argument.len() > limit {
        return Err(beyond(format!("{name} has {} bytes", argument.len()), limit, "max_upload_bytes"));
    }
    Ok(argument)
}

/// Makes sure that an upload has not too many rows.
pub fn check_upload_rows(database: &Database, rows: usize) -> Answer<()> {
    let limit = max_upload_rows(database);
    if rows > limit { Err(beyond(format!("{rows} rows"), limit, "max_upload_rows")) } else { Ok(()) }
}

/// Makes sure that an answer does not have too many rows.
pub fn check_answer_rows(database: &Database, rows: u64, table: &str) -> Answer<()> {
    let limit = max_answer_rows(database);
    if rows > limit as u64 {
        return Err(beyond(
            format!("there are {rows} rows or more of {table} to be answered"),
            limit,
            "max_answer_rows",
        ));
    }
    Ok(())
}

/// Makes sure that a sketch does not have too many symbols.
pub fn check_symbols(database: &Database, first: u32, symbols: u32) -> Answer<()> {
    let (end, limit) = (u64::from(first) + u64::from(symbols), max_symbols(database));
    if end > limit as u64 {
        return Err(beyond(format!("a sketch of {end} symbols"), limit, "max_symbols"));
    }
    Ok(())
}

/// A number of rows that a caller wants at most.
pub fn row_limit(database: &Database, row_limit: i32) -> Answer<usize> {
    let limit = max_answer_rows(database);
    usize::try_from(row_limit).ok().filter(|rows| (1..=limit).contains(rows)).ok_or_else(|| {
        Problem::new(state::BAD_ARGUMENT, format!("row_limit {row_limit} is not between 1 and {limit}"))
            .hint("An admin sets the upper bound with the option max_answer_rows of this database.")
    })
}

/// How many rows an answer may have that may be cut: as many as are asked for, where an answer may have so many.
pub fn rows_at_most(database: &Database, row_limit: i32) -> Answer<usize> {
    let limit = max_answer_rows(database);
    match usize::try_from(row_limit) {
        Ok(rows) if rows > limit => Ok(limit),
        _ => self::row_limit(database, row_limit),
    }
}

/// Whether the database's agents may release holds themselves.
pub fn allow_agent_release(database: &Database) -> bool {
    database.settings.get("allow_agent_release").and_then(Value::as_bool).unwrap_or(false)
}

/// Whether the database's agents may put another local database in the place of the one that is known.
pub fn allow_take_over(database: &Database) -> bool {
    database.settings.get("allow_take_over").and_then(Value::as_bool).unwrap_or(false)
}

/// The settings with one option set, or with `None` back at its default.
pub fn changed(settings: &Value, option: &str, value: Option<&str>) -> Answer<Value> {
    let (_, kind) = OPTIONS.iter().find(|(name, _)| *name == option).ok_or_else(|| {
        let names = OPTIONS.map(|(name, _)| name).join(", ");
        Problem::new(state::BAD_ARGUMENT, format!("there is no option \"{option}\""))
            .hint(format!("The options are {names}."))
    })?;
    let mut settings = settings.as_object().cloned().unwrap_or_else(Map::new);
    match value {
        Some(text) => settings.insert(option.to_owned(), parse(kind, option, text.trim())?),
        None => settings.remove(option),
    };
    Ok(Value::Object(settings))
}

fn parse(kind: &Kind, option: &str, text: &str) -> Answer<Value> {
    let (value, wanted) = match kind {
        Kind::Whole(least, most) => {
            let number = text.parse::<i64>().ok().filter(|number| (least..=most).contains(&number));
            (number.map(Value::from), format!("a whole number from {least} to {most}"))
        }
        Kind::Share => {
            let number = text.parse::<f64>().ok().filter(|number| *number > 0.0 && *number <= 1.0);
            (number.map(Value::from), "a number above 0, up to 1".to_owned())
        }
        Kind::Flag => {
            let flag = match text {
                "true" | "on" | "yes" => Some(true),
                "false" | "off" | "no" => Some(false),
                _ => None,
            };
            (flag.map(Value::from), "true or false".to_owned())
        }
    };
    value.ok_or_else(|| Problem::new(state::BAD_ARGUMENT, format!("option \"{option}\" takes {wanted}")))
}
