//! In which billing month does an instant lie (rule 4.2), and on which day?

use crate::instant::{Instant, SECOND};
use chrono::{DateTime, Datelike, LocalResult, Months, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc, Weekday};
use chrono_tz::Tz;

/// A billing month, half-open: `start <= t < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period {
    pub start: Instant,
    pub end: Instant,
}

impl Period {
    pub fn holds(&self, at: Instant) -> bool {
        self.start <= at && at < self.end
    }
}

/// How a tenant's time is divided: a zone of the IANA database, and the day of the month on which periods start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    pub zone: Tz,
    /// 1 to 31; in a shorter month periods start on its last day.
    pub anchor_day: u32,
}

/// The zone of that IANA name, in its exact spelling.
pub fn zone_named(name: &str) -> Option<Tz> {
    name.parse().ok()
}

/// The names of all zones.
pub fn zones() -> impl Iterator<Item = &'static str> {
    chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name())
}

impl Default for Calendar {
    fn default() -> Calendar {
        Calendar::utc(1)
    }
}

impl Calendar {
    /// Periods in UTC.
    pub fn utc(anchor_day: u32) -> Calendar {
        Calendar { zone: Tz::UTC, anchor_day }
    }

    /// The period that holds `at`. It starts at local midnight of the anchor day, clamped to the month's last day:
    /// anchor 31 gives Feb 28, then Mar 31. `None` where the calendar ends.
    pub fn period_of(&self, at: Instant) -> Option<Period> {
        let date = day_of(at, self.zone)?;
        let month = date.with_day(1)?;
        let this = self.start_in(month)?;
        if at < this {
            return Some(Period { start: self.start_in(month.checked_sub_months(Months::new(1))?)?, end: this });
        }
        let next = self.start_in(month.checked_add_months(Months::new(1))?)?;
        if at < next {
            return Some(Period { start: this, end: next });
        }
        // A clock that goes back over midnight shows the month before again, after the next has begun.
        Some(Period { start: next, end: self.start_in(month.checked_add_months(Months::new(2))?)? })
    }

    fn start_in(&self, first_of_month: NaiveDate) -> Option<Instant> {
        let last = u32::from(first_of_month.num_days_in_month());
        midnight(first_of_month.with_day(self.anchor_day.clamp(1, last))?, self.zone)
    }
}

/// The local day of an instant.
pub fn day_of(at: Instant, zone: Tz) -> Option<NaiveDate> {
    Some(at.calendar()?.with_timezone(&zone).date_naive())
}

/// The local day of an instant, counted from 1970-01-01.
pub fn day_number(at: Instant, zone: Tz) -> Option<i32> {
    Some(day_of(at, zone)?.to_epoch_days())
}

/// A local day, counted from 1970-01-01, from its first instant to that of the next.
pub fn day_bounds(number: i32, zone: Tz) -> Option<Period> {
    let day = NaiveDate::from_epoch_days(number)?;
    Some(Period { start: midnight(day, zone)?, end: midnight(day.succ_opt()?, zone)? })
}

/// The end of the `days`th business day after that of an instant, in a zone: days from Monday to Friday that are no
/// holidays, the day of the instant itself being day 0 (rule 4.6).
pub fn end_of_business_day(
    at: Instant,
    zone: Tz,
    days: u32,
    is_holiday: impl Fn(NaiveDate) -> bool,
) -> Option<Instant> {
    let mut day = day_of(at, zone)?;
    let mut left = days;
    while left > 0 {
        day = day.succ_opt()?;
        let is_weekend = matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
        if !is_weekend && !is_holiday(day) {
            left -= 1;
        }
    }
    midnight(day.succ_opt()?, zone)
}

/// The first instant of a local day: midnight; the first instant after it if a change of the clock skips it, the
/// earlier one if it occurs twice.
pub fn midnight(day: NaiveDate, zone: Tz) -> Option<Instant> {
    let local = day.and_time(NaiveTime::MIN);
    match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time.with_timezone(&Utc).into()),
        LocalResult::None => Some(after_gap(local, zone)),
    }
}

