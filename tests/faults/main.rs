//! What must survive: the daemon killed at random and at each named durable step, the disk full.
//!
//! Needs `/dev/fuse`; the full disk needs root, too. Here it is left out and said so; in CI that
//! is a failure.

#[path = "../mounted_support/mod.rs"]
mod mounted_support;

mod crashes;
mod disks;
mod full_disk;
mod journal;
