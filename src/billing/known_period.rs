//! Which billing month of a tenant is asked for? If there is none, which one was meant?

use crate::billing::account::{self, Books, Needed};
use crate::billing::known_tenant;
use crate::pg::error::failure;
use crate::pg::sql::Connection;
use chrono::{Datelike, Months, NaiveDate};
use pgrx::prelude::*;
use std::collections::BTreeSet;
use talkmeter_engine::instant::{DAY, Instant};
use talkmeter_engine::period::Period;

/// The books of a tenant, and its period that starts at an instant, or an error that says why there is none.
pub fn starting(connection: &Connection, tenant: &str, start: Instant) -> (Books, Period) {
    let books = account::read_one(tenant, &Needed::at(start));
    match books.account.period_starting(start) {
        Some(period) => (books, period),
        None => none_starts(connection, &books, tenant, start),
    }
}

/// Whether a period of a tenant starts at an instant, frozen or not; else an error.
pub fn must_start(connection: &Connection, tenant: &str, start: Instant) {
    let books = account::read_one(tenant, &Needed::at(start));
    let is_known = books.account.used.keys().any(|period| period.start == start);
    if !is_known && books.account.period_starting(start).is_none() {
        none_starts(connection, &books, tenant, start);
    }
}

/// When the periods of a tenant start that start in a month of its own calendar, given by any day of it; an error if
/// there is none.
pub fn starting_in_month(connection: &Connection, tenant: &str, day: NaiveDate) -> BTreeSet<Instant> {
    let number = |date: NaiveDate| date.to_epoch_days();
    let first = day.with_day(1).unwrap_or(day);
    let next = first.checked_add_months(Months::new(1)).unwrap_or(first);
    let begin = |day: i32| Instant(i64::from(day) * DAY);
    let needed = Needed { first: begin(number(first)), last: begin(number(next)), packs: Vec::new() };
    let books = account::read_one(tenant, &needed);
    let starts = books.account.starts_within(number(first)..number(next));
    if starts.is_empty() {
        none_starts(connection, &books, tenant, needed.first);
    }
    starts
}

/// Raises the error that no period of a tenant starts at an instant.
fn none_starts(connection: &Connection, books: &Books, tenant: &str, start: Instant) -> ! {
    let Some(holds) = books.account.period_at(start) else { on_no_plan(connection, books, tenant, start) };
    failure(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("no period of tenant \"{tenant}\" starts at {}", start.shown()),
    )
    .detail(format!("The period that holds it starts at {} and ends at {}.", holds.start.shown(), holds.end.shown()))
    .hint("Give that instant. talkmeter.statement also takes a date, for the month of the tenant's own calendar.")
    .raise()
}

/// Raises the error that a tenant has no period then.
fn on_no_plan(connection: &Connection, books: &Books, tenant: &str, at: Instant) -> ! {
    let no_plan = |message| failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message);
    let first = books.account.subscriptions.iter().map(|subscription| subscription.since).min();
    match first {
        None => {
            known_tenant::with_nearest(connection, tenant, no_plan(format!("tenant \"{tenant}\" was never on a plan")))
                .raise()
        }
        Some(first) => no_plan(format!("tenant \"{tenant}\" was on no plan at {}", at.shown()))
            .detail(format!("Its first subscription began at {}.", first.shown()))
            .raise(),
    }
}
