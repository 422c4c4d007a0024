//! Column types and their one-line text form, which travels from server to client.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::row::MAX_DEPTH;

/// The type of a managed table's column, with the limits its modifiers set. A domain is its base type.
///
/// `Display` and `FromStr` are inverse: `numeric(12,2)`, `varchar(10)`, `enum('draft','paid')`,
/// `array(int4)`, `composite(1 'a' int4,2 'b' text)`, `other('inet')`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ColumnType {
    /// `bool`
    Bool,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `xid8`, which never exceeds `int8` in practice
    Xid8,
    /// `numeric`, with precision and scale where the column has them
    Numeric(Option<(u16, i16)>),
    /// `float4`
    Float4,
    /// `float8`
    Float8,
    /// `text`
    Text,
    /// `citext`
    Citext,
    /// `varchar`, at most so many characters where given
    Varchar(Option<u32>),
    /// `char(n)`
    Char(u32),
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `time` with so many digits of a second, 0 to 6
    Time(u8),
    /// `timetz`, likewise
    Timetz(u8),
    /// `timestamp`, likewise
    Timestamp(u8),
    /// `timestamptz`, likewise
    Timestamptz(u8),
    /// `interval`, likewise
    Interval(u8),
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// An enum and its labels in order
    Enum(Vec<String>),
    /// An array of the element type
    Array(Box<ColumnType>),
    /// A range over the type
    Range(Box<ColumnType>),
    /// A multirange over the type
    Multirange(Box<ColumnType>),
    /// A composite: its attributes by ascending number
    Composite(Vec<Attribute>),
    /// A type known by its text output alone; its name
    Other(String),
}

/// An attribute of a composite type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attribute {
    /// Its number, 1 or more, which stands in front of its values.
    pub number: u32,
    /// Its name: a source finds its own attribute by it.
    pub name: String,
    /// The type of its values.
    pub column_type: ColumnType,
}

impl ColumnType {
    /// How deep arrays, ranges, multiranges (which hold ranges) and composites nest in values of the type.
    pub fn depth(&self) -> usize {
        match self {
            ColumnType::Array(inner) | ColumnType::Range(inner) => inner.depth() + 1,
            ColumnType::Multirange(inner) => inner.depth() + 2,
            ColumnType::Composite(attributes) => {
                attributes.iter().map(|attribute| attribute.column_type.depth()).max().unwrap_or(0) + 1
            }
            _ => 0,
        }
    }
}

/// A text in quotes.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ColumnType::*;
        let fraction = |f: &mut fmt::Formatter<'_>, name: &str, digits: u8| match digits {
            6 => f.write_str(name),
            digits => write!(f, "{name}({digits})"),
        };
        match self {
            Bool => f.write_str("bool"),
            Int2 => f.write_str("int2"),
            Int4 => f.write_str("int4"),
            Int8 => f.write_str("int8"),
            Xid8 => f.write_str("xid8"),
            Numeric(None) => f.write_str("numeric"),
            Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Float4 => f.write_str("float4"),
            Float8 => f.write_str("float8"),
            Text => f.write_str("text"),
            Citext => f.write_str("citext"),
            Varchar(None) => f.write_str("varchar"),
            Varchar(Some(length)) => write!(f, "varchar({length})"),
            Char(length) => write!(f, "char({length})"),
            Bytea => f.write_str("bytea"),
            Uuid => f.write_str("uuid"),
            Date => f.write_str("date"),
            Time(digits) => fraction(f, "time", *digits),
            Timetz(digits) => fraction(f, "timetz", *digits),
            Timestamp(digits) => fraction(f, "timestamp", *digits),
            Timestamptz(digits) => fraction(f, "timestamptz", *digits),
            Interval(digits) => fraction(f, "interval", *digits),
            Json => f.write_str("json"),
            Jsonb => f.write_str("jsonb"),
            Enum(labels) => {
                f.write_str("enum(")?;
                for (i, label) in labels.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{}", Quoted(label))?;
                }
                f.write_str(")")
            }
            Array(element) => write!(f, "array({element})"),
            Range(bound) => write!(f, "range({bound})"),
            Multirange(bound) => write!(f, "multirange({bound})"),
            Composite(attributes) => {
                f.write_str("composite(")?;
                for (i, Attribute { number, name, column_type }) in attributes.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(f, "{comma}{number} {} {column_type}", Quoted(name))?;
                }
                f.write_str(")")
            }
            Other(name) => write!(f, "other({})", Quoted(name)),
        }
    }
}

