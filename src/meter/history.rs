//! Which events does a conversation have? They are read from the application's own rows, and from marks.

use crate::capture::quarantine::{self, Held};
use crate::catalog::Catalog;
use crate::catalog::source_query::SourceQuery;
use crate::catalog::sources::{Layout, Source};
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::rights::as_table_owner;
use crate::pg::row::Reader;
use crate::pg::sql::{Connection, OverRows, Row, Rows, arg, column, connected, over_rows};
use pgrx::prelude::*;
use std::collections::{BTreeSet, HashMap, HashSet};
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Reading, Value};
use talkmeter_engine::order::OrderKey;
use talkmeter_engine::refold::Placed;

/// A conversation of which events are wanted, those at or after an instant.
pub struct WantedEvents<'a> {
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
pub fn read(connection: &Connection, catalog: &Catalog, wanted: &[WantedEvents]) -> Result<Vec<Log>, Unreadable> {
    let ids = catalog.attached().iter().map(|source| source.id).chain([0]).collect();
    let occupied = quarantine::occupied(connection, ids);
    let mut logs: Vec<Log> = wanted.iter().map(|_| Log::default()).collect();
    for source in readable(catalog)? {
        let found = rows(source, wanted)?;
        take(connection, wanted, &mut logs, found, occupied.contains(&source.id));
    }
    let marked: Vec<(usize, &WantedEvents)> =
        wanted.iter().enumerate().filter(|(_, wanted)| wanted.has_marks).collect();
    if !marked.is_empty() {
        let found = marks(connection, &marked);
        take(connection, wanted, &mut logs, found, occupied.contains(&0));
    }
    for log in &mut logs {
        log.events.sort_unstable_by(|a, b| a.place.cmp(&b.place));
    }
    Ok(logs)
}

/// Every attached message table, if the rows of all can be read.
fn readable(catalog: &Catalog) -> Result<impl Iterator<Item = &Source>, Unreadable> {
    for source in catalog.attached() {
        if let Layout::Broken { because, .. } = &source.layout {
            return Err(Unreadable { because: because.clone() });
        }
    }
    Ok(catalog.attached().iter().map(|source| &**source))
}

