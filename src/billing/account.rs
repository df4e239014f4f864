//! What does a tenant's account hold, as the tables have it?

use crate::pg::clock::{self, Day, Timestamp};
use crate::pg::sql::{Connection, OverRows, Row, arg, column, decimal, over_rows};
use std::collections::{BTreeMap, BTreeSet};
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Usage};
use talkmeter_engine::instant::{DAY, Instant};
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
    /// The first local day of any charge, counted from 1970-01-01.
    pub first_day: Option<i32>,
    /// Net units of each local day, of those that are needed.
    pub days: BTreeMap<i32, i64>,
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

// OFFSET 0 makes each look-up a subquery that is run per tenant, by the key: see `meter::part_table` for why.
const READ_ACCOUNTS: OverRows = over_rows!(
    "SELECT a.tenant, a.last_charge_id, a.last_subscription_id, a.first_day FROM",
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
        p.overage_amount::text, p.finalized_at IS NOT NULL,
        CASE WHEN array_ndims(p.alerted) = 1 THEN array_remove(p.alerted, NULL) ELSE '{}' END
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
    "SELECT d.tenant, d.day, d.units FROM",
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
    for mut row in connection.run_over(&READ_ACCOUNTS, tenants.len(), &[by_tenant()]).iter() {
        let books = all.entry(row.value()).or_default();
        books.last_charge_id = row.value();
        books.last_subscription_id = row.value();
        books.first_day = row.nullable::<Day>().map(|day| day.0);
    }
    for mut row in connection.run_over(&READ_SUBSCRIPTIONS, tenants.len(), &[by_tenant()]).iter() {
        let books = all.entry(row.value()).or_default();
        books.account.subscriptions.push(subscription(&mut row));
    }
    // With the neighbours of the periods: where those end, these begin. What is late may be listed by the current one.
    let now = clock::now();
    let (first, last) = (needed.first.min(now).plus(-MONTH), needed.last.max(now).plus(MONTH));
    let bounds = [by_tenant(), arg(Timestamp::from(first)), arg(Timestamp::from(last))];
    for mut row in connection.run_over(&READ_PERIODS, tenants.len(), &bounds).iter() {
        let books = all.entry(row.value()).or_default();
        let usage = usage(&mut row);
        books.alerted.insert(usage.period, row.value::<Vec<String>>().into_iter().collect());
        books.account.used.insert(usage.period, usage);
    }
    for mut row in connection.run_over(&READ_PACKS, tenants.len(), &[by_tenant(), arg(needed.packs.clone())]).iter() {
        let books = all.entry(row.value()).or_default();
        books.account.packs.push(Pack {
            id: row.value(),
            size: row.value(),
            remaining: row.value(),
            purchased_at: row.value::<Timestamp>().bound(),
            expires_at: row.value::<Timestamp>().bound(),
        });
    }
    let bounds = [by_tenant(), arg(Timestamp::from(needed.first)), arg(Timestamp::from(needed.last))];
    for mut row in connection.run_over(&READ_DAYS, tenants.len(), &bounds).iter() {
        let books = all.entry(row.value()).or_default();
        books.days.insert(row.value::<Day>().0, row.value());
    }
    all
}

/// The books of one tenant, as [`read`] reads them.
pub fn read_one(connection: &Connection, tenant: &str, needed: &Needed) -> Books {
    read(connection, &[tenant], needed).remove(tenant).unwrap_or_default()
}

fn subscription(row: &mut Row) -> Subscription {
    let since = row.value::<Timestamp>().bound();
    let anchor_day = row.value::<i32>() as u32;
    // It was known when it was recorded; one that the zone database has dropped since is read as UTC.
    let zone = period::zone_named(&row.value::<String>()).unwrap_or_default();
    let plan = row.nullable().map(|name| Plan {
        name,
        included: row.value(),
        overage_rate: decimal(&row.value::<String>()),
        currency: row.value(),
    });
    Subscription { since, plan, calendar: Calendar { zone, anchor_day } }
}

fn usage(row: &mut Row) -> Usage {
    Usage {
        period: Period { start: row.value::<Timestamp>().bound(), end: row.value::<Timestamp>().bound() },
        included_used: row.value(),
        pack_used: row.value(),
        overage_units: row.value(),
        overage_amount: decimal(&row.value::<String>()),
        is_finalized: row.value(),
    }
}

const WRITE_ACCOUNT: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_charge_id, first_day) VALUES ($1, $2, $3)
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
    SELECT $1, u.day, u.units
    FROM unnest($2::date[], $3::int8[]) AS u (day, units)
    ON CONFLICT (tenant, day) DO UPDATE SET units = excluded.units";

/// Writes what has changed in a tenant's books.
pub fn write(connection: &Connection, tenant: &str, before: &Books, books: &Books) {
    connection.run(WRITE_ACCOUNT, &[arg(tenant), arg(books.last_charge_id), arg(books.first_day.map(Day))]);
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
    let (days, units): (Vec<Day>, Vec<i64>) = changed.map(|(day, units)| (Day(*day), *units)).unzip();
    if !days.is_empty() {
        connection.run(WRITE_DAYS, &[arg(tenant), arg(days), arg(units)]);
    }
}
