//! The reversible mapping between local names and names on the service.
//!
//! A character the service forbids is shown to it as a look-alike, and a look-alike that stands for
//! itself is quoted with U+201B, as rclone's onedrive backend does it (`lib/encoder`, mask `LtGt,
//! DoubleQuote, Colon, Question, Asterisk, Pipe, BackSlash, Del, Ctl, LeftSpace, LeftTilde, RightSpace,
//! RightPeriod, InvalidUtf8`), so that a drive looks the same through both. On top of it a device name or
//! another reserved name gets one U+201B after its first character.
//!
//! rclone's pair of functions is not one to one for names with a stray quote (one that quotes nothing):
//! the remote `‛a` and the remote `‛‛a` are both `‛a` there. Here such a name and everything that
//! encoding makes of it map to themselves instead. With `E` for encoding, every name lies on exactly one
//! chain `s, E(s), E(E(s)), …` that starts with a name that is no encoding. If the start is a name the
//! service refuses, then local names of the chain map one step up; if it is not, every name of the chain
//! maps to itself. Both are one to one, and all local names and all names the service takes are covered.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::NameError;
use super::rules::is_device_or_reserved;

/// Quotes a look-alike that stands for itself.
const QUOTE: char = '\u{201B}';
/// Added to an ASCII character it gives the full-width look-alike.
const FULL_WIDTH: u32 = 0xFEE0;
/// The picture of NUL; pictures of the other control characters follow it.
const PICTURES: u32 = 0x2400;
const PICTURE_OF_SPACE: char = '\u{2420}';
const PICTURE_OF_DELETE: char = '\u{2421}';
const FULL_STOP: char = '\u{FF0E}';
const FULL_TILDE: char = '\u{FF5E}';

/// The name that a local name has on the service.
///
/// Fails only for what is not a local name at all. The result may still be refused by
/// [`super::check_remote`] (its length, names reserved for one place).
pub fn to_remote(local: &OsStr) -> Result<String, NameError> {
    let bytes = local.as_bytes();
    if !is_local_name(bytes) {
        return Err(NameError::NotAName);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if is_plain(text) || chain(bytes) == Chain::Itself => Ok(text.to_owned()),
        _ => Ok(encode(bytes)),
    }
}

/// The local name of an item that is called `remote` on the service.
///
/// Undoes [`to_remote`]. Never empty, `.` or `..`, never with `/` or NUL; a remote name that would need
/// one of them, or that the service itself would refuse today, is shown as well as it can be.
pub fn to_local(remote: &str) -> OsString {
    if is_plain(remote) {
        return OsString::from(remote);
    }
    let decoded = match chain(remote.as_bytes()) {
        Chain::Itself => remote.as_bytes().to_vec(),
        Chain::Shifted | Chain::Refused => decode(remote),
    };
    OsString::from_vec(if is_local_name(&decoded) { decoded } else { make_local(&decoded) })
}

fn is_local_name(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// The best legal name for what is none: lossy, for names the service cannot have.
fn make_local(name: &[u8]) -> Vec<u8> {
    match name {
        b"" => "\u{2400}".into(),
        b"." => "\u{FF0E}".into(),
        b".." => "\u{FF0E}\u{FF0E}".into(),
        _ => name
            .iter()
            .flat_map(|byte| match byte {
                0 => "\u{2400}".as_bytes().to_vec(),
                b'/' => "\u{FF0F}".as_bytes().to_vec(),
                other => vec![*other],
            })
            .collect(),
    }
}

/// Whether nothing in `name` takes part in the mapping: the usual case, answered without allocating.
fn is_plain(name: &str) -> bool {
    let bytes = name.as_bytes();
    name.is_ascii()
        && !matches!(bytes.first(), None | Some(b' ' | b'~'))
        && !matches!(bytes.last(), Some(b' ' | b'.'))
        && !bytes.iter().any(|byte| substitute(char::from(*byte)).is_some() || matches!(byte, b'/' | 0))
        && !is_device_or_reserved(bytes)
}

/// How the names of one chain are mapped (see the module).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    /// Every name of it maps to itself.
    Itself,
    /// Local names map one step up; this name is a step up from another.
    Shifted,
    /// As `Shifted`, and this name is the start: the service refuses it.
    Refused,
}

