//! Measures Plimsoll against its baselines: what `cargo xtask bench` runs.
//!
//! | room | what lives there |
//! |---|---|
//! | [`case`] | one module a case: what is measured, against what, and the bars |
//! | [`bench`](mod@bench) | the private server and what every case needs |
//! | [`scale`] | how much is measured |
//! | [`turns`] | rounds with alternating order, medians |
//! | [`proxy`] | counts bytes and trips on the socket |
//! | [`ledger`] | the table that most cases measure |
//! | [`bookings`] | the rows that are replicated |
//! | [`local`] | the kinds of local databases that hold them, and their own dumps |
//! | [`pair`] | the same rows on two kept sides |
//! | [`batches`] | rows prepared beforehand, as uploads and for COPY |
//! | [`process`] | processor time and memory of processes |
//! | [`report`] | figures, ratios, verdicts; text, Markdown, JSON |
//! | [`progress`] | what the user sees meanwhile |

pub mod batches;
pub mod bench;
pub mod bookings;
pub mod case;
pub mod ledger;
pub mod local;
pub mod pair;
pub mod process;
pub mod progress;
pub mod proxy;
pub mod report;
pub mod scale;
pub mod turns;
