//! Which events does a conversation have? They are read from the application's own rows, and from marks.

use crate::capture::quarantine::{self, Held};
use crate::catalog::Catalog;
use crate::catalog::reading::{self, Patience, Unreadable};
use crate::catalog::source_query::SourceQuery;
use crate::catalog::sources::{Layout, Source};
use crate::pg::clock::Timestamp;
use crate::pg::error::damaged;
use crate::pg::limit::heed_cancel;
use crate::pg::memory;
use crate::pg::sql::{Arg, Connection, OverRows, Row, arg, column, over_rows};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use talkmeter_engine::event::{Event, Name};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Reading, Refusal};
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::refold::Placed;

/// A conversation of which events are wanted, those at or after an instant.
pub struct WantedEvents<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub since: Instant,
    /// The attached tables that have had events in it. No other is read: whoever owns one has no part in it.
    pub sources: Vec<i32>,
    /// Whether marks were ever made in it.
    pub has_marks: bool,
    /// What is known already of the tables that were read as a whole: they are not read again.
    pub scanned: Vec<Scanned>,
}

/// The events of a conversation that one source gives, found when the table was read as a whole.
#[derive(Default)]
pub struct Scanned {
    pub source: i32,
    pub events: Vec<Placed>,
    /// The time of a row that is read by a version of the mapping that cannot be read any more.
    pub broken: Option<Instant>,
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

/// The events of conversations, in their order; of each for itself, which of its tables cannot be read. What was
/// scanned is taken.
pub fn read(
    connection: &Connection,
    catalog: &Catalog,
    wanted: &mut [WantedEvents],
    patience: Patience,
) -> Vec<Result<Log, Unreadable>> {
    let ids = catalog.attached().iter().map(|source| source.id).chain([0]).collect();
    let occupied = quarantine::occupied(connection, ids);
    let mut logs: Vec<Log> = wanted.iter().map(|_| Log::default()).collect();
    let mut unreadable = HashMap::new();
    let mut broken: HashMap<usize, Unreadable> = HashMap::new();
    for source in catalog.attached() {
        match rows(source, wanted, patience, &mut broken) {
            Ok(mut found) => {
                let some_held = occupied.contains(&source.id);
                for (conversation, mut events) in scanned(source, wanted, &mut broken) {
                    if some_held {
                        found.extend(events.into_iter().map(|placed| Found::scanned(conversation, placed)));
                    } else {
                        logs[conversation].events.append(&mut events);
                    }
                }
                take(connection, wanted, &mut logs, found, some_held);
            }
            Err(because) => drop(unreadable.insert(source.id, because)),
        }
    }
    let marked: Vec<(usize, &WantedEvents)> =
        wanted.iter().enumerate().filter(|(_, wanted)| wanted.has_marks).collect();
    if !marked.is_empty() {
        let found = marks(connection, &marked);
        take(connection, wanted, &mut logs, found, occupied.contains(&0));
    }
    let each = wanted.iter().zip(logs).enumerate().map(|(index, (wanted, mut log))| {
        let of_table = || wanted.sources.iter().find_map(|source| unreadable.get(source));
        if let Some(because) = of_table().or_else(|| broken.get(&index)) {
            return Err(because.clone());
        }
        log.events.sort_unstable_by(|a, b| {
            heed_cancel();
            a.place.cmp(&b.place)
        });
        Ok(log)
    });
    each.collect()
}

/// Conversations by tenant and id, each with the tables in which it was found.
pub type Conversations = BTreeMap<(String, String), BTreeSet<i32>>;

/// As [`conversations_of`]; if the table cannot be read, a warning says so.
pub fn conversations(source: &Source, from: Instant, to: Instant, found: &mut Conversations) {
    if let Err(because) = conversations_of(source, from, to, found) {
        because.warn();
    }
}

/// The conversations that have rows of one source within a span of time; some may have them only near it.
pub fn conversations_of(
    source: &Source,
    from: Instant,
    to: Instant,
    found: &mut Conversations,
) -> Result<(), Unreadable> {
    let args = [arg(Timestamp::from(from)), arg(Timestamp::from(to))];
    reading::queries(source)?.all.iter().try_for_each(|query| {
        reading::for_each_row(query, &query.conversations, &args, &[], Patience::OfCaller, |_, _, row| {
            if let Some(key) = row.nullable().zip(row.nullable()) {
                found.entry(key).or_default().insert(source.id);
            }
        })
    })
}

/// The conversations of a tenant that have a row of one source that names a customer.
pub fn conversations_of_customer(
    source: &Source,
    tenant: &str,
    customer: &str,
    found: &mut BTreeSet<String>,
) -> Result<(), Unreadable> {
    reading::queries(source)?.all.iter().try_for_each(|query| {
        let Some(statement) = &query.of_customer else { return Ok(()) };
        reading::for_each_row(query, statement, &[arg(customer)], &[], Patience::OfCaller, |_, _, row| {
            let own: Option<String> = row.nullable();
            let conversation: Option<String> = row.nullable();
            found.extend(conversation.filter(|_| own.as_deref() == Some(tenant)));
        })
    })
}

/// The name of the table of a source, and how many rows of a conversation it holds, whatever they are by its mapping:
/// of those without a time, those that are in quarantine.
pub fn count_rows(
    source: &Source,
    tenant: &str,
    conversation: &str,
    quarantined: &[String],
) -> Result<(String, usize), Unreadable> {
    let queries = reading::queries(source)?;
    let Layout::Whole { mapping, readers, .. } = &source.layout else { unreachable!("a source that can be read") };
    let mut count = 0;
    for query in queries.all.iter().filter(|query| query.can_hold(tenant, conversation)) {
        let args = query.of_conversations(&[(tenant, conversation, Instant::BEGINNING)]);
        reading::for_each_row(query, &query.by_conversation, &args, readers, Patience::OfCaller, |_, values, _| {
            let reading = mapping.pick_all(values, Instant::LATEST).1;
            let is_it = reading.row.conversation.as_deref() == Some(conversation)
                && reading.row.tenant.as_deref() == Some(tenant);
            count += usize::from(is_it);
        })?;
    }
    if count == 0 {
        let messages: Vec<&str> = quarantined.iter().map(String::as_str).collect();
        reading::for_each_message(source, &messages, |_, _| count += 1)?;
    }
    Ok((queries.all[0].name.clone(), count))
}

/// An event that was read, with the index of its conversation.
struct Found {
    conversation: usize,
    place: OrderKey,
    event: Event,
    /// Of the `excluded` rule that matched.
    because: Option<String>,
}

impl Found {
    fn scanned(conversation: usize, Placed { place, event, .. }: Placed) -> Found {
        Found { conversation, place: order::key(&place), event, because: None }
    }
}

fn take(connection: &Connection, wanted: &[WantedEvents], logs: &mut [Log], found: Vec<Found>, some_held: bool) {
    let mut held = memory::collected(found.iter().map(|_| None));
    if some_held {
        let key = |found: &Found| (wanted[found.conversation].tenant, wanted[found.conversation].conversation);
        let events = memory::collected(found.iter().map(|found| (key(found), &found.place)));
        quarantine::held(connection, &events).into_iter().for_each(|(index, reason)| held[index] = Some(reason));
    }
    let are_alone = if some_held { alone_in_their_rows(&found) } else { Vec::new() };
    for (index, (found, held)) in found.into_iter().zip(held).enumerate() {
        heed_cancel();
        let place = found.place.into_bytes();
        let log = &mut logs[found.conversation];
        let is_unjudged = held == Some(Held::Unjudged);
        let waits = is_unjudged && are_alone[index];
        if is_unjudged {
            log.unjudged.insert(place.clone());
        }
        if held != Some(Held::Back) {
            if let Some(because) = found.because {
                log.because.insert(place.clone(), because);
            }
            memory::room(&mut log.events, 1);
            log.events.push(Placed { place, event: found.event, waits });
        }
    }
}

/// Whether each event, of those that come in the order of their rows, is the only one of its row.
fn alone_in_their_rows(found: &[Found]) -> Vec<bool> {
    let row = |found: &Found| (found.conversation, found.place.source(), found.place.message());
    let is_same = |index: usize, other: Option<usize>| {
        other.and_then(|other| found.get(other)).is_some_and(|other| row(other) == row(&found[index]))
    };
    let has_another = |index: usize| is_same(index, index.checked_sub(1)) || is_same(index, Some(index + 1));
    (0..found.len()).map(|index| !has_another(index)).collect()
}

/// The events of the rows of one source. `broken` learns of conversations of which the version of the mapping that is
/// in force at the time of a row cannot be read.
fn rows(
    source: &Source,
    wanted: &[WantedEvents],
    patience: Patience,
    broken: &mut HashMap<usize, Unreadable>,
) -> Result<Vec<Found>, Unreadable> {
    let mut found = Vec::new();
    // A commit never reads a whole table, whatever the planner thinks of it.
    let by_conversation: Statement = match patience {
        Patience::OfCommit => |query| Some(&query.by_conversation),
        Patience::OfCaller => |query| Some(&query.of_many),
    };
    for_each_row(source, by_conversation, wanted, patience, |_, metered| {
        let Metered { conversation, reading, at, .. } = metered;
        if reading.refusal.is_some() {
            broken.entry(conversation).or_insert_with(|| reading::broken_version(source, at));
            return;
        }
        memory::room(&mut found, reading.kinds.len());
        found.extend(reading.events().enumerate().map(|(index, event)| Found {
            conversation,
            place: reading.place(source.id, index),
            event,
            because: reading.excluded.map(str::to_owned),
        }));
    })?;
    Ok(found)
}

/// What is known already of the rows of one source, with the indexes of their conversations.
fn scanned(
    source: &Source,
    wanted: &mut [WantedEvents],
    broken: &mut HashMap<usize, Unreadable>,
) -> Vec<(usize, Vec<Placed>)> {
    let mut all = Vec::new();
    for (index, wanted) in wanted.iter_mut().enumerate().filter(|(_, wanted)| wanted.sources.contains(&source.id)) {
        for own in wanted.scanned.iter_mut().filter(|own| own.source == source.id) {
            if let Some(at) = own.broken {
                broken.entry(index).or_insert_with(|| reading::broken_version(source, at));
            }
            all.push((index, std::mem::take(&mut own.events)));
        }
    }
    all
}

/// Events of a row that were metered at one time: the index of their conversation, what they are to the meter, their
/// time, and which version of the mapping says so. They are refused if that version cannot be read any more.
struct Metered<'r> {
    conversation: usize,
    reading: &'r Reading<'r>,
    at: Instant,
    version: usize,
}

