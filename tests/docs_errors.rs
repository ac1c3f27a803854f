//! `docs/errors.md` says what the program does: its tables are made from the code.
//!
//! `UPDATE_DOCS=1 cargo test --test docs_errors` writes them anew.

use std::fmt::Write;
use std::io;
use std::path::Path;

use onedrivefs::daemon::exit;
use onedrivefs::engine::EngineError;
use onedrivefs::store::{ParkKind, Parked};
use onedrivefs::vfs::VfsError;

const BEGIN: &str = "<!-- made from the code: ";
const END: &str = "<!-- end -->";

/// One of each, in the order of the table.
fn all() -> Vec<VfsError> {
    use VfsError::*;
    let text = || "…".to_owned();
    let errors = vec![
        NotFound,
        Exists,
        NotEmpty,
        NotDirectory,
        IsDirectory,
        Stale,
        BadHandle,
        AccessDenied,
        NotPermitted,
        ReadOnly,
        QuotaExceeded,
        NoSpace,
        Busy,
        Offline,
        Deadline,
        SignedOut,
        Invalid,
        NameTooLong,
        TooLarge,
        CrossDevice,
        NotSupported,
        NoAttribute,
        Range,
        NoData,
        Interrupted,
        Content(text()),
        Io(io::Error::other(text())),
        Store(text()),
        Service(text()),
    ];
    // A variant that is missing above does not compile here.
    for error in &errors {
        match error {
            NotFound | Exists | NotEmpty | NotDirectory | IsDirectory | Stale | BadHandle | AccessDenied
            | NotPermitted | ReadOnly | QuotaExceeded | NoSpace | Busy | Offline | Deadline | SignedOut
            | Invalid | NameTooLong | TooLarge | CrossDevice | NotSupported | NoAttribute | Range
            | NoData | Interrupted | Content(_) | Io(_) | Store(_) | Service(_) => {}
        }
    }
    errors
}

fn name_of(errno: i32) -> &'static str {
    match errno {
        libc::ENOENT => "ENOENT",
        libc::EEXIST => "EEXIST",
        libc::ENOTEMPTY => "ENOTEMPTY",
        libc::ENOTDIR => "ENOTDIR",
        libc::EISDIR => "EISDIR",
        libc::ESTALE => "ESTALE",
        libc::EBADF => "EBADF",
        libc::EACCES => "EACCES",
        libc::EPERM => "EPERM",
        libc::EROFS => "EROFS",
        libc::EDQUOT => "EDQUOT",
        libc::ENOSPC => "ENOSPC",
        libc::EBUSY => "EBUSY",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EKEYEXPIRED => "EKEYEXPIRED",
        libc::EINVAL => "EINVAL",
        libc::ENAMETOOLONG => "ENAMETOOLONG",
        libc::EFBIG => "EFBIG",
        libc::EXDEV => "EXDEV",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::ENODATA => "ENODATA",
        libc::ERANGE => "ERANGE",
        libc::ENXIO => "ENXIO",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        other => panic!("errno {other} has no name in this test"),
    }
}

fn errno_table() -> String {
    let mut table = "| situation | errno | number |\n|---|---|---|\n".to_owned();
    for error in all() {
        let errno = error.errno();
        writeln!(table, "| {error} | {} | {errno} |", name_of(errno)).unwrap();
    }
    table
}

/// Reasons for which a change is not sent.
fn reason_table() -> String {
    use ParkKind::*;
    let meanings = [
        (Quota, "the drive is full"),
        (Permission, "the service refuses the write"),
        (Malware, "the service takes the content for malware"),
        (Name, "the service refuses the name"),
        (Locked, "locked or checked out by someone"),
        (TooLarge, "larger than the service takes"),
        (AccessLost, "access to the folder or the drive is lost"),
        (BaseGone, "the version under a partly changed file is gone"),
        (Failing, "the service keeps failing on this one change"),
        (LocalDisk, "the local content cannot be read"),
        (Unconfirmed, "many deletes from before the drive was read again wait for `onedrivefs confirm`"),
    ];
    let mut table = "| reason | errno with `--sync` |\n|---|---|\n".to_owned();
    for (kind, meaning) in meanings {
        // A kind that is missing above does not compile here.
        match kind {
            Quota | Permission | Malware | Name | Locked | TooLarge | AccessLost | BaseGone | Failing
            | LocalDisk | Unconfirmed => {}
        }
        let error = VfsError::from(EngineError::Parked(Parked { kind, detail: String::new() }));
        writeln!(table, "| {meaning} | {} |", name_of(error.errno())).unwrap();
    }
    table
}

fn exit_table() -> String {
    let mut table = "| code | meaning |\n|---|---|\n".to_owned();
    for (code, meaning) in exit::TABLE {
        writeln!(table, "| {code} | {meaning} |").unwrap();
    }
    table
}

/// The document with the part called `name` replaced.
fn with_part(document: &str, name: &str, table: &str) -> String {
    let opening = format!("{BEGIN}{name} -->\n");
    let start = document.find(&opening).unwrap_or_else(|| panic!("{opening}")) + opening.len();
    let end = start + document[start..].find(END).unwrap_or_else(|| panic!("no end of {name}"));
    format!("{}{table}{}", &document[..start], &document[end..])
}

#[test]
fn the_tables_of_errnos_and_exit_codes_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let made = with_part(&document, "errno", &errno_table());
    let made = with_part(&made, "reasons", &reason_table());
    let made = with_part(&made, "exit codes", &exit_table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).unwrap();
    } else {
        assert!(made == document, "run: UPDATE_DOCS=1 cargo test --test docs_errors");
    }
}

#[test]
fn eio_is_the_last_resort() {
    let eio: Vec<String> =
        all().iter().filter(|error| error.errno() == libc::EIO).map(ToString::to_string).collect();
    assert_eq!(eio.len(), 4, "{eio:?}");
    assert_eq!(VfsError::Io(io::Error::from_raw_os_error(libc::ENOSPC)).errno(), libc::ENOSPC);
}
