//! How does a vendor add a policy, a plan, a pack (rules 3.3, 4.1)? Which keys a definition has, the engine says.

use crate::calls::journal;
use crate::catalog::cache;
use crate::pg::clock::{self, Timestamp};
use crate::pg::document;
use crate::pg::error::{Failure, failure};
use crate::pg::rights::as_owner;
use crate::pg::sql::{Arg, Connection, arg, connected};
use crate::pg::subtransaction::{self, attempt};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{AnyElement, JsonB};
use serde_json::json;
use talkmeter_engine::definition::DefinitionRow;
use talkmeter_engine::flaw::Flaw;
use talkmeter_engine::offer::{PackDefinition, PlanDefinition};
use talkmeter_engine::policy::Policy;

/// What was read of a definition, or the error that names what is wrong with it.
fn sound<T>(read: Result<T, Flaw>) -> T {
    read.unwrap_or_else(|flaw| Failure::from(flaw).raise())
}

const MICROS: &str = "
    SELECT extract(month FROM $1::interval) = 0 AND extract(year FROM $1::interval) = 0,
        abs(extract(epoch FROM $1::interval)) < 315576000000,
        (greatest(least(extract(epoch FROM $1::interval), 315576000000), -315576000000) * 1000000)::int8";

/// Microseconds of an interval, whose days have 24 hours; months have no length of their own.
fn micros(interval: &str, key: &str) -> i64 {
    let read = attempt(|| {
        connected(|connection| {
            let rows = connection.run(MICROS, &[arg(interval)]);
            let mut row = rows.only();
            (row.value(), row.value(), row.value())
        })
    });
    let (is_without_months, is_within_time, micros): (bool, bool, i64) =
        read.unwrap_or_else(|error| no_interval(*error, interval, key));
    if !is_without_months {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{key}\" is {interval}, and months have no length of their own"),
        )
        .hint("Write it in days or less, for example \"90 days\".")
        .raise();
    }
    if !is_within_time {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{key}\" is {interval}, longer than time is"),
        )
        .hint("Instants that can be metered are of the years 1 to 9999.")
        .raise();
    }
    micros
}

/// Raises the error that the server reads no interval from a text, or whatever else has ended the reading.
fn no_interval(error: CaughtError, interval: &str, key: &str) -> ! {
    use PgSqlErrorCode::{
        ERRCODE_DATETIME_FIELD_OVERFLOW, ERRCODE_INTERVAL_FIELD_OVERFLOW, ERRCODE_INVALID_DATETIME_FORMAT,
    };
    let of_text = [ERRCODE_INVALID_DATETIME_FORMAT, ERRCODE_INTERVAL_FIELD_OVERFLOW, ERRCODE_DATETIME_FIELD_OVERFLOW];
    if !of_text.contains(&subtransaction::code(&error)) {
        error.rethrow()
    }
    let hint = match key {
        "valid_for" => "Write it in days or less, for example \"90 days\", or write \"period\" or \"never\".",
        "final_after" => "Write it in days or less, for example \"7 days\", or write \"forever\".",
        _ => "Write it in days or less, for example \"30 minutes\".",
    };
    failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("\"{key}\" is no interval: \"{interval}\""))
        .hint(hint)
        .raise()
}

const INSERT_POLICY: &str = "
    INSERT INTO talkmeter.policy
    SELECT r.*
    FROM (SELECT coalesce(max(p.version), 0) + 1 AS next FROM talkmeter.policy AS p WHERE p.name = $1 ->> 'name') AS v
    CROSS JOIN LATERAL jsonb_populate_record(NULL::talkmeter.policy, jsonb_build_object('version', v.next,
        'label', v.next::text, 'effective_from', $2::timestamptz, 'defined_at', clock_timestamp(), 'defined_by', session_user,
        'shipped', false) || jsonb_strip_nulls($1)) AS r
    RETURNING version, effective_from::text,
        effective_from < $2::timestamptz AND EXISTS (SELECT FROM talkmeter.part AS p WHERE p.policy = policy.name)";

/// Adds a policy, or the next version of one, and returns its version.
#[pg_extern(sql = false)]
fn define_policy(definition: AnyElement) -> i32 {
    let definition = document::value(definition, "definition");
    as_owner(|| {
        connected(|connection| {
            let (policy, row) = sound(Policy::read(&definition, &mut micros));
            connection.run("LOCK TABLE talkmeter.policy IN SHARE ROW EXCLUSIVE MODE", &[]);
            let (is_retroactive, note) = (row["retroactive"] == true, row["note"].as_str().map(str::to_owned));
            if is_retroactive && note.is_none() {
                let message = "a retroactive definition needs a \"note\" that says why";
                failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message).raise();
            }
            let rows = connection.run(INSERT_POLICY, &[row_arg(row), arg(Timestamp::from(clock::of_transaction()))]);
            let mut row = rows.only();
            let (version, from): (i32, String) = (row.value(), row.value());
            if row.value::<bool>() && !is_retroactive {
                reaches_back(&policy.name, &from);
            }
            let arguments = json!({"definition": definition, "version": version});
            journal::note(connection, "define_policy", None, arguments, note.as_deref());
            cache::announce_change();
            version
        })
    })
}

/// Raises the error that a version reaches back although nobody said that it should.
fn reaches_back(name: &str, from: &str) -> ! {
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("policy \"{name}\" has judged parts, and this version would be in force since {from}"),
    )
    .detail(
        "Parts keep the version that they opened under; but what a late row opens or divides would be judged by it.",
    )
    .hint("Leave out \"effective_from\", or add \"retroactive\": true and a \"note\" that says why.")
    .raise()
}

fn row_arg(row: DefinitionRow) -> Arg {
    arg(JsonB(row.into()))
}

const INSERT_PLAN: &str = "
    INSERT INTO talkmeter.plan
    SELECT r.* FROM jsonb_populate_record(NULL::talkmeter.plan, jsonb_build_object('shipped', false) || $1) AS r
    ON CONFLICT (name) DO NOTHING";

/// Adds a plan.
#[pg_extern(sql = false)]
fn define_plan(definition: AnyElement) {
    let definition = document::value(definition, "definition");
    let (plan, row) = sound(PlanDefinition::read(&definition));
    as_owner(|| {
        connected(|connection| {
            insert_once(connection, INSERT_PLAN, row, "plan", &plan.name);
            journal::note(connection, "define_plan", None, json!({"definition": definition}), None);
        })
    });
}

const INSERT_PACK: &str = "
    INSERT INTO talkmeter.pack_offer
    SELECT r.* FROM jsonb_populate_record(NULL::talkmeter.pack_offer, jsonb_build_object('shipped', false) || $1) AS r
    ON CONFLICT (name) DO NOTHING";

/// Adds a pack on offer.
#[pg_extern(sql = false)]
fn define_pack(definition: AnyElement) {
    let definition = document::value(definition, "definition");
    as_owner(|| {
        connected(|connection| {
            let (pack, row) = sound(PackDefinition::read(&definition, &mut micros));
            insert_once(connection, INSERT_PACK, row, "pack", &pack.name);
            journal::note(connection, "define_pack", None, json!({"definition": definition}), None);
        })
    });
}

/// Inserts an offer, or raises an error if there is one of that name.
fn insert_once(connection: &Connection, insert: &'static str, row: DefinitionRow, what: &str, name: &str) {
    if connection.run(insert, &[row_arg(row)]).count() == 0 {
        failure(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("{what} \"{name}\" exists already"))
            .hint("What was sold is never changed. Define it under a new name.")
            .raise();
    }
}
