//! Where does a row go that cannot be metered, and how does it leave again (SPEC 3.7)?

use crate::clock::Timestamp;
use crate::entry::{Entry, Key, RowName};
use crate::error::failure;
use crate::locks;
use crate::rights::as_owner;
use crate::sql::{Connection, Rows, arg, connected};
use pgrx::prelude::*;
use talkmeter_engine::event::Kind;
use talkmeter_engine::order::OrderKey;

/// Adds an entry, but a row that is several events only once.
pub fn add(entries: &mut Vec<Entry>, entry: Entry) {
    if !entries.last().is_some_and(|last| last.same_row(&entry)) {
        entries.push(entry);
    }
}

/// Entries written by one statement.
const BATCH: usize = 1_000;

// An entry for the same row says what was the matter before.
const REPLACE: &str = "
    DELETE FROM talkmeter.quarantined AS q
    USING unnest($1::int4[], $2::text[], $3::timestamptz[], $4::text[], $5::text[])
        AS row (source_id, message_id, occurred_at, tenant, conversation)
    WHERE q.source_id = row.source_id AND q.message_id = row.message_id AND q.mark_kind IS NULL AND q.removal IS NULL
        AND (q.source_id <> 0 OR (q.tenant = row.tenant AND q.conversation = row.conversation))
        AND hashtextextended(q.message_id, 0) = hashtextextended(row.message_id COLLATE \"C\", 0)
        AND (q.occurred_at IS NULL OR row.occurred_at IS NULL OR q.occurred_at = row.occurred_at)";

const WRITE: &str = "
    INSERT INTO talkmeter.quarantined (source_id, message_id, tenant, conversation, occurred_at, reason, detail, mark_kind,
        removal, counted)
    SELECT * FROM unnest($1::int4[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[],
        $8::text[], $9::bytea[], $10::bool[])";

/// Writes the entries.
pub fn write(connection: &Connection, entries: &[Entry]) {
    for batch in entries.chunks(BATCH) {
        let texts = |field: fn(&Entry) -> Option<&str>| arg(batch.iter().map(field).collect::<Vec<_>>());
        let sources = || arg(batch.iter().map(|entry| entry.source).collect::<Vec<_>>());
        let messages = || texts(|entry| entry.message.as_deref());
        let times = || arg(batch.iter().map(|entry| entry.at.map(Timestamp::from)).collect::<Vec<_>>());
        let tenants = || texts(|entry| entry.tenant.as_deref());
        let conversations = || texts(|entry| entry.conversation.as_deref());
        let is_row = |entry: &Entry| entry.message.is_some() && entry.mark.is_none() && entry.removal.is_none();
        if batch.iter().any(is_row) {
            locks::despite_conflicts(|connection| {
                connection.run(REPLACE, &[sources(), messages(), times(), tenants(), conversations()]).count()
            });
        }
        connection.run(
            WRITE,
            &[
                sources(),
                messages(),
                tenants(),
                conversations(),
                times(),
                texts(|entry| Some(&*entry.reason)),
                texts(|entry| entry.detail.as_deref()),
                texts(|entry| entry.mark.map(Kind::name)),
                arg(batch.iter().map(|entry| entry.removal.as_deref()).collect::<Vec<_>>()),
                arg(batch.iter().map(|entry| entry.counted).collect::<Vec<_>>()),
            ],
        );
    }
}

const LEAVE: &str = "
    DELETE FROM talkmeter.quarantined AS q
    USING unnest($1::int4[], $2::text[], $3::timestamptz[], $4::text[], $5::text[]) WITH ORDINALITY
        AS row (source_id, message_id, occurred_at, tenant, conversation, place)
    WHERE q.source_id = row.source_id AND q.message_id = row.message_id AND q.removal IS NULL
        AND (q.source_id <> 0 OR (q.tenant = row.tenant AND q.conversation = row.conversation))
        AND hashtextextended(q.message_id, 0) = hashtextextended(row.message_id COLLATE \"C\", 0)
        AND (q.occurred_at IS NULL OR row.occurred_at IS NULL OR q.occurred_at = row.occurred_at)
    RETURNING row.place, q.counted OR q.reason = 'unknown_policy'";

const LEAVE_NAMELESS: &str = "
    DELETE FROM talkmeter.quarantined AS q
    WHERE q.quarantine_id = (
        SELECT o.quarantine_id
        FROM talkmeter.quarantined AS o
        WHERE o.source_id = $1 AND o.message_id IS NULL AND o.removal IS NULL AND o.tenant IS NOT DISTINCT FROM $2
            AND o.conversation IS NOT DISTINCT FROM $3 AND o.occurred_at IS NOT DISTINCT FROM $4
        LIMIT 1)";

/// Takes rows out that are what they were no more, and returns those that were in it, by their name, and were no events.
pub fn leave(connection: &Connection, rows: &[RowName]) -> Vec<RowName> {
    let mut left = Vec::new();
    for batch in rows.chunks(BATCH) {
        let texts = |field: fn(&RowName) -> Option<&str>| arg(batch.iter().map(field).collect::<Vec<_>>());
        let found: Vec<usize> = locks::despite_conflicts(|connection| {
            let found = connection.run(
                LEAVE,
                &[
                    arg(batch.iter().map(|row| row.source).collect::<Vec<_>>()),
                    texts(|row| row.message.as_deref()),
                    arg(batch.iter().map(|row| row.at.map(Timestamp::from)).collect::<Vec<_>>()),
                    texts(|row| row.tenant.as_deref()),
                    texts(|row| row.conversation.as_deref()),
                ],
            );
            let no_events = (0..found.count()).filter(|index| !found.value::<bool>(*index, 2));
            no_events.map(|index| found.value::<i64>(index, 1) as usize - 1).collect()
        });
        left.extend(found.into_iter().map(|index| batch[index].clone()));
        for row in batch.iter().filter(|row| row.message.is_none()) {
            let (tenant, conversation) = (row.tenant.as_deref(), row.conversation.as_deref());
            let at = row.at.map(Timestamp::from);
            connection.run(LEAVE_NAMELESS, &[arg(row.source), arg(tenant), arg(conversation), arg(at)]);
        }
    }
    left
}

const EMPTY: &str = "
    DELETE FROM talkmeter.quarantined AS q WHERE q.source_id = $1 AND q.removal IS NULL AND q.mark_kind IS NULL";

/// Takes all rows of a source out.
pub fn empty(source: i32) {
    locks::despite_conflicts(|connection| connection.run(EMPTY, &[arg(source)]).count());
}

const OCCUPIED: &str = "
    SELECT s.source_id
    FROM unnest($1::int4[]) AS s (source_id)
    WHERE EXISTS (SELECT FROM talkmeter.quarantined AS q WHERE q.source_id = s.source_id)";

/// Those of the sources of which any row is in quarantine.
pub fn occupied(connection: &Connection, sources: Vec<i32>) -> Vec<i32> {
    let rows = connection.run(OCCUPIED, &[arg(sources)]);
    (0..rows.count()).map(|row| rows.value(row, 1)).collect()
}

/// Whether any row of a source is in quarantine.
pub fn holds_any(source: i32) -> bool {
    as_owner(|| connected(|connection| !occupied(connection, vec![source]).is_empty()))
}

/// What quarantine has to say of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is no event.
    Back,
    /// It is an event that no known policy could judge.
    Unjudged,
}

const HELD: &str = "
    SELECT row.place, bool_or(q.reason <> 'unknown_policy')
    FROM unnest($1::int4[], $2::text[], $3::timestamptz[], $4::text[], $5::text[]) WITH ORDINALITY
        AS row (source_id, message_id, occurred_at, tenant, conversation, place)
    JOIN talkmeter.quarantined AS q ON q.source_id = row.source_id AND q.message_id = row.message_id
        AND q.removal IS NULL AND NOT q.counted
        AND (q.source_id <> 0 OR (q.tenant = row.tenant AND q.conversation = row.conversation))
        AND hashtextextended(q.message_id, 0) = hashtextextended(row.message_id COLLATE \"C\", 0)
        AND (q.occurred_at IS NULL OR q.occurred_at = row.occurred_at)
    GROUP BY row.place";

/// Of events that can be read, each with its conversation, those that are in quarantine, by their index.
pub fn held(connection: &Connection, events: &[(Key, &OrderKey)]) -> Vec<(usize, Held)> {
    let text = |(_, place): &(Key, &OrderKey)| place.message().map(|message| message.text());
    let rows: Rows = connection.run(
        HELD,
        &[
            arg(events.iter().map(|(_, place)| place.source()).collect::<Vec<_>>()),
            arg(events.iter().map(text).collect::<Vec<_>>()),
            arg(events.iter().map(|(_, place)| Timestamp::from(place.at())).collect::<Vec<_>>()),
            arg(events.iter().map(|(key, _)| key.0).collect::<Vec<_>>()),
            arg(events.iter().map(|(key, _)| key.1).collect::<Vec<_>>()),
        ],
    );
    let held = |row| if rows.value::<bool>(row, 2) { Held::Back } else { Held::Unjudged };
    (0..rows.count()).map(|row| (rows.value::<i64>(row, 1) as usize - 1, held(row))).collect()
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