fn chain(name: &[u8]) -> Chain {
    let mut current = Cow::Borrowed(name);
    let mut steps = 0usize;
    while let Ok(text) = std::str::from_utf8(&current) {
        let before = decode(text);
        if encode(&before) != text {
            break;
        }
        if before == current.as_ref() {
            return Chain::Itself;
        }
        current = Cow::Owned(before);
        steps += 1;
    }
    if !is_local_name(&current) || !is_refused(&current) {
        Chain::Itself
    } else if steps == 0 {
        Chain::Refused
    } else {
        Chain::Shifted
    }
}

/// Whether `name` has something in it that only encoding makes acceptable.
fn is_refused(name: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return true };
    text.starts_with([' ', '~'])
        || text.ends_with([' ', '.'])
        || text.chars().any(|symbol| substitute(symbol).is_some())
        || is_device_or_reserved(name)
}

/// The look-alike of a character that is forbidden anywhere in a name.
fn substitute(symbol: char) -> Option<char> {
    match symbol {
        '"' | '*' | ':' | '<' | '>' | '?' | '|' | '\\' => char::from_u32(u32::from(symbol) + FULL_WIDTH),
        '\u{1}'..='\u{1F}' => char::from_u32(u32::from(symbol) + PICTURES),
        '\u{7F}' => Some(PICTURE_OF_DELETE),
        _ => None,
    }
}

/// The forbidden character of a look-alike; the inverse of [`substitute`].
fn original(symbol: char) -> Option<char> {
    let code = u32::from(symbol);
    let plain = match symbol {
        '\u{2401}'..='\u{241F}' => char::from_u32(code - PICTURES),
        PICTURE_OF_DELETE => Some('\u{7F}'),
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(code - FULL_WIDTH),
        _ => None,
    };
    plain.filter(|plain| substitute(*plain) == Some(symbol))
}

/// What a first character becomes, if it is special only there.
fn first_substitute(symbol: char) -> Option<char> {
    match symbol {
        ' ' => Some(PICTURE_OF_SPACE),
        '~' => Some(FULL_TILDE),
        _ => None,
    }
}

/// What a last character becomes, if it is special only there.
fn last_substitute(symbol: char) -> Option<char> {
    match symbol {
        ' ' => Some(PICTURE_OF_SPACE),
        '.' => Some(FULL_STOP),
        _ => None,
    }
}

fn encode(name: &[u8]) -> String {
    let mut out = encode_characters(name);
    if is_device_or_reserved(name) {
        // The first character of a reserved name is ASCII and stands for itself.
        out.insert(1, QUOTE);
    }
    out
}

/// Undoes [`encode`]; of a name that is no encoding it makes what rclone would.
fn decode(name: &str) -> Vec<u8> {
    if name.is_char_boundary(1) && name[1..].starts_with(QUOTE) {
        let bare = decode_characters(&name.replacen(QUOTE, "", 1));
        if encode(&bare) == name {
            return bare;
        }
    }
    decode_characters(name)
}

fn encode_characters(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    let mut rest = name.len();
    let mut first = true;
    for part in name.utf8_chunks() {
        for symbol in part.valid().chars() {
            rest -= symbol.len_utf8();
            encode_char(symbol, first, rest == 0, &mut out);
            first = false;
        }
        for byte in part.invalid() {
            rest -= 1;
            first = false;
            out.push_str(&format!("{QUOTE}{byte:02X}"));
        }
    }
    out
}

