//! One named test per rule of the algorithm.
mod model;

use model::Model;
use plimsoll_core::sync::Status;

#[test]
fn a_first_sync_sends_everything_and_proves_it() {
    let model = Model::new(1, 1);
    model.fill(0, 0..5_000);
    let report = model.run();
    assert!(report.failure.is_none() && report.tables[0].failure.is_none(), "{report:?}");
    assert!(model.is_equal(0));
    assert_eq!(report.tables[0].inserted, 5_000);
    assert_eq!(report.tables[0].status, Status::Level, "{report:?}");
}
