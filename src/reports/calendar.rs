//! What do views and functions in SQL ask the engine: in which month an instant lies, how many digits a currency has?

use crate::billing::account::{self, Needed};
use crate::catalog::args::instant;
use crate::pg::clock::Timestamp;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
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

/// Digits after the point of a currency, by its ISO 4217 code (rule 4.6).
#[pg_extern(sql = false)]
fn currency_digits(currency: &str) -> i32 {
    money::digits(currency) as i32
}
