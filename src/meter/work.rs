//! What does a commit do? It folds what the transaction did to messages, draws the charges and writes both, in key
//! order.

use crate::billing::post;
use crate::billing::posting::{Posting, Postings};
use crate::capture::entry::{self, Entry, Key, MOVED, RowName, TOO_OLD};
use crate::capture::quarantine::{self, Leaving};
use crate::capture::queue::{Chunk, Events, NotedEvent, Operation, Taken};
use crate::catalog::Catalog;
use crate::catalog::away::Away;
use crate::meter::batch::{BATCH, Batch};
use crate::meter::folding::Folding;
use crate::meter::known::Known;
use crate::meter::part_table::{Mark, write_marks};
use crate::meter::refold::{self, Findings, Late, fold_again};
use crate::pg::clock;
use crate::pg::limit::heed_cancel;
use crate::pg::locks::{self, Conversations};
use crate::pg::memory;
use crate::pg::sql::{Connection, connected};
use crate::pg::tags;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, MessageId, OrderKey};
use talkmeter_engine::refold::Changes;
use talkmeter_engine::status;

/// Whether conversations that only go on are locked before they are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Nobody else is likely to be at them: if somebody is, the work is [given up](crate::pg::locks::lost_race).
    Unlocked,
    Locked,
}

/// What quarantine loses and gains, then conversations in key order, then tenants.
pub fn meter(taken: &Taken, manner: Manner) {
    let mut locks = Conversations::begin_unlocked();
    if manner == Manner::Locked || taken.takes_out() {
        locks.lock_tables();
    }
    let away = Away::now();
    let known = Known::gather(taken);
    let mut work = Work { known: &known, manner, locks, away, postings: Postings::default() };
    let mut events = taken.events();
    while let Some(count) = work.foldable(&mut events) {
        work.fold(events.chunk(), count);
        events.forget(count);
        heed_cancel();
    }
    post::post(work.postings, work.locks.then_tenants());
}

/// Entries of quarantine that are held before they are written.
const TOGETHER: usize = 1_000;

/// Puts all rows and marks of the transaction into quarantine and returns how many they are. Waits for nobody who
/// looks at an entry, and takes no temporary space: either may be why nothing could be metered.
pub fn set_aside(taken: &Taken, reason: &'static str, detail: &str) -> usize {
    let known = Known::of_quarantine(taken, Leaving::Passes);
    let mut rows = known.refused_count();
    let mut write = |entries: &mut Vec<Entry>| {
        rows += entries.iter().filter(|entry| entry.removal.is_none()).count();
        connected(|connection| quarantine::write_all(connection, entries));
        heed_cancel();
    };
    let mut entries = Vec::new();
    taken.for_each_event(|event| {
        add_entry(&known, &mut entries, &event, reason, detail);
        if entries.len() > TOGETHER {
            // The next event may be of the same row.
            let last = entries.pop();
            write(&mut entries);
            entries.extend(last);
        }
    });
    write(&mut entries);
    rows
}

/// What quarantine keeps of an event that could not be folded.
fn add_entry(known: &Known, entries: &mut Vec<Entry>, event: &NotedEvent, reason: &'static str, detail: &str) {
    let place = order::key(event.place);
    let entry = Entry::of(event.tenant, event.conversation, &place, reason, detail.to_owned());
    match event.operation {
        Operation::Add => entry::add(entries, entry),
        Operation::Touch | Operation::Backfill => entry::add(entries, Entry { counted: true, ..entry }),
        Operation::Mark | Operation::Moment => {
            let row = entry::RowName { message: None, ..entry.row };
            entries.push(Entry { row, mark: Some(event.name()), ..entry });
        }
        Operation::Remove if !known.was_held(event.place) => {
            entries.push(Entry { removal: Some(event.place.to_vec()), ..entry });
        }
        Operation::Remove | Operation::Delete => {}
    }
}

/// The folding of one commit.
struct Work<'k> {
    known: &'k Known,
    manner: Manner,
    locks: Conversations,
    away: Away,
    postings: Postings,
}

