//! How do billable units become charges? Each tenant is locked, its account read, every unit drawn and written.

use crate::alerts::{self, Alert, Drawn, Threshold};
use crate::books::{self, Books, Needed, decimal};
use crate::clock::{self, Timestamp};
use crate::error::failure;
use crate::locks;
use crate::spool::{Sorted, Spool};
use crate::sql::{Connection, OverRows, arg, column, connected};
use crate::subscription::{self, Opening};
use crate::{insert_rows, over_rows};
use pgrx::prelude::*;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::ledger::Tier;
use talkmeter_engine::order::OrderKey;
use talkmeter_engine::period::Period;

/// Units drawn at once, and charges written by one statement.
const BATCH: usize = 5_000;

/// A billable part, not yet charged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unit {
    pub tenant: String,
    pub conversation: String,
    pub part: i32,
    /// Its charge instant.
    pub at: Instant,
    pub policy: String,
    pub policy_version: i32,
    /// The plan to which its source subscribes a tenant that has none.
    pub default_plan: Option<String>,
    /// The part may have a charge that stands: then it is not charged again.
    pub unless_standing: bool,
}

impl Unit {
    fn part(&self) -> PartKey<'_> {
        (&self.tenant, &self.conversation, self.part)
    }

    /// The order in which the charges of one commit are drawn (SPEC 4.3).
    fn order(&self) -> (&str, Instant, &str, i32) {
        (&self.tenant, self.at, &self.conversation, self.part)
    }
}

/// A part that was folded again: its charge, if it has one, is taken back unless it is the one that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settle {
    tenant: String,
    conversation: String,
    part: i32,
    wanted: Option<Wanted>,
}

/// What makes a charge the wanted one, besides the period of its instant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wanted {
    at: Instant,
    policy: String,
    policy_version: i32,
}

impl Settle {
    /// The postings by which a part comes to have the charge that is wanted, or none.
    pub fn of(tenant: &str, conversation: &str, part: i32, wanted: Option<Unit>) -> Vec<Posting> {
        let settle = Settle {
            tenant: tenant.to_owned(),
            conversation: conversation.to_owned(),
            part,
            wanted: wanted.as_ref().map(|unit| Wanted {
                at: unit.at,
                policy: unit.policy.clone(),
                policy_version: unit.policy_version,
            }),
        };
        let charge = wanted.map(|unit| Posting::Charge(Unit { unless_standing: true, ..unit }));
        [Some(Posting::Settle(settle)), charge].into_iter().flatten().collect()
    }
}

/// Something that a commit posts to the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Posting {
    Charge(Unit),
    Settle(Settle),
}

impl Posting {
    fn tenant(&self) -> &str {
        match self {
            Posting::Charge(unit) => &unit.tenant,
            Posting::Settle(settle) => &settle.tenant,
        }
    }

    fn part(&self) -> PartKey<'_> {
        match self {
            Posting::Charge(unit) => unit.part(),
            Posting::Settle(settle) => (&settle.tenant, &settle.conversation, settle.part),
        }
    }
}

/// Postings on their way to the ledger: there may be more than memory should hold.
#[derive(Default)]
pub struct Postings(Spool);

impl Postings {
    /// The bytes of a record are ordered by tenant, and then as [`Unit::order`] is; what is taken back comes before all
    /// that is drawn. No text holds a zero byte.
    pub fn push(&mut self, posting: &Posting) {
        let at = match posting {
            Posting::Charge(unit) => unit.at,
            Posting::Settle(_) => Instant::BEGINNING,
        };
        let (tenant, conversation, part) = posting.part();
        self.0.push(&[
            tenant.as_bytes(),
            &[0],
            &OrderKey::floor(at),
            conversation.as_bytes(),
            &[0],
            &part.to_be_bytes(),
            &serde_json::to_vec(posting).expect("plain data"),
        ]);
    }
}

/// Reads the next postings, up to as many as are posted at once.
fn next(sorted: &mut Sorted) -> Vec<Posting> {
    let mut postings = Vec::new();
    let mut record = Vec::new();
    while postings.len() < BATCH && sorted.append_next(&mut record) {
        postings.push(read_posting(&record).expect("a posting was written"));
        record.clear();
    }
    postings
}

fn read_posting(record: &[u8]) -> Option<Posting> {
    let after_text = |bytes: &'_ [u8]| bytes.iter().position(|byte| *byte == 0).map(|end| end + 1);
    let conversation = after_text(record)? + size_of::<i64>();
    let part = conversation + after_text(&record[conversation..])?;
    serde_json::from_slice(&record[part + size_of::<i32>()..]).ok()
}

