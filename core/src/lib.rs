//! Plimsoll core.
