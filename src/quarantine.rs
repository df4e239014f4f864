//! Where does a row go that cannot be metered (SPEC 3.7)?

use crate::clock::Timestamp;
use crate::error::failure;
use crate::sql::{Connection, arg};
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use talkmeter_engine::instant::Instant;

/// A row that could not be metered, as far as it could be read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    pub source: i32,
    pub message: Option<String>,
    pub tenant: Option<String>,
    pub conversation: Option<String>,
    pub at: Option<Instant>,
    pub reason: Cow<'static, str>,
    pub detail: Option<String>,
}

/// Entries written by one statement.
const BATCH: usize = 1_000;

const WRITE: &str = "
    INSERT INTO talkmeter.quarantined (source_id, message_id, tenant, conversation, occurred_at, reason, detail)
    SELECT * FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])";

/// Writes the entries.
pub fn write(connection: &Connection, entries: Vec<Entry>) {
    for batch in entries.chunks(BATCH) {
        let texts = |field: fn(&Entry) -> Option<&str>| arg(batch.iter().map(field).collect::<Vec<_>>());
        connection.run(
            WRITE,
            &[
                arg(batch.iter().map(|entry| entry.source).collect::<Vec<_>>()),
                texts(|entry| entry.message.as_deref()),
                texts(|entry| entry.tenant.as_deref()),
                texts(|entry| entry.conversation.as_deref()),
                arg(batch.iter().map(|entry| entry.at.map(Timestamp::from)).collect::<Vec<_>>()),
                texts(|entry| Some(&*entry.reason)),
                texts(|entry| entry.detail.as_deref()),
            ],
        );
    }
}

/// Raises the error that a strict source wants instead of an entry.
pub fn raise(entry: &Entry) -> ! {
    let code = match &*entry.reason {
        "null_key" => PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        "time_out_of_range" | "future" => PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
        "unknown_policy" => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        "mapping_broken" => PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        "key_too_long" => PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
        _ => PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
    };
    let message = entry.message.as_deref().unwrap_or("NULL");
    let mut failure = failure(code, format!("message {} cannot be metered: {}", shortened(message), entry.reason))
        .hint("The table is attached with strict => true; without it the row would be kept in talkmeter.quarantine.");
    if let Some(detail) = &entry.detail {
        failure = failure.detail(detail.clone());
    }
    failure.raise()
}

/// An id of any length, short enough for a message.
fn shortened(id: &str) -> String {
    match id.char_indices().nth(80) {
        Some((end, _)) => format!("\"{}…\"", &id[..end]),
        None => format!("\"{id}\""),
    }
}
