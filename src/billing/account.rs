//! What does a tenant's account hold, as the tables have it?

use crate::billing::subscription_rows::{self, SUBSCRIPTION, SUBSCRIPTION_KEY};
use crate::catalog::offers;
use crate::pg::clock::{self, Day, Timestamp};
use crate::pg::limit::heed_cancel;
use crate::pg::own_table::types::{BOOL, BYTES, DATE, INT8, JSONB, NAME, NUMERIC, TEXT, TEXTS, TIME};
use crate::pg::own_table::{Access, Index, Newest, OwnTable, Place, Shape, Wanted, with_newest};
use crate::pg::sql::{Arg, Row, arg, decimal, numeric, text_arg};
use pgrx::prelude::*;
use rust_decimal::Decimal;
use std::collections::{BTreeMap, BTreeSet};
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Usage};
use talkmeter_engine::instant::{DAY, Instant};
use talkmeter_engine::period::Period;

/// Longer than any month.
const MONTH: i64 = 40 * DAY;

/// A tenant's account, with the counters that its rows are numbered by.
#[derive(Clone, Default)]
pub struct Books {
    pub account: Account,
    pub last_charge_id: i64,
    pub last_subscription_id: i64,
    /// Alerts that were raised for each period.
    pub alerted: BTreeMap<Period, BTreeSet<String>>,
    /// The first local day of any charge, counted from 1970-01-01.
    pub first_day: Option<i32>,
    /// Net units of each local day, of those that are needed.
    pub days: BTreeMap<i32, i64>,
    /// Where the rows are that were read.
    place: Option<Place>,
    periods: BTreeMap<Period, Place>,
    day_places: BTreeMap<i32, Place>,
    /// By their ids.
    pack_places: BTreeMap<i64, Place>,
}

/// What the books are to hold.
pub struct Needed {
    /// Periods that hold any instant from the first to the last.
    pub first: Instant,
    pub last: Instant,
    /// Packs, by their ids, even if they are empty.
    pub packs: Vec<i64>,
}

impl Needed {
    /// What is needed to post at one instant.
    pub fn at(at: Instant) -> Needed {
        Needed { first: at, last: at, packs: Vec::new() }
    }
}

const ACCOUNT: Shape = Shape { name: c"account", types: &[TEXT, INT8, INT8, INT8, INT8, DATE, TEXT] };
const PLAN: Shape = Shape { name: c"plan", types: &[TEXT, INT8, NUMERIC, JSONB, NUMERIC, TEXT, BOOL] };
const PERIOD: Shape = Shape {
    name: c"period",
    types: &[TEXT, TIME, TIME, INT8, INT8, INT8, NUMERIC, TEXTS, TIME, NAME, INT8, INT8, INT8, INT8, BYTES],
};
const PACK: Shape =
    Shape { name: c"pack", types: &[TEXT, INT8, TEXT, INT8, INT8, NUMERIC, TEXT, TIME, TIME, TEXT, TIME, TIME, NAME] };
const DAY_UNITS: Shape = Shape { name: c"day_units", types: &[TEXT, DATE, INT8] };

const ACCOUNT_KEY: Index = Index { name: c"account_pkey", columns: &[1] };
const PLAN_KEY: Index = Index { name: c"plan_pkey", columns: &[1] };
const PERIOD_KEY: Index = Index { name: c"period_pkey", columns: &[1, 2, 3] };
const PACK_KEY: Index = Index { name: c"pack_pkey", columns: &[1, 2] };
const DAY_KEY: Index = Index { name: c"day_units_pkey", columns: &[1, 2] };

/// The tables of which the books are read.
struct Tables {
    accounts: OwnTable,
    subscriptions: OwnTable,
    plans: OwnTable,
    periods: OwnTable,
    packs: OwnTable,
    days: OwnTable,
}

impl Tables {
    fn open() -> Tables {
        let open = |shape| OwnTable::open(shape, Access::Reading);
        Tables {
            accounts: open(&ACCOUNT),
            subscriptions: open(&SUBSCRIPTION),
            plans: open(&PLAN),
            periods: open(&PERIOD),
            packs: open(&PACK),
            days: open(&DAY_UNITS),
        }
    }