impl Work<'_> {
    /// Reads on, and says how many events can be folded now; `None` if there are no more. A conversation is folded by
    /// one chunk, if it fits into one.
    fn foldable(&mut self, events: &mut Events) -> Option<usize> {
        let chunk = events.fill()?;
        if chunk.whole() > 0 {
            return Some(chunk.whole());
        }
        // One conversation fills the chunk. Events in order can be folded bit by bit; folding again needs them all.
        let needs_all = self.needs_all(chunk);
        let chunk = if needs_all { events.complete() } else { chunk };
        Some(chunk.whole()).filter(|whole| *whole > 0).or(Some(chunk.len()))
    }

    /// Whether all events of the one conversation in the chunk must be known before any is folded.
    fn needs_all(&mut self, chunk: &Chunk) -> bool {
        let Some(event) = chunk.events(1).next() else { return false };
        if self.is_away(event.tenant) {
            return false;
        }
        self.known.has_changes()
            || connected(|connection| {
                let batch = Batch::lock(connection, &mut self.locks, &[conversation(&event)]);
                event.place <= batch.conversations[0].last_event.as_slice()
            })
    }

    fn fold(&mut self, chunk: &Chunk, count: usize) {
        let mut events: Vec<NotedEvent> = Vec::new();
        memory::room(&mut events, count);
        events.extend(chunk.events(count));
        let conversations: Vec<&[NotedEvent]> = events
            .chunk_by(|a, b| conversation(a) == conversation(b))
            .filter(|events| events.iter().any(|event| self.known.has_effect(event)))
            .collect();
        let conversations = self.without_away(conversations);
        for batch in conversations.chunks(BATCH) {
            let postings = connected(|connection| self.fold_batch(connection, batch));
            for posting in &postings {
                heed_cancel();
                self.postings.push(posting);
            }
        }
    }

    /// Takes out the conversations of tenants whose books are not here: what came of them waits in quarantine, to be
    /// metered where the books are (rule 4.8.2).
    fn without_away<'e, 'n>(&mut self, conversations: Vec<&'e [NotedEvent<'n>]>) -> Vec<&'e [NotedEvent<'n>]> {
        let (away, here): (Vec<_>, Vec<_>) =
            conversations.into_iter().partition(|events| self.is_away(events[0].tenant));
        let mut entries = Vec::new();
        let detail = "The books of its tenant are not here: see talkmeter.moves.";
        for events in away {
            let latest = latest_written(events);
            for event in events {
                add_entry(self.known, &mut entries, event, MOVED, detail);
                // It comes after what its transaction wrote, of which nobody will know when it is made.
                if ends_of_moment(event)
                    && let Some(entry) = entries.last_mut()
                {
                    entry.row.at = entry.row.at.max(latest);
                }
            }
        }
        if !entries.is_empty() {
            connected(|connection| quarantine::write_all(connection, &mut entries));
        }
        here
    }

    /// Whether a tenant's books are not here. If they are about to come, or to stay, it waits for that, so that no row
    /// is metered before those that wait: whoever meters them locks out whoever puts more there.
    fn is_away(&mut self, tenant: &str) -> bool {
        if !self.away.has(tenant) {
            return false;
        }
        tags::stay_away(tenant);
        if !self.away.is_current() {
            if self.manner == Manner::Unlocked {
                locks::lost_race();
            }
            self.away = Away::now();
        }
        self.away.has(tenant)
    }

    fn fold_batch(&mut self, connection: &Connection, conversations: &[&[NotedEvent]]) -> Vec<Posting> {
        let keys: Vec<Key> = conversations.iter().map(|events| conversation(&events[0])).collect();
        let mut batch = self.begin(connection, &keys, conversations);
        let mut numbered = number_marks(&mut batch, conversations);
        self.refuse_too_old(&batch, &mut numbered);
        let mut findings = Findings::default();
        let mut late = Vec::new();
        for (index, events) in numbered.iter().enumerate() {
            if self.is_in_order(events, &batch.conversations[index].last_event) {
                for event in events {
                    heed_cancel();
                    step(&mut batch, index, event, &mut findings.refused);
                }
            } else {
                events.iter().for_each(|event| batch.conversations[index].saw(&event.place));
                late.push(self.late(index, events));
            }
        }
        fold_again(&mut batch, late, &mut findings);
        raise_if_strict(&batch.catalog, &findings.refused);
        let postings = batch.write();
        if !findings.released.is_empty() {
            quarantine::release(&findings.released);
        }
        quarantine::write_all(connection, &mut findings.refused);
        postings
    }

    /// Conversations as they are: locked, unless all of them only go on.
    fn begin<'c, 'a>(
        &mut self,
        connection: &'c Connection,
        keys: &[Key<'a>],
        events: &[&[NotedEvent]],
    ) -> Batch<'c, 'a> {
        if self.manner == Manner::Unlocked {
            let batch = Batch::unlocked(connection, keys);
            if !self.away.is_as_of(&batch.catalog) {
                locks::lost_race();
            }
            let mut conversations = batch.conversations.iter().zip(events);
            if conversations.all(|(folding, events)| self.only_goes_on(events, &folding.last_event)) {
                return batch;
            }
        }
        Batch::lock(connection, &mut self.locks, keys)
    }

    fn only_goes_on(&self, events: &[NotedEvent], last_event: &[u8]) -> bool {
        let is_new = |event: &NotedEvent| event.operation == Operation::Add && !self.known.is_truncated(event.place);
        let is_after = |first: &NotedEvent| {
            first.place > last_event && clock::earliest().is_none_or(|earliest| order::time_of(first.place) >= earliest)
        };
        events.first().is_some_and(is_after) && events.iter().all(is_new)
    }

    /// Takes out what is new and came later than `talkmeter.max_past` admits: it waits in quarantine before anything
    /// of its conversation is read again. A row that was an event before stays one (rule 3.5.17).
    fn refuse_too_old(&self, batch: &Batch, numbered: &mut [Vec<NumberedEvent>]) {
        let Some(earliest) = clock::earliest() else { return };
        let mut refused = Vec::new();
        for (index, events) in numbered.iter_mut().enumerate() {
            if events.first().is_none_or(|first| first.event.at >= earliest) {
                continue;
            }
            let Folding { tenant, id, .. } = &batch.conversations[index];
            let changes = self.late(index, events).changes;
            let came = |event: &NumberedEvent| event.operation != Operation::Backfill && !order::is_mark(&event.place);
            let is_old = |event: &NumberedEvent| event.event.at < earliest && came(event);
            let row = |event: &NumberedEvent| RowName::at_place(tenant, id, &order::key(&event.place));
            let known = events.iter().filter(|event| is_old(event) && !changes.is_new(&event.place));
            let known: HashSet<RowName> = known.map(row).collect();
            events.retain(|event| {
                let is_refused = is_old(event) && !known.contains(&row(event));
                if is_refused && event.operation == Operation::Add {
                    let detail = "Its time is further behind the clock than talkmeter.max_past admits.";
                    let row = row(event);
                    let reason = TOO_OLD.into();
                    let entry = Entry { row, reason, detail: Some(detail.to_owned()), ..Entry::default() };
                    entry::add(&mut refused, entry);
                }
                !is_refused
            });
        }
        raise_if_strict(&batch.catalog, &refused);
        quarantine::write_all(batch.connection, &mut refused);
    }

    fn is_in_order(&self, events: &[NumberedEvent], last_event: &[u8]) -> bool {
        let is_added = |event: &NumberedEvent| matches!(event.operation, Operation::Add | Operation::Backfill);
        let only_added = |event: &NumberedEvent| is_added(event) && !self.known.is_truncated(&event.place);
        events.first().is_some_and(|first| *first.place > *last_event) && events.iter().all(only_added)
    }

    fn late(&self, conversation: usize, events: &[NumberedEvent]) -> Late {
        let mut changes = Changes::default();
        let (mut new, mut removed, mut backfilled) = (Vec::new(), Vec::new(), Vec::new());
        let by_place = events.chunk_by(|a, b| a.place == b.place);
        by_place.filter(|events| turned(events)).for_each(|events| changes.turn(&events[0].place));
        for event in events {
            heed_cancel();
            match event.operation {
                Operation::Add | Operation::Mark | Operation::Moment => changes.add(&event.place),
                Operation::Remove | Operation::Delete if self.known.was_held(&event.place) => {
                    changes.touch(&event.place);
                }
                Operation::Remove => {
                    changes.remove(&event.place);
                    removed.push(event.place.to_vec());
                }
                Operation::Delete => drop(changes.delete(&event.place)),
                Operation::Touch => changes.touch(&event.place),
                Operation::Backfill => {
                    changes.touch(&event.place);
                    backfilled.push(event.place.to_vec());
                }
            }
            if matches!(event.operation, Operation::Add | Operation::Touch) {
                new.push(event.place.to_vec());
            }
        }
        changes.keep(|place| self.known.is_gone(place));
        Late { conversation, changes, new, removed, backfilled }
    }
}

