//! The rows of both sides, the clock, the faults and the log.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use plimsoll_core::digest::RowDigest;
use plimsoll_core::fingerprint::Fingerprint;
use plimsoll_core::manifest::Item;
use plimsoll_core::store::{
    BadRow, BatchRecord, Failure, FailureKind, KeyId, Outcome, PositionRange, Rejected, SourceKey,
    SourceRecord, SourceRow, TableId, TableShape, TableVersion, Uploaded,
};
use plimsoll_core::sync::{Event, TableMemory};
use rand::{RngExt, SeedableRng, rngs::StdRng};

/// What the target makes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// The target rejects it.
    Poison,
    /// No encoding holds it.
    Bad,
    /// Neither, and its version is none: it stands nowhere on the axis.
    Nowhere,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRow {
    pub version: i64,
    pub value: u32,
    pub unique: Option<u32>,
    pub parent: Option<u64>,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemoteRow {
    pub version: i64,
    pub value: u32,
    pub unique: Option<u32>,
    pub parent: Option<u64>,
}

/// A local key that is so much larger than another one becomes the same when it is encoded.
pub const OTHER_SPELLING: u64 = 1 << 40;

pub fn key_bytes(key: u64) -> Vec<u8> {
    key.to_be_bytes().to_vec()
}

/// A bit of a row's value that is in no short sum: what short sums confuse by chance.
pub const UNSEEN: u32 = 1 << 31;

/// The model's own digest: of the values, as quick as can be. A keyless row is its values alone.
fn item(shape: TableShape, key: u64, row: &RemoteRow, kind: Kind) -> Item {
    let key = if shape.keyless { 0 } else { key % OTHER_SPELLING };
    let mut digest = [0; 32];
    for (salt, part) in digest.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        let value = if salt == 0 { row.value & !UNSEEN } else { row.value };
        (salt, key, row.version, value, row.unique, row.parent, kind as u8).hash(&mut hasher);
        part.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    let position = match (shape.hashed, shape.keyless) {
        (false, _) => row.version,
        (true, true) => i64::from_le_bytes(digest[16..24].try_into().unwrap()),
        (true, false) => {
            let mut hasher = DefaultHasher::new();
            key.hash(&mut hasher);
            hasher.finish() as i64
        }
    };
    Item { position, digest: RowDigest(digest) }
}

impl LocalRow {
    pub fn new(version: i64, value: u32) -> Self {
        LocalRow { version, value, unique: None, parent: None, kind: Kind::Good }
    }
    pub fn item(&self, shape: TableShape, key: u64) -> Item {
        item(shape, key, &self.stored(), self.kind)
    }
    pub fn key(&self, shape: TableShape, key: u64) -> Vec<u8> {
        if shape.keyless { self.bytes(0) } else { key_bytes(key % OTHER_SPELLING) }
    }
    /// The row as one that is not sent, because another one has its key.
    pub fn double(&self, shape: TableShape, key: u64) -> SourceRecord {
        SourceRecord::Bad(Box::new(BadRow {
            position: self.position(shape, key),
            key: SourceKey::Raw(key_bytes(key)),
            key_text: format!("{{\"id\": \"{key}\"}}"),
            source_digest: self.item(shape, key).digest,
            column: None,
            sqlstate: "23505".to_owned(),
            message: format!("{key} is {}", key % OTHER_SPELLING),
            shares_key: true,
        }))
    }
    pub fn record(&self, shape: TableShape, key: u64) -> SourceRecord {
        if matches!(self.kind, Kind::Bad | Kind::Nowhere) {
            return SourceRecord::Bad(Box::new(BadRow {
                position: self.position(shape, key),
                key: match shape.keyless {
                    true => SourceKey::Raw(self.bytes(0)),
                    false => SourceKey::Encoded(key_bytes(key)),
                },
                key_text: format!("{{\"id\": {key}}}"),
                source_digest: self.item(shape, key).digest,
                column: Some("value".to_owned()),
                sqlstate: "22021".to_owned(),
                message: "column \"value\" holds NUL".to_owned(),
                shares_key: false,
            }));
        }
        let row = self.bytes(if shape.keyless { 0 } else { key % OTHER_SPELLING });
        SourceRecord::Row(SourceRow { item: self.item(shape, key), key: self.key(shape, key), row })
    }
    pub fn position(&self, shape: TableShape, key: u64) -> Option<i64> {
        let position = || match shape.hashed {
            true => self.item(shape, key).position,
            false => self.version,
        };
        (self.kind != Kind::Nowhere).then(position)
    }
    /// The row as it travels: the model's own form.
    pub fn bytes(&self, key: u64) -> Vec<u8> {
        let mut bytes = key_bytes(key);
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.value.to_be_bytes());
        bytes.extend(self.unique.map_or(u64::MAX, u64::from).to_be_bytes());
        bytes.extend(self.parent.unwrap_or(u64::MAX).to_be_bytes());
        bytes.push(self.kind as u8);
        bytes
    }
    pub fn stored(&self) -> RemoteRow {
        RemoteRow { version: self.version, value: self.value, unique: self.unique, parent: self.parent }
    }
}

