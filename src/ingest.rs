//! What happens when the application inserts rows into an attached table? Their events are noted, nothing more.

use crate::cache::{self, Reading, Source};
use crate::clock;
use crate::error::failure;
use crate::quarantine::{self, Entry};
use crate::queue::{self, Message};
use crate::row;
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{self, Mapping, Value};
use talkmeter_engine::order::OrderKey;

/// The statement trigger of attached tables.
#[pg_trigger(sql = false)]
fn on_insert<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, std::convert::Infallible> {
    let data = trigger.trigger_data();
    if data.tg_newtable.is_null() {
        failure(
            PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            "talkmeter.on_insert must be fired after INSERT for each statement, with a new transition table",
        )
        .hint("Let talkmeter.attach create the trigger.")
        .raise();
    }
    // SAFETY: a trigger is fired on a relation that is open while it runs.
    let relation = unsafe { (*data.tg_relation).rd_id };
    match cache::source_of(relation) {
        Some(source) => note(data, &source),
        None => failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table \"{}\" is not attached to talkmeter", trigger.table_name().unwrap_or_default()),
        )
        .detail("A trigger of talkmeter's is on it all the same.")
        .hint("Drop the trigger, or attach the table with talkmeter.attach.")
        .raise(),
    }
    Ok(None)
}

fn note(data: &pg_sys::TriggerData, source: &Source) {
    match &source.reading {
        Reading::Whole { mapping, readers } => {
            let latest = clock::latest();
            row::for_each_new_row(data, readers, |row| note_row(source, mapping, row, latest));
        }
        Reading::Broken { because, message_id } => {
            let readers: Vec<_> = message_id.iter().cloned().collect();
            row::for_each_new_row(data, &readers, |row| {
                let message = row.first().and_then(|id| mapping::message_id(id)).map(|id| id.text());
                let detail = Some(because.clone());
                refuse(
                    source,
                    Entry { source: source.id, message, reason: "mapping_broken", detail, ..Entry::default() },
                );
            });
        }
    }
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
            reason: refusal.name(),
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
    queue::refuse(entry);
}
