//! `[[table]]`: which local table goes where, and how its columns do.

use std::collections::BTreeMap;
use std::fmt;

use plimsoll_core::store::Outcome;
use plimsoll_core::two_way::Policy;
use plimsoll_core::value::adapt::Conversion;
use serde::{Deserialize, Serialize};

use super::direction::{DirectionSetting, Merge, SnapshotFrom};
use crate::failure::{Advise, run as unusable};
use crate::names::Relation;

/// `[[table]]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableConfig {
    /// The local table.
    pub name: String,
    /// The managed table, `schema.table`; where not given, the one of the same name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<String>,
    /// Which side is right; see [`TableConfig::direction`].
    #[serde(default, skip_serializing_if = "DirectionSetting::is_default")]
    pub direction: DirectionSetting,
    /// Which side a snapshot is of: the local one where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_from: Option<SnapshotFrom>,
    /// Who wins where both sides changed a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    /// What becomes of rows that both sides changed in different columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<Merge>,
    /// Whether the rows that both sides last agreed on are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_base_rows: Option<bool>,
    /// The key's columns; the primary key where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// The version column; where given it is checked against the managed table's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The last-modified column, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// Local columns that are not sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave_out: Vec<String>,
    /// A condition on the local side, in its SQL: only rows that fulfil it are there.
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Local columns that are called otherwise in the managed table: local name, managed name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, String>,
    /// Columns of the managed table that hold the same in all rows.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub constants: BTreeMap<String, Constant>,
    /// Local columns whose values are converted, and how.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub convert: BTreeMap<String, String>,
}

/// A value as the configuration writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a constant is a text, a number or true or false; write dates as text")]
pub enum Constant {
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Whole(i64),
    /// Any number.
    Number(f64),
    /// Text, which stands for values of all other types.
    Text(String),
}

impl fmt::Display for Constant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Constant::Bool(value) => write!(f, "{value}"),
            Constant::Whole(number) => write!(f, "{number}"),
            Constant::Number(number) => write!(f, "{number}"),
            Constant::Text(text) => f.write_str(text),
        }
    }
}

/// The entry of a name: as it is spelled, else in any case.
fn entry<'m, V>(map: &'m BTreeMap<String, V>, name: &str) -> Option<&'m V> {
    let any_case = || map.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    map.get(name).or_else(any_case)
}

impl TableConfig {
    /// The managed table's name, where it is given.
    pub fn relation(&self) -> Option<Relation> {
        self.remote.as_deref().map(Relation::parse)
    }

    /// Whether a local column is not sent.
    pub fn leaves_out(&self, local: &str) -> bool {
        self.leave_out.iter().any(|left| left.eq_ignore_ascii_case(local))
    }

    /// The managed name of a local column, where that is said.
    pub fn renamed(&self, local: &str) -> Option<&str> {
        entry(&self.columns, local).map(String::as_str)
    }

    /// What a managed column holds in all rows, where that is said.
    pub fn constant(&self, remote: &str) -> Option<&Constant> {
        entry(&self.constants, remote)
    }

    /// How values of a local column are converted.
    pub fn conversion(&self, local: &str) -> Option<Conversion> {
        entry(&self.convert, local).and_then(|name| name.parse().ok())
    }

    /// Refuses settings that contradict each other.
    pub(super) fn check(&self) -> Outcome<()> {
        let wrong = |what: String| Err(unusable(format!("table \"{}\": {what}", self.name)));
        if self.key.as_ref().is_some_and(Vec::is_empty) {
            return wrong("key = [] names no column".to_owned());
        }
        if self.filter.as_ref().is_some_and(|filter| filter.trim().is_empty()) {
            return wrong("where = \"\" is no condition".to_owned());
        }
        for (place, (local, remote)) in self.columns.iter().enumerate() {
            let others = self.columns.iter().take(place);
            if self.leaves_out(local) {
                return wrong(format!("column \"{local}\" is left out, and renamed to \"{remote}\""));
            }
            for (other, taken) in others {
                if other.eq_ignore_ascii_case(local) {
                    return wrong(format!("column \"{local}\" is renamed twice"));
                }
                if taken.eq_ignore_ascii_case(remote) {
                    return wrong(format!("\"{other}\" and \"{local}\" are both renamed to \"{remote}\""));
                }
            }
            if self.constant(remote).is_some() {
                return wrong(format!("column \"{local}\" is renamed to \"{remote}\", which is a constant"));
            }
        }
        for (local, name) in &self.convert {
            if self.leaves_out(local) {
                return wrong(format!("column \"{local}\" is left out, and converted"));
            }
            if let Err(error) = name.parse::<Conversion>() {
                return Err(unusable(format!("table \"{}\": convert: {}", self.name, error.message()))
                    .advise(format!("convert = {{ {local} = \"round\" }}, for example")));
            }
        }
        self.check_direction()
    }
}
