//! How do billable units become charges? Each tenant is locked, its account read, every unit drawn and written.

use crate::billing::account::{self, Books, Needed};
use crate::billing::alerts::{self, Alert, Drawn, Threshold};
use crate::billing::charge_rows::{self, Charge, Reversal, StandingCharge, known_standing, take_waiting};
use crate::billing::posting::{PartKey, Posting, Postings, Settle, Unit, Why};
use crate::billing::subscription_rows::{self, NewSubscription};
use crate::billing::uncharged;
use crate::pg::clock;
use crate::pg::error::damaged;
use crate::pg::limit::heed_cancel;
use crate::pg::locks::Tenants;
use crate::pg::sql::{Connection, connected};
use std::collections::{BTreeMap, HashSet};
use talkmeter_engine::draw_down::Tier;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

/// Units drawn at once.
const BATCH: usize = 5_000;

/// Posts what one work has found, all of whose conversations are locked by now. Call it with the owner's rights.
pub fn post(postings: Postings, mut tenants: Tenants) {
    let mut in_order = postings.in_order();
    loop {
        let some = in_order.some(BATCH);
        if some.is_empty() {
            break;
        }
        let groups: Vec<&[Posting]> = some.chunk_by(|a, b| a.tenant() == b.tenant()).collect();
        connected(|connection| post_tenants(connection, &mut tenants, &groups, Alerting::Sends));
        heed_cancel();
    }
    drop(in_order);
    postings.close();
}

/// Charges the earliest units of a tenant that wait for the backfill of a span of a source, and returns how many they
/// were. Nobody is told what that raises (rule 4.5.8).
pub fn post_uncharged(connection: &Connection, source: i32, span: Period, tenant: &str) -> usize {
    let mut locks = Tenants::begin();
    locks.lock(connection, &[tenant]);
    let units = uncharged::take(connection, source, span, tenant, BATCH);
    let postings: Vec<Posting> = units.into_iter().map(Posting::Charge).collect();
    if !postings.is_empty() {
        post_tenants(connection, &mut locks, &[&postings], Alerting::IsMuted);
    }
    postings.len()
}

/// Whether alerts that a posting raises are sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alerting {
    Sends,
    IsMuted,
}

fn post_tenants(connection: &Connection, locks: &mut Tenants, groups: &[&[Posting]], alerting: Alerting) {
    let tenants: Vec<&str> = groups.iter().map(|postings| postings[0].tenant()).collect();
    // Postings come in the order of their tenants, so from one call to the next tenants are locked in key order too.
    locks.lock(connection, &tenants);
    let mut standing = charge_rows::standing(connection, groups);
    let credited = charge_rows::credited(groups);
    let mut all = account::read(&tenants, &needed(groups, &standing));
    let mut posted = Posted::nothing(alerting);
    for postings in groups {
        let tenant = postings[0].tenant();
        let mut books = all.remove(tenant).unwrap_or_default();
        let before = books.clone();
        let taken_back = take_back(&mut books, postings, &mut standing);
        let is_changed = !taken_back.is_empty();
        posted.charges.extend(taken_back);
        let voided = voided(postings);
        let wanted = postings.iter().filter_map(|posting| to_draw(posting, &standing));
        let wanted = wanted.filter(|unit| !voided.contains(&unit.part()));
        let (waiting, units) =
            uncharged::apart(wanted.filter(|unit| !credited.contains(&unit.part())).cloned().collect());
        posted.uncharged.extend(waiting);
        let default_plan = units.iter().find_map(|unit| unit.default_plan.clone());
        match default_plan.filter(|_| books.account.subscriptions.is_empty()) {
            Some(plan) => {
                let new = NewSubscription::by_default(plan);
                subscription_rows::write(connection, tenant, &new, books.last_subscription_id);
                let units = units.into_iter().chain(take_waiting(connection, tenant, new.since)).collect();
                draw_anew(connection, tenant, units, &mut posted);
            }
            None => draw_and_write(connection, tenant, &before, books, units, is_changed, &mut posted),
        }
    }
    posted.write(connection);
}