/// A unit with who pays for it, or a charge that is taken back.
struct Charge {
    unit: Unit,
    charge_id: i64,
    period: Period,
    /// The period whose statement lists it.
    posted_in: Period,
    tier: Tier,
    amount: Decimal,
    currency: String,
    plan: String,
    /// The charge that is taken back, and why.
    reverses: Option<(i64, Reversal)>,
}

/// A charge that is not taken back.
struct Standing {
    charge_id: i64,
    at: Instant,
    period: Period,
    tier: Tier,
    amount: Decimal,
    currency: String,
    plan: String,
    policy: String,
    policy_version: i32,
}

type PartKey<'a> = (&'a str, &'a str, i32);

/// Posts what one commit has found. Call it with the owner's rights.
pub fn post(mut postings: Postings) {
    let mut sorted = postings.0.sorted();
    loop {
        let some = next(&mut sorted);
        if some.is_empty() {
            break;
        }
        let groups: Vec<&[Posting]> = some.chunk_by(|a, b| a.tenant() == b.tenant()).collect();
        connected(|connection| post_tenants(connection, &groups));
        pgrx::check_for_interrupts!();
    }
    drop(sorted);
    postings.0.close();
}

fn post_tenants(connection: &Connection, groups: &[&[Posting]]) {
    let tenants: Vec<&str> = groups.iter().map(|postings| postings[0].tenant()).collect();
    // Postings come in the order of their tenants, so from one call to the next tenants are locked in key order too.
    locks::tenants(connection, &tenants);
    let mut standing = standing(connection, groups);
    let credited = credited(connection, groups);
    let mut all = books::read(connection, &tenants, &needed(groups, &standing));
    let mut posted = Posted::nothing(connection);
    for postings in groups {
        let tenant = postings[0].tenant();
        let mut books = all.remove(tenant).unwrap_or_default();
        let before = books.clone();
        let taken_back = take_back(&mut books, postings, &mut standing);
        let is_changed = !taken_back.is_empty();
        posted.charges.extend(taken_back);
        let wanted = postings.iter().filter_map(|posting| to_draw(posting, &standing));
        let units: Vec<Unit> = wanted.filter(|unit| !credited.contains(&unit.part())).cloned().collect();
        let default_plan = units.iter().find_map(|unit| unit.default_plan.clone());
        match default_plan.filter(|_| books.account.subscriptions.is_empty()) {
            Some(plan) => {
                let opening = Opening::by_default(plan);
                subscription::write(connection, tenant, &opening, books.last_subscription_id);
                let units = units.into_iter().chain(waiting(connection, tenant, opening.since)).collect();
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
}

impl Posted {
    fn nothing(connection: &Connection) -> Posted {
        Posted { charges: Vec::new(), alerts: Vec::new(), thresholds: alerts::thresholds(connection) }
    }

    fn write(self, connection: &Connection) {
        write_charges(connection, &self.charges);
        alerts::write(connection, &self.alerts);
    }
}

/// What posting needs of the books.
fn needed(groups: &[&[Posting]], standing: &BTreeMap<PartKey, Standing>) -> Needed {
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
    standing: &mut BTreeMap<PartKey<'a>, Standing>,
) -> Vec<Charge> {
    let mut fallen = Vec::new();
    for posting in postings {
        let Posting::Settle(settle) = posting else { continue };
        let Some(charge) = standing.get(&posting.part()) else { continue };
        let stands = settle.wanted.as_ref().is_some_and(|wanted| {
            (&wanted.policy, wanted.policy_version) == (&charge.policy, charge.policy_version)
                && books.account.period_at(wanted.at) == Some(charge.period)
        });
        if !stands {
            fallen.extend(standing.remove(&posting.part()).map(|charge| (posting.part(), charge)));
        }
    }
    fallen.sort_unstable_by_key(|(_, charge)| charge.charge_id);
    let now = clock::now();
    fallen.into_iter().map(|(key, charge)| reversal(books, key, charge, REFOLD, now)).collect()
}

/// Why a charge is taken back when its part was folded again.
const REFOLD: Reversal = Reversal { reason: "refold", note: None };

/// Why a charge is taken back.
#[derive(Clone, Debug)]
struct Reversal {
    reason: &'static str,
    note: Option<String>,
}

const CHARGE: &str = "
    SELECT c.conversation, c.part, c.charged_at, c.reverses,
        (SELECT r.charge_id FROM talkmeter.charge AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
    FROM talkmeter.charge AS c
    WHERE c.tenant = $1 AND c.charge_id = $2";

/// A charge that stands, or an error that says why there is none.
pub fn standing_charge(connection: &Connection, tenant: &str, charge_id: i64) -> (String, i32, Instant) {
    let rows = connection.run(CHARGE, &[arg(tenant), arg(charge_id)]);
    if rows.count() == 0 {
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("tenant \"{tenant}\" has no charge {charge_id}"))
            .hint("See talkmeter.charges.")
            .raise();
    }
    let refused = |detail: String| {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("charge {charge_id} of tenant \"{tenant}\" does not stand"),
        )
        .detail(detail)
        .raise()
    };
    if let Some(reverses) = rows.get::<i64>(0, 4) {
        refused(format!("It takes back charge {reverses}."));
    }
    if let Some(by) = rows.get::<i64>(0, 5) {
        refused(format!("Charge {by} took it back."));
    }
    (rows.value(0, 1), rows.value(0, 2), rows.value::<Timestamp>(0, 3).bound())
}

/// Credits a charge, and returns the id of the entry that takes it back: the unit goes to where it came from, and its part
/// is never charged again (SPEC 4.6). The tenant's lock must be held.
pub fn credit(connection: &Connection, tenant: &str, charge_id: i64, note: &str) -> i64 {
    let (conversation, part, at) = standing_charge(connection, tenant, charge_id);
    let posting = Settle::of(tenant, &conversation, part, None);
    let groups = [posting.as_slice()];
    let mut standing = standing(connection, &groups);
    let mut books = books::read(connection, &[tenant], &needed(&groups, &standing)).remove(tenant).unwrap_or_default();
    let before = books.clone();
    let key = posting[0].part();
    let charge = standing.remove(&key).filter(|charge| charge.charge_id == charge_id && charge.at == at);
    let charge = charge.expect("a charge that stands, under its tenant's lock");
    let why = Reversal { reason: "credit", note: Some(note.to_owned()) };
    let reversal = reversal(&mut books, key, charge, why, clock::now());
    books::write(connection, tenant, &before, &books);
    let id = reversal.charge_id;
    write_charges(connection, &[reversal]);
    id
}

/// Gives a unit back to the tier and pack that it came from.
fn reversal(
    books: &mut Books,
    (tenant, conversation, part): PartKey,
    charge: Standing,
    why: Reversal,
    now: Instant,
) -> Charge {
    books.account.give_back(charge.period, charge.tier, charge.amount);
    alerts::count(books, charge.at, -1);
    books.last_charge_id += 1;
    Charge {
        unit: Unit {
            tenant: tenant.to_owned(),
            conversation: conversation.to_owned(),
            part,
            at: charge.at,
            policy: charge.policy,
            policy_version: charge.policy_version,
            default_plan: None,
            unless_standing: false,
        },
        charge_id: books.last_charge_id,
        posted_in: books.account.posted_in(charge.period, now).unwrap_or(charge.period),
        period: charge.period,
        tier: charge.tier,
        amount: -charge.amount,
        currency: charge.currency,
        plan: charge.plan,
        reverses: Some((charge.charge_id, why)),
    }
}

fn to_draw<'a>(posting: &'a Posting, standing: &BTreeMap<PartKey, Standing>) -> Option<&'a Unit> {
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
    let books = books::read(connection, &[tenant], &needed).remove(tenant).unwrap_or_default();
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
    write_waiting(connection, &waiting);
    if is_changed || posted.charges.len() > count {
        books::write(connection, tenant, before, &books);
    }
}

