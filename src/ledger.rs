//! How do billable units become charges? Each tenant is locked, its account read, every unit drawn and written.

use crate::clock::Timestamp;
use crate::locks;
use crate::rights::as_owner;
use crate::spool::{Sorted, Spool};
use crate::sql::{Connection, OverRows, arg, column, connected};
use crate::{insert_rows, over_rows};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::ledger::{Account, Pack, Plan, Subscription, Tier, Usage};
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
            Posting::Charge(unit) => (&unit.tenant, &unit.conversation, unit.part),
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
    tier: Tier,
    amount: Decimal,
    currency: String,
    plan: String,
    /// The charge that is taken back.
    reverses: Option<i64>,
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

/// A tenant's account with the counters that its rows are numbered by.
#[derive(Default)]
struct Books {
    account: Account,
    last_charge_id: i64,
    last_subscription_id: i64,
}

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
    let mut books = read(connection, &tenants, &needed(groups, &standing));
    let mut charges = Vec::new();
    for postings in groups {
        let tenant = postings[0].tenant();
        let mut own = books.remove(tenant).unwrap_or_default();
        let before = own.account.clone();
        let taken_back = take_back(&mut own, postings, &mut standing);
        let is_changed = !taken_back.is_empty();
        charges.extend(taken_back);
        let units: Vec<Unit> = postings.iter().filter_map(|posting| to_draw(posting, &standing)).cloned().collect();
        let default_plan = units.iter().find_map(|unit| unit.default_plan.clone());
        match default_plan.filter(|_| own.account.subscriptions.is_empty()) {
            Some(plan) => {
                let opening = Opening { since: Instant::BEGINNING, plan, anchor_day: 1, policy: None };
                subscribe(connection, tenant, &opening, own.last_subscription_id);
                let units = units.into_iter().chain(waiting(connection, tenant, opening.since)).collect();
                charges.extend(draw_anew(connection, tenant, units));
            }
            None => {
                let (drawn, waiting) = draw(&mut own, units);
                write_waiting(connection, &waiting);
                if is_changed || !drawn.is_empty() {
                    write_account(connection, tenant, &before, &own);
                }
                charges.extend(drawn);
            }
        }
    }
    write_charges(connection, charges);
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
    let reversal = |((tenant, conversation, part), charge): (PartKey, Standing)| {
        books.account.give_back(charge.period, charge.tier, charge.amount);
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
            period: charge.period,
            tier: charge.tier,
            amount: -charge.amount,
            currency: charge.currency,
            plan: charge.plan,
            reverses: Some(charge.charge_id),
        }
    };
    fallen.into_iter().map(reversal).collect()
}

fn to_draw<'a>(posting: &'a Posting, standing: &BTreeMap<PartKey, Standing>) -> Option<&'a Unit> {
    match posting {
        Posting::Charge(unit) if unit.unless_standing && standing.contains_key(&posting.part()) => None,
        Posting::Charge(unit) => Some(unit),
        Posting::Settle(_) => None,
    }
}

/// Draws units, all of one tenant, and writes its account; returns the charges, not yet written.
fn draw_anew(connection: &Connection, tenant: &str, units: Vec<Unit>) -> Vec<Charge> {
    let instants = || units.iter().map(|unit| unit.at);
    let (Some(first), Some(last)) = (instants().min(), instants().max()) else { return Vec::new() };
    let needed = Needed { first, last, packs: Vec::new() };
    let mut books = read(connection, &[tenant], &needed).remove(tenant).unwrap_or_default();
    let before = books.account.clone();
    let (charges, waiting) = draw(&mut books, units);
    write_waiting(connection, &waiting);
    if !charges.is_empty() {
        write_account(connection, tenant, &before, &books);
    }
    charges
}

/// Draws units, all of one tenant, and returns their charges, and the units at whose instants no plan was in force.
fn draw(books: &mut Books, mut units: Vec<Unit>) -> (Vec<Charge>, Vec<Unit>) {
    units.sort_unstable_by(|a, b| a.order().cmp(&b.order()));
    let (mut charges, mut waiting) = (Vec::new(), Vec::new());
    for unit in units {
        match books.account.draw(unit.at) {
            Some(drawn) => {
                books.last_charge_id += 1;
                charges.push(Charge {
                    charge_id: books.last_charge_id,
                    period: drawn.period,
                    tier: drawn.tier,
                    amount: drawn.amount,
                    currency: drawn.plan.currency.clone(),
                    plan: drawn.plan.name.clone(),
                    reverses: None,
                    unit,
                });
            }
            None => waiting.push(unit),
        }
    }
    (charges, waiting)
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

// OFFSET 0 makes each look-up a subquery that is run per tenant, by the key: see `parts` for why.
const READ_ACCOUNTS: OverRows = over_rows!(
    "SELECT a.tenant, a.last_charge_id, a.last_subscription_id FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (SELECT * FROM talkmeter.account AS own WHERE own.tenant = wanted.tenant OFFSET 0) AS a"
);

const READ_SUBSCRIPTIONS: OverRows = over_rows!(
    "SELECT s.tenant, s.since, s.anchor_day, p.name, p.included, p.overage_rate::text, p.currency FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (SELECT * FROM talkmeter.subscription AS own WHERE own.tenant = wanted.tenant OFFSET 0) AS s
    JOIN talkmeter.plan AS p ON p.name = s.plan
    ORDER BY s.tenant, s.subscription_id"
);

const READ_PERIODS: OverRows = over_rows!(
    "SELECT p.tenant, p.period_start, p.period_end, p.included_used, p.pack_used, p.overage_units,
        p.overage_amount::text
    FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.period AS own
        WHERE own.tenant = wanted.tenant AND own.period_start <= $3 AND own.period_end > $2 OFFSET 0
    ) AS p"
);

