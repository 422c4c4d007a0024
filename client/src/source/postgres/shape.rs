//! What a column's values look like on the wire, and which type a managed column should have for them.

use std::collections::HashMap;

/// The binary form of a type's values, or that they come as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// `bool`
    Bool,
    /// `int2`
    Int2,
    /// `int4`
    Int4,
    /// `int8`
    Int8,
    /// `xid8`
    Xid8,
    /// `oid`, a number without a sign
    Oid,
    /// `numeric`
    Numeric,
    /// `float4`
    Float4,
    /// `float8`
    Float8,
    /// `text`, `varchar`, `citext`, `name`
    Text,
    /// `char(n)`: blanks at the end do not count
    Padded,
    /// `bytea`
    Bytea,
    /// `uuid`
    Uuid,
    /// `date`
    Date,
    /// `time`
    Time,
    /// `timetz`
    Timetz,
    /// `timestamp`
    Timestamp,
    /// `timestamptz`
    Timestamptz,
    /// `interval`
    Interval,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// An enum: its label
    Enum,
    /// `money`: selected as a numeric
    Money,
    /// An array
    Array(Box<Shape>),
    /// A range
    Range(Box<Shape>),
    /// A multirange, of such ranges
    Multirange(Box<Shape>),
    /// A composite: its attributes' names and shapes in order
    Composite(Vec<(String, Shape)>),
    /// Any other type, by its name: its own text output
    Written(String),
}

impl Shape {
    /// Whether its values are selected by their text output: their binary form is the type's own secret, or that of
    /// what they are made of.
    pub fn is_written(&self) -> bool {
        match self {
            Shape::Written(_) | Shape::Money => true,
            Shape::Array(inner) | Shape::Range(inner) | Shape::Multirange(inner) => inner.is_written(),
            Shape::Composite(attributes) => attributes.iter().any(|(_, shape)| shape.is_written()),
            _ => false,
        }
    }
}

/// A type as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// Its name, with the schema where that is not `pg_catalog`.
    pub name: String,
    /// What makes it.
    pub making: Making,
    /// The schema of the operators that order its values; `None` where it has none of its own.
    pub operators: Option<String>,
}

/// By which operators the values of a type are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operators {
    /// Those of `pg_catalog`.
    Catalogue,
    /// Those of an extension's schema.
    Schema(String),
    /// None: their text is compared.
    None,
}

/// What a type is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Making {
    /// Nothing else.
    Base,
    /// Labels.
    Enum,
    /// Another type with restrictions: its OID and modifier.
    Domain(u32, i32),
    /// Elements.
    Array(u32),
    /// Bounds.
    Range(u32),
    /// Ranges.
    Multirange(u32),
    /// Attributes: name and type.
    Composite(Vec<(String, u32)>),
}

/// The types of some tables, with all that they are made of.
#[derive(Debug, Default)]
pub struct Types(pub HashMap<u32, TypeRow>);

/// As deep as the encoding nests.
const MAX_DEPTH: usize = plimsoll_core::row::MAX_DEPTH;

impl Types {
    /// The type that is left when domains are taken off, with its modifier.
    pub fn base(&self, mut oid: u32, mut modifier: i32) -> (u32, i32) {
        while let Some(Making::Domain(base, own)) = self.0.get(&oid).map(|found| &found.making) {
            (oid, modifier) = (*base, *own);
        }
        (oid, modifier)
    }

    /// By which operators its values are compared.
    pub fn operators(&self, oid: u32) -> Operators {
        let (oid, _) = self.base(oid, -1);
        match (built_in(oid), self.0.get(&oid)) {
            (Some(Shape::Json), _) | (None, None) => Operators::None,
            (Some(_), _) => Operators::Catalogue,
            (None, Some(found)) => {
                // What nests is compared by the catalogue's operators, and those by the parts' own.
                let of_parts =
                    |parts: &[u32]| match parts.iter().all(|oid| self.operators(*oid) != Operators::None) {
                        true => Operators::Catalogue,
                        false => Operators::None,
                    };
                match (&found.making, &found.operators) {
                    (Making::Enum | Making::Range(_) | Making::Multirange(_), _) => Operators::Catalogue,
                    (Making::Array(element), _) => of_parts(&[*element]),
                    (Making::Composite(attributes), _) => {
                        of_parts(&attributes.iter().map(|(_, oid)| *oid).collect::<Vec<_>>())
                    }
                    (_, Some(schema)) if schema == "pg_catalog" => Operators::Catalogue,
                    (_, Some(schema)) => Operators::Schema(schema.clone()),
                    (_, None) => Operators::None,
                }
            }
        }
    }

    /// The shape of a type's values.
    pub fn shape(&self, oid: u32) -> Shape {
        self.shape_at(oid, 0)
    }

    fn shape_at(&self, oid: u32, depth: usize) -> Shape {
        let (oid, _) = self.base(oid, -1);
        if let Some(shape) = built_in(oid) {
            return shape;
        }
        let Some(found) = self.0.get(&oid) else { return Shape::Written(oid.to_string()) };
        let written = || Shape::Written(found.name.clone());
        if depth > MAX_DEPTH {
            return written();
        }
        let inner = |oid: u32| Box::new(self.shape_at(oid, depth + 1));
        match &found.making {
            Making::Enum => Shape::Enum,
            Making::Array(element) => Shape::Array(inner(*element)),
            Making::Range(bound) => Shape::Range(inner(*bound)),
            Making::Multirange(range) => match *inner(*range) {
                Shape::Range(bound) => Shape::Multirange(bound),
                _ => written(),
            },
            Making::Composite(attributes) => {
                Shape::Composite(attributes.iter().map(|(name, oid)| (name.clone(), *inner(*oid))).collect())
            }
            Making::Base if is_citext(&found.name) => Shape::Text,
            Making::Base | Making::Domain(..) => written(),
        }
    }
}

