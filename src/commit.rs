//! What does a commit do? It folds what the transaction did to messages, draws the charges and writes both, in key order.

use crate::cache;
use crate::entry::{Aside, Entry, Key, RowName};
use crate::error::failure;
use crate::ledger::{self, Posting, Postings};
use crate::parts::{BATCH, Batch, Mark, write_marks};
use crate::quarantine;
use crate::queue::{self, Chunk, Noted, NotedEvent, Operation, Taken};
use crate::refold::{self, Findings, Late, fold_again};
use crate::rights::{self, as_owner, writing};
use crate::settings;
use crate::sql::{Connection, connected};
use crate::subtransaction::{attempt, code, message, sqlstate};
use pgrx::prelude::*;
use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::c_void;
use talkmeter_engine::event::Event;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, MessageId, OrderKey};
use talkmeter_engine::refold::Changes;

/// Asks the server to call us when transactions and subtransactions end.
pub fn watch_transactions() {
    // SAFETY: registered once per session, while the library is loaded; the callbacks live as long as the library.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => work_at_commit(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PREPARE
        | pg_sys::XactEvent::XACT_EVENT_ABORT => queue::clear(),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => queue::relabel(subtransaction, parent),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => queue::forget(subtransaction),
        _ => {}
    }
}

fn work_at_commit() {
    if !queue::is_empty() {
        // SAFETY: a commit has no active snapshot, and statements need one to be planned; pushed and popped in pairs. On
        // an error the transaction's abort drops it.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        work();
        // SAFETY: pops the snapshot pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
    }
    queue::close();
}

/// Folds and charges this transaction's rows now instead of at commit (SPEC 3.4).
#[pg_extern(sql = false)]
fn flush() {
    work();
}

/// Folds all that was noted, draws the charges, and writes quarantine. An error of our own is not the application's: its
/// rows go to quarantine instead, unless one comes from a strict source (SPEC 4.4).
pub fn work() {
    // Dropped in the transaction that inserted the rows: there is nothing left to meter them for.
    if !queue::is_empty() && rights::is_installed() {
        let taken = queue::take();
        writing(|| meter_or_set_aside(&taken));
        taken.done();
    }
}

fn meter_or_set_aside(taken: &Taken) {
    if !settings::ENABLED.get() {
        let off = "talkmeter.enabled was off when the transaction committed.";
        as_owner(|| set_aside(taken, "disabled", off));
        return;
    }
    if let Err(error) = attempt(|| as_owner(|| meter(taken))) {
        if passes(code(&error)) || as_owner(|| any_strict(taken)) {
            error.rethrow();
        }
        let detail = format!("{}: {}", sqlstate(code(&error)), message(&error));
        let rows = as_owner(|| set_aside(taken, "internal_error", &detail));
        failure(code(&error), format!("talkmeter could not meter this transaction: {}", message(&error)))
            .detail(format!("{rows} rows were put into talkmeter.quarantine; the transaction itself is not affected."))
            .warn();
    }
}

/// What quarantine loses and gains, then conversations in key order, then tenants.
fn meter(taken: &Taken) {
    let mut work = Work { has_changes: taken.has_changes(), deleted: deleted(taken), ..Work::default() };
    let mut sorted = taken.sorted();
    let mut chunk = Chunk::default();
    while chunk.fill(&mut sorted) {
        let mut count = chunk.whole();
        if count == 0 {
            // One conversation fills the chunk. Events in order can be folded bit by bit; folding again needs them all.
            if work.needs_all(&chunk) {
                chunk.complete(&mut sorted);
            }
            count = match chunk.whole() {
                0 => chunk.len(),
                whole => whole,
            };
        }
        work.fold(&chunk, count);
        chunk.forget(count);
        pgrx::check_for_interrupts!();
    }
    ledger::post(work.postings);
}

/// Tenant, conversation and place.
type EventName = (String, String, Vec<u8>);

