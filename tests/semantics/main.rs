//! The sentences of `docs/semantics.md`, each against the whole program but the kernel, over the emulator, on a
//! paused clock. A test quotes the sentence it holds (`// S12`).

#[path = "../sync_support/mod.rs"]
mod sync_support;

mod attributes;
mod both_sides;
mod names;
mod network;
mod one_version;
mod reading;
mod writing;

use std::time::Duration;

use onedrivefs::emulator::{Fault, FaultAction, Flavour};
use onedrivefs::vfs::{OpenFlags, VfsError};
use sync_support::{Machine, Service};

const FLAVOURS: [Flavour; 3] = [Flavour::Personal, Flavour::Business, Flavour::DocumentLibrary];

/// Longer than the poll interval.
const A_ROUND: Duration = Duration::from_secs(61);

const READ: OpenFlags = OpenFlags::READ;
const WRITE: OpenFlags = OpenFlags { read: false, ..BOTH };
const BOTH: OpenFlags = OpenFlags::READ_WRITE;

fn file(path: &str, content: &str) -> (String, Option<String>) {
    (path.into(), Some(content.into()))
}

fn folder(path: &str) -> (String, Option<String>) {
    (path.into(), None)
}

fn errno<T>(result: Result<T, VfsError>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

/// A fault that hits every request of the operation; all requests without one.
fn fault(op: Option<&str>, action: FaultAction) -> Fault {
    Fault { method: None, path: None, op: op.map(Into::into), skip: 0, count: None, action }
}

/// Requests that would change something on the service, since the log was reset.
fn changes(service: &Service) -> usize {
    ["PUT", "POST", "PATCH", "DELETE"].iter().map(|method| service.requests(method)).sum()
}

/// All requests since the log was reset, by name.
fn asked(service: &Service) -> Vec<String> {
    service.control.requests().iter().map(|record| record.op.clone()).collect()
}

/// What `status` tells of things that no caller could be told.
fn notices(machine: &Machine) -> String {
    let notices = machine.engine.store().notices(100).expect("the store");
    notices.iter().map(|notice| format!("{}: {}\n", notice.path, notice.text)).collect()
}
