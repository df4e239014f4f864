//! How does a billing month end (rule 4.6)? Swept, and its statement frozen.

use crate::billing::known_period;
use crate::calls::{journal, locked, sweep};
use crate::catalog::args::{instant, required, tenant_key};
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::failure;
use crate::pg::sql::{Connection, arg};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use serde_json::json;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

/// Sweeps, and then freezes a period that is over. What is posted for it later is listed by the period that is open
/// then.
#[pg_extern(sql = false)]
fn finalize(tenant: Option<&str>, period_start: Option<TimestampWithTimeZone>) {
    let tenant = tenant_key(tenant);
    let start = instant(required(period_start, "period_start"), "period_start");
    sweep::end_of_tenant(tenant, clock::now());
    locked(tenant, |connection| {
        let digest = freeze(connection, tenant, period_to_freeze(connection, tenant, start));
        let arguments = json!({"period_start": journal::time(start), "digest": digest});
        journal::note(connection, "finalize", Some(tenant), arguments, None);
    });
}

/// A period that is over and not frozen.
fn period_to_freeze(connection: &Connection, tenant: &str, start: Instant) -> Period {
    let (books, period) = known_period::starting(connection, tenant, start);
    if period.end > clock::now() {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the period of tenant \"{tenant}\" that starts at {} is not over", start.shown()),
        )
        .detail(format!("It ends at {}.", period.end.shown()))
        .raise();
    }
    if books.account.used.get(&period).is_some_and(|usage| usage.is_finalized) {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the period of tenant \"{tenant}\" that starts at {} is finalized already", start.shown()),
        )
        .hint("See talkmeter.statement.")
        .raise();
    }
    must_be_billed(connection, tenant, period);
    period
}

const BILLED: &str = "
    SELECT bool_or((m.period_start, m.period_end) = ($2, $3)), min(m.period_start) FROM talkmeter.months_of($1) AS m";

/// Refuses a period before a tenant was first billed: frozen by a slip of the pen, it would be so for ever, and all
/// months after it would be billed too.
fn must_be_billed(connection: &Connection, tenant: &str, period: Period) {
    let rows =
        connection.run(BILLED, &[arg(tenant), arg(Timestamp::from(period.start)), arg(Timestamp::from(period.end))]);
    let mut row = rows.only();
    let (is_billed, first): (Option<bool>, Option<Timestamp>) = (row.nullable(), row.nullable());
    if is_billed == Some(true) {
        return;
    }
    let refused = failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the period of tenant \"{tenant}\" that starts at {} is not billed", period.start.shown()),
    );
    match first {
        Some(first) => refused.detail(format!("The first that is starts at {}.", first.bound().shown())),
        None => refused.detail("None is, so far."),
    }
    .hint("See talkmeter.bills.")
    .raise()
}

const LINES: &str = "
    INSERT INTO talkmeter.statement_line (tenant, period_start, period_end, line, kind, of_period_start, description,
        quantity, unit_price, amount, currency)
    SELECT $1, $2, $3, l.line, l.kind, l.of_period_start, l.description, l.quantity, l.unit_price, l.amount, l.currency
    FROM talkmeter.statement_lines($1, $2, $3) AS l";

const COUNT: &str = "
    UPDATE talkmeter.account AS a SET last_finalization = a.last_finalization + 1 WHERE a.tenant = $1";

// The digest covers the row itself, and so comes after it.
const CLOSE: &str = "
    INSERT INTO talkmeter.period AS p (tenant, period_start, period_end, included_used, pack_used, overage_units,
        overage_amount, finalized_at, finalized_by, finalization, last_charge_id, last_subscription_id, last_pack_id,
        digest)
    SELECT $1, $2, $3, 0, 0, 0, 0, $4, session_user, a.last_finalization, a.last_charge_id,
        a.last_subscription_id, a.last_pack_id, ''
    FROM talkmeter.account AS a
    WHERE a.tenant = $1
    ON CONFLICT (tenant, period_start, period_end) DO UPDATE
    SET finalized_at = excluded.finalized_at, finalized_by = excluded.finalized_by,
        finalization = excluded.finalization, last_charge_id = excluded.last_charge_id,
        last_subscription_id = excluded.last_subscription_id, last_pack_id = excluded.last_pack_id,
        digest = excluded.digest";

const PROVE: &str = "
    UPDATE talkmeter.period AS p
    SET digest = (
        SELECT talkmeter.chain(e.content ORDER BY e.line)
        FROM talkmeter.evidence_lines(p.tenant, p.period_start, p.period_end) AS e)
    WHERE p.tenant = $1 AND p.period_start = $2 AND p.period_end = $3
    RETURNING encode(p.digest, 'hex')";

/// Freezes a period, and returns what proves it, in hexadecimal digits.
fn freeze(connection: &Connection, tenant: &str, period: Period) -> String {
    let key = || [arg(tenant), arg(Timestamp::from(period.start)), arg(Timestamp::from(period.end))];
    connection.run(LINES, &key());
    connection.run(COUNT, &[arg(tenant)]);
    connection.run(CLOSE, &[&key()[..], &[arg(Timestamp::from(clock::now()))]].concat());
    connection.run(PROVE, &key()).only().value()
}
