//! Postgres as a database that is written to: what is its own. What all kinds have in common is tested on each of them alike
//! by the conformance suite.

use plimsoll_client::source::write::{Expected, LocalStore, RowChange};
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{RowWriter, key_of, position_in};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::store::{Applied, FailureKind, SourceRow};
use plimsoll_core::value::Value;

use crate::local::{KEY, Local};

fn row(schema: &TableSchema, values: &[Option<Value<'_>>]) -> SourceRow {
    let mut wire = Vec::new();
    let mut writer = RowWriter::new(&mut wire);
    for (number, value) in (1..).zip(values) {
        if let Some(value) = value {
            writer.field(number, value);
        }
    }
    let digest = Digester::new(FingerprintKey::new(KEY)).digest(&wire).expect("a digest");
    let position = position_in(&wire, schema).expect("a position");
    SourceRow { item: Item { position, digest }, key: key_of(&wire, schema).expect("a key"), row: wire }
}

fn apply(store: &mut dyn LocalStore, changes: &[RowChange<'_>]) -> Vec<String> {
    let mut answers = Vec::new();
    let outcome = store.transact(&mut |transaction| {
        answers = transaction.apply(0, changes)?;
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let word = |answer: &Applied| match answer {
        Applied::Done => "done".to_owned(),
        Applied::Refused { waits, reason } => format!("{} {waits}", reason.sqlstate),
        other => format!("{other:?}"),
    };
    answers.iter().map(word).collect()
}

fn upserts(rows: &[SourceRow]) -> Vec<RowChange<'_>> {
    rows.iter().map(|row| RowChange::Upsert { row, expected: Expected::Anything }).collect()
}

#[test]
fn what_is_checked_late_holds_at_the_end_of_a_batch() {
    let mut local = Local::new(
        "CREATE TABLE public.t (id int8 PRIMARY KEY, other int8 REFERENCES public.t DEFERRABLE INITIALLY DEFERRED,
             code text UNIQUE DEFERRABLE);
         INSERT INTO public.t VALUES (10, NULL, 'a'), (11, NULL, 'b')",
    );
    let (mut store, schema) = local.store("t", &["id int8*", "other int8", "code text"]);
    let of = |id: i64, other: Option<i64>, code: &str| {
        row(&schema, &[Some(Value::Int(id)), other.map(Value::Int), Some(Value::Text(code))])
    };
    // A circle, and values that change places.
    let rows = [of(1, Some(2), "one"), of(2, Some(1), "two"), of(10, Some(11), "b"), of(11, None, "a")];
    assert_eq!(apply(store.as_mut(), &upserts(&rows)), ["done"; 4]);
    let rows =
        [of(3, Some(99), "three"), of(12, None, "one"), of(13, Some(12), "four"), of(14, Some(1), "five")];
    assert_eq!(apply(store.as_mut(), &upserts(&rows)), ["23503 true", "23505 true", "23503 true", "done"]);
    // In batches of their own the rows of a circle wait for each other, in one they come.
    let circle = [of(20, Some(21), "x"), of(21, Some(20), "y")];
    assert_eq!(apply(store.as_mut(), &upserts(&circle[..1])), ["23503 true"]);
    assert_eq!(apply(store.as_mut(), &upserts(&circle)), ["done", "done"]);
}

#[test]
fn keys_and_columns_of_every_sort_are_written() {
    let mut local = Local::new(
        "CREATE EXTENSION citext; CREATE TYPE public.mood AS ENUM ('low', 'high');
         CREATE DOMAIN public.short AS varchar(5) CHECK (VALUE <> 'bad');
         CREATE TABLE public.t (k char(3), \"plimsoll_0\" public.mood, t public.citext, n int8 GENERATED ALWAYS AS IDENTITY,
             k2 public.short, list int4[], own int8 DEFAULT 7 NOT NULL, PRIMARY KEY (k, \"plimsoll_0\", t, n)) PARTITION BY LIST (\"plimsoll_0\");
         CREATE TABLE public.low PARTITION OF public.t FOR VALUES IN ('low');
         CREATE TABLE public.high PARTITION OF public.t FOR VALUES IN ('high')",
    );
    let columns = [
        "k char(3)*",
        "plimsoll_0 enum('low','high')*",
        "t citext*",
        "n int8*",
        "k2 varchar",
        "list array(int4)",
    ];
    let (mut store, schema) = local.store("t", &columns);
    let of = |k: &str, mood: &str, t: &str, n: i64, k2: &str| {
        let values = [Value::Text(k), Value::Enum(mood), Value::Text(t), Value::Int(n), Value::Text(k2)];
        row(&schema, &values.map(Some))
    };
    let rows = [
        of("a", "low", "x", 1, "1"),
        of("a", "high", "x", 1, "2"),
        of("a", "low", "X", 1, "3"),
        of("b", "low", "x", 2, "bad"),
        of("b", "low", "y", 2, "toolong"),
    ];
    let answers = apply(store.as_mut(), &upserts(&rows));
    // `x` and `X` are one key to citext.
    let good = if answers[0] == "done" { 0 } else { 2 };
    assert_eq!(answers[2 - good], "23505 true", "{answers:?}");
    assert_eq!((answers[good].as_str(), answers[1].as_str()), ("done", "done"));
    assert_eq!(answers[3..], ["23514 false", "22001 false"]);
    let changed = of("a", "low", if good == 0 { "x" } else { "X" }, 1, "4");
    assert_eq!(apply(store.as_mut(), &upserts(std::slice::from_ref(&changed))), ["done"]);
    let delete = RowChange::Delete {
        position: rows[1].item.position,
        key: &rows[1].key,
        expected: Expected::Row(plimsoll_core::short::ShortItem::from(&rows[1].item).digest),
    };
    assert_eq!(apply(store.as_mut(), &[delete]), ["done"]);
    let left = local.writer.query_one("SELECT string_agg(k2 || own, ' ') FROM public.t", &[]).expect("a row");
    assert_eq!(left.get::<_, String>(0), "47");
}

#[test]
fn a_missing_right_is_named_and_nothing_is_refused_for_it() {
    let mut local = Local::new("CREATE TABLE public.t (id int8 PRIMARY KEY)");
    let (mut store, schema) = local.store("t", &["id int8*"]);
    let revoke = format!("REVOKE INSERT ON public.t FROM {}", local.reader.role);
    local.writer.batch_execute(&revoke).expect("revoked");
    let given = row(&schema, &[Some(Value::Int(1))]);
    let failure = store
        .transact(&mut |transaction| transaction.apply(0, &upserts(std::slice::from_ref(&given))).map(drop))
        .expect_err("no right");
    assert_eq!(failure.kind, FailureKind::Table);
    let hint = failure.hint.expect("a hint");
    assert!(hint.starts_with("GRANT SELECT, INSERT, UPDATE, DELETE ON \"public\".\"t\" TO"), "{hint}");
}

#[test]
fn a_row_is_not_taken_out_for_a_moment_where_a_partition_or_a_rule_acts_on_deletes() {
    let whole = "CREATE TABLE public.t (id int8 PRIMARY KEY, code text UNIQUE)";
    let parts = "CREATE TABLE public.t (id int8 PRIMARY KEY, code text) PARTITION BY RANGE (id);
         CREATE TABLE public.low PARTITION OF public.t FOR VALUES FROM (0) TO (100);
         CREATE UNIQUE INDEX ON public.low (code)";
    let trigger = "CREATE FUNCTION public.tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             DELETE FROM public.child WHERE t = OLD.id; RETURN NULL; END $$;
         CREATE TRIGGER tells AFTER DELETE ON public.low FOR EACH ROW EXECUTE FUNCTION public.tells()";
    let rule = "CREATE RULE tells AS ON DELETE TO public.t DO ALSO DELETE FROM public.child WHERE t = OLD.id";
    for (table, acts) in [(parts, trigger), (whole, rule)] {
        let mut local = Local::new(&format!(
            "{table}; CREATE TABLE public.child (t int8); GRANT ALL ON public.child TO PUBLIC; {acts};
             INSERT INTO public.t VALUES (1, 'a'), (2, 'b'); INSERT INTO public.child VALUES (1), (2)"
        ));
        let (mut store, schema) = local.store("t", &["id int8*", "code text"]);
        let of = |id: i64, code: &str| row(&schema, &[Some(Value::Int(id)), Some(Value::Text(code))]);
        let answers = apply(store.as_mut(), &upserts(&[of(1, "b"), of(2, "a")]));
        assert_eq!(answers, ["23505 true"; 2], "{acts}");
        let left = local.writer.query("SELECT t FROM public.child", &[]).expect("rows");
        assert_eq!(left.len(), 2, "{acts}");
    }
}
