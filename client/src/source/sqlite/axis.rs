//! Where rows stand: the version column as an axis of positions, and how statements compare on it.
//!
//! Whole numbers are their own positions. For timestamps SQLite compares text, which is the order of
//! positions only while all texts are spelled alike: the spellings in use are looked at, and where they
//! are mixed statements call a function that computes the position (right, but without an index).

use plimsoll_core::schema::{least_version_bytes, position_of};
use plimsoll_core::value::datetime::{format_timestamp, parse_timestamp};
use plimsoll_core::value::{ColumnType, Value, datetime};
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value as Owned, ValueRef};
use rusqlite::{Connection, Result};

use super::convert::whole_number;
use super::schema::quoted;

/// What kind of version the managed table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionKind {
    /// A whole number.
    Number,
    /// A timestamp, ISO text in SQLite.
    Stamp,
    /// Bytes that count up.
    Bytes,
}

impl VersionKind {
    /// The kind of versions of this type.
    pub fn of(column_type: &ColumnType) -> Self {
        match column_type {
            ColumnType::Timestamp(_) | ColumnType::Timestamptz(_) => VersionKind::Stamp,
            ColumnType::Bytea => VersionKind::Bytes,
            _ => VersionKind::Number,
        }
    }

    /// The position of a row with this version; `None` where the value is no version.
    pub fn position(self, raw: ValueRef<'_>) -> Option<i64> {
        match (self, raw) {
            (VersionKind::Number, raw) => whole_number(raw),
            (VersionKind::Stamp, ValueRef::Text(bytes)) => {
                parse_timestamp(std::str::from_utf8(bytes).ok()?).ok().map(|(position, _)| position)
            }
            (VersionKind::Bytes, ValueRef::Blob(bytes)) => position_of(&Value::Bytea(bytes)),
            (VersionKind::Stamp | VersionKind::Bytes, _) => None,
        }
    }
}

/// How statements compare versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// The column holds numbers.
    Number,
    /// The column holds bytes.
    Bytes,
    /// The column holds timestamps without a zone; the character between date and time.
    Local(char),
    /// Every timestamp has this very form.
    Zoned {
        /// The character between date and time.
        separator: char,
        /// Whether seconds are written.
        seconds: bool,
        /// Digits of a second.
        digits: usize,
        /// The zone as written.
        zone: String,
    },
    /// Spellings are mixed: positions are computed row by row.
    Computed,
}

/// A function for statements: the position of a stamp, NULL where it is none.
const POSITION: &str = "plimsoll_position";
/// A function for statements: how a stamp is spelled, NULL where it is none.
const SPELLING: &str = "plimsoll_spelling";

/// Makes the functions that statements on timestamps use.
pub fn add_functions(connection: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(POSITION, 1, flags, |context| {
        Ok(VersionKind::Stamp.position(context.get_raw(0)))
    })?;
    connection.create_scalar_function(SPELLING, 1, flags, |context| {
        let raw = context.get_raw(0);
        let stamp = VersionKind::Stamp.position(raw).is_some();
        Ok(raw.as_str().ok().filter(|_| stamp).map(spelling))
    })
}

/// How a stamp is spelled: nothing for the infinities, `!` for years and hours (24:00) whose text does not
/// sort, `d` for a date alone, else separator and, with a zone, seconds written or not, their digits, zone.
fn spelling(text: &str) -> String {
    if text.ends_with("infinity") {
        return String::new();
    }
    if text.ends_with("BC") || text.as_bytes().get(4) != Some(&b'-') {
        return "!".to_owned();
    }
    let Some((separator, time)) = text.get(10..).and_then(|rest| rest.split_at_checked(1)) else {
        return "d".to_owned();
    };
    if time.starts_with("24") {
        return "!".to_owned();
    }
    let (time, zone) = time.split_at(time.find(['Z', 'z', '+', '-']).unwrap_or(time.len()));
    if zone.is_empty() {
        return separator.to_owned();
    }
    let seconds = if time.len() > 5 { 's' } else { 'm' };
    let digits = time.len().saturating_sub(9);
    format!("{separator}{seconds}{digits}{zone}")
}

/// The axis of a column whose timestamps are spelled in these ways.
fn axis_of(spellings: &[String]) -> Axis {
    let used: Vec<&str> = spellings.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
    let with_time: Vec<&str> = used.iter().copied().filter(|s| *s != "d").collect();
    match with_time[..] {
        [] => Axis::Local(' '),
        [one] if one.len() == 1 && one != "!" => Axis::Local(if one == "T" { 'T' } else { ' ' }),
        [one] if one.len() > 1 && used.len() == 1 => zoned(one).unwrap_or(Axis::Computed),
        _ => Axis::Computed,
    }
}

