//! Does what was charged on a day agree with the messages, and with what somebody else counted (rule 4.6)?

use crate::billing::account::{self, Needed};
use crate::calls::{journal, sweep, sweepers};
use crate::catalog::args::{self, required, tenant_key};
use crate::catalog::away::{Away, must_be_here};
use crate::meter::batch::BATCH;
use crate::pg::clock::{self, Day, Timestamp};
use crate::pg::error::failure;
use crate::pg::locks;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, arg, connected};
use crate::reports::recount;
use pgrx::JsonB;
use pgrx::datum::Date;
use pgrx::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use talkmeter_engine::alert::is_off;
use talkmeter_engine::draw_down::Account;
use talkmeter_engine::instant::{DAY, Instant};
use talkmeter_engine::part::Part;
use talkmeter_engine::period::{self, Period};

/// A local day may begin and end this much from that of UTC.
const ASTRAY: i64 = DAY;

/// Compares, for each tenant, what was charged on a local day with a recount and with what was reported, records the
/// result and returns how many days of tenants are flagged.
#[pg_extern(sql = false)]
fn reconcile(day: Option<Date>) -> i64 {
    let day = args::day(required(day, "day"), "day");
    sweep::end_what_has_ended("reconcile", clock::now());
    as_owner(|| {
        connected(|connection| {
            let (days, is_over) = days(connection, day);
            if days.is_empty() && !is_over {
                failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "\"day\" is not over")
                    .hint("Give one that is over in the zone of each tenant: until 12:00 UTC, that is not yesterday.")
                    .raise();
            }
            compare(connection, day, days)
        })
    })
}

const ZONES: &str = "SELECT DISTINCT s.timezone FROM talkmeter.subscription AS s";

/// Days back from the last that is over within which the worker makes up for what it has missed.
const MADE_UP_FOR: i32 = 7;

/// The next day for the worker to reconcile: over in the zones of all tenants, and not reconciled by it before.
pub fn next_of_worker(connection: &Connection) -> Option<Day> {
    let now = clock::now();
    let rows = connection.run(ZONES, &[]);
    let named: Vec<String> = rows.iter().map(|mut row| row.value()).collect();
    let zones = named.iter().map(|name| period::zone_named(name).unwrap_or_default());
    let first_to_end = zones.filter_map(|zone| period::day_number(now, zone)).min()?;
    // In UTC too, as of a tenant that has no subscription yet.
    let last = first_to_end.min(period::day_number(now, Default::default())?) - 1;
    let next = sweepers::last_reconciled(connection).map_or(last, |day| (day.0 + 1).max(last - MADE_UP_FOR + 1));
    (next <= last).then_some(Day(next))
}

/// Compares a day that is over, as `reconcile` does once it has swept, and notes that the worker has.
pub fn by_worker(connection: &Connection, day: Day) {
    let (days, _) = days(connection, day);
    compare(connection, day, days);
    sweepers::has_reconciled(connection, day);
}

/// Recounts, records, and returns how many tenants are flagged.
fn compare(connection: &Connection, day: Day, mut days: BTreeMap<String, Counts>) -> i64 {
    recount(day, &mut days);
    leave_out_uncharged(connection, day, &mut days);
    let flagged = days.values().filter(|counts| counts.is_flagged()).count() as i64;
    record(connection, day, &days);
    flagged
}

/// The first instant of that day in UTC.
fn in_utc(day: Day) -> Instant {
    Instant(i64::from(day.0) * DAY)
}

/// What was counted of a tenant's day.
struct Counts {
    day: Day,
    /// Says in which local day an instant lies.
    account: Account,
    charged: i64,
    recounted: i64,
    /// Charged units whose rows are gone.
    unprovable: i64,
    external: Option<i64>,
}

impl Counts {
    fn holds(&self, at: Instant) -> bool {
        self.account.day_of(at) == Some(self.day.0)
    }

    /// About when the day is: a zone that changes within it makes it longer or shorter.
    fn bounds(&self) -> Period {
        let midday = in_utc(self.day).plus(DAY / 2);
        period::day_bounds(self.day.0, self.account.zone_at(midday)).expect("a day in range")
    }

    fn is_flagged(&self) -> bool {
        let recounted = self.recounted + self.unprovable;
        let off = |external| is_off(self.charged, external) || is_off(recounted, external);
        is_off(self.charged, recounted) || self.external.is_some_and(off)
    }
}