/// The rows that were deleted after they were changed: what they were before, in whichever conversation, stays as it was
/// metered.
fn deleted(taken: &Taken) -> HashSet<(i32, String)> {
    let mut rows = HashSet::new();
    if !taken.has_deletes() {
        return rows;
    }
    let mut sorted = taken.sorted();
    let mut chunk = Chunk::default();
    // An event is added before it is removed, and that before it is deleted.
    let (mut of, mut added) = (EventName::default(), 0);
    while chunk.fill(&mut sorted) {
        for record in chunk.records(chunk.len()) {
            let Noted::Event(event) = record else { continue };
            if (of.0.as_str(), of.1.as_str(), of.2.as_slice()) != (event.tenant, event.conversation, event.place) {
                of = (event.tenant.to_owned(), event.conversation.to_owned(), event.place.to_vec());
                added = 0;
            }
            match event.operation {
                Operation::Add => added += 1,
                Operation::Remove => added -= 1,
                Operation::Delete if added > 0 => {
                    let place = key(event.place);
                    rows.extend(place.message().map(|message| (place.source(), message.text())));
                }
                _ => {}
            }
        }
        chunk.forget(chunk.len());
    }
    rows
}

/// Whether an error is for the application to see: it retries a conflict, and it or its DBA asked for an end.
fn passes(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_QUERY_CANCELED
            | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
            | PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN
            | PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW
    )
}

fn any_strict(taken: &Taken) -> bool {
    let is_strict = |record: Noted| match record {
        Noted::Event(event) => cache::source(order::source_of(event.place)).is_some_and(|source| source.strict),
        Noted::Aside(_) | Noted::Truncated(_) => false,
    };
    let mut sorted = taken.sorted();
    let mut chunk = Chunk::default();
    while chunk.fill(&mut sorted) {
        if chunk.records(chunk.len()).any(is_strict) {
            return true;
        }
        chunk.forget(chunk.len());
    }
    false
}

/// Puts all rows and marks of the transaction into quarantine and returns how many they are.
fn set_aside(taken: &Taken, reason: &'static str, detail: &str) -> usize {
    let mut rows = 0;
    let mut work = Work::default();
    let mut sorted = taken.sorted();
    let mut chunk = Chunk::default();
    while chunk.fill(&mut sorted) {
        let (mut asides, mut entries) = (Vec::new(), Vec::new());
        for record in chunk.records(chunk.len()) {
            match record {
                Noted::Aside(aside) => {
                    rows += usize::from(matches!(aside, Aside::Refused(_)));
                    asides.push(aside);
                }
                Noted::Event(event) => work.add_entry(&mut entries, &event, reason, detail),
                Noted::Truncated(_) => {}
            }
        }
        rows += entries.iter().filter(|entry| entry.removal.is_none()).count();
        connected(|connection| {
            work.set_aside(connection, asides);
            quarantine::write(connection, &entries);
        });
        chunk.forget(chunk.len());
    }
    rows
}

fn key(place: &[u8]) -> OrderKey {
    OrderKey::from_bytes(place).expect("an order key was written")
}

/// What one commit has to do, and what it has found out on the way.
#[derive(Default)]
struct Work {
    /// Something other than inserts was noted.
    has_changes: bool,
    /// Sources all of whose rows were taken away.
    truncated: HashSet<i32>,
    /// Rows that were deleted after they were changed.
    deleted: HashSet<(i32, String)>,
    /// Rows that were in quarantine before they were changed: what they were before was no event.
    held_before: HashSet<(i32, String, Instant)>,
    /// Rows that this commit itself puts there.
    refused_now: HashSet<(i32, String)>,
    postings: Postings,
}

impl Work {
    /// Whether all events of the one conversation in the chunk must be known before any is folded.
    fn needs_all(&self, chunk: &Chunk) -> bool {
        let first = chunk.records(1).next();
        let Some(Noted::Event(event)) = first else { return false };
        self.has_changes
            || connected(|connection| {
                let batch = Batch::lock(connection, &[(event.tenant, event.conversation)]);
                event.place <= batch.conversations[0].last_event.as_slice()
            })
    }

