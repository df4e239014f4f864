//! What happens when the application changes rows of an attached table? Their events are noted, nothing more.

use crate::capture::entry::{Aside, Entry, Left, RowName};
use crate::capture::quarantine;
use crate::capture::queue::{self, Message, Operation};
use crate::catalog::reading;
use crate::catalog::sources::{self, Attachment, Layout, Role, Source};
use crate::pg::clock;
use crate::pg::rights::as_owner;
use crate::pg::row::{self, Reader};
use crate::pg::settings;
use crate::pg::trigger::{self, Call};
use crate::pg::version;
use pgrx::prelude::*;
use std::collections::HashSet;
use std::rc::Rc;
use talkmeter_engine::event::Name;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::versions::Versions;
use talkmeter_engine::mapping::{Reading, Readings, Value};
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
    if let Some(source) = source(&call) {
        note_deleted(call.data, &source);
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
    if let Some(source) = source(&call) {
        // A partition's rows are not all that there are.
        if call.relation.rd_id == source.relation && (queue::has_asides() || quarantine::may_hold_any(source.id)) {
            queue::set_aside(&Aside::Emptied(source.id));
        }
        if !queue::is_empty() {
            queue::truncated(source.id);
        }
    }
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_on_insert, pg_finfo_on_update, pg_finfo_on_delete, pg_finfo_on_truncate);

/// The source on whose table the trigger fired; `None` on a table that was a partition of one, or that is not attached,
/// while a dump is restored, and while the catalog is of a version that this library does not know.
pub fn source_of(call: &Call, role: Role) -> Option<Rc<Source>> {
    if call.restores() || !version::is_readable() {
        return None;
    }
    match sources::attachment(call.relation.rd_id, role) {
        Attachment::Attached(source) => {
            call.must_be_by_row(source.by_row);
            Some(source)
        }
        Attachment::Former => None,
        Attachment::Unknown => {
            call.warn_not_attached();
            None
        }
    }
}

fn source(call: &Call) -> Option<Rc<Source>> {
    source_of(call, Role::Messages)
}

fn note_new(data: &pg_sys::TriggerData, source: &Source) {
    if !settings::ENABLED.get() {
        return note_unread(data, source, &Entry { reason: "disabled".into(), ..Entry::default() });
    }
    match &source.layout {
        Layout::Whole { mapping, readers, .. } => {
            let latest = clock::latest();
            row::for_each_new_row(data, readers, |row| note_row(source, mapping, row, latest));
        }
        Layout::Broken { because, .. } => note_unread(data, source, &broken(because)),
    }
}

/// The entry of a row of which the mapping says nothing any more.
pub fn broken(because: &str) -> Entry {
    Entry { reason: "mapping_broken".into(), detail: Some(because.to_owned()), ..Entry::default() }
}

/// Notes rows of which only the message id is read.
pub fn note_unread(data: &pg_sys::TriggerData, source: &Source, why: &Entry) {
    let id = source.layout.message_id();
    let readers = id.as_ref().map_or(&[][..], |id| &id.readers);
    row::for_each_new_row(data, readers, |row| {
        let message = id.as_ref().and_then(|id| id.origin.message(row)).map(|id| id.text());
        refuse(source, Entry { row: RowName { source: source.id, message, ..RowName::default() }, ..why.clone() });
    });
}

/// A changed row is the removal of what it was and the addition of what it is (rule 3.5.9).
fn note_changed(call: &Call, source: &Source) {
    if !call.may_have_changed(source.layout.columns()) {
        return;
    }
    let (mapping, readers) = match &source.layout {
        Layout::Whole { mapping, readers, .. } => (mapping, readers),
        // What has changed is not known: each row is looked at again once it can be.
        Layout::Broken { because, .. } => {
            return note_unread(call.data, source, &Entry { counted: true, ..broken(because) });
        }
    };
    let latest = clock::latest();
    if row::is_paired(call.data) {
        // A trigger for each row is fired for those of its own table.
        let with_children = call.may_have_children() && !call.is_by_row();
        let own = with_children.then(|| own_rows(call, source, mapping, readers, latest)).flatten();
        return row::for_each_changed_row(call.data, readers, |old, new| {
            let is_own = |own: &HashSet<RowName>| own.contains(&row_name(source, mapping, new, latest));
            if old != new && own.as_ref().is_none_or(is_own) {
                note_change(source, mapping, old, new, latest);
            }
        });
    }
    // A trigger of the application's kept rows from the partition that they were to move to: those count as deleted.
    let mut still_there = HashSet::new();
    row::for_each_new_row(call.data, readers, |row| {
        still_there.extend(row_name(source, mapping, row, latest).message);
    });
    row::for_each_old_row(call.data, readers, |row| {
        let name = row_name(source, mapping, row, latest);
        let is_there = name.message.as_ref().is_some_and(|message| still_there.contains(message));
        let operation = if is_there { Operation::Remove } else { Operation::Delete };
        let readings = mapping.readings(row, latest);
        readings.iter().for_each(|was| note_gone(source, was, entry(source, was), operation));
    });
    row::for_each_new_row(call.data, readers, |row| note_row(source, mapping, row, latest));
}

