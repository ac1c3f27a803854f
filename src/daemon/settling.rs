//! Conflict copies over the control socket: the engine's words in those of the protocol.

use std::path::Path;

use super::control::{ConflictLine, ControlError, WirePath};
use super::exit;
use crate::engine::{ConflictCopy, CopyState, SettleError};

/// One line of `conflicts`.
pub(super) fn line(copy: ConflictCopy) -> ConflictLine {
    let (state, reason) = match copy.state {
        CopyState::Sent => ("sent", None),
        CopyState::Unsent => ("unsent", None),
        CopyState::Parked(parked) => ("parked", Some(parked.detail)),
    };
    ConflictLine {
        path: WirePath(copy.path),
        beside: WirePath(copy.beside),
        host: copy.host,
        at: copy.at.to_rfc3339_seconds(),
        cause: copy.cause,
        size: copy.size,
        beside_size: copy.beside_size,
        state: state.to_owned(),
        reason,
    }
}

/// Why the conflict at `path` was not settled, and what to do.
pub(super) fn refused(path: &Path, error: &SettleError) -> ControlError {
    let (remedy, exit_code) = match error {
        SettleError::NoConflict => ("'onedrivefs conflicts' lists those there are".to_owned(), exit::USAGE),
        SettleError::Several(paths) => {
            let names: Vec<String> = paths.iter().map(|path| format!("'{}'", path.display())).collect();
            (format!("give one of them: {}", names.join(", ")), exit::USAGE)
        }
        SettleError::Open(_) => ("close it and try again".to_owned(), exit::BUSY),
        SettleError::OnlyHere => {
            let remedy = "run 'onedrivefs sync' first; if nobody needs it, delete it with rm";
            (remedy.to_owned(), exit::UNSENT)
        }
        SettleError::BesideUnsent(_) => {
            ("run 'onedrivefs sync' first, then look at both again".to_owned(), exit::UNSENT)
        }
        SettleError::Folder => ("move or delete one of them by hand".to_owned(), exit::USAGE),
        SettleError::Changed => ("look at both and try again".to_owned(), exit::BUSY),
        SettleError::Content(_) => ("nothing was changed; try again when online".to_owned(), exit::SERVICE),
        SettleError::Engine(_) => ("see the daemon's log".to_owned(), exit::FAILURE),
    };
    ControlError { what: path.display().to_string(), why: error.to_string(), remedy, exit_code }
}
