//! What would have been charged under another definition and plan (rule 5)? Nothing is written or locked.

use crate::billing::account::{self, Needed};
use crate::billing::known_tenant;
use crate::capture::entry::Key;
use crate::catalog::args::instant;
use crate::catalog::offers::{self, known_policy};
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::rights::{as_owner, as_owner_reading};
use crate::pg::sql::{Arg, Connection, Row, arg, connected, decimal};
use crate::reports::recount;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use rust_decimal::Decimal;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Usage};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::Part;
use talkmeter_engine::period::{Calendar, Period};

/// What is asked.
struct Question<'a> {
    /// `None`: for each part the policy that was in force.
    policy: Option<&'a str>,
    /// `None`: for each tenant the plans that it was on.
    plan: Option<Plan>,
    from: Instant,
    to: Instant,
    /// `None`: of all.
    tenant: Option<&'a str>,
}

impl Question<'_> {
    fn asks_for(&self, at: Option<Instant>) -> bool {
        at.is_some_and(|at| self.from <= at && at < self.to)
    }
}

/// A part that is charged, in the simulation or in the ledger.
struct SimulatedUnit {
    tenant: String,
    conversation: String,
    part: Option<i32>,
    first_event: Vec<u8>,
    started_at: Instant,
    at: Instant,
    outcome: Option<String>,
    /// `None` until it is drawn, and if no plan was in force.
    paid: Option<Paid>,
    /// Rows of its conversation are gone: it stands as it was billed.
    is_unprovable: bool,
}

#[derive(Clone, PartialEq)]
struct Paid {
    tier: String,
    amount: Decimal,
    currency: String,
}

/// What a tenant's units of a span come to.
#[derive(Clone, Default)]
struct Sum {
    included: i64,
    pack: i64,
    overage: i64,
    amount: Decimal,
    /// `None` if there is none yet, or if there are several.
    currency: Option<String>,
    is_mixed: bool,
}

impl Sum {
    fn add(&mut self, paid: &Paid) {
        match paid.tier.as_str() {
            "included" => self.included += 1,
            "pack" => self.pack += 1,
            _ => self.overage += 1,
        }
        self.amount += paid.amount;
        self.is_mixed |= self.currency.as_ref().is_some_and(|currency| *currency != paid.currency);
        self.currency = Some(paid.currency.clone()).filter(|_| !self.is_mixed);
    }

    fn units(&self) -> i64 {
        self.included + self.pack + self.overage
    }

    /// An amount of several currencies is none.
    fn money(&self) -> Option<AnyNumeric> {
        (!self.is_mixed).then(|| numeric(self.amount))
    }
}

fn numeric(amount: Decimal) -> AnyNumeric {
    amount.to_string().parse().expect("a decimal is a number")
}

/// One row per tenant: what the units of the span would have cost, what was billed, and the difference. Reads only.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn simulate(
    policy: Option<&str>,
    plan: Option<&str>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
    tenant: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(tenant, String),
        name!(units, i64),
        name!(included_units, i64),
        name!(pack_units, i64),
        name!(overage_units, i64),
        name!(amount, Option<AnyNumeric>),
        name!(currency, Option<String>),
        name!(unprovable, i64),
        name!(billed_units, i64),
        name!(billed_included_units, i64),
        name!(billed_pack_units, i64),
        name!(billed_overage_units, i64),
        name!(billed_amount, Option<AnyNumeric>),
        name!(billed_currency, Option<String>),
        name!(units_difference, i64),
        name!(amount_difference, Option<AnyNumeric>),
    ),
