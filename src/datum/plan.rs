//! Plans of statements that every call runs, kept in the backend: to parse and plan them costs many times what
//! they do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, PgOid};
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};

use super::statement::{Connection, Prepared, receive_rows, run};
use super::{Parameter, Row};
use crate::error::{Answer, Problem, state};

/// Plans that are kept of each kind.
const MOST: usize = 512;

/// A plan, and the types of the parameters that it is for: those of a managed table's columns may change.
struct Kept {
    types: Vec<pg_sys::Oid>,
    plan: pg_sys::SPIPlanPtr,
}

thread_local! {
    static STATEMENTS: RefCell<HashMap<String, Rc<OwnedPreparedStatement>>> = RefCell::new(HashMap::new());
    static PLANS: RefCell<HashMap<String, Kept>> = RefCell::new(HashMap::new());
}

/// Selects by a plan that is kept: for statements on the extension's tables or the catalogue, always called with
/// arguments of the same types.
pub fn select_planned<'conn>(
    client: &SpiClient<'conn>,
    sql: &str,
    limit: Option<core::ffi::c_long>,
    arguments: &[DatumWithOid<'_>],
) -> Answer<SpiTupleTable<'conn>> {
    let known = STATEMENTS.with_borrow(|statements| statements.get(sql).cloned());
    let statement = match known {
        Some(statement) => statement,
        None => {
            let types: Vec<PgOid> = arguments.iter().map(|argument| PgOid::from(argument.oid())).collect();
            let made = Rc::new(client.prepare(sql, &types)?.keep());
            STATEMENTS.with_borrow_mut(|statements| {
                if statements.len() < MOST {
                    statements.insert(sql.to_owned(), made.clone());
                }
            });
            made
        }
    };
    Ok(client.select(&*statement, limit, arguments)?)
}

/// As [`read_all`](super::read_all), by a plan that is kept: for statements whose best plan does not depend on
/// their parameters.
pub fn read_planned(
    sql: &str,
    parameters: &[Parameter],
    take: &mut dyn FnMut(&Row<'_>) -> Answer<bool>,
) -> Answer<()> {
    let mut prepared = Prepared::new(sql, parameters)?;
    let _connection = Connection::open();
    let known = PLANS.with_borrow(|plans| match plans.get(sql) {
        Some(kept) if kept.types == prepared.types => Ok(kept.plan),
        // In its place; it is not freed, because a statement of this session may be running it.
        Some(_) => Err(0),
        None => Err(plans.len()),
    });
    let plan = match known {
        Ok(plan) => plan,
        Err(kept) if kept < MOST => keep_plan(sql, &mut prepared)?,
        Err(_) => return run(&prepared, true, take).map(drop),
    };
    receive_rows(&prepared, true, take, &|options| {
        // SAFETY: the plan was kept, and is of these parameters; the options outlive the call.
        unsafe { pg_sys::SPI_execute_plan_extended(plan, options) }
    })
    .map(drop)
}

fn keep_plan(sql: &str, prepared: &mut Prepared) -> Answer<pg_sys::SPIPlanPtr> {
    let plan = prepared.plan()?;
    // SAFETY: the plan is of the open connection; once kept it belongs to the backend.
    if unsafe { pg_sys::SPI_keepplan(plan) } != 0 {
        return Err(Problem::new(state::INTERNAL, "a plan of the extension could not be kept"));
    }
    let kept = Kept { types: prepared.types.clone(), plan };
    PLANS.with_borrow_mut(|plans| plans.insert(sql.to_owned(), kept));
    Ok(plan)
}
