//! What if a tenant does not agree with a charge (rule 4.6)?

use crate::billing::account::{self, Needed};
use crate::billing::charge_rows::known_standing;
use crate::billing::post;
use crate::calls::{journal, own, under};
use crate::catalog::args::{required, tenant_key};
use crate::catalog::away::must_be_here;
use crate::pg::clock::{self, Day, Timestamp};
use crate::pg::error::failure;
use crate::pg::locks::{self, Tenants};
use crate::pg::rights::must_write;
use crate::pg::sql::{Connection, arg};
use pgrx::prelude::*;
use serde_json::json;
use std::collections::HashSet;
use talkmeter_engine::period;

/// Business days after that of the filing at whose end a dispute is due.
const BUSINESS_DAYS: u32 = 10;

/// Bytes that a reason may have: tenants write them too.
const LONGEST_REASON: usize = 10_000;

/// Does `work`, with the owner's rights, while the tenant's disputes are locked, until the transaction ends. It is an
/// error if the tenant's books are not here.
fn with_disputes<R>(tenant: &str, work: impl FnOnce(&Connection) -> R) -> R {
    let lock = |connection: &Connection| {
        locks::disputes(connection, tenant);
        must_be_here(tenant);
    };
    under(lock, work)
}

/// Takes back a charge by hand, and returns the id of the entry that does.
#[pg_extern(sql = false)]
fn credit(tenant: Option<&str>, charge_id: Option<i64>, note: Option<&str>) -> i64 {
    let tenant = tenant_key(tenant);
    let (charge_id, note) = (required(charge_id, "charge_id"), required(note, "note"));
    with_disputes(tenant, |connection| {
        not_disputed(connection, tenant, charge_id);
        Tenants::begin().lock(connection, &[tenant]);
        let entry = post::credit(connection, tenant, charge_id, note);
        let arguments = json!({"charge_id": charge_id, "reversed_by": entry});
        journal::note(connection, "credit", Some(tenant), arguments, Some(note));
        entry
    })
}

/// Files a dispute about a charge, and returns its id.
#[pg_extern(sql = false)]
fn dispute(tenant: Option<&str>, charge_id: Option<i64>, reason: Option<&str>) -> i64 {
    let tenant = tenant_key(tenant);
    let (charge_id, reason) = (required(charge_id, "charge_id"), required(reason, "reason"));
    with_disputes(tenant, |connection| file(connection, tenant, charge_id, reason))
}

/// Files a dispute about a charge of the caller's own tenant, and returns its id.
#[pg_extern(sql = false)]
fn my_dispute(charge_id: Option<i64>, reason: Option<&str>, tenant: Option<&str>) -> i64 {
    must_write("my_dispute");
    let (charge_id, reason) = (required(charge_id, "charge_id"), required(reason, "reason"));
    let tenant = own::acting_for(tenant);
    with_disputes(&tenant, |connection| file(connection, &tenant, charge_id, reason))
}

const CHARGE_OF_PART: &str = "
    SELECT c.charge_id
    FROM talkmeter.standing_charge AS c
    WHERE c.tenant = $1 AND c.conversation = $2 AND c.part = $3";

/// Files a dispute about the charge of a part, and returns its id.
#[pg_extern(sql = false)]
fn dispute_part(tenant: Option<&str>, conversation: Option<&str>, part: Option<i32>, reason: Option<&str>) -> i64 {
    let tenant = tenant_key(tenant);
    let (conversation, part) = (required(conversation, "conversation"), required(part, "part"));
    let reason = required(reason, "reason");
    with_disputes(tenant, |connection| {
        let rows = connection.run(CHARGE_OF_PART, &[arg(tenant), arg(conversation), arg(part)]);
        let Some(mut row) = rows.first() else {
            failure(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("part {part} of conversation \"{conversation}\" is not charged"),
            )
            .detail("Only what is billed can be disputed.")
            .hint("See talkmeter.parts for why it is not billed.")
            .raise();
        };
        file(connection, tenant, row.value(), reason)
    })
}

const OPEN: &str = "
    SELECT d.dispute_id FROM talkmeter.dispute_filed AS d
    WHERE d.tenant = $1 AND d.charge_id = $2 AND d.state = 'open'";

fn not_disputed(connection: &Connection, tenant: &str, charge_id: i64) {
    let rows = connection.run(OPEN, &[arg(tenant), arg(charge_id)]);
    if let Some(mut row) = rows.first() {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("charge {charge_id} of tenant \"{tenant}\" is disputed"),
        )
        .detail(format!("Dispute {} about it is open.", row.value::<i64>()))
        .hint("Call talkmeter.resolve_dispute.")
        .raise();
    }
}

