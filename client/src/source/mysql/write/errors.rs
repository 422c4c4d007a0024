//! Why MariaDB and MySQL do not take a row, in SQLSTATEs of Postgres'.

use mysql_async::Error;
use plimsoll_core::sqlstate::FOREIGN_KEY;

use super::super::catalogue::Index;
use super::super::error::{failure, passes};
use super::row_error;
use crate::failure::Advise;
use crate::source::write::Stopped;

/// What an error of a statement that writes rows means.
pub fn stopped(error: &Error, indexes: &[Index]) -> Stopped {
    let Error::Server(server) = error else { return Stopped::Failed(failure(error)) };
    let Some(code) = of_row(server.code, &server.state) else {
        return match server.code {
            // The right to read is named by itself.
            1142 | 1143 | 1370 => Stopped::Failed(failure(error).advise(
                "GRANT SELECT, INSERT, UPDATE, DELETE on the table to the user of mysql = \"..\" under [source]",
            )),
            _ => Stopped::Failed(failure(error)),
        };
    };
    let message = server.message.clone();
    let column = column_of(&message, indexes);
    Stopped::Somewhere(row_error(code, column, message))
}

/// The SQLSTATE of what is said of a row; `None` where it is of none.
fn of_row(code: u16, state: &str) -> Option<&'static str> {
    Some(match code {
        1022 | 1062 | 1169 | 1586 | 1761 | 1762 => "23505",
        1216 | 1217 | 1451 | 1452 => FOREIGN_KEY,
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
        // A name in a trigger that stands for two columns.
        1052 => return None,
        code if passes(code, state) => return None,
        _ => match state {
            "45000" => "P0001",
            state if state.starts_with("22") => "22000",
            state if state.starts_with("23") => "23000",
            _ => return None,
        },
    })
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
    fn a_row_is_refused_for_what_is_said_of_it_alone() {
        for (code, state, expected) in [
            (1062, "23000", "23505"),
            (1452, "23000", "23503"),
            (1048, "23000", "23502"),
            (4025, "23000", "23514"),
            (1406, "22001", "22001"),
            (1366, "HY000", "22P02"),
            (1644, "45000", "P0001"),
            (1644, "HY000", "P0001"),
            (1153, "08S01", "54000"),
            (9999, "22018", "22000"),
            (9999, "23001", "23000"),
        ] {
            assert_eq!(of_row(code, state), Some(expected), "{code}");
        }
        let of_no_row = [
            // No disk, no memory, a full table, limits.
            (3, "HY000"),
            (5, "HY000"),
            (20, "HY000"),
            (1021, "HY000"),
            (1026, "HY000"),
            (1030, "HY000"),
            (1037, "HY001"),
            (1038, "HY001"),
            (1040, "08004"),
            (1041, "HY000"),
            (1114, "HY000"),
            (1135, "HY000"),
            (1203, "42000"),
            (1226, "42000"),
            (1637, "HY000"),
            (1878, "HY000"),
            // Shut down, killed, cancelled, out of time.
            (1053, "08S01"),
            (1077, "HY000"),
            (1079, "HY000"),
            (1317, "70100"),
            (1927, "70100"),
            (1969, "70100"),
            (3024, "HY000"),
            (3168, "HY000"),
            (3169, "HY000"),
            (4031, "HY000"),
            // The network, other nodes.
            (1047, "08S01"),
            (1152, "08S01"),
            (1158, "08S01"),
            (1159, "08S01"),
            (1160, "08S01"),
            (1161, "08S01"),
            (1184, "08S01"),
            (1189, "08S01"),
            (1190, "08S01"),
            (3100, "HY000"),
            // Locks, other transactions.
            (1020, "HY000"),
            (1180, "HY000"),
            (1205, "HY000"),
            (1206, "HY000"),
            (1213, "40001"),
            (1614, "XA102"),
            (1689, "HY000"),
            (3101, "40000"),
            (9999, "40001"),
            // Read only.
            (1290, "HY000"),
            (1792, "25006"),
            (1836, "HY000"),
            // Names, rights, definitions, triggers that are wrong.
            (1052, "23000"),
            (1054, "42S22"),
            (1064, "42000"),
            (1142, "42000"),
            (1146, "42S02"),
            (1305, "42000"),
            (1412, "HY000"),
            (1442, "HY000"),
            (1615, "HY000"),
        ];
        for (code, state) in of_no_row {
            assert_eq!(of_row(code, state), None, "{code}");
        }
    }

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