> {
    let (simulated, billed) = answer(policy, plan, [from_time, to_time], tenant);
    let mut unprovable: BTreeMap<String, i64> = BTreeMap::new();
    for unit in simulated.iter().filter(|unit| unit.is_unprovable) {
        *unprovable.entry(unit.tenant.clone()).or_default() += 1;
    }
    let (simulated, billed) = (sums(&simulated), sums(&billed));
    let tenants: BTreeSet<&String> = simulated.keys().chain(billed.keys()).collect();
    let rows = tenants.into_iter().map(|tenant| {
        let would = simulated.get(tenant).cloned().unwrap_or_default();
        let was = billed.get(tenant).cloned().unwrap_or_default();
        let comparable =
            !would.is_mixed && !was.is_mixed && (would.currency == was.currency || was.units() * would.units() == 0);
        (
            tenant.clone(),
            would.units(),
            would.included,
            would.pack,
            would.overage,
            would.money(),
            would.currency.clone(),
            unprovable.get(tenant).copied().unwrap_or(0),
            was.units(),
            was.included,
            was.pack,
            was.overage,
            was.money(),
            was.currency.clone(),
            would.units() - was.units(),
            comparable.then(|| numeric(would.amount - was.amount)),
        )
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

fn sums(units: &[SimulatedUnit]) -> BTreeMap<String, Sum> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for unit in units {
        if let Some(paid) = &unit.paid {
            sums.entry(unit.tenant.clone()).or_default().add(paid);
        }
    }
    sums
}

/// One row per part that would have been charged otherwise: `added`, `removed`, or `paid_otherwise`. Reads only.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn simulate_parts(
    policy: Option<&str>,
    plan: Option<&str>,
    from_time: Option<TimestampWithTimeZone>,
    to_time: Option<TimestampWithTimeZone>,
    tenant: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(tenant, String),
        name!(conversation, String),
        name!(started_at, TimestampWithTimeZone),
        name!(difference, String),
        name!(charged_at, Option<TimestampWithTimeZone>),
        name!(tier, Option<String>),
        name!(amount, Option<AnyNumeric>),
        name!(currency, Option<String>),
        name!(billed_part, Option<i32>),
        name!(billed_at, Option<TimestampWithTimeZone>),
        name!(billed_tier, Option<String>),
        name!(billed_amount, Option<AnyNumeric>),
        name!(billed_currency, Option<String>),
    ),
> {
    let (simulated, billed) = answer(policy, plan, [from_time, to_time], tenant);
    let pairs = pairs([simulated, billed]);
    let shown = |at: Instant| Timestamp::from(at).shown();
    let rows = pairs.into_iter().filter_map(|((tenant, conversation, _), [would, was])| {
        let difference = match (&would, &was) {
            (Some(would), Some(was)) if would.paid == was.paid => return None,
            (Some(_), Some(_)) => "paid_otherwise",
            (Some(_), None) => "added",
            _ => "removed",
        };
        let paid = |unit: &Option<SimulatedUnit>| unit.as_ref().and_then(|unit| unit.paid.clone());
        let (would_pay, paid) = (paid(&would), paid(&was));
        let started_at = would.as_ref().or(was.as_ref())?.started_at;
        Some((
            tenant,
            conversation,
            shown(started_at),
            difference.to_owned(),
            would.as_ref().map(|unit| shown(unit.at)),
            would_pay.as_ref().map(|paid| paid.tier.clone()),
            would_pay.as_ref().map(|paid| numeric(paid.amount)),
            would_pay.map(|paid| paid.currency),
            was.as_ref().and_then(|unit| unit.part),
            was.as_ref().map(|unit| shown(unit.at)),
            paid.as_ref().map(|paid| paid.tier.clone()),
            paid.as_ref().map(|paid| numeric(paid.amount)),
            paid.map(|paid| paid.currency),
        ))
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

/// Tenant, conversation and first event of a part, and what it is in the simulation and in the ledger.
type Pairs = BTreeMap<(String, String, Vec<u8>), [Option<SimulatedUnit>; 2]>;

fn pairs(sides: [Vec<SimulatedUnit>; 2]) -> Pairs {
    let mut pairs = Pairs::new();
    for (side, units) in sides.into_iter().enumerate() {
        for unit in units.into_iter().filter(|unit| unit.paid.is_some()) {
            let key = (unit.tenant.clone(), unit.conversation.clone(), unit.first_event.clone());
            pairs.entry(key).or_default()[side] = Some(unit);
        }
    }
    pairs
}

/// The units of the simulation, drawn, and those that were billed.
fn answer(
    policy: Option<&str>,
    plan: Option<&str>,
    [from_time, to_time]: [Option<TimestampWithTimeZone>; 2],
    tenant: Option<&str>,
) -> (Vec<SimulatedUnit>, Vec<SimulatedUnit>) {
    let from = from_time.map_or(Instant::EARLIEST, |from| instant(from, "from_time"));
    let to = to_time.map_or(Instant::LATEST, |to| instant(to, "to_time"));
    if from >= to {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"from_time\" is not before \"to_time\"").raise();
    }
    let plan = as_owner(|| {
        connected(|connection| {
            policy.into_iter().for_each(known_policy);
            let plan = plan.map(|name| {
                offers::known_plan(name);
                offers::plan(connection, name)
            });
            if let Some(tenant) = tenant {
                known_tenant::must_be(connection, tenant);
            }
            plan
        })
    });
    let question = Question { policy, plan, from, to, tenant };
    // Of all that there is, which is no work for plans that look up one by one.
    let (credited, billed) =
        as_owner_reading(|| connected(|connection| (credited(connection, &question), billed(connection, &question))));
    let mut units = as_owner(|| fold(&question, &credited));
    units.sort_by(|a, b| {
        (&a.tenant, a.at, &a.conversation, &a.first_event).cmp(&(&b.tenant, b.at, &b.conversation, &b.first_event))
    });
    as_owner(|| draw(&question, &mut units));
    (units, billed)
}

/// The units of the span, not drawn yet.
fn fold(question: &Question, credited: &Credited) -> Vec<SimulatedUnit> {
    let span = Period { start: question.from, end: question.to };
    let mut units = Vec::new();
    recount::conversations(
        "simulate",
        span,
        question.policy,
        |tenant| question.tenant.is_none_or(|only| only == tenant),
        |some| {
            for recounted in some {
                let of_conversation = credited.get(&(recounted.key.0.to_owned(), recounted.key.1.to_owned()));
                let is_credited = |part: &Part| of_conversation.is_some_and(|all| all.contains(&part.first_event));
                let asked = |part: &&Part| question.asks_for(part.charge_instant()) && !is_credited(part);
                let of_span = recounted.parts.iter().filter(asked);
                units.extend(of_span.map(|part| unit(recounted.key, part, recounted.is_unprovable)));
            }
        },
    );
    units
}

const CREDITED: &str = "
    SELECT p.tenant, p.conversation, p.first_event
    FROM talkmeter.charge AS c
    JOIN talkmeter.part AS p ON p.tenant = c.tenant AND p.conversation = c.conversation AND p.part = c.part
    WHERE c.reason = 'credit' AND ($1::text IS NULL OR c.tenant = $1)";

/// The first events of parts that were credited, which are never charged again, by tenant and conversation.
type Credited = HashMap<(String, String), Vec<Vec<u8>>>;

fn credited(connection: &Connection, question: &Question) -> Credited {
    let mut credited = Credited::new();
    for mut row in connection.run_anew(CREDITED, &[arg(question.tenant)]).iter() {
        credited.entry((row.value(), row.value())).or_default().push(row.value());
    }
    credited
}

fn unit((tenant, conversation): Key, part: &Part, is_unprovable: bool) -> SimulatedUnit {
    SimulatedUnit {
        tenant: tenant.to_owned(),
        conversation: conversation.to_owned(),
        part: None,
        first_event: part.first_event.clone(),
        started_at: part.started_at,
        at: part.charge_instant().expect("a part of the span is charged"),
        outcome: part.outcome.as_deref().map(str::to_owned),
        paid: None,
        is_unprovable,
    }
}

fn draw(question: &Question, units: &mut [SimulatedUnit]) {
    for some in units.chunk_by_mut(|a, b| a.tenant == b.tenant) {
        let tenant = some[0].tenant.clone();
        let mut account = connected(|connection| account(connection, question, &tenant));
        for unit in some {
            heed_cancel();
            unit.paid = account.draw(unit.at, unit.outcome.as_deref()).map(|draw| Paid {
                tier: draw.tier.name().to_owned(),
                amount: draw.amount,
                currency: draw.plan.currency.clone(),
            });
        }
    }
}

const PACKS: &str = "
    SELECT p.pack_id, p.size, p.purchased_at, p.expires_at, p.size - COALESCE((
        SELECT sum(c.units)
        FROM talkmeter.posting AS c
        WHERE c.tenant = p.tenant AND c.pack_id = p.pack_id AND c.charged_at < $2), 0)::int8
    FROM talkmeter.pack AS p
    WHERE p.tenant = $1 AND p.refunded_at IS NULL
    ORDER BY p.purchased_at, p.pack_id";

const INCLUDED_USED: &str = "
    SELECT COALESCE(sum(c.units), 0)::int8
    FROM talkmeter.posting AS c
    WHERE c.tenant = $1 AND c.charged_at < $2 AND c.period_start = $3 AND c.period_end = $4 AND c.tier = 'included'";

/// The account as it was when the span began, on the plan that is asked for.
fn account(connection: &Connection, question: &Question, tenant: &str) -> Account {
    let needed = Needed { first: question.from, last: question.to, packs: Vec::new() };
    let mut account = account::read_one(tenant, &needed).account;
    if let Some(plan) = &question.plan {
        for subscription in account.subscriptions.iter_mut().filter(|own| own.plan.is_some()) {
            subscription.plan = Some(plan.clone());
        }
        if account.subscriptions.is_empty() {
            let calendar = Calendar::default();
            account.subscriptions.push(Subscription { since: Instant::BEGINNING, plan: Some(plan.clone()), calendar });
        }
    }
    account.packs = packs(connection, question, tenant);
    let opened: Vec<Period> = account.used.keys().copied().collect();
    account.used = opened.into_iter().map(|period| (period, Usage::unused(period))).collect();
    if let Some(period) = account.period_at(question.from).filter(|period| period.start < question.from) {
        let bounds = [arg(tenant), at(question.from), at(period.start), at(period.end)];
        let used: i64 = connection.run(INCLUDED_USED, &bounds).only().value();
        account.used.insert(period, Usage { included_used: used, ..Usage::unused(period) });
    }
    account
}

fn at(instant: Instant) -> Arg {
    arg(Timestamp::from(instant))
}

fn packs(connection: &Connection, question: &Question, tenant: &str) -> Vec<Pack> {
    let pack = |mut row: Row| Pack {
        id: row.value(),
        size: row.value(),
        purchased_at: row.value::<Timestamp>().bound(),
        expires_at: row.value::<Timestamp>().bound(),
        remaining: row.value(),
    };
    connection.run(PACKS, &[arg(tenant), at(question.from)]).iter().map(pack).collect()
}

// A charge whose instant has moved within its period stays as it was posted, so the part says when it is.
const BILLED: &str = "
    SELECT c.tenant, c.conversation, c.part, COALESCE(p.first_event, ''::bytea), COALESCE(p.started_at, c.charged_at),
        COALESCE(p.charged_at, c.charged_at), c.outcome, c.tier, c.amount::text, c.currency
    FROM talkmeter.standing_charge AS c
    LEFT JOIN talkmeter.part AS p ON p.tenant = c.tenant AND p.conversation = c.conversation AND p.part = c.part
    WHERE COALESCE(p.charged_at, c.charged_at) >= $1 AND COALESCE(p.charged_at, c.charged_at) < $2
        AND c.period_start < $2 AND c.period_end > $1 AND ($3::text IS NULL OR c.tenant = $3)";

fn billed(connection: &Connection, question: &Question) -> Vec<SimulatedUnit> {
    let unit = |mut row: Row| SimulatedUnit {
        tenant: row.value(),
        conversation: row.value(),
        part: row.nullable(),
        first_event: row.value(),
        started_at: row.value::<Timestamp>().bound(),
        at: row.value::<Timestamp>().bound(),
        outcome: row.nullable(),
        paid: Some(Paid { tier: row.value(), amount: decimal(&row.value::<String>()), currency: row.value() }),
        is_unprovable: false,
    };
    let args = [at(question.from), at(question.to), arg(question.tenant)];
    let rows = connection.run_anew(BILLED, &args);
    rows.iter().map(unit).collect()
}
