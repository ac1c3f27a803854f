//! `onedrivefs status`.

use std::path::PathBuf;

use serde::Serialize;

use super::mountpoint;
use super::output::{CliError, changes, files, print, print_json, unsent_lines};
use super::umount::not_mounted;
use crate::config::Environment;
use crate::daemon::control::{
    Answer, Client, ControlError, Estimate, Found, MountState, Presence, Reading, Request, Status, find_all,
};
use crate::daemon::{exit, mounts};
use crate::model::units::approximate_size;

/// Notices that a person is shown.
const NOTICES: usize = 20;

/// Show what is mounted, how it is, and what is unsent and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  onedrivefs status
  onedrivefs status ~/OneDrive --json | jq .pending")]
pub struct Args {
    /// Where a drive is mounted [default: all mounts of yours]
    mountpoint: Option<PathBuf>,
    /// Print JSON: one object for MOUNTPOINT, a list of them without
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<u8, CliError> {
    let environment = Environment::of_process();
    match &args.mountpoint {
        Some(path) => one(&mountpoint::resolve(path)?, args.json, &environment),
        None => all(args.json, &environment),
    }
}

fn one(mountpoint: &std::path::Path, json: bool, environment: &Environment) -> Result<u8, CliError> {
    let Some(mut client) = Client::of_mount(environment, mountpoint) else {
        if mounts::is_mounted(mountpoint) {
            let remedy = format!("run 'onedrivefs umount {}'", mountpoint.display());
            return Err(CliError::new(
                exit::FAILURE,
                mountpoint.display(),
                "it is mounted, but its daemon is gone",
                remedy,
            ));
        }
        return Err(not_mounted(mountpoint));
    };
    match client.ask(&Request::Status, &mut |_| {})? {
        Answer::Status(status) if json => print_json(&status)?,
        Answer::Status(status) => print(&text(&status))?,
        _ => {
            let remedy = "use the 'onedrivefs' that it was started from";
            let why = "the daemon answered something else";
            return Err(CliError::new(exit::FAILURE, mountpoint.display(), why, remedy));
        }
    }
    Ok(exit::OK)
}

/// A mount in the list of all.
#[derive(Serialize)]
#[serde(untagged)]
enum Listed {
    Alive(Box<Status>),
    Unwell { socket: PathBuf, error: ControlError },
    Dead { socket: PathBuf, state: &'static str },
}

fn all(json: bool, environment: &Environment) -> Result<u8, CliError> {
    let listed: Vec<Listed> = find_all(environment).into_iter().map(list).collect();
    let unwell = listed.iter().any(|one| matches!(one, Listed::Unwell { .. }));
    if json {
        print_json(&listed)?;
    } else if listed.is_empty() {
        print("nothing is mounted\n")?;
    } else {
        let shown: Vec<String> = listed.iter().map(listed_text).collect();
        print(&shown.join("\n"))?;
    }
    Ok(if unwell { exit::FAILURE } else { exit::OK })
}

fn list(found: Found) -> Listed {
    let socket = found.socket;
    match found.presence {
        Presence::Alive(status) => Listed::Alive(status),
        Presence::Unwell(error) => Listed::Unwell { socket, error },
        Presence::Dead => Listed::Dead { socket, state: "dead" },
    }
}

fn listed_text(listed: &Listed) -> String {
    match listed {
        Listed::Alive(status) => text(status),
        Listed::Unwell { socket, error } => format!("{}\n  {error}\n", socket.display()),
        Listed::Dead { socket, .. } => {
            format!("{}\n  its daemon died; the socket has been removed\n", socket.display())
        }
    }
}

fn text(status: &Status) -> String {
    let mut text = format!("{}\n", status.mountpoint.as_path().display());
    let mut line = |name: &str, value: String| text += &format!("  {name:<11}{value}\n");
    line("state", state(status));
    if let Some(drive) = &status.drive {
        let kind = serde_json::to_value(drive.drive_type).unwrap_or_default();
        line(
            "drive",
            format!("{} ({}), account {}", drive.name, kind.as_str().unwrap_or("?"), status.account),
        );
        if let Some(quota) = drive.quota.filter(|quota| quota.total > 0) {
            let (used, total) = (approximate_size(quota.used), approximate_size(quota.total));
            line("space", format!("{used} used of {total}{}", if quota.exceeded { ", full" } else { "" }));
        }
    }
    for part in &status.drives {
        let at = match part.path.as_path().as_os_str().is_empty() {
            true => "(here)".into(),
            false => part.path.as_path().display().to_string(),
        };
        let unsent = if part.pending == 0 { String::new() } else { format!(", {} unsent", part.pending) };
        line("drive", format!("{at}: {}{unsent}", part.state.word()));
    }
    line("items", status.items.to_string());
    if let Some(reading) = &status.reading {
        line("reading", reading_text(reading));
    }
    let (used, limit) = (approximate_size(status.cache.used), approximate_size(status.cache.limit));
    line("cache", format!("{used} of {limit}"));
    if let Some(when) = &status.last_delta {
        let how = if status.push { ", told of changes as they happen" } else { "" };
        line("checked", format!("{when}{how}"));
    }
    line("unsent", if status.pending == 0 { "nothing".to_owned() } else { changes(status.pending) });
    for upload in &status.uploads {
        let (sent, size) = (approximate_size(upload.sent), approximate_size(upload.size));
        text += &format!("    {}: sending, {sent} of {size}\n", upload.path);
    }
    // What is being sent was named already.
    let is_sent = |path: &str| status.uploads.iter().any(|upload| upload.path == path);
    let waiting: Vec<_> = status.waiting.iter().filter(|change| !is_sent(&change.path)).cloned().collect();
    let pending = status.pending.saturating_sub((status.waiting.len() - waiting.len()) as u64);
    text += &unsent_lines(&status.parked, &waiting, pending, "    ");
    if status.unprotected > 0 {
        let count = files(status.unprotected);
        text += &format!("  local      {count} only on this machine (scratch names), not protected\n");
    }
    for notice in status.notices.iter().take(NOTICES) {
        text += &format!("  notice     {notice}\n");
    }
    if status.notices.len() > NOTICES {
        let left = status.notices.len() - NOTICES;
        text += &format!("             and {left} older: 'onedrivefs status --json' tells all\n");
    }
    text
}

fn reading_text(reading: &Reading) -> String {
    let mut text = format!("{} items so far", reading.items);
    if let Some(rate) = reading.items_per_second {
        text += &format!(", {rate:.0} a second");
    }
    if let Some(Estimate { percent, items, seconds_left }) = reading.estimate {
        text += &format!("; by size about {percent:.0} % of some {items}");
        match seconds_left {
            Some(seconds @ 0..60) => text += &format!(", {seconds} s left"),
            Some(seconds @ 60..7200) => text += &format!(", {} min left", seconds / 60),
            Some(seconds) => text += &format!(", {} h left", seconds / 3600),
            None => {}
        }
        text += " (an estimate)";
    }
    text
}

fn state(status: &Status) -> String {
    let meaning = match status.state {
        MountState::Starting => "starting",
        MountState::Enumerating => "online; still reading the list of files",
        MountState::Online => "online",
        MountState::Offline => "offline; changes are kept and sent later",
        MountState::SignedOut => {
            &format!("signed out; changes are kept until you run 'onedrivefs login {}'", status.account)
        }
        MountState::Draining => "being unmounted; sending what is unsent",
    };
    format!("{meaning}{}", if status.read_only { ", read-only" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::control::{
        CacheUse, DriveLine, DriveStatus, ParkKind, Parked, RequestCounts, Upload, WirePath,
    };
    use crate::model::{DriveType, Quota};

    #[test]
    fn status_says_what_is_unsent_and_why() {
        let quota = Quota { total: 5 << 40, used: 3 << 30, remaining: 1, exceeded: false };
        let drive = DriveStatus {
            id: "b!x".into(),
            name: "OneDrive".into(),
            drive_type: DriveType::Business,
            quota: Some(quota),
        };
        let mut status = Status {
            mountpoint: WirePath("/mnt/one".into()),
            state: MountState::Online,
            drive: Some(drive),
            drives: Vec::new(),
            account: "work".into(),
            state_dir: WirePath::default(),
            cache_dir: WirePath::default(),
            read_only: false,
            pending: 1,
            parked: vec![Parked {
                path: "a.txt".into(),
                kind: ParkKind::Quota,
                reason: "the drive is full".into(),
                remedy: "make room".into(),
                retry_at: None,
                behind: vec![],
            }],
            waiting: vec![],
            unprotected: 1,
            uploads: vec![Upload { path: "b.bin".into(), sent: 1 << 20, size: 4 << 20 }],
            last_delta: Some("2026-03-01T08:15:30Z".into()),
            push: true,
            cache: CacheUse { used: 0, limit: 20 << 30 },
            items: 12,
            reading: None,
            requests: RequestCounts::default(),
            notices: vec!["c.txt: both sides changed it".into()],
            pid: 7,
            version: "0".into(),
        };
        let shown = text(&status);
        let expected = "/mnt/one\n  \
                        state      online\n  \
                        drive      OneDrive (business), account work\n  \
                        space      3.0 GiB used of 5.0 TiB\n  \
                        items      12\n  \
                        cache      0 B of 20 GiB\n  \
                        checked    2026-03-01T08:15:30Z, told of changes as they happen\n  \
                        unsent     1 change\n    \
                        b.bin: sending, 1.0 MiB of 4.0 MiB\n    \
                        a.txt: the drive is full; make room\n  \
                        local      1 file only on this machine (scratch names), not protected\n  \
                        notice     c.txt: both sides changed it\n";
        assert_eq!(shown, expected);
        let estimate = Estimate { percent: 24.9, items: 48_000, seconds_left: Some(171) };
        let mut reading =
            Reading { items: 12_000, bytes: 1, items_per_second: Some(210.4), estimate: Some(estimate) };
        status.reading = Some(reading);
        let expected = "  reading    12000 items so far, 210 a second; by size about 25 % of some 48000, 2 min left \
                        (an estimate)\n";
        assert!(text(&status).contains(expected), "{}", text(&status));
        (reading.items_per_second, reading.estimate) = (None, None);
        status.reading = Some(reading);
        assert!(text(&status).contains("  reading    12000 items so far\n"), "{}", text(&status));
        let drive = status.drive.take().unwrap();
        let line = |path: &str, state, pending| DriveLine {
            path: WirePath(path.into()),
            drive: drive.clone(),
            state,
            pending,
            items: 1,
        };
        status.drives =
            vec![line("OneDrive", MountState::Online, 0), line("Sites/A/B", MountState::Offline, 2)];
        let expected =
            "  drive      OneDrive: online\n  drive      Sites/A/B: offline, 2 unsent\n  items      12\n";
        assert!(text(&status).contains(expected), "{}", text(&status));
        status.notices = (0..23).map(|number| format!("{number}.txt: it may be incomplete")).collect();
        let shown = text(&status);
        assert!(shown.contains("notice     19.txt") && !shown.contains("20.txt"), "{shown}");
        assert!(
            shown.ends_with("             and 3 older: 'onedrivefs status --json' tells all\n"),
            "{shown}"
        );
    }
}