/// Draws units, all of one tenant, and returns those at whose instants no plan was in force.
fn draw(books: &mut Books, mut units: Vec<Unit>, posted: &mut Posted) -> Vec<Unit> {
    units.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    let now = clock::now();
    let mut waiting = Vec::new();
    for unit in units {
        let Some(drawn) = books.account.draw(unit.at) else {
            waiting.push(unit);
            continue;
        };
        let (tier, period, used, included) = (drawn.tier, drawn.period, drawn.used, drawn.plan.included);
        books.last_charge_id += 1;
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
        let posted_in = books.account.posted_in(period, now).unwrap_or(period);
        let drawn = Drawn { at: charge.unit.at, tier, period, used, included };
        let raised = alerts::raise(books, &charge.unit.tenant, &drawn, &posted.thresholds);
        posted.alerts.extend(raised);
        posted.charges.push(Charge { posted_in, ..charge });
    }
    waiting
}

const STANDING: OverRows = over_rows!(
    "SELECT wanted.place, c.charge_id, c.charged_at, c.period_start, c.period_end, c.tier, c.pack_id, c.amount::text,
        c.currency, c.plan, c.policy, c.policy_version
    FROM",
    [1 tenant text, 2 conversation text, 3 part int4],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.charge AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.part = wanted.part
            AND own.reverses IS NULL
        OFFSET 0
    ) AS c
    WHERE NOT EXISTS (SELECT FROM talkmeter.charge AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)"
);

