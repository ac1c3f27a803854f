//! What is unsent and why, in the words of the control socket and of the log.

use super::control::{Parked, Waits};
use crate::engine::Waiting;
use crate::store::ParkKind;

/// At most so many changes that wait their turn are named.
const WAITS_NAMED: usize = 20;
/// At most so many changes are named under the one they wait for.
const BEHIND_NAMED: usize = 20;

/// The parked changes, each with those that wait for it.
pub(super) fn parked(waiting: &[Waiting]) -> Vec<Parked> {
    let one = |change: &Waiting| {
        let kind = change.reason?;
        let behind = waiting.iter().filter(|other| other.behind.as_ref() == Some(&change.path));
        Some(Parked {
            path: change.path.clone(),
            kind,
            reason: change.detail.clone(),
            remedy: remedy(kind).to_owned(),
            retry_at: change.retry_at.map(|at| at.to_rfc3339_seconds()),
            behind: behind.take(BEHIND_NAMED).map(|other| other.path.clone()).collect(),
        })
    };
    waiting.iter().filter_map(one).collect()
}

/// The first changes that wait their turn, but for those that wait for a parked one.
pub(super) fn waits(waiting: &[Waiting]) -> Vec<Waits> {
    waiting
        .iter()
        .filter(|change| change.reason.is_none() && change.behind.is_none())
        .take(WAITS_NAMED)
        .map(|change| Waits { path: change.path.clone(), why: change.detail.clone() })
        .collect()
}

fn remedy(kind: ParkKind) -> &'static str {
    match kind {
        ParkKind::Quota => "free space in the drive; it is sent as soon as it fits",
        ParkKind::Permission => "ask for the right to change this, or move the file elsewhere",
        ParkKind::Malware => "look at it with a virus scanner; it is sent when it is changed",
        ParkKind::Name => "give it another name, or a shorter path",
        ParkKind::Locked => "close it where it is open, or wait",
        ParkKind::TooLarge => "the service takes no file as large as this: move it elsewhere",
        ParkKind::AccessLost => "ask for access, or save it with 'onedrivefs rescue'",
        ParkKind::BaseGone => "copy the file elsewhere and delete it here",
        ParkKind::Failing => "see the log; it is tried again by itself",
        ParkKind::Unconfirmed => "'onedrivefs confirm' lets them go; what is made again stays",
        ParkKind::LocalDisk => "check the disk that holds the state directory",
    }
}