const TENANTS: &str = "
    SELECT l.tenant, (SELECT e.units FROM talkmeter.external_count AS e
        WHERE e.tenant = l.tenant AND e.day = $1)
    FROM (
        SELECT a.tenant FROM talkmeter.account AS a
        UNION SELECT c.tenant FROM talkmeter.external_count AS c WHERE c.day = $1
    ) AS l
    WHERE NOT l.tenant = ANY ($2)
    ORDER BY l.tenant";

// A charge whose instant has moved within its period stays as it was posted, so the part says when it is. What was
// credited is never charged again: it counts as often as the recount will, as long as its part is billable.
const CHARGED: &str = "
    SELECT c.tenant, COALESCE(p.charged_at, c.charged_at)
    FROM talkmeter.charge AS c
    LEFT JOIN talkmeter.part AS p ON p.tenant = c.tenant AND p.conversation = c.conversation AND p.part = c.part
    LEFT JOIN talkmeter.charge AS r ON r.tenant = c.tenant AND r.reverses = c.charge_id
    WHERE COALESCE(p.charged_at, c.charged_at) >= $1 AND COALESCE(p.charged_at, c.charged_at) < $2
        AND c.reverses IS NULL AND CASE r.reason WHEN 'credit' THEN p.charged_at IS NOT NULL
            ELSE r.charge_id IS NULL AND c.period_start < $2 AND c.period_end > $1 END";

/// The days of all tenants that have an account or a reported count, with what was charged, and whether it is over
/// everywhere. A tenant in whose zone it is not is left out: a later call will do; and so is one whose books are not
/// here.
fn days(connection: &Connection, day: Day) -> (BTreeMap<String, Counts>, bool) {
    let utc = in_utc(day);
    let rows = connection.run(TENANTS, &[arg(day), arg(Away::by_now().names())]);
    let external: BTreeMap<String, Option<i64>> = rows.iter().map(|mut row| (row.value(), row.nullable())).collect();
    let mut days = BTreeMap::new();
    let now = clock::now();
    let mut is_over = utc.plus(DAY) <= now;
    let tenants: Vec<&str> = external.keys().map(String::as_str).collect();
    for some in tenants.chunks(BATCH) {
        let mut all = account::read(some, &Needed::at(utc));
        for tenant in some {
            let account = all.remove(*tenant).unwrap_or_default().account;
            let external = external[*tenant];
            let counts = Counts { day, account, charged: 0, recounted: 0, unprovable: 0, external };
            match counts.account.day_of(now).is_some_and(|today| day.0 < today) {
                true => drop(days.insert((*tenant).to_owned(), counts)),
                false => is_over = false,
            }
        }
    }
    let span = [arg(Timestamp::from(utc.plus(-ASTRAY))), arg(Timestamp::from(utc.plus(DAY + ASTRAY)))];
    let rows = connection.run(CHARGED, &span);
    for mut row in rows.iter() {
        let (tenant, at): (String, Timestamp) = (row.value(), row.value());
        if let Some(counts) = days.get_mut(&tenant).filter(|counts| counts.holds(at.bound())) {
            counts.charged += 1;
        }
    }
    (days, is_over)
}

/// Counts the units of the day that the messages give.
fn recount(day: Day, days: &mut BTreeMap<String, Counts>) {
    let utc = in_utc(day);
    let span = Period { start: utc.plus(-ASTRAY), end: utc.plus(DAY + ASTRAY) };
    let tenants: BTreeSet<String> = days.keys().cloned().collect();
    recount::conversations(
        "reconcile",
        span,
        None,
        |tenant| tenants.contains(tenant),
        |some| {
            for recounted in some {
                let counts = days.get_mut(recounted.key.0).expect("a tenant of the day");
                // A unit without a plan waits, and is not charged.
                let on_day = |at: Instant| counts.holds(at) && counts.account.plan_at(at).is_some();
                let units =
                    recounted.parts.iter().filter_map(Part::charge_instant).filter(|at| on_day(*at)).count() as i64;
                match recounted.is_unprovable {
                    true => counts.unprovable += units,
                    false => counts.recounted += units,
                }
            }
        },
    );
}

const UNCHARGED: &str = "
    SELECT u.tenant, u.charged_at FROM talkmeter.uncharged_unit AS u WHERE u.charged_at >= $1 AND u.charged_at < $2";

