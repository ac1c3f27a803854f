//! What must survive: the daemon killed at random and at each named durable step, the power cut, the disk full.
//!
//! Needs `/dev/fuse`; the full disk and the power cut need root, too, because they mount file systems. Where that is
//! missing they are left out and say so; in CI that is a failure.

#[path = "../mounted_support/mod.rs"]
mod mounted_support;

mod crashes;
mod disks;
mod full_disk;
mod journal;
mod power_cut;
mod volatile;
