//! What is kept of databases' tokens: enough to check a proof, not enough to make one. A database has one token that
//! is good until it is replaced, and those before it while their grace lasts, so that no agent is ever without.

use pgrx::Uuid;
use pgrx::datum::Interval;
use pgrx::prelude::*;
use plimsoll_core::token::{StoredKey, Token};
use serde_json::json;

use crate::access::{self, no_such_database};
use crate::acts::Act;
use crate::argument::required;
use crate::datum::{Parameter, Row, is_read_committed, may_write, read_planned, with_newest_snapshot};
use crate::error::{Answer, OrRaise, Problem, state};
use crate::{identity, secret};

/// Tokens of a database that are good at the same time.
const MOST: i64 = 10;

/// The token that a proof was made with.
pub struct Accepted {
    database_id: Uuid,
    made_at: TimestampWithTimeZone,
    /// Until when it is good, where another took its place.
    good_until: Option<TimestampWithTimeZone>,
    /// That it is in use was not noted lately.
    to_be_noted: bool,
    /// Whether the database is suspended.
    pub suspended: bool,
}

/// Which of the database's tokens a proof was made with. An unknown database costs the same work as a known one.
pub fn accepting(database_id: Uuid, proof: &[u8], challenge: &[u8]) -> Answer<Option<Accepted>> {
    let mut kept = identity::as_extension(|| good_tokens(database_id))?;
    if kept.is_empty() {
        StoredKey([0; secret::LENGTH]).accepts(proof, challenge, database_id.as_bytes());
    }
    let found = kept.iter().position(|(stored, _)| stored.accepts(proof, challenge, database_id.as_bytes()));
    Ok(found.map(|place| kept.swap_remove(place).1))
}

/// Those that are good now, whatever state the transaction looks at.
fn good_tokens(database_id: Uuid) -> Answer<Vec<(StoredKey, Accepted)>> {
    let time = |row: &Row<'_>, column| TimestampWithTimeZone::try_from(row.int8(column)?).ok();
    let mut kept = Vec::new();
    let mut take = |row: &Row<'_>| {
        let stored = row.with_bytes(0, |stored| stored.try_into().ok()).flatten();
        if let (Some(stored), Some(made_at)) = (stored, time(row, 1)) {
            let accepted = Accepted {
                database_id,
                made_at,
                good_until: time(row, 2),
                suspended: row.bool(3).unwrap_or(true),
                to_be_noted: row.bool(4).unwrap_or(true),
            };
            kept.push((StoredKey(stored), accepted));
        }
        Ok(true)
    };
    with_newest_snapshot(|| {
        read_planned(
            "SELECT t.stored_key, t.made_at, t.good_until, d.suspended_at IS NOT NULL,
                    u.used_at IS NULL OR u.used_at OPERATOR(pg_catalog.<)
                        (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval)
             FROM plimsoll.database_record d
             JOIN plimsoll.token_record t ON t.database_id OPERATOR(pg_catalog.=) d.database_id
             LEFT JOIN plimsoll.token_use u ON u.database_id OPERATOR(pg_catalog.=) t.database_id
                 AND u.made_at OPERATOR(pg_catalog.=) t.made_at
             WHERE d.database_id OPERATOR(pg_catalog.=) $1
                 AND (t.good_until IS NULL OR t.good_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp())
             ORDER BY t.good_until DESC NULLS FIRST",
            &[Parameter { type_oid: pg_sys::UUIDOID, datum: database_id.into_datum() }],
            &mut take,
        )
    })?;
    Ok(kept)
}

impl Accepted {
    /// Tells the agent that its token was replaced, and the admin that it is still in use.
    pub fn note_old_token(&self) -> Answer<()> {
        let Some(good_until) = self.good_until else { return Ok(()) };
        pgrx::notice!("this token was replaced and is refused from {} on", good_until.to_iso_string());
        if !self.to_be_noted || !may_write() || !is_read_committed() {
            return Ok(());
        }
        identity::as_extension(|| {
            // An agent that notes it at this moment does so for this one.
            Spi::run_with_args(
                "UPDATE plimsoll.token_use u SET used_at = pg_catalog.clock_timestamp()
                 WHERE u.database_id OPERATOR(pg_catalog.=) $1 AND u.made_at OPERATOR(pg_catalog.=) (
                     SELECT o.made_at FROM plimsoll.token_use o
                     WHERE o.database_id OPERATOR(pg_catalog.=) $1 AND o.made_at OPERATOR(pg_catalog.=) $2
                     FOR NO KEY UPDATE SKIP LOCKED)",
                &[self.database_id.into(), self.made_at.into()],
            )?;
            Ok(())
        })
    }
}

/// Makes a database's first token, or one more that is good until it is replaced.
pub fn add(database_id: Uuid) -> Answer<Token> {
    let token = Token::from_random(&secret::random_bytes()?);
    identity::as_extension(|| {
        secret::hold(&token.stored_key().0, || {
            Spi::run_with_args(
                "INSERT INTO plimsoll.token_record (database_id, stored_key)
                 VALUES ($1, plimsoll.held_secret())",
                &[database_id.into()],
            )
        })?;
        Spi::run_with_args(
            "INSERT INTO plimsoll.token_use (database_id, made_at)
             SELECT t.database_id, t.made_at FROM plimsoll.token_record t
             WHERE t.database_id OPERATOR(pg_catalog.=) $1 AND t.good_until IS NULL",
            &[database_id.into()],
        )?;
        Ok(())
    })?;
    Ok(token)
}

