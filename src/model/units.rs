//! Durations and sizes as people write them: `500ms`, `2h`, `64MiB`, `4096`.
//!
//! Parsing is exact: a whole number and a unit, nothing rounded, nothing guessed. What [`duration`] and
//! [`size`] write is read back as the same value.

use std::time::Duration;

/// The text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("'{0}' is not a duration; write a whole number and a unit: 500ms, 60s, 5m, 2h, 1d")]
    Duration(String),
    /// Not a size.
    #[error("'{0}' is not a size; write bytes, or a whole number and a unit: 4096, 500MB, 64MiB, 1GiB")]
    Size(String),
    /// The number does not fit.
    #[error("'{0}' is too large")]
    TooLarge(String),
}

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Parses `500ms`, `60s`, `5m`, `2h`, `1d` or `0`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.to_owned());
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let millis = match unit {
        "" if number.bytes().all(|digit| digit == b'0') => 1,
        _ => DURATIONS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?.1,
    };
    multiply(number, millis).map(Duration::from_millis).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Parses `4096`, `4096B`, `500MB`, `64MiB`, in any case; the result is in bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    let wrong = || UnitError::Size(text.to_owned());
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let bytes = match unit {
        "" => 1,
        _ => SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?.1,
    };
    multiply(number, bytes).ok_or_else(|| UnitError::TooLarge(text.to_owned()))
}

/// Writes a duration in its largest exact unit; below a millisecond is cut off.
pub fn duration(value: Duration) -> String {
    let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let (unit, factor) =
        DURATIONS.iter().find(|(_, factor)| millis.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / factor)
}

/// Writes a size in bytes in its largest exact unit.
pub fn size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    let fits = |(_, factor): &&(&str, u64)| bytes.is_multiple_of(*factor) && bytes >= *factor;
    let (unit, factor) = SIZES.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

/// Writes a size for people: three digits at most, `1.5 GiB`. Not meant to be read back.
pub fn approximate_size(bytes: u64) -> String {
    let Some((unit, factor)) = SIZES[..4].iter().find(|(_, factor)| bytes >= *factor) else {
        return format!("{bytes} B");
    };
    let value = bytes as f64 / *factor as f64;
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

fn split(text: &str) -> Option<(&str, &str)> {
    let text = text.trim();
    let at = text.find(|symbol: char| !symbol.is_ascii_digit()).unwrap_or(text.len());
    (at > 0).then(|| (&text[..at], text[at..].trim_start()))
}

fn multiply(number: &str, factor: u64) -> Option<u64> {
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_exactly() {
        let cases = [("500ms", 500), ("60s", 60_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn sizes_are_read_exactly() {
        let cases = [
            ("4096", 4096),
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("500MB", 500_000_000),
            ("2 tib", 2 << 40),
            ("7b", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_guesswork_is_refused_with_the_accepted_forms() {
        for text in ["", "5", "5 minutes", "1.5h", "-1s", "s", "1M", "5S"] {
            let message = parse_duration(text).unwrap_err().to_string();
            assert!(message.contains("500ms, 60s, 5m, 2h, 1d"), "{message}");
        }
        for text in ["", "1.5GiB", "64M", "-1", "MiB", "64 mebibytes"] {
            let message = parse_size(text).unwrap_err().to_string();
            assert!(message.contains("500MB, 64MiB, 1GiB"), "{message}");
        }
        assert_eq!(parse_size("99999999TiB"), Err(UnitError::TooLarge("99999999TiB".into())));
        assert_eq!(
            parse_duration("99999999999999999999s").unwrap_err().to_string(),
            "'99999999999999999999s' is too large"
        );
    }

    #[test]
    fn sizes_for_people_are_short() {
        for (bytes, text) in
            [(0, "0 B"), (999, "999 B"), (1536, "1.5 KiB"), (20 << 20, "20 MiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(approximate_size(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(bytes: u64, millis in 0u64..u64::MAX / 2, shift in 0u32..50) {
            let bytes = bytes >> shift << shift;
            prop_assert_eq!(parse_size(&size(bytes)), Ok(bytes));
            let value = Duration::from_millis(millis >> shift);
            prop_assert_eq!(parse_duration(&duration(value)), Ok(value));
        }
    }
}
