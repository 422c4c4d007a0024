//! Tables whose rows stand at a hash: without version, without key, with a version of each row's own. And tables with a
//! binary version.

mod calls;
mod copies;
mod manage;
mod plans;
mod positions;
mod site;
mod uploads;
