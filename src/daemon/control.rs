//! The control socket: how commands talk to the daemon of a mount.
//!
//! One Unix socket per mount, mode 0600, in a directory of the user's own. Requests and replies are JSON,
//! one value a line. A request is answered by any number of progress lines and one last reply; then the
//! next request may follow. The protocol carries a version; another one is refused with both numbers.

mod client;
mod keeping;
mod place;
mod protocol;
mod server;

pub use client::{Client, Found, Presence, find_all};
pub use keeping::{CacheView, FreeOutcome, HeldLine, NoRoom, PinOutcome, ThumbnailLine, TroubleLine};
pub use place::{candidates, escape, runtime_dir, socket_name};
pub use protocol::{
    Answer, CacheUse, ConflictCause, ConflictLine, ControlError, DriveLine, DriveStatus, Estimate, Keep,
    MountState, Outcome, PROTOCOL, ParkKind, Parked, Progress, Reading, Request, RequestCounts, Status,
    Upload, Waits, WirePath,
};
pub use server::{ControlHandler, ProgressSink, Server};

#[cfg(test)]
mod tests;
