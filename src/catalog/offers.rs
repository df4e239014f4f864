//! What is on offer, and is a name among it? Policies, plans and packs (rules 3.3, 4.1).

use crate::catalog::args::short_enough;
use crate::catalog::policies;
use crate::pg::error::failure;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, Row, arg, connected, decimal};
use pgrx::JsonB;
use pgrx::prelude::*;
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use talkmeter_engine::draw_down::Plan;
use talkmeter_engine::near;
use talkmeter_engine::offer::stored_rates;

/// Raises an error that says which policies there are, if this one is not among them.
pub fn known_policy(policy: &str) {
    let policies = policies::all();
    if !policies.knows(policy) {
        unknown("policy", policy, &policies.names());
    }
}

const PLANS: &str = "SELECT p.name FROM talkmeter.plan AS p ORDER BY p.name";
const PACKS: &str = "SELECT o.name FROM talkmeter.pack_offer AS o ORDER BY o.name";

/// Raises an error that says which plans there are, if this one is not among them.
pub fn known_plan(plan: &str) {
    known("plan", plan, PLANS);
}

/// Raises an error that says which packs are on offer, if this one is not among them.
pub fn known_pack(pack: &str) {
    known("pack", pack, PACKS);
}

fn known(what: &str, name: &str, all: &'static str) {
    let names: Vec<String> =
        as_owner(|| connected(|connection| connection.run(all, &[]).iter().map(|mut row| row.value()).collect()));
    if !names.iter().any(|known| known == name) {
        unknown(what, name, &names);
    }
}

fn unknown(what: &str, name: &str, known: &[String]) -> ! {
    short_enough(name, what);
    failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("{what} \"{name}\" does not exist"))
        .hint(near::hint(name, known.iter().map(String::as_str)))
        .raise()
}

/// The prices of overage units by their outcomes, which are the next column of a row of plans.
pub fn rates(row: &mut Row) -> BTreeMap<String, Decimal> {
    row.nullable::<JsonB>().map(|rates| stored_rates(&rates.0)).unwrap_or_default()
}

const TERMS: &str = "
    SELECT p.included, p.overage_rate::text, p.rates, p.currency FROM talkmeter.plan AS p WHERE p.name = $1";

/// A plan that is known to exist.
pub fn plan(connection: &Connection, name: &str) -> Plan {
    let rows = connection.run(TERMS, &[arg(name)]);
    let mut row = rows.only();
    Plan {
        name: name.to_owned(),
        included: row.value(),
        overage_rate: decimal(&row.value::<String>()),
        rates: rates(&mut row),
        currency: row.value(),
    }
}