impl FromStr for ColumnType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let column_type = parser.column_type()?;
        if parser.at < text.len() {
            return Err(parser.error("text after the type"));
        }
        Ok(column_type)
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, what: &str) -> Error {
        Error::new(ErrorKind::InvalidSchema, format!("{what} in column type \"{}\"", self.text)).at(self.at)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn eat(&mut self, token: char) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len_utf8();
        }
        found
    }

    fn expect(&mut self, token: char) -> Result<()> {
        if self.eat(token) { Ok(()) } else { Err(self.error(&format!("no '{token}'"))) }
    }

    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn number<T: FromStr>(&mut self) -> Result<T> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(rest.len());
        let number = rest[..end].parse().map_err(|_| self.error("a bad number"))?;
        self.at += end;
        Ok(number)
    }

    fn quoted(&mut self) -> Result<String> {
        self.expect('\'')?;
        let mut label = String::new();
        loop {
            let rest = self.rest();
            let end = rest.find('\'').ok_or_else(|| self.error("an unended quote"))?;
            label.push_str(&rest[..end]);
            self.at += end + 1;
            if !self.eat('\'') {
                return Ok(label);
            }
            label.push('\'');
        }
    }

    fn in_brackets<T: FromStr>(&mut self) -> Result<Option<T>> {
        if !self.eat('(') {
            return Ok(None);
        }
        let number = self.number()?;
        self.expect(')')?;
        Ok(Some(number))
    }

    fn fraction(&mut self) -> Result<u8> {
        match self.in_brackets()? {
            None => Ok(6),
            Some(digits @ 0..=6) => Ok(digits),
            Some(_) => Err(self.error("more than 6 digits of a second")),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut items = Vec::new();
        self.expect('(')?;
        if self.eat(')') {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.eat(',') {
                self.expect(')')?;
                return Ok(items);
            }
        }
    }

    fn inner(&mut self) -> Result<Box<ColumnType>> {
        self.expect('(')?;
        let inner = self.column_type()?;
        self.expect(')')?;
        Ok(Box::new(inner))
    }

    fn column_type(&mut self) -> Result<ColumnType> {
        use ColumnType::*;
        let word = self.word();
        let levels = match word {
            "array" | "range" | "composite" => 1,
            "multirange" => 2,
            _ => 0,
        };
        self.depth += levels;
        if self.depth > MAX_DEPTH {
            return Err(self.error("more than 32 levels"));
        }
        let column_type = match word {
            "bool" => Bool,
            "int2" => Int2,
            "int4" => Int4,
            "int8" => Int8,
            "xid8" => Xid8,
            "numeric" => {
                if self.eat('(') {
                    let precision = self.number()?;
                    self.expect(',')?;
                    let scale = self.number()?;
                    self.expect(')')?;
                    Numeric(Some((precision, scale)))
                } else {
                    Numeric(None)
                }
            }
            "float4" => Float4,
            "float8" => Float8,
            "text" => Text,
            "citext" => Citext,
            "varchar" => Varchar(self.in_brackets()?),
            "char" => Char(self.in_brackets()?.unwrap_or(1)),
            "bytea" => Bytea,
            "uuid" => Uuid,
            "date" => Date,
            "time" => Time(self.fraction()?),
            "timetz" => Timetz(self.fraction()?),
            "timestamp" => Timestamp(self.fraction()?),
            "timestamptz" => Timestamptz(self.fraction()?),
            "interval" => Interval(self.fraction()?),
            "json" => Json,
            "jsonb" => Jsonb,
            "enum" => Enum(self.list(Self::quoted)?),
            "array" => Array(self.inner()?),
            "range" => Range(self.inner()?),
            "multirange" => Multirange(self.inner()?),
            "composite" => Composite(self.list(|parser| {
                let number = parser.number()?;
                parser.expect(' ')?;
                let name = parser.quoted()?;
                parser.expect(' ')?;
                Ok(Attribute { number, name, column_type: parser.column_type()? })
            })?),
            "other" => {
                self.expect('(')?;
                let name = self.quoted()?;
                self.expect(')')?;
                Other(name)
            }
            _ => return Err(self.error("an unknown name")),
        };
        self.depth -= levels;
        Ok(column_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_comes_back_as_the_same_type() {
        for text in [
            "bool",
            "int2",
            "int4",
            "int8",
            "xid8",
            "numeric",
            "numeric(12,2)",
            "numeric(3,-2)",
            "float4",
            "float8",
            "text",
            "citext",
            "varchar",
            "varchar(10)",
            "char(3)",
            "bytea",
            "uuid",
            "date",
            "time",
            "time(0)",
            "timetz(3)",
            "timestamp",
            "timestamp(3)",
            "timestamptz",
            "interval(2)",
            "json",
            "jsonb",
            "enum('it''s','b')",
            "enum()",
            "array(array(int4))",
            "range(numeric(5,1))",
            "multirange(date)",
            "composite(1 'a' int4,3 'it''s, (' varchar(5))",
            "array(composite(1 'b' multirange(numeric(5,1))))",
            "other('inet')",
        ] {
            let column_type: ColumnType = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(column_type.to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "int",
            "numeric(",
            "numeric(5)",
            "enum(a)",
            "time(7)",
            "int4 ",
            "array()",
            "other(x)",
            "composite(1 int4)",
        ] {
            assert!(text.parse::<ColumnType>().is_err(), "{text}");
        }
        let nested = |levels| ("array(".repeat(levels) + "int4" + &")".repeat(levels)).parse::<ColumnType>();
        assert_eq!(nested(32).map(|deepest| deepest.depth()), Ok(32));
        assert!(nested(33).is_err());
        let multirange = "array(".repeat(31) + "multirange(int4)" + &")".repeat(31);
        assert!(multirange.parse::<ColumnType>().is_err());
    }
}