/// Those of the changed rows that the table itself holds, by their names; the others are of tables that inherit from
/// it, whose rows are no events. `None` if that cannot be found out.
fn own_rows(
    call: &Call,
    source: &Source,
    mapping: &Versions,
    readers: &[Reader],
    latest: Instant,
) -> Option<HashSet<RowName>> {
    let mut messages = HashSet::new();
    row::for_each_new_row(call.data, readers, |row| messages.extend(row_name(source, mapping, row, latest).message));
    let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
    let mut own = HashSet::new();
    let read = as_owner(|| {
        reading::for_each_message(source, &messages, |_, row| own.extend([row_name(source, mapping, row, latest)]))
    });
    read.ok().map(|()| own)
}

fn note_change(source: &Source, mapping: &Versions, old: &[Value], new: &[Value], latest: Instant) {
    let (before, after) = (mapping.readings(old, latest), mapping.readings(new, latest));
    for was in before.iter() {
        note_change_of_event(source, was, after.of(was.event), &after.row);
    }
    if before.row != after.row {
        note_unchanged(source, &before, &after);
    }
    for is in after.own.iter().filter(|is| before.of(is.event).is_none()) {
        note_event(source, is);
    }
}

/// Notes that the events that have times of their own, and are what they were, are looked at again: the row may have
/// been held as a whole, and is no more.
fn note_unchanged(source: &Source, before: &Readings, after: &Readings) {
    let same = after.own.iter().filter(|is| before.of(is.event) == Some(is) && entry(source, is).is_none());
    if settings::ENABLED.get() {
        same.for_each(|is| push(source, is, Operation::Touch));
    }
}

/// Notes what happened to an event of a row, or to those that have the time of the row. `is` is what they are now, if
/// the row has them still.
fn note_change_of_event(source: &Source, was: &Reading, is: Option<&Reading>, row: &Reading) {
    let is_ignored = |at: Option<Instant>| at.is_some_and(|at| source.ignores(at));
    if is == Some(was) || (is_ignored(was.at) && is.is_some_and(|is| is_ignored(is.at))) {
        return;
    }
    // A row without keys or a time of ours counts as deleted: what it was metered as stays (rule 3.5.11).
    let now = is.unwrap_or(row);
    let operation = match now.has_keys() && !is_ignored(now.at) {
        true => Operation::Remove,
        false => Operation::Delete,
    };
    note_gone(source, was, entry(source, was), operation);
    is.into_iter().for_each(|is| note_event(source, is));
}

/// Notes that a row is no more what it was: it leaves quarantine, or loses its events. A row of a time that is
/// ignored had none.
fn note_gone(source: &Source, was: &Reading, entry: Option<Entry>, operation: Operation) {
    let is_refused = entry.is_some();
    leave(source, was, entry, operation);
    if !is_refused {
        lose_events(source, was, operation);
    }
}

/// Notes that what quarantine holds of a row is out of date.
fn leave(source: &Source, was: &Reading, entry: Option<Entry>, operation: Operation) {
    let (row, refused) = match entry {
        Some(entry) => (entry.row, Some(entry.reason)),
        None => (RowName::of(source.id, was), None),
    };
    queue::set_aside(&Aside::Left(Left { row, refused, is_deleted: operation == Operation::Delete }));
}

/// For what could be metered.
fn lose_events(source: &Source, was: &Reading, operation: Operation) {
    if settings::ENABLED.get() {
        return push(source, was, operation);
    }
    if operation == Operation::Remove {
        for_each_event(source, was, |message, place, _| {
            queue::set_aside(&Aside::Refused(Entry {
                row: RowName::at_place(message.tenant, message.conversation, place),
                reason: "disabled".into(),
                removal: Some(place.as_bytes().to_vec()),
                ..Entry::default()
            }));
        });
    }
}