#[pg_extern(sql = false)]
fn rotate_token(database_id: Option<Uuid>, grace: Option<Interval>) -> String {
    rotate(database_id, grace).or_raise()
}

fn rotate(database_id: Option<Uuid>, grace: Option<Interval>) -> Answer<String> {
    access::authorise_admin()?;
    let database_id = required(database_id, "database_id")?;
    let grace = required(grace, "grace")?;
    let (shown, still_good) = identity::as_extension(|| {
        let shown = checked(&grace)?;
        lock(database_id)?;
        Ok((shown, retire(database_id, &grace)?))
    })?;
    if still_good >= MOST {
        let message = format!("{still_good} tokens of database {database_id} are good at the same time");
        return Err(Problem::new(state::NOT_IN_STATE, message)
            .hint("Give agents the newest one, then run plimsoll.end_old_tokens."));
    }
    let token = add(database_id)?;
    Act::new("rotate_token")
        .database(database_id)
        .arguments(json!({ "grace": shown }))
        .outcome(json!({ "old_tokens": still_good }))
        .record()?;
    Ok(token.reveal().to_owned())
}

/// The grace as text, where it makes sense.
fn checked(grace: &Interval) -> Answer<String> {
    let shown = Spi::get_one_with_args::<String>(
        "SELECT CASE WHEN $1 OPERATOR(pg_catalog.>=) '0'::pg_catalog.interval
                      AND $1 OPERATOR(pg_catalog.<=) '1 year'::pg_catalog.interval THEN $1::pg_catalog.text END",
        &[(*grace).into()],
    )?;
    shown.ok_or_else(|| {
        Problem::new(state::BAD_ARGUMENT, "grace must be from 0 to 1 year")
            .hint("It says for how long the tokens before stay good; with '0' they end at once.")
    })
}

/// Makes sure that the database is registered; who rotates its token meanwhile waits.
fn lock(database_id: Uuid) -> Answer<()> {
    let found = Spi::connect_mut(|client| {
        let sql = "SELECT FROM plimsoll.database_record d WHERE d.database_id OPERATOR(pg_catalog.=) $1
                   FOR NO KEY UPDATE";
        Ok::<_, Problem>(client.update(sql, None, &[database_id.into()])?.len())
    })?;
    if found == 0 { Err(no_such_database(&database_id)) } else { Ok(()) }
}

/// Lets no token be good for longer than the grace, and forgets those that are not good any more; how many still are.
fn retire(database_id: Uuid, grace: &Interval) -> Answer<i64> {
    Spi::run_with_args(
        "UPDATE plimsoll.token_record t
         SET good_until = LEAST(t.good_until, pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) $2)
         WHERE t.database_id OPERATOR(pg_catalog.=) $1",
        &[database_id.into(), (*grace).into()],
    )?;
    Spi::run_with_args(
        "DELETE FROM plimsoll.token_record t WHERE t.database_id OPERATOR(pg_catalog.=) $1
             AND t.good_until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()",
        &[database_id.into()],
    )?;
    forget_uses(database_id)?;
    let left = Spi::get_one_with_args::<i64>(
        "SELECT pg_catalog.count(*) FROM plimsoll.token_record t
         WHERE t.database_id OPERATOR(pg_catalog.=) $1 AND t.good_until IS NOT NULL",
        &[database_id.into()],
    )?;
    Ok(left.unwrap_or(0))
}

/// Forgets when tokens were used that are gone. What an agent is noting at this moment goes another time: it is not
/// waited for, because its transaction may last.
fn forget_uses(database_id: Uuid) -> Answer<()> {
    Spi::run_with_args(
        "DELETE FROM plimsoll.token_use u
         WHERE u.database_id OPERATOR(pg_catalog.=) $1 AND u.made_at OPERATOR(pg_catalog.=) ANY (ARRAY(
             SELECT o.made_at FROM plimsoll.token_use o
             WHERE o.database_id OPERATOR(pg_catalog.=) $1 AND NOT EXISTS (
                 SELECT FROM plimsoll.token_record t
                 WHERE t.database_id OPERATOR(pg_catalog.=) o.database_id
                     AND t.made_at OPERATOR(pg_catalog.=) o.made_at)
             FOR UPDATE SKIP LOCKED))",
        &[database_id.into()],
    )?;
    Ok(())
}

#[pg_extern(sql = false)]
fn end_old_tokens(database_id: Option<Uuid>) -> i64 {
    end_old(database_id).or_raise()
}

/// Ends what rotations left: the newest token alone is good from now on.
fn end_old(database_id: Option<Uuid>) -> Answer<i64> {
    access::authorise_admin()?;
    let database_id = required(database_id, "database_id")?;
    let ended = identity::as_extension(|| {
        lock(database_id)?;
        let ended = Spi::get_one_with_args::<i64>(
            "WITH ended AS (
                 DELETE FROM plimsoll.token_record t
                 WHERE t.database_id OPERATOR(pg_catalog.=) $1 AND t.good_until IS NOT NULL
                 RETURNING t.good_until)
             SELECT pg_catalog.count(*) FROM ended e
             WHERE e.good_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()",
            &[database_id.into()],
        )?;
        forget_uses(database_id)?;
        Ok(ended.unwrap_or(0))
    })?;
    Act::new("end_old_tokens").database(database_id).outcome(json!({ "ended": ended })).record()?;
    Ok(ended)
}
