//! In which billing month does an instant lie (SPEC 4.2)? In UTC; a tenant's own zone is not yet offered.

use crate::instant::Instant;
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveTime, Utc};

/// A billing month, half-open: `start <= t < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    pub start: Instant,
    pub end: Instant,
}

/// The period that holds `at`. Periods start at midnight of the anchor day, clamped to the month's last day: anchor 31
/// gives Feb 28, then Mar 31. `None` where the calendar ends.
pub fn period_of(at: Instant, anchor_day: u32) -> Option<Period> {
    let date = at.calendar()?.date_naive();
    let month = date.with_day(1)?;
    let this = anchor_in(month, anchor_day)?;
    let (start, end) = if date < this {
        (anchor_in(month.checked_sub_months(Months::new(1))?, anchor_day)?, this)
    } else {
        (this, anchor_in(month.checked_add_months(Months::new(1))?, anchor_day)?)
    };
    Some(Period { start: midnight(start), end: midnight(end) })
}

/// The day of the month of `at`, the anchor day of a subscription that names none.
pub fn day_of(at: Instant) -> Option<u32> {
    Some(at.calendar()?.day())
}

fn anchor_in(first_of_month: NaiveDate, anchor_day: u32) -> Option<NaiveDate> {
    let last = u32::from(first_of_month.num_days_in_month());
    first_of_month.with_day(anchor_day.clamp(1, last))
}

fn midnight(date: NaiveDate) -> Instant {
    DateTime::<Utc>::from_naive_utc_and_offset(date.and_time(NaiveTime::MIN), Utc).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Instant {
        text.parse::<DateTime<Utc>>().expect("a time").into()
    }

    fn bounds(time: &str, anchor_day: u32) -> (String, String) {
        let period = period_of(at(time), anchor_day).expect("in range");
        let day = |instant: Instant| instant.calendar().expect("in range").format("%F").to_string();
        (day(period.start), day(period.end))
    }

    #[test]
    fn a_period_is_half_open_to_the_microsecond() {
        let first = bounds("2026-02-28T23:59:59.999999Z", 1);
        assert_eq!(first, ("2026-02-01".into(), "2026-03-01".into()));
        assert_eq!(bounds("2026-03-01T00:00:00Z", 1), ("2026-03-01".into(), "2026-04-01".into()));
    }

    #[test]
    fn an_anchor_beyond_the_months_end_is_clamped_and_comes_back() {
        assert_eq!(bounds("2026-02-27T12:00:00Z", 31), ("2026-01-31".into(), "2026-02-28".into()));
        assert_eq!(bounds("2026-02-28T00:00:00Z", 31), ("2026-02-28".into(), "2026-03-31".into()));
        assert_eq!(bounds("2028-02-29T00:00:00Z", 30), ("2028-02-29".into(), "2028-03-30".into()));
    }

    #[test]
    fn a_period_before_the_anchor_day_began_last_month_also_over_new_year() {
        assert_eq!(bounds("2026-01-14T00:00:00Z", 15), ("2025-12-15".into(), "2026-01-15".into()));
    }

    proptest! {
        #[test]
        fn periods_of_one_anchor_cover_time_without_hole_or_overlap(
            seconds in -60_000_000_000i64..250_000_000_000, anchor in 1u32..=31
        ) {
            let instant = Instant(seconds * 1_000_000);
            let period = period_of(instant, anchor).unwrap();
            prop_assert!(period.start <= instant && instant < period.end);
            prop_assert_eq!(period_of(period.end, anchor).unwrap().start, period.end);
            prop_assert_eq!(period_of(period.start.plus(-1), anchor).unwrap().end, period.start);
        }
    }
}
