//! What is on offer: how does a vendor add a policy, a plan, a pack (SPEC 3.3, 4.1)?

use crate::books::decimal;
use crate::cache;
use crate::error::failure;
use crate::rights::as_owner;
use crate::sql::{Connection, Rows, arg, connected};
use pgrx::JsonB;
use pgrx::prelude::*;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;
use talkmeter_engine::event::Kind;
use talkmeter_engine::ledger::Plan;
use talkmeter_engine::near;
use talkmeter_engine::policy::{ChargeOn, Policy};

/// A definition that misses its form, with what is right.
fn invalid(message: String) -> crate::error::Failure {
    failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

/// Reads a definition, or raises an error that names what is wrong with it.
fn read<T: DeserializeOwned>(definition: JsonB, what: &str, known: &[&str]) -> T {
    let Json::Object(keys) = &definition.0 else {
        invalid(format!("the definition of a {what} is not a json object")).raise();
    };
    if let Some(key) = keys.keys().find(|key| !known.contains(&key.as_str())) {
        invalid(format!("unknown key \"{key}\" in the definition of a {what}"))
            .hint(near::hint(key, known.iter().copied()))
            .raise();
    }
    serde_json::from_value(definition.0).unwrap_or_else(|error| {
        invalid(format!("the definition of a {what} cannot be read: {error}"))
            .hint(format!("Its keys are: {}.", known.join(", ")))
            .raise()
    })
}

#[derive(Deserialize)]
struct PolicyDefinition {
    name: String,
    label: Option<String>,
    effective_from: Option<String>,
    starts_on: Vec<String>,
    ends_on: Vec<String>,
    idle_timeout: Option<String>,
    quiet_review_after: Option<String>,
    turn_limit: Option<i32>,
    charge_on: String,
    #[serde(default)]
    staff_reply_blocks: bool,
    #[serde(default)]
    error_before_reply_waives: bool,
    #[serde(default)]
    exclude_prefixes: Vec<String>,
}

const POLICY_KEYS: [&str; 12] = [
    "name",
    "label",
    "effective_from",
    "starts_on",
    "ends_on",
    "idle_timeout",
    "quiet_review_after",
    "turn_limit",
    "charge_on",
    "staff_reply_blocks",
    "error_before_reply_waives",
    "exclude_prefixes",
];

/// Adds a policy, or the next version of one, and returns its version.
#[pg_extern(sql = false)]
fn define_policy(definition: JsonB) -> i32 {
    let definition: PolicyDefinition = read(definition, "policy", &POLICY_KEYS);
    as_owner(|| {
        connected(|connection| {
            let policy = checked(connection, &definition);
            let version = insert_policy(connection, &definition, &policy);
            cache::announce_change(connection);
            version
        })
    })
}

fn checked(connection: &Connection, definition: &PolicyDefinition) -> Policy {
    if definition.name.is_empty() || definition.name.contains('@') {
        invalid(format!("\"{}\" is no name for a policy", definition.name))
            .hint("A name is not empty and holds no @, which sets a version apart from a name.")
            .raise();
    }
    let Some(charge_on) = ChargeOn::named(&definition.charge_on) else {
        invalid(format!("unknown \"charge_on\": \"{}\"", definition.charge_on))
            .hint(near::hint(&definition.charge_on, ["first_ai_reply", "close"]))
            .raise();
    };
    let timeout = |text: &Option<String>, key| text.as_deref().map(|text| micros(connection, text, key));
    let policy = Policy {
        name: definition.name.clone(),
        version: 0,
        starts_on: kinds(&definition.starts_on, "starts_on"),
        ends_on: kinds(&definition.ends_on, "ends_on"),
        idle_timeout: timeout(&definition.idle_timeout, "idle_timeout"),
        quiet_review_after: timeout(&definition.quiet_review_after, "quiet_review_after"),
        turn_limit: definition.turn_limit,
        charge_on,
        staff_reply_blocks: definition.staff_reply_blocks,
        error_before_reply_waives: definition.error_before_reply_waives,
        exclude_prefixes: definition.exclude_prefixes.clone(),
    };
    if let Some(flaw) = policy.flaw() {
        invalid(format!("policy \"{}\" makes no sense: {flaw}", policy.name)).raise();
    }
    policy
}

fn kinds(names: &[String], key: &str) -> Vec<Kind> {
    names
        .iter()
        .map(|name| {
            Kind::named(name).unwrap_or_else(|| {
                invalid(format!("unknown kind \"{name}\" in \"{key}\""))
                    .hint(near::hint(name, Kind::ALL.map(Kind::name)))
                    .raise()
            })
        })
        .collect()
}

const MICROS: &str = "
    SELECT extract(month FROM $1::interval) = 0 AND extract(year FROM $1::interval) = 0,
        (extract(epoch FROM $1::interval) * 1000000)::int8";

/// Microseconds of an interval, whose days have 24 hours; months have no length of their own.
fn micros(connection: &Connection, interval: &str, key: &str) -> i64 {
    let rows = connection.run(MICROS, &[arg(interval)]);
    if !rows.value::<bool>(0, 1) {
        invalid(format!("\"{key}\" is {interval}, and months have no length of their own"))
            .hint("Write it in days or less, for example \"90 days\".")
            .raise();
    }
    rows.value(0, 2)
}

const INSERT_POLICY: &str = "
    INSERT INTO talkmeter.policy (name, version, label, effective_from, starts_on, ends_on, idle_timeout,
        quiet_review_after, turn_limit, charge_on, staff_reply_blocks, error_before_reply_waives, exclude_prefixes)
    SELECT $1, v.next, coalesce($2, v.next::text), coalesce($3::timestamptz, now()), $4, $5, $6::interval,
        $7::interval, $8, $9, $10, $11, $12
    FROM (SELECT coalesce(max(p.version), 0) + 1 AS next FROM talkmeter.policy AS p WHERE p.name = $1) AS v
    RETURNING version";

fn insert_policy(connection: &Connection, definition: &PolicyDefinition, policy: &Policy) -> i32 {
    let names = |kinds: &[Kind]| arg(kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>());
    connection.run("LOCK TABLE talkmeter.policy IN SHARE ROW EXCLUSIVE MODE", &[]);
    let rows: Rows = connection.run(
        INSERT_POLICY,
        &[
            arg(policy.name.as_str()),
            arg(definition.label.as_deref()),
            arg(definition.effective_from.as_deref()),
            names(&policy.starts_on),
            names(&policy.ends_on),
            arg(definition.idle_timeout.as_deref()),
            arg(definition.quiet_review_after.as_deref()),
            arg(policy.turn_limit),
            arg(policy.charge_on.name()),
            arg(policy.staff_reply_blocks),
            arg(policy.error_before_reply_waives),
            arg(policy.exclude_prefixes.clone()),
        ],
    );
    rows.value(0, 1)
}

#[derive(Deserialize)]
struct PlanDefinition {
    name: String,
    included: i64,
    overage_rate: Json,
    price: Option<Json>,
    currency: String,
}

const INSERT_PLAN: &str = "
    INSERT INTO talkmeter.plan (name, included, overage_rate, price, currency)
    VALUES ($1, $2, $3::numeric, $4::numeric, $5)";

/// Adds a plan.
#[pg_extern(sql = false)]
fn define_plan(definition: JsonB) {
    let plan: PlanDefinition = read(definition, "plan", &["name", "included", "overage_rate", "price", "currency"]);
    if plan.included < 0 {
        invalid(format!("plan \"{}\" includes a negative number of units", plan.name)).raise();
    }
    let rate = amount(&plan.overage_rate, "overage_rate");
    let price = plan.price.as_ref().map(|price| amount(price, "price"));
    let currency = currency(&plan.currency);
    as_owner(|| {
        connected(|connection| {
            let known = connection.run(PLAN, &[arg(plan.name.as_str())]).count() > 0;
            not_yet(known, "plan", &plan.name);
            connection.run(
                INSERT_PLAN,
                &[
                    arg(plan.name.as_str()),
                    arg(plan.included),
                    arg(rate.to_string()),
                    arg(price.map(|price| price.to_string())),
                    arg(currency),
                ],
            );
        })
    });
}

#[derive(Deserialize)]
struct PackDefinition {
    name: String,
    size: i64,
    price: Json,
    currency: String,
    valid_for: String,
}

const INSERT_PACK: &str = "
    INSERT INTO talkmeter.pack_offer (name, size, price, currency, valid_for)
    VALUES ($1, $2, $3::numeric, $4, $5::interval)";

/// Adds a pack on offer.
#[pg_extern(sql = false)]
fn define_pack(definition: JsonB) {
    let pack: PackDefinition = read(definition, "pack", &["name", "size", "price", "currency", "valid_for"]);
    if pack.size <= 0 {
        invalid(format!("pack \"{}\" holds no units", pack.name)).raise();
    }
    let price = amount(&pack.price, "price");
    let currency = currency(&pack.currency);
    as_owner(|| {
        connected(|connection| {
            if micros(connection, &pack.valid_for, "valid_for") <= 0 {
                invalid(format!("pack \"{}\" has no lifetime", pack.name)).raise();
            }
            let known = connection.run(PACK, &[arg(pack.name.as_str())]).count() > 0;
            not_yet(known, "pack", &pack.name);
            connection.run(
                INSERT_PACK,
                &[
                    arg(pack.name.as_str()),
                    arg(pack.size),
                    arg(price.to_string()),
                    arg(currency),
                    arg(pack.valid_for.as_str()),
                ],
            );
        })
    });
}

fn not_yet(known: bool, what: &str, name: &str) {
    if name.is_empty() {
        invalid(format!("a {what} needs a name")).raise();
    }
    if known {
        failure(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("{what} \"{name}\" exists already"))
            .hint("What was sold is never changed. Define it under a new name.")
            .raise();
    }
}

/// An exact amount of money, from a json number or a string that holds one.
fn amount(value: &Json, key: &str) -> Decimal {
    let text = match value {
        Json::Number(number) => number.as_str(),
        Json::String(text) => text.as_str(),
        _ => "",
    };
    let amount = text.parse::<Decimal>().ok().or_else(|| Decimal::from_scientific(text).ok());
    match amount.filter(|amount| !amount.is_sign_negative() || amount.is_zero()) {
        Some(amount) if amount < Decimal::from(1_000_000_000) && amount.scale() <= 12 => amount,
        _ => invalid(format!("\"{key}\" is no amount of money: {value}"))
            .hint("Write a number from 0 to below 1000000000 with at most 12 digits after the point, such as 0.04.")
            .raise(),
    }
}

fn currency(code: &str) -> &str {
    if code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return code;
    }
    invalid(format!("\"{code}\" is no currency")).hint("Write its ISO 4217 code, such as USD.").raise()
}

