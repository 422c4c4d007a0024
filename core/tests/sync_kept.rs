//! Two sides that both keep manifests: runs and full comparisons that read rows only where the sides differ.
mod model;

use model::{LocalRow, Model};
use plimsoll_core::store::TableShape;
use plimsoll_core::sync::{DifferenceKind, Status};

/// A table of both sides that keep manifests, level.
fn level(rows: u64, shape: TableShape) -> Model {
    let model = Model::new(1, 7);
    model.with(|state| {
        let table = &mut state.tables[0];
        (table.keeps_sum, table.keeps_manifest) = (true, true);
        (table.shape, table.scanned) = (shape, shape.hashed);
    });
    model.fill(0, 0..rows);
    let report = model.run();
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
    model
}

/// What one run does, and how many rows of the source its comparisons read.
fn run(model: &Model) -> (Status, u64, usize) {
    let report = model.run();
    let table = &report.tables[0];
    assert!(report.failure.is_none() && table.failure.is_none(), "{report:?}");
    (table.status, table.compared_rows, model.with(|state| state.rows_read))
}

const SHAPES: [TableShape; 3] = [
    TableShape { hashed: false, keyless: false },
    TableShape { hashed: true, keyless: false },
    TableShape { hashed: true, keyless: true },
];

#[test]
fn every_run_proves_a_level_table_and_reads_no_row() {
    for shape in SHAPES {
        let model = level(2_000, shape);
        for _ in 0..2 {
            model.with(|state| state.touch());
            assert_eq!(run(&model), (Status::Level, 2_000, 0), "{shape:?}");
            let steps = model.with(|state| state.log.iter().map(|call| call.operation).collect::<Vec<_>>());
            let reading = ["row_count", "tail_start", "window", "windows", "fingerprints", "read_batch"];
            assert!(!steps.iter().any(|step| reading.contains(step)), "{shape:?}: {steps:?}");
        }
        let (report, _) = model.verify(0);
        assert!(report.level && report.rows == 2_000, "{report:?}");
        assert_eq!(model.with(|state| state.rows_read), 0);
    }
}

#[test]
fn what_differs_is_found_in_the_next_run_whatever_its_version() {
    for shape in SHAPES {
        let model = level(8_000, shape);
        model.with(|state| {
            state.touch();
            let table = &mut state.tables[0];
            // Late below all versions, changed and gone without a word, and damage.
            table.local.insert(30_000, LocalRow::new(5, 1));
            table.local.get_mut(&2_700).expect("a row").value = 99;
            table.local.remove(&5_000);
            table.remote.remove(&600);
            table.remote.get_mut(&7_000).expect("a row").value = 98;
        });
        let (report, told) = model.verify(0);
        assert!(!report.level);
        if !shape.keyless {
            let altered = told.iter().filter(|told| told.kind == DifferenceKind::Altered).count();
            assert_eq!((told.len(), altered), (5, 2), "{told:?}");
        }
        let (status, _, read) = run(&model);
        assert_eq!(status, Status::Level, "{shape:?}");
        assert!(shape.hashed || read < 4_000, "{shape:?}: {read} rows read");
        assert!(model.with(|state| state.tables[0].is_equal()));
        assert_eq!(run(&model).2, 0);
    }
}

#[test]
fn a_manifest_that_one_side_no_longer_keeps_is_done_without() {
    for local in [true, false] {
        let model = level(3_000, SHAPES[0]);
        model.with(|state| {
            state.touch();
            let table = &mut state.tables[0];
            *(if local { &mut table.keeps_manifest } else { &mut table.keeps_sum }) = false;
            table.remote.remove(&1_500);
        });
        for _ in 0..4 {
            run(&model);
        }
        assert!(model.with(|state| state.tables[0].is_equal()));
    }
}
