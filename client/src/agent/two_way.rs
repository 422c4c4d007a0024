//! Two-way: both sides may change.

mod watch;

use std::cell::RefCell;

use plimsoll_core::digest::Digester;
use plimsoll_core::direction::fits_two_way;
use plimsoll_core::store::{Failure, FailureKind, Made, Outcome};
use plimsoll_core::sync::{Event, Status, TableReport};
use plimsoll_core::two_way::{self, Merging, Report, Revisions, Settings, Table};
use plimsoll_core::value::ColumnType;

use super::patience::Patience;
use super::prepare::{PreparedTable, fingerprint_key};
use super::world::now;
use super::{GroupResult, Moved, Running, TableResult};
use crate::failure::{Advise, table as refused};
use crate::progress::Way;
use crate::server::TwoWayRemote;
use crate::source::plan::TablePlan;
use crate::source::{open, open_writable};
use crate::state::TwoWayMemory;
use crate::stop::Stop;
use crate::two_way::{Guarding, LocalTable, LocalTables, MadeOf};
use watch::{Here, RunClock, There, Watch};

/// Makes the tables level: parents before the tables that refer to them, and those that wait for others once more, the
/// other way round.
///
/// # Errors
/// Where none of the tables could begin.
pub fn run(
    running: &mut Running<'_>,
    tables: &[PreparedTable],
    plans: Vec<TablePlan>,
) -> Outcome<GroupResult> {
    let digester = Digester::new(fingerprint_key(running.server)?);
    let (mut going, mut results) = (Vec::new(), Vec::new());
    for (table, plan) in tables.iter().zip(plans) {
        match suits(&plan) {
            Ok(revisions) => going.push((table, plan, revisions)),
            Err(failure) => results.push(table.failed(failure)),
        }
    }
    if going.is_empty() {
        return Ok(GroupResult { tables: results, ..GroupResult::default() });
    }
    going.sort_by_key(|(table, ..)| table.input.rank);
    let plans: Vec<TablePlan> = going.iter().map(|(_, plan, _)| plan.clone()).collect();
    let merging = |table: &PreparedTable, plan: &TablePlan| {
        let version = plan.schema.version().filter(|_| table.config.merges_columns());
        version.map(|version| Merging { digester: digester.clone(), version: version.number })
    };
    let database = running.config.server.database_id;
    let local = going.iter().map(|(table, plan, _)| LocalTable {
        name: format!("{database} {}", table.input.name),
        local: plan.table.clone(),
        schema: plan.schema.clone(),
        merging: merging(table, plan),
        keeps_rows: table.config.keeps_base_rows(),
        made_of: MadeOf { keys: plan.key_stamp(), columns: plan.stamp() },
    });
    let place = running.config.source_place()?;
    let mut patience = Patience::new(&running.settings, running.stop);
    let key = fingerprint_key(running.server)?;
    let store = patience.with(|| {
        let database = if running.options.dry_run { open(&place) } else { open_writable(&place) };
        database?.into_store(plans.clone(), key.clone())
    })?;
    let mut local = LocalTables::new(store, local.collect(), Guarding::On).under(running.lease.clone());
    if running.options.allow_mass_delete && !running.options.dry_run {
        patience.with(|| local.release_holds())?;
    }
    let local = RefCell::new(local);
    let replicas = going.iter().map(|(table, ..)| table.replica.clone()).collect();
    running.progress.begin(going.iter().map(|(table, ..)| table.config.name.clone()).collect(), Way::Both);
    let mut group = Group {
        settings: settings(running),
        watch: RefCell::new(Watch::new(running.progress, running.settings.max_rejections_in_a_row)),
        remote: RefCell::new(TwoWayRemote::new(running.server, running.run_id, replicas)),
        local: &local,
        stop: running.stop,
        ends: now().saturating_add_unsigned(running.settings.run_budget),
    };
    let mut done: Vec<Option<Done>> = going.iter().map(|_| None).collect();
    let mut failure: Option<Failure> = None;
    // After the first round others, children first, as long as fewer keys are left open: what waited for rows of other tables
    // may fit by now, and no more than some of what waits is tried at a time.
    let mut ids: Vec<usize> = (0..going.len()).collect();
    let (mut again, mut goes_on) = (false, true);
    while goes_on && !(again && now() >= group.ends) {
        goes_on = !again && going.len() > 1 && !running.options.dry_run;
        // What waits from earlier runs waits on where nothing went in this one.
        let moved = done.iter().flatten().any(|done| done.report.has_moved());
        for (turn, id) in ids.iter().copied().enumerate() {
            let (table, plan, revisions) = &going[id];
            let waits = |Done { report, .. }: &Done| {
                report.open > 0 && (report.waiting > 0 || (report.tried_again > 0 && moved))
            };
            if failure.is_some() || running.stop.asked() || (again && !done[id].as_ref().is_some_and(waits)) {
                continue;
            }
            let told = Table {
                id,
                policy: table.config.policy(),
                revisions: *revisions,
                merging: merging(table, plan),
            };
            let left = if again { 1 } else { going.len() - turn };
            let mut remembered = running.state.two_way(&table.input.name, plan.stamp());
            let one = group.run(&told, &mut remembered, left);
            if let Some(found) =
                one.report.failure.as_ref().filter(|failure| failure.kind == FailureKind::Run)
            {
                failure = Some(found.clone());
            }
            if !running.options.dry_run {
                running.state.remember_two_way(&table.input.name, &remembered)?;
            }
            let open = done[id].as_ref().map_or(0, |done| done.report.open);
            goes_on |= again && one.report.open < open;
            done[id] = Some(match done[id].take() {
                Some(before) => before.and(one),
                None => one,
            });
        }
        if !std::mem::replace(&mut again, true) {
            ids.reverse();
        }
    }
    let skew = group.remote.borrow().skew();
    running.progress.end();
    for ((table, _, revisions), done) in going.iter().zip(done) {
        results.push(match done {
            Some(done) => {
                done.result(table, skew.filter(|_| *revisions == Revisions::Stamps), running.options.dry_run)
            }
            None => table.untouched(),
        });
    }
    Ok(GroupResult { tables: results, failure, stopped: running.stop.asked() })
}