fn encode_char(symbol: char, first: bool, last: bool, out: &mut String) {
    let at_start = first.then(|| first_substitute(symbol)).flatten();
    let at_end = last.then(|| last_substitute(symbol)).flatten();
    if let Some(replaced) = substitute(symbol).or(at_start).or(at_end) {
        out.push(replaced);
        return;
    }
    if symbol == QUOTE || is_look_alike(symbol, first, last) {
        out.push(QUOTE);
    }
    out.push(symbol);
}

/// Whether decoding would take this character, at this place, for another.
fn is_look_alike(symbol: char, first: bool, last: bool) -> bool {
    original(symbol).is_some()
        || (symbol == PICTURE_OF_SPACE && (first || last))
        || (symbol == FULL_TILDE && first)
        || (symbol == FULL_STOP && last)
}

fn decode_characters(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(symbol) = rest.chars().next() {
        let first = rest.len() == name.len();
        rest = &rest[symbol.len_utf8()..];
        if symbol != QUOTE {
            push(&mut out, decode_char(symbol, first, rest.is_empty()));
            continue;
        }
        let next = rest.chars().next();
        let after = next.map_or(rest, |next| &rest[next.len_utf8()..]);
        match next {
            Some(next) if next == QUOTE || is_look_alike(next, first, after.is_empty()) => {
                push(&mut out, next);
                rest = after;
            }
            _ => match hex_byte(rest) {
                Some(byte) => {
                    out.push(byte);
                    rest = &rest[2..];
                }
                None => push(&mut out, QUOTE),
            },
        }
    }
    out
}

