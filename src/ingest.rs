//! What happens when the application changes rows of an attached table? Their events are noted, nothing more.

use crate::cache::{self, Reading, Role, Source, Standing};
use crate::clock;
use crate::quarantine::{self, Entry};
use crate::queue::{self, Aside, Message, Operation, RowName};
use crate::row;
use crate::settings;
use crate::trigger::{self, Call};
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{self, Mapping, Value};
use talkmeter_engine::order::OrderKey;

/// # Safety
/// The server calls it, with the call information that it gives to every function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_insert(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::INSERT) };
    if let Some(source) = source(&call) {
        note_new(call.data, &source);
    }
    pg_sys::Datum::from(0usize)
}

/// # Safety
/// As of [`on_insert`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_update(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::UPDATE) };
    if let Some(source) = source(&call) {
        note_changed(&call, &source);
    }
    pg_sys::Datum::from(0usize)
}

/// # Safety
/// As of [`on_insert`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_delete(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::DELETE) };
    // What was metered stays, so only rows that are still to be metered matter.
    if !queue::is_empty() {
        if let Some(source) = source(&call) {
            note_deleted(call.data, &source);
        }
    }
    pg_sys::Datum::from(0usize)
}

/// # Safety
/// As of [`on_insert`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_truncate(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::TRUNCATE) };
    if !queue::is_empty() {
        if let Some(source) = source(&call) {
            queue::truncated(source.id);
        }
    }
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_on_insert, pg_finfo_on_update, pg_finfo_on_delete, pg_finfo_on_truncate);

/// The source on whose table the trigger fired; `None` on a table that was a partition of one.
fn source(call: &Call) -> Option<std::rc::Rc<Source>> {
    match cache::standing(call.relation.rd_id, Role::Messages) {
        Standing::Attached(source) => Some(source),
        Standing::Former => None,
        Standing::Unknown => call.not_attached(),
    }
}

fn note_new(data: &pg_sys::TriggerData, source: &Source) {
    if !settings::ENABLED.get() {
        return note_unread(data, source, "disabled", None);
    }
    match &source.reading {
        Reading::Whole { mapping, readers } => {
            let latest = clock::latest();
            row::for_each_new_row(data, readers, |row| note_row(source, mapping, row, latest));
        }
        Reading::Broken { because, .. } => note_unread(data, source, "mapping_broken", Some(because)),
    }
}

/// Notes rows of which no more is read than their message id.
fn note_unread(data: &pg_sys::TriggerData, source: &Source, reason: &'static str, detail: Option<&String>) {
    let readers: Vec<_> = source.reading.message_id().into_iter().cloned().collect();
    row::for_each_new_row(data, &readers, |row| {
        let message = row.first().and_then(mapping::message_id).map(|id| id.text());
        let entry =
            Entry { source: source.id, message, reason: reason.into(), detail: detail.cloned(), ..Entry::default() };
        match reason {
            // A switch that stops the application would be no help.
            "disabled" => queue::set_aside(&Aside::Refused(entry)),
            _ => refuse(source, entry),
        }
    });
}

/// A changed row is the removal of what it was and the addition of what it is (SPEC 3.5).
fn note_changed(call: &Call, source: &Source) {
    let numbers = source.reading.columns();
    if !call.may_have_changed(&numbers) {
        return;
    }
    let (true, Reading::Whole { mapping, readers }) = (settings::ENABLED.get(), &source.reading) else {
        return note_new(call.data, source);
    };
    let latest = clock::latest();
    row::for_each_changed_row(call.data, readers, |old, new| {
        if old != new {
            note_change(source, mapping, old, new, latest);
        }
    });
}

fn note_change(source: &Source, mapping: &Mapping, old: &[Value], new: &[Value], latest: Instant) {
    let (before, after) = (mapping.read(old, latest), mapping.read(new, latest));
    if before == after {
        return;
    }
    queue::set_aside(&Aside::Left(RowName {
        source: source.id,
        message: before.message.as_ref().map(|message| message.text()),
        tenant: before.tenant.as_deref().map(str::to_owned),
        conversation: before.conversation.as_deref().map(str::to_owned),
        at: before.at,
    }));
    // A row that cannot be read any more counts as deleted: what it was metered as stays.
    if after.refusal.is_none() {
        push_row(source, mapping, old, latest, Operation::Remove);
    }
    note_row(source, mapping, new, latest);
}

fn note_deleted(data: &pg_sys::TriggerData, source: &Source) {
    let Reading::Whole { mapping, readers } = &source.reading else { return };
    let latest = clock::latest();
    row::for_each_old_row(data, readers, |row| push_row(source, mapping, row, latest, Operation::Delete));
}

/// Notes the events of a row that can be metered.
fn note_row(source: &Source, mapping: &Mapping, row: &[Value], latest: Instant) {
    if let Some(entry) = entry(source, mapping, row, latest) {
        return refuse(source, entry);
    }
    push_row(source, mapping, row, latest, Operation::Add);
}

/// Why a row cannot be metered, if it cannot.
pub fn entry(source: &Source, mapping: &Mapping, row: &[Value], latest: Instant) -> Option<Entry> {
    let reading = mapping.apply(row, latest)?;
    let before_start = reading.at.is_some_and(|at| at < source.starts_at);
    let (reason, detail) = match reading.refusal {
        Some(refusal) => (refusal.name(), None),
        None if before_start => ("time_out_of_range", Some(source.start_in_words())),
        None => return None,
    };
    Some(Entry {
        source: source.id,
        message: reading.message.map(|message| message.text()),
        tenant: reading.tenant.map(|tenant| tenant.into_owned()),
        conversation: reading.conversation.map(|conversation| conversation.into_owned()),
        at: reading.at,
        reason: reason.into(),
        detail,
        mark: None,
    })
}

/// Notes what happened to each event of a row; a row that gives none is nothing to note.
pub fn push_row(source: &Source, mapping: &Mapping, row: &[Value], latest: Instant, operation: Operation) {
    let Some(reading) = mapping.apply(row, latest).filter(|reading| reading.refusal.is_none()) else { return };
    let (Some(tenant), Some(conversation), Some(message), Some(at)) =
        (&reading.tenant, &reading.conversation, &reading.message, reading.at)
    else {
        unreachable!("a row without a key or a time is refused");
    };
    let shared = Message { tenant, conversation, excluded: reading.excluded.is_some() };
    for (position, kind) in reading.kinds.iter().enumerate() {
        let place = OrderKey::row(at, source.id, message, position as u16);
        queue::push(&shared, place.as_bytes(), *kind, operation);
    }
}

fn refuse(source: &Source, entry: Entry) {
    if source.strict {
        quarantine::raise(&entry);
    }
    queue::set_aside(&Aside::Refused(entry));
}
