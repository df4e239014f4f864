//! What does a commit do? It folds what the transaction inserted, draws the charges and writes both, in key order.

use crate::cache;
use crate::error::failure;
use crate::ledger::{self, Unit, Units};
use crate::parts::{BATCH, Batch, Key, Refused};
use crate::quarantine::{self, Entry};
use crate::queue::{self, Chunk, Noted, NotedEvent, Taken};
use crate::rights::{self, as_owner, writing};
use crate::settings;
use crate::sql::{Connection, connected};
use crate::subtransaction::{attempt, code, message, sqlstate};
use pgrx::prelude::*;
use std::ffi::c_void;
use talkmeter_engine::event::Event;
use talkmeter_engine::order::OrderKey;

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

/// Conversations in key order, then tenants.
fn meter(taken: &Taken) {
    let mut units = Units::default();
    let mut sorted = taken.sorted();
    while let Some(chunk) = Chunk::next(&mut sorted) {
        fold(&chunk, &mut units);
        pgrx::check_for_interrupts!();
    }
    ledger::post(units);
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
        Noted::Event(event) => cache::source(order(&event).source()).is_some_and(|source| source.strict),
        Noted::Refused(_) => false,
    };
    let mut sorted = taken.sorted();
    while let Some(chunk) = Chunk::next(&mut sorted) {
        if chunk.records().any(is_strict) {
            return true;
        }
    }
    false
}

/// Puts all rows of the transaction into quarantine and returns how many they are.
fn set_aside(taken: &Taken, reason: &'static str, detail: &str) -> usize {
    let mut rows = 0;
    let mut sorted = taken.sorted();
    while let Some(chunk) = Chunk::next(&mut sorted) {
        let mut entries: Vec<Entry> = Vec::new();
        for record in chunk.records() {
            match record {
                Noted::Refused(entry) => entries.push(entry),
                Noted::Event(event) => add(&mut entries, entry(&event, reason, detail.to_owned())),
            }
        }
        rows += entries.len();
        connected(|connection| quarantine::write(connection, entries));
    }
    rows
}

fn order(event: &NotedEvent) -> OrderKey {
    OrderKey::from_bytes(event.order).expect("an order key was written")
}

fn entry(event: &NotedEvent, reason: &'static str, detail: String) -> Entry {
    let order = order(event);
    Entry {
        source: order.source(),
        message: order.message().map(|message| message.text()),
        tenant: Some(event.tenant.to_owned()),
        conversation: Some(event.conversation.to_owned()),
        at: Some(order.at()),
        reason: reason.into(),
        detail: Some(detail),
    }
}

/// Adds an entry, but a row that is several events only once.
fn add(entries: &mut Vec<Entry>, entry: Entry) {
    let same_row = |last: &Entry| (last.source, &last.message, last.at) == (entry.source, &entry.message, entry.at);
    if !entries.last().is_some_and(same_row) {
        entries.push(entry);
    }
}

fn fold(chunk: &Chunk, units: &mut Units) {
    let mut refused = Vec::new();
    let mut events = Vec::new();
    for record in chunk.records() {
        match record {
            Noted::Refused(entry) => refused.push(entry),
            Noted::Event(event) => events.push(event),
        }
    }
    let mut rest = events.as_slice();
    while !rest.is_empty() {
        let (keys, batch);
        (keys, batch, rest) = split(rest);
        let billable = connected(|connection| fold_batch(connection, &keys, batch, &mut refused));
        billable.iter().for_each(|unit| units.push(unit));
    }
    if !refused.is_empty() {
        connected(|connection| quarantine::write(connection, refused));
    }
}

/// The conversations of the next batch, its events, and the events after it.
fn split<'e, 'a>(events: &'e [NotedEvent<'a>]) -> (Vec<Key<'a>>, &'e [NotedEvent<'a>], &'e [NotedEvent<'a>]) {
    let mut keys: Vec<Key> = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let key = (event.tenant, event.conversation);
        if keys.last() == Some(&key) {
            continue;
        }
        if keys.len() == BATCH {
            return (keys, &events[..index], &events[index..]);
        }
        keys.push(key);
    }
    (keys, events, &[])
}

fn fold_batch(connection: &Connection, keys: &[Key], events: &[NotedEvent], refused: &mut Vec<Entry>) -> Vec<Unit> {
    let mut batch = Batch::lock(connection, keys);
    let mut conversation = 0;
    for event in events {
        if (event.tenant, event.conversation) != keys[conversation] {
            conversation += 1;
        }
        step(&mut batch, conversation, event, refused);
    }
    batch.write()
}

fn step(batch: &mut Batch, conversation: usize, noted: &NotedEvent, refused: &mut Vec<Entry>) {
    let order = order(noted);
    let source = cache::source(order.source()).expect("a source is never deleted");
    let event = Event { at: order.at(), kind: noted.kind, excluded: noted.excluded };
    let entry = match batch.step(conversation, noted.order, event, &source) {
        Ok(()) => return,
        Err(Refused::Late) => {
            let detail = "An event of this conversation that is not earlier is folded already.";
            entry(noted, "late", detail.into())
        }
        Err(Refused::UnknownPolicy) => {
            let detail = format!("No version of policy \"{}\" was in force at its time.", source.policy);
            entry(noted, "unknown_policy", detail)
        }
    };
    if source.strict {
        quarantine::raise(&entry);
    }
    add(refused, entry);
}
