//! Which events does a conversation have? They are read from the application's own rows, and from marks.

use crate::cache::{self, Reading, Source};
use crate::clock::Timestamp;
use crate::error::failure;
use crate::over_rows;
use crate::quarantine::{self, Held};
use crate::rights::as_table_owner;
use crate::row::Reader;
use crate::source_query::SourceQuery;
use crate::sql::{Connection, OverRows, Rows, arg, column, connected};
use pgrx::prelude::*;
use std::collections::{BTreeSet, HashMap, HashSet};
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{self, Value};
use talkmeter_engine::order::{MessageId, OrderKey};
use talkmeter_engine::refold::Placed;

/// A conversation of which events are wanted, those at or after an instant.
pub struct Wanted<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub since: Instant,
    /// Whether marks were ever made in it.
    pub has_marks: bool,
}

/// The events of a conversation, in order.
#[derive(Default)]
pub struct Log {
    pub events: Vec<Placed>,
    /// The places of those that are in quarantine because no policy could judge them.
    pub unjudged: HashSet<Vec<u8>>,
    /// By their places, why an `excluded` rule says that events do not count.
    pub because: HashMap<Vec<u8>, String>,
}

/// The attached table whose rows cannot be read, so that nothing can be said of any conversation.
pub struct Unreadable {
    pub because: String,
}

impl Unreadable {
    /// For who wants to know, and not only to meter.
    pub fn raise(self) -> ! {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the rows of an attached table cannot be read",
        )
        .detail(self.because)
        .hint("See talkmeter.health().")
        .raise()
    }
}

/// The events of conversations, in their order.
pub fn read(connection: &Connection, wanted: &[Wanted]) -> Result<Vec<Log>, Unreadable> {
    let sources = cache::attached();
    let ids = sources.iter().map(|source| source.id).chain([0]).collect();
    let occupied = quarantine::occupied(connection, ids);
    let mut logs: Vec<Log> = wanted.iter().map(|_| Log::default()).collect();
    for source in sources.iter() {
        if let Reading::Broken { because, .. } = &source.reading {
            return Err(Unreadable { because: because.clone() });
        }
        let found = rows(source, wanted);
        take(connection, wanted, &mut logs, found, occupied.contains(&source.id));
    }
    let marked: Vec<(usize, &Wanted)> = wanted.iter().enumerate().filter(|(_, wanted)| wanted.has_marks).collect();
    if !marked.is_empty() {
        let found = marks(connection, &marked);
        take(connection, wanted, &mut logs, found, occupied.contains(&0));
    }
    for log in &mut logs {
        log.events.sort_unstable_by(|a, b| a.place.cmp(&b.place));
    }
    Ok(logs)
}

/// The conversations that have rows within a span of time, by tenant and id; some may have them only near it.
pub fn conversations(from: Instant, to: Instant) -> Result<BTreeSet<(String, String)>, Unreadable> {
    let mut found = BTreeSet::new();
    for source in cache::attached().iter() {
        if let Reading::Broken { because, .. } = &source.reading {
            return Err(Unreadable { because: because.clone() });
        }
        let Some(history) = &source.history else { continue };
        as_table_owner(history.owner, || {
            connected(|connection| {
                let args = [arg(Timestamp::from(from)), arg(Timestamp::from(to))];
                let rows = connection.run_composed(&history.conversations, &args);
                for row in 0..rows.count() {
                    found.extend(rows.get(row, 1).zip(rows.get(row, 2)));
                }
            })
        });
    }
    Ok(found)
}

/// An event that was read, with the index of its conversation.
struct Found {
    conversation: usize,
    place: OrderKey,
    event: Event,
    /// Of the `excluded` rule that matched.
    because: Option<String>,
}

