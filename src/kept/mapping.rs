//! What the trigger knows of a table it fired on: which columns are digested under which numbers, and whose
//! rows these are. Kept in the backend until the catalogue or the registration changes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::Uuid;
use pgrx::pg_sys::{self, Oid};
use plimsoll_core::ENCODING_VERSION;
use plimsoll_core::digest::{Digester, FingerprintKey};
use plimsoll_core::value::ColumnType;

use super::load;
use crate::datum::{
    Changed, Codec, Parameter, Row, Scratch, changed, own_function, own_table, read_planned,
    with_latest_snapshot,
};
use crate::error::{Answer, Problem, state};
use crate::identity;
use crate::table::Positions;

/// Databases that are remembered for one table; beyond it all are looked up anew.
const TENANTS: usize = 4_096;

/// The columns of a row that a digest is made of.
pub struct Columns {
    /// Where they stand in a row of the relation.
    pub(super) places: Vec<usize>,
    pub(super) numbers: Vec<u32>,
    pub(super) codecs: RefCell<Vec<Codec>>,
    /// Where rows stand.
    pub(super) positions: RefCell<Positions>,
    pub(super) modified: Option<usize>,
}

/// A relation whose rows belong to a managed table.
pub struct Mapping {
    /// The managed table.
    pub table_id: i32,
    /// The managed table itself: the relation, or what it is a partition of.
    pub root: Oid,
    /// What its rows hold; `None` where they cannot be digested.
    pub(super) columns: Option<Columns>,
    /// Where the version stands that is sent, and its type.
    pub(super) version: Option<(usize, ColumnType)>,
    /// Where the tenant stands: `[client, database]`, `[database]`, or nowhere.
    pub(super) tenant: Vec<(usize, Oid)>,
    /// The one database of a table without tenant columns.
    pub(super) only_database: Option<Uuid>,
    /// The relations of composite types that its columns are made of.
    pub(super) row_types: Vec<Oid>,
    /// What [`stamp`] hashes.
    pub(super) described: Vec<u8>,
    pub(super) tenants: RefCell<HashMap<Vec<u8>, Option<Rc<Tenant>>>>,
    /// What the codecs point into: dropped after them.
    pub(super) _memory: Scratch,
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

/// Where rows stand, as [`describe`] has it: at their version, or at a hash of the columns with these numbers.
pub fn describe_position(version: Option<&str>, placing: Vec<u32>) -> String {
    match placing.is_empty() {
        true => version.unwrap_or_default().to_owned(),
        // Nothing that a column can be called.
        false => format!("\0hash of {placing:?}"),
    }
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
    /// Where the version stands that is sent, and its type.
    pub fn version(&self) -> Option<&(usize, ColumnType)> {
        self.version.as_ref()
    }

    /// Whether the column at a place is sent; where that is not known all are.
    pub fn is_sent(&self, place: usize) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.places.contains(&place))
    }

    /// The digest form of a row, appended to `form`; `None` where the row has none.
    pub fn encode(&self, row: &Row<'_>, form: &mut Vec<u8>) -> Option<Seen> {
        let columns = self.columns.as_ref()?;
        let (mut codecs, mut positions) = (columns.codecs.borrow_mut(), columns.positions.borrow_mut());
        let position = positions.encode(row, &columns.places, &columns.numbers, &mut codecs, form).ok()??;
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

/// What the trigger works with of the extension, and tables whose change tells of changed registrations.
#[derive(Clone, Copy)]
struct OwnTables {
    delta: Oid,
    database: Oid,
    table: Oid,
    /// The trigger's function.
    trigger: Oid,
}

fn own() -> Option<OwnTables> {
    OWN.with_borrow(|own| *own).or_else(|| {
        let found = OwnTables {
            delta: own_table(c"kept_delta")?,
            database: own_table(c"database_record")?,
            table: own_table(c"table_record")?,
            trigger: own_function(c"kept_trigger")?,
        };
        OWN.set(Some(found));
        Some(found)
    })
}

/// The table that the trigger writes to; `None` where the extension is not there any more.
pub fn delta_table() -> Option<Oid> {
    own().map(|own| own.delta)
}

/// The function of the trigger.
pub fn trigger_function() -> Option<Oid> {
    own().map(|own| own.trigger)
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
                mappings.retain(|relation, mapping| {
                    let row_types = mapping.iter().flat_map(|mapping| &mapping.row_types);
                    !row_types.chain([relation]).any(|known| relations.contains(known))
                });
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
    let loaded = identity::as_extension(|| with_latest_snapshot(|| load::load(relation)))?.map(Rc::new);
    MAPPINGS.with_borrow_mut(|mappings| mappings.insert(relation, loaded.clone()));
    Ok(loaded)
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
