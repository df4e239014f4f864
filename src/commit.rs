//! What does a commit do? It folds what the transaction inserted, draws the charges and writes both, in key order.

use crate::cache;
use crate::ledger::{self, Unit, Units};
use crate::parts::{BATCH, Batch, Key, Refused};
use crate::quarantine::{self, Entry};
use crate::queue::{self, Chunk, Noted, NotedEvent};
use crate::rights::as_owner;
use crate::sql::{Connection, connected};
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
    if queue::is_empty() {
        queue::close();
        return;
    }
    // SAFETY: a commit has no active snapshot, and statements need one to be planned; pushed and popped in pairs. On an
    // error the transaction's abort drops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
    work();
    // SAFETY: pops the snapshot pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    queue::close();
}

/// Folds and charges this transaction's rows now instead of at commit (SPEC 3.4).
#[pg_extern(sql = false)]
fn flush() {
    work();
}

/// Folds all that was noted, draws the charges, and writes quarantine: conversations in key order, then tenants.
pub fn work() {
    if queue::is_empty() {
        return;
    }
    let taken = queue::take();
    as_owner(|| {
        let mut units = Units::default();
        let mut sorted = taken.sorted();
        while let Some(chunk) = Chunk::next(&mut sorted) {
            fold(&chunk, &mut units);
            pgrx::check_for_interrupts!();
        }
        ledger::post(units);
    });
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
    connected(|connection| quarantine::write(connection, refused));
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
    let order = OrderKey::from_bytes(noted.order).expect("an order key was written");
    let source = cache::source(order.source()).expect("a source is never deleted");
    let event = Event { at: order.at(), kind: noted.kind, excluded: noted.excluded };
    let (reason, detail) = match batch.step(conversation, noted.order, event, &source) {
        Ok(()) => return,
        Err(Refused::Late) => {
            ("late", "An event of this conversation that is not earlier is folded already.".to_owned())
        }
        Err(Refused::UnknownPolicy) => {
            ("unknown_policy", format!("No version of policy \"{}\" was in force at its time.", source.policy))
        }
    };
    let entry = Entry {
        source: source.id,
        message: order.message().map(|message| message.text()),
        tenant: Some(noted.tenant.to_owned()),
        conversation: Some(noted.conversation.to_owned()),
        at: Some(order.at()),
        reason: reason.into(),
        detail: Some(detail),
    };
    if source.strict {
        quarantine::raise(&entry);
    }
    let same_row = |last: &Entry| {
        (last.source, &last.message, &last.conversation, last.at)
            == (entry.source, &entry.message, &entry.conversation, entry.at)
    };
    // A row that is several events is one row in quarantine.
    if !refused.last().is_some_and(same_row) {
        refused.push(entry);
    }
}
