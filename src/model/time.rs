//! Points in time, as the service and the kernel need them.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

const NANOS: i64 = 1_000_000_000;

/// Nanoseconds since 1970-01-01T00:00:00Z; covers the years 1677 to 2262.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From whole seconds since 1970 and nanoseconds within the second; out of range is clamped.
    pub fn from_unix(seconds: i64, nanos: u32) -> Self {
        Self(seconds.saturating_mul(NANOS).saturating_add(i64::from(nanos)))
    }

    /// Whole seconds since 1970, rounded down.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(NANOS)
    }

    /// Nanoseconds within the second.
    pub fn subsec_nanos(self) -> u32 {
        self.0.rem_euclid(NANOS) as u32
    }

    /// Whether two times are equal at the service's safe precision of one second (graph-api 3.8).
    pub fn same_second(self, other: Self) -> bool {
        self.seconds() == other.seconds()
    }

    /// Parses RFC 3339 with 0 to 9 fraction digits and any offset (graph-api 3.8).
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let parsed: jiff::Timestamp = text.parse().ok()?;
        Some(Self(i64::try_from(parsed.as_nanosecond()).unwrap_or(if parsed.as_second() < 0 {
            i64::MIN
        } else {
            i64::MAX
        })))
    }

    /// RFC 3339, UTC, whole seconds, `Z`: the only form every flavour accepts (graph-api 3.8, 7.2).
    pub fn to_rfc3339_seconds(self) -> String {
        let shown = jiff::Timestamp::from_second(self.seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        shown.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self(i64::try_from(after.as_nanos()).unwrap_or(i64::MAX)),
            Err(before) => Self(i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos)),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let nanos = Duration::from_nanos(time.0.unsigned_abs());
        if time.0 >= 0 { SystemTime::UNIX_EPOCH + nanos } else { SystemTime::UNIX_EPOCH - nanos }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_rfc3339_seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_the_service_sends_is_parsed() {
        let cases = [
            ("2026-03-01T08:15:30Z", Some((1_772_352_930, 0))),
            ("2026-03-01T08:15:30.26Z", Some((1_772_352_930, 260_000_000))),
            ("2026-11-20T19:13:41.6195833Z", Some((1_795_202_021, 619_583_300))),
            ("2026-03-01T09:15:30+01:00", Some((1_772_352_930, 0))),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let parsed = Timestamp::parse_rfc3339(text).map(|time| (time.seconds(), time.subsec_nanos()));
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn the_year_one_is_a_time_and_not_a_panic() {
        assert!(Timestamp::parse_rfc3339("0001-01-01T00:00:00Z").is_some());
    }

    #[test]
    fn sent_times_have_whole_seconds_and_z() {
        let time = Timestamp::from_unix(1_772_352_930, 999_999_999);
        assert_eq!(time.to_rfc3339_seconds(), "2026-03-01T08:15:30Z");
        assert_eq!(Timestamp(-1).to_rfc3339_seconds(), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn system_times_round_trip_on_both_sides_of_1970() {
        for nanos in [0, 1, -1, 1_772_352_930_000_000_001, -5_000_000_000] {
            assert_eq!(Timestamp::from(SystemTime::from(Timestamp(nanos))), Timestamp(nanos));
        }
    }
}
