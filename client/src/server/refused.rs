//! Rows that the server refused: as it tells of them, and as it remembers them.

use plimsoll_core::digest::RowDigest;
use plimsoll_core::store::{Outcome, Refusal, Rejected, Rejection, SourceKey};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio_postgres::Row;

use super::agent::{as_json, from_hex, malformed, to_hex};
use super::session::cell;

/// Bytes of a rejected row's key that are remembered; longer ones are remembered by their identity. The server takes 64 KiB
/// of each, and ten thousand in one call.
const MOST_KEY_BYTES: usize = 4096;
/// Bytes of a key as people read it; of longer ones so many characters are shown.
const MOST_SHOWN_BYTES: usize = 8192;
const SHOWN_CHARACTERS: usize = 1000;

/// A row of an upload that the server did not store, as it tells of it.
#[derive(Deserialize)]
pub struct RefusedRow {
    ordinal: usize,
    waits: bool,
    holder: Option<String>,
    sqlstate: String,
    column: Option<String>,
    #[serde(default)]
    key: Json,
    message: String,
}

impl From<RefusedRow> for Refusal {
    fn from(row: RefusedRow) -> Self {
        Refusal {
            ordinal: row.ordinal,
            waits: row.waits,
            holder: row.holder.as_deref().and_then(from_hex),
            sqlstate: row.sqlstate,
            column: row.column,
            key_text: match row.key {
                Json::String(text) => text,
                key => key.to_string(),
            },
            message: row.message,
        }
    }
}

/// A row that was refused before, as the server remembers it.
pub fn rejected_row(row: &Row) -> Outcome<Rejected> {
    let row = Some(row);
    let key_id: &[u8] = cell(row, 0)?;
    let source_key: &[u8] = cell(row, 1)?;
    let digest: &[u8] = cell(row, 2)?;
    let malformed = || malformed("a rejected row's key", "it is of another length or kind");
    let key = match source_key.split_first() {
        Some((0, key)) => SourceKey::Encoded(key.to_vec()),
        Some((1, key)) => SourceKey::Raw(key.to_vec()),
        Some((2, id)) => SourceKey::Long(id.try_into().map_err(|_| malformed())?),
        _ => return Err(malformed()),
    };
    Ok(Rejected {
        key_id: key_id.try_into().map_err(|_| malformed())?,
        key,
        source_digest: RowDigest(digest.try_into().map_err(|_| malformed())?),
        position: cell(row, 3)?,
        waits: cell(row, 4)?,
    })
}

/// A key as people read it, or its beginning.
fn shown_key(text: &str) -> Json {
    let key = as_json(text);
    if key.to_string().len() <= MOST_SHOWN_BYTES {
        return key;
    }
    Json::String(text.chars().take(SHOWN_CHARACTERS).chain(['…']).collect())
}

/// What the server shall remember of a row that was refused.
pub fn rejection(rejection: &Rejection) -> Json {
    let rejected = &rejection.rejected;
    let (kind, key) = match &rejected.key {
        SourceKey::Encoded(key) if key.len() < MOST_KEY_BYTES => (0, key.as_slice()),
        SourceKey::Raw(key) if key.len() < MOST_KEY_BYTES => (1, key.as_slice()),
        // A row of a table without a key is its own key, and as long as it likes.
        _ => (2, rejected.key_id.as_slice()),
    };
    json!({
        "key_id": to_hex(&rejected.key_id),
        "source_key": to_hex(&[&[kind], key].concat()),
        "source_digest": to_hex(&rejected.source_digest.0),
        "position": rejected.position,
        "waits": rejected.waits,
        "key": shown_key(&rejection.key_text),
        "sqlstate": rejection.sqlstate,
        "column": rejection.column,
        "message": rejection.message,
    })
}
