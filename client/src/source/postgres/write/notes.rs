//! Statements on Plimsoll's own tables. They lie in the schema in which the role's own tables would be made.

use std::borrow::Cow;

use plimsoll_core::store::Outcome;
use tokio_postgres::Row;

use super::super::error::failure;
use super::super::row::{Bound, Raw};
use super::super::session::{Names, Session};
use super::super::source::PostgresSource;
use crate::failure::{Advise, table as refused};
use crate::source::notes::{Cell, NoteDialect};
use crate::source::write::{Mode, NoteKind};

/// A statement whose marks have numbers.
fn numbered(sql: &str) -> String {
    let (mut out, mut number, mut quote) = (String::with_capacity(sql.len() + 16), 0, None);
    for character in sql.chars() {
        match (character, quote) {
            ('?', None) => {
                number += 1;
                out.push('$');
                out.push_str(&number.to_string());
                continue;
            }
            ('\'' | '"', None) => quote = Some(character),
            (character, Some(open)) if character == open => quote = None,
            _ => {}
        }
        out.push(character);
    }
    out
}

fn bound<'c>(cell: &Cell<'c>) -> Bound<'c> {
    match *cell {
        Cell::Null => Bound::null(),
        Cell::Int(number) => Bound::written(Cow::Owned(number.to_string())),
        Cell::Text(text) => Bound::written(Cow::Borrowed(text)),
        Cell::Bytes(bytes) => Bound::borrowed(bytes),
    }
}

/// A column of a row, as what it is.
fn cell(row: &Row, place: usize) -> Outcome<Cell<'_>> {
    let other = || refused("a note of another type than notes have");
    let bytes = match row.try_get::<_, Raw<'_>>(place).map_err(|_| other())?.0 {
        None => return Ok(Cell::Null),
        Some(bytes) => bytes,
    };
    match row.columns()[place].type_().oid() {
        17 => Ok(Cell::Bytes(bytes)),
        20 => Ok(Cell::Int(i64::from_be_bytes(bytes.try_into().map_err(|_| other())?))),
        21 => Ok(Cell::Int(i16::from_be_bytes(bytes.try_into().map_err(|_| other())?).into())),
        23 => Ok(Cell::Int(i32::from_be_bytes(bytes.try_into().map_err(|_| other())?).into())),
        19 | 25 | 1042 | 1043 => std::str::from_utf8(bytes).map(Cell::Text).map_err(|_| other()),
        _ => Err(other().advise("cast it to bigint, text or bytea in the statement")),
    }
}

impl NoteKind for PostgresSource {
    fn notes(&self) -> NoteDialect {
        NoteDialect::Postgres
    }

    fn note(
        &mut self,
        sql: &str,
        cells: &[Cell<'_>],
        each: &mut dyn FnMut(&[Cell<'_>]) -> Outcome<()>,
    ) -> Outcome<u64> {
        let session = &mut self.session;
        session.name_by(Names::Application)?;
        let parameters: Vec<Bound<'_>> = cells.iter().map(bound).collect();
        let mut outcome = Ok(());
        let answer = session.change(&numbered(sql), &parameters, |row| {
            if outcome.is_ok() {
                let found: Outcome<Vec<Cell<'_>>> = (0..row.len()).map(|place| cell(row, place)).collect();
                outcome = found.and_then(|found| each(&found));
            }
        });
        let changed = answer.map_err(|error| failure(&error, session.role(), None))?;
        outcome.map(|()| changed)
    }

    fn define(&mut self, sql: &str) -> Outcome<()> {
        make(&mut self.session, sql)
    }
}

/// Makes a table.
fn make(session: &mut Session, sql: &str) -> Outcome<()> {
    session.begin_as(Mode::Writing)?;
    let made = session.name_by(Names::Application).and_then(|()| {
        let quiet = format!("SET LOCAL client_min_messages = error; {sql}");
        session.ask(async |client| client.batch_execute(&quiet).await)
    });
    match made {
        Ok(()) => session.commit(),
        Err(failure) => {
            session.end();
            let role = crate::names::identifier(session.role());
            Err(match failure.sqlstate.as_deref() {
                Some("42501" | "3F000") => failure.advise(format!(
                    "Plimsoll keeps notes of its own there: CREATE SCHEMA {role} AUTHORIZATION {role}, or GRANT CREATE ON \
                     SCHEMA public TO {role}"
                )),
                _ => failure,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn marks_have_numbers_outside_quotes() {
        assert_eq!(
            numbered("SELECT '?', \"a?\" FROM t WHERE a = ? AND b = ?"),
            "SELECT '?', \"a?\" FROM t WHERE a = $1 AND b = $2"
        );
    }
}
