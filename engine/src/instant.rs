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

    /// As errors and journals show it: by RFC 3339, or `-infinity` if it is outside of all years.
    pub fn shown(self) -> String {
        self.calendar().map_or("-infinity".to_owned(), |time| time.to_rfc3339())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_the_years_1_to_9999() {
        let text = |instant: Instant| instant.calendar().expect("in range").naive_utc().to_string();
        assert_eq!(text(Instant::EARLIEST), "0001-01-01 00:00:00");
        assert_eq!(text(Instant::LATEST), "9999-12-31 23:59:59.999999");
        assert_eq!(Instant::LATEST.plus(1).calendar(), None);
        assert_eq!(Instant::EARLIEST.plus(-1).calendar(), None);
    }
}