/// What is to be written to the ledger.
struct Posted {
    charges: Vec<Charge>,
    alerts: Vec<Alert>,
    thresholds: Vec<Threshold>,
    alerting: Alerting,
    /// Units that wait for a backfill.
    uncharged: Vec<Unit>,
}

impl Posted {
    fn nothing(alerting: Alerting) -> Posted {
        let thresholds = alerts::thresholds();
        Posted { charges: Vec::new(), alerts: Vec::new(), thresholds, alerting, uncharged: Vec::new() }
    }

    fn write(self, connection: &Connection) {
        charge_rows::write_charges(connection, &self.charges);
        alerts::write(connection, &self.alerts, self.alerting == Alerting::IsMuted);
        uncharged::write(connection, &self.uncharged);
    }
}

/// What posting needs of the books.
fn needed(groups: &[&[Posting]], standing: &BTreeMap<PartKey, StandingCharge>) -> Needed {
    let units = groups.iter().flat_map(|postings| postings.iter()).filter_map(|posting| match posting {
        Posting::Charge(unit) => Some(unit.at),
        Posting::Settle(_) => None,
    });
    let instants: Vec<Instant> = units.chain(standing.values().map(|charge| charge.at)).collect();
    let packs = standing.values().filter_map(|charge| match charge.tier {
        Tier::Pack(id) => Some(id),
        _ => None,
    });
    Needed {
        first: instants.iter().copied().min().unwrap_or(Instant::LATEST),
        last: instants.iter().copied().max().unwrap_or(Instant::LATEST),
        packs: packs.collect(),
    }
}

/// Takes back what does not stand any more, in the order of the ledger. What still stands is left in `standing`.
fn take_back<'a>(
    books: &mut Books,
    postings: &'a [Posting],
    standing: &mut BTreeMap<PartKey<'a>, StandingCharge>,
) -> Vec<Charge> {
    let mut fallen = Vec::new();
    for posting in postings {
        let Posting::Settle(settle) = posting else { continue };
        let Some(charge) = standing.get(&posting.part()) else { continue };
        let stands = settle.wanted.as_ref().is_some_and(|wanted| {
            (&wanted.policy, wanted.policy_version, &wanted.outcome)
                == (&charge.policy, charge.policy_version, &charge.outcome)
                && books.account.period_at(wanted.at) == Some(charge.period)
        });
        if !stands {
            let why = Reversal { reason: settle.why.name(), note: None, cause: settle.cause.clone() };
            fallen.extend(standing.remove(&posting.part()).map(|charge| (posting.part(), charge, why)));
        }
    }
    fallen.sort_unstable_by_key(|(_, charge, _)| charge.charge_id);
    let now = clock::now();
    fallen.into_iter().map(|(key, charge, why)| reversal(books, key, charge, why, now)).collect()
}

/// Credits a charge, and returns the id of the entry that takes it back: the unit goes to where it came from, and its
/// part is never charged again (rule 4.6.3). The tenant's lock must be held.
pub fn credit(connection: &Connection, tenant: &str, charge_id: i64, note: &str) -> i64 {
    let (conversation, part, at) = known_standing(connection, tenant, charge_id);
    let posting = Settle::of((tenant, &conversation, part), None, Why::Refold, None);
    let groups = [posting.as_slice()];
    let mut standing = charge_rows::standing(connection, &groups);
    let mut books = account::read_one(tenant, &needed(&groups, &standing));
    let before = books.clone();
    let key = posting[0].part();
    let charge = standing.remove(&key).filter(|charge| charge.charge_id == charge_id && charge.at == at);
    let charge = charge.unwrap_or_else(|| damaged(format!("charge {charge_id} does not stand alone for its part")));
    let why = Reversal { reason: "credit", note: Some(note.to_owned()), cause: None };
    let reversal = reversal(&mut books, key, charge, why, clock::now());
    account::write(tenant, &before, &books);
    let id = reversal.charge_id;
    charge_rows::write_charges(connection, &[reversal]);
    id
}

fn next_id(last: i64) -> i64 {
    last.checked_add(1).unwrap_or_else(|| damaged("the charge_id given last is the last that there is"))
}

