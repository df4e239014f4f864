//! What is a tenant to be told of its usage (rule 4.5)? Alerts are rows, written with the charges that raise them.

use crate::billing::account::Books;
use crate::catalog::away::Away;
use crate::pg::clock::Timestamp;
use crate::pg::error::damaged;
use crate::pg::own_table::types::{BOOL, INT8, TEXT};
use crate::pg::own_table::{Access, OwnTable, Shape, with_newest};
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, OverRows, arg, column, connected, insert_rows};
use talkmeter_engine::alert::{is_low, is_reached, is_spike};
use talkmeter_engine::draw_down::Tier;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

/// A share of the allowance at which a tenant is told.
#[derive(Clone, Debug)]
pub struct Threshold {
    /// The kind of the alert.
    pub kind: String,
    pub percent: i64,
}

const THRESHOLD: Shape = Shape { name: c"threshold", types: &[TEXT, INT8, BOOL] };

/// Every share at which tenants are told, the lowest first.
pub fn thresholds() -> Vec<Threshold> {
    let table = OwnTable::open(&THRESHOLD, Access::Reading);
    let mut all = Vec::new();
    with_newest(|newest| {
        table.all(newest, |row| all.push(Threshold { kind: row.value(), percent: row.value() }));
    });
    all.sort_by(|a, b| (a.percent, &a.kind).cmp(&(b.percent, &b.kind)));
    all
}

/// An alert that is to be written.
pub struct Alert {
    tenant: String,
    period: Period,
    kind: String,
    detail: String,
}

/// A unit that was drawn, with what its period has used by then.
pub struct Drawn {
    pub at: Instant,
    pub tier: Tier,
    pub period: Period,
    pub used: i64,
    pub included: i64,
}

/// Adds to the units of the local day of an instant, and returns that day, counted from 1970-01-01.
pub fn count(books: &mut Books, at: Instant, units: i64) -> i32 {
    let day = books.account.day_of(at).unwrap_or_else(|| damaged("a charge is of no day of the calendar"));
    let of_day = books.days.entry(day).or_default();
    // What somebody wrote there by hand may be anything.
    *of_day = of_day.saturating_add(units);
    if units > 0 {
        books.first_day = Some(books.first_day.map_or(day, |first| first.min(day)));
    }
    day
}

/// The alerts that a drawn unit raises, each once per period.
pub fn raise(books: &mut Books, tenant: &str, drawn: &Drawn, thresholds: &[Threshold]) -> Vec<Alert> {
    let history_from = books.first_day;
    let day = count(books, drawn.at, 1);
    let reached = thresholds.iter().filter(|threshold| is_reached(drawn.used, drawn.included, threshold.percent));
    let mut raised: Vec<(String, String)> = reached
        .map(|threshold| (threshold.kind.clone(), format!("{} of {} included units used", drawn.used, drawn.included)))
        .collect();
    if let Tier::Pack(id) = drawn.tier {
        let (left, size) = books.account.packs_left(drawn.at, id);
        if is_low(left, size) {
            raised.push(("pack_low".into(), format!("{left} of {size} units left in packs")));
        }
    }
    let units = |day: i32| books.days.get(&day).copied().unwrap_or(0);
    let week = (day - 7..day).map(units).fold(0, i64::saturating_add);
    if history_from.is_some_and(|first| first < day - 7) && is_spike(units(day), week) {
        raised
            .push(("volume_spike".into(), format!("{} units on the day, {week} on the seven days before", units(day))));
    }
    let alerted = books.alerted.entry(drawn.period).or_default();
    raised.retain(|(kind, _)| alerted.insert(kind.clone()));
    let alert = |(kind, detail)| Alert { tenant: tenant.to_owned(), period: drawn.period, kind, detail };
    raised.into_iter().map(alert).collect()
}

const WRITE: OverRows = insert_rows!(
    "talkmeter.alert",
    [
        1 tenant text, 2 period_start timestamptz, 3 period_end timestamptz, 4 kind text, 5 detail text, 6 muted bool
    ],
    "ON CONFLICT DO NOTHING"
);

/// Writes alerts; those that are muted are never sent.
pub fn write(connection: &Connection, alerts: &[Alert], are_muted: bool) {
    if alerts.is_empty() {
        return;
    }
    connection.run_over(
        &WRITE,
        alerts.len(),
        &[
            column(alerts, |alert| alert.tenant.as_str()),
            column(alerts, |alert| Timestamp::from(alert.period.start)),
            column(alerts, |alert| Timestamp::from(alert.period.end)),
            column(alerts, |alert| alert.kind.as_str()),
            column(alerts, |alert| alert.detail.as_str()),
            column(alerts, |_| are_muted),
        ],
    );
}

// One at a time may be sending: two sweeps wake for each alert once. A full queue would fail the sweep when it commits,
// and anybody may fill it: then alerts wait.
const SEND: &str = "
    WITH unsent AS (
        SELECT a.tenant, a.period_start, a.period_end, a.kind, a.day
        FROM talkmeter.alert AS a
        WHERE a.notified_at IS NULL AND NOT a.muted AND pg_notification_queue_usage() < 0.9
            AND NOT a.tenant = ANY ($1)
        ORDER BY a.fired_at
        LIMIT 1000
        FOR UPDATE SKIP LOCKED
    ), stamped AS (
        UPDATE talkmeter.alert AS a SET notified_at = clock_timestamp()
        FROM unsent AS u
        WHERE a.tenant = u.tenant AND a.period_start = u.period_start AND a.period_end = u.period_end
            AND a.kind = u.kind AND a.day = u.day
        RETURNING a.tenant
    )
    SELECT pg_notify('talkmeter_alerts', '') FROM (SELECT count(*) AS alerts FROM stamped) AS s WHERE s.alerts > 0";

/// Wakes who listens for the alerts that are not sent yet, when the transaction commits. Anybody may listen, so the
/// notification says nothing (rule 4.5.9).
pub fn send() {
    as_owner(|| {
        let away = Away::by_now().names();
        connected(|connection| while connection.run(SEND, &[arg(away.clone())]).count() > 0 {});
    });
}
