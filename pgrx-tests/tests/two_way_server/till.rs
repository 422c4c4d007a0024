//! A two-way table, and the client that keeps it in step.

use std::collections::HashMap;

use plimsoll_client::server::address::Address;
use plimsoll_client::server::{Login, Replica, RunBegin, Server, TwoWayRemote};
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::direction::Direction;
use plimsoll_core::manifest::Item;
use plimsoll_core::row::{RowWriter, key_of, position_in};
use plimsoll_core::schema::TableSchema;
use plimsoll_core::short::ShortItem;
use plimsoll_core::store::{
    Applied, BatchId, Change, MemoryKey, OpenKind, Outcome, Record, RemoteAct, RemoteMemory, RemoteSide,
    Seen, Settled, ShortDigest, SourceKey, SourceRow,
};
use plimsoll_core::token::Token;
use plimsoll_tests::Registered;
use postgres::Client;
use uuid::Uuid;

use crate::shop::Shop;

/// A row of `shop.contact`: id, phone, rank, revision.
pub type Contact = (i64, Option<String>, Option<i64>, i64);

pub fn contact(id: i64, phone: &str, revision: i64) -> Contact {
    (id, Some(phone.to_owned()), None, revision)
}

fn agent() -> RunBegin {
    RunBegin { agent_id: "agent".to_owned(), ..RunBegin::default() }
}

/// `shop.contact` of one database, and its client.
pub struct Till {
    pub shop: Shop,
    pub registered: Registered,
    pub schema: TableSchema,
    pub server: Server,
    pub run_id: i64,
    /// The number of the table's run.
    pub run: u64,
    address: Address,
    side: Uuid,
    key: FingerprintKey,
    next: u64,
    /// The mark of each run.
    marks: HashMap<u64, i64>,
}

/// The client over another connection.
pub struct Apart {
    server: Server,
    run_id: i64,
    replicas: Vec<Replica>,
}

impl Apart {
    fn remote(&mut self) -> TwoWayRemote<'_> {
        TwoWayRemote::new(&mut self.server, self.run_id, self.replicas.clone())
    }

    pub fn apply(&mut self, number: u64, acts: &[RemoteAct]) -> Vec<Applied> {
        self.remote().apply(0, number, acts, 0).expect("a batch")
    }

    pub fn begin(&mut self) -> RemoteMemory {
        self.remote().remembered(0, false).expect("what is remembered")
    }
}

impl Till {
    pub fn open() -> Till {
        Till::with("CHECK (rank > 0)")
    }

    /// With further constraints.
    pub fn with(constraints: &str) -> Till {
        let mut shop = Shop::open();
        let owner: String =
            shop.value("SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'shop'");
        shop.superuser
            .batch_execute(&format!(
                "SET ROLE {owner};
                 CREATE TABLE shop.contact (client_id text NOT NULL, database_id uuid NOT NULL, id int NOT NULL,
                     phone text, rank int, rev bigint NOT NULL, PRIMARY KEY (client_id, database_id, id), {constraints});
                 RESET ROLE;
                 SELECT plimsoll.manage_table('shop.contact', version_column => 'rev', version_scope => 'row')"
            ))
            .expect("a two-way table");
        let registered = shop.register("acme", 0);
        Till::of(shop, registered)
    }

    /// The client of a database of this shop.
    pub fn of(mut shop: Shop, registered: Registered) -> Till {
        let login = shop.server.create_agent();
        let url = shop.server.client_url(&login, &shop.database);
        let address = Address::parse(&url).expect("an address");
        let token = Token::parse(&registered.token).expect("a token");
        let own = Login { database_id: registered.id, token: Some(token) };
        let mut server = Server::new(address.clone(), own).expect("a server");
        let run = server.begin_run(&agent()).expect("a run");
        let schemas = server.table_schemas(&["shop.contact"]).expect("schemas");
        let schema = schemas.into_iter().next().expect("one").expect("a schema");
        let key = FingerprintKey::from_slice(server.fingerprint_key().expect("a key")).expect("a key");
        shop.superuser
            .execute("SELECT plimsoll.rebuild_manifest($1, 'shop.contact')", &[&registered.id])
            .expect("a manifest");
        let mut till = Till {
            shop,
            registered,
            schema,
            server,
            run_id: run.run_id,
            run: 0,
            address,
            side: Uuid::new_v4(),
            key,
            next: 0,
            marks: HashMap::new(),
        };
        till.guard_by(1_000_000);
        till.begin();
        till
    }

