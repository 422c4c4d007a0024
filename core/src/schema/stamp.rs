//! A number that tells one understanding of a table from another.

use super::{Column, TableSchema};

fn stamp_of(context: &str, texts: impl Iterator<Item = String>) -> i64 {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for text in texts {
        hasher.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl TableSchema {
    /// A number that is another whenever rows are encoded, placed or refused otherwise: columns came or went, have
    /// another type, take NULL or do so no longer, or play another part. A column that is renamed is the same column.
    pub fn stamp(&self) -> i64 {
        self.stamp_with(&[])
    }

    /// The same for more that decides what becomes of rows: another number whenever one of these texts is another.
    pub fn stamp_with(&self, more: &[String]) -> i64 {
        let of = |Column { number, column_type, not_null, .. }: &Column| {
            format!("{number} {not_null} {column_type}")
        };
        let (key, placed_by) = (self.key_indexes(), self.placed_by_indexes());
        let modified = self.modified().map(|column| column.number);
        let parts = format!("{key:?} {placed_by:?} {:?} {modified:?}", self.version_index());
        let texts = self.columns().iter().map(of).chain([parts]).chain(more.iter().cloned());
        stamp_of("plimsoll schema stamp 1", texts)
    }

    /// A number that is another whenever keys are encoded or placed otherwise, or one of these texts is another.
    pub fn key_stamp_with(&self, more: &[String]) -> i64 {
        let of = |place: &usize| {
            self.columns().get(*place).map(|column| format!("{} {}", column.number, column.column_type))
        };
        let texts =
            |places: &[usize]| places.iter().filter_map(of).chain([String::new()]).collect::<Vec<_>>();
        let own = [texts(self.key_indexes()), texts(self.placed_by_indexes())].concat();
        stamp_of("plimsoll key stamp 1", own.into_iter().chain(more.iter().cloned()))
    }

    /// What the columns of another understanding of the same table are not as in this one, for people: the first few,
    /// by name. Empty where the stamps are equal.
    pub fn changes_to(&self, other: &TableSchema) -> Vec<String> {
        let mut changes = Vec::new();
        for column in self.columns() {
            let name = &column.name;
            match other.column(column.number) {
                None => changes.push(format!("column \"{name}\" is gone")),
                Some(now) => {
                    let (before, after) = (&column.column_type, &now.column_type);
                    if before != after {
                        changes.push(format!("column \"{}\" was {before} and is {after}", now.name));
                    }
                    if column.not_null != now.not_null {
                        let what = if now.not_null { "takes no NULL any more" } else { "takes NULL now" };
                        changes.push(format!("column \"{}\" {what}", now.name));
                    }
                }
            }
        }
        let added = other.columns().iter().filter(|column| self.column(column.number).is_none());
        changes.extend(
            added.map(|column| format!("column \"{}\" of type {} is new", column.name, column.column_type)),
        );
        if changes.is_empty() && self.stamp() != other.stamp() {
            changes.push("key, version or last-modified column are others".to_owned());
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::super::Roles;
    use super::*;

    fn schema(columns: &[(u32, &str, &str, bool)], key: &[&str], version: &str) -> TableSchema {
        let column = |(number, name, column_type, not_null): &(u32, &str, &str, bool)| Column {
            number: *number,
            name: (*name).to_owned(),
            column_type: column_type.parse().expect("a type"),
            not_null: *not_null,
        };
        let roles = Roles { key, version: Some(version), ..Roles::default() };
        TableSchema::new(columns.iter().map(column).collect(), &roles).expect("a schema")
    }

    #[test]
    fn a_stamp_is_another_where_rows_would_be_understood_otherwise_and_the_change_is_named() {
        let usual =
            [(1, "id", "int8", true), (2, "name", "varchar(10)", false), (3, "version", "int8", true)];
        let before = schema(&usual, &["id"], "version");
        type Columns = Vec<(u32, &'static str, &'static str, bool)>;
        let with = |change: &dyn Fn(&mut Columns)| {
            let mut columns = usual.to_vec();
            change(&mut columns);
            let after = schema(&columns, &["id"], "version");
            assert_eq!(before.stamp() == after.stamp(), before.changes_to(&after).is_empty());
            before.changes_to(&after).join("; ")
        };
        assert_eq!(with(&|columns| columns[1].1 = "title"), "", "a renamed column is the same");
        assert_eq!(
            with(&|columns| columns[1].2 = "varchar(20)"),
            "column \"name\" was varchar(10) and is varchar(20)"
        );
        assert_eq!(with(&|columns| columns[1].3 = true), "column \"name\" takes no NULL any more");
        assert_eq!(with(&|columns| columns.retain(|column| column.0 != 2)), "column \"name\" is gone");
        assert_eq!(
            with(&|columns| columns.push((4, "price", "numeric(8,2)", false))),
            "column \"price\" of type numeric(8,2) is new"
        );
        let elsewhere = schema(&usual, &["id"], "id");
        assert_eq!(before.changes_to(&elsewhere), ["key, version or last-modified column are others"]);
        assert_ne!(before.stamp(), elsewhere.stamp());
    }
}
