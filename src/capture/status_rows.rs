//! Which marks do the rows of a status table make (rule 2.9)?

use crate::capture::entry::{Aside, Entry, Left, RowName, TOO_OLD};
use crate::capture::ingest::{broken, note_unread, source_of};
use crate::capture::queue;
use crate::catalog::sources::{Layout, Role, Source};
use crate::pg::clock;
use crate::pg::row;
use crate::pg::trigger::{self, Call};
use pgrx::prelude::*;
use talkmeter_engine::event::{Kind, Name};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Mapping, Value};
use talkmeter_engine::status;

/// # Safety
/// The server calls it, with the call information that it gives to every function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_status_insert(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::STATUS_INSERT) };
    if let Some(source) = source_of(&call, Role::Status) {
        match &source.layout {
            Layout::Whole { mapping, readers, .. } => row::for_each_new_row(call.data, readers, |row| {
                // A conversation that begins open was not closed before.
                note_now(&source, mapping.newest(), None, row, status::ends);
            }),
            Layout::Broken { because, .. } => note_unread(call.data, &source, &broken(because)),
        }
    }
    pg_sys::Datum::from(0usize)
}

/// # Safety
/// As of [`on_status_insert`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_status_update(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::STATUS_UPDATE) };
    if let Some(source) = source_of(&call, Role::Status).filter(|source| call.may_have_changed(source.layout.columns()))
    {
        match &source.layout {
            Layout::Whole { mapping, readers, .. } => {
                row::for_each_changed_row(call.data, readers, |old, new| {
                    note_change(&source, mapping.newest(), old, new)
                });
            }
            Layout::Broken { because, .. } => note_unread(call.data, &source, &broken(because)),
        }
    }
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_on_status_insert, pg_finfo_on_status_update);

fn note_change(source: &Source, mapping: &Mapping, old: &[Value], new: &[Value]) {
    let slot = status::slot(mapping);
    let before = mapping.read(old, Instant::LATEST);
    let was_refused = before.refusal.is_some();
    if was_refused {
        let row = RowName::of(source.id, &before);
        queue::set_aside(&Aside::Left(Left { row, refused: None, is_deleted: false }));
    }
    let has_changed = old[slot] != new[slot];
    if was_refused || has_changed {
        note_now(source, mapping, has_changed.then_some(old), new, |_| true);
    }
}

/// Notes the mark that a status means which was set just now, if it means one of those that count.
fn note_now(source: &Source, mapping: &Mapping, old: Option<&[Value]>, new: &[Value], counts: fn(Kind) -> bool) {
    let row = status::at_the_moment(mapping, old, new, clock::now());
    note(source, mapping, row.as_deref().unwrap_or(new), counts, queue::mark_of_moment);
}

/// Notes the mark that a row's status means, if it means one of those that count.
pub fn note(
    source: &Source,
    mapping: &Mapping,
    row: &[Value],
    counts: fn(Kind) -> bool,
    mark: fn(&str, &str, &Name, Instant),
) {
    let latest = clock::latest();
    let Some(reading) = mapping.apply(row, latest) else { return };
    let Some(name) = reading.names().next().filter(|name| counts(name.kind)) else { return };
    let reason = match reading.refusal {
        None if reading.at.is_some_and(clock::is_too_old) => Some(TOO_OLD),
        refusal => refusal.map(|refusal| refusal.name()),
    };
    match (reason, reading.tenant.as_deref(), reading.conversation.as_deref()) {
        (None, Some(tenant), Some(conversation)) => {
            mark(tenant, conversation, &name, reading.at.unwrap_or_else(clock::now));
        }
        (reason, ..) => queue::set_aside(&Aside::Refused(Entry {
            row: RowName::of(source.id, &reading),
            reason: reason.unwrap_or("null_key").into(),
            mark: Some(name),
            ..Entry::default()
        })),
    }
}
