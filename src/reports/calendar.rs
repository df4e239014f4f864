//! What do views and functions in SQL ask the engine: in which month an instant lies, how many digits a currency has?

use crate::billing::account::{self, Needed};
use crate::billing::known_period;
use crate::catalog::args::{day, instant};
use crate::pg::clock::Timestamp;
use crate::pg::rights::as_owner;
use crate::pg::sql::connected;
use chrono::NaiveDate;
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::money;

/// The billing month of a tenant that holds an instant; no row if it never had a plan by then (rule 4.2).
#[pg_extern(sql = false)]
fn period_at(
    tenant: &str,
    at: TimestampWithTimeZone,
) -> TableIterator<'static, (name!(period_start, TimestampWithTimeZone), name!(period_end, TimestampWithTimeZone))> {
    let at = instant(at, "at");
    let books = account::read_one(tenant, &Needed::at(at));
    let shown = |at: Instant| Timestamp::from(at).shown();
    let period = books.account.period_at(at);
    TableIterator::new(period.map(|period| (shown(period.start), shown(period.end))))
}

/// The instant, if a billing month of the tenant starts then; else an error that says which one holds it.
#[pg_extern(sql = false)]
fn known_period(tenant: &str, start: TimestampWithTimeZone) -> TimestampWithTimeZone {
    let at = instant(start, "period_start");
    as_owner(|| connected(|connection| known_period::must_start(connection, tenant, at)));
    start
}

/// When the billing months start that start in a month of the tenant's own calendar; an error if there is none.
#[pg_extern(sql = false)]
fn periods_of_month(tenant: &str, month: Date) -> SetOfIterator<'static, TimestampWithTimeZone> {
    let day = day(month, "month");
    let date = NaiveDate::from_epoch_days(day.0).expect("a day that can be metered");
    let starts = as_owner(|| connected(|connection| known_period::starting_in_month(connection, tenant, date)));
    SetOfIterator::new(starts.into_iter().map(|start| Timestamp::from(start).shown()))
}

/// Digits after the point of a currency, by its ISO 4217 code (rule 4.6).
#[pg_extern(sql = false)]
fn currency_digits(currency: &str) -> i32 {
    money::digits(currency) as i32
}
