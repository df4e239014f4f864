//! How is the ledger read and written?

use crate::billing::posting::{Cause, PartKey, Posting, Unit};
use crate::billing::uncharged;
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::own_table::types::{INT4, INT8, NAME, NUMERIC, TEXT, TIME};
use crate::pg::own_table::{Access, Index, OwnTable, Shape, with_newest};
use crate::pg::sql::{Arg, Connection, OverRows, Row, arg, column, decimal, insert_rows, numeric, over_rows, text_arg};
use pgrx::prelude::*;
use rust_decimal::Decimal;
use std::collections::{BTreeMap, HashSet};
use talkmeter_engine::draw_down::Tier;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

/// Charges written by one statement.
const BATCH: usize = 5_000;

/// A unit with who pays for it, or a charge that is taken back.
pub struct Charge {
    pub unit: Unit,
    pub charge_id: i64,
    pub period: Period,
    /// The period whose statement lists it.
    pub posted_in: Period,
    pub tier: Tier,
    pub amount: Decimal,
    pub currency: String,
    pub plan: String,
    /// The charge that is taken back, and why.
    pub reverses: Option<(i64, Reversal)>,
}

impl Charge {
    fn cause(&self) -> Option<&Cause> {
        self.reverses.as_ref().and_then(|(_, why)| why.cause.as_ref())
    }
}

/// A charge that is not taken back.
pub struct StandingCharge {
    pub charge_id: i64,
    pub at: Instant,
    pub period: Period,
    pub tier: Tier,
    pub amount: Decimal,
    pub currency: String,
    pub plan: String,
    pub policy: String,
    pub policy_version: i32,
    pub outcome: Option<String>,
}

/// Why a charge is taken back.
#[derive(Clone, Debug)]
pub struct Reversal {
    pub reason: &'static str,
    pub note: Option<String>,
    /// The event for which its part was folded again.
    pub cause: Option<Cause>,
}

const CHARGE: &str = "
    SELECT c.conversation, c.part, c.charged_at, c.reverses,
        (SELECT r.charge_id FROM talkmeter.charge AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
    FROM talkmeter.charge AS c
    WHERE c.tenant = $1 AND c.charge_id = $2";

/// Conversation, part and instant of a charge that is not taken back, or an error that says why there is none.
pub fn known_standing(connection: &Connection, tenant: &str, charge_id: i64) -> (String, i32, Instant) {
    let rows = connection.run(CHARGE, &[arg(tenant), arg(charge_id)]);
    let Some(mut row) = rows.first() else {
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("tenant \"{tenant}\" has no charge {charge_id}"))
            .hint("See talkmeter.charges.")
            .raise();
    };
    let charge = (row.value(), row.value(), row.value::<Timestamp>().bound());
    let refused = |detail: String| {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("charge {charge_id} of tenant \"{tenant}\" does not stand"),
        )
        .detail(detail)
        .raise()
    };
    if let Some(reverses) = row.nullable::<i64>() {
        refused(format!("It takes back charge {reverses}."));
    }
    if let Some(by) = row.nullable::<i64>() {
        refused(format!("Charge {by} took it back."));
    }
    charge
}

const STANDING: OverRows = over_rows!(
    "SELECT wanted.ordinal, c.charge_id, c.charged_at, c.period_start, c.period_end, c.tier, c.pack_id, c.amount::text,
        c.currency, c.plan, c.policy, c.policy_version, c.outcome
    FROM",
    [1 tenant text, 2 conversation text, 3 part int4],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.standing_charge AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.part = wanted.part
        OFFSET 0
    ) AS c"
);

const FORGET_WAITING: OverRows = over_rows!(
    "DELETE FROM talkmeter.unplanned_unit AS u USING",
    [1 tenant text, 2 conversation text, 3 part int4],
    "WHERE u.tenant = wanted.tenant AND u.conversation = wanted.conversation AND u.part = wanted.part"
);

/// Few charges are ever credited, and they have an index of their own.
const CREDITED: Index = Index { name: c"charge_credited", columns: &[1, 3, 4] };