impl RemoteRow {
    /// From the bytes of an upload: key, row, whether the target rejects it.
    pub fn decode(bytes: &[u8]) -> (u64, RemoteRow, bool) {
        let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let value = u32::from_be_bytes(bytes[16..20].try_into().unwrap());
        let unique = Some(long(20)).filter(|unique| *unique != u64::MAX).map(|unique| unique as u32);
        let parent = Some(long(28)).filter(|parent| *parent != u64::MAX);
        let row = RemoteRow { version: long(8) as i64, value, unique, parent };
        (long(0), row, bytes[36] == Kind::Poison as u8)
    }
    pub fn item(&self, shape: TableShape, key: u64) -> Item {
        item(shape, key, self, Kind::Good)
    }
    /// The row's encoded key.
    pub fn key(&self, shape: TableShape, key: u64) -> Vec<u8> {
        let row = LocalRow {
            version: self.version,
            value: self.value,
            unique: self.unique,
            parent: self.parent,
            kind: Kind::Good,
        };
        row.key(shape, key)
    }
}

#[derive(Debug, Default)]
pub struct Table {
    /// How the source's rows become rows of the target.
    pub plan: Option<i64>,
    pub rank: u32,
    pub shape: TableShape,
    /// The table that `parent` refers to.
    pub parent: Option<TableId>,
    pub local: BTreeMap<u64, LocalRow>,
    pub remote: BTreeMap<u64, RemoteRow>,
    pub rejected: HashMap<KeyId, Rejected>,
    pub history: Vec<BatchRecord>,
    /// Whether deletes and lowering upserts are held.
    pub hold: bool,
    /// The most rows that a delete said were planned.
    pub planned: u64,
    /// Whether the target keeps the digest sum of its rows.
    pub keeps_sum: bool,
    /// Whether the source keeps a manifest of its rows, and whether it may cease to.
    pub keeps_manifest: bool,
    pub may_distrust: bool,
    /// Whether the source reads all rows to find those of a range.
    pub scanned: bool,
    /// Whether the source cannot go on reading in order once it was closed.
    pub holds_stream: bool,
    /// Where such a reading stands.
    pub stream: Option<u64>,
    /// What the source says is settled.
    pub settled: Option<i64>,
    /// The rows of an upload that failed in passing and, where it took effect, what it did.
    pub unanswered: Option<(Vec<Vec<u8>>, Option<Uploaded>)>,
}

