//! What is unsent and why, in the words of the control socket and of the log.

use super::control::{Parked, Waits};
use crate::engine::{LeftBelow, Waiting};
use crate::store::ParkKind;

/// At most so many lines are written to the log.
const LINES_MAX: usize = 50;
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

/// What remains, a line for each of the first changes, for the log.
pub(super) fn remaining(left: &LeftBelow) -> Vec<String> {
    let parked = parked(&left.waiting);
    let waits = waits(&left.waiting);
    let mut lines = Vec::new();
    for change in &parked {
        lines.push(format!("{}: {}; {}", change.path, change.reason, change.remedy));
        lines.extend(change.behind.iter().map(|path| format!("{path}: waits for '{}'", change.path)));
    }
    lines.extend(waits.iter().map(|change| format!("{}: {}", change.path, change.why)));
    lines.truncate(LINES_MAX);
    let rest = left.pending.saturating_sub(lines.len() as u64);
    if rest > 0 {
        lines.push(format!("and {rest} more"));
    }
    lines
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

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, reason: Option<ParkKind>, behind: Option<&str>) -> Waiting {
        Waiting {
            path: path.into(),
            reason,
            detail: "because".into(),
            retry_at: None,
            behind: behind.map(Into::into),
        }
    }

    #[test]
    fn what_waits_is_under_what_it_waits_for_and_the_list_is_bounded() {
        let mut waiting = vec![
            change("d", Some(ParkKind::Permission), None),
            change("d/a", None, Some("d")),
            change("b", None, None),
        ];
        let shown = parked(&waiting);
        assert_eq!((shown.len(), shown[0].behind.as_slice()), (1, ["d/a".to_owned()].as_slice()));
        assert_eq!(waits(&waiting), [Waits { path: "b".into(), why: "because".into() }]);
        waiting.extend((0..100).map(|index| change(&format!("f{index}"), Some(ParkKind::Name), None)));
        let left = LeftBelow { pending: 1000, local_only: 0, waiting };
        let lines = remaining(&left);
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert!(lines[0].starts_with("d: because; ask for the right") && lines[1] == "d/a: waits for 'd'");
        assert_eq!(lines.last().unwrap(), "and 950 more");
    }
}
