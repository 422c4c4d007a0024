//! What the trigger knows of a table it fired on: which columns are digested under which numbers, and whose
//! rows these are. Kept in the backend until the catalogue or the registration changes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::Uuid;
use pgrx::pg_sys::{self, Datum, Oid};
use plimsoll_core::ENCODING_VERSION;
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::value::ColumnType;

use crate::datum::{
    Changed, Codec, Parameter, Row, Scratch, changed, own_table, read_planned, with_latest_snapshot,
};
use crate::error::{Answer, Problem, state};
use crate::identity;

/// Databases that are remembered for one table; beyond it all are looked up anew.
const TENANTS: usize = 4_096;

/// The columns of a row that a digest is made of.
pub struct Columns {
    /// Where they stand in a row of the relation.
    places: Vec<usize>,
    numbers: Vec<u32>,
    codecs: RefCell<Vec<Codec>>,
    /// Where the position stands, and of which type it is.
    position: (usize, ColumnType),
    modified: Option<usize>,
}

/// A relation whose rows belong to a managed table.
pub struct Mapping {
    /// The managed table.
    pub table_id: i32,
    /// The managed table itself: the relation, or what it is a partition of.
    pub root: Oid,
    /// What its rows hold; `None` where they cannot be digested.
    columns: Option<Columns>,
    /// Where the tenant stands: `[client, database]`, `[database]`, or nowhere.
    tenant: Vec<(usize, Oid)>,
    /// The one database of a table without tenant columns.
    only_database: Option<Uuid>,
    /// What [`stamp`] hashes.
    described: Vec<u8>,
    tenants: RefCell<HashMap<Vec<u8>, Option<Rc<Tenant>>>>,
    /// What the codecs point into: dropped after them.
    _memory: Scratch,
}

/// A registered database, as far as its rows are digested.
pub struct Tenant {
    /// Its id.
    pub id: Uuid,
    /// With its key.
    pub digester: Digester,
    /// By which mapping and key its digests are made.
    pub stamp: i64,
}

/// How columns are digested, as bytes that differ where digests could. `columns`: number, name, type.
pub fn describe<'c>(
    relation: Oid,
    tenant: impl Iterator<Item = &'c str>,
    position: &str,
    modified: Option<&str>,
    columns: impl Iterator<Item = (u32, &'c str, &'c Codec)>,
) -> Vec<u8> {
    let mut text = format!("{ENCODING_VERSION} {} {position:?} {modified:?}", relation.to_u32());
    for column in tenant {
        text += &format!("\ntenant {column:?}");
    }
    for (number, name, codec) in columns {
        let (type_oid, typmod) = (codec.type_oid.to_u32(), codec.typmod);
        text += &format!("\n{number} {name:?} {type_oid} {typmod} {:?}", codec.column_type);
    }
    text.into_bytes()
}

/// What tells digests of one mapping and key from those of another.
pub fn stamp(digester: &Digester, described: &[u8]) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = digester.digest_of_form(described).0;
    i64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// What a row says of itself to the trigger.
pub struct Seen {
    /// Where it stands.
    pub position: i64,
    /// When it was last changed.
    pub modified: Option<i64>,
}

impl Mapping {
    /// The digest form of a row, appended to `form`; `None` where the row has none.
    pub fn encode(&self, row: &Row<'_>, form: &mut Vec<u8>) -> Option<Seen> {
        let columns = self.columns.as_ref()?;
        let (place, kind) = &columns.position;
        let value = row.int8(*place)?;
        let position = match kind {
            ColumnType::Int2 => i64::from(value as i16),
            ColumnType::Int4 => i64::from(value as i32),
            _ => value,
        };
        let mut codecs = columns.codecs.borrow_mut();
        row.encode_places(&columns.places, &columns.numbers, &mut codecs, form).ok()?;
        Some(Seen { position, modified: columns.modified.and_then(|place| row.int8(place)) })
    }

    /// The bytes by which rows of one tenant are known, appended to `bytes`; `false` where one is NULL.
    pub fn tenant_bytes(&self, row: &Row<'_>, bytes: &mut Vec<u8>) -> bool {
        self.tenant.iter().all(|(place, type_oid)| match *type_oid {
            pg_sys::UUIDOID => row.uuid(*place).map(|uuid| bytes.extend_from_slice(&uuid)).is_some(),
            pg_sys::TEXTOID | pg_sys::VARCHAROID => row
                .with_bytes(*place, |text| {
                    bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                    bytes.extend_from_slice(text);
                })
                .is_some(),
            _ => row.int8(*place).map(|value| bytes.extend_from_slice(&value.to_le_bytes())).is_some(),
        })
    }