impl Table {
    pub fn remote_version(&self) -> TableVersion {
        TableVersion {
            row_count: Some(self.remote.len() as u64),
            max_position: self.remote_items().map(|item| item.position).max(),
            max_modified: None,
            sum: self
                .keeps_sum
                .then(|| self.remote_items().map(|item| item.digest).collect::<Fingerprint>().sum()),
        }
    }
    fn committed(&self) -> Committed {
        Committed {
            remote: self.remote.clone(),
            rejected: self.rejected.clone(),
            history: self.history.clone(),
        }
    }
    pub fn remote_items(&self) -> impl Iterator<Item = Item> {
        self.remote.iter().map(|(key, row)| row.item(self.shape, *key))
    }
    /// Judged by values, not by digests.
    pub fn is_equal(&self) -> bool {
        if self.shape.keyless {
            let mut local: Vec<RemoteRow> = self.local.values().map(LocalRow::stored).collect();
            let mut remote: Vec<RemoteRow> = self.remote.values().cloned().collect();
            local.sort_unstable();
            remote.sort_unstable();
            return self.local.values().all(|row| row.kind == Kind::Good) && local == remote;
        }
        let local: BTreeMap<u64, RemoteRow> =
            self.local.iter().map(|(key, row)| (*key, row.stored())).collect();
        self.local.values().all(|row| row.kind == Kind::Good) && local == self.remote
    }
    pub fn local_by_position(&self, range: PositionRange) -> Vec<(i64, u64)> {
        let rows = self.local.iter().filter_map(|(key, row)| Some((row.position(self.shape, *key)?, *key)));
        let mut rows: Vec<_> = rows.filter(|(position, _)| range.contains(*position)).collect();
        rows.sort_unstable();
        rows
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub operation: &'static str,
    pub table: TableId,
    pub keys: Vec<u64>,
}

/// Runs before a call: concurrent changes.
pub type Hook = Box<dyn FnMut(&mut State, &'static str)>;

pub struct State {
    pub tables: Vec<Table>,
    pub memories: Vec<TableMemory>,
    pub clock: i64,
    /// Microseconds of a call, and of a row.
    pub cost: (i64, i64),
    pub paused: u64,
    pub log: Vec<Call>,
    pub events: Vec<(TableId, Event)>,
    pub calls: u64,
    /// Source rows that windows read.
    pub rows_read: usize,
    pub token: u64,
    pub has_token: bool,
    /// When the source last changed, and the replica behind our back.
    pub changed_at: Vec<i64>,
    /// One call in so many fails in passing; 0: none.
    pub passing: u32,
    /// From this call on everything fails: the agent was killed.
    pub kill_at: Option<u64>,
    /// Whether the call at which the agent is killed takes effect.
    pub kill_after_effect: bool,
    pub stop_after: Option<u64>,
    /// Fails these operations with these failures, first first.
    pub failures: Vec<(&'static str, Failure)>,
    pub hook: Option<Hook>,
    pub rng: StdRng,
    /// Keys that the latest lookup did not find.
    pub absent: HashSet<(TableId, u64)>,
    /// While the source holds a snapshot, which `local` is then: its rows as they are by now.
    pub live: Option<Vec<BTreeMap<u64, LocalRow>>>,
    /// While the target holds a transaction: what others see.
    pub committed: Option<Vec<Committed>>,
    /// Tables whose guard lets fewer deletes pass than the next number, in one transaction or out of it.
    pub allowed: HashMap<TableId, u64>,
}

/// What a transaction of the target may change.
#[derive(Debug, Clone, PartialEq)]
pub struct Committed {
    pub remote: BTreeMap<u64, RemoteRow>,
    pub rejected: HashMap<KeyId, Rejected>,
    pub history: Vec<BatchRecord>,
}

impl State {
    pub fn new(tables: usize, seed: u64) -> Self {
        State {
            tables: (0..tables).map(|_| Table::default()).collect(),
            memories: vec![TableMemory::default(); tables],
            clock: 1_700_000_000_000_000,
            cost: (1_000, 1),
            paused: 0,
            log: Vec::new(),
            events: Vec::new(),
            calls: 0,
            rows_read: 0,
            token: 1,
            has_token: true,
            changed_at: vec![0; tables],
            passing: 0,
            kill_at: None,
            kill_after_effect: false,
            stop_after: None,
            failures: Vec::new(),
            hook: None,
            rng: StdRng::seed_from_u64(seed),
            absent: HashSet::new(),
            live: None,
            committed: None,
            allowed: HashMap::new(),
        }
    }

    /// The source begins a snapshot.
    pub fn hold_source(&mut self) {
        self.live = Some(self.tables.iter().map(|table| table.local.clone()).collect());
    }

    /// The source ends it.
    pub fn let_go(&mut self) {
        for (table, local) in self.tables.iter_mut().zip(self.live.take().unwrap_or_default()) {
            table.local = local;
        }
    }

    /// The rows of a table as an application sees them.
    pub fn live(&mut self, table: TableId) -> &mut BTreeMap<u64, LocalRow> {
        match &mut self.live {
            Some(live) => &mut live[table],
            None => &mut self.tables[table].local,
        }
    }

    /// The target begins a transaction.
    pub fn hold_target(&mut self) {
        self.committed = Some(self.tables.iter().map(Table::committed).collect());
    }

    /// Its transaction is gone: rolled back, or lost with the connection.
    pub fn lose_transaction(&mut self) {
        for (table, before) in self.tables.iter_mut().zip(self.committed.take().unwrap_or_default()) {
            table.unanswered = None;
            (table.remote, table.rejected, table.history) = (before.remote, before.rejected, before.history);
        }
    }

    /// What a reader of the target sees of a table.
    pub fn seen(&self, table: TableId) -> &BTreeMap<u64, RemoteRow> {
        match &self.committed {
            Some(committed) => &committed[table].remote,
            None => &self.tables[table].remote,
        }
    }

    /// The source changes.
    pub fn touch(&mut self) {
        self.token += 1;
    }

    /// What happens before a call takes effect: time passes, others change rows, the call fails.
    pub fn before(
        &mut self,
        operation: &'static str,
        table: TableId,
        keys: &[u64],
        rows: usize,
    ) -> Outcome<()> {
        self.calls += 1;
        assert!(self.calls < 50_000, "a run without an end: {:?}", &self.log[self.log.len() - 20..]);
        self.clock += self.cost.0 + self.cost.1 * rows as i64;
        self.log.push(Call { operation, table, keys: keys.to_vec() });
        if let Some(mut hook) = self.hook.take() {
            hook(self, operation);
            self.hook = self.hook.take().or(Some(hook));
        }
        if let Some(at) = self.failures.iter().position(|(name, _)| *name == operation) {
            return Err(self.failures.remove(at).1);
        }
        match self.kill_at {
            Some(at) if self.calls > at || (self.calls == at && !self.kill_after_effect) => {
                return Err(Failure::new(FailureKind::Run, "killed"));
            }
            _ => {}
        }
        if self.passing > 0 && self.rng.random_ratio(1, self.passing) {
            return Err(Failure::new(FailureKind::Passing, "connection lost before the effect"));
        }
        Ok(())
    }

    /// What happens after it took effect: the answer is lost.
    pub fn after(&mut self, operation: &'static str) -> Outcome<()> {
        let lost = format!("{operation} lost");
        if let Some(at) = self.failures.iter().position(|(name, _)| lost == *name) {
            return Err(self.failures.remove(at).1);
        }
        if self.kill_at.is_some_and(|at| self.calls >= at) {
            return Err(Failure::new(FailureKind::Run, "killed"));
        }
        if self.passing > 0 && self.rng.random_ratio(1, self.passing) {
            return Err(Failure::new(FailureKind::Passing, "connection lost after the effect"));
        }
        Ok(())
    }
}