fn take(connection: &Connection, wanted: &[Wanted], logs: &mut [Log], found: Vec<Found>, some_held: bool) {
    let mut held = vec![None; found.len()];
    if some_held {
        let key = |found: &Found| (wanted[found.conversation].tenant, wanted[found.conversation].conversation);
        let events: Vec<_> = found.iter().map(|found| (key(found), &found.place)).collect();
        quarantine::held(connection, &events).into_iter().for_each(|(index, reason)| held[index] = Some(reason));
    }
    for (found, held) in found.into_iter().zip(held) {
        let place = found.place.as_bytes().to_vec();
        let log = &mut logs[found.conversation];
        if held == Some(Held::Unjudged) {
            log.unjudged.insert(place.clone());
        }
        if held != Some(Held::Back) {
            if let Some(because) = found.because {
                log.because.insert(place.clone(), because);
            }
            log.events.push(Placed { place, event: found.event });
        }
    }
}

/// The events of the rows of one source.
fn rows(source: &Source, wanted: &[Wanted]) -> Vec<Found> {
    let Some(history) = &source.history else { return Vec::new() };
    let mut found = Vec::new();
    for_each_row(source, history, &history.by_conversation, wanted, |_, _, conversation, reading, at, message| {
        found.extend(reading.kinds.iter().enumerate().map(|(position, kind)| Found {
            conversation,
            place: OrderKey::row(at, source.id, message, position as u16),
            event: Event { at, kind: *kind, excluded: reading.excluded.is_some() },
            because: reading.excluded.map(str::to_owned),
        }));
    });
    found
}

/// Gives `each` the rows of a source that can be metered: as the server holds them, the index of their conversation, what they
/// are to the meter, their time and id.
fn for_each_row(
    source: &Source,
    history: &SourceQuery,
    statement: &str,
    wanted: &[Wanted],
    mut each: impl FnMut(&Rows, usize, usize, &mapping::Reading, Instant, &MessageId),
) {
    let Reading::Whole { mapping, readers, .. } = &source.reading else { return };
    let held: Vec<(usize, &Wanted)> =
        wanted.iter().enumerate().filter(|(_, wanted)| history.can_hold(wanted.tenant, wanted.conversation)).collect();
    if held.is_empty() {
        return;
    }
    let args = || {
        [
            arg(held.iter().map(|(_, wanted)| wanted.tenant).collect::<Vec<_>>()),
            arg(held.iter().map(|(_, wanted)| wanted.conversation).collect::<Vec<_>>()),
            arg(held.iter().map(|(_, wanted)| Timestamp::from(wanted.since)).collect::<Vec<_>>()),
        ]
    };
    as_table_owner(history.owner, || {
        connected(|connection| {
            let rows = connection.run_composed(statement, &args());
            for row in 0..rows.count() {
                let (conversation, wanted) = held[rows.value::<i64>(row, 1) as usize - 1];
                let values = values(&rows, row, readers);
                let Some(reading) = mapping.apply(&values, Instant::LATEST) else { continue };
                // The server may compare more loosely than we do, and what cannot be metered is in quarantine.
                let (Some(message), Some(at), None) = (&reading.message, reading.at, reading.refusal) else { continue };
                let same = reading.tenant.as_deref() == Some(wanted.tenant)
                    && reading.conversation.as_deref() == Some(wanted.conversation);
                if same && at >= source.starts_at {
                    each(&rows, row, conversation, &reading, at, message);
                }
            }
        })
    });
}

/// What the audit trail shows of a row.
pub struct Shown {
    /// The place of its first event.
    pub place: OrderKey,
    pub customer: Option<String>,
    pub model: Option<String>,
    pub stage: Option<String>,
    pub safety_passed: Option<bool>,
}