    /// The registered database that the row belongs to, if one. `bytes` are those of
    /// [`tenant_bytes`](Self::tenant_bytes).
    pub fn tenant(&self, row: &Row<'_>, bytes: &[u8]) -> Answer<Option<Rc<Tenant>>> {
        if let Some(known) = self.tenants.borrow().get(bytes) {
            return Ok(known.clone());
        }
        let found = self.find_tenant(row)?.map(Rc::new);
        let mut tenants = self.tenants.borrow_mut();
        if tenants.len() >= TENANTS {
            tenants.clear();
        }
        tenants.insert(bytes.to_vec(), found.clone());
        Ok(found)
    }

    fn find_tenant(&self, row: &Row<'_>) -> Answer<Option<Tenant>> {
        let (client, id) = match self.tenant.as_slice() {
            [] => (None, self.only_database),
            [database] => (None, uuid_at(row, *database)),
            [client, database, ..] => (Some(*client), uuid_at(row, *database)),
        };
        let Some(id) = id else { return Ok(None) };
        let Some((client_id, key)) = registered(id)? else { return Ok(None) };
        if !client.is_none_or(|client| is_client(row, client, &client_id)) {
            return Ok(None);
        }
        let digester = Digester::new(key);
        let stamp = stamp(&digester, &self.described);
        Ok(Some(Tenant { id, digester, stamp }))
    }
}

/// The database's id where a tenant column holds it the way statements compare it.
fn uuid_at(row: &Row<'_>, (place, type_oid): (usize, Oid)) -> Option<Uuid> {
    match type_oid {
        pg_sys::UUIDOID => row.uuid(place).map(Uuid::from_bytes),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => {
            let text = row.text(place)?;
            let id = Uuid::from_bytes(hex_digits(&text)?);
            (id.to_string() == text).then_some(id)
        }
        _ => None,
    }
}

/// The sixteen bytes that 32 hexadecimal digits among the characters say.
fn hex_digits(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|character| !['-', '{', '}'].contains(character))
        .map(|character| character.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect();
    (digits.len() == 32).then(|| bytes.try_into().ok()).flatten()
}

/// Whether a tenant column holds the client's id.
fn is_client(row: &Row<'_>, (place, type_oid): (usize, Oid), client_id: &str) -> bool {
    match type_oid {
        pg_sys::UUIDOID => row.uuid(place).is_some_and(|id| hex_digits(client_id) == Some(id)),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => {
            row.with_bytes(place, |text| text == client_id.as_bytes()) == Some(true)
        }
        pg_sys::INT2OID => row.int8(place).map(|id| i64::from(id as i16)) == client_id.trim().parse().ok(),
        pg_sys::INT4OID => row.int8(place).map(|id| i64::from(id as i32)) == client_id.trim().parse().ok(),
        _ => row.int8(place) == client_id.trim().parse().ok(),
    }
}

fn uuid_parameter(id: Uuid) -> Parameter {
    use pgrx::IntoDatum;
    Parameter { type_oid: pg_sys::UUIDOID, datum: id.into_datum() }
}

/// Client and key of a registered database, as of now.
fn registered(id: Uuid) -> Answer<Option<(String, FingerprintKey)>> {
    let mut found = None;
    identity::as_extension(|| {
        with_latest_snapshot(|| {
            read_planned(
                "SELECT d.client_id, d.fingerprint_key FROM plimsoll.database_record d
                 WHERE d.database_id OPERATOR(pg_catalog.=) $1",
                &[uuid_parameter(id)],
                &mut |row| {
                    let key = row.with_bytes(1, FingerprintKey::from_slice).flatten();
                    found = row.text(0).zip(key);
                    Ok(true)
                },
            )
        })
    })?;
    Ok(found)
}

thread_local! {
    static MAPPINGS: RefCell<HashMap<Oid, Option<Rc<Mapping>>>> = RefCell::new(HashMap::new());
    static OWN: RefCell<Option<OwnTables>> = const { RefCell::new(None) };
}

/// Tables of the extension that the trigger works with, or whose change tells of changed registrations.
#[derive(Clone, Copy)]
struct OwnTables {
    delta: Oid,
    database: Oid,
    table: Oid,
}

/// The table that the trigger writes to; `None` where the extension is not there any more.
pub fn delta_table() -> Option<Oid> {
    let known = OWN.with_borrow(|own| *own);
    let found = known.or_else(|| {
        let found = OwnTables {
            delta: own_table(c"kept_delta")?,
            database: own_table(c"database_record")?,
            table: own_table(c"table_record")?,
        };
        OWN.set(Some(found));
        Some(found)
    });
    found.map(|own| own.delta)
}