fn row_name(source: &Source, mapping: &Versions, row: &[Value], latest: Instant) -> RowName {
    RowName::of(source.id, &mapping.read(row, latest))
}

/// What was metered stays. But a row may come back in the same transaction, or may still be to be metered.
fn note_deleted(data: &pg_sys::TriggerData, source: &Source) {
    let Layout::Whole { mapping, readers, .. } = &source.layout else { return };
    let latest = clock::latest();
    let may_be_held = queue::has_asides() || quarantine::may_hold_any(source.id);
    row::for_each_old_row(data, readers, |row| {
        for was in mapping.readings(row, latest).iter() {
            // What an outer statement inserted, and this one deletes, is noted only when that ends.
            match entry(source, was) {
                None if !may_be_held => lose_events(source, was, Operation::Delete),
                entry => note_gone(source, was, entry, Operation::Delete),
            }
        }
    });
}

/// Notes the events of a row that can be metered.
fn note_row(source: &Source, mapping: &Versions, row: &[Value], latest: Instant) {
    if !settings::ENABLED.get() {
        // As a whole: its events are told apart once it is read again.
        return note_event(source, &mapping.read(row, latest));
    }
    mapping.readings(row, latest).iter().for_each(|is| note_event(source, is));
}

/// Notes an event of a row, or those that have the time of the row, or why they cannot be metered.
fn note_event(source: &Source, is: &Reading) {
    let refused = match settings::ENABLED.get() {
        true => entry(source, is),
        false => (!is.ignored).then(|| {
            let message = is.message.as_ref().map(|message| message.text());
            let event = is.event.filter(|event| *event > 0);
            let row = RowName { source: source.id, message, event, ..RowName::default() };
            Entry { row, reason: "disabled".into(), ..Entry::default() }
        }),
    };
    match refused {
        Some(entry) => refuse(source, entry),
        None => push(source, is, Operation::Add),
    }
}

/// Why a row, or an event of it, cannot be metered, if it cannot.
pub fn entry(source: &Source, reading: &Reading) -> Option<Entry> {
    if reading.ignored {
        return None;
    }
    let ignored = reading.at.filter(|at| !reading.kinds.is_empty() && source.ignores(*at));
    let (reason, detail) = match (reading.refusal, ignored) {
        (Some(refusal), _) => (refusal.name(), reading.in_detail()),
        (None, Some(at)) => ("time_out_of_range", Some(source.ignores_because(at))),
        (None, None) => return None,
    };
    Some(Entry { row: RowName::of(source.id, reading), reason: reason.into(), detail, ..Entry::default() })
}

/// Notes what happened to each event of a reading.
pub fn push(source: &Source, reading: &Reading, operation: Operation) {
    for_each_event(source, reading, |message, place, name| queue::push(message, place.as_bytes(), name, operation));
}

/// An event of a row, with what it takes to note what happens to it.
pub struct Told {
    pub tenant: String,
    pub conversation: String,
    pub place: OrderKey,
    name: Name,
    excluded: bool,
}

impl Told {
    /// Notes what happened to the event.
    pub fn push(&self, operation: Operation) {
        let Told { tenant, conversation, place, name, excluded } = self;
        queue::push(&Message { tenant, conversation, excluded: *excluded }, place.as_bytes(), name, operation);
    }
}

/// The events of a reading that can be metered.
pub fn told(source: &Source, reading: &Reading) -> Vec<Told> {
    let mut told = Vec::new();
    for_each_event(source, reading, |message, place, name| {
        let (tenant, conversation) = (message.tenant.to_owned(), message.conversation.to_owned());
        told.push(Told { tenant, conversation, place: place.clone(), name: name.clone(), excluded: message.excluded });
    });
    told
}

fn for_each_event(source: &Source, reading: &Reading, mut each: impl FnMut(&Message, &OrderKey, &Name)) {
    if reading.ignored || reading.refusal.is_some() {
        return;
    }
    let (Some(tenant), Some(conversation)) = (&reading.tenant, &reading.conversation) else {
        unreachable!("a row without a key is refused");
    };
    let shared = Message { tenant, conversation, excluded: reading.excluded.is_some() };
    for (index, name) in reading.names().enumerate() {
        each(&shared, &reading.place(source.id, index), &name);
    }
}

/// A row of the source goes to quarantine, or is an error.
pub fn refuse(source: &Source, entry: Entry) {
    // A switch that stops the application would be no help.
    if source.strict && entry.reason != "disabled" {
        quarantine::raise(&entry);
    }
    queue::set_aside(&Aside::Refused(entry));
}