    fn books(&self, newest: &Newest, tenant: &str, needed: &Needed, now: Instant) -> Books {
        let mut books = Books::default();
        let key = text_arg(tenant);
        let found = self.accounts.find(newest, &ACCOUNT_KEY, &[key], |row| {
            row.skip(1);
            books.last_charge_id = row.value();
            row.skip(1);
            books.last_subscription_id = row.value();
            row.skip(1);
            books.first_day = row.nullable::<Day>().map(|day| day.0);
        });
        books.place = found.map(|(place, ())| place);
        self.subscriptions.scan(newest, &SUBSCRIPTION_KEY, &[(0, Wanted::Same(key))], |_, row| {
            books.account.subscriptions.push(self.subscription(newest, row));
        });
        // With the neighbours of the periods: where those end, these begin. What is late may be listed by the current
        // one.
        let first = needed.first.min(now).plus(-MONTH);
        let last = arg(Timestamp::from(needed.last.max(now).plus(MONTH)));
        let span = [(0, Wanted::Same(key)), (1, Wanted::AtMost(last))];
        self.periods.scan_newest(newest, &PERIOD_KEY, &span, |place, row| {
            let (usage, alerted) = usage(row);
            if usage.period.end > first {
                books.alerted.insert(usage.period, alerted);
                books.periods.insert(usage.period, place);
                books.account.used.insert(usage.period, usage);
            }
        });
        self.packs.scan_newest(newest, &PACK_KEY, &[(0, Wanted::Same(key))], |place, row| {
            let Some(pack) = pack(row, &needed.packs) else { return };
            books.pack_places.insert(pack.id, place);
            books.account.packs.push(pack);
        });
        books.account.packs.sort_by_key(|pack| (pack.purchased_at, pack.id));
        // The eight days before the first may be those before which a spike is judged, in any zone.
        let from = Wanted::AtLeast(arg(Day(utc_day(needed.first).saturating_sub(9))));
        let to = Wanted::AtMost(arg(Day(utc_day(needed.last).saturating_add(1))));
        self.days.scan_newest(newest, &DAY_KEY, &[(0, Wanted::Same(key)), (1, from), (1, to)], |place, row| {
            row.skip(1);
            let day = row.value::<Day>().0;
            books.days.insert(day, row.value());
            books.day_places.insert(day, place);
        });
        books
    }

    fn subscription(&self, newest: &Newest, row: &mut Row) -> Subscription {
        row.skip(2);
        let since = row.value::<Timestamp>().bound();
        let name = row.nullable::<String>();
        let calendar = subscription_rows::calendar(row);
        let plan = name.and_then(|name| {
            self.plans.find(newest, &PLAN_KEY, &[text_arg(name.as_str())], |row| {
                row.skip(1);
                let (included, overage_rate) = (row.value(), amount(row));
                let rates = offers::rates(row);
                row.skip(1);
                Plan { name: name.clone(), included, overage_rate, rates, currency: row.value() }
            })
        });
        Subscription { since, plan: plan.map(|(_, plan)| plan), calendar }
    }
}

/// The next column, an amount of money.
fn amount(row: &mut Row) -> Decimal {
    decimal(&row.value::<AnyNumeric>().to_string())
}

/// The row of a period, and the alerts that were raised for it.
fn usage(row: &mut Row) -> (Usage, BTreeSet<String>) {
    row.skip(1);
    let period = Period { start: row.value::<Timestamp>().bound(), end: row.value::<Timestamp>().bound() };
    let (included_used, pack_used, overage_units) = (row.value(), row.value(), row.value());
    let overage_amount = amount(row);
    let alerted: Vec<Option<String>> = row.value();
    let is_finalized = row.nullable::<Timestamp>().is_some();
    let usage = Usage { period, included_used, pack_used, overage_units, overage_amount, is_finalized };
    (usage, alerted.into_iter().flatten().collect())
}

/// A pack that can pay for anything, or is among those `wanted`.
fn pack(row: &mut Row, wanted: &[i64]) -> Option<Pack> {
    row.skip(1);
    let id = row.value();
    row.skip(1);
    let (size, remaining) = (row.value(), row.value());
    row.skip(2);
    let (purchased_at, expires_at) = (row.value::<Timestamp>().bound(), row.value::<Timestamp>().bound());
    row.skip(2);
    let is_refunded = row.nullable::<Timestamp>().is_some();
    let is_wanted = !is_refunded && (remaining > 0 || wanted.contains(&id));
    is_wanted.then_some(Pack { id, size, remaining, purchased_at, expires_at })
}

