//! The part of a reconciliation that gathers symbols until they decode.

use super::{Reconcile, Rows, State};
use crate::sketch::Sketch;

impl Reconcile {
    /// Puts further symbols to those at hand, and tries to decode them.
    pub(super) fn take_symbols(&mut self, bytes: &[u8]) -> bool {
        let first = self.sketch.as_ref().map_or(0, Sketch::symbols);
        let Ok(more) = Sketch::read(&self.ranges, first, bytes) else { return false };
        let sketch = match self.sketch.take() {
            None => more,
            Some(mut sketch) => {
                if !sketch.append(&more) {
                    return false;
                }
                sketch
            }
        };
        if self.open.iter().any(|region| region.items.is_none()) {
            self.state = State::LocalSketch { remote: sketch };
            return true;
        }
        let Ok(mut local) = Sketch::new(&self.ranges, 0, sketch.symbols()) else { return false };
        let rows = self.open.iter().filter_map(|region| region.items.as_ref());
        rows.flat_map(Rows::iter).for_each(|item| local.add(item));
        self.decode(sketch, &local);
        true
    }

    pub(super) fn decode(&mut self, remote: Sketch, local: &Sketch) {
        match remote.decode(local) {
            Some(decoded) => {
                self.found.local_only.extend(decoded.local_only);
                self.found.remote_only.extend(decoded.remote_only);
                self.open.clear();
                self.sketch = None;
            }
            None => {
                self.failures += 1;
                self.sketch = Some(remote);
            }
        }
    }
}
