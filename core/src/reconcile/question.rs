//! What a reconciliation asks of a side, and what it is told.

use crate::ranges::RangeSummary;
use crate::short::ShortItem;
use crate::store::PositionRange;

/// Which side is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The side that is near: asking it costs time alone.
    Local,
    /// The side beyond the network.
    Remote,
}

impl Side {
    /// The other side.
    pub fn other(self) -> Side {
        match self {
            Side::Local => Side::Remote,
            Side::Remote => Side::Local,
        }
    }
}

/// What is asked of a side, as [`crate::store::Summaries`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question<'a> {
    /// Divide each of these ranges into at most `most`, and tell what they hold.
    RangeManifest {
        /// The ranges.
        ranges: &'a [PositionRange],
        /// How many each is divided into at most.
        most: u32,
    },
    /// What these ranges hold.
    Summaries(&'a [PositionRange]),
    /// Coded symbols over the rows of these ranges.
    Sketch {
        /// The ranges.
        ranges: &'a [PositionRange],
        /// The first symbol.
        first: u32,
        /// How many.
        symbols: u32,
    },
    /// The rows of these ranges.
    Items(&'a [PositionRange]),
}

/// What a side answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Question::RangeManifest`] and [`Question::Summaries`].
    Summaries(Vec<RangeSummary>),
    /// To [`Question::Sketch`].
    Sketch(Vec<u8>),
    /// To [`Question::Items`].
    Items(Vec<ShortItem>),
}
