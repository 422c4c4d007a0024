//! The local side of two-way tables over SQLite files: the same random histories that the algorithm is tested by, where
//! each call is made of the model and of a file, which must answer the same.

#[path = "../../../core/tests/two_way/histories.rs"]
mod histories;
mod kept;
#[path = "../../../core/tests/two_way/model/mod.rs"]
mod model;
mod remembered;
mod side;
mod speed;
mod spooled;

use plimsoll_core::store::LocalSide;

use model::World;

/// Whether some keys stand at one position.
const SHARES_POSITIONS: bool = false;

/// How many histories are made of each sort, where nothing else is said.
const HISTORIES: u64 = 6;

/// The local side of a world: the model, and a file beside it.
fn local_side(world: &World) -> Box<dyn LocalSide> {
    Box::new(side::Both::new(world))
}
