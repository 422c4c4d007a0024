//! The record of administrative acts: who did what, when, and what came of it. It is written in the act's own
//! transaction, so one that was rolled back leaves nothing, and rows are never changed.

use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid, pg_guard};
use serde_json::{Value, json};

use crate::error::{Answer, Problem, state};
use crate::identity;

/// An administrative act that was done, as it is recorded.
pub struct Act<'a> {
    name: &'static str,
    database_id: Option<Uuid>,
    relation: Option<&'a str>,
    arguments: Value,
    outcome: Value,
}

impl<'a> Act<'a> {
    /// The act of calling this function.
    pub fn new(name: &'static str) -> Self {
        Act { name, database_id: None, relation: None, arguments: json!({}), outcome: json!({}) }
    }

    /// The database that it was done to.
    pub fn database(mut self, database_id: Uuid) -> Self {
        self.database_id = Some(database_id);
        self
    }

    /// The managed table that it was done to.
    pub fn relation(mut self, relation: &'a str) -> Self {
        self.relation = Some(relation);
        self
    }

    /// What else was asked for: an object, without secrets.
    pub fn arguments(mut self, arguments: Value) -> Self {
        self.arguments = arguments;
        self
    }

    /// What came of it: an object, without secrets.
    pub fn outcome(mut self, outcome: Value) -> Self {
        self.outcome = outcome;
        self
    }

    /// Writes it down; to be called as the user who acts, when it is done.
    pub fn record(self) -> Answer<()> {
        let session = identity::role_name(identity::session_user());
        let effective = identity::role_name(identity::effective_user());
        identity::as_extension(|| {
            Spi::run_with_args(
                "INSERT INTO plimsoll.act_record (act, session_role, effective_role, client_address,
                     application_name, database_id, relation, arguments, outcome)
                 VALUES ($1, $2::pg_catalog.name, $3::pg_catalog.name, pg_catalog.inet_client_addr(),
                     pg_catalog.current_setting('application_name'), $4, $5, $6, $7)",
                &[
                    self.name.into(),
                    session.into(),
                    effective.into(),
                    self.database_id.into(),
                    self.relation.into(),
                    JsonB(self.arguments).into(),
                    JsonB(self.outcome).into(),
                ],
            )?;
            Ok(())
        })
    }
}

/// The version of the calling convention, as Postgres asks for it beside each function.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_acts_stay_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// `plimsoll.acts_stay()`, the trigger that lets nobody change what is recorded, the extension's owner included.
///
/// # Safety
/// Called by Postgres.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn acts_stay_wrapper(_fcinfo: pg_sys::FunctionCallInfo) -> Datum {
    Problem::new(state::NOT_AUTHORISED, "the record of administrative acts is only added to").raise()
}
