//! Kept manifests: what triggers see, what makes a manifest untrusted, what repairs it.

mod dml;
mod partitions;
mod sides;
mod site;
mod trust;
mod uploads;
