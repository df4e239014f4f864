//! Which units are counted and not charged yet? Those that a backfill will charge, in the order of their instants.

use crate::billing::posting::{Awaits, PartKey, Unit};
use crate::pg::clock::Timestamp;
use crate::pg::sql::{Arg, Connection, OverRows, Row, arg, column, insert_rows, over_rows};
use std::cell::Cell;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

thread_local! {
    /// The source and the span of the backfill that counts now: all units that it finds wait for it.
    static COUNTING: Cell<Option<(i32, Period)>> = const { Cell::new(None) };
}

/// Does `work`, the units of which wait for the backfill of a span of a source.
pub fn counting<R>(source: i32, span: Period, work: impl FnOnce() -> R) -> R {
    struct Ended;
    impl Drop for Ended {
        fn drop(&mut self) {
            COUNTING.set(None);
        }
    }
    COUNTING.set(Some((source, span)));
    let _ended = Ended;
    work()
}

/// Divides units into those that wait for a backfill, and those that are charged now.
pub fn apart(units: Vec<Unit>) -> (Vec<Unit>, Vec<Unit>) {
    let counting = COUNTING.get();
    // One that waits for the backfill of another source goes on to.
    let await_it = |mut unit: Unit| {
        let found = |(source, span): (i32, Period)| {
            let last = span.end.plus(-1).max(span.start);
            Awaits { source, at: unit.at.clamp(span.start, last) }
        };
        unit.awaits = unit.awaits.or(counting.map(found));
        unit
    };
    units.into_iter().map(await_it).partition(|unit| unit.awaits.is_some())
}

/// Units written by one statement.
const BATCH: usize = 5_000;

const WRITE: OverRows = insert_rows!(
    "talkmeter.uncharged_unit",
    [
        1 tenant text, 2 conversation text, 3 part int4, 4 charged_at timestamptz, 5 policy text, 6 policy_version int4,
        7 outcome text, 8 default_plan text, 9 source_id int4, 10 span_at timestamptz
    ],
    "ON CONFLICT (tenant, conversation, part) DO UPDATE
    SET charged_at = excluded.charged_at, policy = excluded.policy, policy_version = excluded.policy_version,
        outcome = excluded.outcome, default_plan = excluded.default_plan, source_id = excluded.source_id,
        span_at = excluded.span_at"
);

/// The columns that all units have which wait, for whatever: their parts, instants, policies and outcomes.
pub fn columns(units: &[Unit]) -> [Arg; 7] {
    [
        column(units, |unit| unit.tenant.as_str()),
        column(units, |unit| unit.conversation.as_str()),
        column(units, |unit| unit.part),
        column(units, |unit| Timestamp::from(unit.at)),
        column(units, |unit| unit.policy.as_str()),
        column(units, |unit| unit.policy_version),
        column(units, |unit| unit.outcome.as_deref()),
    ]
}

/// Keeps units that wait. Their tenants must be locked.
pub fn write(connection: &Connection, units: &[Unit]) {
    let awaits = |unit: &Unit| unit.awaits.unwrap_or(Awaits { source: 0, at: unit.at });
    for batch in units.chunks(BATCH) {
        connection.run_over(
            &WRITE,
            batch.len(),
            &[
                &columns(batch)[..],
                &[
                    column(batch, |unit| unit.default_plan.as_deref()),
                    column(batch, |unit| awaits(unit).source),
                    column(batch, |unit| Timestamp::from(awaits(unit).at)),
                ],
            ]
            .concat(),
        );
    }
}

const FORGET: OverRows = over_rows!(
    "DELETE FROM talkmeter.uncharged_unit AS u USING",
    [1 tenant text, 2 conversation text, 3 part int4],
    "WHERE u.tenant = wanted.tenant AND u.conversation = wanted.conversation AND u.part = wanted.part"
);

/// Forgets the units of parts that were folded again: those that are still wanted are posted anew.
pub fn forget(connection: &Connection, parts: &[PartKey]) {
    let args = [
        column(parts, |part| part.0.to_owned()),
        column(parts, |part| part.1.to_owned()),
        column(parts, |part| part.2),
    ];
    connection.run_over(&FORGET, parts.len(), &args);
}

const COUNT: &str = "
    SELECT count(*) FROM talkmeter.uncharged_unit AS u WHERE u.source_id = $1 AND u.span_at >= $2 AND u.span_at < $3";

/// How many units wait for the backfill of a span of a source.
pub fn count(connection: &Connection, source: i32, span: Period) -> usize {
    connection.run(COUNT, &of_span(source, span)).only().value::<i64>() as usize
}

const NEXT_TENANT: &str = "
    SELECT u.tenant FROM talkmeter.uncharged_unit AS u
    WHERE u.source_id = $1 AND u.span_at >= $2 AND u.span_at < $3 AND ($4::text IS NULL OR u.tenant > $4)
    ORDER BY u.tenant
    LIMIT 1";

/// The next tenant, in key order, of whom units wait.
pub fn next_tenant(connection: &Connection, source: i32, span: Period, after: Option<&str>) -> Option<String> {
    let [source, from, until] = of_span(source, span);
    connection.run(NEXT_TENANT, &[source, from, until, arg(after)]).first().map(|mut row| row.value())
}

/// Whether units of a tenant wait for the backfill of a span of a source.
pub fn is_awaited(connection: &Connection, source: i32, span: Period, tenant: &str) -> bool {
    let [source, from, until] = of_span(source, span);
    connection.run(AWAITED, &[source, from, until, arg(tenant)]).count() > 0
}

const AWAITED: &str = "
    SELECT FROM talkmeter.uncharged_unit AS u
    WHERE u.source_id = $1 AND u.span_at >= $2 AND u.span_at < $3 AND u.tenant = $4
    LIMIT 1";

const TAKE: &str = "
    WITH next AS MATERIALIZED (
        SELECT u.tenant, u.conversation, u.part FROM talkmeter.uncharged_unit AS u
        WHERE u.source_id = $1 AND u.span_at >= $2 AND u.span_at < $3 AND u.tenant = $4
        ORDER BY u.charged_at, u.conversation, u.part
        LIMIT $5
    )
    DELETE FROM talkmeter.uncharged_unit AS u USING next AS n
    WHERE u.tenant = n.tenant AND u.conversation = n.conversation AND u.part = n.part
    RETURNING u.conversation, u.part, u.charged_at, u.policy, u.policy_version, u.outcome, u.default_plan";

/// Takes the earliest units of a tenant, at most so many, that wait for the backfill of a span. It must be locked.
pub fn take(connection: &Connection, source: i32, span: Period, tenant: &str, most: usize) -> Vec<Unit> {
    let [source, from, until] = of_span(source, span);
    let unit = |mut row: Row| Unit {
        tenant: tenant.to_owned(),
        conversation: row.value(),
        part: row.value(),
        at: row.value::<Timestamp>().bound(),
        policy: row.value(),
        policy_version: row.value(),
        outcome: row.nullable(),
        default_plan: row.nullable(),
        awaits: None,
        unless_standing: true,
    };
    let rows = connection.run(TAKE, &[source, from, until, arg(tenant), arg(most as i64)]);
    rows.iter().map(unit).collect()
}

fn of_span(source: i32, span: Period) -> [Arg; 3] {
    let at = |at: Instant| arg(Timestamp::from(at));
    [arg(source), at(span.start), at(span.end)]
}