/// Forgets what is no longer so.
fn forget_changed() {
    let all = match changed() {
        Changed::All => true,
        Changed::Relations(relations) if relations.is_empty() => return,
        Changed::Relations(relations) => {
            let own = OWN.with_borrow(|own| *own);
            let is_own =
                |oid: &Oid| own.is_some_and(|own| [own.delta, own.database, own.table].contains(oid));
            MAPPINGS.with_borrow_mut(|mappings| {
                for relation in &relations {
                    mappings.remove(relation);
                }
            });
            relations.iter().any(is_own)
        }
    };
    if all {
        OWN.set(None);
        let forgotten = MAPPINGS.take();
        drop(forgotten);
    }
}

/// The mapping of a relation; `None` where its rows belong to no managed table.
pub fn mapping(relation: Oid) -> Answer<Option<Rc<Mapping>>> {
    forget_changed();
    if let Some(known) = MAPPINGS.with_borrow(|mappings| mappings.get(&relation).cloned()) {
        return Ok(known);
    }
    let loaded = identity::as_extension(|| with_latest_snapshot(|| load(relation)))?.map(Rc::new);
    MAPPINGS.with_borrow_mut(|mappings| mappings.insert(relation, loaded.clone()));
    Ok(loaded)
}

/// Whether a relation has children now.
pub fn has_children(relation: Oid) -> Answer<bool> {
    let parameter = Parameter { type_oid: pg_sys::OIDOID, datum: Some(Datum::from(relation.to_u32())) };
    let mut found = false;
    let sql = "SELECT 1 FROM pg_catalog.pg_inherits i WHERE i.inhparent OPERATOR(pg_catalog.=) $1 LIMIT 1";
    identity::as_extension(|| {
        read_planned(sql, &[parameter], &mut |_| {
            found = true;
            Ok(true)
        })
    })?;
    Ok(found)
}

/// What the trigger reads of a column.
struct Attribute {
    place: usize,
    name: String,
    type_oid: Oid,
    typmod: i32,
    number: Option<u32>,
    /// Its place among the tenant columns, from 1.
    tenant: Option<i64>,
    server: bool,
    position: bool,
    modified: bool,
    deterministic: bool,
}

