//! What is an argument of a call worth? Checked, or refused by an error that names it.

use crate::pg::clock::{self, Day, Timestamp};
use crate::pg::error::failure;
use crate::pg::settings;
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::LONGEST_KEY;

/// The argument's value, or an error that names the argument if it is null.
pub fn required<T>(argument: Option<T>, name: &str) -> T {
    argument.unwrap_or_else(|| {
        failure(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("\"{name}\" must not be null"))
            .hint("Every argument needs a value but those whose default is NULL.")
            .raise()
    })
}

/// A tenant.
pub fn tenant_key(tenant: Option<&str>) -> &str {
    key(tenant, "tenant")
}

/// A tenant or a conversation: not null, and no longer than keys may be.
pub fn key<'a>(argument: Option<&'a str>, name: &str) -> &'a str {
    let key = required(argument, name);
    short_enough(key, name);
    key
}

/// Refuses a text that is longer than keys may be.
pub fn short_enough(key: &str, name: &str) {
    if key.len() > LONGEST_KEY {
        failure(
            PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
            format!("\"{name}\" is longer than {LONGEST_KEY} bytes"),
        )
        .detail(format!("It has {} bytes.", key.len()))
        .hint("What identifies something is kept in indexes: use a shorter name, or a digest of the long one.")
        .raise();
    }
}

/// An instant that can be metered, from an argument.
pub fn instant(time: TimestampWithTimeZone, name: &str) -> Instant {
    match Timestamp::from(time).finite().filter(|instant| instant.in_range()) {
        Some(instant) => instant,
        None => failure(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("\"{name}\" is not an instant of the years 1 to 9999"),
        )
        .hint("Give one that is, for example '2026-03-01 09:00+00'.")
        .raise(),
    }
}

/// An instant that can be metered, or that at which the transaction began if none is given.
pub fn instant_or_now(time: Option<TimestampWithTimeZone>, name: &str) -> Instant {
    time.map_or_else(clock::of_transaction, |time| instant(time, name))
}

/// An instant that is not in the future, or this one if none is given.
pub fn not_future_or_now(time: Option<TimestampWithTimeZone>, name: &str) -> Instant {
    time.map_or_else(clock::now, |time| not_future(time, name))
}

/// A day that can be metered.
pub fn day(date: Date, name: &str) -> Day {
    Day::of(date).unwrap_or_else(|| {
        failure(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("\"{name}\" is not a day of the years 1 to 9999"),
        )
        .hint("Give one that is, for example '2026-03-01'.")
        .raise()
    })
}

/// An instant that can be metered and is at most `talkmeter.max_future` ahead of the clock (rule 3.5.16).
pub fn not_future(time: TimestampWithTimeZone, name: &str) -> Instant {
    let instant = instant(time, name);
    if instant > clock::latest() {
        let seconds = settings::MAX_FUTURE.get();
        failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, format!("\"{name}\" is in the future"))
            .detail(format!("It may be at most {seconds} seconds ahead of the clock (talkmeter.max_future)."))
            .raise();
    }
    instant
}

/// An instant that is not further behind the clock than `talkmeter.max_past` admits (rule 3.5.17).
pub fn not_too_old(instant: Instant, name: &str) -> Instant {
    if clock::is_too_old(instant) {
        let seconds = settings::max_past().unwrap_or_default();
        failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, format!("\"{name}\" is too long ago"))
            .detail(format!("It may be at most {seconds} seconds behind the clock (talkmeter.max_past)."))
            .raise();
    }
    instant
}
