//! What the service refuses, which names are one name to it, and which never leave this machine.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{NAME_MAX, NameError};
use crate::model::DriveType;

/// Whether the service takes `name`, as [`super::to_remote`] made it, in some folder of such a drive.
///
/// One name is refused at one place only: `forms` as a child of a library's root (ask
/// [`is_reserved_at_root`]). Source: graph-api 4.3, 4.4.
pub fn check_remote(name: &str, drive: DriveType) -> Result<(), NameError> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(NameError::NotAName);
    }
    if let Some(symbol) = forbidden_character(name, drive) {
        return Err(NameError::Character(symbol));
    }
    if is_reserved(name, drive) {
        return Err(NameError::Reserved);
    }
    if name.encode_utf16().count() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    Ok(())
}

/// Whether a library keeps this name for itself as a child of its root.
pub fn is_reserved_at_root(name: &str, drive: DriveType) -> bool {
    drive != DriveType::Personal && name.eq_ignore_ascii_case("forms")
}

fn forbidden_character(name: &str, drive: DriveType) -> Option<char> {
    let anywhere = |symbol: &char| {
        matches!(symbol, '"' | '*' | ':' | '<' | '>' | '?' | '\\' | '|' | '\u{1}'..='\u{1F}' | '\u{7F}')
    };
    let leading_tilde = name.starts_with('~') && (drive != DriveType::Personal || name.starts_with("~$"));
    name.chars()
        .find(anywhere)
        .or(name.starts_with(' ').then_some(' '))
        .or(leading_tilde.then_some('~'))
        .or(name.chars().next_back().filter(|last| matches!(last, ' ' | '.')))
}

fn is_reserved(name: &str, drive: DriveType) -> bool {
    match drive {
        DriveType::Personal => {
            is_device_or_reserved(name.as_bytes()) && (!is_device(name.as_bytes()) || !name.contains('.'))
        }
        DriveType::Business | DriveType::DocumentLibrary => {
            is_device_or_reserved(name.as_bytes()) || name.to_ascii_lowercase().contains("_vti_")
        }
    }
}

/// Reserved on some flavour, whatever the folder, and not for what the name contains.
pub(super) fn is_device_or_reserved(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b".lock") || name.eq_ignore_ascii_case(b"desktop.ini") || is_device(name)
}

/// `CON`, `PRN`, `AUX`, `NUL`, `COM0` to `COM9`, `LPT0` to `LPT9`, with or without an extension.
fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|byte| *byte == b'.').next().unwrap_or(name);
    let is_one_of = |devices: &[&[u8]], word: &[u8]| devices.iter().any(|one| word.eq_ignore_ascii_case(one));
    match stem {
        [kind @ .., b'0'..=b'9'] => is_one_of(&[b"COM", b"LPT"], kind),
        _ => is_one_of(&[b"CON", b"PRN", b"AUX", b"NUL"], stem),
    }
}

/// The form that two names share if they are one name to the service.
///
/// The server compares ordinally without case: one upper-case letter per letter, no locale, no full
/// Unicode folding (`ß` is not `SS`), nothing outside the basic plane, and no letter becomes an ASCII one
/// (`ı`, `ſ`). Normal forms stay distinct. Source: graph-api 4.5.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_uppercase();
    }
    name.chars().map(fold_char).collect()
}

fn fold_char(symbol: char) -> char {
    let mut upper = symbol.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(single), None) if symbol.is_ascii() => single,
        (Some(single), None) if u32::from(symbol) < 0x1_0000 && !single.is_ascii() => single,
        _ => symbol,
    }
}

/// Whether a file of this name lives on this machine only and is never sent (design 4).
///
/// Locks and swap files of editors and office programs, and what the kernel or a desktop makes while it
/// replaces or deletes an open file. Their programs expect them to be gone soon.
pub fn is_scratch(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let hidden = name.starts_with(b".");
    (name.starts_with(b".~lock.") && name.ends_with(b"#"))
        || (name.starts_with(b"~$") && name.len() > 2)
        || (name.ends_with(b".swp") && name.len() > 4)
        || (hidden && is_vim_swap(name))
        || (hidden && name.ends_with(b".kate-swp"))
        || (name.starts_with(b".#") && name.len() > 2)
        || is_numbered(name, b".goutputstream-")
        || is_numbered(name, b".fuse_hidden")
        || (is_numbered(name, b".nfs") && name.len() == b".nfs".len() + 24)
}

