//! How far has a backfill come? Its row says so, and which rows are events since it was begun.

use crate::calls::journal;
use crate::catalog::cache;
use crate::meter::span::Owned;
use crate::pg::clock::Timestamp;
use crate::pg::locks;
use crate::pg::sql::{Arg, Connection, arg};
use serde_json::json;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

/// Where a backfill stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Parts are made.
    Counting,
    /// Their units are charged, in the order of their instants.
    Posting,
    /// Who worked meanwhile is waited for.
    Closing,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Counting => "counting",
            Stage::Posting => "posting",
            Stage::Closing => "closing",
        }
    }

    fn named(name: &str) -> Stage {
        match name {
            "posting" => Stage::Posting,
            "closing" => Stage::Closing,
            _ => Stage::Counting,
        }
    }
}

/// A backfill that is under way, or was interrupted.
#[derive(Clone, Debug)]
pub struct Run {
    pub source: i32,
    pub span: Period,
    pub charges: bool,
    pub stage: Stage,
    /// The last conversation that was counted.
    pub after: Option<Owned>,
    pub conversations: usize,
}

const UNDER_WAY: &str = "
    SELECT r.from_time, r.until_time, r.charges, r.stage, r.conversations, r.after_tenant, r.after_conversation
    FROM talkmeter.backfill_run AS r
    WHERE r.source_id = $1";

/// The backfill of a source that is not finished.
pub fn under_way(connection: &Connection, source: i32) -> Option<Run> {
    let rows = connection.run(UNDER_WAY, &[arg(source)]);
    let mut row = rows.first()?;
    let span = Period { start: row.value::<Timestamp>().bound(), end: row.value::<Timestamp>().bound() };
    let (charges, stage) = (row.value(), Stage::named(&row.value::<String>()));
    let conversations = row.value::<i64>() as usize;
    Some(Run { source, span, charges, stage, conversations, after: row.nullable().zip(row.nullable()) })
}

const BEGIN: &str = "
    INSERT INTO talkmeter.backfill_run (source_id, from_time, until_time, charges, stage)
    VALUES ($1, $2, $3, $4, 'counting')";

const MAKE_GAP: &str = "
    INSERT INTO talkmeter.source_gap (source_id, from_time, until_time, because)
    SELECT s.source_id, $2, s.starts_at, 'before_start'
    FROM talkmeter.source AS s
    WHERE s.source_id = $1 AND s.starts_at > $2";

const START_EARLIER: &str = "
    UPDATE talkmeter.source AS s SET starts_at = $2 WHERE s.source_id = $1 AND s.starts_at > $2";

// What is left of a gap on either side of the span.
const CUT_GAPS: &str = "
    WITH cut AS (
        DELETE FROM talkmeter.source_gap AS g
        WHERE g.source_id = $1 AND g.from_time < $3 AND g.until_time > $2
        RETURNING g.from_time, g.until_time, g.because
    )
    INSERT INTO talkmeter.source_gap (source_id, from_time, until_time, because)
    SELECT $1, c.from_time, $2, c.because FROM cut AS c WHERE c.from_time < $2
    UNION ALL
    SELECT $1, $3, c.until_time, c.because FROM cut AS c WHERE c.until_time > $3";

/// Rows of the source from an instant on, and before it starts, wait for a backfill.
pub fn start_earlier(connection: &Connection, source: i32, from: Instant) {
    let args = [arg(source), arg(Timestamp::from(from))];
    connection.run(MAKE_GAP, &args);
    connection.run(START_EARLIER, &args);
}

/// A backfill begins: from its commit on rows of its span are events, and units of that time wait.
pub fn begin(connection: &Connection, table: &str, run: &Run) {
    locks::sources_for_one();
    let [source, from, until] = of_span(run.source, run.span);
    connection.run(BEGIN, &[source, from, until, arg(run.charges)]);
    start_earlier(connection, run.source, run.span.start);
    connection.run(CUT_GAPS, &of_span(run.source, run.span));
    let (from_time, to_time) = (journal::bound(run.span.start), journal::bound(run.span.end));
    let arguments = json!({"source": table, "from_time": from_time, "to_time": to_time, "charge": run.charges});
    journal::note(connection, "backfill", None, arguments, None);
    cache::announce_change();
}

const COUNTED: &str = "
    UPDATE talkmeter.backfill_run AS r SET after_tenant = $2, after_conversation = $3, conversations = $4
    WHERE r.source_id = $1";

/// More conversations were counted, in this transaction.
pub fn counted(connection: &Connection, run: &Run) {
    let (tenant, conversation) = run.after.as_ref().map(|(tenant, id)| (tenant.as_str(), id.as_str())).unzip();
    let conversations = arg(run.conversations as i64);
    connection.run(COUNTED, &[arg(run.source), arg(tenant), arg(conversation), conversations]);
}

const STAGE: &str = "UPDATE talkmeter.backfill_run AS r SET stage = $2 WHERE r.source_id = $1";

const CHARGED: &str = "
    WITH cut AS (
        DELETE FROM talkmeter.uncharged_span AS g
        WHERE g.source_id = $1 AND g.from_time < $3 AND g.until_time > $2
        RETURNING g.from_time, g.until_time
    )
    INSERT INTO talkmeter.uncharged_span (source_id, from_time, until_time)
    SELECT $1, c.from_time, $2 FROM cut AS c WHERE c.from_time < $2
    UNION ALL
    SELECT $1, $3, c.until_time FROM cut AS c WHERE c.until_time > $3";

// Those that it touches become one with it.
const UNCHARGED: &str = "
    WITH touched AS (
        DELETE FROM talkmeter.uncharged_span AS g
        WHERE g.source_id = $1 AND g.from_time <= $3 AND g.until_time >= $2
        RETURNING g.from_time, g.until_time
    )
    INSERT INTO talkmeter.uncharged_span (source_id, from_time, until_time)
    SELECT $1, LEAST($2, min(t.from_time)), GREATEST($3, max(t.until_time)) FROM touched AS t";

/// A backfill goes on to its next stage. When it closes, units of its span wait no more, unless it charges none.
pub fn go_on(connection: &Connection, run: &Run) {
    connection.run(STAGE, &[arg(run.source), arg(run.stage.name())]);
    if run.stage == Stage::Closing {
        let statement = if run.charges { CHARGED } else { UNCHARGED };
        connection.run(statement, &of_span(run.source, run.span));
    }
    cache::announce_change();
}

const END: &str = "DELETE FROM talkmeter.backfill_run AS r WHERE r.source_id = $1";

/// A backfill is finished.
pub fn end(connection: &Connection, run: &Run) {
    connection.run(END, &[arg(run.source)]);
}

/// A table was dropped: there is nothing to go on with.
pub fn forget(connection: &Connection, source: i32) {
    connection.run(END, &[arg(source)]);
}

fn of_span(source: i32, span: Period) -> [Arg; 3] {
    [arg(source), arg(Timestamp::from(span.start)), arg(Timestamp::from(span.end))]
}

/// The statement that backfills a span.
pub fn call(table: &str, span: Period, charges: bool) -> String {
    let shown = |at: Instant| {
        at.calendar().map_or("-infinity".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S%.6f+00").to_string())
    };
    let table = pgrx::spi::quote_literal(table);
    let more = if charges { "" } else { ", charge => false" };
    format!("CALL talkmeter.backfill({table}, '{}', '{}'{more});", shown(span.start), shown(span.end))
}
