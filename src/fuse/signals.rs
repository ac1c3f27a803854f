//! Whether a caller that waits for an answer is being killed.
//!
//! A request the daemon has read holds even SIGKILL until it is answered, and the library does not hand on
//! the kernel's FUSE_INTERRUPT: so the caller's state is read from `/proc` while it waits.

use std::fs;

const SIGKILL_BIT: u64 = 1 << (libc::SIGKILL - 1);

/// Signals whose default action does not end the process: stop, continue, ignore.
const HARMLESS: u64 = bit(libc::SIGCHLD)
    | bit(libc::SIGCONT)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Whether thread `tid` will end as soon as it is answered.
///
/// `false` where nothing can be known: the kernel hid the caller (0), or `/proc` does.
pub(super) fn is_dying(tid: u32) -> bool {
    tid != 0 && fs::read(format!("/proc/{tid}/status")).is_ok_and(|status| has_fatal_signal(&status))
}

/// Whether a `/proc/PID/status` text shows a pending signal that is fatal, not blocked, ignored or caught,
/// or a thread that has ended already.
fn has_fatal_signal(status: &[u8]) -> bool {
    let mut pending = 0;
    let mut survived = HARMLESS;
    for line in status.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name {
            b"State" if value.starts_with(b"Z") || value.starts_with(b"X") => return true,
            b"SigPnd" | b"ShdPnd" => pending |= mask(value),
            b"SigBlk" | b"SigIgn" | b"SigCgt" => survived |= mask(value),
            _ => {}
        }
    }
    pending & (!survived | SIGKILL_BIT) != 0
}

fn mask(hex: &[u8]) -> u64 {
    std::str::from_utf8(hex).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: &[i32], shared: &[i32], blocked: &[i32], ignored: &[i32], caught: &[i32]) -> Vec<u8> {
        let set = |signals: &[i32]| signals.iter().fold(0, |set, &signal| set | bit(signal));
        format!(
            "Name:\tcat: a\nState:\tS (sleeping)\nSigQ:\t1/31337\nSigPnd:\t{:016x}\nShdPnd:\t{:016x}\n\
             SigBlk:\t{:016x}\nSigIgn:\t{:016x}\nSigCgt:\t{:016x}\n",
            set(pending),
            set(shared),
            set(blocked),
            set(ignored),
            set(caught)
        )
        .into_bytes()
    }

    #[test]
    fn a_pending_fatal_signal_ends_the_wait_unless_the_process_would_survive_it() {
        use libc::{SIGCHLD, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM};
        let all = [SIGKILL, SIGTERM];
        let cases: [(&str, Vec<u8>, bool); 10] = [
            ("nothing pending", status(&[], &[], &[], &[], &[]), false),
            ("killed thread", status(&[SIGKILL], &[], &[], &[], &[]), true),
            ("killed process, all blocked", status(&[], &[SIGKILL], &all, &all, &all), true),
            ("term, default", status(&[], &[SIGTERM], &[], &[], &[]), true),
            ("term, blocked", status(&[], &[SIGTERM], &[SIGTERM], &[], &[]), false),
            ("hangup, ignored", status(&[], &[SIGHUP], &[], &[SIGHUP], &[]), false),
            ("int, caught", status(&[], &[SIGINT], &[], &[], &[SIGINT]), false),
            ("quit beside a caught int", status(&[SIGQUIT], &[SIGINT], &[], &[], &[SIGINT]), true),
            ("child and stop", status(&[SIGSTOP], &[SIGCHLD], &[], &[], &[]), false),
            ("real-time signal", status(&[64], &[], &[], &[], &[]), true),
        ];
        for (name, text, expected) in cases {
            assert_eq!(has_fatal_signal(&text), expected, "{name}");
        }
    }

    #[test]
    fn a_thread_that_has_ended_waits_for_nothing() {
        assert!(has_fatal_signal(b"Name:\tcat\nState:\tZ (zombie)\n"));
    }

    #[test]
    fn nothing_is_concluded_from_garbage_or_from_a_hidden_caller() {
        assert!(!has_fatal_signal(b"SigPnd:\tzz\n\nState\n:::"));
        assert!(!is_dying(0));
        assert!(!is_dying(u32::MAX));
        assert!(!is_dying(std::process::id()));
    }
}