/// The instant at which the clock jumps over a local time. Before it the offset of the day before holds, so it lies
/// between the two readings of the skipped time; what is looked for is the first instant whose local time is not
/// earlier.
fn after_gap(skipped: NaiveDateTime, zone: Tz) -> Instant {
    let local = |at: Instant| at.calendar().map(|time| time.with_timezone(&zone).naive_local());
    let utc: Instant = DateTime::<Utc>::from_naive_utc_and_offset(skipped, Utc).into();
    // No zone is further than a day from UTC.
    let (mut before, mut after) = (utc.plus(-25 * 3_600 * SECOND), utc.plus(25 * 3_600 * SECOND));
    while after.since(before) > 1 {
        let middle = before.plus(after.since(before) / 2);
        if local(middle).is_some_and(|time| time < skipped) {
            before = middle;
        } else {
            after = middle;
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Instant {
        text.parse::<DateTime<Utc>>().expect("a time").into()
    }

    fn bounds(time: &str, anchor_day: u32, zone: &str) -> (String, String) {
        let calendar = Calendar { zone: zone_named(zone).expect("a zone"), anchor_day };
        let period = calendar.period_of(at(time)).expect("in range");
        let shown = |instant: Instant| instant.calendar().expect("in range").format("%F %T").to_string();
        (shown(period.start), shown(period.end))
    }

    fn days(time: &str, anchor_day: u32) -> (String, String) {
        let (start, end) = bounds(time, anchor_day, "UTC");
        (start[..10].to_owned(), end[..10].to_owned())
    }

    #[test]
    fn a_period_is_half_open_to_the_microsecond() {
        assert_eq!(days("2026-02-28T23:59:59.999999Z", 1), ("2026-02-01".into(), "2026-03-01".into()));
        assert_eq!(days("2026-03-01T00:00:00Z", 1), ("2026-03-01".into(), "2026-04-01".into()));
    }

    #[test]
    fn an_anchor_beyond_the_months_end_is_clamped_and_comes_back() {
        assert_eq!(days("2026-02-27T12:00:00Z", 31), ("2026-01-31".into(), "2026-02-28".into()));
        assert_eq!(days("2026-02-28T00:00:00Z", 31), ("2026-02-28".into(), "2026-03-31".into()));
        assert_eq!(days("2028-02-29T00:00:00Z", 30), ("2028-02-29".into(), "2028-03-30".into()));
        assert_eq!(days("2026-04-30T00:00:00Z", 31), ("2026-04-30".into(), "2026-05-31".into()));
    }

    #[test]
    fn a_period_before_the_anchor_day_began_last_month_also_over_new_year() {
        assert_eq!(days("2026-01-14T00:00:00Z", 15), ("2025-12-15".into(), "2026-01-15".into()));
    }

    #[test]
    fn a_period_starts_at_local_midnight() {
        let tokyo = ("2026-02-28 15:00:00".into(), "2026-03-31 15:00:00".into());
        assert_eq!(bounds("2026-03-31T14:59:59.999999Z", 1, "Asia/Tokyo"), tokyo);
        let berlin = ("2026-02-28 23:00:00".into(), "2026-03-31 22:00:00".into());
        assert_eq!(bounds("2026-02-28T23:00:00Z", 1, "Europe/Berlin"), berlin);
    }

    #[test]
    fn a_midnight_that_is_skipped_is_the_first_instant_after_the_gap() {
        // In Beirut the clock went from 00:00 to 01:00 on 2024-03-31, in Apia from the 29th to the 31st of December
        // 2011.
        let beirut = bounds("2024-04-01T00:00:00Z", 31, "Asia/Beirut");
        assert_eq!(beirut, ("2024-03-30 22:00:00".into(), "2024-04-29 21:00:00".into()));
        let apia = bounds("2011-12-31T00:00:00Z", 30, "Pacific/Apia");
        assert_eq!(apia.0, "2011-12-30 10:00:00");
    }

    #[test]
    fn of_a_midnight_that_occurs_twice_the_earlier_one_counts() {
        // In Havana the clock went back from 01:00 to 00:00 on 2026-11-01.
        let havana = bounds("2026-11-01T04:00:00Z", 1, "America/Havana");
        assert_eq!(havana.0, "2026-11-01 04:00:00");
        assert_eq!(bounds("2026-11-01T03:59:59.999999Z", 1, "America/Havana").1, "2026-11-01 04:00:00");
    }

    #[test]
    fn a_zone_is_known_by_its_exact_name() {
        assert!(zone_named("Europe/Berlin").is_some() && zone_named("UTC").is_some());
        assert!(zone_named("europe/berlin").is_none() && zone_named("CEST").is_none() && zone_named("+01").is_none());
    }

    fn due(filed: &str, zone: &str, holidays: &[&str]) -> String {
        let is_holiday = |day: NaiveDate| holidays.contains(&day.to_string().as_str());
        let due = end_of_business_day(at(filed), zone_named(zone).expect("a zone"), 10, is_holiday);
        due.and_then(Instant::calendar).expect("in range").format("%F %T").to_string()
    }

    #[test]
    fn ten_business_days_are_two_weeks_whatever_the_day_of_filing() {
        // Monday 2026-03-02: the 10th business day is Monday the 16th, and ends with it.
        assert_eq!(due("2026-03-02T00:00:00Z", "UTC", &[]), "2026-03-17 00:00:00");
        assert_eq!(due("2026-03-06T23:59:59Z", "UTC", &[]), "2026-03-21 00:00:00");
        // On a weekend the next Monday is day 1.
        assert_eq!(due("2026-03-07T12:00:00Z", "UTC", &[]), "2026-03-21 00:00:00");
        assert_eq!(due("2026-03-08T12:00:00Z", "UTC", &[]), "2026-03-21 00:00:00");
    }

    #[test]
    fn a_holiday_is_no_business_day_unless_it_is_on_a_weekend() {
        assert_eq!(due("2026-03-02T00:00:00Z", "UTC", &["2026-03-04", "2026-03-14"]), "2026-03-18 00:00:00");
    }

    #[test]
    fn business_days_are_local_also_over_a_change_of_the_clock() {
        // In Tokyo it is Tuesday already; in New York still Monday, and summer time begins on the 8th.
        assert_eq!(due("2026-03-03T01:00:00Z", "Asia/Tokyo", &[]), "2026-03-17 15:00:00");
        assert_eq!(due("2026-03-03T01:00:00Z", "America/New_York", &[]), "2026-03-17 04:00:00");
    }

    proptest! {
        #[test]
        fn periods_of_one_calendar_cover_time_without_hole_or_overlap(
            seconds in -60_000_000_000i64..250_000_000_000, anchor_day in 1u32..=31,
            zone in prop::sample::select(chrono_tz::TZ_VARIANTS.to_vec())
        ) {
            let calendar = Calendar { zone, anchor_day };
            let instant = Instant(seconds * 1_000_000);
            let period = calendar.period_of(instant).unwrap();
            prop_assert!(period.holds(instant));
            prop_assert_eq!(calendar.period_of(period.end).unwrap().start, period.end);
            prop_assert_eq!(calendar.period_of(period.start.plus(-1)).unwrap().end, period.start);
        }
    }
}