fn conversation<'a>(event: &NotedEvent<'a>) -> Key<'a> {
    (event.tenant, event.conversation)
}

/// Whether the event at a place is another than before.
fn turned(events: &[NumberedEvent]) -> bool {
    let mut net: BTreeMap<(Kind, Option<&str>, bool), i64> = BTreeMap::new();
    for NumberedEvent { operation, event, .. } in events {
        let by = match operation {
            Operation::Add => 1,
            Operation::Remove => -1,
            _ => continue,
        };
        *net.entry((event.kind, event.tag.as_deref(), event.excluded)).or_default() += by;
    }
    net.values().sum::<i64>() == 0 && net.values().any(|net| *net > 0)
}

/// An event whose mark, if it is one, has its number.
struct NumberedEvent<'a> {
    place: Cow<'a, [u8]>,
    operation: Operation,
    event: Event,
}

/// Gives marks their numbers, in the order of their calls, and records them.
fn number_marks<'a>(batch: &mut Batch<'_, 'a>, conversations: &[&[NotedEvent<'a>]]) -> Vec<Vec<NumberedEvent<'a>>> {
    let mut marks = Vec::new();
    let mut numbered = Vec::new();
    for (index, events) in conversations.iter().enumerate() {
        let folding = &mut batch.conversations[index];
        let made = events.iter().filter(|event| event.operation.is_mark());
        let mut calls: Vec<i64> = made.map(|event| call(event.place)).collect();
        calls.sort_unstable();
        let latest = if calls.is_empty() { None } else { latest_written(events) };
        let mut own: Vec<NumberedEvent> = Vec::new();
        memory::room(&mut own, events.len());
        for noted in *events {
            heed_cancel();
            let event = Event { excluded: noted.excluded, ..Event::named(noted.name(), order::time_of(noted.place)) };
            if !noted.operation.is_mark() {
                own.push(NumberedEvent { place: Cow::Borrowed(noted.place), operation: noted.operation, event });
                continue;
            }
            let at = latest.filter(|_| ends_of_moment(noted)).map_or(event.at, |latest| event.at.max(latest));
            let before = calls.partition_point(|earlier| *earlier < call(noted.place));
            let number = folding.last_mark + 1 + before as i64;
            marks.push(Mark { key: (folding.tenant, folding.id), number, name: noted.name(), at });
            let place = OrderKey::mark(at, noted.kind, number).as_bytes().to_vec();
            own.push(NumberedEvent {
                place: Cow::Owned(place),
                operation: Operation::Add,
                event: Event { at, ..event },
            });
        }
        if !calls.is_empty() {
            own.sort_by(|a, b| a.place.cmp(&b.place));
        }
        numbered.push(own);
        folding.last_mark += calls.len() as i64;
        folding.changed |= !calls.is_empty();
    }
    if !marks.is_empty() {
        write_marks(batch.connection, &marks);
    }
    numbered
}