/// What revisions of a table are.
///
/// # Errors
/// A `Table` failure that says what to do, where both sides cannot change it.
fn suits(plan: &TablePlan) -> Outcome<Revisions> {
    let schema = &plan.schema;
    fits_two_way(schema).map_err(|unfit| {
        refused(format!("the managed table cannot change on both sides: {unfit}"))
            .advise("have it managed again so that it can, or take another direction")
    })?;
    if let Some(column) = plan.absent().next().and_then(|number| schema.column(number)) {
        return Err(refused(format!(
            "the local table has no column \"{}\": rows that come from the server would lose it",
            column.name
        ))
        .advise("add the column, or say what it holds in all rows: constants = { .. }"));
    }
    Ok(revisions(schema.version().map(|column| &column.column_type)))
}

/// What revisions of this type are. A stamp without a time zone may be of any: nobody knows whether it is of the future.
fn revisions(column_type: Option<&ColumnType>) -> Revisions {
    match column_type {
        Some(ColumnType::Timestamptz(_)) => Revisions::Stamps,
        _ => Revisions::Numbers,
    }
}

fn settings(running: &Running<'_>) -> Settings {
    let own = &running.settings;
    let defaults = Settings::default();
    Settings {
        batch_rows: defaults.batch_rows.min(own.max_batch_rows),
        batch_bytes: own.max_batch_bytes,
        dry_run: own.dry_run,
        max_tries: own.max_tries,
        retry_pause: own.retry_pause,
        ..defaults
    }
}

/// The tables under way, and what they share.
struct Group<'g> {
    settings: Settings,
    watch: RefCell<Watch<'g>>,
    remote: RefCell<TwoWayRemote<'g>>,
    local: &'g RefCell<LocalTables>,
    stop: &'g Stop,
    /// When the time of all is over, in microseconds since the Unix epoch.
    ends: i64,
}

/// What became of a table.
struct Done {
    report: Report,
    proved_at: Option<i64>,
}