/// The day of an instant in UTC, counted from 1970-01-01, within those that the server has.
fn utc_day(at: Instant) -> i32 {
    at.0.clamp(Instant::EARLIEST.0, Instant::LATEST.0).div_euclid(DAY) as i32
}

/// The books of tenants. They must be locked if they are to be written.
pub fn read(tenants: &[&str], needed: &Needed) -> BTreeMap<String, Books> {
    let tables = Tables::open();
    let now = clock::now();
    let books = |newest: &Newest, tenant: &str| {
        heed_cancel();
        (tenant.to_owned(), tables.books(newest, tenant, needed, now))
    };
    with_newest(|newest| tenants.iter().map(|tenant| books(newest, tenant)).collect())
}

/// The books of one tenant, as [`read`] reads them.
pub fn read_one(tenant: &str, needed: &Needed) -> Books {
    read(&[tenant], needed).remove(tenant).unwrap_or_default()
}

/// Writes what has changed in a tenant's books since they were read.
pub fn write(tenant: &str, before: &Books, books: &Books) {
    with_newest(|newest| {
        write_packs(newest, before, books);
        write_account(newest, tenant, books);
        write_periods(newest, tenant, before, books);
        write_days(newest, tenant, before, books);
    });
}

fn write_packs(newest: &Newest, before: &Books, books: &Books) {
    let drawn = books.account.packs.iter().zip(&before.account.packs);
    let drawn: Vec<_> = drawn.filter(|(now, then)| now.remaining != then.remaining).map(|(pack, _)| pack).collect();
    if drawn.is_empty() {
        return;
    }
    let mut packs = OwnTable::open(&PACK, Access::Writing);
    for pack in drawn {
        packs.change(newest, books.pack_places[&pack.id], &[(5, arg(pack.remaining))]);
    }
}

fn write_account(newest: &Newest, tenant: &str, books: &Books) {
    let mut accounts = OwnTable::open(&ACCOUNT, Access::Writing);
    let (last_charge_id, first_day) = (arg(books.last_charge_id), arg(books.first_day.map(Day)));
    match books.place {
        Some(place) => accounts.change(newest, place, &[(2, last_charge_id), (6, first_day)]),
        None => {
            let none = arg(0_i64);
            let alert_channel = arg(None::<String>);
            accounts.insert(newest, &[arg(tenant), last_charge_id, none, none, none, first_day, alert_channel]);
        }
    }
}

fn write_periods(newest: &Newest, tenant: &str, before: &Books, books: &Books) {
    let mut periods = OwnTable::open(&PERIOD, Access::Writing);
    let has_changed = |period: &Period| {
        before.account.used.get(period) != books.account.used.get(period)
            || before.alerted.get(period) != books.alerted.get(period)
    };
    for usage in books.account.used.values().filter(|usage| has_changed(&usage.period)) {
        let alerted: Vec<String> = books.alerted.get(&usage.period).into_iter().flatten().cloned().collect();
        let used = [
            arg(usage.included_used),
            arg(usage.pack_used),
            arg(usage.overage_units),
            arg(numeric(usage.overage_amount)),
            arg(alerted),
        ];
        match books.periods.get(&usage.period) {
            Some(place) => {
                let changed: Vec<(i16, Arg)> = (4..).zip(used).collect();
                periods.change(newest, *place, &changed);
            }
            None => {
                let span = [usage.period.start, usage.period.end].map(|at| arg(Timestamp::from(at)));
                let not_finalized = PERIOD.types[8..].iter().map(|oid| Arg::of(*oid, None));
                let values: Vec<Arg> = [arg(tenant)].into_iter().chain(span).chain(used).chain(not_finalized).collect();
                periods.insert(newest, &values);
            }
        }
    }
}

fn write_days(newest: &Newest, tenant: &str, before: &Books, books: &Books) {
    let mut days = OwnTable::open(&DAY_UNITS, Access::Writing);
    for (day, units) in books.days.iter().filter(|(day, units)| before.days.get(day) != Some(units)) {
        let values = [arg(tenant), arg(Day(*day)), arg(*units)];
        match books.day_places.get(day) {
            Some(place) => days.update(newest, *place, &values),
            None => days.insert(newest, &values),
        }
    }
}
