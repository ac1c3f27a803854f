//! The program on a machine with real systemd as PID 1: mount(8), fstab, automount, units.
//!
//! Needs root, `systemd-nspawn`, `/dev/fuse`, `/dev/autofs` and loop devices, and so is no part of a plain `cargo test`:
//! `cargo test --test systemd [WORD...]` runs it, or those parts whose names have one of the words. What is missing is a
//! failure.

#[path = "../mounted_support/mod.rs"]
mod mounted_support;

mod automount;
mod helper;
mod machine;
mod services;
mod setting;

use std::panic::catch_unwind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// A part: its name, and what it does.
type Part = (&'static str, fn());

const PARTS: &[Part] = &[
    ("mount_helper", helper::mount_and_umount),
    ("mount_helper_on_the_overlay", helper::on_the_overlay),
    ("automount", automount::first_access_and_idle),
    ("automount_shipped", automount::shipped_units),
    ("automount_unsent", automount::unsent_when_idle),
    ("automount_offline", automount::without_a_network),
    ("service", services::of_the_system),
    ("service_of_a_user", services::of_a_user),
    ("service_mutant", services::a_unit_that_is_ready_too_early_is_noticed),
    ("mount_helper_mutant", helper::a_helper_that_returns_too_early_is_noticed),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let missing = missing();
    if !missing.is_empty() {
        eprintln!("missing: {}", missing.join(", "));
        return ExitCode::FAILURE;
    }
    let started = Instant::now();
    let mut failed = Vec::new();
    for (name, part) in PARTS {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let from = Instant::now();
        let word = if catch_unwind(part).is_ok() { "ok" } else { "FAILED" };
        println!("{name}: {word} ({:.1} s)", from.elapsed().as_secs_f64());
        if word != "ok" {
            failed.push(*name);
        }
    }
    println!("{:.0} s in all; failed: {}", started.elapsed().as_secs_f64(), failed.join(" "));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What this machine lacks.
fn missing() -> Vec<&'static str> {
    let tool = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| directory.join(name).exists())
    };
    let needed = [
        ("root", rustix::process::geteuid().is_root()),
        ("systemd-nspawn (package systemd-container)", tool("systemd-nspawn")),
        ("nsenter", tool("nsenter")),
        ("mkfs.ext4", tool("mkfs.ext4")),
        ("/dev/fuse", Path::new("/dev/fuse").exists()),
        ("/dev/autofs", Path::new("/dev/autofs").exists()),
    ];
    needed.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect()
}
