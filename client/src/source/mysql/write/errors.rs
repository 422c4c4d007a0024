//! Why MariaDB and MySQL do not take a row, in SQLSTATEs of Postgres'.

use mysql_async::Error;

use super::super::catalogue::Index;
use super::super::error::failure;
use super::row_error;
use crate::failure::Advise;
use crate::source::write::Stopped;

/// What an error of a statement that writes rows means.
pub fn stopped(error: &Error, indexes: &[Index]) -> Stopped {
    let Error::Server(server) = error else { return Stopped::Failed(failure(error)) };
    let code = match server.code {
        1022 | 1062 | 1169 | 1586 | 1761 | 1762 => "23505",
        1216 | 1217 | 1451 | 1452 => "23503",
        1048 | 1263 | 1364 => "23502",
        3819 | 4025 => "23514",
        1406 => "22001",
        1264 | 1690 => "22003",
        1292 | 1411 => "22007",
        1366 | 1525 | 3140 | 4038 => "22P02",
        1265 | 1267 | 1300 | 1367 => "22000",
        1118 | 1153 | 1713 => "54000",
        // What a trigger says.
        1643 | 1644 => "P0001",
        // The right to read is named by itself.
        1142 | 1143 | 1370 => {
            let advice = "GRANT SELECT, INSERT, UPDATE, DELETE on the table to the user of mysql = \"..\" under [source]";
            return Stopped::Failed(failure(error).advise(advice));
        }
        _ => match server.state.as_str() {
            "45000" => "P0001",
            state if state.starts_with("22") => "22000",
            state if state.starts_with("23") => "23000",
            _ => return Stopped::Failed(failure(error)),
        },
    };
    let message = server.message.clone();
    let column = column_of(&message, indexes);
    Stopped::Somewhere(row_error(code, column, message))
}

/// The column that a message names, itself or by an index over it alone.
fn column_of(message: &str, indexes: &[Index]) -> Option<String> {
    let quoted = |text: &str| -> Option<String> {
        // 'a', or `database`.`table`.`a`.
        let mark = text.chars().next().filter(|mark| ['\'', '`'].contains(mark))?;
        let end = text.find(" at row ").unwrap_or(text.len());
        let named = &text[..end];
        let inner = named.strip_prefix(mark)?;
        let inner = inner[..inner.rfind(mark)?].rsplit("`.`").next()?;
        Some(inner.to_owned())
    };
    if let Some((_, rest)) = message.split_once("for column ") {
        return quoted(rest);
    }
    if let Some(rest) = message.strip_prefix("Column ") {
        return rest.strip_prefix('\'')?.split_once('\'').map(|(column, _)| column.to_owned());
    }
    let (_, key) = message.rsplit_once(" for key ")?;
    let name = key.trim_matches('\'');
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    let index = indexes.iter().find(|index| index.name == name)?;
    match &index.columns[..] {
        [one] if index.is_unique => Some(one.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_column_is_named() {
        let index = Index {
            name: "code".to_owned(),
            columns: vec!["Code".to_owned()],
            order: vec!["Code".to_owned()],
            is_unique: true,
        };
        let of = |message: &str| column_of(message, std::slice::from_ref(&index));
        assert_eq!(of("Column 'low' cannot be null").as_deref(), Some("low"));
        assert_eq!(of("Data too long for column 'it's' at row 3").as_deref(), Some("it's"));
        let text = "Incorrect integer value: 'x' for column `db`.`t`.`a` at row 1";
        assert_eq!(of(text).as_deref(), Some("a"));
        assert_eq!(of("Duplicate entry 'x' for key 'code'").as_deref(), Some("Code"));
        assert_eq!(of("Duplicate entry 'x' for key 't.code'").as_deref(), Some("Code"));
        assert_eq!(of("Duplicate entry 'x' for key 'PRIMARY'"), None);
    }
}
