//! Times as the service writes and reads them (graph-api 3.8). Internally: milliseconds since 1970, UTC.

use std::time::{Duration, SystemTime};

/// Milliseconds since 1970-01-01T00:00:00Z.
pub(crate) type Ms = i64;

/// SharePoint refuses times before 1900 (graph-api 3.8).
pub(crate) const YEAR_1900: Ms = -2_208_988_800_000;

pub(crate) fn from_system(t: SystemTime) -> Ms {
    match t.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(d) => Ms::try_from(d.as_millis()).unwrap_or(Ms::MAX),
        Err(e) => -Ms::try_from(e.duration().as_millis()).unwrap_or(Ms::MAX),
    }
}

pub(crate) fn to_system(ms: Ms) -> SystemTime {
    let d = Duration::from_millis(ms.unsigned_abs());
    if ms >= 0 { SystemTime::UNIX_EPOCH + d } else { SystemTime::UNIX_EPOCH - d }
}

/// Days since 1970-01-01 of a proleptic Gregorian date (Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, day)
}

/// How many fraction digits an answer carries (graph-api 3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fraction {
    /// Business: whole seconds.
    None,
    /// Personal: up to three digits, trailing zeros dropped (`.26Z`).
    Trimmed,
    /// Sessions: always three digits (graph-api 7.2).
    Millis,
}

/// RFC 3339 in UTC with `Z`.
pub(crate) fn rfc3339(ms: Ms, fraction: Fraction) -> String {
    let secs = ms.div_euclid(1000);
    let milli = ms.rem_euclid(1000);
    let (year, month, day) = civil_from_days(secs.div_euclid(86_400));
    let s = secs.rem_euclid(86_400);
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    let tail = match fraction {
        Fraction::None => String::new(),
        Fraction::Trimmed if milli == 0 => String::new(),
        Fraction::Trimmed => format!(".{milli:03}").trim_end_matches('0').to_owned(),
        Fraction::Millis => format!(".{milli:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{tail}Z")
}

/// The `date` of an error body: UTC without a zone (graph-api 11.3).
pub(crate) fn error_date(ms: Ms) -> String {
    rfc3339(ms, Fraction::None).trim_end_matches('Z').to_owned()
}

fn number(text: &[u8]) -> Option<i64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads RFC 3339 with 0..9 fraction digits and `Z` or an offset. Digits below 1 ms are dropped.
pub(crate) fn parse(text: &str) -> Option<Ms> {
    let b = text.as_bytes();
    if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || !matches!(b[10], b'T' | b't') {
        return None;
    }
    if b[13] != b':' || b[16] != b':' {
        return None;
    }
    let part = |r: std::ops::Range<usize>| number(&b[r]);
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    let (h, m, s) = (part(11..13)?, part(14..16)?, part(17..19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || h > 23 || m > 59 || s > 60 {
        return None;
    }
    let mut rest = &b[19..];
    let mut milli = 0;
    if let Some(after) = rest.strip_prefix(b".") {
        let digits = after.iter().take_while(|c| c.is_ascii_digit()).count();
        if digits == 0 || digits > 9 {
            return None;
        }
        let padded: Vec<u8> = after[..digits].iter().copied().chain(*b"000").take(3).collect();
        milli = number(&padded)?;
        rest = &after[digits..];
    }
    let offset_min = match rest {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let min = number(&[*h1, *h2])? * 60 + number(&[*m1, *m2])?;
            if *sign == b'-' { -min } else { min }
        }
        _ => return None,
    };
    let secs = days_from_civil(year, month, day) * 86_400 + h * 3600 + m * 60 + s - offset_min * 60;
    Some(secs * 1000 + milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_each_flavour_writes_them() {
        let ms = parse("2026-03-01T08:15:30.260Z").unwrap();
        assert_eq!(rfc3339(ms, Fraction::None), "2026-03-01T08:15:30Z");
        assert_eq!(rfc3339(ms, Fraction::Trimmed), "2026-03-01T08:15:30.26Z");
        assert_eq!(rfc3339(ms, Fraction::Millis), "2026-03-01T08:15:30.260Z");
        assert_eq!(rfc3339(-62_135_596_800_000, Fraction::None), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn offsets_and_long_fractions_are_read_and_nonsense_is_not() {
        let base = parse("2026-03-01T08:15:30Z").unwrap();
        assert_eq!(base, 1_772_352_930_000);
        assert_eq!(parse("2026-03-01T09:15:30+01:00"), Some(base));
        assert_eq!(parse("2026-03-01T08:15:30.1234567Z"), Some(base + 123));
        for bad in ["", "2026-03-01", "2026-03-01T08:15:30", "2026-13-01T08:15:30Z", "2026-03-01T08:15:30.Z"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(parse("1900-01-01T00:00:00Z"), Some(YEAR_1900));
    }
}