/// A unit that waits for a backfill to charge it is not charged either.
fn leave_out_uncharged(connection: &Connection, day: Day, days: &mut BTreeMap<String, Counts>) {
    let utc = in_utc(day);
    let span = [arg(Timestamp::from(utc.plus(-ASTRAY))), arg(Timestamp::from(utc.plus(DAY + ASTRAY)))];
    for mut row in connection.run(UNCHARGED, &span).iter() {
        let (tenant, at): (String, Timestamp) = (row.value(), row.value());
        let planned = |counts: &&mut Counts| {
            counts.holds(at.bound()) && counts.account.plan_at(at.bound()).is_some() && counts.recounted > 0
        };
        if let Some(counts) = days.get_mut(&tenant).filter(planned) {
            counts.recounted -= 1;
        }
    }
}

const RECORD: &str = "
    INSERT INTO talkmeter.reconciliation AS r (tenant, day, charged, recounted, unprovable, external, flagged)
    SELECT u.tenant, $1, u.charged, u.recounted, u.unprovable, u.external, u.flagged
    FROM unnest($2::text[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::bool[])
        AS u (tenant, charged, recounted, unprovable, external, flagged)
    ON CONFLICT (tenant, day) DO UPDATE
    SET charged = excluded.charged, recounted = excluded.recounted, unprovable = excluded.unprovable,
        external = excluded.external, flagged = excluded.flagged, reconciled_at = clock_timestamp(),
        -- A review holds as long as the counts that were reviewed do.
        reviewed_at = CASE WHEN (r.charged, r.recounted, r.unprovable, r.external)
            IS NOT DISTINCT FROM (excluded.charged, excluded.recounted, excluded.unprovable, excluded.external)
            THEN r.reviewed_at END,
        reviewed_by = CASE WHEN (r.charged, r.recounted, r.unprovable, r.external)
            IS NOT DISTINCT FROM (excluded.charged, excluded.recounted, excluded.unprovable, excluded.external)
            THEN r.reviewed_by END";

// The review of other counts than those that are there now, which recording them would forget.
const REVIEWED: &str = "
    SELECT r.tenant, jsonb_build_object('charged', r.charged, 'recounted', r.recounted, 'unprovable', r.unprovable,
        'external', r.external, 'reviewed_at', r.reviewed_at, 'reviewed_by', r.reviewed_by)
    FROM unnest($2::text[], $3::int8[], $4::int8[], $5::int8[], $6::int8[])
        AS u (tenant, charged, recounted, unprovable, external)
    JOIN talkmeter.reconciliation AS r ON r.tenant = u.tenant AND r.day = $1
    WHERE r.reviewed_at IS NOT NULL AND (r.charged, r.recounted, r.unprovable, r.external)
        IS DISTINCT FROM (u.charged, u.recounted, u.unprovable, u.external)
    FOR UPDATE OF r";

const ALERT: &str = "
    INSERT INTO talkmeter.alert AS a (tenant, period_start, period_end, kind, day, detail)
    SELECT r.tenant, COALESCE(p.period_start, d.day_start), COALESCE(p.period_end, d.day_end), 'reconcile', r.day,
        format('%s charged, %s recounted, %s unprovable, %s reported', r.charged, r.recounted, r.unprovable,
            COALESCE(r.external::text, 'none'))
    FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS d (tenant, day_start, day_end)
    JOIN talkmeter.reconciliation AS r ON r.tenant = d.tenant
    LEFT JOIN LATERAL talkmeter.period_at(r.tenant, d.day_start) AS p ON true
    WHERE r.day = $1 AND r.flagged AND NOT EXISTS (
        SELECT FROM talkmeter.alert AS o WHERE o.tenant = r.tenant AND o.kind = 'reconcile' AND o.day = r.day)
    ON CONFLICT DO NOTHING";

fn record(connection: &Connection, day: Day, days: &BTreeMap<String, Counts>) {
    let all: Vec<(&String, &Counts)> = days.iter().collect();
    for some in all.chunks(BATCH) {
        let counts = |count: fn(&Counts) -> i64| arg(some.iter().map(|(_, own)| count(own)).collect::<Vec<_>>());
        let counted = || {
            vec![
                arg(day),
                arg(some.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>()),
                counts(|own| own.charged),
                counts(|own| own.recounted),
                counts(|own| own.unprovable),
                arg(some.iter().map(|(_, own)| own.external).collect::<Vec<_>>()),
            ]
        };
        for mut row in connection.run(REVIEWED, &counted()).iter() {
            let (tenant, JsonB(replaced)): (String, _) = (row.value(), row.value());
            let arguments = json!({"day": shown(connection, day), "replaced": replaced});
            journal::note(connection, "reconcile", Some(&tenant), arguments, None);
        }
        let flagged = arg(some.iter().map(|(_, own)| own.is_flagged()).collect::<Vec<_>>());
        connection.run(RECORD, &counted().into_iter().chain([flagged]).collect::<Vec<_>>());
    }
    let flagged: Vec<(&String, &Counts)> = all.into_iter().filter(|(_, own)| own.is_flagged()).collect();
    let times = |time: fn(Period) -> Instant| {
        arg(flagged.iter().map(|(_, own)| Timestamp::from(time(own.bounds()))).collect::<Vec<_>>())
    };
    let tenants = arg(flagged.iter().map(|(tenant, _)| tenant.as_str()).collect::<Vec<_>>());
    connection.run(ALERT, &[arg(day), tenants, times(|day| day.start), times(|day| day.end)]);
}

// Locked, so that of two reports at once each tells which one it replaced.
const REPORTED: &str = "
    SELECT jsonb_build_object('units', e.units, 'at', e.reported_at, 'by', e.reported_by)
    FROM talkmeter.external_count AS e
    WHERE e.tenant = $1 AND e.day = $2
    FOR UPDATE";

const SHOWN: &str = "SELECT to_jsonb($1::date)";

/// A day as an argument in the journal.
fn shown(connection: &Connection, day: Day) -> Value {
    let JsonB(shown) = connection.run(SHOWN, &[arg(day)]).only().value();
    shown
}

const REPORT: &str = "
    INSERT INTO talkmeter.external_count AS e (tenant, day, units) VALUES ($1, $2, $3)
    ON CONFLICT (tenant, day) DO UPDATE
    SET units = excluded.units, reported_at = clock_timestamp(), reported_by = session_user";

/// Notes what somebody else has counted on a tenant's local day; a later report replaces an earlier one.
#[pg_extern(sql = false)]
fn report_external(tenant: Option<&str>, day: Option<Date>, units: Option<i64>) {
    let tenant = tenant_key(tenant);
    let (day, units) = (args::day(required(day, "day"), "day"), required(units, "units"));
    if units < 0 {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"units\" is negative")
            .hint("Give the units of that day, 0 or more.")
            .raise();
    }
    as_owner(|| {
        connected(|connection| {
            locks::for_writing(&[c"external_count"]);
            must_be_here(tenant);
            let rows = connection.run(REPORTED, &[arg(tenant), arg(day)]);
            let replaced: Option<JsonB> = rows.first().map(|mut row| row.value());
            connection.run(REPORT, &[arg(tenant), arg(day), arg(units)]);
            let mut arguments = json!({"day": shown(connection, day), "units": units});
            if let Some(JsonB(replaced)) = replaced {
                arguments["replaced"] = replaced;
            }
            journal::note(connection, "report_external", Some(tenant), arguments, None);
        })
    });
}

const REVIEW: &str = "
    UPDATE talkmeter.reconciliation AS r SET reviewed_at = clock_timestamp(), reviewed_by = session_user
    WHERE r.tenant = $1 AND r.day = $2";

/// Notes that somebody has looked at a tenant's reconciled day.
#[pg_extern(sql = false)]
fn review(tenant: Option<&str>, day: Option<Date>) {
    let tenant = tenant_key(tenant);
    let day = args::day(required(day, "day"), "day");
    let reviewed = as_owner(|| {
        connected(|connection| {
            locks::for_writing(&[c"reconciliation"]);
            must_be_here(tenant);
            let reviewed = connection.run(REVIEW, &[arg(tenant), arg(day)]).count();
            if reviewed > 0 {
                journal::note(connection, "review", Some(tenant), json!({"day": shown(connection, day)}), None);
            }
            reviewed
        })
    });
    if reviewed == 0 {
        failure(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("that day of tenant \"{tenant}\" was never reconciled"),
        )
        .hint("Call talkmeter.reconcile.")
        .raise();
    }
}
