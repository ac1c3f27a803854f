//! What of the pinned files is fetched, and what may be freed. Pure.

use std::time::Duration;

use crate::content::{ContentError, FetchErrorKind};
use crate::model::NodeId;

/// At most so many are told of which something is wrong.
pub const TOLD: usize = 20;

/// A pinned file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Find {
    pub id: NodeId,
    /// Bytes on the disk when it is whole.
    pub cost: u64,
    /// It is whole.
    pub here: bool,
    /// It is being fetched.
    pub busy: bool,
    /// It failed a moment ago.
    pub failed: bool,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be fetched, in this order.
    pub fetch: Vec<NodeId>,
    /// Bytes that all pinned files take.
    pub needed: u64,
}

/// What is here has its room; of the rest so much is fetched, in the order of `files`, as fits beside that.
pub(super) fn plan(files: &[Find], capacity: u64) -> Plan {
    let needed = files.iter().fold(0u64, |sum, file| sum.saturating_add(file.cost));
    let held = |file: &&Find| file.here || file.busy;
    let mut used = files.iter().filter(held).fold(0u64, |sum, file| sum.saturating_add(file.cost));
    let mut fetch = Vec::new();
    for file in files.iter().filter(|file| !held(file) && !file.failed) {
        let with = used.saturating_add(file.cost);
        if with <= capacity {
            used = with;
            fetch.push(file.id);
        }
    }
    Plan { fetch, needed }
}

/// How long after a failure a pinned file is tried again.
pub(super) fn again_after(error: &ContentError) -> Duration {
    let seconds = match error.fetch_kind() {
        Some(
            FetchErrorKind::Denied
            | FetchErrorKind::Malware
            | FetchErrorKind::NotFound
            | FetchErrorKind::SignedOut
            | FetchErrorKind::OtherSize { .. },
        ) => 600,
        // The next look at the drive tells what it is now.
        Some(FetchErrorKind::VersionGone) => 30,
        Some(
            FetchErrorKind::Offline
            | FetchErrorKind::Deadline
            | FetchErrorKind::Io
            | FetchErrorKind::Protocol,
        ) => 30,
        None => 300,
    };
    Duration::from_secs(seconds)
}

/// Why the content of a file is not given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The service does not have it.
    Unsent,
    /// A program has it open.
    Open,
    /// It is pinned.
    Pinned,
}

impl Refusal {
    /// What is wrong.
    pub fn why(self) -> &'static str {
        match self {
            Self::Unsent => "it has changes that the service does not have",
            Self::Open => "a program has it open",
            Self::Pinned => "it is pinned",
        }
    }

    /// What to do.
    pub fn remedy(self) -> &'static str {
        match self {
            Self::Unsent => "run 'onedrivefs sync' first",
            Self::Open => "close it first",
            Self::Pinned => "run 'onedrivefs unpin' first",
        }
    }
}

/// Whether the local content of a file may be given up.
pub(super) fn may_free(unsent: bool, open: bool, pinned: bool) -> Result<(), Refusal> {
    match (unsent, open, pinned) {
        (true, ..) => Err(Refusal::Unsent),
        (_, true, _) => Err(Refusal::Open),
        (_, _, true) => Err(Refusal::Pinned),
        (false, false, false) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(id: i64, cost: u64) -> Find {
        Find { id: NodeId(id), cost, here: false, busy: false, failed: false }
    }

    #[test]
    fn what_is_missing_is_fetched_in_order_as_far_as_it_fits() {
        let files = [
            find(1, 40),
            Find { here: true, ..find(2, 30) },
            find(3, 50),
            Find { busy: true, ..find(4, 10) },
            find(5, 20),
            Find { failed: true, ..find(6, 1) },
        ];
        assert_eq!(plan(&files, 1000), Plan { fetch: vec![NodeId(1), NodeId(3), NodeId(5)], needed: 151 });
        assert_eq!(plan(&files, 100).fetch, [NodeId(1), NodeId(5)], "what is here is not pushed out");
        assert!(plan(&files, 39).fetch.is_empty());
    }

    #[test]
    fn only_clean_closed_unpinned_content_is_given_up() {
        assert_eq!(may_free(false, false, false), Ok(()));
        assert_eq!(may_free(true, true, true), Err(Refusal::Unsent));
        assert_eq!(may_free(false, true, true), Err(Refusal::Open));
        assert_eq!(may_free(false, false, true), Err(Refusal::Pinned));
    }

    #[test]
    fn what_time_may_mend_is_tried_again_soon_and_the_rest_later() {
        let after = |kind: FetchErrorKind| again_after(&ContentError::Fetch(kind.into()));
        assert!(after(FetchErrorKind::Offline) < after(FetchErrorKind::Malware));
        assert!(again_after(&ContentError::NoRoom) >= Duration::from_secs(60));
    }
}
