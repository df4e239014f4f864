//! What happens when the application inserts rows into an attached table? Their events are noted, nothing more.

use crate::cache::{self, Reading, Source, Standing};
use crate::clock;
use crate::error::failure;
use crate::quarantine::{self, Entry};
use crate::queue::{self, Message};
use crate::row;
use crate::settings;
use pgrx::prelude::*;
use pgrx::trigger_support::{called_as_trigger, trigger_fired_by_insert};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{self, Mapping, Value};
use talkmeter_engine::order::OrderKey;

/// The statement trigger of attached tables. Written out rather than with pgrx's macro, which would turn every misuse
/// into an internal error.
///
/// # Safety
/// The server calls it, with the call information that it gives to every function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn on_insert(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; its context is trigger data if its tag says so, and trigger data
    // holds a relation that is open while the trigger runs.
    let (data, relation) = unsafe {
        if !called_as_trigger(call) {
            failure(
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "talkmeter.on_insert can only be called as a trigger",
            )
            .hint("Let talkmeter.attach create the trigger.")
            .raise();
        }
        let data = &*(*call).context.cast::<pg_sys::TriggerData>();
        (data, &*data.tg_relation)
    };
    if data.tg_newtable.is_null() || !trigger_fired_by_insert(data.tg_event) {
        failure(
            PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "talkmeter.on_insert must be fired after INSERT for each statement, with a new transition table",
        )
        .hint("Let talkmeter.attach create the trigger.")
        .raise();
    }
    match cache::standing(relation.rd_id) {
        Standing::Attached(source) => note(data, &source),
        Standing::Former => {}
        Standing::Unknown => failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{}\" is not attached to talkmeter", name(relation)),
        )
        .detail("A trigger of talkmeter's is on it all the same.")
        .hint("Drop the trigger, or attach the table with talkmeter.attach.")
        .raise(),
    }
    pg_sys::Datum::from(0usize)
}

fn name(relation: &pg_sys::RelationData) -> String {
    // SAFETY: an open relation has its row of the catalog.
    let name = unsafe { &(*relation.rd_rel).relname };
    pgrx::name_data_to_str(name).to_owned()
}

/// Tells the server that the trigger follows version 1 of its calling convention.
#[unsafe(no_mangle)]
pub extern "C" fn pg_finfo_on_insert() -> &'static pg_sys::Pg_finfo_record {
    &pg_sys::Pg_finfo_record { api_version: 1 }
}

fn note(data: &pg_sys::TriggerData, source: &Source) {
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
            "disabled" => queue::refuse(&entry),
            _ => refuse(source, entry),
        }
    });
}

fn note_row(source: &Source, mapping: &Mapping, row: &[Value], latest: Instant) {
    let Some(reading) = mapping.apply(row, latest) else { return };
    if let Some(refusal) = reading.refusal {
        let entry = Entry {
            source: source.id,
            message: reading.message.map(|message| message.text()),
            tenant: reading.tenant.map(|tenant| tenant.into_owned()),
            conversation: reading.conversation.map(|conversation| conversation.into_owned()),
            at: reading.at,
            reason: refusal.name().into(),
            detail: None,
        };
        return refuse(source, entry);
    }
    let (Some(tenant), Some(conversation), Some(message), Some(at)) =
        (&reading.tenant, &reading.conversation, &reading.message, reading.at)
    else {
        unreachable!("a row without a key or a time is refused");
    };
    let shared = Message { tenant, conversation, excluded: reading.excluded.is_some() };
    for (position, kind) in reading.kinds.iter().enumerate() {
        queue::push(&shared, &OrderKey::row(at, source.id, message, position as u16), *kind);
    }
}

fn refuse(source: &Source, entry: Entry) {
    if source.strict {
        quarantine::raise(&entry);
    }
    queue::refuse(&entry);
}