/// Which of the statements of a source, if it has it.
type Statement = fn(&SourceQuery) -> Option<&String>;

/// Gives `each` the rows of a source that can be metered, with what the statement selects after the slots; a row whose
/// events have times of their own once for each. Nothing is read if the source had no events in any of the
/// conversations, or if there is no such statement.
fn for_each_row(
    source: &Source,
    statement: Statement,
    wanted: &[WantedEvents],
    patience: Patience,
    mut each: impl FnMut(&mut Row, Metered),
) -> Result<(), Unreadable> {
    let is_scanned = |wanted: &WantedEvents| wanted.scanned.iter().any(|scanned| scanned.source == source.id);
    let had_events = |wanted: &WantedEvents| wanted.sources.contains(&source.id) && !is_scanned(wanted);
    if !wanted.iter().any(had_events) {
        return Ok(());
    }
    let queries = reading::queries(source)?;
    let Layout::Whole { mapping, readers, .. } = &source.layout else { return Ok(()) };
    for (index, query) in queries.all.iter().enumerate() {
        let can_be_there =
            |wanted: &WantedEvents| had_events(wanted) && query.can_hold(wanted.tenant, wanted.conversation);
        let possible: Vec<(usize, &WantedEvents)> =
            wanted.iter().enumerate().filter(|(_, wanted)| can_be_there(wanted)).collect();
        let Some(statement) = statement(query).filter(|_| !possible.is_empty()) else { continue };
        reading::for_each_row(query, statement, &args(query, &possible), readers, patience, |ordinal, values, row| {
            let (conversation, wanted) = possible[ordinal as usize - 1];
            let (version, readings) = mapping.pick_all(values, Instant::LATEST);
            let shared = &readings.row;
            let same = shared.tenant.as_deref() == Some(wanted.tenant)
                && shared.conversation.as_deref() == Some(wanted.conversation);
            // The server may compare more loosely than we do, and what cannot be metered is in quarantine.
            if !same || shared.ignored || !queries.gives(index, version) {
                return;
            }
            for reading in readings.iter().filter(|reading| !reading.kinds.is_empty() || reading.refusal.is_some()) {
                let (Some(at), None | Some(Refusal::MappingBroken)) = (reading.at, reading.refusal) else { continue };
                if at >= wanted.since && !source.ignores(at) {
                    each(&mut row.clone(), Metered { conversation, reading, at, version });
                }
            }
        })?;
    }
    Ok(())
}

