//! Two-way sync over a model of both sides: rules one by one, and random histories.

mod altered;
mod clocks;
mod histories;
mod model;
mod restored;
mod rules;

use plimsoll_core::store::LocalSide;

use model::{State, World};

/// Whether some keys stand at one position.
const SHARES_POSITIONS: bool = true;

/// How many histories are made of each sort, where nothing else is said.
const HISTORIES: u64 = 150;

/// The local side of a world: the model itself.
fn local_side(world: &World) -> Box<dyn LocalSide> {
    Box::new(world.clone())
}

/// What else keeps what the model's local side has: nothing.
mod kept {
    use super::State;

    /// A history begins.
    pub fn begin(_: &State) {}

    /// The local side is as it is in a backup from now on, which has this place among all.
    pub fn back_up(_: &State, _: usize) {}

    /// It is that of this backup again.
    pub fn restore(_: &State, _: usize) {}

    /// Its memory is gone.
    pub fn forget(_: &State) {}
}
