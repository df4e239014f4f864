//! What is a point in time? Microseconds since 1970-01-01 00:00 UTC, the resolution of the database's own clock.

use chrono::{DateTime, TimeZone, Utc};
use serde::{Deserialize, Serialize};

/// Microseconds in one second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in one day of 24 hours, the day of a pack's lifetime (rule 4.3).
pub const DAY: i64 = 86_400 * SECOND;

/// An instant in microseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub i64);

impl Instant {
    /// Before every event: the start of a subscription "without beginning" (rule 4.2).
    pub const BEGINNING: Instant = Instant(i64::MIN);
    /// 0001-01-01 00:00 UTC, the first instant that can be metered.
    pub const EARLIEST: Instant = Instant(-62_135_596_800 * SECOND);
    /// 9999-12-31 23:59:59.999999 UTC, the last instant that can be metered.
    pub const LATEST: Instant = Instant(253_402_300_800 * SECOND - 1);

    /// Whether an event at this instant can be metered; outside it is quarantined as `time_out_of_range` (rule 3.7).
    pub fn in_range(self) -> bool {
        (Self::EARLIEST..=Self::LATEST).contains(&self)
    }

    /// This instant `micros` later; saturates, so that a huge timeout means "never".
    pub fn plus(self, micros: i64) -> Instant {
        Instant(self.0.saturating_add(micros))
    }

    /// Microseconds since `earlier`; negative if `earlier` is later. Saturates.
    pub fn since(self, earlier: Instant) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The calendar's view of this instant, or `None` outside the range that can be metered.
    pub fn calendar(self) -> Option<DateTime<Utc>> {
        if !self.in_range() {
            return None;
        }
        Utc.timestamp_micros(self.0).single()
    }
}

impl From<DateTime<Utc>> for Instant {
    fn from(time: DateTime<Utc>) -> Self {
        Instant(time.timestamp_micros())
    }
}

/// Microseconds of an interval as PostgreSQL writes it with `IntervalStyle = postgres`: days of 24 hours, a time or
/// both, such as `1 day -02:00:00.5`. `None` for months and years, which have no length of their own, and for any other
/// text.
pub fn interval(text: &str) -> Option<i64> {
    let words: Vec<&str> = text.split(' ').collect();
    let (days, time) = match words[..] {
        [days, "day" | "days"] => (days, None),
        [days, "day" | "days", time] => (days, Some(time)),
        [time] => ("0", Some(time)),
        _ => return None,
    };
    let days = i128::from(days.parse::<i64>().ok()?) * i128::from(DAY);
    let time = time.map_or(Some(0), time_of_interval)?;
    i64::try_from(days + time).ok()
}

fn time_of_interval(text: &str) -> Option<i128> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        // Written after negative days.
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fields: Vec<i128> = clock.split(':').map(digits).collect::<Option<_>>()?;
    let [hours, minutes @ 0..60, seconds @ 0..60] = fields[..] else { return None };
    if fraction.len() > 6 {
        return None;
    }
    let fraction = digits(&format!("{fraction:0<6}"))?;
    Some(sign * (((hours * 60 + minutes) * 60 + seconds) * i128::from(SECOND) + fraction))
}

fn digits(text: &str) -> Option<i128> {
    let number: u64 = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    Some(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_range_is_the_years_1_to_9999() {
        let text = |instant: Instant| instant.calendar().expect("in range").naive_utc().to_string();
        assert_eq!(text(Instant::EARLIEST), "0001-01-01 00:00:00");
        assert_eq!(text(Instant::LATEST), "9999-12-31 23:59:59.999999");
        assert_eq!(Instant::LATEST.plus(1).calendar(), None);
        assert_eq!(Instant::EARLIEST.plus(-1).calendar(), None);
    }

    const HOUR: i64 = 3600 * SECOND;

    #[test]
    fn an_interval_is_read_as_the_database_writes_it() {
        let cases = [
            ("00:00:00", 0),
            ("00:30:00", HOUR / 2),
            ("72:00:00", 72 * HOUR),
            ("00:00:00.5", SECOND / 2),
            ("00:00:00.000001", 1),
            ("-00:00:01.25", -SECOND - SECOND / 4),
            ("1 day", DAY),
            ("90 days", 90 * DAY),
            ("-1 days", -DAY),
            ("1 day 12:00:00", DAY + 12 * HOUR),
            ("1 day -02:00:00.000001", DAY - 2 * HOUR - 1),
            ("-3 days +04:05:06", -3 * DAY + 4 * HOUR + 5 * 60 * SECOND + 6 * SECOND),
            ("2562047788:00:54.775807", i64::MAX),
            ("-2562047788:00:54.775808", i64::MIN),
        ];
        for (text, micros) in cases {
            assert_eq!(interval(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn months_and_years_have_no_length() {
        for text in ["1 mon", "3 mons 2 days", "1 year", "2 years 1 mon 00:00:01"] {
            assert_eq!(interval(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_database_does_not_write_is_no_interval() {
        let days_too_many = format!("{} days", i64::MAX);
        let strange = ["", " ", "1", "day", "1 day ", "1 hour", "@ 30 mins", "PT30M", "1:2", "00:60:00", "00:00:60"];
        let stranger = ["00:00:00.1234567", "00:00:+1", "--00:00:01", "1 day 2 days", "infinity", &days_too_many];
        for text in strange.into_iter().chain(stranger) {
            assert_eq!(interval(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_interval_that_was_written_is_read_again(days in any::<i16>(), time in -100 * HOUR..100 * HOUR) {
            let (sign, clock) = (if time < 0 { "-" } else { "+" }, time.abs());
            let (hours, minutes, seconds) = (clock / HOUR, clock / 60 / SECOND % 60, clock / SECOND % 60);
            let text = format!("{days} days {sign}{hours:02}:{minutes:02}:{seconds:02}.{:06}", clock % SECOND);
            prop_assert_eq!(interval(&text), Some(i64::from(days) * DAY + time));
        }
    }
}