/// Whether a type's name is citext's, in whichever schema.
pub fn is_citext(name: &str) -> bool {
    bare(name) == "citext"
}

/// A type's name without its schema.
pub fn bare(name: &str) -> &str {
    match name.rfind('"') {
        Some(_) => name.rsplit_once(".\"").map_or(name, |(_, last)| last).trim_matches('"'),
        None => name.rsplit_once('.').map_or(name, |(_, last)| last),
    }
}

/// Whether two names, whose schemas do not matter, are one type's.
pub fn same_type(one: &str, other: &str) -> bool {
    // Modifiers are another matter.
    let usual = |name| match bare(name).split('(').next().unwrap_or_default() {
        "bit varying" => "varbit",
        name => name,
    };
    usual(one) == usual(other)
}

/// The shapes of types that every server has under the same OID.
fn built_in(oid: u32) -> Option<Shape> {
    Some(match oid {
        16 => Shape::Bool,
        17 => Shape::Bytea,
        19 | 25 | 1043 => Shape::Text,
        20 => Shape::Int8,
        21 => Shape::Int2,
        23 => Shape::Int4,
        26 => Shape::Oid,
        114 => Shape::Json,
        700 => Shape::Float4,
        701 => Shape::Float8,
        790 => Shape::Money,
        1042 => Shape::Padded,
        1082 => Shape::Date,
        1083 => Shape::Time,
        1114 => Shape::Timestamp,
        1184 => Shape::Timestamptz,
        1186 => Shape::Interval,
        1266 => Shape::Timetz,
        1700 => Shape::Numeric,
        2950 => Shape::Uuid,
        3802 => Shape::Jsonb,
        5069 => Shape::Xid8,
        _ => return None,
    })
}

/// The type that a managed column should have for a column of this type and modifier; `declared` is how the server
/// spells the two. What a managed column cannot be, or what the shared database need not have, becomes text.
pub fn proposed(shape: &Shape, declared: &str) -> String {
    match shape {
        Shape::Enum => "text".to_owned(),
        Shape::Money => "numeric".to_owned(),
        Shape::Oid => "bigint".to_owned(),
        // A field list or precision restricts intervals in a way that managed columns do not have.
        Shape::Interval => "interval".to_owned(),
        Shape::Text if declared == "name" => "text".to_owned(),
        // A char without a length keeps blanks, but no managed column is one.
        Shape::Padded if !declared.contains('(') => "text".to_owned(),
        Shape::Array(element) => match **element {
            Shape::Enum | Shape::Money | Shape::Oid => format!("{}[]", proposed(element, "")),
            Shape::Text if declared == "name[]" => "text[]".to_owned(),
            Shape::Int2 if declared == "int2vector" => "smallint[]".to_owned(),
            Shape::Written(ref name) if is_ours_alone(name) => "text[]".to_owned(),
            _ => declared.to_owned(),
        },
        Shape::Written(name) if is_ours_alone(name) => "text".to_owned(),
        _ => declared.to_owned(),
    }
}

/// Whether a type means something in its own database only, or its text is no constant of the value.
fn is_ours_alone(name: &str) -> bool {
    let catalogue = name.starts_with("reg") || name.starts_with("pg_") && name != "pg_lsn";
    catalogue
        || matches!(name, "\"char\"" | "xid" | "cid" | "tid" | "aclitem" | "refcursor" | "txid_snapshot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_schema() {
        for (name, expected) in [
            ("inet", "inet"),
            ("public.hstore", "hstore"),
            ("bit varying", "bit varying"),
            ("pg_catalog.\"char\"", "char"),
            ("\"Odd.Schema\".\"Odd.Type\"", "Odd.Type"),
        ] {
            assert_eq!(bare(name), expected);
        }
    }

    #[test]
    fn what_a_managed_column_cannot_be_is_proposed_as_what_it_can() {
        let written = |name: &str| Shape::Written(name.to_owned());
        for (element, declared, expected) in [
            (written("regclass"), "regclass[]", "text[]"),
            (written("xid"), "xid[]", "text[]"),
            (written("box"), "box[]", "box[]"),
            (Shape::Money, "money[]", "numeric[]"),
            (Shape::Int2, "int2vector", "smallint[]"),
            (Shape::Int2, "smallint[]", "smallint[]"),
        ] {
            assert_eq!(proposed(&Shape::Array(Box::new(element)), declared), expected);
        }
    }

    #[test]
    fn domains_over_domains_are_their_base() {
        let row = |making| TypeRow { name: "d".to_owned(), making, operators: None };
        let types = Types(HashMap::from([
            (1, row(Making::Domain(2, -1))),
            (2, row(Making::Domain(1700, 327_686))),
            (3, row(Making::Array(1))),
        ]));
        assert_eq!(types.base(1, -1), (1700, 327_686));
        assert_eq!(types.shape(3), Shape::Array(Box::new(Shape::Numeric)));
    }
}