fn zoned(spelling: &str) -> Option<Axis> {
    let at = spelling.find(['Z', 'z', '+', '-'])?;
    let (form, zone) = spelling.split_at(at);
    let mut characters = form.chars();
    let separator = characters.next()?;
    let seconds = characters.next()? == 's';
    let digits = characters.as_str().parse().ok()?;
    Some(Axis::Zoned { separator, seconds, digits, zone: zone.to_owned() })
}

/// Finds out how the versions of a table compare. Reads its version column where that holds timestamps.
/// `relation` is the table as it stands in a statement.
pub fn find_axis(connection: &Connection, relation: &str, version: &str, kind: VersionKind) -> Result<Axis> {
    match kind {
        VersionKind::Number => return Ok(Axis::Number),
        VersionKind::Bytes => return Ok(Axis::Bytes),
        VersionKind::Stamp => {}
    }
    let version = quoted(version);
    let mut statement = connection.prepare(&format!(
        "SELECT DISTINCT {SPELLING}({version}) FROM {relation} WHERE {SPELLING}({version}) IS NOT NULL"
    ))?;
    let spellings: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
    Ok(axis_of(&spellings))
}

impl Axis {
    /// What statements compare and order by.
    pub fn expression(&self, version: &str) -> String {
        match self {
            Axis::Computed => format!("{POSITION}({})", quoted(version)),
            _ => quoted(version),
        }
    }

    /// A condition that holds for rows with no position.
    pub fn misplaced(&self, version: &str) -> String {
        let column = quoted(version);
        match self {
            Axis::Number => format!(
                "typeof({column}) <> 'integer' AND NOT (typeof({column}) = 'real'
                 AND {column} >= -9223372036854775808.0 AND {column} < 9223372036854775808.0
                 AND {column} = CAST({column} AS INTEGER))"
            ),
            Axis::Bytes => format!("typeof({column}) <> 'blob'"),
            _ => format!("{POSITION}({column}) IS NULL"),
        }
    }

    /// A condition that keeps most rows with no position out, and is as cheap as a comparison of the version.
    pub fn placed(&self, version: &str) -> String {
        let expression = self.expression(version);
        match self {
            // Text and BLOBs sort above all numbers, NULL below them.
            Axis::Number => format!("{expression} <= 9223372036854775807"),
            // BLOBs sort above all else.
            Axis::Bytes => format!("{expression} >= x''"),
            _ => format!("{expression} IS NOT NULL"),
        }
    }

    /// The least value at or beyond `position`: a row stands there or beyond exactly where its
    /// expression is not below it.
    pub fn bound(&self, position: i64) -> Owned {
        match self {
            Axis::Number | Axis::Computed => Owned::Integer(position),
            Axis::Bytes => Owned::Blob(least_version_bytes(position)),
            Axis::Local(separator) => Owned::Text(local_bound(position, *separator)),
            Axis::Zoned { separator, seconds, digits, zone } => {
                Owned::Text(zoned_bound(position, *separator, *seconds, *digits, zone))
            }
        }
    }
}

/// The first and last microsecond of the years whose text sorts.
const FIRST_SORTED: i64 = -63_082_281_600_000_000;
const LAST_SORTED: i64 = 252_455_615_999_999_999;

/// A bound outside the sorted years, where one is needed.
fn outer_bound(position: i64) -> Option<String> {
    match position {
        i64::MIN => Some("-infinity".to_owned()),
        position if position > LAST_SORTED => Some("infinity".to_owned()),
        position if position <= FIRST_SORTED => Some("0".to_owned()),
        _ => None,
    }
}

/// The shortest text of a position: every longer spelling of it begins with it, so sorts behind it.
fn local_bound(position: i64, separator: char) -> String {
    if let Some(bound) = outer_bound(position) {
        return bound;
    }
    let text = format_timestamp(position);
    if let Some(date) = text.strip_suffix(" 00:00:00") {
        return date.to_owned();
    }
    let text = match text.len() {
        19 => text.strip_suffix(":00").map(str::to_owned).unwrap_or(text),
        _ => text,
    };
    text.replacen(' ', &separator.to_string(), 1)
}

