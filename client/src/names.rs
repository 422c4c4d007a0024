//! Names of Postgres' tables and columns: quoted where they must be, and taken apart again.

/// Words that are no names without quotes.
const RESERVED: [&str; 78] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "having",
    "in",
    "initially",
    "intersect",
    "into",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "returning",
    "select",
    "session_user",
    "some",
    "symmetric",
    "system_user",
    "table",
    "then",
    "to",
    "trailing",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "variadic",
    "when",
    "where",
    "window",
    "with",
];

/// A name as it stands in SQL.
pub fn identifier(name: &str) -> String {
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        && !RESERVED.contains(&name);
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A table's name in two parts, without quotes; the schema may be missing.
///
/// Quotes may be left out where only one dot stands in the text, whatever else does: `public.Order Lines`
/// is `public."Order Lines"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Relation {
    /// The schema.
    pub schema: Option<String>,
    /// The table.
    pub table: String,
}

impl Relation {
    /// Reads `schema.table` or `table`.
    pub fn parse(text: &str) -> Relation {
        let (first, rest) = part(text);
        match rest {
            Some(rest) => Relation { schema: Some(first), table: part(rest).0 },
            None => Relation { schema: None, table: first },
        }
    }

    /// As the server writes it.
    pub fn text(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", identifier(schema), identifier(&self.table)),
            None => identifier(&self.table),
        }
    }

    /// Whether `self`, which may lack the schema, can mean `other`.
    pub fn means(&self, other: &Relation, same: impl Fn(&str, &str) -> bool) -> bool {
        let schema = match (&self.schema, &other.schema) {
            (Some(own), Some(other)) => same(own, other),
            (own, _) => own.is_none(),
        };
        schema && same(&self.table, &other.table)
    }
}

/// The first part of a name, and what follows its dot.
fn part(text: &str) -> (String, Option<&str>) {
    let Some(quoted) = text.strip_prefix('"') else {
        return match text.split_once('.') {
            Some((name, rest)) => (name.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        };
    };
    let mut name = String::new();
    let mut rest = quoted;
    while let Some((inside, after)) = rest.split_once('"') {
        name.push_str(inside);
        match after.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return (name, after.strip_prefix('.')),
        }
    }
    // No closing quote: the text is its own name.
    (text.to_owned(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_and_together() {
        let relation = |schema: Option<&str>, table: &str| Relation {
            schema: schema.map(str::to_owned),
            table: table.to_owned(),
        };
        for (text, parsed, written) in [
            ("public.orders", relation(Some("public"), "orders"), "public.orders"),
            ("orders", relation(None, "orders"), "orders"),
            ("public.Order Lines", relation(Some("public"), "Order Lines"), "public.\"Order Lines\""),
            ("public.\"Order Lines\"", relation(Some("public"), "Order Lines"), "public.\"Order Lines\""),
            ("\"a.b\".\"c\"\"d\"", relation(Some("a.b"), "c\"d"), "\"a.b\".\"c\"\"d\""),
            ("\"2B\"", relation(None, "2B"), "\"2B\""),
            ("shop.order", relation(Some("shop"), "order"), "shop.\"order\""),
        ] {
            assert_eq!(Relation::parse(text), parsed, "{text}");
            assert_eq!(parsed.text(), written);
        }
        let same = |a: &str, b: &str| a == b;
        assert!(Relation::parse("orders").means(&Relation::parse("public.orders"), same));
        assert!(!Relation::parse("shop.orders").means(&Relation::parse("public.orders"), same));
    }
}
