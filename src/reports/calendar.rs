//! What do views and functions in SQL ask the engine: in which month an instant lies, how many digits a currency has?

use crate::billing::account::{self, Needed};
use crate::billing::known_period;
use crate::billing::subscription_rows;
use crate::catalog::args::{day, instant};
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::failure;
use crate::pg::rights::as_owner;
use crate::pg::snapshot::{self, Moment};
use crate::pg::sql::{arg, connected};
use crate::pg::subtransaction::{attempt, code, is_of_server, sqlstate};
use chrono::{Datelike, NaiveDate};
use pgrx::datum::{Date, TimestampWithTimeZone};
use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use talkmeter_engine::draw_down::{Account, Subscription};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::money;
use talkmeter_engine::period::Period;

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

/// The subscriptions of tenants by which days are told, as the statement that asks sees them.
type Calendars = (Option<Moment>, HashMap<String, Rc<[(i64, Subscription)]>>);

thread_local! {
    static CALENDARS: RefCell<Calendars> = RefCell::default();
}

/// Asked for each row of a report: read once for a statement.
fn calendars(tenant: &str) -> Rc<[(i64, Subscription)]> {
    let now = snapshot::moment();
    let known = CALENDARS.with_borrow_mut(|(of, known)| {
        if *of != now {
            (*of, *known) = (now, HashMap::new());
        }
        known.get(tenant).cloned()
    });
    known.unwrap_or_else(|| {
        let read: Rc<[_]> = subscription_rows::calendars(tenant).into();
        CALENDARS.with_borrow_mut(|(_, known)| known.insert(tenant.to_owned(), Rc::clone(&read)));
        read
    })
}

/// What a tenant's days are told by: the subscriptions that were made before an entry of its ledger.
fn account_before(tenant: &str, charge_id: i64) -> Account {
    let made_before = |(after, own): &(i64, Subscription)| (*after < charge_id).then(|| own.clone());
    Account { subscriptions: calendars(tenant).iter().filter_map(made_before).collect(), ..Account::default() }
}

/// The local day of an instant, by the subscriptions that were made before an entry of the ledger, or by all: another
/// zone takes effect when the current period ends (rule 4.2.8), which SQL cannot tell.
#[pg_extern(sql = false)]
fn local_day(tenant: Option<&str>, at: Option<TimestampWithTimeZone>, charge_id: Option<i64>) -> Option<Date> {
    let (tenant, at) = (tenant?, instant(at?, "at"));
    account_before(tenant, charge_id.unwrap_or(i64::MAX))
        .day_of(at)
        .and_then(NaiveDate::from_epoch_days)
        .and_then(shown_day)
}

/// What a billing month of a tenant is called: the year and month of its first local day (rule 5.15).
#[pg_extern(sql = false)]
fn period_name(tenant: &str, period_start: TimestampWithTimeZone, period_end: TimestampWithTimeZone) -> Option<String> {
    let bound = |at: TimestampWithTimeZone| Timestamp::from(at).bound();
    let month = Period { start: bound(period_start), end: bound(period_end) };
    let day = account_before(tenant, i64::MAX).first_day(month).and_then(NaiveDate::from_epoch_days)?;
    Some(month_name(day))
}

fn month_name(first_day: NaiveDate) -> String {
    first_day.format("%Y-%m").to_string()
}

/// The type in which functions return a day.
fn shown_day(day: NaiveDate) -> Option<Date> {
    Date::new(day.year(), day.month() as u8, day.day() as u8).ok()
}

/// The instant, if a billing month of the tenant starts then; else an error that says which one holds it.
#[pg_extern(sql = false)]
fn known_period(tenant: &str, start: TimestampWithTimeZone) -> TimestampWithTimeZone {
    let at = instant(start, "period_start");
    as_owner(|| connected(|connection| known_period::must_start(connection, tenant, at)));
    start
}

/// The instant that a text means which names no month: where a billing month starts (rule 5.15).
#[pg_extern(sql = false)]
fn instant_meant(period: &str) -> TimestampWithTimeZone {
    const READ: &str = "SELECT $1::timestamptz";
    let read = || as_owner(|| connected(|connection| connection.run(READ, &[arg(period)]).only().value::<Timestamp>()));
    attempt(read).map(Timestamp::shown).unwrap_or_else(|error| {
        // Class 22: it is not of the text's making that anything else fails.
        if is_of_server(&error) || !sqlstate(code(&error)).starts_with("22") {
            error.rethrow();
        }
        failure(PgSqlErrorCode::ERRCODE_INVALID_DATETIME_FORMAT, format!("\"{period}\" names no period"))
            .hint(
                "Write a month as '2026-03', a day of it as '2026-03-15', or the instant at which the period starts. \
                 talkmeter.usage_monthly lists all, talkmeter.my_usage_monthly one's own.",
            )
            .raise()
    })
}

/// When the billing months start that start in a month of the tenant's own calendar; an error if there is none.
#[pg_extern(sql = false)]
fn periods_of_month(tenant: &str, month: Date) -> SetOfIterator<'static, TimestampWithTimeZone> {
    let day = day(month, "month");
    let date = NaiveDate::from_epoch_days(day.0).expect("a day that can be metered");
    let starts = as_owner(|| connected(|connection| known_period::starting_in_month(connection, tenant, date)));
    SetOfIterator::new(starts.into_iter().map(|start| Timestamp::from(start).shown()))
}

/// When packs were bought and given back: a statement lists them, whether a plan was in force or not.
const SALES: &str = "
    SELECT k.billed_at FROM talkmeter.pack AS k WHERE k.tenant = $1
    UNION ALL
    SELECT k.refunded_at FROM talkmeter.pack AS k WHERE k.tenant = $1 AND k.refunded_at IS NOT NULL";

fn sales(tenant: &str) -> Vec<Instant> {
    as_owner(|| {
        connected(|connection| {
            let rows = connection.run(SALES, &[arg(tenant)]);
            rows.iter().map(|mut row| row.value::<Timestamp>().bound()).collect()
        })
    })
}

/// The billing months of a tenant, from its first to the current one (rule 5.15): the year and month of its first local
/// day, that day, and its bounds.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn months_of(
    tenant: &str,
) -> TableIterator<
    'static,
    (
        name!(period, String),
        name!(first_day, Date),
        name!(period_start, TimestampWithTimeZone),
        name!(period_end, TimestampWithTimeZone),
    ),
> {
    let now = clock::now();
    let books = account::read_one(tenant, &Needed { first: Instant::EARLIEST, last: now, packs: Vec::new() });
    let shown = |at: Instant| Timestamp::from(at).shown();
    let month = |month: Period| {
        let day = books.account.first_day(month).and_then(NaiveDate::from_epoch_days)?;
        Some((month_name(day), shown_day(day)?, shown(month.start), shown(month.end)))
    };
    TableIterator::new(books.account.months(now, &sales(tenant)).into_iter().filter_map(month).collect::<Vec<_>>())
}

/// Digits after the point of a currency, by its ISO 4217 code (rule 4.6).
#[pg_extern(sql = false)]
fn currency_digits(currency: &str) -> i32 {
    money::digits(currency) as i32
}
