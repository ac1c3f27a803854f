//! Which names the service refuses (graph-api 4.3, 4.4) and which it takes for equal (graph-api 4.5).

use std::cmp::Ordering;

use super::flavour::Flavour;

/// Decoded path below the library's host, file name included (graph-api 4.4).
pub(crate) const MAX_PATH_UNITS: usize = 400;
/// One name, in UTF-16 units (graph-api 4.4).
pub(crate) const MAX_NAME_UNITS: usize = 255;

/// Why a name is refused: the inner code of the 400 (graph-api 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameRefused {
    pub(crate) code: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) message: &'static str,
}

const fn refused(inner: &'static str, message: &'static str) -> NameRefused {
    NameRefused { code: "invalidRequest", inner, message }
}

const EMPTY: NameRefused = refused("invalidPath", "The name must not be empty, '.' or '..'.");
const CHARACTER: NameRefused =
    refused("nameContainsInvalidCharacters", "The provided name cannot contain any illegal characters.");
const TRAILING: NameRefused =
    refused("nameContainsInvalidCharacters", "The provided name contains invalid trailing character.");
const RESERVED: NameRefused = refused("badArgument", "The specified item name is a reserved name.");
const TOO_LONG: NameRefused = NameRefused {
    code: "pathIsTooLong",
    inner: "pathIsTooLong",
    message: "The specified name or path is too long.",
};

/// `CON`, `COM0`..`COM9` and their kind.
fn is_device(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    match upper.as_str() {
        "CON" | "PRN" | "AUX" | "NUL" => true,
        other => {
            let digits = other.strip_prefix("COM").or_else(|| other.strip_prefix("LPT"));
            digits.is_some_and(|d| d.len() == 1 && d.as_bytes()[0].is_ascii_digit())
        }
    }
}

/// Checks one name for one flavour. `in_root`: the name would be a child of the drive's root.
pub(crate) fn check(flavour: Flavour, name: &str, in_root: bool) -> Result<(), NameRefused> {
    if name.is_empty() || name == "." || name == ".." {
        return Err(EMPTY);
    }
    if name.encode_utf16().count() > MAX_NAME_UNITS {
        return Err(TOO_LONG);
    }
    if name
        .chars()
        .any(|c| matches!(c, '"' | '*' | ':' | '<' | '>' | '?' | '/' | '\\' | '|') || c.is_ascii_control())
    {
        return Err(CHARACTER);
    }
    if name.starts_with(' ') || name.ends_with(' ') {
        return Err(CHARACTER);
    }
    if name.ends_with('.') {
        return Err(TRAILING);
    }
    let business = flavour.is_business();
    // The Graph page forbids a leading `~` on Business; the support page forbids `~$` everywhere.
    if name.starts_with("~$") || (business && name.starts_with('~')) {
        return Err(RESERVED);
    }
    let stem = if business { name.split('.').next().unwrap_or(name) } else { name };
    if is_device(stem) || name.eq_ignore_ascii_case(".lock") || name.eq_ignore_ascii_case("desktop.ini") {
        return Err(RESERVED);
    }
    if business && name.to_ascii_lowercase().contains("_vti_") {
        return Err(RESERVED);
    }
    if business && in_root && name.eq_ignore_ascii_case("forms") {
        return Err(RESERVED);
    }
    Ok(())
}

/// Ordinal-ignore-case folding as Windows does it: one UTF-16 unit to one, so `ß` is not `SS` and nothing outside the
/// basic plane folds, and `ı` and `ſ` do not become ASCII letters (graph-api 4.5).
fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_uppercase();
    }
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) if c.len_utf16() == 1 && !one.is_ascii() => one,
        _ => c,
    }
}

/// Order of names as the service compares them: case-insensitive, no normalisation.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    a.chars().map(fold).cmp(b.chars().map(fold))
}

/// Same name to the service (graph-api 4.5).
pub(crate) fn same(a: &str, b: &str) -> bool {
    compare(a, b) == Ordering::Equal
}

/// The n-th alternative for conflict behaviour `rename`: `a.txt` -> `a 1.txt`.
pub(crate) fn numbered(name: &str, n: u32) -> String {
    match name.rfind('.') {
        Some(dot) if dot > 0 => format!("{} {n}{}", &name[..dot], &name[dot..]),
        _ => format!("{name} {n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flavour_refuses_the_names_of_its_table() {
        // name, refused on personal, refused on business
        let table = [
            ("plain.txt", false, false),
            ("a#b%c&d'e+f.txt", false, false),
            ("a\"b", true, true),
            ("a*b", true, true),
            ("a:b", true, true),
            ("a<b", true, true),
            ("a>b", true, true),
            ("a?b", true, true),
            ("a\\b", true, true),
            ("a|b", true, true),
            ("a\u{1}b", true, true),
            ("a\u{7f}b", true, true),
            (" lead", true, true),
            ("trail ", true, true),
            ("dot.", true, true),
            ("~tilde", false, true),
            ("~$lock.docx", true, true),
            ("CON", true, true),
            ("con", true, true),
            ("CON.txt", false, true),
            ("COM1", true, true),
            ("COM10", false, false),
            ("lpt9", true, true),
            (".lock", true, true),
            ("desktop.ini", true, true),
            ("a_vti_b", false, true),
            ("forms", false, true),
            (".", true, true),
            ("..", true, true),
            ("", true, true),
            ("Thumbs.db", false, false),
            (".DS_Store", false, false),
        ];
        for (name, personal, business) in table {
            assert_eq!(check(Flavour::Personal, name, true).is_err(), personal, "personal {name:?}");
            assert_eq!(check(Flavour::Business, name, true).is_err(), business, "business {name:?}");
            assert_eq!(check(Flavour::DocumentLibrary, name, true).is_err(), business, "library {name:?}");
        }
        assert!(check(Flavour::Business, "forms", false).is_ok());
        assert!(check(Flavour::Business, &"ä".repeat(255), false).is_ok());
        assert_eq!(check(Flavour::Business, &"😀".repeat(128), false), Err(TOO_LONG));
    }

    #[test]
    fn names_differing_in_case_collide_but_sharp_s_and_normal_forms_do_not() {
        assert!(same("README.md", "readme.MD"));
        assert!(same("Übung", "übung"));
        assert!(!same("straße", "STRASSE"));
        assert!(!same("e\u{301}", "\u{e9}"));
        assert!(!same("\u{131}", "I") && !same("\u{17F}", "S") && !same("\u{10428}", "\u{10400}"));
    }

    #[test]
    fn alternatives_keep_the_extension() {
        assert_eq!(numbered("a.txt", 1), "a 1.txt");
        assert_eq!(numbered("folder", 2), "folder 2");
        assert_eq!(numbered(".profile", 1), ".profile 1");
    }
}