const COUNT: &str = "
    UPDATE talkmeter.dispute_count AS n SET last_dispute_id = n.last_dispute_id + 1 WHERE n.tenant = $1
    RETURNING last_dispute_id";

const FILE: &str = "
    INSERT INTO talkmeter.dispute_filed (tenant, dispute_id, charge_id, reason, due_at, filed_at)
    VALUES ($1, $2, $3, $4, $5, $6)";

// Nobody is off for a year. However many days somebody has filled in, the search for a business day is bounded.
const HOLIDAYS: &str = "
    SELECT h.day
    FROM talkmeter.holidays AS h
    WHERE h.day BETWEEN $1 - 2 AND $1 + 366";

fn file(connection: &Connection, tenant: &str, charge_id: i64, reason: &str) -> i64 {
    if reason.len() > LONGEST_REASON {
        failure(PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION, "the reason is too long")
            .detail(format!("It is {} bytes long, and may be {LONGEST_REASON}.", reason.len()))
            .raise();
    }
    known_standing(connection, tenant, charge_id);
    not_disputed(connection, tenant, charge_id);
    let now = clock::now();
    let books = account::read_one(tenant, &Needed::at(now));
    let today = period::day_number(now, Default::default()).expect("a day of the calendar");
    let rows = connection.run(HOLIDAYS, &[arg(Day(today))]);
    let holidays: HashSet<i32> = rows.iter().map(|mut row| row.value::<Day>().0).collect();
    let due = period::end_of_business_day(now, books.account.zone_at(now), BUSINESS_DAYS, |day| {
        holidays.contains(&day.to_epoch_days())
    });
    let id: i64 = connection.run(COUNT, &[arg(tenant)]).only().value();
    let due = due.expect("the calendar goes on for more than a month");
    connection.run(
        FILE,
        &[arg(tenant), arg(id), arg(charge_id), arg(reason), arg(Timestamp::from(due)), arg(Timestamp::from(now))],
    );
    let arguments = json!({"charge_id": charge_id, "dispute_id": id});
    journal::note(connection, "dispute", Some(tenant), arguments, Some(reason));
    id
}

const FILED: &str = "
    SELECT d.charge_id, d.state FROM talkmeter.dispute_filed AS d WHERE d.tenant = $1 AND d.dispute_id = $2";

const RESOLVE: &str = "
    UPDATE talkmeter.dispute_filed AS d
    SET state = $3, note = $4, resolved_at = $5, resolved_by = session_user
    WHERE d.tenant = $1 AND d.dispute_id = $2";

/// Ends a dispute: `credited` takes the charge back, `rejected` lets it stand.
#[pg_extern(sql = false)]
fn resolve_dispute(tenant: Option<&str>, dispute_id: Option<i64>, resolution: Option<&str>, note: Option<&str>) {
    let tenant = tenant_key(tenant);
    let dispute_id = required(dispute_id, "dispute_id");
    let resolution = required(resolution, "resolution");
    if !matches!(resolution, "credited" | "rejected") {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{resolution}\" is no resolution of a dispute"),
        )
        .hint("It is 'credited' or 'rejected'.")
        .raise();
    }
    with_disputes(tenant, |connection| {
        let rows = connection.run(FILED, &[arg(tenant), arg(dispute_id)]);
        let Some(mut row) = rows.first() else {
            failure(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("tenant \"{tenant}\" has no dispute {dispute_id}"),
            )
            .hint("See talkmeter.disputes.")
            .raise();
        };
        let (charge_id, state): (i64, String) = (row.value(), row.value());
        if state != "open" {
            failure(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("dispute {dispute_id} of tenant \"{tenant}\" is {state}"),
            )
            .raise();
        }
        if resolution == "credited" {
            Tenants::begin().lock(connection, &[tenant]);
            post::credit(connection, tenant, charge_id, note.unwrap_or_default());
        }
        let now = arg(Timestamp::from(clock::now()));
        connection.run(RESOLVE, &[arg(tenant), arg(dispute_id), arg(resolution), arg(note), now]);
        let arguments = json!({"dispute_id": dispute_id, "charge_id": charge_id, "resolution": resolution});
        journal::note(connection, "resolve_dispute", Some(tenant), arguments, note);
    });
}
