//! Which plan is a tenant on, and since when (rule 4.2)?

use crate::billing::account::{self, Books, Needed};
use crate::billing::post::post_waiting;
use crate::billing::subscription_rows::{NewSubscription, write};
use crate::calls::{self, journal};
use crate::catalog::args::{instant_or_now, required, short_enough, tenant_key};
use crate::catalog::offers::{self, known_policy};
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::sql::{Connection, arg};
use chrono::Datelike;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::json;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::near;
use talkmeter_engine::period;

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
    let since = instant_or_now(since, "since");
    let timezone = required(timezone, "timezone");
    let zone = known_zone(timezone);
    let anchor_day = anchor_day.unwrap_or_else(|| period::day_of(since, zone).map_or(1, |day| day.day() as i32));
    checked_anchor(anchor_day);
    offers::known_plan(plan);
    if let Some(policy) = policy {
        known_policy(policy);
    }
    let new = NewSubscription {
        since,
        plan: Some(plan.to_owned()),
        timezone: timezone.to_owned(),
        anchor_day,
        policy: policy.map(str::to_owned),
    };
    locked(tenant, since, |connection, books| {
        zone_may_change(connection, tenant, books, since, zone);
        anchor_may_change(connection, tenant, books, &new);
        let id = write(connection, tenant, &new, books.last_subscription_id);
        post_waiting(connection, tenant, since);
        let arguments = json!({"plan": plan, "since": journal::time(since), "timezone": timezone,
            "anchor_day": anchor_day, "policy": policy, "subscription_id": id});
        journal::note(connection, "subscribe", Some(tenant), arguments, None);
        id
    })
}

const LAST_OPENED: &str = "
    SELECT max(p.period_start) FROM talkmeter.period AS p WHERE p.tenant = $1 AND p.period_start >= $2";

/// Another zone takes effect when the current period ends; months that were opened after it cannot be divided anew.
fn zone_may_change(connection: &Connection, tenant: &str, books: &Books, since: Instant, zone: chrono_tz::Tz) {
    if books.account.subscriptions.iter().all(|known| known.calendar.zone == zone) {
        return;
    }
    let after = books.account.period_at(since).map_or(since, |current| current.end);
    let rows = connection.run(LAST_OPENED, &[arg(tenant), arg(Timestamp::from(after))]);
    let Some(opened) = rows.only().nullable::<Timestamp>().and_then(|opened| opened.bound().calendar()) else { return };
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the zone of tenant \"{tenant}\" cannot change before a month that was opened already"),
    )
    .detail(format!("Its last month starts at {}.", opened.to_rfc3339()))
    .hint("Give a since that is not before that, or keep the zone.")
    .raise()
}

const LAST_FROZEN: &str = "
    SELECT max(p.period_end) FROM talkmeter.period AS p
    WHERE p.tenant = $1 AND p.period_end > $2 AND p.finalized_at IS NOT NULL";

/// Another anchor day has months of its own: one that overlaps a frozen one would bill again what that has billed.
fn anchor_may_change(connection: &Connection, tenant: &str, books: &Books, new: &NewSubscription) {
    if books.account.subscriptions.iter().all(|known| known.calendar.anchor_day == new.anchor_day.unsigned_abs()) {
        return;
    }
    let rows = connection.run(LAST_FROZEN, &[arg(tenant), arg(Timestamp::from(new.since))]);
    let Some(end) = rows.only().nullable::<Timestamp>() else { return };
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the anchor day of tenant \"{tenant}\" cannot change within a month that is finalized"),
    )
    .detail(format!("Its last finalized month ends at {}.", end.bound().shown()))
    .hint("Give a since that is not before that, or keep the anchor day.")
    .raise()
}

/// Puts a tenant on another plan: an upgrade at once, anything else from the next period on. Returns the instant from
/// which the plan is in force.
#[pg_extern(sql = false)]
fn change_plan(tenant: Option<&str>, plan: Option<&str>, at: Option<TimestampWithTimeZone>) -> TimestampWithTimeZone {
    let tenant = tenant_key(tenant);
    let plan = required(plan, "plan");
    let at = instant_or_now(at, "at");
    offers::known_plan(plan);
    let since = locked(tenant, at, |connection, books| {
        let Some(current) = books.account.plan_at(at) else { no_plan(tenant) };
        let new = offers::plan(connection, plan);
        let since = match current.is_upgraded_by(&new) {
            true => at,
            false => books.account.period_at(at).map_or(at, |period| period.end),
        };
        change(connection, tenant, books, at, since, Some(plan.to_owned()));
        // It may overrule a cancelling, since which units wait.
        post_waiting(connection, tenant, since);
        let arguments = json!({"plan": plan, "at": journal::time(at), "in_force": journal::time(since)});
        journal::note(connection, "change_plan", Some(tenant), arguments, None);
        since
    });
    Timestamp::from(since).shown()
}

/// Takes a tenant off its plan from `at` on. Its packs stay.
#[pg_extern(sql = false)]
fn cancel(tenant: Option<&str>, at: Option<TimestampWithTimeZone>) {
    let tenant = tenant_key(tenant);
    let at = instant_or_now(at, "at");
    locked(tenant, at, |connection, books| {
        if books.account.plan_at(at).is_none() {
            no_plan(tenant);
        }
        change(connection, tenant, books, at, at, None);
        journal::note(connection, "cancel", Some(tenant), json!({"at": journal::time(at)}), None);
    });
}

fn no_plan(tenant: &str) -> ! {
    failure(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("tenant \"{tenant}\" is on no plan then"))
        .hint("Call talkmeter.subscribe.")
        .raise()
}

const TERMS: &str = "
    SELECT s.timezone, s.anchor_day, s.policy
    FROM talkmeter.subscription AS s
    WHERE s.tenant = $1 AND s.since <= $2
    ORDER BY s.subscription_id DESC
    LIMIT 1";

/// Replaces the plan, and keeps all other terms of the subscription in force at `at`.
fn change(connection: &Connection, tenant: &str, books: &Books, at: Instant, since: Instant, plan: Option<String>) {
    let rows = connection.run(TERMS, &[arg(tenant), arg(Timestamp::from(at))]);
    let mut row = rows.only();
    let new = NewSubscription { since, plan, timezone: row.value(), anchor_day: row.value(), policy: row.nullable() };
    write(connection, tenant, &new, books.last_subscription_id);
}

/// Does `work` on a tenant's books, locked, with the owner's rights.
fn locked<R>(tenant: &str, at: Instant, work: impl FnOnce(&Connection, &Books) -> R) -> R {
    calls::locked(tenant, |connection| work(connection, &account::read_one(tenant, &Needed::at(at))))
}

fn known_zone(name: &str) -> chrono_tz::Tz {
    short_enough(name, "timezone");
    period::zone_named(name).unwrap_or_else(|| {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" is not known"))
            .detail("Periods need the name of a zone, as the IANA database spells it.")
            .hint(match near::nearest(name, period::zones()) {
                Some(near) => format!("Perhaps you meant \"{near}\"."),
                None => "For example \"Europe/Berlin\" or \"UTC\".".to_owned(),
            })
            .raise()
    })
}

fn checked_anchor(anchor_day: i32) {
    if !(1..=31).contains(&anchor_day) {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("anchor_day {anchor_day} is no day of a month"),
        )
        .hint("Give a day from 1 to 31; in a shorter month periods start on its last day.")
        .raise();
    }
}
