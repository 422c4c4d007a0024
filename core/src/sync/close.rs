//! What a run may say of a table when it is done with it: status and proof.

use super::table::Table;
use super::{MOST_STALE, Seen, Stale, Status};

/// Whether the row counts agree. A row that is not stored may have an older version on the target or none;
/// until a sweep has told which, both will do. What is to be deleted yet does not count.
pub(super) fn counts_agree(table: &Table) -> bool {
    let (Some(local), Some(remote)) = (table.local_rows, table.version.row_count) else { return true };
    let (rejected, waiting) = table.ledger.counts();
    let remote = remote.saturating_sub(table.candidates.len() as u64);
    let stored = local.saturating_sub(rejected + waiting);
    if table.input.shape.keyless && stored < local {
        return match table.memory.refused_copies.filter(|_| !table.ledger.newly_rejected) {
            Some(copies) => remote == local.saturating_sub(copies),
            None => remote <= stored,
        };
    }
    if table.memory.stale_known && !table.ledger.newly_rejected {
        return remote == stored + table.ledger.kept_count() as u64;
    }
    (stored..=local).contains(&remote)
}

/// Concludes the run for a table: its report, and what is remembered of it.
pub(super) fn conclude(table: &mut Table, now: i64) {
    let version = &table.version;
    let mut seen = Seen {
        token: table.token.clone(),
        local_rows: table.local_rows,
        local_max: table.local_max,
        remote_rows: version.row_count,
        remote_max: version.max_position,
        remote_modified: version.max_modified,
        remote_sum: version.sum,
    };
    let holds_the_whole = table.holds_the_whole();
    let mended = table.unconfirmed.is_empty() && table.confirming.is_empty();
    let memory = &mut table.memory;
    memory.sweep_clean &= mended;
    let quiet = !table.disturbed && !table.moved;
    memory.sweep_quiet &= quiet;
    let newly_rejected = std::mem::take(&mut table.ledger.newly_rejected);
    memory.sweep_settled &= !newly_rejected;
    memory.stale_known &= !newly_rejected;
    memory.refused_copies = memory.refused_copies.filter(|_| !newly_rejected);
    if let Some(ended) = table.windows.ended.filter(|_| mended) {
        memory.stale_known = ended.settled && table.ledger.kept_count() <= MOST_STALE;
        memory.proved_at = Some(ended.started);
        memory.proof = (ended.quiet && quiet && holds_the_whole != Some(false)).then(|| seen.clone());
    }
    // Rows moved while it was swept, on one side or the other, or what differed could not be mended: the next run looks
    // again. What is held is left until it is released.
    let left = table.pending || table.dropped || holds_the_whole == Some(false);
    if left && table.ledger.report.held == 0 {
        if let Some(last) = &mut memory.last_sweep {
            last.token = None;
        }
        if holds_the_whole == Some(false) && quiet && table.token.is_some() {
            // The source stood still, so others changed the target.
            seen.remote_sum = table.whole.map(|whole| whole.sum());
        }
    }
    if table.ledger.report.windows > 0 {
        memory.compared_at = Some(now);
    }
    let counts = seen.local_rows.zip(seen.remote_rows);
    let swept = table.windows.swept_for == counts || table.windows.forced_sweep_is_done(memory);
    memory.blocked = table.ledger.report.blocked > 0 || (memory.blocked && !swept);
    memory.held = table.ledger.report.held > 0 || (memory.held && (table.input.on_hold || !swept));
    if swept && !table.dropped && counts.is_some() {
        memory.swept_for = counts;
    }
    let stale = table.ledger.kept().map(|(item, owner)| Stale {
        key_id: *owner,
        position: item.position,
        digest: item.digest.0,
    });
    memory.stale = stale.take(MOST_STALE).collect();
    memory.stale.sort_unstable();
    memory.seen = Some(seen);
    let (rejected, waiting) = table.ledger.counts();
    let report = &mut table.ledger.report;
    (report.rejected, report.waiting) = (rejected, waiting);
    report.local_rows = table.local_rows;
    report.remote_rows = table.version.row_count;
    report.proved_at = table.memory.proved_at;
    table.ledger.report.status = status(table);
    table.ledger.report.concluded = true;
}

fn status(table: &Table) -> Status {
    let report = &table.ledger.report;
    let excepted = report.rejected + report.waiting;
    let tops_agree = if table.input.shape.hashed {
        true
    } else if excepted > 0 {
        table.version.max_position <= table.local_max
    } else {
        table.version.max_position == table.local_max
    };
    if table.pending || table.dropped || report.held > 0 || report.blocked > 0 {
        Status::Different
    } else if table.memory.compared_at.is_none() {
        Status::Unknown
    } else if !tops_agree || !counts_agree(table) {
        Status::Different
    } else if excepted > 0 {
        Status::LevelExcept(excepted)
    } else if table.memory.proof.is_some() && table.memory.proof == table.memory.seen {
        Status::Level
    } else {
        Status::CountsAgree
    }
}
