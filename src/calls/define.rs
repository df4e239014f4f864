//! How does a vendor add a policy, a plan, a pack (rules 3.3, 4.1)? Which keys a definition has, the engine says.

use crate::calls::journal;
use crate::catalog::cache;
use crate::pg::document;
use crate::pg::error::{Failure, failure};
use crate::pg::rights::as_owner;
use crate::pg::sql::{Arg, Connection, arg, connected};
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
fn micros(connection: &Connection, interval: &str, key: &str) -> i64 {
    let rows = connection.run(MICROS, &[arg(interval)]);
    let mut row = rows.only();
    if !row.value::<bool>() {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{key}\" is {interval}, and months have no length of their own"),
        )
        .hint("Write it in days or less, for example \"90 days\".")
        .raise();
    }
    if !row.value::<bool>() {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{key}\" is {interval}, longer than time is"),
        )
        .hint("Instants that can be metered are of the years 1 to 9999.")
        .raise();
    }
    row.value()
}

const INSERT_POLICY: &str = "
    INSERT INTO talkmeter.policy
    SELECT r.*
    FROM (SELECT coalesce(max(p.version), 0) + 1 AS next FROM talkmeter.policy AS p WHERE p.name = $1 ->> 'name') AS v
    CROSS JOIN LATERAL jsonb_populate_record(NULL::talkmeter.policy, jsonb_build_object('version', v.next,
        'label', v.next::text, 'effective_from', now(), 'shipped', false) || jsonb_strip_nulls($1)) AS r
    RETURNING version";

/// Adds a policy, or the next version of one, and returns its version.
#[pg_extern(sql = false)]
fn define_policy(definition: AnyElement) -> i32 {
    let definition = document::value(definition, "definition");
    as_owner(|| {
        connected(|connection| {
            let mut micros = |interval: &str, key: &str| micros(connection, interval, key);
            let (_, row) = sound(Policy::read(&definition, &mut micros));
            connection.run("LOCK TABLE talkmeter.policy IN SHARE ROW EXCLUSIVE MODE", &[]);
            let version: i32 = connection.run(INSERT_POLICY, &[row_arg(row)]).only().value();
            let arguments = json!({"definition": definition, "version": version});
            journal::note(connection, "define_policy", None, arguments, None);
            cache::announce_change(connection);
            version
        })
    })
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
            let mut micros = |interval: &str, key: &str| micros(connection, interval, key);
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
