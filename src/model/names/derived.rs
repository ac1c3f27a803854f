//! Names we make up: conflict copies, and entries that would collide in the visible tree.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::NAME_MAX;
use crate::model::{NodeId, Timestamp};

/// An extension longer than this, in bytes, is taken for a part of the stem.
const EXTENSION_MAX: usize = 32;
/// Longest part of a conflict copy's name that a host's name may take, in bytes.
const HOST_MAX: usize = 63;

/// The name of a conflict copy: `STEM (conflict HOST YYYY-MM-DD HHMMSS)[ N].EXT`.
///
/// `when` is the local time as [`civil`] writes it. `attempt` counts from 0; from 1 on a number (2, 3, …)
/// follows, for the case that the name is taken too. Leading dots and `.tar.gz` are kept, and the stem is
/// shortened so that the whole fits `room` bytes (and so as many UTF-16 units), at most 255; where not one character of it
/// fits, the room is taken to be 255: such a name has no place there.
pub fn conflict_name(name: &str, host: &str, when: &str, attempt: u32, room: usize) -> String {
    let number = if attempt == 0 { String::new() } else { format!(" {}", u64::from(attempt) + 1) };
    let insert = format!(" (conflict {} {when}){number}", host_word(host));
    let (stem, extension) = split_extension(name.as_bytes());
    // A character takes up to four bytes.
    let least = insert.len() + extension.len() + stem.len().min(4);
    let room = if room < least { NAME_MAX } else { room.min(NAME_MAX) };
    let made = with_insert(name.as_bytes(), &insert, room);
    String::from_utf8(made).expect("text that is cut between characters stays text")
}

/// `YYYY-MM-DD HHMMSS` at `offset_seconds` east of UTC.
pub fn civil(when: Timestamp, offset_seconds: i32) -> String {
    let shown = jiff::Timestamp::from_second(when.seconds().saturating_add(i64::from(offset_seconds)))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    shown.strftime("%Y-%m-%d %H%M%S").to_string()
}

/// The name under which an entry is shown whose own name another entry already has.
///
/// `report.docx` becomes `report (item 123).docx`; [`undo_disambiguate`] takes it apart.
pub fn disambiguate(name: &OsStr, row: NodeId) -> OsString {
    OsString::from_vec(with_insert(name.as_bytes(), &format!(" (item {})", row.0), NAME_MAX))
}

/// What [`disambiguate`] was given, if `name` looks like its result.
///
/// A user's own file may look so too, and a long name was shortened: confirm with the row.
pub fn undo_disambiguate(name: &OsStr) -> Option<(OsString, NodeId)> {
    const OPEN: &[u8] = b" (item ";
    let bytes = name.as_bytes();
    let start = bytes.windows(OPEN.len()).rposition(|window| window == OPEN)?;
    let rest = &bytes[start + OPEN.len()..];
    let close = rest.iter().position(|byte| *byte == b')')?;
    let row: i64 = std::str::from_utf8(&rest[..close]).ok()?.parse().ok()?;
    let original = OsString::from_vec([&bytes[..start], &rest[close + 1..]].concat());
    (disambiguate(&original, NodeId(row)) == name).then_some((original, NodeId(row)))
}

/// `insert` between the stem and the extension, the stem cut so that the whole fits `max` bytes.
fn with_insert(name: &[u8], insert: &str, max: usize) -> Vec<u8> {
    let (stem, extension) = split_extension(name);
    let room = max.saturating_sub(insert.len() + extension.len());
    [cut(stem, room), insert.as_bytes(), extension].concat()
}

/// Stem and extension (with its dot; `.tar.gz` whole). Leading dots belong to the stem.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    let dots = name.iter().take_while(|byte| **byte == b'.').count();
    let Some(last) = name[dots..].iter().rposition(|byte| *byte == b'.') else { return (name, b"") };
    let mut at = dots + last;
    if name.len() - at > EXTENSION_MAX || name.len() - at == 1 || name[at..].contains(&b' ') {
        return (name, b"");
    }
    let before = &name[..at];
    if before.len() > dots + 4 && before[before.len() - 4..].eq_ignore_ascii_case(b".tar") {
        at -= 4;
    }
    if at == dots { (name, b"") } else { name.split_at(at) }
}

