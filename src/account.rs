//! What does a tenant have: a plan and packs (SPEC 4.2, 4.3)?

use crate::cache;
use crate::clock::Timestamp;
use crate::error::{failure, required};
use crate::ledger::{self, Opening};
use crate::locks;
use crate::offers;
use crate::rights::as_owner;
use crate::sql::{Connection, arg, connected};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::LONGEST_KEY;
use talkmeter_engine::period::Period;
use talkmeter_engine::{money, near, period};

/// Puts a tenant on a plan from `since` on, posts the units that waited for one, and returns the subscription's id.
#[pg_extern(sql = false)]
fn subscribe(
    tenant: Option<&str>,
    plan: Option<&str>,
    since: Option<TimestampWithTimeZone>,
    timezone: Option<&str>,
    anchor_day: Option<i32>,
    policy: Option<&str>,
) -> i64 {
    let tenant = tenant_key(tenant);
    let plan = required(plan, "plan");
    let since = instant(required(since, "since"), "since");
    if required(timezone, "timezone") != "UTC" {
        failure(
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "periods in another time zone than UTC are not supported yet",
        )
        .hint("Leave \"timezone\" out.")
        .raise();
    }
    let anchor_day = anchor_day.unwrap_or_else(|| period::day_of(since).map_or(1, |day| day as i32));
    checked_anchor(anchor_day);
    offers::known_plan(plan);
    if let Some(policy) = policy {
        known_policy(policy);
    }
    let opening = Opening { since, plan: plan.to_owned(), anchor_day, policy: policy.map(str::to_owned) };
    ledger::open_subscription(tenant, &opening)
}

/// Raises an error that says which policies there are, if this one is not among them.
pub fn known_policy(policy: &str) {
    let policies = cache::policies();
    if !policies.knows(policy) {
        let names = policies.names();
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("policy \"{policy}\" does not exist"))
            .hint(near::hint(policy, names.iter().map(String::as_str)))
            .raise();
    }
}

fn tenant_key(tenant: Option<&str>) -> &str {
    let tenant = required(tenant, "tenant");
    short_enough(tenant, "tenant");
    tenant
}

fn short_enough(key: &str, name: &str) {
    if key.len() > LONGEST_KEY {
        failure(
            PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
            format!("\"{name}\" is longer than {LONGEST_KEY} bytes"),
        )
        .raise();
    }
}

/// An instant that can be metered, from an argument.
fn instant(time: TimestampWithTimeZone, name: &str) -> Instant {
    match Timestamp::from(time).finite().filter(|instant| instant.in_range()) {
        Some(instant) => instant,
        None => failure(
            PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("\"{name}\" is not an instant of the years 1 to 9999"),
        )
        .raise(),
    }
}

/// Records the purchase of a pack and returns its id; the same key twice is one purchase.
#[pg_extern(sql = false)]
fn buy_pack(
    tenant: Option<&str>,
    pack: Option<&str>,
    purchase_key: Option<&str>,
    purchased_at: Option<TimestampWithTimeZone>,
) -> i64 {
    let tenant = tenant_key(tenant);
    let pack = required(pack, "pack");
    let purchased_at = instant(required(purchased_at, "purchased_at"), "purchased_at");
    if let Some(key) = purchase_key {
        short_enough(key, "purchase_key");
    }
    as_owner(|| {
        connected(|connection| {
            offers::known_pack(connection, pack);
            locks::tenants(connection, &[tenant]);
            match purchase_key.and_then(|key| purchased(connection, tenant, key)) {
                Some((id, bought)) if bought == pack => id,
                Some((id, bought)) => failure(
                    PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
                    format!("purchase_key \"{}\" is that of another purchase", purchase_key.unwrap_or_default()),
                )
                .detail(format!("It bought pack {id}, a \"{bought}\"."))
                .hint("Give each purchase a key of its own.")
                .raise(),
                None => purchase(connection, tenant, pack, purchase_key, purchased_at),
            }
        })
    })
}

const PURCHASED: &str = "
    SELECT p.pack_id, p.pack FROM talkmeter.pack AS p WHERE p.tenant = $1 AND p.purchase_key = $2";

fn purchased(connection: &Connection, tenant: &str, key: &str) -> Option<(i64, String)> {
    let rows = connection.run(PURCHASED, &[arg(tenant), arg(key)]);
    (rows.count() > 0).then(|| (rows.value(0, 1), rows.value(0, 2)))
}

const COUNT: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_pack_id) VALUES ($1, 1)
    ON CONFLICT (tenant) DO UPDATE SET last_pack_id = a.last_pack_id + 1
    RETURNING last_pack_id";

const PURCHASE: &str = "
    INSERT INTO talkmeter.pack (tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at,
        purchase_key)
    SELECT $1, $2, o.name, o.size, o.size, o.price, o.currency, $4,
        $4 + make_interval(secs => extract(epoch FROM o.valid_for)::float8), $5
    FROM talkmeter.pack_offer AS o
    WHERE o.name = $3";

fn purchase(connection: &Connection, tenant: &str, pack: &str, key: Option<&str>, at: Instant) -> i64 {
    let id: i64 = connection.run(COUNT, &[arg(tenant)]).value(0, 1);
    connection.run(PURCHASE, &[arg(tenant), arg(id), arg(pack), arg(Timestamp::from(at)), arg(key)]);
    id
}

/// The first instant of the billing month that holds `at`, for periods that start on `anchor_day` in UTC.
#[pg_extern(sql = false)]
fn period_start(at: TimestampWithTimeZone, anchor_day: i32) -> TimestampWithTimeZone {
    Timestamp::from(period_of(at, anchor_day).start).shown()
}

/// The first instant after the billing month that holds `at`.
#[pg_extern(sql = false)]
fn period_end(at: TimestampWithTimeZone, anchor_day: i32) -> TimestampWithTimeZone {
    Timestamp::from(period_of(at, anchor_day).end).shown()
}

fn period_of(at: TimestampWithTimeZone, anchor_day: i32) -> Period {
    let anchor_day = checked_anchor(anchor_day);
    period::period_of(instant(at, "at"), anchor_day).unwrap_or_else(|| {
        failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "the calendar ends before this period does").raise()
    })
}

fn checked_anchor(anchor_day: i32) -> u32 {
    if !(1..=31).contains(&anchor_day) {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("anchor_day {anchor_day} is no day of a month"),
        )
        .hint("Give a day from 1 to 31; in a shorter month periods start on its last day.")
        .raise();
    }
    anchor_day as u32
}

/// Digits after the point of a currency.
#[pg_extern(sql = false)]
fn currency_digits(currency: &str) -> i32 {
    money::digits(currency) as i32
}