    /// Has the guard against destruction think that the replica has so many rows.
    pub fn guard_by(&mut self, rows: i64) {
        let sql = "INSERT INTO plimsoll.replica_record (database_id, table_id, row_count)
                   SELECT $1, table_id, $2 FROM plimsoll.table_record WHERE table_name = 'contact'
                   ON CONFLICT (database_id, table_id) DO UPDATE SET row_count = excluded.row_count";
        let id = self.registered.id;
        self.shop.superuser.execute(sql, &[&id, &rows]).expect("a row count");
    }

    /// The same client over a connection of its own, for another thread.
    pub fn server_apart(&self) -> Apart {
        let token = Token::parse(&self.registered.token).expect("a token");
        let own = Login { database_id: self.registered.id, token: Some(token) };
        let server = Server::new(self.address.clone(), own).expect("a server");
        Apart { server, run_id: self.run_id, replicas: self.replicas() }
    }

    pub fn remote(&mut self) -> TwoWayRemote<'_> {
        {
            let replicas = self.replicas();
            TwoWayRemote::new(&mut self.server, self.run_id, replicas)
        }
    }

    pub fn replicas(&self) -> Vec<Replica> {
        let relation = "shop.contact".to_owned();
        vec![Replica { relation, schema: Some(self.schema.clone()), ..Replica::default() }]
    }

    /// Begins a run, of which the table's own run is a part.
    pub fn begin_run(&mut self) {
        self.run_id = self.server.begin_run(&agent()).expect("a run").run_id;
    }

    /// Begins a run in which the table goes this way.
    pub fn begin_run_towards(&mut self, direction: Direction) {
        let directions = [("shop.contact".to_owned(), direction)].into();
        let begin = RunBegin { directions, side_id: Some(self.side), ..agent() };
        self.run_id = self.server.begin_run(&begin).expect("a run").run_id;
    }

    /// Begins a run of the table.
    pub fn begin(&mut self) -> RemoteMemory {
        let memory = self.remote().remembered(0, false).expect("what is remembered");
        self.began(&memory);
        memory
    }

    /// Goes on in a run of the table that began.
    pub fn began(&mut self, memory: &RemoteMemory) {
        assert!(memory.run > self.run, "{} after {}", memory.run, self.run);
        (self.run, self.next) = (memory.run, 0);
        self.marks.insert(memory.run, memory.mark);
    }

    /// What the batch with this number is known by.
    pub fn batch(&self, number: u64) -> BatchId {
        BatchId { number, mark: self.marks[&(number >> 24)] }
    }

    /// What became of the batch with this number.
    pub fn settle(&mut self, number: u64) -> Outcome<Settled> {
        let batch = self.batch(number);
        self.remote().settle(0, batch)
    }

    /// The next number of a batch.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.run << 24 | self.next
    }

    /// Carries acts out under the next number.
    pub fn apply(&mut self, acts: &[RemoteAct]) -> Vec<Applied> {
        let number = self.number();
        self.try_apply(number, acts, 0).expect("a batch")
    }

    pub fn try_apply(&mut self, number: u64, acts: &[RemoteAct], planned: u64) -> Outcome<Vec<Applied>> {
        self.remote().apply(0, number, acts, planned)
    }

    /// An application's statement, `$1` the database.
    pub fn edit(&mut self, sql: &str) {
        edit(&mut self.shop.superuser, &self.registered, sql);
    }

    pub fn put(&mut self, (id, phone, rank, rev): &Contact) {
        let sql = "INSERT INTO shop.contact VALUES ('acme', $1, $2::bigint::int, $3, $4::bigint::int, $5)
                   ON CONFLICT (client_id, database_id, id)
                   DO UPDATE SET phone = excluded.phone, rank = excluded.rank, rev = excluded.rev";
        self.shop.superuser.execute(sql, &[&self.registered.id, id, phone, rank, rev]).expect("an edit");
    }

    /// As [`Till::put`], of another client.
    pub fn put_for(&mut self, client: &str, (id, phone, rank, rev): &Contact) {
        let sql = "INSERT INTO shop.contact VALUES ($6, $1, $2::bigint::int, $3, $4::bigint::int, $5)";
        let id_of = self.registered.id;
        self.shop.superuser.execute(sql, &[&id_of, id, phone, rank, rev, &client]).expect("an edit");
    }

    /// All rows, by id.
    pub fn rows(&mut self) -> Vec<Contact> {
        let sql = "SELECT id::bigint, phone, rank::bigint, rev FROM shop.contact WHERE database_id = $1 ORDER BY id";
        let rows = self.shop.superuser.query(sql, &[&self.registered.id]).expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
    }

    /// Makes sure that the kept manifest says what the rows do.
    pub fn assert_kept(&mut self) {
        let wrong = self
            .shop
            .superuser
            .query("SELECT * FROM plimsoll.check_manifest($1, 'shop.contact')", &[&self.registered.id])
            .expect("a check");
        assert!(wrong.is_empty(), "{} ranges are not as kept", wrong.len());
    }

    /// A connection of the client's role to which the database was granted.
    pub fn connect(&mut self) -> Client {
        let login = self.shop.server.create_agent();
        self.shop.grant(&self.registered, &login.role);
        self.shop.connect(&login)
    }

    fn number_of(&self, name: &str) -> u32 {
        self.schema.columns().iter().find(|column| column.name == name).expect("a column").number
    }

    /// A row as the local side hands it over.
    pub fn row(&self, (id, phone, rank, rev): &Contact) -> SourceRow {
        let mut columns = vec![("id", Some(*id)), ("rank", *rank), ("rev", Some(*rev)), ("phone", None)];
        columns.sort_by_key(|(name, _)| self.number_of(name));
        let mut row = Vec::new();
        let mut writer = RowWriter::new(&mut row);
        for (name, value) in columns {
            match (name, value, phone) {
                ("phone", _, Some(phone)) => writer.text_bytes(self.number_of(name), phone.as_bytes()),
                (_, Some(value), _) => writer.int(self.number_of(name), value),
                _ => {}
            }
        }
        let digest = Digester::new(self.key.clone()).digest(&row).expect("a digest");
        let position = position_in(&row, &self.schema).expect("a position");
        let key = key_of(&row, &self.schema).expect("a key");
        SourceRow { item: Item { position, digest }, key, row }
    }

    pub fn digest(&self, contact: &Contact) -> ShortDigest {
        ShortItem::from(&self.row(contact).item).digest
    }

    pub fn memory_key(&self, id: i64) -> MemoryKey {
        let row = self.row(&contact(id, "", 0));
        MemoryKey::new(row.item.position, &SourceKey::Encoded(row.key))
    }

    /// The act of storing a row in place of another, or of none.
    pub fn upsert(&self, to: &Contact, from: Option<&Contact>) -> RemoteAct {
        let expected = from.map(|from| self.digest(from));
        RemoteAct::Change(Change::Upsert { row: self.row(to), expected })
    }

    /// The act of deleting a row.
    pub fn delete(&self, from: &Contact) -> RemoteAct {
        let SourceRow { item, key, .. } = self.row(from);
        RemoteAct::Change(Change::Delete { position: item.position, key, expected: self.digest(from) })
    }

    pub fn seen(&self, contact: Option<&Contact>) -> Seen {
        contact.map(|contact| self.digest(contact)).into()
    }

    /// The act of recording a key.
    pub fn record(
        &self,
        kind: OpenKind,
        id: i64,
        local: Option<&Contact>,
        remote: Option<&Contact>,
    ) -> RemoteAct {
        RemoteAct::Record(Box::new(Record {
            key: self.memory_key(id),
            encoded_key: Some(self.row(&contact(id, "", 0)).key),
            kind,
            local: self.seen(local),
            remote: self.seen(remote),
            local_row: local.map(|local| self.row(local)),
            base: None,
            reason: None,
        }))
    }

    pub fn conflict(&self, local: &Contact, remote: &Contact) -> RemoteAct {
        self.record(OpenKind::Conflict, local.0, Some(local), Some(remote))
    }
}

pub fn edit(client: &mut Client, registered: &Registered, sql: &str) {
    let wants = sql.contains("$1");
    let parameters: &[&(dyn postgres::types::ToSql + Sync)] = &[&registered.id];
    client
        .execute(sql, if wants { parameters } else { &[] })
        .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

/// Whether something was refused, and whether it waits.
pub fn refusal(applied: &Applied) -> Option<(bool, &str)> {
    match applied {
        Applied::Refused { waits, reason } => Some((*waits, &reason.sqlstate)),
        _ => None,
    }
}