fn zoned_bound(position: i64, separator: char, seconds: bool, digits: usize, zone: &str) -> String {
    if let Some(bound) = outer_bound(position) {
        return bound;
    }
    // The zone's offset, as reading a stamp with it shows.
    let offset = match parse_timestamp(&format!("2000-01-01 12:00:00{zone}")) {
        Ok((_, Some(east))) => east * 1_000_000,
        _ => 0,
    };
    let unit = match (seconds, digits) {
        (false, _) => 60_000_000,
        (true, digits) => 10i64.pow(6 - digits.min(6) as u32),
    };
    let local = position.saturating_add(offset);
    let up = local.saturating_add((-local).rem_euclid(unit));
    if let Some(bound) = outer_bound(up) {
        return bound;
    }
    let day = up.div_euclid(datetime::MICROSECONDS_PER_DAY);
    let micros = up.rem_euclid(datetime::MICROSECONDS_PER_DAY);
    let date = format_timestamp(day * datetime::MICROSECONDS_PER_DAY);
    let date = date.get(..10).unwrap_or(&date);
    let whole = micros / 1_000_000;
    let mut text = format!("{date}{separator}{:02}:{:02}", whole / 3600, whole / 60 % 60);
    if seconds {
        text.push_str(&format!(":{:02}", whole % 60));
    }
    if digits > 0 {
        let fraction = format!("{:06}{}", micros % 1_000_000, "0".repeat(digits.saturating_sub(6)));
        text.push('.');
        text.push_str(fraction.get(..digits).unwrap_or(&fraction));
    }
    text + zone
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_core::value::datetime::parse_timestamp;

    fn text(axis: &Axis, position: i64) -> String {
        match axis.bound(position) {
            Owned::Text(text) => text,
            other => panic!("{other:?}"),
        }
    }

    /// The texts in SQLite's order must be in the order of positions, and each bound must cut between
    /// them where its position does.
    fn sorts(texts: &[&str], axis: &Axis) {
        let spellings: Vec<String> = texts.iter().map(|text| spelling(text)).collect();
        let mut distinct = spellings.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(axis_of(&distinct), *axis, "{texts:?}");
        let positions: Vec<i64> = texts.iter().map(|t| parse_timestamp(t).expect(t).0).collect();
        for (i, position) in positions.iter().enumerate() {
            for near in [position.saturating_sub(1), *position, position.saturating_add(1)] {
                let bound = text(axis, near);
                for (other, text) in positions.iter().zip(texts) {
                    assert_eq!(*text >= bound.as_str(), *other >= near, "{text} against {bound} ({i})");
                }
            }
        }
    }

    #[test]
    fn bounds_cut_between_texts_where_their_positions_do() {
        let local = [
            "-infinity",
            "0001-01-01",
            "2024-02-29",
            "2024-02-29 00:00",
            "2024-02-29 00:00:00",
            "2024-02-29 00:00:00.000",
            "2024-02-29 10:20",
            "2024-02-29 10:20:30",
            "2024-02-29 10:20:30.5",
            "2024-02-29 10:20:30.500",
            "2024-02-29 10:20:30.51",
            "9999-12-31 23:59:59.999999",
            "infinity",
        ];
        sorts(&local, &Axis::Local(' '));
        sorts(&["2024-02-29T00:00:00", "2024-02-29T10:20:30.123456"], &Axis::Local('T'));
        let zoned =
            |digits, zone: &str| Axis::Zoned { separator: 'T', seconds: true, digits, zone: zone.to_owned() };
        sorts(&["2024-02-29T00:00:00.000Z", "2024-02-29T10:20:30.123Z", "infinity"], &zoned(3, "Z"));
        sorts(&["2024-02-29T00:00:00+05:30", "2024-02-29T10:20:30+05:30"], &zoned(0, "+05:30"));
        sorts(&["2024-02-29T10:20:30.1234560Z", "2024-02-29T10:20:30.1234570Z"], &zoned(7, "Z"));
    }

    #[test]
    fn spellings_that_do_not_sort_together_are_computed() {
        for mixed in [
            &["2024-01-01 00:00:00", "2024-01-01T00:00:00"][..],
            &["2024-01-01T00:00:00Z", "2024-01-01T00:00:00"],
            &["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z"],
            &["2024-01-01T00:00:00Z", "2024-01-01T00:00:00+01:00"],
            &["2024-01-01", "2024-01-01T00:00:00Z"],
            &["0044-03-15 BC"],
            &["12024-01-01"],
        ] {
            let spellings: Vec<String> = mixed.iter().map(|text| spelling(text)).collect();
            assert_eq!(axis_of(&spellings), Axis::Computed, "{mixed:?}");
        }
    }
}