impl Group<'_> {
    /// Makes one table level; `left`: how many share the time that is left.
    fn run(&mut self, table: &Table, remembered: &mut TwoWayMemory, left: usize) -> Done {
        let began = now();
        self.watch.borrow_mut().begin(table.id);
        let share = u64::try_from(self.ends - began).unwrap_or(0) / left.max(1) as u64;
        let settings = Settings { budget: share, ..self.settings.clone() };
        let mut here = Here { tables: self.local, watch: &self.watch };
        let mut there = There { remote: &self.remote, tables: self.local, watch: &self.watch };
        let mut clock = RunClock { stop: self.stop, watch: &self.watch };
        let mut report =
            two_way::run(&mut here, &mut there, &mut clock, &settings, table, &mut remembered.memory);
        let mut watch = self.watch.borrow_mut();
        if report.failure.is_none() {
            report.failure = watch.rejected_too_often();
        }
        if report.status == Status::Level && report.compared > 0 {
            remembered.proved_at = Some(began);
        }
        watch.event(Event::Finished { status: report.status });
        Done { report, proved_at: remembered.proved_at }
    }
}

impl Done {
    /// What became of it in both rounds.
    fn and(self, later: Done) -> Done {
        let (before, after) = (self.report, later.report);
        let report = Report {
            sent: before.sent + after.sent,
            received: before.received + after.received,
            deleted_here: before.deleted_here + after.deleted_here,
            deleted_there: before.deleted_there + after.deleted_there,
            merged: before.merged + after.merged,
            conflicts: before.conflicts + after.conflicts,
            recorded: before.recorded + after.recorded,
            undecided: before.undecided + after.undecided,
            rejected: before.rejected + after.rejected,
            future_stamps: before.future_stamps + after.future_stamps,
            memory_lost: before.memory_lost || after.memory_lost,
            made: before.made,
            local_restored: before.local_restored || after.local_restored,
            compared: before.compared + after.compared,
            ..after
        };
        Done { report, ..later }
    }

    fn result(self, table: &PreparedTable, skew: Option<i64>, dry_run: bool) -> TableResult {
        let Done { report, proved_at } = self;
        let name = &table.config.name;
        if report.made == Made::OfOtherKeys {
            tracing::warn!(
                "\"{name}\": the local table, or its key, is another one than when both sides last agreed"
            );
        }
        if report.made == Made::OfOtherColumns {
            tracing::warn!(
                "\"{name}\": columns, or what they are made of, are not what they were when both sides last agreed. Rows that \
                 both sides have alike stay, and new rows are copied; of two that differ the higher revision wins; rows that \
                 are gone from one side are left as they are on the other: {} keys are undecided, and recorded in \
                 plimsoll.conflicts",
                report.undecided
            );
        }
        if report.local_restored {
            tracing::warn!(
                "\"{name}\": the local database is older than what the server remembers of it: it was restored from a backup, \
                 is a copy, or its last run was cut off a week ago. What was open is decided anew"
            );
        }
        if report.memory_lost {
            tracing::warn!(
                "\"{name}\": what both sides last agreed on is lost. Of rows that both have the revision decides; rows that \
                 one side alone has are left as they are: {} of them were found by this run",
                report.undecided
            );
        }
        if report.future_stamps > 0 {
            tracing::warn!(
                "\"{name}\": {} rows have stamps of the future, which win no conflict: is a clock wrong?",
                report.future_stamps
            );
        }
        let moved = Moved {
            sent: report.sent,
            received: report.received,
            deleted_here: report.deleted_here,
            deleted_there: report.deleted_there,
            conflicts: report.conflicts,
            merged: report.merged,
            undecided: report.undecided,
            held_here: report.held_here,
            held_there: report.held_there,
            future_stamps: report.future_stamps,
            skew,
        };
        let changed = |count: u64| if dry_run { 0 } else { count };
        let would = |count: u64| if dry_run { count } else { 0 };
        let own = TableReport {
            status: report.status,
            proved_at: proved_at.filter(|_| report.status != Status::Unknown),
            updated: changed(report.sent),
            deleted: changed(report.deleted_there),
            rejected: report.rejected,
            waiting: report.waiting,
            held: report.held_here + report.held_there,
            compared_rows: report.compared,
            concluded: report.concluded,
            failure: report.failure,
            would_send: would(report.sent),
            would_delete: would(report.deleted_there),
            ..TableReport::default()
        };
        table.result(own, moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_without_a_time_zone_are_measured_by_no_clock() {
        assert_eq!(revisions(Some(&ColumnType::Timestamptz(6))), Revisions::Stamps);
        for column_type in [ColumnType::Timestamp(6), ColumnType::Int8] {
            assert_eq!(revisions(Some(&column_type)), Revisions::Numbers, "{column_type}");
        }
    }
}