/// The longest prefix of at most `room` bytes that ends between characters.
fn cut(name: &[u8], room: usize) -> &[u8] {
    if name.len() <= room {
        return name;
    }
    let is_inside = |at: usize| name[at] & 0b1100_0000 == 0b1000_0000;
    let end = (room.saturating_sub(3)..=room).rev().find(|at| !is_inside(*at)).unwrap_or(room);
    &name[..end]
}

/// A host's name with nothing in it that a file name must not have.
fn host_word(host: &str) -> String {
    let word: String = host
        .chars()
        .map(|symbol| if symbol.is_ascii_alphanumeric() || "-_.".contains(symbol) { symbol } else { '-' })
        .take(HOST_MAX)
        .collect();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::names::{to_local, to_remote};

    const WHEN: &str = "2026-03-01 081530";

    // S35.
    #[test]
    fn a_conflict_copy_says_whose_it_is_and_when_and_keeps_its_kind() {
        let cases = [
            ("report.docx", "report (conflict ada 2026-03-01 081530).docx"),
            ("report", "report (conflict ada 2026-03-01 081530)"),
            ("site.tar.gz", "site (conflict ada 2026-03-01 081530).tar.gz"),
            (".bashrc", ".bashrc (conflict ada 2026-03-01 081530)"),
            (".config.toml", ".config (conflict ada 2026-03-01 081530).toml"),
            (".tar.gz", ".tar (conflict ada 2026-03-01 081530).gz"),
            ("Dr. Smith to Jones", "Dr. Smith to Jones (conflict ada 2026-03-01 081530)"),
        ];
        for (name, expected) in cases {
            assert_eq!(conflict_name(name, "ada", WHEN, 0, 300), expected);
        }
        assert_eq!(
            conflict_name("a.txt", "ada", WHEN, 1, 300),
            "a (conflict ada 2026-03-01 081530) 2.txt",
            "a second copy in the same second gets a number"
        );
        assert_eq!(conflict_name("a", "my host/1", WHEN, 0, 300), "a (conflict my-host-1 2026-03-01 081530)");
    }

    #[test]
    fn local_time_is_written_without_colons() {
        let when = Timestamp::parse_rfc3339("2026-03-01T08:15:30Z").unwrap();
        assert_eq!(civil(when, 0), WHEN);
        assert_eq!(civil(when, -9 * 3600), "2026-02-28 231530");
    }

    // S25.
    #[test]
    fn a_collision_is_shown_with_a_suffix_that_can_be_taken_off() {
        let shown = disambiguate(OsStr::new("report.tar.gz"), NodeId(42));
        assert_eq!(shown, "report (item 42).tar.gz");
        assert_eq!(undo_disambiguate(&shown), Some(("report.tar.gz".into(), NodeId(42))));
        assert_eq!(undo_disambiguate(OsStr::new("report (item x).txt")), None);
        assert_eq!(undo_disambiguate(OsStr::new("report.txt")), None);
    }

    proptest! {
        #[test]
        fn made_up_names_fit(
            name in "[^/\0]{1,255}", host in "\\PC{0,80}", attempt in 0u32..20, room in 0usize..400
        ) {
            let made = conflict_name(&name, &host, WHEN, attempt, room);
            prop_assert!(made.len() <= NAME_MAX);
            let longest = conflict_name(&name, &host, WHEN, attempt, NAME_MAX);
            prop_assert!(made.len() <= room || made == longest, "{} of {}", made.len(), room);
            prop_assert!(made.encode_utf16().count() <= NAME_MAX);
            let shown = disambiguate(OsStr::new(&name), NodeId(i64::MAX));
            prop_assert!(shown.len() <= NAME_MAX);
        }

        #[test]
        fn a_short_disambiguated_name_comes_back(name in "[a-z. ()]{1,40}", row in 1i64..1_000_000) {
            let shown = disambiguate(OsStr::new(&name), NodeId(row));
            prop_assert_eq!(undo_disambiguate(&shown), Some((name.clone().into(), NodeId(row))));
            prop_assert_eq!(to_local(&to_remote(&shown).unwrap()), shown);
        }
    }
}
