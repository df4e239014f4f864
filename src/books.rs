//! What does a tenant's account hold, as the tables have it?

use crate::clock::Timestamp;
use crate::over_rows;
use crate::sql::{Connection, OverRows, Rows, arg, column};
use rust_decimal::Decimal;
use std::collections::{BTreeMap, BTreeSet};
use talkmeter_engine::instant::{DAY, Instant};
use talkmeter_engine::ledger::{Account, Pack, Plan, Subscription, Usage};
use talkmeter_engine::period::{self, Calendar, Period};

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
    /// The first local day of any charge.
    pub first_day: Option<Day>,
    /// Net units of each local day, of those that are needed.
    pub days: BTreeMap<Day, i64>,
}

/// A local day, counted from 1970-01-01.
pub type Day = i32;

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

// OFFSET 0 makes each look-up a subquery that is run per tenant, by the key: see `parts` for why.
const READ_ACCOUNTS: OverRows = over_rows!(
    "SELECT a.tenant, a.last_charge_id, a.last_subscription_id, a.first_day - '1970-01-01'::date FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (SELECT * FROM talkmeter.account AS own WHERE own.tenant = wanted.tenant OFFSET 0) AS a"
);

const READ_SUBSCRIPTIONS: OverRows = over_rows!(
    "SELECT s.tenant, s.since, s.anchor_day, s.timezone, p.name, p.included, p.overage_rate::text, p.currency FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (SELECT * FROM talkmeter.subscription AS own WHERE own.tenant = wanted.tenant OFFSET 0) AS s
    LEFT JOIN talkmeter.plan AS p ON p.name = s.plan
    ORDER BY s.tenant, s.subscription_id"
);

const READ_PERIODS: OverRows = over_rows!(
    "SELECT p.tenant, p.period_start, p.period_end, p.included_used, p.pack_used, p.overage_units,
        p.overage_amount::text, p.finalized_at IS NOT NULL, p.alerted
    FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.period AS own
        WHERE own.tenant = wanted.tenant AND own.period_start <= $3 AND own.period_end > $2 OFFSET 0
    ) AS p"
);

const READ_PACKS: OverRows = over_rows!(
    "SELECT p.tenant, p.pack_id, p.size, p.remaining, p.purchased_at, p.expires_at FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.pack AS own
        WHERE own.tenant = wanted.tenant AND own.refunded_at IS NULL
            AND (own.remaining > 0 OR own.pack_id = ANY ($2))
        OFFSET 0
    ) AS p
    ORDER BY p.tenant, p.purchased_at, p.pack_id"
);

// The eight days before the first may be those before which a spike is judged, in any zone.
const READ_DAYS: OverRows = over_rows!(
    "SELECT d.tenant, d.day - '1970-01-01'::date, d.units FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.day_units AS own
        WHERE own.tenant = wanted.tenant AND own.day >= ($2::timestamptz AT TIME ZONE 'UTC')::date - 9
            AND own.day <= ($3::timestamptz AT TIME ZONE 'UTC')::date + 1
        OFFSET 0
    ) AS d"
);

/// The books of tenants. Their rows must be locked if they are to be written.
pub fn read(connection: &Connection, tenants: &[&str], needed: &Needed) -> BTreeMap<String, Books> {
    let mut all: BTreeMap<String, Books> = BTreeMap::new();
    let by_tenant = || column(tenants, |tenant| *tenant);
    let rows = connection.run_over(&READ_ACCOUNTS, tenants.len(), &[by_tenant()]);
    for row in 0..rows.count() {
        let books = all.entry(rows.value(row, 1)).or_default();
        books.last_charge_id = rows.value(row, 2);
        books.last_subscription_id = rows.value(row, 3);
        books.first_day = rows.get(row, 4);
    }
    let rows = connection.run_over(&READ_SUBSCRIPTIONS, tenants.len(), &[by_tenant()]);
    for row in 0..rows.count() {
        let subscription = subscription(&rows, row);
        all.entry(rows.value(row, 1)).or_default().account.subscriptions.push(subscription);
    }
    // With the neighbours of the periods: where those end, these begin.
    let bounds =
        [by_tenant(), arg(Timestamp::from(needed.first.plus(-MONTH))), arg(Timestamp::from(needed.last.plus(MONTH)))];
    let rows = connection.run_over(&READ_PERIODS, tenants.len(), &bounds);
    for row in 0..rows.count() {
        let usage = usage(&rows, row);
        let books = all.entry(rows.value(row, 1)).or_default();
        books.alerted.insert(usage.period, rows.value::<Vec<String>>(row, 9).into_iter().collect());
        books.account.used.insert(usage.period, usage);
    }
    let rows = connection.run_over(&READ_PACKS, tenants.len(), &[by_tenant(), arg(needed.packs.clone())]);
    for row in 0..rows.count() {
        let time = |column| rows.value::<Timestamp>(row, column).bound();
        all.entry(rows.value(row, 1)).or_default().account.packs.push(Pack {
            id: rows.value(row, 2),
            size: rows.value(row, 3),
            remaining: rows.value(row, 4),
            purchased_at: time(5),
            expires_at: time(6),
        });
    }
    let bounds = [by_tenant(), arg(Timestamp::from(needed.first)), arg(Timestamp::from(needed.last))];
    let rows = connection.run_over(&READ_DAYS, tenants.len(), &bounds);
    for row in 0..rows.count() {
        all.entry(rows.value(row, 1)).or_default().days.insert(rows.value(row, 2), rows.value(row, 3));
    }
    all
}

