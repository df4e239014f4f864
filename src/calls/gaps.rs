//! Which rows of a table are events and were never counted? What a backfill would meter.

use crate::calls::attach;
use crate::calls::backfill;
use crate::pg::clock::Timestamp;
use crate::pg::rights::as_owner;
use crate::pg::sql::connected;
use crate::reports::uncounted::{self, Gap};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Period;

/// The spans of time in which rows of an attached table are events by its mapping and were never counted.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn gaps(
    source: pg_sys::Oid,
) -> TableIterator<
    'static,
    (
        name!(from_time, Option<TimestampWithTimeZone>),
        name!(to_time, Option<TimestampWithTimeZone>),
        name!(because, Option<String>),
        name!(events, Option<i64>),
    ),
> {
    let relation = attach::owned_table(source);
    let all_time = Period { start: Instant::BEGINNING, end: Instant::LATEST };
    let gaps = as_owner(|| {
        connected(|connection| {
            let source = attach::attached_source(connection, source, &relation);
            let span = backfill::span_of(connection, &source, all_time);
            uncounted::gaps(connection, &span).unwrap_or_else(|unreadable| unreadable.raise())
        })
    });
    let shown = |at: Instant| Some(Timestamp::from(at).shown());
    let line = |gap: Gap| (shown(gap.first), shown(gap.last.plus(1)), Some(gap.because.to_owned()), Some(gap.events));
    TableIterator::new(gaps.into_iter().map(line).collect::<Vec<_>>())
}