const FORGET_WAITING: OverRows = over_rows!(
    "DELETE FROM talkmeter.unplanned_unit AS u USING",
    [1 tenant text, 2 conversation text, 3 part int4],
    "WHERE u.tenant = wanted.tenant AND u.conversation = wanted.conversation AND u.part = wanted.part"
);

// Few charges are ever credited, and they have an index of their own.
const CREDITED: OverRows = over_rows!(
    "SELECT wanted.place FROM",
    [1 tenant text, 2 conversation text, 3 part int4],
    "WHERE EXISTS (
        SELECT FROM talkmeter.charge AS c
        WHERE c.tenant = wanted.tenant AND c.conversation = wanted.conversation AND c.part = wanted.part
            AND c.reason = 'credit')"
);

/// Parts that were credited: they are never charged again.
fn credited<'a>(connection: &Connection, groups: &[&'a [Posting]]) -> HashSet<PartKey<'a>> {
    let is_charge = |posting: &&Posting| matches!(posting, Posting::Charge(_));
    let parts = groups.iter().flat_map(|postings| postings.iter()).filter(is_charge).map(Posting::part);
    let parts: Vec<PartKey> = parts.collect();
    if parts.is_empty() {
        return HashSet::new();
    }
    let rows = connection.run_over(
        &CREDITED,
        parts.len(),
        &[column(&parts, |part| part.0), column(&parts, |part| part.1), column(&parts, |part| part.2)],
    );
    (0..rows.count()).map(|row| parts[rows.value::<i64>(row, 1) as usize - 1]).collect()
}

/// The standing charges of parts that were folded again. Units of theirs that wait are forgotten: those that are still
/// wanted are among the postings.
fn standing<'a>(connection: &Connection, groups: &[&'a [Posting]]) -> BTreeMap<PartKey<'a>, Standing> {
    let postings = || groups.iter().flat_map(|postings| postings.iter());
    let is_settle = |posting: &&Posting| matches!(posting, Posting::Settle(_));
    let may_stand =
        |posting: &&Posting| is_settle(posting) || matches!(posting, Posting::Charge(unit) if unit.unless_standing);
    let settled: Vec<PartKey> = postings().filter(is_settle).map(Posting::part).collect();
    let mut keys: Vec<PartKey> = postings().filter(may_stand).map(Posting::part).collect();
    keys.sort_unstable();
    keys.dedup();
    if keys.is_empty() {
        return BTreeMap::new();
    }
    let by_part = |keys: &[PartKey]| {
        [column(keys, |key| key.0.to_owned()), column(keys, |key| key.1.to_owned()), column(keys, |key| key.2)]
    };
    if !settled.is_empty() {
        connection.run_over(&FORGET_WAITING, settled.len(), &by_part(&settled));
    }
    let rows = connection.run_over(&STANDING, keys.len(), &by_part(&keys));
    let standing = |row| {
        let time = |column| rows.value::<Timestamp>(row, column).bound();
        let tier = match rows.get(row, 7) {
            Some(pack) => Tier::Pack(pack),
            None if rows.value::<String>(row, 6) == Tier::Included.name() => Tier::Included,
            None => Tier::Overage,
        };
        let charge = Standing {
            charge_id: rows.value(row, 2),
            at: time(3),
            period: Period { start: time(4), end: time(5) },
            tier,
            amount: decimal(rows.value(row, 8)),
            currency: rows.value(row, 9),
            plan: rows.value(row, 10),
            policy: rows.value(row, 11),
            policy_version: rows.value(row, 12),
        };
        (keys[rows.value::<i64>(row, 1) as usize - 1], charge)
    };
    (0..rows.count()).map(standing).collect()
}