const READ_PACKS: OverRows = over_rows!(
    "SELECT p.tenant, p.pack_id, p.remaining, p.purchased_at, p.expires_at FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.pack AS own
        WHERE own.tenant = wanted.tenant AND (own.remaining > 0 OR own.pack_id = ANY ($2)) OFFSET 0
    ) AS p
    ORDER BY p.tenant, p.purchased_at, p.pack_id"
);

/// What the books are to hold.
struct Needed {
    /// Periods that hold any instant from the first to the last.
    first: Instant,
    last: Instant,
    /// Packs, by their ids, even if they are empty.
    packs: Vec<i64>,
}

/// The books of tenants.
fn read(connection: &Connection, tenants: &[&str], needed: &Needed) -> BTreeMap<String, Books> {
    let mut all: BTreeMap<String, Books> = BTreeMap::new();
    let rows = connection.run_over(&READ_ACCOUNTS, tenants.len(), &[column(tenants, |tenant| *tenant)]);
    for row in 0..rows.count() {
        let books = all.entry(rows.value(row, 1)).or_default();
        books.last_charge_id = rows.value(row, 2);
        books.last_subscription_id = rows.value(row, 3);
    }
    let rows = connection.run_over(&READ_SUBSCRIPTIONS, tenants.len(), &[column(tenants, |tenant| *tenant)]);
    for row in 0..rows.count() {
        all.entry(rows.value(row, 1)).or_default().account.subscriptions.push(Subscription {
            since: rows.value::<Timestamp>(row, 2).bound(),
            anchor_day: rows.value::<i32>(row, 3) as u32,
            plan: Plan {
                name: rows.value(row, 4),
                included: rows.value(row, 5),
                overage_rate: decimal(rows.value(row, 6)),
                currency: rows.value(row, 7),
            },
        });
    }
    let bounds =
        [column(tenants, |tenant| *tenant), arg(Timestamp::from(needed.first)), arg(Timestamp::from(needed.last))];
    let rows = connection.run_over(&READ_PERIODS, tenants.len(), &bounds);
    for row in 0..rows.count() {
        let time = |column| rows.value::<Timestamp>(row, column).bound();
        let period = Period { start: time(2), end: time(3) };
        let usage = Usage {
            period,
            included_used: rows.value(row, 4),
            pack_used: rows.value(row, 5),
            overage_units: rows.value(row, 6),
            overage_amount: decimal(rows.value(row, 7)),
        };
        all.entry(rows.value(row, 1)).or_default().account.used.insert(period, usage);
    }
    let packs = [column(tenants, |tenant| *tenant), arg(needed.packs.clone())];
    let rows = connection.run_over(&READ_PACKS, tenants.len(), &packs);
    for row in 0..rows.count() {
        let time = |column| rows.value::<Timestamp>(row, column).bound();
        all.entry(rows.value(row, 1)).or_default().account.packs.push(Pack {
            id: rows.value(row, 2),
            remaining: rows.value(row, 3),
            purchased_at: time(4),
            expires_at: time(5),
        });
    }
    all
}

/// Rates and sums are written by us and checked by the tables, so they are numbers that the engine can hold.
fn decimal(text: String) -> Decimal {
    text.parse().unwrap_or_else(|error| panic!("amount {text}: {error}"))
}

const WRITE_ACCOUNT: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_charge_id) VALUES ($1, $2)
    ON CONFLICT (tenant) DO UPDATE SET last_charge_id = excluded.last_charge_id";

const WRITE_PERIODS: &str = "
    INSERT INTO talkmeter.period AS p
        (tenant, period_start, period_end, included_used, pack_used, overage_units, overage_amount)
    SELECT $1, u.period_start, u.period_end, u.included_used, u.pack_used, u.overage_units, u.overage_amount::numeric
    FROM unnest($2::timestamptz[], $3::timestamptz[], $4::int8[], $5::int8[], $6::int8[], $7::text[])
        AS u (period_start, period_end, included_used, pack_used, overage_units, overage_amount)
    ON CONFLICT (tenant, period_start, period_end) DO UPDATE
    SET included_used = excluded.included_used, pack_used = excluded.pack_used,
        overage_units = excluded.overage_units, overage_amount = excluded.overage_amount";