/// Parts that were credited: they are never charged again.
pub fn credited<'a>(groups: &[&'a [Posting]]) -> HashSet<PartKey<'a>> {
    let is_charge = |posting: &&Posting| matches!(posting, Posting::Charge(_));
    let mut parts = groups.iter().flat_map(|postings| postings.iter()).filter(is_charge).map(Posting::part).peekable();
    if parts.peek().is_none() {
        return HashSet::new();
    }
    let charges = OwnTable::open(&CHARGES, Access::Reading);
    with_newest(|newest| {
        let is_credited = |part: &PartKey| {
            heed_cancel();
            charges.find(newest, &CREDITED, &[text_arg(part.0), text_arg(part.1), arg(part.2)], |_| ()).is_some()
        };
        parts.filter(is_credited).collect()
    })
}

/// The standing charges of parts that were folded again. Units of theirs that wait are forgotten: those that are still
/// wanted are among the postings.
pub fn standing<'a>(connection: &Connection, groups: &[&'a [Posting]]) -> BTreeMap<PartKey<'a>, StandingCharge> {
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
        uncharged::forget(connection, &settled);
    }
    let rows = connection.run_over(&STANDING, keys.len(), &by_part(&keys));
    rows.iter().map(|mut row| (keys[row.ordinal()], read_standing(&mut row))).collect()
}

fn read_standing(row: &mut Row) -> StandingCharge {
    let charge_id = row.value();
    let at = row.value::<Timestamp>().bound();
    let period = Period { start: row.value::<Timestamp>().bound(), end: row.value::<Timestamp>().bound() };
    let (tier, pack): (String, Option<i64>) = (row.value(), row.nullable());
    StandingCharge {
        charge_id,
        at,
        period,
        tier: match pack {
            Some(pack) => Tier::Pack(pack),
            None if tier == Tier::Included.name() => Tier::Included,
            None => Tier::Overage,
        },
        amount: decimal(&row.value::<String>()),
        currency: row.value(),
        plan: row.value(),
        policy: row.value(),
        policy_version: row.value(),
        outcome: row.nullable(),
    }
}

const CHARGES: Shape = Shape {
    name: c"charge",
    types: &[
        TEXT, INT8, TEXT, INT4, TIME, TIME, TIME, TIME, TIME, TEXT, INT8, NUMERIC, TEXT, TEXT, TEXT, INT4, TEXT, INT8,
        TEXT, TEXT, NAME, TEXT, TEXT, TIME, TIME,
    ],
};

/// The row of a charge that takes nothing back.
fn values(charge: &Charge) -> Vec<Arg> {
    let pack = match charge.tier {
        Tier::Pack(id) => Some(id),
        _ => None,
    };
    let times = [charge.unit.at, charge.period.start, charge.period.end, charge.posted_in.start, charge.posted_in.end];
    let of_unit = [
        text_arg(charge.unit.tenant.as_str()),
        arg(charge.charge_id),
        text_arg(charge.unit.conversation.as_str()),
        arg(charge.unit.part),
    ];
    let paid = [
        text_arg(charge.tier.name()),
        arg(pack),
        arg(numeric(charge.amount)),
        text_arg(charge.currency.as_str()),
        text_arg(charge.plan.as_str()),
        text_arg(charge.unit.policy.as_str()),
        arg(charge.unit.policy_version),
        arg(charge.unit.outcome.as_deref()),
    ];
    let written = of_unit.into_iter().chain(times.map(|at| arg(Timestamp::from(at)))).chain(paid);
    let known: Vec<Arg> = written.collect();
    let of_reversals = CHARGES.types[known.len()..CHARGES.types.len() - 1].iter().map(|oid| Arg::of(*oid, None));
    let posted_at = arg(Timestamp::from(clock::now()));
    known.iter().copied().chain(of_reversals).chain([posted_at]).collect()
}

