//! What happened in a conversation without a row to tell it (SPEC 2, "Marks")?

use crate::cache::{self, Reading, Role, Source, Standing};
use crate::clock::{self, Timestamp};
use crate::entry::{Aside, Entry, RowName};
use crate::error::{Failure, failure, required};
use crate::queue;
use crate::row;
use crate::settings;
use crate::trigger::{self, Call};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use std::rc::Rc;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{LONGEST_KEY, Mapping, Value};
use talkmeter_engine::status;

/// Records an event of any kind but activity; it counts when the transaction commits.
#[pg_extern(sql = false)]
fn mark(tenant: Option<&str>, conversation: Option<&str>, kind: Option<&str>, at: Option<TimestampWithTimeZone>) {
    let tenant = key(tenant, "tenant");
    let conversation = key(conversation, "conversation");
    let kind = status::kind_of_mark(required(kind, "kind")).unwrap_or_else(|flaw| Failure::from(flaw).raise());
    queue::mark(tenant, conversation, kind, instant(required(at, "at")));
}

fn key<'a>(key: Option<&'a str>, name: &str) -> &'a str {
    let key = required(key, name);
    if key.len() > LONGEST_KEY {
        failure(
            PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
            format!("\"{name}\" is longer than {LONGEST_KEY} bytes"),
        )
        .raise();
    }
    key
}

fn instant(at: TimestampWithTimeZone) -> Instant {
    match Timestamp::from(at).finite().filter(|at| at.in_range()) {
        Some(at) if at <= clock::latest() => at,
        Some(_) => failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "\"at\" is in the future")
            .detail(format!(
                "It may be at most {} seconds ahead of the clock (talkmeter.max_future).",
                settings::MAX_FUTURE.get()
            ))
            .raise(),
        None => {
            failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "\"at\" is not an instant of the years 1 to 9999")
                .raise()
        }
    }
}

/// # Safety
/// The server calls it, with the call information that it gives to every function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_status_insert(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { Call::of(call, &trigger::STATUS_INSERT) };
    if let Some(source) = source(&call) {
        match &source.reading {
            Reading::Whole { mapping, readers, .. } => row::for_each_new_row(call.data, readers, |row| {
                // A conversation that begins open was not closed before.
                note(&source, mapping, row, status::ends);
            }),
            Reading::Broken { because, .. } => note_broken(call.data, &source, because),
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
    if let Some(source) = source(&call).filter(|source| call.may_have_changed(source.reading.columns())) {
        match &source.reading {
            Reading::Whole { mapping, readers, .. } => {
                row::for_each_changed_row(call.data, readers, |old, new| note_change(&source, mapping, old, new));
            }
            Reading::Broken { because, .. } => note_broken(call.data, &source, because),
        }
    }
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_on_status_insert, pg_finfo_on_status_update);

fn source(call: &Call) -> Option<Rc<Source>> {
    match cache::standing(call.relation.rd_id, Role::Status) {
        Standing::Attached(source) => Some(source),
        Standing::Former => None,
        Standing::Unknown => call.not_attached(),
    }
}

fn note_change(source: &Source, mapping: &Mapping, old: &[Value], new: &[Value]) {
    let slot = status::slot(mapping);
    let before = mapping.read(old, Instant::LATEST);
    let was_refused = before.refusal.is_some();
    if was_refused {
        queue::set_aside(&Aside::Left(RowName {
            source: source.id,
            message: before.message.as_ref().map(|message| message.text()),
            tenant: before.tenant.as_deref().map(str::to_owned),
            conversation: before.conversation.as_deref().map(str::to_owned),
            at: before.at,
        }));
    }
    if was_refused || old[slot] != new[slot] {
        note(source, mapping, new, |_| true);
    }
}

/// Notes the mark that a row's status means, if it means one of those that count.
pub fn note(source: &Source, mapping: &Mapping, row: &[Value], counts: fn(Kind) -> bool) {
    let latest = clock::latest();
    let Some(reading) = mapping.apply(row, latest) else { return };
    let Some(kind) = reading.kinds.first().copied().filter(|kind| counts(*kind)) else { return };
    match (reading.refusal, reading.tenant.as_deref(), reading.conversation.as_deref()) {
        (None, Some(tenant), Some(conversation)) => {
            queue::mark(tenant, conversation, kind, reading.at.unwrap_or_else(clock::now));
        }
        (refusal, tenant, conversation) => queue::set_aside(&Aside::Refused(Entry {
            source: source.id,
            message: reading.message.as_ref().map(|message| message.text()),
            tenant: tenant.map(str::to_owned),
            conversation: conversation.map(str::to_owned),
            at: reading.at,
            reason: refusal.map_or("null_key", |refusal| refusal.name()).into(),
            mark: Some(kind),
            ..Entry::default()
        })),
    }
}

/// Notes rows of which no more is read than their conversation.
fn note_broken(data: &pg_sys::TriggerData, source: &Source, because: &str) {
    let readers: Vec<_> = source.reading.message_id().into_iter().cloned().collect();
    row::for_each_new_row(data, &readers, |row| {
        let message = row.first().and_then(talkmeter_engine::mapping::message_id).map(|id| id.text());
        queue::set_aside(&Aside::Refused(Entry {
            source: source.id,
            message,
            reason: "mapping_broken".into(),
            detail: Some(because.to_owned()),
            ..Entry::default()
        }));
    });
}