const WRITE_PACKS: &str = "
    UPDATE talkmeter.pack AS p SET remaining = u.remaining
    FROM unnest($2::int8[], $3::int8[]) AS u (pack_id, remaining)
    WHERE p.tenant = $1 AND p.pack_id = u.pack_id";

fn write_account(connection: &Connection, tenant: &str, before: &Account, books: &Books) {
    connection.run(WRITE_ACCOUNT, &[arg(tenant), arg(books.last_charge_id)]);
    let used: Vec<&Usage> = books
        .account
        .used
        .iter()
        .filter(|(start, usage)| before.used.get(start) != Some(usage))
        .map(|(_, usage)| usage)
        .collect();
    let times =
        |time: fn(&Usage) -> Instant| arg(used.iter().map(|usage| Timestamp::from(time(usage))).collect::<Vec<_>>());
    let counts = |count: fn(&Usage) -> i64| arg(used.iter().map(|usage| count(usage)).collect::<Vec<_>>());
    connection.run(
        WRITE_PERIODS,
        &[
            arg(tenant),
            times(|usage| usage.period.start),
            times(|usage| usage.period.end),
            counts(|usage| usage.included_used),
            counts(|usage| usage.pack_used),
            counts(|usage| usage.overage_units),
            arg(used.iter().map(|usage| usage.overage_amount.to_string()).collect::<Vec<_>>()),
        ],
    );
    let drawn = books.account.packs.iter().zip(&before.packs).filter(|(now, then)| now.remaining != then.remaining);
    let (ids, remaining): (Vec<i64>, Vec<i64>) = drawn.map(|(pack, _)| (pack.id, pack.remaining)).unzip();
    if !ids.is_empty() {
        connection.run(WRITE_PACKS, &[arg(tenant), arg(ids), arg(remaining)]);
    }
}

const WRITE_CHARGES: OverRows = over_rows!(
    "INSERT INTO talkmeter.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end,
        posted_period_start, tier, pack_id, amount, currency, plan, policy, policy_version, reverses, reason)
    SELECT tenant, charge_id, conversation, part, charged_at, period_start, period_end, period_start, tier, pack_id,
        amount::numeric, currency, plan, policy, policy_version, reverses,
        CASE WHEN reverses IS NOT NULL THEN 'refold' END
    FROM",
    [
        1 tenant text, 2 charge_id int8, 3 conversation text, 4 part int4, 5 charged_at timestamptz,
        6 period_start timestamptz, 7 tier text, 8 pack_id int8, 9 amount text, 10 currency text, 11 plan text,
        12 policy text, 13 policy_version int4, 14 period_end timestamptz, 15 reverses int8
    ],
    ""
);

fn write_charges(connection: &Connection, charges: Vec<Charge>) {
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
                column(batch, |charge| charge.reverses),
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

/// A subscription to be made.
pub struct Opening {
    pub since: Instant,
    pub plan: String,
    pub anchor_day: i32,
    pub policy: Option<String>,
}

const WRITE_SUBSCRIPTION: &str = "
    INSERT INTO talkmeter.subscription (tenant, subscription_id, since, plan, timezone, anchor_day, policy)
    VALUES ($1, $2, $3, $4, 'UTC', $5, $6)";

const COUNT_SUBSCRIPTION: &str = "
    INSERT INTO talkmeter.account AS a (tenant, last_subscription_id) VALUES ($1, $2)
    ON CONFLICT (tenant) DO UPDATE SET last_subscription_id = excluded.last_subscription_id";

fn subscribe(connection: &Connection, tenant: &str, opening: &Opening, last_id: i64) -> i64 {
    let id = last_id + 1;
    connection.run(COUNT_SUBSCRIPTION, &[arg(tenant), arg(id)]);
    connection.run(
        WRITE_SUBSCRIPTION,
        &[
            arg(tenant),
            arg(id),
            arg(Timestamp::from(opening.since)),
            arg(opening.plan.as_str()),
            arg(opening.anchor_day),
            arg(opening.policy.as_deref()),
        ],
    );
    id
}

/// Puts a tenant on a plan and posts the units that waited for one, those at or after its `since` (SPEC 4.2). Returns the
/// subscription's id.
pub fn open_subscription(tenant: &str, opening: &Opening) -> i64 {
    as_owner(|| {
        connected(|connection| {
            locks::tenants(connection, &[tenant]);
            let needed = Needed { first: opening.since, last: opening.since, packs: Vec::new() };
            let books = read(connection, &[tenant], &needed).remove(tenant).unwrap_or_default();
            let id = subscribe(connection, tenant, opening, books.last_subscription_id);
            let units = waiting(connection, tenant, opening.since);
            let charges = draw_anew(connection, tenant, units);
            write_charges(connection, charges);
            id
        })
    })
}
