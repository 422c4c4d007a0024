//! Labels of enums among the columns whose hash is the position, and attributes of composites. The hash is made of labels,
//! as all sides know them, and of the attributes that a type has: a label that is renamed and an attribute that is
//! dropped move rows, and an index that was made before does not find them any more.

use std::collections::{BTreeMap, HashMap};

use pgrx::JsonB;
use plimsoll_core::schema::Column;
use plimsoll_core::value::{Attribute, ColumnType};

/// The labels by column, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<String, Vec<String>>);

impl Labels {
    /// Those of the columns with these names.
    pub fn of(columns: &[Column], names: &[String]) -> Self {
        let placing = columns.iter().filter(|column| names.contains(&column.name));
        let labels = placing.map(|column| (column.name.clone(), labels(&column.column_type)));
        Labels(labels.filter(|(_, labels)| !labels.is_empty()).collect())
    }

    /// As the registration has them.
    pub fn read(kept: Option<JsonB>) -> Self {
        Labels(kept.and_then(|kept| serde_json::from_value(kept.0).ok()).unwrap_or_default())
    }

    /// As the registration is to have them.
    pub fn json(&self) -> JsonB {
        JsonB(serde_json::json!(self.0))
    }

    /// A column, and a label of it that is not there any more. Labels may be added.
    pub fn gone<'l>(&'l self, columns: &[Column]) -> Option<(&'l str, &'l str)> {
        self.0.iter().find_map(|(name, kept)| {
            let now = columns.iter().find(|column| column.name == *name);
            let now = now.map(|column| labels(&column.column_type)).unwrap_or_default();
            let mut now = now.iter();
            let gone = kept.iter().find(|label| !now.any(|found| found == *label))?;
            Some((name.as_str(), gone.as_str()))
        })
    }

    /// Gives the columns that it names the names that they have now.
    pub fn rename(&mut self, renamed: &HashMap<&str, &str>) {
        let before = std::mem::take(&mut self.0).into_iter();
        self.0 = before
            .map(|(name, labels)| (renamed.get(name.as_str()).map_or(name, |now| (*now).to_owned()), labels))
            .collect();
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The labels of the enums that a type is made of, and the attributes of its composites.
fn labels(column_type: &ColumnType) -> Vec<String> {
    match column_type {
        ColumnType::Enum(labels) => labels.clone(),
        ColumnType::Array(inner) | ColumnType::Range(inner) | ColumnType::Multirange(inner) => labels(inner),
        ColumnType::Composite(attributes) => {
            // By number, which is in the hash, and not by name.
            let within = |attribute: &Attribute| {
                let inner = labels(&attribute.column_type).into_iter();
                let number = attribute.number;
                let inner = inner.map(move |label| format!("attribute {number}, {label}"));
                std::iter::once(format!("attribute {number}")).chain(inner).collect::<Vec<_>>()
            };
            attributes.iter().flat_map(within).collect()
        }
        _ => Vec::new(),
    }
}
