//! How do the engine's instants and the server's timestamps become each other?

use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum};
use talkmeter_engine::instant::{Instant, SECOND};

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

/// The time of day, as `clock_timestamp()` gives it.
pub fn now() -> Instant {
    // SAFETY: reads the system clock; needs no state of the server.
    Timestamp(unsafe { pg_sys::GetCurrentTimestamp() }).bound()
}

/// The last instant that is not yet future (SPEC 3.5).
pub fn latest() -> Instant {
    now().plus(i64::from(crate::settings::MAX_FUTURE.get()) * SECOND)
}