const PLAN: &str = "SELECT FROM talkmeter.plan AS p WHERE p.name = $1";
const PLANS: &str = "SELECT p.name FROM talkmeter.plan AS p ORDER BY p.name";
const PACK: &str = "SELECT FROM talkmeter.pack_offer AS o WHERE o.name = $1";
const PACKS: &str = "SELECT o.name FROM talkmeter.pack_offer AS o ORDER BY o.name";

/// Raises an error that says which plans there are, if this one is not among them.
pub fn known_plan(plan: &str) {
    as_owner(|| connected(|connection| known(connection, "plan", plan, PLAN, PLANS)));
}

const TERMS: &str = "
    SELECT p.included, p.overage_rate::text, p.currency FROM talkmeter.plan AS p WHERE p.name = $1";

/// A plan that is known to exist.
pub fn plan(connection: &Connection, name: &str) -> Plan {
    let rows = connection.run(TERMS, &[arg(name)]);
    Plan {
        name: name.to_owned(),
        included: rows.value(0, 1),
        overage_rate: decimal(rows.value(0, 2)),
        currency: rows.value(0, 3),
    }
}

/// Raises an error that says which packs are on offer, if this one is not among them.
pub fn known_pack(connection: &Connection, pack: &str) {
    known(connection, "pack", pack, PACK, PACKS);
}

fn known(connection: &Connection, what: &str, name: &str, find: &'static str, all: &'static str) {
    if connection.run(find, &[arg(name)]).count() > 0 {
        return;
    }
    let rows = connection.run(all, &[]);
    let names: Vec<String> = (0..rows.count()).map(|row| rows.value(row, 1)).collect();
    failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("{what} \"{name}\" does not exist"))
        .hint(near::hint(name, names.iter().map(String::as_str)))
        .raise();
}