/// vim tries `.swp`, `.swo`, `.swn`, … and probes with `.swx` and `.swpx`.
fn is_vim_swap(name: &[u8]) -> bool {
    match name {
        [_, .., b'.', b's', b'w', b'k'..=b'p' | b'x'] => name.len() > 5,
        [_, .., b'.', b's', b'w', b'p', b'x'] => name.len() > 6,
        _ => false,
    }
}

fn is_numbered(name: &[u8], prefix: &[u8]) -> bool {
    name.strip_prefix(prefix)
        .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use DriveType::{Business, DocumentLibrary, Personal};

    #[test]
    fn each_flavour_refuses_what_its_service_refuses() {
        let cases: &[(&str, bool, bool)] = &[
            ("report.docx", true, true),
            ("#1 100%.txt", true, true),
            ("a:b", false, false),
            ("tab\there", false, false),
            ("del\u{7f}", false, false),
            (" lead", false, false),
            ("trail ", false, false),
            ("trail.", false, false),
            ("~draft", true, false),
            ("~$report.docx", false, false),
            ("CON", false, false),
            ("con", false, false),
            ("CON.txt", true, false),
            ("COM7", false, false),
            ("COM10", true, true),
            ("console", true, true),
            (".lock", false, false),
            ("a.lock", true, true),
            ("Desktop.INI", false, false),
            ("x_VTI_y", true, false),
            ("Thumbs.db", true, true),
            ("", false, false),
            ("..", false, false),
        ];
        for (name, personal, business) in cases {
            assert_eq!(check_remote(name, Personal).is_ok(), *personal, "{name:?} on a personal drive");
            assert_eq!(check_remote(name, Business).is_ok(), *business, "{name:?} on a business drive");
            assert_eq!(check_remote(name, DocumentLibrary).is_ok(), *business, "{name:?} in a library");
        }
        assert!(is_reserved_at_root("Forms", DocumentLibrary) && !is_reserved_at_root("forms", Personal));
    }

    #[test]
    fn length_is_counted_in_utf16_units() {
        assert_eq!(check_remote(&"x".repeat(255), Business), Ok(()));
        assert_eq!(check_remote(&"x".repeat(256), Business), Err(NameError::TooLong));
        assert_eq!(check_remote(&"\u{1F600}".repeat(127), Business), Ok(()));
        assert_eq!(check_remote(&"\u{1F600}".repeat(128), Business), Err(NameError::TooLong));
    }

    #[test]
    fn names_clash_as_on_the_server_and_no_further() {
        let same = [("Report.DOCX", "report.docx"), ("ÉTÉ", "été"), ("σας", "ΣΑΣ"), ("Жук", "жУК")];
        let distinct =
            [("straße", "STRASSE"), ("ı", "I"), ("ſ", "S"), ("e\u{301}", "é"), ("\u{10428}", "\u{10400}")];
        for (one, other) in same {
            assert_eq!(fold(one), fold(other));
        }
        for (one, other) in distinct {
            assert_ne!(fold(one), fold(other), "{one} {other}");
        }
    }

    // S23.
    #[test]
    fn only_listed_scratch_names_stay_here() {
        for name in [
            ".~lock.report.odt#",
            "~$report.docx",
            "notes.swp",
            ".notes.txt.swp",
            ".notes.txt.swo",
            ".notes.txt.swx",
            ".notes.txt.swpx",
            ".goutputstream-A1B2C3",
            ".fuse_hidden0000012300000001",
            ".nfs000000000123456700000001",
            ".#notes.txt",
            ".notes.txt.kate-swp",
        ] {
            assert!(is_scratch(OsStr::new(name)), "{name}");
        }
        for name in [
            "report.docx",
            "4913",
            "notes.txt~",
            "#notes.txt#",
            ".swp",
            "~$",
            "movie.swf",
            ".movie.swf",
            ".nfsrc",
            "notes.tmp",
            ".Trash-1000",
            ".goutputstream-",
            "~notes",
        ] {
            assert!(!is_scratch(OsStr::new(name)), "{name}");
        }
    }
}
