//! The one error type of the crate: a kind, where it happened, what to say.

use std::fmt;

/// What went wrong, in the terms a caller decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Encoded bytes end too soon, have bytes left over, or break the grammar.
    Malformed,
    /// A value lies outside the range of its column's type.
    OutOfRange,
    /// A value is longer than its column's type allows.
    TooLong,
    /// A value could only be stored rounded, trimmed or otherwise changed.
    WouldChange,
    /// Text that is no text of its type: NUL, invalid UTF-8, no number, no date.
    InvalidText,
    /// A value of another type than the column's.
    WrongType,
    /// A NULL where the column takes none.
    Null,
    /// A value larger than the encoding carries (1 GB).
    TooLarge,
    /// A description of a type or table that makes no sense.
    InvalidSchema,
}

impl ErrorKind {
    /// The SQLSTATE that says the same to a Postgres client.
    pub fn sqlstate(self) -> &'static str {
        match self {
            ErrorKind::Malformed => "22P03",
            ErrorKind::OutOfRange => "22003",
            ErrorKind::TooLong => "22001",
            ErrorKind::WouldChange => "22000",
            ErrorKind::InvalidText => "22P02",
            ErrorKind::WrongType => "22000",
            ErrorKind::Null => "23502",
            ErrorKind::TooLarge => "54000",
            ErrorKind::InvalidSchema => "42611",
        }
    }

    /// What a person can do about a value that is refused for this reason.
    pub fn advice(self) -> &'static str {
        match self {
            ErrorKind::OutOfRange | ErrorKind::TooLong => "widen the managed column, or correct the value",
            ErrorKind::WouldChange => {
                "widen the managed column, correct the value, or name a conversion in the client's configuration"
            }
            ErrorKind::WrongType => "leave the column out, or correct the value or the managed column's type",
            ErrorKind::TooLarge => "leave the column out, or shorten the value",
            _ => "correct the value",
        }
    }
}

/// An error of the core: a kind, the byte it was found at where bytes were read, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    position: Option<usize>,
    message: String,
}

/// The result of a core function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind`; `message` is a phrase without a full stop and without secrets.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, position: None, message: message.into() }
    }

    /// The same error, found at byte `position` of the input.
    pub fn at(mut self, position: usize) -> Self {
        self.position.get_or_insert(position);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The byte of the input at which it was found, where bytes were read.
    pub fn position(&self) -> Option<usize> {
        self.position
    }

    /// The sentence alone, without the position.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.position {
            Some(position) => write!(f, " (at byte {position})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