    fn fold(&mut self, chunk: &Chunk, count: usize) {
        let mut asides = Vec::new();
        let mut events = Vec::new();
        for record in chunk.records(count) {
            match record {
                Noted::Aside(aside) => asides.push(aside),
                Noted::Truncated(source) => {
                    self.truncated.insert(source);
                }
                Noted::Event(event) => events.push(event),
            }
        }
        if !asides.is_empty() {
            connected(|connection| self.set_aside(connection, asides));
        }
        let conversations: Vec<&[NotedEvent]> = events
            .chunk_by(|a, b| conversation(a) == conversation(b))
            .filter(|events| events.iter().any(|event| self.has_effect(event)))
            .collect();
        for batch in conversations.chunks(BATCH) {
            let postings = connected(|connection| self.fold_batch(connection, batch));
            postings.iter().for_each(|posting| self.postings.push(posting));
        }
    }

    /// A row that is deleted rewrites no bill (SPEC 3.5), unless it comes back in the same commit or was in quarantine.
    fn has_effect(&self, event: &NotedEvent) -> bool {
        event.operation != Operation::Delete || self.was_held(event.place)
    }

    /// In the order of their calls: a row may have come and gone several times.
    fn set_aside(&mut self, connection: &Connection, asides: Vec<Aside>) {
        let (mut refused, mut left) = (Vec::new(), Vec::new());
        for aside in asides {
            match aside {
                Aside::Refused(entry) => {
                    self.leave(connection, &mut left);
                    match &entry.removal {
                        // It was no event before either.
                        Some(place) if self.was_held(place) => {}
                        Some(_) => refused.push(entry),
                        None => {
                            self.refused_now.extend(entry.message.clone().map(|message| (entry.source, message)));
                            refused.push(entry);
                        }
                    }
                }
                Aside::Left(row) => {
                    write_refused(connection, &mut refused);
                    left.push(row);
                }
                Aside::Emptied(source) => {
                    write_refused(connection, &mut refused);
                    self.leave(connection, &mut left);
                    quarantine::empty(source);
                }
            }
        }
        self.leave(connection, &mut left);
        write_refused(connection, &mut refused);
    }

    fn leave(&mut self, connection: &Connection, rows: &mut Vec<RowName>) {
        let rows = std::mem::take(rows);
        if rows.is_empty() {
            return;
        }
        for row in quarantine::leave(connection, &rows) {
            let Some((message, at)) = row.message.zip(row.at) else { continue };
            if !self.refused_now.contains(&(row.source, message.clone())) {
                self.held_before.insert((row.source, message, at));
            }
        }
    }

    /// What quarantine keeps of an event that could not be folded.
    fn add_entry(&self, entries: &mut Vec<Entry>, event: &NotedEvent, reason: &'static str, detail: &str) {
        let entry = Entry::of(event.tenant, event.conversation, &key(event.place), reason, detail.to_owned());
        match event.operation {
            Operation::Add => quarantine::add(entries, entry),
            Operation::Touch => quarantine::add(entries, Entry { counted: true, ..entry }),
            Operation::Mark => entries.push(Entry { message: None, mark: Some(event.kind), ..entry }),
            Operation::Remove if !self.was_held(event.place) => {
                entries.push(Entry { removal: Some(event.place.to_vec()), ..entry });
            }
            Operation::Remove | Operation::Delete => {}
        }
    }

    fn fold_batch(&self, connection: &Connection, conversations: &[&[NotedEvent]]) -> Vec<Posting> {
        let keys: Vec<Key> = conversations.iter().map(|events| conversation(&events[0])).collect();
        let mut batch = Batch::lock(connection, &keys);
        let numbered = number_marks(&mut batch, conversations);
        let mut findings = Findings::default();
        let mut late = Vec::new();
        for (index, events) in numbered.iter().enumerate() {
            if self.is_in_order(events, &batch.conversations[index].last_event) {
                for event in events {
                    step(&mut batch, index, event, &mut findings.refused);
                }
            } else {
                late.push(self.late(index, events));
            }
        }
        fold_again(&mut batch, late, &mut findings);
        if let Some(entry) = findings.refused.iter().find(|entry| is_strict(entry)) {
            quarantine::raise(entry);
        }
        if !findings.released.is_empty() {
            quarantine::leave(connection, &findings.released);
        }
        write_refused(connection, &mut findings.refused);
        batch.write()
    }