fn decode_char(symbol: char, first: bool, last: bool) -> char {
    if let Some(plain) = original(symbol) {
        return plain;
    }
    match symbol {
        PICTURE_OF_SPACE if first || last => ' ',
        FULL_TILDE if first => '~',
        FULL_STOP if last => '.',
        other => other,
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    let digits = text.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

fn push(out: &mut Vec<u8>, symbol: char) {
    out.extend_from_slice(symbol.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::DriveType;
    use crate::model::names::{NAME_MAX, check_remote};

    /// Local names and what rclone calls them on a drive.
    const AS_RCLONE: &str = include_str!("as_rclone.txt");

    /// Undoes the escapes of [`AS_RCLONE`].
    fn unescaped(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('\\') {
            out.extend_from_slice(&rest.as_bytes()[..at]);
            let (kind, after) = rest[at + 1..].split_at(1);
            rest = match kind {
                "x" => {
                    out.push(u8::from_str_radix(&after[..2], 16).unwrap());
                    &after[2..]
                }
                "u" => {
                    let (code, after) = after[1..].split_once('}').unwrap();
                    push(&mut out, char::from_u32(u32::from_str_radix(code, 16).unwrap()).unwrap());
                    after
                }
                _ => {
                    out.push(b'\\');
                    after
                }
            };
        }
        out.extend_from_slice(rest.as_bytes());
        out
    }

    // S17.
    #[test]
    fn a_drive_looks_the_same_as_through_rclone() {
        let lines: Vec<&str> = AS_RCLONE.lines().filter(|line| !line.starts_with("# ")).collect();
        let differs = |line: &&&str| {
            let (local, remote) = line.split_once('\t').unwrap();
            let (local, remote) = (unescaped(local), String::from_utf8(unescaped(remote)).unwrap());
            to_remote(OsStr::from_bytes(&local)).as_deref() != Ok(&*remote)
                || to_local(&remote).as_bytes() != local
        };
        let other: Vec<&&str> = lines.iter().filter(differs).collect();
        assert!(other.is_empty(), "{other:#?}");
        assert!(lines.len() > 100);
    }

    #[test]
    fn a_quote_in_a_name_that_is_mapped_is_itself_quoted() {
        for (local, remote) in [
            ("\u{201B}\u{FF1A}", "\u{201B}\u{201B}\u{201B}\u{FF1A}"),
            ("\u{201B}:", "\u{201B}\u{201B}\u{FF1A}"),
            ("x\u{201B} ", "x\u{201B}\u{201B}\u{2420}"),
        ] {
            assert_eq!(to_remote(OsStr::new(local)).as_deref(), Ok(remote));
            assert_eq!(to_local(remote), local);
        }
    }

    #[test]
    fn names_with_a_stray_quote_map_to_themselves() {
        for name in ["\u{201B}", "\u{201B}Tis", "a\u{201B}\u{201B}b", "\u{201B}41", "a\u{201B}"] {
            assert_eq!(to_remote(OsStr::new(name)).as_deref(), Ok(name));
            assert_eq!(to_local(name), name);
        }
    }

    // S19.
    #[test]
    fn reserved_names_can_be_used_here() {
        for name in ["CON", "aux.c", "desktop.ini", ".lock", "Lpt9.tar.gz", "nul.a:b", "COM0"] {
            let remote = to_remote(OsStr::new(name)).unwrap();
            assert_eq!(check_remote(&remote, DriveType::Business), Ok(()), "{remote}");
            assert_eq!(to_local(&remote), name);
        }
        assert_eq!(to_remote(OsStr::new("desktop.ini")).unwrap(), "d\u{201B}esktop.ini");
        assert_eq!(to_remote(OsStr::new("console.log")).unwrap(), "console.log");
    }

    #[test]
    fn what_is_no_name_is_refused_in_one_direction_and_made_one_in_the_other() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            assert_eq!(to_remote(OsStr::from_bytes(name)), Err(NameError::NotAName));
        }
        for name in ["", ".", "..", "a/b", "/", "\0", "\u{FF0E}", "\u{FF0E}\u{FF0E}", ".\u{FF0E}"] {
            assert!(is_local_name(to_local(name).as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn a_remote_name_that_only_a_personal_drive_takes_is_shown_as_it_is() {
        assert_eq!(to_local("~draft"), "~draft");
        assert_eq!(to_local("CON.txt"), "CON.txt");
    }

    /// Bytes from an alphabet where the rules meet.
    fn tricky() -> impl Strategy<Value = Vec<u8>> {
        let symbols = "a 4 1 D E C O N CON desktop.ini . ~ : * \\ \u{1} \u{7f} \u{201B} \u{201B} \u{FF1A} \
                       \u{FF0A} \u{FF0E} \u{FF5E} \u{2420} \u{2401} \u{2400} \u{2421} \u{FF0F} \u{E9} \u{1F600}";
        let mut symbols: Vec<Vec<u8>> = symbols.split(' ').map(|text| text.as_bytes().to_vec()).collect();
        symbols.push(b" ".to_vec());
        let bytes = any::<u8>().prop_map(|byte| vec![byte]);
        let parts = prop_oneof![8 => prop::sample::select(symbols), 1 => bytes];
        prop::collection::vec(parts, 1..9).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        // S18.
        #[test]
        fn every_local_name_comes_back(name in tricky().prop_filter("a name", |name| is_local_name(name))) {
            let remote = to_remote(OsStr::from_bytes(&name)).unwrap();
            let back = to_local(&remote);
            prop_assert_eq!(back.as_bytes(), &name[..], "{}", remote);
            if remote.encode_utf16().count() <= NAME_MAX {
                prop_assert_eq!(check_remote(&remote, DriveType::Business), Ok(()));
            }
        }

        // S18.
        #[test]
        fn every_name_the_service_takes_comes_back(name in tricky()) {
            if let Ok(name) = String::from_utf8(name)
                && check_remote(&name, DriveType::Business).is_ok()
            {
                let local = to_local(&name);
                prop_assert!(is_local_name(local.as_bytes()));
                prop_assert_eq!(to_remote(&local), Ok(name));
            }
        }

        #[test]
        fn whatever_the_service_says_is_shown_under_a_legal_name(name in any::<String>()) {
            prop_assert!(is_local_name(to_local(&name).as_bytes()));
        }
    }
}
