//! What the catalogue says of a type, as the core's type; and which types have no encoding, and why.

use pgrx::pg_sys::{self, Oid};
use pgrx::spi::Spi;
use plimsoll_core::value::ColumnType;

use super::{Purpose, type_name};
use crate::error::{Answer, Problem, state};

/// The low half of an interval's modifier where no digits of a second are cut off.
const FULL_PRECISION: i32 = 0xffff;
/// The high half where no fields are left out.
const ALL_FIELDS: i32 = 0x7fff;

/// Types of the system catalogue that take no text, or are no types for data.
const CATALOGUE_TYPES: [Oid; 9] = [
    pg_sys::INT2VECTOROID,
    pg_sys::OIDVECTOROID,
    pg_sys::PG_NODE_TREEOID,
    pg_sys::PG_NDISTINCTOID,
    pg_sys::PG_DEPENDENCIESOID,
    pg_sys::PG_MCV_LISTOID,
    pg_sys::PG_BRIN_BLOOM_SUMMARYOID,
    pg_sys::PG_BRIN_MINMAX_MULTI_SUMMARYOID,
    pg_sys::GTSVECTOROID,
];

/// Whether a type is refused whatever it is made of.
pub(super) fn is_refused(type_oid: Oid) -> bool {
    CATALOGUE_TYPES.contains(&type_oid)
}

/// Digits of a second, from a type modifier.
fn fraction(typmod: i32) -> u8 {
    u8::try_from(typmod).map_or(6, |digits| digits.min(6))
}

/// The type of values that are not made of others.
pub(super) fn scalar_type(type_oid: Oid, typmod: i32, output: Oid, purpose: Purpose) -> Answer<ColumnType> {
    // Lengths and precisions are stored with the length of a varlena header added.
    let limit = u32::try_from(typmod - pg_sys::VARHDRSZ as i32).ok();
    Ok(match type_oid {
        pg_sys::BOOLOID => ColumnType::Bool,
        pg_sys::INT2OID => ColumnType::Int2,
        pg_sys::INT4OID => ColumnType::Int4,
        pg_sys::INT8OID => ColumnType::Int8,
        pg_sys::XID8OID => ColumnType::Xid8,
        pg_sys::NUMERICOID => ColumnType::Numeric(limit.map(|packed| {
            // Eleven bits of scale, with a sign since version 15.
            let scale = ((packed & 0x7ff) ^ 1024) as i16 - 1024;
            ((packed >> 16) as u16, scale)
        })),
        pg_sys::FLOAT4OID => ColumnType::Float4,
        pg_sys::FLOAT8OID => ColumnType::Float8,
        pg_sys::TEXTOID => ColumnType::Text,
        pg_sys::VARCHAROID => ColumnType::Varchar(limit),
        pg_sys::BPCHAROID => match limit {
            Some(limit) => ColumnType::Char(limit),
            None if purpose == Purpose::Digests => ColumnType::Char(u32::MAX),
            None => {
                let what = "a char without a length keeps blanks that its comparisons ignore";
                return Err(unsupported(type_oid, what).hint(or_else("Make it text, varchar or char(n)")));
            }
        },
        pg_sys::BYTEAOID => ColumnType::Bytea,
        pg_sys::UUIDOID => ColumnType::Uuid,
        pg_sys::DATEOID => ColumnType::Date,
        pg_sys::TIMEOID => ColumnType::Time(fraction(typmod)),
        pg_sys::TIMETZOID => ColumnType::Timetz(fraction(typmod)),
        pg_sys::TIMESTAMPOID => ColumnType::Timestamp(fraction(typmod)),
        pg_sys::TIMESTAMPTZOID => ColumnType::Timestamptz(fraction(typmod)),
        pg_sys::INTERVALOID if typmod < 0 || purpose == Purpose::Digests => ColumnType::Interval(6),
        pg_sys::INTERVALOID if typmod >> 16 == ALL_FIELDS => match typmod & FULL_PRECISION {
            FULL_PRECISION => ColumnType::Interval(6),
            digits => ColumnType::Interval(fraction(digits)),
        },
        pg_sys::INTERVALOID => {
            let problem = unsupported(type_oid, "an interval of some fields cuts the others off");
            return Err(problem.hint(or_else("Make it interval, with a CHECK where that matters")));
        }
        pg_sys::JSONOID => ColumnType::Json,
        pg_sys::JSONBOID => ColumnType::Jsonb,
        pg_sys::MONEYOID => {
            let problem = unsupported(type_oid, "its text depends on lc_monetary");
            return Err(problem.hint(or_else("Make it numeric")));
        }
        known if is_refused(known) => {
            return Err(unsupported(known, "a type of the system catalogue"));
        }
        _ => return other_type(type_oid, output, purpose),
    })
}

fn or_else(remedy: &str) -> String {
    format!("{remedy}, or name the column among server_columns, so that it is neither sent nor compared.")
}

/// Why a type has no encoding, with what to do unless something better is known.
pub(super) fn unsupported(type_oid: Oid, what: &str) -> Problem {
    let name = type_name(type_oid);
    Problem::new(state::UNSUPPORTED, format!("type {name} has no encoding: {what}"))
        .hint("Name the column among server_columns, so that it is neither sent nor compared.")
}

fn other_type(type_oid: Oid, output: Oid, purpose: Purpose) -> Answer<ColumnType> {
    // SAFETY: looks the type up in the catalogue.
    let kind = unsafe { pg_sys::get_typtype(type_oid) } as u8;
    match kind {
        b'e' if purpose == Purpose::Digests => Ok(ColumnType::Enum(Vec::new())),
        b'e' => enum_labels(type_oid).map(ColumnType::Enum),
        b'b' => {
            let name = type_name(type_oid);
            if name.ends_with(".citext") || name == "citext" {
                return Ok(ColumnType::Citext);
            }
            // SAFETY: looks the function up in the catalogue.
            let volatility = unsafe { pg_sys::func_volatile(output) } as u8;
            if volatility == b'i' {
                Ok(ColumnType::Other(name))
            } else {
                let what = "its text output is not immutable: it depends on settings or on other objects";
                Err(unsupported(type_oid, what)
                    .hint(or_else("Make it a type whose values stand for themselves, as text")))
            }
        }
        _ => Err(unsupported(type_oid, "a pseudo-type")),
    }
}

fn enum_labels(type_oid: Oid) -> Answer<Vec<String>> {
    let labels: Option<Vec<String>> = Spi::connect(|client| {
        let sql = "SELECT pg_catalog.array_agg(e.enumlabel::pg_catalog.text ORDER BY e.enumsortorder)
             FROM pg_catalog.pg_enum e WHERE e.enumtypid OPERATOR(pg_catalog.=) $1";
        client.select(sql, Some(1), &[type_oid.into()])?.first().get_one()
    })?;
    Ok(labels.unwrap_or_default())
}