/// The rows of a conversation from an instant on, in order, with what the audit trail shows of them.
pub fn audited(connection: &Connection, wanted: Wanted) -> Result<Vec<Shown>, Unreadable> {
    let wanted = [wanted];
    let mut shown = Vec::new();
    for source in cache::attached().iter() {
        if let Reading::Broken { because, .. } = &source.reading {
            return Err(Unreadable { because: because.clone() });
        }
        let Some((history, statement)) = source.history.as_ref().and_then(|own| Some((own, own.audit.as_ref()?)))
        else {
            continue;
        };
        let Reading::Whole { readers, .. } = &source.reading else { continue };
        let first = readers.len() + 2;
        for_each_row(source, history, statement, &wanted, |rows, row, _, _, at, message| {
            shown.push(Shown {
                place: OrderKey::row(at, source.id, message, 0),
                customer: rows.get(row, first),
                model: rows.get(row, first + 1),
                stage: rows.get(row, first + 2),
                safety_passed: rows.get::<String>(row, first + 3).map(|passed| passed == "true"),
            });
        });
    }
    let key = (wanted[0].tenant, wanted[0].conversation);
    let places: Vec<_> = shown.iter().map(|shown| (key, &shown.place)).collect();
    let held = quarantine::held(connection, &places);
    let back: HashSet<usize> = held.iter().filter(|(_, held)| *held == Held::Back).map(|(index, _)| *index).collect();
    let mut index = 0..;
    shown.retain(|_| !index.next().is_some_and(|index| back.contains(&index)));
    shown.sort_unstable_by(|a, b| a.place.cmp(&b.place));
    Ok(shown)
}

/// The values of the mapping's slots in a row that [`SourceQuery`] selected.
fn values<'r>(rows: &'r Rows, row: usize, readers: &[Reader]) -> Vec<Value<'r>> {
    let value = |(slot, reader): (usize, &Reader)| {
        let (datum, is_null) = rows.datum(row, slot + 2);
        // SAFETY: the readers were made for the columns that are selected, and the rows live as long as the connection.
        unsafe { reader.read(datum, is_null) }
    };
    readers.iter().enumerate().map(value).collect()
}

/// Gives `each` the rows of a source that have one of these message ids, as values of the mapping's slots, each with the
/// index of its id; false if its rows cannot be read.
pub fn for_each_message(source: &Source, messages: &[&str], mut each: impl FnMut(usize, &[Value])) -> bool {
    let (Some(history), Reading::Whole { readers, .. }) = (&source.history, &source.reading) else { return false };
    let possible: Vec<usize> = (0..messages.len()).filter(|index| history.can_hold_message(messages[*index])).collect();
    as_table_owner(history.owner, || {
        connected(|connection| {
            let ids = arg(possible.iter().map(|index| messages[*index]).collect::<Vec<_>>());
            let rows = connection.run_composed(&history.by_message, &[ids]);
            for row in 0..rows.count() {
                each(possible[rows.value::<i64>(row, 1) as usize - 1], &values(&rows, row, readers));
            }
        })
    });
    true
}

const MARKS: OverRows = over_rows!(
    "SELECT wanted.place, m.mark, m.kind, m.occurred_at FROM",
    [1 tenant text, 2 conversation text, 3 since timestamptz],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.marked AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.occurred_at >= wanted.since
        OFFSET 0
    ) AS m"
);

fn marks(connection: &Connection, wanted: &[(usize, &Wanted)]) -> Vec<Found> {
    let rows = connection.run_over(
        &MARKS,
        wanted.len(),
        &[
            column(wanted, |(_, wanted)| wanted.tenant),
            column(wanted, |(_, wanted)| wanted.conversation),
            column(wanted, |(_, wanted)| Timestamp::from(wanted.since)),
        ],
    );
    let found = |row| {
        let kind = Kind::named(&rows.value::<String>(row, 3)).expect("checked by the table");
        let at = rows.value::<Timestamp>(row, 4).bound();
        Found {
            conversation: wanted[rows.value::<i64>(row, 1) as usize - 1].0,
            place: OrderKey::mark(at, kind, rows.value(row, 2)),
            event: Event { at, kind, excluded: false },
            because: None,
        }
    };
    (0..rows.count()).map(found).collect()
}