/// The parameters of a statement that reads the rows of conversations.
pub fn args(query: &SourceQuery, wanted: &[(usize, &WantedEvents)]) -> Vec<Arg> {
    let keys: Vec<_> = wanted.iter().map(|(_, wanted)| (wanted.tenant, wanted.conversation, wanted.since)).collect();
    query.of_conversations(&keys)
}

/// What the audit trail shows of a row.
pub struct AuditedRow {
    /// The place of its first event, or of one that has a time of its own.
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
    for source in catalog.attached() {
        let audit: Statement = |query| query.audit.as_ref();
        for_each_row(source, audit, &wanted, Patience::OfCaller, |row, metered| {
            if metered.reading.refusal.is_some() {
                return;
            }
            // Of each version of the mapping the same four.
            let mut columns = (0..=metered.version).map(|_| [(); 4].map(|()| row.nullable::<String>()));
            let [customer, model, stage, safety_passed] = columns.nth(metered.version).unwrap_or_default();
            shown.push(AuditedRow {
                place: metered.reading.place(source.id, 0),
                customer: customer.filter(|_| metered.reading.asks()),
                model: model.filter(|_| metered.reading.answers()),
                stage,
                safety_passed: safety_passed.map(|passed| passed == "true"),
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
        heed_cancel();
        let conversation = wanted[row.ordinal()].0;
        let number = row.value();
        let name =
            Name::stored(&row.value::<String>()).unwrap_or_else(|| damaged("a mark is of no known kind".to_owned()));
        let at = row.value::<Timestamp>().bound();
        let place = OrderKey::mark(at, name.kind, number);
        Found { conversation, place, event: Event::named(name, at), because: None }
    };
    rows.iter().map(found).collect()
}
