//! The types of MariaDB and MySQL, as columns are declared with them.

use plimsoll_core::value::ColumnType;

/// What a column holds. Made from [`LocalColumn::declared`](crate::source::local::LocalColumn::declared), which the catalogue
/// writes: the database's own spelling, `character set` and `collate` behind it where it is text, and `auto_increment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalType {
    /// TINYINT to BIGINT
    Integer {
        /// How it is declared: `tinyint`.
        name: String,
        /// How wide it is shown; TINYINT(1) is what BOOLEAN means.
        width: Option<u32>,
        /// Whether it holds no negative numbers.
        unsigned: bool,
        /// Whether the database counts it up.
        counts: bool,
    },
    /// YEAR
    Year,
    /// BIT(n)
    Bit(u32),
    /// DECIMAL(precision, scale)
    Decimal(u32, u32),
    /// FLOAT
    Float,
    /// DOUBLE
    Double,
    /// CHAR, VARCHAR and TEXT
    Text(TextType),
    /// ENUM and SET, by the texts of their members
    Members {
        /// The members in order.
        members: Vec<String>,
        /// Whether a value is one member, not any number of them.
        is_enum: bool,
        /// Its text.
        text: TextType,
    },
    /// BINARY, VARBINARY and BLOB; the length where there is one
    Binary {
        /// Bytes at most; `None` where it is a BLOB.
        length: Option<u32>,
        /// Whether shorter values are filled up with zero bytes.
        fixed: bool,
    },
    /// DATE
    Date,
    /// DATETIME(n)
    Datetime(u8),
    /// TIMESTAMP(n)
    Timestamp(u8),
    /// TIME(n)
    Time(u8),
    /// JSON: a type of its own in MySQL, text that is checked in MariaDB
    Json,
    /// UUID
    Uuid,
    /// INET4, INET6
    Inet(String),
    /// Anything else: points and shapes
    Other(String),
}

/// What kind of text a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextType {
    /// Characters at most; `None` where it is a TEXT.
    pub length: Option<u32>,
    /// Whether it was declared as CHAR, of which blanks at the end are no part.
    pub fixed: bool,
    /// The character set.
    pub charset: String,
    /// The collation: what it compares and orders by.
    pub collation: String,
}

/// Character sets of which each text is the same text in UTF-8.
const LOSSLESS: [&str; 5] = ["utf8mb4", "utf8mb3", "utf8", "latin1", "ascii"];

impl TextType {
    /// Whether each text that it can hold is the same text in UTF-8, so that nothing need be looked at.
    pub fn is_lossless(&self) -> bool {
        LOSSLESS.contains(&self.charset.as_str())
    }
}