fn subscription(rows: &Rows, row: usize) -> Subscription {
    Subscription {
        since: rows.value::<Timestamp>(row, 2).bound(),
        calendar: Calendar {
            anchor_day: rows.value::<i32>(row, 3) as u32,
            // It was known when it was recorded; one that the zone database has dropped since is read as UTC.
            zone: period::zone_named(&rows.value::<String>(row, 4)).unwrap_or_default(),
        },
        plan: rows.get(row, 5).map(|name| Plan {
            name,
            included: rows.value(row, 6),
            overage_rate: decimal(rows.value(row, 7)),
            currency: rows.value(row, 8),
        }),
    }
}

fn usage(rows: &Rows, row: usize) -> Usage {
    let time = |column| rows.value::<Timestamp>(row, column).bound();
    Usage {
        period: Period { start: time(2), end: time(3) },
        included_used: rows.value(row, 4),
        pack_used: rows.value(row, 5),
        overage_units: rows.value(row, 6),
        overage_amount: decimal(rows.value(row, 7)),
        is_finalized: rows.value(row, 8),
    }
}

/// Rates and sums are written by us and checked by the tables, so they are numbers that the engine can hold.
pub fn decimal(text: String) -> Decimal {
    text.parse().unwrap_or_else(|error| panic!("amount {text}: {error}"))
}

const WRITE_ACCOUNT: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_charge_id, first_day) VALUES ($1, $2, '1970-01-01'::date + $3)
    ON CONFLICT (tenant) DO UPDATE SET last_charge_id = excluded.last_charge_id, first_day = excluded.first_day";

const WRITE_PERIODS: &str = "
    INSERT INTO talkmeter.period AS p
        (tenant, period_start, period_end, included_used, pack_used, overage_units, overage_amount, alerted)
    SELECT $1, u.period_start, u.period_end, u.included_used, u.pack_used, u.overage_units, u.overage_amount::numeric,
        string_to_array(u.alerted, ' ')
    FROM unnest($2::timestamptz[], $3::timestamptz[], $4::int8[], $5::int8[], $6::int8[], $7::text[], $8::text[])
        AS u (period_start, period_end, included_used, pack_used, overage_units, overage_amount, alerted)
    ON CONFLICT (tenant, period_start, period_end) DO UPDATE
    SET included_used = excluded.included_used, pack_used = excluded.pack_used,
        overage_units = excluded.overage_units, overage_amount = excluded.overage_amount, alerted = excluded.alerted";

const WRITE_PACKS: &str = "
    UPDATE talkmeter.pack AS p SET remaining = u.remaining
    FROM unnest($2::int8[], $3::int8[]) AS u (pack_id, remaining)
    WHERE p.tenant = $1 AND p.pack_id = u.pack_id";

const WRITE_DAYS: &str = "
    INSERT INTO talkmeter.day_units AS d (tenant, day, units)
    SELECT $1, '1970-01-01'::date + u.day, u.units
    FROM unnest($2::int4[], $3::int8[]) AS u (day, units)
    ON CONFLICT (tenant, day) DO UPDATE SET units = excluded.units";

/// Writes what has changed in a tenant's books.
pub fn write(connection: &Connection, tenant: &str, before: &Books, books: &Books) {
    connection.run(WRITE_ACCOUNT, &[arg(tenant), arg(books.last_charge_id), arg(books.first_day)]);
    let has_changed = |period: &Period| {
        before.account.used.get(period) != books.account.used.get(period)
            || before.alerted.get(period) != books.alerted.get(period)
    };
    let used: Vec<&Usage> =
        books.account.used.iter().filter(|(period, _)| has_changed(period)).map(|(_, usage)| usage).collect();
    let times =
        |time: fn(&Usage) -> Instant| arg(used.iter().map(|usage| Timestamp::from(time(usage))).collect::<Vec<_>>());
    let counts = |count: fn(&Usage) -> i64| arg(used.iter().map(|usage| count(usage)).collect::<Vec<_>>());
    let alerted = |usage: &&Usage| {
        let kinds = books.alerted.get(&usage.period).into_iter().flatten();
        kinds.map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    connection.run(
        WRITE_PERIODS,
        &[
            arg(tenant),
            times(|usage| usage.period.start),
            times(|usage| usage.period.end),
            counts(|usage| usage.included_used),
            counts(|usage| usage.pack_used),
            counts(|usage| usage.overage_units),
            arg(used.iter().map(|usage| usage.overage_amount.to_string()).collect::<Vec<_>>()),
            arg(used.iter().map(alerted).collect::<Vec<_>>()),
        ],
    );
    let drawn = books.account.packs.iter().zip(&before.account.packs);
    let drawn = drawn.filter(|(now, then)| now.remaining != then.remaining);
    let (ids, remaining): (Vec<i64>, Vec<i64>) = drawn.map(|(pack, _)| (pack.id, pack.remaining)).unzip();
    if !ids.is_empty() {
        connection.run(WRITE_PACKS, &[arg(tenant), arg(ids), arg(remaining)]);
    }
    let changed = books.days.iter().filter(|(day, units)| before.days.get(day) != Some(units));
    let (days, units): (Vec<i32>, Vec<i64>) = changed.map(|(day, units)| (*day, *units)).unzip();
    if !days.is_empty() {
        connection.run(WRITE_DAYS, &[arg(tenant), arg(days), arg(units)]);
    }
}
