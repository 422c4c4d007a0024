//! The judge: adds up the digests of a replica's rows itself and compares that with everything the server
//! keeps and answers. Each comparison is one statement, so one snapshot.

use postgres::types::FromSql;
use postgres::{Client, Error, Row};

use crate::world::{Tenant, World};

/// Beyond this many rows nobody wants to read them all.
const MOST_SHOWN: usize = 20;

/// A set of rows: how many, the sum of their digests modulo 2^256, the latest change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    pub count: i64,
    pub sum: [u8; 32],
    pub latest: Option<i64>,
}

impl Summary {
    fn add(&mut self, row: &Seen) {
        self.count += 1;
        let mut carry = 0u16;
        for (byte, added) in self.sum.iter_mut().zip(&row.digest) {
            let total = u16::from(*byte) + u16::from(*added) + carry;
            (*byte, carry) = (total as u8, total >> 8);
        }
        self.latest = self.latest.max(row.changed);
    }
}

/// A row as the row manifest tells it.
struct Seen {
    position: i64,
    changed: Option<i64>,
    digest: Vec<u8>,
}

/// All rows of a replica, read one by one.
pub struct Rows(Vec<Seen>);

impl Rows {
    fn of(row: &Row, column: usize) -> Self {
        fn list<T: for<'a> FromSql<'a>>(row: &Row, column: usize) -> Vec<T> {
            row.get::<_, Option<Vec<T>>>(column).unwrap_or_default()
        }
        let positions: Vec<i64> = list(row, column);
        let changed: Vec<Option<i64>> = list(row, column + 1);
        let digests: Vec<Vec<u8>> = list(row, column + 2);
        let rows = positions.into_iter().zip(changed).zip(digests);
        Rows(rows.map(|((position, changed), digest)| Seen { position, changed, digest }).collect())
    }

    /// Those from one position to another, both included.
    pub fn between(&self, first: i64, last: i64) -> Summary {
        let mut summary = Summary::default();
        for row in self.0.iter().filter(|row| (first..=last).contains(&row.position)) {
            summary.add(row);
        }
        summary
    }

    /// All of them.
    pub fn all(&self) -> Summary {
        self.between(i64::MIN, i64::MAX)
    }
}

/// Microseconds since 2000, infinities as the type has them.
fn micros(column: &str) -> String {
    format!(
        "CASE {column} WHEN 'infinity' THEN 9223372036854775807 WHEN '-infinity' THEN -9223372036854775808
             ELSE (extract(epoch FROM {column} - '2000-01-01Z'::timestamptz) * 1000000)::int8 END"
    )
}

/// Compares what is answered of a replica with its rows. Answers whether the answer was a kept one; says what
/// differs otherwise.
pub fn compare(
    client: &mut Client,
    tenant: &Tenant,
    relation: &str,
    range: (i64, i64),
) -> Result<Result<bool, String>, Error> {
    let is = tenant.is("t");
    let sql = format!(
        "SELECT v.row_count, v.max_version, {}, v.fingerprint, r.row_count, r.fingerprint,
                (SELECT count(*) FROM {relation} t WHERE {is}),
                m.positions, m.changes, m.digests
         FROM plimsoll.table_version($1, $2) v, plimsoll.range_fingerprint($1, $2, int8range($3, $4)) r,
             (SELECT array_agg(version) AS positions, array_agg({}) AS changes, array_agg(digest) AS digests
              FROM plimsoll.manifest($1, $2, '(,)')) m",
        micros("v.max_modified"),
        micros("modified")
    );
    let (from, to) = range;
    let row = client.query_one(&sql, &[&tenant.database_id, &relation, &from, &to])?;
    let rows = Rows::of(&row, 7);
    let (all, part) = (rows.all(), rows.between(from, to - 1));
    let kept: Option<Vec<u8>> = row.get(3);
    let mut wrong = Vec::new();
    let mut expect = |what: &str, right: bool, told: String| {
        if !right {
            wrong.push(format!("{what}: {told}"));
        }
    };
    let (count, last) = (row.get::<_, i64>(6), rows.0.iter().map(|row| row.position).max());
    expect("rows read", all.count == count, format!("{} of {count}", all.count));
    expect("row count", row.get::<_, i64>(0) == count, format!("{} for {count}", row.get::<_, i64>(0)));
    let told: Option<i64> = row.get(1);
    expect("highest position", told == last, format!("{told:?} for {last:?}"));
    let told: Option<i64> = row.get(2);
    expect("latest change", told == all.latest, format!("{told:?} for {:?}", all.latest));
    if let Some(kept) = &kept {
        expect("fingerprint", *kept == all.sum, format!("{kept:02x?} for {:02x?}", all.sum));
    }
    let told: (i64, Vec<u8>) = (row.get(4), row.get(5));
    let right = told == (part.count, part.sum.to_vec());
    expect("range", right, format!("[{from},{to}) is {told:02x?} for {part:02x?}"));
    if wrong.is_empty() {
        return Ok(Ok(kept.is_some()));
    }
    Ok(Err(format!("{relation} of {}: {}", tenant.database_id, wrong.join("; "))))
}

