//! Which events of a source were never counted?

use crate::catalog::away::Away;
use crate::catalog::reading::Unreadable;
use crate::catalog::sources::Source;
use crate::meter::span::{Owned, Span};
use crate::pg::progress::Progress;
use crate::pg::sql::Connection;
use crate::reports::recount::{self, Compared};
use std::collections::BTreeMap;
use talkmeter_engine::instant::{Instant, SECOND};
use talkmeter_engine::order;
use talkmeter_engine::part::Part;
use talkmeter_engine::refold::{Placed, lost_rows};

/// Events that were never counted, of one hour or of several that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    pub first: Instant,
    pub last: Instant,
    pub because: &'static str,
    pub events: i64,
}

/// Of rows that are no events: they were there before the source began, or came while it was detached.
const BEFORE_START: &str = "before_start";
const DETACHED: &str = "detached";
/// Of rows that are events: they came without our trigger.
const NOT_SEEN: &str = "not_seen";

/// Conversations compared together.
const TOGETHER: usize = 5_000;
/// Conversations listed together: the table is read once for so many.
const LISTED: usize = 50_000;

/// By reason and hour.
type Hours = BTreeMap<(&'static str, i64), Gap>;

/// All gaps of a span, in the order of time. Events of one reason are one gap if no hour is without any.
pub fn gaps(connection: &Connection, span: &Span) -> Result<Vec<Gap>, Unreadable> {
    let mut hours = Hours::new();
    let mut progress = Progress::begin("gaps", "conversations", span.count_conversations(None)?);
    let (mut after, mut goes_on) = (None, true);
    while goes_on {
        let listed;
        (listed, goes_on) = span.next_conversations(after.as_ref(), LISTED)?;
        for keys in listed.chunks(TOGETHER) {
            // What another server meters was not missed here.
            let here = Away::by_now().without(keys);
            ignored(span, &here, &mut hours)?;
            for compared in recount::of_source(connection, span.source.id, &here) {
                not_seen(span.source.id, &compared, &mut hours);
            }
            progress.advance(keys.len());
        }
        after = listed.last().cloned();
        goes_on = goes_on && after.is_some();
    }
    Ok(merged(hours))
}

fn add(hours: &mut Hours, because: &'static str, first: Instant, last: Instant, events: i64) {
    /// Microseconds.
    const HOUR: i64 = 3_600 * SECOND;
    let hour = |at: Instant| at.0.div_euclid(HOUR);
    for number in hour(first)..=hour(last) {
        let start = first.max(Instant(number.saturating_mul(HOUR)));
        let gap = hours.entry((because, number)).or_insert(Gap { first: start, last: start, because, events: 0 });
        gap.first = gap.first.min(start);
        gap.last = gap.last.max(last.min(Instant((number + 1).saturating_mul(HOUR) - 1)));
    }
    hours.entry((because, hour(first))).and_modify(|gap| gap.events += events);
}

fn merged(hours: Hours) -> Vec<Gap> {
    let mut gaps: Vec<(Gap, i64)> = Vec::new();
    for ((because, hour), gap) in hours {
        match gaps.last_mut() {
            Some((before, last)) if before.because == because && *last + 1 == hour => {
                *last = hour;
                before.last = gap.last;
                before.events += gap.events;
            }
            _ => gaps.push((gap, hour)),
        }
    }
    let mut gaps: Vec<Gap> = gaps.into_iter().map(|(gap, _)| gap).collect();
    gaps.sort_by_key(|gap| (gap.first, gap.because));
    gaps
}

/// Events of rows of a time of which rows are no events.
fn ignored(span: &Span, keys: &[Owned], hours: &mut Hours) -> Result<(), Unreadable> {
    let source: &Source = span.source;
    span.for_each_reading(keys, |_, reading| {
        let events = reading.kinds.len() as i64;
        let at = reading.at.filter(|at| reading.refusal.is_none() && !reading.ignored && source.ignores(*at));
        if let Some(at) = at.filter(|_| events > 0) {
            let because = if source.was_detached_at(at) { DETACHED } else { BEFORE_START };
            add(hours, because, at, at, events);
        }
    })
}

/// Events of a conversation that belong to a part, and that no part has counted.
fn not_seen(source: i32, compared: &Compared, hours: &mut Hours) {
    let Some((log, parts)) = &compared.proof else { return };
    for placed in log.iter().filter(|placed| order::source_of(&placed.place) == source) {
        if part_of(parts, placed).is_some() && part_of(&compared.stored, placed).is_none() {
            add(hours, NOT_SEEN, placed.event.at, placed.event.at, 1);
        }
    }
    // Which of the events within a part it has not counted, it does not know.
    for part in &compared.stored {
        let more = -lost_rows(part, log);
        if more > 0 {
            add(hours, NOT_SEEN, part.started_at, order::time_of(&part.last_event), more);
        }
    }
}

/// The part, of those in the order of time, that an event is of.
fn part_of<'p>(parts: &'p [Part], placed: &Placed) -> Option<&'p Part> {
    let begun = parts.partition_point(|part| part.first_event <= placed.place);
    parts[..begun].last().filter(|part| placed.place <= part.last_event)
}