    fn is_in_order(&self, events: &[NumberedEvent], last_event: &[u8]) -> bool {
        let only_added = |event: &NumberedEvent| {
            event.operation == Operation::Add && !self.truncated.contains(&order::source_of(&event.place))
        };
        events.first().is_some_and(|first| *first.place > *last_event) && events.iter().all(only_added)
    }

    fn late(&self, conversation: usize, events: &[NumberedEvent]) -> Late {
        let mut changes = Changes::default();
        let (mut new, mut removed) = (Vec::new(), Vec::new());
        for event in events {
            match event.operation {
                Operation::Add | Operation::Mark => changes.add(&event.place),
                Operation::Remove | Operation::Delete if self.was_held(&event.place) => changes.touch(&event.place),
                Operation::Remove => {
                    changes.remove(&event.place);
                    removed.push(event.place.to_vec());
                }
                Operation::Delete => drop(changes.delete(&event.place)),
                Operation::Touch => changes.touch(&event.place),
            }
            if matches!(event.operation, Operation::Add | Operation::Touch) {
                new.push(event.place.to_vec());
            }
        }
        changes.keep(|place| self.is_gone(place));
        Late { conversation, changes, new, removed }
    }

    /// Whether a row that was changed is there no more.
    fn is_gone(&self, place: &OrderKey) -> bool {
        let name = || place.message().map(|message| (place.source(), message.text()));
        self.truncated.contains(&place.source())
            || !self.deleted.is_empty() && name().is_some_and(|name| self.deleted.contains(&name))
    }

    fn was_held(&self, place: &[u8]) -> bool {
        if self.held_before.is_empty() {
            return false;
        }
        let place = key(place);
        place.message().is_some_and(|message| self.held_before.contains(&(place.source(), message.text(), place.at())))
    }
}

fn conversation<'a>(event: &NotedEvent<'a>) -> Key<'a> {
    (event.tenant, event.conversation)
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
        let mut calls: Vec<&[u8]> =
            events.iter().filter(|event| event.operation == Operation::Mark).map(|event| event.place).collect();
        calls.sort_unstable_by_key(|place| call(place));
        let own = events.iter().map(|noted| {
            let at = order::time_of(noted.place);
            let event = Event { at, kind: noted.kind, excluded: noted.excluded };
            let position = calls.iter().position(|place| noted.operation == Operation::Mark && *place == noted.place);
            let Some(position) = position else {
                return NumberedEvent { place: Cow::Borrowed(noted.place), operation: noted.operation, event };
            };
            let number = folding.last_mark + 1 + position as i64;
            marks.push(Mark { key: (folding.tenant, folding.id), number, kind: noted.kind, at });
            let place = OrderKey::mark(at, noted.kind, number).as_bytes().to_vec();
            NumberedEvent { place: Cow::Owned(place), operation: Operation::Add, event }
        });
        numbered.push(own.collect());
        folding.last_mark += calls.len() as i64;
        folding.changed |= !calls.is_empty();
    }
    if !marks.is_empty() {
        write_marks(batch.connection, &marks);
    }
    numbered
}

/// The number of the call that a mark without a number was made by.
fn call(place: &[u8]) -> i64 {
    match key(place).message() {
        Some(MessageId::Integer(call)) => call,
        _ => 0,
    }
}

fn step(batch: &mut Batch, conversation: usize, event: &NumberedEvent, refused: &mut Vec<Entry>) {
    if batch.step(conversation, &event.place, &event.event).is_err() {
        let folding = &batch.conversations[conversation];
        quarantine::add(refused, refold::unjudged(folding.tenant, folding.id, &event.place));
    }
}

fn is_strict(entry: &Entry) -> bool {
    cache::source(entry.source).is_some_and(|source| source.strict)
}

fn write_refused(connection: &Connection, refused: &mut Vec<Entry>) {
    if !refused.is_empty() {
        quarantine::write(connection, refused);
        refused.clear();
    }
}