/// Compares every replica while nobody changes it: its answers, and after a fold every block, which all must lie
/// apart and none be missing. Answers how many replicas were answered of from what is kept.
#[track_caller]
pub fn check_everything(client: &mut Client, world: &World<'_>) -> usize {
    let mut kept = 0;
    for (tenant, relation) in world.replicas() {
        kept += usize::from(check_replica(client, world, tenant, relation));
    }
    kept
}

/// As [`check_everything`], where what is kept must be in use.
#[track_caller]
pub fn check_all_kept(client: &mut Client, world: &World<'_>) {
    assert_eq!(check_everything(client, world), world.replicas().count(), "replicas that are kept");
}

#[track_caller]
fn check_replica(client: &mut Client, world: &World<'_>, tenant: &Tenant, relation: &str) -> bool {
    let verdict = compare(client, tenant, relation, (0, 5_000)).expect("an answer");
    let kept = verdict.unwrap_or_else(|wrong| panic!("{wrong}"));
    if !kept {
        return false;
    }
    let wrong = "SELECT to_jsonb(c)::text FROM plimsoll.check_manifest($1, $2) c";
    let wrong = client.query(wrong, &[&tenant.database_id, &relation]).expect("a check");
    let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
    assert!(wrong.is_empty(), "{relation} of {tenant:?}: {:#?}", &wrong[..wrong.len().min(MOST_SHOWN)]);
    world.fold(client, tenant, relation);
    let rows = "SELECT array_agg(version), array_agg(change), array_agg(digest)
                FROM (SELECT version, digest, {} AS change FROM plimsoll.manifest($1, $2, '(,)')) m";
    let rows = rows.replace("{}", &micros("modified"));
    let rows = Rows::of(&client.query_one(&rows, &[&tenant.database_id, &relation]).expect("rows"), 0);
    let blocks = "SELECT b.first_position, b.last_position, b.row_count, b.sum, {}
                  FROM plimsoll.kept_block b JOIN plimsoll.table_record t USING (table_id)
                  WHERE b.database_id = $1 AND format('%I.%I', t.schema_name, t.table_name) = $2
                  ORDER BY 1";
    let blocks = blocks.replace("{}", &micros("b.max_modified"));
    let blocks = client.query(&blocks, &[&tenant.database_id, &relation]).expect("blocks");
    let (mut next, mut count) = (Some(i64::MIN), 0);
    for block in blocks {
        let (first, last): (i64, i64) = (block.get(0), block.get(1));
        let sum = block.get::<_, Vec<u8>>(3).try_into().expect("a sum of 32 bytes");
        let found = Summary { count: block.get(2), sum, latest: block.get(4) };
        assert!(next.is_some_and(|next| next <= first), "{relation} of {tenant:?}: blocks share {first}");
        assert_eq!(found, rows.between(first, last), "{relation} of {tenant:?}: the block [{first},{last}]");
        next = last.checked_add(1);
        count += found.count;
    }
    assert_eq!(count, rows.all().count, "{relation} of {tenant:?}: rows beside all blocks");
    let ranges = "SELECT COALESCE(lower(range), -9223372036854775808), COALESCE(upper(range) - 1, 9223372036854775807),
                      row_count, fingerprint FROM plimsoll.range_manifest($1, $2, '(,)', 40)";
    let ranges = client.query(ranges, &[&tenant.database_id, &relation]).expect("ranges");
    let mut count = 0;
    for range in ranges {
        let (found, sum): (i64, Vec<u8>) = (range.get(2), range.get(3));
        let right = rows.between(range.get(0), range.get(1));
        assert_eq!((found, sum), (right.count, right.sum.to_vec()), "{relation} of {tenant:?}: {range:?}");
        count += found;
    }
    assert_eq!(count, rows.all().count, "{relation} of {tenant:?}: rows beside all ranges");
    let verdict = compare(client, tenant, relation, (-100, 77)).expect("an answer");
    verdict.unwrap_or_else(|wrong| panic!("after a fold: {wrong}"))
}
