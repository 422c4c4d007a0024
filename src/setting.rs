//! Options of a database: their names, bounds and defaults. Only what differs from the default is kept.

use plimsoll_core::ranges::MOST_RANGES;
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
const OPTIONS: [(&str, Kind); 7] = [
    ("guard_fraction", Kind::Share),
    ("lease_seconds", Kind::Whole(5, 3600)),
    ("history_days", Kind::Whole(1, 3650)),
    ("fall_free_rows", Kind::Whole(0, i64::MAX)),
    ("allow_agent_release", Kind::Flag),
    ("max_upload_bytes", Kind::Whole(1 << 16, 1 << 28)),
    ("max_ranges", Kind::Whole(16, MOST_RANGES as i64)),
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

/// Ranges that one call may name or be answered.
pub fn max_ranges(database: &Database) -> usize {
    database.number_option("max_ranges").map_or(16_384, |number| number as usize)
}

/// Whether the database's agents may release holds themselves.
pub fn allow_agent_release(database: &Database) -> bool {
    database.settings.get("allow_agent_release").and_then(Value::as_bool).unwrap_or(false)
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