impl LocalType {
    /// Reads a declared type.
    pub fn parse(declared: &str) -> Self {
        let end = declared.find(['(', ' ']).unwrap_or(declared.len());
        let name = declared[..end].to_ascii_lowercase();
        let (modifiers, rest) = modifiers(&declared[end..]);
        let number = |place: usize| modifiers.get(place).and_then(|text| text.trim().parse::<u32>().ok());
        let digits = || number(0).and_then(|digits| u8::try_from(digits).ok()).unwrap_or(0);
        let mut words = rest.split_ascii_whitespace();
        let (mut unsigned, mut counts, mut charset, mut collation) = (false, false, "", "");
        while let Some(word) = words.next() {
            match word.to_ascii_lowercase().as_str() {
                "unsigned" => unsigned = true,
                "auto_increment" => counts = true,
                "set" => charset = words.next().unwrap_or_default(),
                "collate" => collation = words.next().unwrap_or_default(),
                _ => {}
            }
        }
        let text = |length, fixed| TextType {
            length,
            fixed,
            charset: charset.to_owned(),
            collation: collation.to_owned(),
        };
        match name.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "integer" | "bigint" => {
                LocalType::Integer { name, width: number(0), unsigned, counts }
            }
            "year" => LocalType::Year,
            "bit" => LocalType::Bit(number(0).unwrap_or(1)),
            "decimal" | "numeric" => LocalType::Decimal(number(0).unwrap_or(10), number(1).unwrap_or(0)),
            "float" => LocalType::Float,
            "double" | "real" => LocalType::Double,
            "char" | "varchar" => LocalType::Text(text(number(0).or(Some(1)), name == "char")),
            "tinytext" | "text" | "mediumtext" | "longtext" => LocalType::Text(text(None, false)),
            "enum" | "set" => {
                LocalType::Members { members: modifiers, is_enum: name == "enum", text: text(None, false) }
            }
            "binary" | "varbinary" => {
                LocalType::Binary { length: number(0).or(Some(1)), fixed: name == "binary" }
            }
            "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                LocalType::Binary { length: None, fixed: false }
            }
            "date" => LocalType::Date,
            "datetime" => LocalType::Datetime(digits()),
            "timestamp" => LocalType::Timestamp(digits()),
            "time" => LocalType::Time(digits()),
            "json" => LocalType::Json,
            "uuid" => LocalType::Uuid,
            "inet4" | "inet6" => LocalType::Inet(name),
            _ => LocalType::Other(name),
        }
    }

    /// Whether rows can stand at a version in a column of this type, for a managed column of that type.
    pub fn places(&self, column_type: &ColumnType) -> bool {
        use ColumnType as T;
        match self {
            LocalType::Integer { .. } | LocalType::Year | LocalType::Decimal(_, 0) => {
                matches!(column_type, T::Int2 | T::Int4 | T::Int8 | T::Xid8)
            }
            LocalType::Date | LocalType::Datetime(_) | LocalType::Timestamp(_) => {
                matches!(column_type, T::Timestamp(_) | T::Timestamptz(_))
            }
            LocalType::Binary { length: Some(_), .. } => matches!(column_type, T::Bytea),
            _ => false,
        }
    }

    /// Its name for people.
    pub fn shown(&self) -> String {
        match self {
            LocalType::Integer { name, unsigned: true, .. } => format!("{} UNSIGNED", name.to_uppercase()),
            LocalType::Integer { name, .. } | LocalType::Inet(name) | LocalType::Other(name) => {
                name.to_uppercase()
            }
            LocalType::Year => "YEAR".to_owned(),
            LocalType::Bit(_) => "BIT".to_owned(),
            LocalType::Decimal(..) => "DECIMAL".to_owned(),
            LocalType::Float => "FLOAT".to_owned(),
            LocalType::Double => "DOUBLE".to_owned(),
            LocalType::Text(_) => "text".to_owned(),
            LocalType::Members { is_enum: true, .. } => "ENUM".to_owned(),
            LocalType::Members { .. } => "SET".to_owned(),
            LocalType::Binary { .. } => "BINARY or BLOB".to_owned(),
            LocalType::Date => "DATE".to_owned(),
            LocalType::Datetime(_) => "DATETIME".to_owned(),
            LocalType::Timestamp(_) => "TIMESTAMP".to_owned(),
            LocalType::Time(_) => "TIME".to_owned(),
            LocalType::Json => "JSON".to_owned(),
            LocalType::Uuid => "UUID".to_owned(),
        }
    }
}

/// What stands in the brackets that a text begins with, unquoted and without the commas, and what comes behind them.
fn modifiers(text: &str) -> (Vec<String>, &str) {
    let Some(inner) = text.strip_prefix('(') else { return (Vec::new(), text) };
    let (mut items, mut item, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = inner.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        match (character, quoted) {
            // A quote within a member is written twice.
            ('\'', true) if characters.next_if(|(_, next)| *next == '\'').is_some() => item.push('\''),
            ('\'', _) => quoted = !quoted,
            (',', false) => items.push(std::mem::take(&mut item)),
            (')', false) => {
                items.push(item);
                return (items, &inner[at + 1..]);
            }
            (character, _) => item.push(character),
        }
    }
    (items, "")
}