fn load(relation: Oid) -> Answer<Option<Mapping>> {
    let oid = |oid: Oid| Parameter { type_oid: pg_sys::OIDOID, datum: Some(Datum::from(oid.to_u32())) };
    let mut registered = None;
    // By name as everywhere; a table that was renamed goes on under its oid until it is managed again, or until
    // another has its name.
    read_planned(
        "WITH RECURSIVE up (oid) AS (
             SELECT $1 UNION
             SELECT i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid OPERATOR(pg_catalog.=) up.oid)
         SELECT t.table_id, up.oid, t.database_id, pg_catalog.cardinality(t.tenant_columns)
         FROM up
         JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) up.oid
         JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
         CROSS JOIN LATERAL (
             SELECT t.table_id, t.database_id, t.tenant_columns,
                    t.schema_name OPERATOR(pg_catalog.=) n.nspname
                        AND t.table_name OPERATOR(pg_catalog.=) c.relname AS named
             FROM plimsoll.table_record t
             WHERE t.unmanaged_at IS NULL AND (t.relation_oid OPERATOR(pg_catalog.=) up.oid
                 OR (t.schema_name OPERATOR(pg_catalog.=) n.nspname
                     AND t.table_name OPERATOR(pg_catalog.=) c.relname))) t
         WHERE t.named OR NOT EXISTS (
             SELECT FROM plimsoll.table_record r
             JOIN pg_catalog.pg_namespace n ON n.nspname OPERATOR(pg_catalog.=) r.schema_name
             JOIN pg_catalog.pg_class c ON c.relnamespace OPERATOR(pg_catalog.=) n.oid
                  AND c.relname OPERATOR(pg_catalog.=) r.table_name
             WHERE r.table_id OPERATOR(pg_catalog.=) t.table_id)
         ORDER BY t.named DESC, t.table_id LIMIT 1",
        &[oid(relation)],
        &mut |row| {
            registered = row.oid(1).map(|root| {
                (row.int8(0).unwrap_or(0) as i32, root, row.uuid(2).map(Uuid::from_bytes), row.int8(3))
            });
            Ok(true)
        },
    )?;
    let Some((table_id, root, only_database, tenant_columns)) = registered else { return Ok(None) };
    let mut attributes = Vec::new();
    read_planned(
        "SELECT a.attnum::pg_catalog.int8, a.attname::pg_catalog.text, a.atttypid, a.atttypmod::pg_catalog.int8,
                c.column_number::pg_catalog.int8,
                pg_catalog.array_position(t.tenant_columns, a.attname)::pg_catalog.int8,
                a.attname OPERATOR(pg_catalog.=) ANY (t.server_columns),
                a.attname OPERATOR(pg_catalog.=) t.version_column,
                COALESCE(a.attname OPERATOR(pg_catalog.=) t.modified_column, false),
                COALESCE((SELECT l.collisdeterministic FROM pg_catalog.pg_collation l
                          WHERE l.oid OPERATOR(pg_catalog.=) a.attcollation), true)
         FROM plimsoll.table_record t
         JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) $1
              AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
         LEFT JOIN plimsoll.column_record c ON c.table_id OPERATOR(pg_catalog.=) t.table_id
              AND c.column_name OPERATOR(pg_catalog.=) a.attname
         WHERE t.table_id OPERATOR(pg_catalog.=) $2
         ORDER BY c.column_number",
        &[oid(relation), Parameter { type_oid: pg_sys::INT4OID, datum: Some(Datum::from(table_id)) }],
        &mut |row| {
            attributes.push(Attribute {
                place: row.int8(0).unwrap_or(1) as usize - 1,
                name: row.text(1).unwrap_or_default(),
                type_oid: row.oid(2).unwrap_or(Oid::INVALID),
                typmod: row.int8(3).unwrap_or(-1) as i32,
                number: row.int8(4).map(|number| number as u32),
                tenant: row.int8(5),
                server: row.bool(6).unwrap_or(false),
                position: row.bool(7).unwrap_or(false),
                modified: row.bool(8).unwrap_or(false),
                deterministic: row.bool(9).unwrap_or(true),
            });
            Ok(true)
        },
    )?;
    let mut tenant: Vec<&Attribute> = attributes.iter().filter(|a| a.tenant.is_some()).collect();
    tenant.sort_by_key(|attribute| attribute.tenant);
    if tenant.len() as i64 != tenant_columns.unwrap_or(0) {
        // Nobody can say whose rows these are; calls on the table are refused until it is managed again.
        return Ok(None);
    }
    let memory = Scratch::lasting();
    let columns =
        memory.within(|| columns_of(&attributes))?.filter(|_| tenant.iter().all(|a| a.deterministic));
    let described = columns.as_ref().map_or(Vec::new(), |columns| {
        let sent = attributes.iter().filter(|attribute| attribute.is_sent());
        let position = attributes.iter().find(|a| a.position).map_or("", |a| a.name.as_str());
        let modified = attributes.iter().find(|a| a.modified).map(|a| a.name.as_str());
        let codecs = columns.codecs.borrow();
        describe(
            root,
            tenant.iter().map(|a| a.name.as_str()),
            position,
            modified,
            sent.zip(codecs.iter()).map(|(a, codec)| (a.number.unwrap_or(0), a.name.as_str(), codec)),
        )
    });
    let tenant = tenant.iter().map(|attribute| (attribute.place, attribute.type_oid)).collect();
    let tenants = RefCell::new(HashMap::new());
    Ok(Some(Mapping { table_id, root, columns, tenant, only_database, described, tenants, _memory: memory }))
}

impl Attribute {
    fn is_sent(&self) -> bool {
        self.number.is_some() && !self.server && self.tenant.is_none()
    }
}

/// The columns that are sent; `None` where one has no encoding, or none says where rows stand.
fn columns_of(attributes: &[Attribute]) -> Answer<Option<Columns>> {
    let (mut places, mut numbers, mut codecs) = (Vec::new(), Vec::new(), Vec::new());
    let mut position = None;
    for attribute in attributes.iter().filter(|attribute| attribute.is_sent()) {
        let codec = match Codec::new(attribute.type_oid, attribute.typmod) {
            Ok(codec) => codec,
            Err(problem) if problem.code() == state::UNSUPPORTED => return Ok(None),
            Err(problem) => return Err(problem),
        };
        if attribute.position {
            position = Some((attribute.place, codec.column_type.clone()));
        }
        places.push(attribute.place);
        numbers.push(attribute.number.unwrap_or(0));
        codecs.push(codec);
    }
    let Some(position) = position else { return Ok(None) };
    let modified = attributes.iter().find(|a| a.modified && a.is_sent()).map(|a| a.place);
    Ok(Some(Columns { places, numbers, codecs: RefCell::new(codecs), position, modified }))
}

/// Tells every backend that registered tables changed, once this transaction commits.
pub fn tell_registrations_changed() -> Answer<()> {
    tell_changed(c"table_record")
}

/// Tells every backend that registered databases changed, once this transaction commits.
pub fn tell_databases_changed() -> Answer<()> {
    tell_changed(c"database_record")
}

fn tell_changed(table: &std::ffi::CStr) -> Answer<()> {
    let table =
        own_table(table).ok_or_else(|| Problem::new(state::INTERNAL, "the extension's tables are gone"))?;
    crate::datum::tell(table);
    Ok(())
}