const WRITE_CHARGES: OverRows = over_rows!(
    "INSERT INTO talkmeter.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end,
        posted_period_start, posted_period_end, tier, pack_id, amount, currency, plan, policy, policy_version, reverses,
        reason, note, posted_by)
    SELECT tenant, charge_id, conversation, part, charged_at, period_start, period_end, posted_period_start,
        posted_period_end, tier, pack_id, amount::numeric, currency, plan, policy, policy_version, reverses, reason, note,
        CASE WHEN reason = 'credit' THEN session_user END
    FROM",
    [
        1 tenant text, 2 charge_id int8, 3 conversation text, 4 part int4, 5 charged_at timestamptz,
        6 period_start timestamptz, 7 tier text, 8 pack_id int8, 9 amount text, 10 currency text, 11 plan text,
        12 policy text, 13 policy_version int4, 14 period_end timestamptz, 15 reverses int8, 16 posted_period_start timestamptz,
        17 reason text, 18 note text, 19 posted_period_end timestamptz
    ],
    ""
);

fn write_charges(connection: &Connection, charges: &[Charge]) {
    for batch in charges.chunks(BATCH) {
        let pack = |charge: &Charge| match charge.tier {
            Tier::Pack(id) => Some(id),
            _ => None,
        };
        connection.run_over(
            &WRITE_CHARGES,
            batch.len(),
            &[
                column(batch, |charge| charge.unit.tenant.as_str()),
                column(batch, |charge| charge.charge_id),
                column(batch, |charge| charge.unit.conversation.as_str()),
                column(batch, |charge| charge.unit.part),
                column(batch, |charge| Timestamp::from(charge.unit.at)),
                column(batch, |charge| Timestamp::from(charge.period.start)),
                column(batch, |charge| charge.tier.name()),
                column(batch, pack),
                column(batch, |charge| charge.amount.to_string()),
                column(batch, |charge| charge.currency.as_str()),
                column(batch, |charge| charge.plan.as_str()),
                column(batch, |charge| charge.unit.policy.as_str()),
                column(batch, |charge| charge.unit.policy_version),
                column(batch, |charge| Timestamp::from(charge.period.end)),
                column(batch, |charge| charge.reverses.as_ref().map(|(id, _)| *id)),
                column(batch, |charge| Timestamp::from(charge.posted_in.start)),
                column(batch, |charge| charge.reverses.as_ref().map(|(_, why)| why.reason)),
                column(batch, |charge| charge.reverses.as_ref().and_then(|(_, why)| why.note.as_deref())),
                column(batch, |charge| Timestamp::from(charge.posted_in.end)),
            ],
        );
    }
}

const WRITE_WAITING: OverRows = insert_rows!(
    "talkmeter.unplanned_unit",
    [1 tenant text, 2 conversation text, 3 part int4, 4 charged_at timestamptz, 5 policy text, 6 policy_version int4],
    ""
);

fn write_waiting(connection: &Connection, units: &[Unit]) {
    for batch in units.chunks(BATCH) {
        connection.run_over(
            &WRITE_WAITING,
            batch.len(),
            &[
                column(batch, |unit| unit.tenant.as_str()),
                column(batch, |unit| unit.conversation.as_str()),
                column(batch, |unit| unit.part),
                column(batch, |unit| Timestamp::from(unit.at)),
                column(batch, |unit| unit.policy.as_str()),
                column(batch, |unit| unit.policy_version),
            ],
        );
    }
}

const TAKE_WAITING: &str = "
    DELETE FROM talkmeter.unplanned_unit AS u
    WHERE u.tenant = $1 AND u.charged_at >= $2
    RETURNING u.conversation, u.part, u.charged_at, u.policy, u.policy_version";

/// Takes the units of a tenant that waited for a plan, those at or after `since`.
fn waiting(connection: &Connection, tenant: &str, since: Instant) -> Vec<Unit> {
    let rows = connection.run(TAKE_WAITING, &[arg(tenant), arg(Timestamp::from(since))]);
    (0..rows.count())
        .map(|row| Unit {
            tenant: tenant.to_owned(),
            conversation: rows.value(row, 1),
            part: rows.value(row, 2),
            at: rows.value::<Timestamp>(row, 3).bound(),
            policy: rows.value(row, 4),
            policy_version: rows.value(row, 5),
            default_plan: None,
            unless_standing: false,
        })
        .collect()
}

/// Posts the units of a tenant that waited for a plan, those at or after `since`. Its lock must be held.
pub fn post_waiting(connection: &Connection, tenant: &str, since: Instant) {
    let units = waiting(connection, tenant, since);
    let mut posted = Posted::nothing(connection);
    draw_anew(connection, tenant, units, &mut posted);
    posted.write(connection);
}