/// The Postgres type that holds all that a column of this type can; `None` where there is none.
pub fn postgres_type(local: &LocalType) -> Option<String> {
    Some(match local {
        LocalType::Integer { name, unsigned, counts, .. } => match (name.as_str(), unsigned) {
            ("tinyint", _) | ("smallint", false) => "smallint",
            ("smallint", true) | ("mediumint", _) | ("int" | "integer", false) => "integer",
            ("bigint", true) if !counts => "numeric(20,0)",
            _ => "bigint",
        }
        .to_owned(),
        LocalType::Year => "smallint".to_owned(),
        LocalType::Bit(1) => "boolean".to_owned(),
        LocalType::Bit(bits) => format!("bit({bits})"),
        LocalType::Decimal(precision, scale) => format!("numeric({precision},{scale})"),
        LocalType::Float => "real".to_owned(),
        LocalType::Double => "double precision".to_owned(),
        LocalType::Text(TextType { length: Some(length), fixed, .. }) => {
            format!("{}({})", if *fixed { "char" } else { "varchar" }, (*length).max(1))
        }
        LocalType::Text(_) | LocalType::Members { .. } => "text".to_owned(),
        LocalType::Binary { .. } => "bytea".to_owned(),
        LocalType::Date => "date".to_owned(),
        LocalType::Datetime(digits) => format!("timestamp({digits})"),
        LocalType::Timestamp(digits) => format!("timestamptz({digits})"),
        LocalType::Time(digits) => format!("time({digits})"),
        LocalType::Json => "json".to_owned(),
        LocalType::Uuid => "uuid".to_owned(),
        LocalType::Inet(_) => "inet".to_owned(),
        LocalType::Other(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_are_read() {
        let proposed = |declared: &str| postgres_type(&LocalType::parse(declared)).unwrap_or_default();
        for (declared, postgres) in [
            ("tinyint(3) unsigned", "smallint"),
            ("smallint(5) unsigned zerofill", "integer"),
            ("mediumint(9)", "integer"),
            ("int(11)", "integer"),
            ("int unsigned", "bigint"),
            ("bigint(20)", "bigint"),
            ("bigint(20) unsigned", "numeric(20,0)"),
            ("bigint(20) unsigned auto_increment", "bigint"),
            ("decimal(65,30)", "numeric(65,30)"),
            ("float", "real"),
            ("double unsigned", "double precision"),
            ("bit(1)", "boolean"),
            ("bit(12)", "bit(12)"),
            ("year(4)", "smallint"),
            ("date", "date"),
            ("datetime", "timestamp(0)"),
            ("datetime(6)", "timestamp(6)"),
            ("timestamp(3)", "timestamptz(3)"),
            ("time(2)", "time(2)"),
            ("varchar(20) character set latin1 collate latin1_swedish_ci", "varchar(20)"),
            ("char(3) character set utf8mb4 collate utf8mb4_bin", "char(3)"),
            ("longtext character set utf8mb4 collate utf8mb4_general_ci", "text"),
            ("enum('a','b') character set utf8mb4 collate utf8mb4_general_ci", "text"),
            ("binary(16)", "bytea"),
            ("longblob", "bytea"),
            ("json", "json"),
            ("uuid", "uuid"),
            ("inet6", "inet"),
            ("geometry", ""),
            ("point", ""),
        ] {
            assert_eq!(proposed(declared), postgres, "{declared}");
        }
    }

    #[test]
    fn members_are_read_whatever_they_hold() {
        let declared = "enum('it''s','a,b','(',')','') character set latin1 collate latin1_bin";
        let LocalType::Members { members, is_enum, text } = LocalType::parse(declared) else { panic!() };
        assert_eq!(members, ["it's", "a,b", "(", ")", ""]);
        assert!(is_enum && text.charset == "latin1" && text.collation == "latin1_bin");
    }
}