/// The conversations that have rows within a span of time, by tenant and id; some may have them only near it.
pub fn conversations(catalog: &Catalog, from: Instant, to: Instant) -> Result<BTreeSet<(String, String)>, Unreadable> {
    let mut found = BTreeSet::new();
    for query in readable(catalog)?.filter_map(|source| source.query.as_ref()) {
        open(query)?;
        as_table_owner(query.owner, || {
            connected(|connection| {
                let args = [arg(Timestamp::from(from)), arg(Timestamp::from(to))];
                let rows = connection.run_composed(&query.conversations, &args);
                found.extend(rows.iter().filter_map(|mut row| row.nullable().zip(row.nullable())));
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

fn take(connection: &Connection, wanted: &[WantedEvents], logs: &mut [Log], found: Vec<Found>, some_held: bool) {
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
fn rows(source: &Source, wanted: &[WantedEvents]) -> Result<Vec<Found>, Unreadable> {
    let Some(query) = &source.query else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for_each_row(source, query, &query.by_conversation, wanted, |_, metered| {
        let Metered { conversation, reading, at } = metered;
        found.extend(reading.kinds.iter().enumerate().map(|(position, kind)| Found {
            conversation,
            place: reading.place(source.id, position),
            event: Event { at, kind: *kind, excluded: reading.excluded.is_some() },
            because: reading.excluded.map(str::to_owned),
        }));
    })?;
    Ok(found)
}

/// Locks the table of a source, or says that its statements mean it no longer.
fn open(query: &SourceQuery) -> Result<(), Unreadable> {
    match query.open() {
        true => Ok(()),
        false => {
            Err(Unreadable { because: "An attached table was renamed or dropped while it was waited for.".into() })
        }
    }
}

/// Refuses rows whose columns are not of the types that the readers read: a datum that is read as what it is not may be
/// any memory of the process.
fn same_types(rows: &Rows, readers: &[Reader]) -> Result<(), Unreadable> {
    let found = rows.base_types(2, readers.len());
    match found.iter().zip(readers).all(|(base_type, reader)| reader.reads(*base_type)) {
        true => Ok(()),
        false => Err(Unreadable { because: "A column of an attached table has another type than it had.".into() }),
    }
}

/// A row that can be metered: the index of its conversation, what it is to the meter, its time.
struct Metered<'r> {
    conversation: usize,
    reading: &'r Reading<'r>,
    at: Instant,
}

/// Gives `each` the rows of a source that can be metered, with what the statement selects after the slots.
fn for_each_row(
    source: &Source,
    query: &SourceQuery,
    statement: &str,
    wanted: &[WantedEvents],
    mut each: impl FnMut(&mut Row, Metered),
) -> Result<(), Unreadable> {
    let Layout::Whole { mapping, readers, .. } = &source.layout else { return Ok(()) };
    let can_be_there = |wanted: &WantedEvents| query.can_hold(wanted.tenant, wanted.conversation);
    let possible: Vec<(usize, &WantedEvents)> =
        wanted.iter().enumerate().filter(|(_, wanted)| can_be_there(wanted)).collect();
    if possible.is_empty() {
        return Ok(());
    }
    open(query)?;
    let args = || {
        [
            arg(possible.iter().map(|(_, wanted)| wanted.tenant).collect::<Vec<_>>()),
            arg(possible.iter().map(|(_, wanted)| wanted.conversation).collect::<Vec<_>>()),
            arg(possible.iter().map(|(_, wanted)| Timestamp::from(wanted.since)).collect::<Vec<_>>()),
        ]
    };
    as_table_owner(query.owner, || {
        connected(|connection| {
            let rows = connection.run_composed(statement, &args());
            same_types(&rows, readers)?;
            for mut row in rows.iter() {
                let (conversation, wanted) = possible[row.ordinal()];
                let values = values(&mut row, readers);
                let Some(reading) = mapping.apply(&values, Instant::LATEST) else { continue };
                // The server may compare more loosely than we do, and what cannot be metered is in quarantine.
                let (Some(at), None) = (reading.at, reading.refusal) else { continue };
                let same = reading.tenant.as_deref() == Some(wanted.tenant)
                    && reading.conversation.as_deref() == Some(wanted.conversation);
                if same && at >= source.starts_at {
                    each(&mut row, Metered { conversation, reading: &reading, at });
                }
            }
            Ok(())
        })
    })
}

/// What the audit trail shows of a row.
pub struct AuditedRow {
    /// The place of its first event.
    pub place: OrderKey,
    /// If the row is the customer's.
    pub customer: Option<String>,
    /// If the row is an AI reply.
    pub model: Option<String>,
    pub stage: Option<String>,
    pub safety_passed: Option<bool>,
}

/// The rows of a conversation from an instant on, in order, with what the audit trail shows of them.
pub fn audited(
    connection: &Connection,
    catalog: &Catalog,
    wanted: WantedEvents,
) -> Result<Vec<AuditedRow>, Unreadable> {
    let wanted = [wanted];
    let mut shown = Vec::new();
    for source in readable(catalog)? {
        let query = source.query.as_ref().and_then(|query| Some((query, query.audit.as_ref()?)));
        let Some((query, statement)) = query else { continue };
        for_each_row(source, query, statement, &wanted, |row, metered| {
            shown.push(AuditedRow {
                place: metered.reading.place(source.id, 0),
                customer: row.nullable().filter(|_: &String| metered.reading.asks()),
                model: row.nullable().filter(|_: &String| metered.reading.answers()),
                stage: row.nullable(),
                safety_passed: row.nullable::<String>().map(|passed| passed == "true"),
            });
        })?;
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

/// The values of the mapping's slots in a row that [`SourceQuery`] selected: the columns that come next.
fn values<'r>(row: &mut Row<'r>, readers: &[Reader]) -> Vec<Value<'r>> {
    let value = |reader: &Reader| {
        let (datum, is_null) = row.datum();
        // SAFETY: the readers were made for the columns that are selected, and the rows live as long as the connection.
        unsafe { reader.read(datum, is_null) }
    };
    readers.iter().map(value).collect()
}

/// Gives `each` the rows of a source that have one of these message ids, as values of the mapping's slots, each with
/// the index of its id; false if its rows cannot be read.
pub fn for_each_message(source: &Source, messages: &[&str], mut each: impl FnMut(usize, &[Value])) -> bool {
    let (Some(query), Layout::Whole { readers, .. }) = (&source.query, &source.layout) else { return false };
    let possible: Vec<usize> = (0..messages.len()).filter(|index| query.can_hold_message(messages[*index])).collect();
    if open(query).is_err() {
        return false;
    }
    as_table_owner(query.owner, || {
        connected(|connection| {
            let ids = arg(possible.iter().map(|index| messages[*index]).collect::<Vec<_>>());
            let rows = connection.run_composed(&query.by_message, &[ids]);
            let is_readable = same_types(&rows, readers).is_ok();
            for mut row in rows.iter().filter(|_| is_readable) {
                each(possible[row.ordinal()], &values(&mut row, readers));
            }
            is_readable
        })
    })
}

const MARKS: OverRows = over_rows!(
    "SELECT wanted.ordinal, m.mark, m.kind, m.occurred_at FROM",
    [1 tenant text, 2 conversation text, 3 since timestamptz],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.marked AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.occurred_at >= wanted.since
        OFFSET 0
    ) AS m"
);

fn marks(connection: &Connection, wanted: &[(usize, &WantedEvents)]) -> Vec<Found> {
    let rows = connection.run_over(
        &MARKS,
        wanted.len(),
        &[
            column(wanted, |(_, wanted)| wanted.tenant),
            column(wanted, |(_, wanted)| wanted.conversation),
            column(wanted, |(_, wanted)| Timestamp::from(wanted.since)),
        ],
    );
    let found = |mut row: Row| {
        let conversation = wanted[row.ordinal()].0;
        let number = row.value();
        let kind = Kind::named(&row.value::<String>()).expect("checked by the table");
        let at = row.value::<Timestamp>().bound();
        let event = Event { at, kind, excluded: false };
        Found { conversation, place: OrderKey::mark(at, kind, number), event, because: None }
    };
    rows.iter().map(found).collect()
}