/// Gives a unit back to the tier and pack that it came from.
fn reversal(
    books: &mut Books,
    (tenant, conversation, part): PartKey,
    charge: StandingCharge,
    why: Reversal,
    now: Instant,
) -> Charge {
    books.account.give_back(charge.period, charge.tier, charge.amount);
    alerts::count(books, charge.at, -1);
    books.last_charge_id = next_id(books.last_charge_id);
    Charge {
        unit: Unit {
            tenant: tenant.to_owned(),
            conversation: conversation.to_owned(),
            part,
            at: charge.at,
            policy: charge.policy,
            policy_version: charge.policy_version,
            outcome: charge.outcome,
            default_plan: None,
            awaits: None,
            unless_standing: false,
        },
        charge_id: books.last_charge_id,
        posted_in: books.account.posted_in(charge.period, now),
        period: charge.period,
        tier: charge.tier,
        amount: -charge.amount,
        currency: charge.currency,
        plan: charge.plan,
        reverses: Some((charge.charge_id, why)),
    }
}

/// Parts whose unit an event has taken back: it is not drawn, if the same work had found it.
fn voided(postings: &[Posting]) -> HashSet<PartKey<'_>> {
    let is_voided = |posting: &&Posting| matches!(posting, Posting::Settle(Settle { why: Why::Voided, .. }));
    postings.iter().filter(is_voided).map(Posting::part).collect()
}

fn to_draw<'a>(posting: &'a Posting, standing: &BTreeMap<PartKey, StandingCharge>) -> Option<&'a Unit> {
    match posting {
        Posting::Charge(unit) if unit.unless_standing && standing.contains_key(&posting.part()) => None,
        Posting::Charge(unit) => Some(unit),
        Posting::Settle(_) => None,
    }
}

/// Draws units, all of one tenant, whose books are read for that, and writes its account.
fn draw_anew(connection: &Connection, tenant: &str, units: Vec<Unit>, posted: &mut Posted) {
    let instants = || units.iter().map(|unit| unit.at);
    let (Some(first), Some(last)) = (instants().min(), instants().max()) else { return };
    let needed = Needed { first, last, packs: Vec::new() };
    let books = account::read_one(tenant, &needed);
    draw_and_write(connection, tenant, &books.clone(), books, units, false, posted);
}

fn draw_and_write(
    connection: &Connection,
    tenant: &str,
    before: &Books,
    mut books: Books,
    units: Vec<Unit>,
    is_changed: bool,
    posted: &mut Posted,
) {
    let count = posted.charges.len();
    let waiting = draw(&mut books, units, posted);
    charge_rows::write_waiting(connection, &waiting);
    if is_changed || posted.charges.len() > count {
        account::write(tenant, before, &books);
    }
}

/// Draws units, all of one tenant, and returns those at whose instants no plan was in force.
fn draw(books: &mut Books, mut units: Vec<Unit>, posted: &mut Posted) -> Vec<Unit> {
    units.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    let now = clock::now();
    let mut waiting = Vec::new();
    for unit in units {
        heed_cancel();
        let Some(drawn) = books.account.draw(unit.at, unit.outcome.as_deref()) else {
            waiting.push(unit);
            continue;
        };
        let (tier, period, used, included) = (drawn.tier, drawn.period, drawn.used, drawn.plan.included);
        books.last_charge_id = next_id(books.last_charge_id);
        let charge = Charge {
            charge_id: books.last_charge_id,
            posted_in: period,
            tier,
            period,
            amount: drawn.amount,
            currency: drawn.plan.currency.clone(),
            plan: drawn.plan.name.clone(),
            reverses: None,
            unit,
        };
        let posted_in = books.account.posted_in(period, now);
        let drawn = Drawn { at: charge.unit.at, tier, period, used, included };
        let raised = alerts::raise(books, &charge.unit.tenant, &drawn, &posted.thresholds);
        posted.alerts.extend(raised);
        posted.charges.push(Charge { posted_in, ..charge });
    }
    waiting
}

/// Posts the units of a tenant that waited for a plan, those at or after `since`. Its lock must be held.
pub fn post_waiting(connection: &Connection, tenant: &str, since: Instant) {
    let units = take_waiting(connection, tenant, since);
    let mut posted = Posted::nothing(Alerting::Sends);
    draw_anew(connection, tenant, units, &mut posted);
    posted.write(connection);
}
