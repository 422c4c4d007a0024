//! Carries the steps of a table's machine out.

use super::report::{Memory, Report};
use super::step::carry_out;
use super::table::Machine;
use super::{Clock, Settings, Table};
use crate::store::{Failure, FailureKind, LocalSide, RemoteSide};
use crate::sync::Status;

/// Brings both sides of a table level, as far as the time goes. `memory` is what the last run left of it, or the
/// default; what this run leaves is to be saved. Failures are in the report.
pub fn run(
    local: &mut dyn LocalSide,
    remote: &mut dyn RemoteSide,
    clock: &mut dyn Clock,
    settings: &Settings,
    table: &Table,
    memory: &mut Memory,
) -> Report {
    let began = clock.now();
    let until = began.saturating_add_unsigned(settings.budget);
    let mut machine = Machine::new(table, settings, memory.clone());
    machine.work_until(until);
    let mut tries = 1;
    loop {
        // Some keys are decided upon in each run, however little time it has.
        if machine.between() && (clock.stopping() || (machine.worked && clock.now() >= until)) {
            machine.stop();
        }
        let Some(step) = machine.step() else { break };
        let failure = match carry_out(local, remote, table.id, step) {
            Ok(answer) => {
                tries = 1;
                machine.time_is(clock.now());
                if machine.tell(answer) {
                    continue;
                }
                Failure::new(FailureKind::Table, "a step of two-way sync was answered with something else")
            }
            Err(failure) if failure.kind == FailureKind::Passing && tries < settings.max_tries => {
                clock.pause(settings.retry_pause << (tries - 1).min(10));
                tries += 1;
                continue;
            }
            Err(failure) => failure,
        };
        *memory = Memory::default();
        return Report {
            status: Status::Unknown,
            concluded: false,
            failure: Some(failure),
            ..machine.report
        };
    }
    *memory = machine.memory;
    machine.report
}
