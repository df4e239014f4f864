//! How do the engine's instants and the server's timestamps become each other?

use crate::pg::settings;
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};
use talkmeter_engine::instant::{DAY, Instant, SECOND};

/// Microseconds from 1970, where the engine counts from, to 2000, where the server does.
const EPOCH: i64 = 946_684_800 * SECOND;

/// A `timestamptz` as the server holds it: microseconds since 2000-01-01 UTC; the smallest and largest are infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The engine's instant, or `None` for an infinite time or one outside the engine's range of integers.
    pub fn finite(self) -> Option<Instant> {
        match self.0 {
            i64::MIN | i64::MAX => None,
            micros => micros.checked_add(EPOCH).map(Instant),
        }
    }

    /// The instant of a bound, where `-infinity` means "without beginning".
    pub fn bound(self) -> Instant {
        match self.0 {
            i64::MIN => Instant::BEGINNING,
            micros => Instant(micros.saturating_add(EPOCH)),
        }
    }
}

impl Timestamp {
    /// The type in which functions return a time.
    pub fn shown(self) -> TimestampWithTimeZone {
        self.0.try_into().expect("a time that the server gave or that the engine holds")
    }
}

impl From<TimestampWithTimeZone> for Timestamp {
    fn from(time: TimestampWithTimeZone) -> Timestamp {
        Timestamp(time.into_inner())
    }
}

impl From<i64> for Timestamp {
    fn from(micros: i64) -> Timestamp {
        Timestamp(micros)
    }
}

impl From<Instant> for Timestamp {
    fn from(instant: Instant) -> Timestamp {
        match instant {
            Instant::BEGINNING => Timestamp(i64::MIN),
            Instant(micros) => Timestamp(micros.saturating_sub(EPOCH)),
        }
    }
}

impl IntoDatum for Timestamp {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TIMESTAMPTZOID
    }
}

impl FromDatum for Timestamp {
    // SAFETY: timestamptz is passed by value, so the datum is the number itself.
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Timestamp> {
        (!is_null).then(|| Timestamp(datum.value() as i64))
    }
}

/// Whether the server knows a zone of that name. One that it knew it may have lost: its files are the system's.
pub fn is_zone(name: &str) -> bool {
    // SAFETY: a look-up by a string that ends with a zero byte; what it returns is only compared with null.
    std::ffi::CString::new(name).is_ok_and(|name| unsafe { !pg_sys::pg_tzset(name.as_ptr()).is_null() })
}

/// A local day, counted from 1970-01-01, as the engine counts; a `date` to the server, which counts from 2000-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub i32);

impl Day {
    /// Days from 1970 to 2000.
    const EPOCH: i32 = (EPOCH / DAY) as i32;

    /// A finite date that the engine can hold.
    pub fn of(date: Date) -> Option<Day> {
        let number = date.to_pg_epoch_days().checked_add(Self::EPOCH)?;
        let is_infinite = date.is_infinity() || date.is_neg_infinity();
        let in_range = i64::from(number).checked_mul(DAY).is_some_and(|micros| Instant(micros).in_range());
        Some(Day(number)).filter(|_| in_range && !is_infinite)
    }
}

impl IntoDatum for Day {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0 - Self::EPOCH))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::DATEOID
    }
}

impl FromDatum for Day {
    // SAFETY: date is passed by value, so the datum is the number itself.
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Day> {
        // An infinite one is the last or the first that there is.
        (!is_null).then(|| Day((datum.value() as i32).saturating_add(Self::EPOCH)))
    }
}

/// The time of day, as `clock_timestamp()` gives it, but for what a rehearsal adds (rule 3.6.9).
pub fn now() -> Instant {
    with_offset(settings::clock_offset())
}

/// The time of day by a clock that is so many seconds ahead.
pub fn with_offset(seconds: i32) -> Instant {
    // SAFETY: reads the system clock; needs no state of the server.
    Timestamp(unsafe { pg_sys::GetCurrentTimestamp() }).bound().plus(i64::from(seconds) * SECOND)
}

/// When the transaction began, as `now()` gives it, but for what a rehearsal adds.
pub fn of_transaction() -> Instant {
    // SAFETY: reads a variable of this session's.
    let began = Timestamp(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() }).bound();
    began.plus(i64::from(settings::clock_offset()) * SECOND)
}

/// The last instant that is not yet future (rule 3.5.16).
pub fn latest() -> Instant {
    now().plus(i64::from(settings::MAX_FUTURE.get()) * SECOND)
}

/// The first instant that is not too old for a row that comes now, if there is such a bound (rule 3.5.17).
pub fn earliest() -> Option<Instant> {
    settings::max_past().map(|seconds| now().plus(-i64::from(seconds) * SECOND))
}

/// Whether what comes now with that time is too old.
pub fn is_too_old(at: Instant) -> bool {
    earliest().is_some_and(|earliest| at < earliest)
}
