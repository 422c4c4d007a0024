//! The mapping of a relation, read from the catalogue and the registration.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::Uuid;
use pgrx::pg_sys::{self, Datum, Oid};

use super::mapping::{self, Columns, Mapping, describe};
use crate::datum::{Codec, Parameter, Scratch, read_planned};
use crate::error::{Answer, state};
use crate::identity;
use crate::table::Positions;

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
    version: bool,
    /// It is among the columns whose hash is the position.
    places: bool,
    modified: bool,
    deterministic: bool,
}

/// What the catalogue and the registration say of a relation, in the snapshot of the caller; `None` where its rows
/// belong to no managed table.
pub fn load(relation: Oid) -> Answer<Option<Mapping>> {
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
    let (mut attributes, mut placing) = (Vec::new(), 0);
    read_planned(
        // A column is known by the place where it stands in the table itself, of which the relation may be a partition;
        // else by its name. The registration names it as it was called when it was last seen there.
        "SELECT a.attnum::pg_catalog.int8, a.attname::pg_catalog.text, a.atttypid, a.atttypmod::pg_catalog.int8,
                COALESCE(k.column_number, c.column_number)::pg_catalog.int8,
                pg_catalog.array_position(t.tenant_columns, COALESCE(k.column_name, a.attname))::pg_catalog.int8,
                COALESCE(k.column_name, a.attname) OPERATOR(pg_catalog.=) ANY (t.server_columns)
                    OR a.attgenerated OPERATOR(pg_catalog.<>) '',
                COALESCE(COALESCE(k.column_name, a.attname) OPERATOR(pg_catalog.=) t.version_column, false),
                COALESCE(k.column_name, a.attname) OPERATOR(pg_catalog.=) ANY (t.placed_by),
                pg_catalog.cardinality(t.placed_by)::pg_catalog.int8,
                COALESCE(COALESCE(k.column_name, a.attname) OPERATOR(pg_catalog.=) t.modified_column, false),
                COALESCE((SELECT l.collisdeterministic FROM pg_catalog.pg_collation l
                          WHERE l.oid OPERATOR(pg_catalog.=) a.attcollation), true)
         FROM plimsoll.table_record t
         JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) $1
              AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
         LEFT JOIN (
              SELECT p.table_id, c.column_number, c.column_name, r.attname
              FROM plimsoll.column_place p
              JOIN plimsoll.column_record c ON c.table_id OPERATOR(pg_catalog.=) p.table_id
                   AND c.column_number OPERATOR(pg_catalog.=) p.column_number
              JOIN pg_catalog.pg_attribute r ON r.attrelid OPERATOR(pg_catalog.=) p.relation_oid
                   AND r.attnum OPERATOR(pg_catalog.=) p.attribute_number AND NOT r.attisdropped
              WHERE p.table_id OPERATOR(pg_catalog.=) $2 AND p.relation_oid OPERATOR(pg_catalog.=) $3) k
              ON k.attname OPERATOR(pg_catalog.=) a.attname
         LEFT JOIN plimsoll.column_record c ON c.table_id OPERATOR(pg_catalog.=) t.table_id
              AND c.column_name OPERATOR(pg_catalog.=) a.attname AND k.column_number IS NULL
              AND NOT EXISTS (
                  SELECT FROM plimsoll.column_place p
                  WHERE p.table_id OPERATOR(pg_catalog.=) $2 AND p.relation_oid OPERATOR(pg_catalog.=) $3
                    AND p.column_number OPERATOR(pg_catalog.=) c.column_number)
         WHERE t.table_id OPERATOR(pg_catalog.=) $2
         ORDER BY COALESCE(k.column_number, c.column_number)",
        &[
            oid(relation),
            Parameter { type_oid: pg_sys::INT4OID, datum: Some(Datum::from(table_id)) },
            oid(root),
        ],
        &mut |row| {
            attributes.push(Attribute {
                place: row.int8(0).unwrap_or(1) as usize - 1,
                name: row.text(1).unwrap_or_default(),
                type_oid: row.oid(2).unwrap_or(Oid::INVALID),
                typmod: row.int8(3).unwrap_or(-1) as i32,
                number: row.int8(4).map(|number| number as u32),
                tenant: row.int8(5),
                server: row.bool(6).unwrap_or(false),
                version: row.bool(7).unwrap_or(false),
                places: row.bool(8).unwrap_or(false),
                modified: row.bool(10).unwrap_or(false),
                deterministic: row.bool(11).unwrap_or(true),
            });
            placing = row.int8(9).unwrap_or(0) as usize;
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
    let columns = memory
        .within(|| columns_of(&attributes, placing))?
        .filter(|_| tenant.iter().all(|a| a.deterministic));
    let described = columns.as_ref().map_or(Vec::new(), |columns| {
        let sent = attributes.iter().filter(|attribute| attribute.is_sent());
        let version = attributes.iter().find(|a| a.version).map(|a| a.name.as_str());
        let placing = sent.clone().filter(|a| a.places).map(|a| a.number.unwrap_or(0));
        let position = mapping::describe_position(version, placing.collect());
        let modified = attributes.iter().find(|a| a.modified).map(|a| a.name.as_str());
        let codecs = columns.codecs.borrow();
        describe(
            root,
            tenant.iter().map(|a| a.name.as_str()),
            &position,
            modified,
            sent.zip(codecs.iter()).map(|(a, codec)| (a.number.unwrap_or(0), a.name.as_str(), codec)),
        )
    });
    let version = attributes.iter().find(|a| a.version && a.is_sent());
    let version = version.and_then(|a| Some((a.place, Codec::new(a.type_oid, a.typmod).ok()?.column_type)));
    let mut row_types = Vec::new();
    if let Some(columns) = &columns {
        columns.codecs.borrow().iter().for_each(|codec| codec.row_types(&mut row_types));
    }
    let tenant = tenant.iter().map(|attribute| (attribute.place, attribute.type_oid)).collect();
    let tenants = RefCell::new(HashMap::new());
    Ok(Some(Mapping {
        table_id,
        root,
        columns,
        version,
        tenant,
        only_database,
        row_types,
        described,
        tenants,
        _memory: memory,
    }))
}

impl Attribute {
    fn is_sent(&self) -> bool {
        self.number.is_some() && !self.server && self.tenant.is_none()
    }
}

/// The columns that are sent; `None` where one has no encoding, or they do not say where rows stand, which as many
/// do as are `placing`.
fn columns_of(attributes: &[Attribute], placing: usize) -> Answer<Option<Columns>> {
    let (mut places, mut numbers, mut codecs) = (Vec::new(), Vec::new(), Vec::new());
    let (mut version, mut hashed) = (None, Vec::new());
    for attribute in attributes.iter().filter(|attribute| attribute.is_sent()) {
        let codec = match Codec::new(attribute.type_oid, attribute.typmod) {
            Ok(codec) => codec,
            Err(problem) if problem.code() == state::UNSUPPORTED => return Ok(None),
            Err(problem) => return Err(problem),
        };
        if attribute.version {
            version = Some((attribute.place, codec.column_type.clone()));
        }
        hashed.push(attribute.places);
        places.push(attribute.place);
        numbers.push(attribute.number.unwrap_or(0));
        codecs.push(codec);
    }
    let positions = match (placing, version) {
        (0, Some((place, column_type))) => Positions::at_version(place, column_type),
        (0, None) => return Ok(None),
        _ if hashed.iter().filter(|places| **places).count() == placing => Positions::hashed(hashed),
        _ => return Ok(None),
    };
    let modified = attributes.iter().find(|a| a.modified && a.is_sent()).map(|a| a.place);
    let (codecs, positions) = (RefCell::new(codecs), RefCell::new(positions));
    Ok(Some(Columns { places, numbers, codecs, positions, modified }))
}