/// Whether an event is a mark of the moment that ends something: it comes after the rows of its transaction (rule
/// 2.3.7).
fn ends_of_moment(event: &NotedEvent) -> bool {
    event.operation == Operation::Moment && status::ends(event.kind)
}

/// The latest time of the rows that the transaction wrote into a conversation and left there.
fn latest_written(events: &[NotedEvent]) -> Option<Instant> {
    let written = |events: &&[NotedEvent]| {
        let count = |operation| events.iter().filter(|event| event.operation == operation).count();
        count(Operation::Add) > count(Operation::Remove) + count(Operation::Delete)
    };
    let by_place = events.chunk_by(|a, b| a.place == b.place);
    by_place.filter(written).map(|events| order::time_of(events[0].place)).max()
}

/// The number of the call that a mark without a number was made by.
fn call(place: &[u8]) -> i64 {
    match order::key(place).message() {
        Some(MessageId::Integer(call)) => call,
        _ => 0,
    }
}

fn step(batch: &mut Batch, conversation: usize, event: &NumberedEvent, refused: &mut Vec<Entry>) {
    if batch.step(conversation, &event.place, &event.event).is_err() {
        let folding = &batch.conversations[conversation];
        entry::add(refused, refold::unjudged(folding.tenant, folding.id, &event.place));
    }
}

/// Whether rows of a source raise errors instead of going to quarantine.
pub fn is_strict(catalog: &Catalog, source: i32) -> bool {
    catalog.source(source).is_some_and(|source| source.strict)
}

/// A row of a strict source is an error.
fn raise_if_strict(catalog: &Catalog, refused: &[Entry]) {
    if let Some(entry) = refused.iter().find(|entry| is_strict(catalog, entry.row.source)) {
        quarantine::raise(entry);
    }
}