/// Appends charges to the ledger.
pub fn write_charges(connection: &Connection, charges: &[Charge]) {
    let (reversals, new): (Vec<&Charge>, Vec<&Charge>) = charges.iter().partition(|charge| charge.reverses.is_some());
    write_reversals(connection, &reversals);
    if new.is_empty() {
        return;
    }
    let mut table = OwnTable::open(&CHARGES, Access::Writing);
    with_newest(|newest| {
        for charge in new {
            heed_cancel();
            table.insert(newest, &values(charge));
        }
    });
}

const WRITE_REVERSALS: OverRows = over_rows!(
    "INSERT INTO talkmeter.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end,
        posted_period_start, posted_period_end, tier, pack_id, amount, currency, plan, policy, policy_version, outcome,
        reverses, reason, note, posted_by, cause_source, cause_message_id, cause_at)
    SELECT tenant, charge_id, conversation, part, charged_at, period_start, period_end, posted_period_start,
        posted_period_end, tier, pack_id, amount::numeric, currency, plan, policy, policy_version, outcome, reverses,
        reason, note, session_user,
        (SELECT s.relation_name FROM talkmeter.source AS s WHERE s.source_id = cause_source), cause_message_id, cause_at
    FROM",
    [
        1 tenant text, 2 charge_id int8, 3 conversation text, 4 part int4, 5 charged_at timestamptz,
        6 period_start timestamptz, 7 tier text, 8 pack_id int8, 9 amount text, 10 currency text, 11 plan text,
        12 policy text, 13 policy_version int4, 14 period_end timestamptz, 15 reverses int8,
        16 posted_period_start timestamptz, 17 reason text, 18 note text, 19 posted_period_end timestamptz,
        20 cause_source int4, 21 cause_message_id text, 22 cause_at timestamptz, 23 outcome text
    ],
    ""
);

/// Appends charges that take others back, with who did it and the names of the tables of their causes.
fn write_reversals(connection: &Connection, charges: &[&Charge]) {
    for batch in charges.chunks(BATCH) {
        let pack = |charge: &&Charge| match charge.tier {
            Tier::Pack(id) => Some(id),
            _ => None,
        };
        connection.run_over(
            &WRITE_REVERSALS,
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
                column(batch, |charge| charge.cause().map(|cause| cause.source)),
                column(batch, |charge| charge.cause().and_then(|cause| cause.message.as_deref())),
                column(batch, |charge| charge.cause().map(|cause| Timestamp::from(cause.at))),
                column(batch, |charge| charge.unit.outcome.as_deref()),
            ],
        );
    }
}

const WRITE_WAITING: OverRows = insert_rows!(
    "talkmeter.unplanned_unit",
    [
        1 tenant text, 2 conversation text, 3 part int4, 4 charged_at timestamptz, 5 policy text, 6 policy_version int4,
        7 outcome text
    ],
    ""
);

/// Keeps units at whose instants no plan was in force.
pub fn write_waiting(connection: &Connection, units: &[Unit]) {
    for batch in units.chunks(BATCH) {
        connection.run_over(&WRITE_WAITING, batch.len(), &uncharged::columns(batch));
    }
}

const TAKE_WAITING: &str = "
    DELETE FROM talkmeter.unplanned_unit AS u
    WHERE u.tenant = $1 AND u.charged_at >= $2
    RETURNING u.conversation, u.part, u.charged_at, u.policy, u.policy_version, u.outcome";

/// Takes the units of a tenant that waited for a plan, those at or after `since`.
pub fn take_waiting(connection: &Connection, tenant: &str, since: Instant) -> Vec<Unit> {
    let rows = connection.run(TAKE_WAITING, &[arg(tenant), arg(Timestamp::from(since))]);
    let unit = |mut row: Row| Unit {
        tenant: tenant.to_owned(),
        conversation: row.value(),
        part: row.value(),
        at: row.value::<Timestamp>().bound(),
        policy: row.value(),
        policy_version: row.value(),
        outcome: row.nullable(),
        default_plan: None,
        awaits: None,
        unless_standing: false,
    };
    rows.iter().map(unit).collect()
}
