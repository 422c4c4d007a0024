//! What a change is in the database's own values, and what is said of one that is refused.

use plimsoll_core::row::{Field, Fields, put_field};
use plimsoll_core::store::{Applied, Reason, SourceRow, TableId};
use plimsoll_core::value::adapt::Room;
use plimsoll_core::value::{ColumnType, Value, literal};
use plimsoll_core::{Error, ErrorKind};
use serde_json::{Map, Value as Json};

use crate::source::plan::{Origin, TablePlan};
use crate::source::query::RawValue;
use crate::source::write::{RowError, WriteKind, WritePlan};

/// NULL
pub(super) const NULL: RawValue = RawValue { class: 0, bytes: Vec::new() };

/// The values of a row in the plan's written columns.
pub(super) fn values_of<K: WriteKind>(
    kind: &K,
    table: TableId,
    write: &WritePlan,
    row: &SourceRow,
) -> Result<Vec<RawValue>, RowError> {
    let plan = &write.plan;
    let columns = plan.schema.columns();
    let mut values = vec![NULL; write.places.len()];
    let mut constants =
        plan.columns.iter().filter(|sent| matches!(sent.origin, Origin::Constant { .. })).count();
    let mut room = Room::default();
    for field in Fields::new(&row.row) {
        let field = field.map_err(|error| of_row(&error))?;
        let Ok(place) = columns.binary_search_by_key(&field.number, |column| column.number) else {
            let message = format!("a value for column number {}, which the table has not", field.number);
            return Err(RowError { sqlstate: "22000".to_owned(), column: None, message });
        };
        let sent = &plan.columns[place];
        let refused = |error: Error| in_column(&sent.name, &error);
        match &sent.origin {
            Origin::Constant { form, .. } => {
                let mut own = Vec::new();
                put_field(&mut own, &field).map_err(refused)?;
                if own != *form {
                    return Err(refused(other_constant()));
                }
                constants -= 1;
            }
            Origin::Absent => {
                let message = "a value, and the local table has no such column: add it there";
                return Err(refused(Error::new(ErrorKind::WouldChange, message)));
            }
            Origin::Column(conversion) => {
                // What the database computes itself is compared when it is read back.
                let Ok(at) = write.places.binary_search(&place) else { continue };
                let value = match conversion {
                    Some(conversion) => conversion.restore(field.value, &mut room).map_err(refused)?,
                    None => field.value,
                };
                values[at] = kind.local(table, plan, place, &value).map_err(refused)?;
            }
        }
    }
    if constants > 0 {
        let name = plan.columns.iter().find(|sent| matches!(sent.origin, Origin::Constant { .. }));
        let name = name.map(|sent| sent.name.as_str()).unwrap_or_default();
        return Err(in_column(name, &other_constant()));
    }
    Ok(values)
}

fn other_constant() -> Error {
    Error::new(ErrorKind::WouldChange, "another value than the constant of the configuration")
}

fn of_row(error: &Error) -> RowError {
    RowError {
        sqlstate: error.kind().sqlstate().to_owned(),
        column: None,
        message: error.message().to_owned(),
    }
}

/// A value that a column does not hold.
pub(super) fn in_column(column: &str, error: &Error) -> RowError {
    let message = format!("local column \"{column}\": {}", error.message());
    RowError { column: Some(column.to_owned()), message, ..of_row(error) }
}

/// The values of an encoded key in the columns of the plan's order, in the spelling in which they would be written.
pub(super) fn order_of_key<K: WriteKind>(
    kind: &K,
    table: TableId,
    plan: &TablePlan,
    key: &[u8],
) -> Option<Vec<RawValue>> {
    let (mut found, mut room) = (Vec::new(), Room::default());
    for (field, place) in Fields::new(key).zip(plan.schema.key_indexes()) {
        let field = field.ok()?;
        let Origin::Column(conversion) = &plan.columns[*place].origin else { continue };
        let value = match conversion {
            Some(conversion) => conversion.restore(field.value, &mut room).ok()?,
            None => field.value,
        };
        found.push((*place, kind.local(table, plan, *place, &value).ok()?));
    }
    let value =
        |place: &usize| found.iter().find(|(other, _)| other == place).map(|(_, value)| value.clone());
    plan.order.iter().map(value).collect()
}

/// The column in which a stored row is another than it was to be.
pub(super) fn other_column(plan: &TablePlan, wanted: &[u8], stored: &[u8]) -> Option<RowError> {
    let form = |field: &Field<'_>| {
        let mut form = Vec::new();
        put_field(&mut form, field).ok().map(|()| form)
    };
    plan.schema.columns().iter().zip(&plan.columns).find_map(|(column, sent)| {
        let (wanted, stored) = (field_of(wanted, column.number), field_of(stored, column.number));
        if wanted.as_ref().and_then(form) == stored.as_ref().and_then(form) {
            return None;
        }
        let shown = |field: &Option<Field<'_>>| match field {
            Some(field) => literal::shown(&field.value, MOST_SHOWN),
            None => "NULL".to_owned(),
        };
        let message = format!(
            "local column \"{}\" keeps {} where it was given {}, of type {}: widen the column, or drop what changes it \
             (a trigger, a generated value), or leave it out",
            sent.name,
            shown(&stored),
            shown(&wanted),
            kind_of(&column.column_type),
        );
        Some(RowError { sqlstate: "22000".to_owned(), column: Some(sent.name.clone()), message })
    })
}

fn field_of(row: &[u8], number: u32) -> Option<Field<'_>> {
    Fields::new(row).filter_map(Result::ok).find(|field| field.number == number)
}

/// Characters of a value that a message shows.
const MOST_SHOWN: usize = 40;

fn kind_of(column_type: &ColumnType) -> String {
    match column_type {
        ColumnType::Enum(_) => "enum".to_owned(),
        ColumnType::Composite(_) => "composite".to_owned(),
        other => other.to_string(),
    }
}

/// A refusal, with the key as a person reads it.
pub(super) fn refusal(plan: &TablePlan, key: &[u8], error: RowError) -> Applied {
    let waits = error.waits();
    let RowError { sqlstate, column, message } = error;
    let reason = Reason { key_text: key_text(plan, key), sqlstate, column, message };
    Applied::Refused { waits, reason: Box::new(reason) }
}

/// An encoded key, or a keyless row, for people: a JSON object.
pub(super) fn key_text(plan: &TablePlan, key: &[u8]) -> String {
    /// More columns of a row than this help nobody to find it.
    const MOST: usize = 16;
    let mut object = Map::new();
    for field in Fields::new(key).filter_map(Result::ok).take(MOST) {
        let place = plan.schema.columns().iter().position(|column| column.number == field.number);
        let Some(sent) = place.map(|place| &plan.columns[place]) else { continue };
        let value = match field.value {
            Value::Int(number) => Json::from(number),
            Value::Bool(value) => Json::from(value),
            value => Json::from(literal::to_text(&value).chars().take(200).collect::<String>()),
        };
        object.insert(sent.name.clone(), value);
    }
    Json::Object(object).to_string()
}
