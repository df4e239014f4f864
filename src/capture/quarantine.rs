//! Where does a row go that cannot be metered, and how does it leave again (rule 3.7)?

use crate::capture::entry::{Entry, Key, RowName, TOO_OLD};
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::locks;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Arg, Connection, Row, arg, connected};
use pgrx::datum::Uuid;
use pgrx::prelude::*;
use std::collections::HashSet;
use talkmeter_engine::event::Name;
use talkmeter_engine::order::OrderKey;

/// Entries written by one statement.
const BATCH: usize = 1_000;

/// Rows that are given as parameters, by their names: see [`names`].
macro_rules! named_rows {
    () => {
        "unnest($1::int4[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::int4[]) WITH ORDINALITY
            AS row (source_id, message_id, occurred_at, tenant, conversation, event, ordinal)"
    };
}

/// An entry `q` goes by the id of a named row. The number of a mark names it within its conversation only; a message id
/// may be longer than an index can hold.
macro_rules! has_id_of_row {
    () => {
        "q.source_id = row.source_id AND q.message_id = row.message_id AND q.removal IS NULL
            AND (q.source_id <> 0 OR (q.tenant = row.tenant AND q.conversation = row.conversation))
            AND hashtextextended(q.message_id, 0) = hashtextextended(row.message_id COLLATE \"C\", 0)"
    };
}

/// An entry `q` is that of the same event of a named row. A message id may be that of several rows, in partitions.
macro_rules! is_of_event {
    () => {
        "COALESCE(q.event, 0) = COALESCE(row.event, 0)
            AND (q.occurred_at IS NULL OR row.occurred_at IS NULL OR q.occurred_at = row.occurred_at)"
    };
}

macro_rules! is_of_row {
    () => {
        concat!(has_id_of_row!(), " AND ", is_of_event!())
    };
}

/// The parameters of `named_rows`.
fn names<'r>(rows: impl Iterator<Item = &'r RowName> + Clone) -> [Arg; 6] {
    let texts = |field: fn(&RowName) -> Option<&str>| arg(rows.clone().map(field).collect::<Vec<_>>());
    [
        arg(rows.clone().map(|row| row.source).collect::<Vec<_>>()),
        texts(|row| row.message.as_deref()),
        arg(rows.clone().map(|row| row.at.map(Timestamp::from)).collect::<Vec<_>>()),
        texts(|row| row.tenant.as_deref()),
        texts(|row| row.conversation.as_deref()),
        arg(rows.map(|row| row.event.map(i32::from)).collect::<Vec<_>>()),
    ]
}

// The entries of named rows that nobody else is looking at. A work that has locked conversations never waits for an
// entry: whoever holds that may be waiting for a conversation. It is a transaction that changes the row and takes the
// entry away itself, or a retry that decides on it.
macro_rules! take_unlocked {
    ($condition:literal) => {
        concat!(
            "WITH found AS MATERIALIZED (
                SELECT q.quarantine_id FROM ",
            named_rows!(),
            " JOIN talkmeter.quarantined AS q ON ",
            is_of_row!(),
            $condition,
            " FOR UPDATE OF q SKIP LOCKED
            )
            DELETE FROM talkmeter.quarantined AS gone USING found WHERE gone.quarantine_id = found.quarantine_id"
        )
    };
}

// An entry for the same row says what was the matter before.
const REPLACE: &str = take_unlocked!(" AND q.mark_kind IS NULL");

const RELEASE: &str = take_unlocked!("");

/// Takes out rows that can be judged by now. For a work that has locked their conversations.
pub fn release(rows: &[RowName]) {
    for batch in rows.chunks(BATCH) {
        let names = || names(batch.iter());
        locks::despite_conflicts(|connection| connection.run(RELEASE, &names()).count());
    }
}

const WRITE: &str = "
    INSERT INTO talkmeter.quarantined (source_id, message_id, occurred_at, tenant, conversation, event, reason,
        detail, mark_kind, removal, counted)
    SELECT * FROM unnest($1::int4[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::int4[], $7::text[],
        $8::text[], $9::text[], $10::bytea[], $11::bool[])";

/// Writes the entries.
pub fn write(connection: &Connection, entries: &[Entry]) {
    for batch in entries.chunks(BATCH) {
        let rows = || names(batch.iter().map(|entry| &entry.row));
        let texts = |field: fn(&Entry) -> Option<&str>| arg(batch.iter().map(field).collect::<Vec<_>>());
        let is_row = |entry: &Entry| entry.row.message.is_some() && entry.mark.is_none() && entry.removal.is_none();
        if batch.iter().any(is_row) {
            locks::despite_conflicts(|connection| connection.run(REPLACE, &rows()).count());
        }
        let rest = [
            texts(|entry| Some(&*entry.reason)),
            texts(|entry| entry.detail.as_deref()),
            arg(batch.iter().map(|entry| entry.mark.as_ref().map(Name::to_string)).collect::<Vec<_>>()),
            arg(batch.iter().map(|entry| entry.removal.as_deref()).collect::<Vec<_>>()),
            arg(batch.iter().map(|entry| entry.counted).collect::<Vec<_>>()),
        ];
        connection.run(WRITE, &rows().into_iter().chain(rest).collect::<Vec<_>>());
    }
}

/// Writes the entries, if there are any, and forgets them.
pub fn write_all(connection: &Connection, entries: &mut Vec<Entry>) {
    if !entries.is_empty() {
        write(connection, entries);
        entries.clear();
    }
}

/// What leaves quarantine waits for who looks at it, or passes over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    Waits,
    /// The entry stays, and a retry drops it if its row has a newer one.
    Passes,
}

/// A statement for each way of leaving.
struct Leave {
    waits: &'static str,
    passes: &'static str,
}

impl Leave {
    fn by(&self, leaving: Leaving) -> &'static str {
        match leaving {
            Leaving::Waits => self.waits,
            Leaving::Passes => self.passes,
        }
    }
}

macro_rules! leave {
    ($lock:literal) => {
        concat!(
            "WITH found AS MATERIALIZED (
                SELECT q.quarantine_id, row.ordinal, q.counted OR q.reason = 'unknown_policy' AS was_event
                FROM ",
            named_rows!(),
            " JOIN talkmeter.quarantined AS q ON ",
            is_of_row!(),
            $lock,
            ")
            DELETE FROM talkmeter.quarantined AS gone USING found WHERE gone.quarantine_id = found.quarantine_id
            RETURNING found.ordinal, found.was_event, gone.reason, gone.tenant, gone.conversation, gone.occurred_at,
                gone.event"
        )
    };
}

const LEAVE: Leave = Leave { waits: leave!(""), passes: leave!(" FOR UPDATE OF q SKIP LOCKED") };

// Rows without an id cannot be told apart: of those that are the same as many leave as are named. An index holds the
// coalesced columns; the others say whether they are null.
macro_rules! leave_nameless {
    ($lock:literal) => {
        concat!(
            "WITH alike AS MATERIALIZED (
                SELECT row.source_id, row.tenant, row.conversation, row.occurred_at, count(*) AS rows
                FROM ",
            named_rows!(),
            " GROUP BY row.source_id, row.tenant, row.conversation, row.occurred_at
            ), found AS MATERIALIZED (
                SELECT o.quarantine_id
                FROM alike
                CROSS JOIN LATERAL (
                    SELECT q.quarantine_id
                    FROM talkmeter.quarantined AS q
                    WHERE q.source_id = alike.source_id AND q.message_id IS NULL AND q.removal IS NULL
                        AND COALESCE(q.tenant, '') = COALESCE(alike.tenant, '')
                        AND COALESCE(q.conversation, '') = COALESCE(alike.conversation, '')
                        AND COALESCE(q.occurred_at, '-infinity') = COALESCE(alike.occurred_at, '-infinity')
                        AND q.tenant IS NOT DISTINCT FROM alike.tenant
                        AND q.conversation IS NOT DISTINCT FROM alike.conversation
                        AND q.occurred_at IS NOT DISTINCT FROM alike.occurred_at
                    LIMIT alike.rows",
            $lock,
            ") AS o
            )
            DELETE FROM talkmeter.quarantined AS gone USING found WHERE gone.quarantine_id = found.quarantine_id"
        )
    };
}

const LEAVE_NAMELESS: Leave = Leave { waits: leave_nameless!(""), passes: leave_nameless!(" FOR UPDATE SKIP LOCKED") };

/// A row that was no event, with what its entry said.
pub struct WasHeld {
    pub row: RowName,
    /// The row as it was then.
    pub held: RowName,
    pub reason: String,
}

/// Removes the entries of rows that were changed or deleted: before any conversation is locked. Returns the rows that
/// had an entry and were no events.
pub fn leave(rows: &[RowName], leaving: Leaving) -> Vec<WasHeld> {
    let mut left = Vec::new();
    for batch in rows.chunks(BATCH) {
        let found: Vec<WasHeld> = locks::despite_conflicts(|connection| {
            let found = connection.run(LEAVE.by(leaving), &names(batch.iter()));
            let each = found.iter().map(|mut row| (row.ordinal(), row.value::<bool>(), row));
            each.filter(|(_, was_event, _)| !was_event).map(|(index, _, row)| was_held(&batch[index], row)).collect()
        });
        left.extend(found);
        let nameless = batch.iter().filter(|row| row.message.is_none());
        if nameless.clone().next().is_some() {
            locks::despite_conflicts(|connection| {
                connection.run(LEAVE_NAMELESS.by(leaving), &names(nameless.clone())).count()
            });
        }
    }
    left
}

/// Which event of its row an entry says that it is of.
pub fn event(stored: i32) -> u16 {
    stored.try_into().expect("checked by the table")
}

fn was_held(row: &RowName, mut entry: Row) -> WasHeld {
    let reason = entry.value();
    let (tenant, conversation) = (entry.nullable(), entry.nullable());
    let at = entry.nullable::<Timestamp>().map(Timestamp::bound);
    let event = entry.nullable().map(event);
    WasHeld { row: row.clone(), held: RowName { tenant, conversation, at, event, ..row.clone() }, reason }
}

macro_rules! leave_removals {
    ($lock:literal) => {
        concat!(
            "WITH found AS MATERIALIZED (
                SELECT q.quarantine_id FROM ",
            named_rows!(),
            " JOIN talkmeter.quarantined AS q ON q.source_id = row.source_id AND q.message_id = row.message_id
                AND q.removal IS NOT NULL
                AND hashtextextended(q.message_id, 0) = hashtextextended(row.message_id COLLATE \"C\", 0)",
            $lock,
            ")
            DELETE FROM talkmeter.quarantined AS gone USING found WHERE gone.quarantine_id = found.quarantine_id"
        )
    };
}

const LEAVE_REMOVALS: Leave =
    Leave { waits: leave_removals!(""), passes: leave_removals!(" FOR UPDATE OF q SKIP LOCKED") };

/// Removes what changes took away of rows that were then deleted: a row that is deleted rewrites no bill, also if the
/// change before is still to be told (rule 3.5.12).
pub fn leave_removals(rows: &[RowName], leaving: Leaving) {
    for batch in rows.chunks(BATCH) {
        let names = || names(batch.iter());
        locks::despite_conflicts(|connection| connection.run(LEAVE_REMOVALS.by(leaving), &names()).count());
    }
}

macro_rules! empty {
    ($lock:literal) => {
        concat!(
            "WITH found AS MATERIALIZED (
                SELECT q.quarantine_id FROM talkmeter.quarantined AS q
                WHERE q.source_id = $1 AND q.removal IS NULL AND q.mark_kind IS NULL",
            $lock,
            ")
            DELETE FROM talkmeter.quarantined AS gone USING found WHERE gone.quarantine_id = found.quarantine_id"
        )
    };
}

const EMPTY: Leave = Leave { waits: empty!(""), passes: empty!(" FOR UPDATE SKIP LOCKED") };

/// Takes all rows of a source out.
pub fn empty(source: i32, leaving: Leaving) {
    locks::despite_conflicts(|connection| connection.run(EMPTY.by(leaving), &[arg(source)]).count());
}

const OCCUPIED: &str = "
    SELECT s.source_id
    FROM unnest($1::int4[]) AS s (source_id)
    WHERE EXISTS (SELECT FROM talkmeter.quarantined AS q WHERE q.source_id = s.source_id)";

/// Those of the sources of which any row is in quarantine.
pub fn occupied(connection: &Connection, sources: Vec<i32>) -> Vec<i32> {
    connection.run(OCCUPIED, &[arg(sources)]).iter().map(|mut row| row.value()).collect()
}

/// Whether any row of a source may be in quarantine. While somebody holds the table as a whole that is not known, and
/// not waited for.
pub fn may_hold_any(source: i32) -> bool {
    as_owner(|| {
        !locks::for_writing_at_once(c"quarantined")
            || connected(|connection| !occupied(connection, vec![source]).is_empty())
    })
}

const OUTDATED: &str = "
    SELECT q.quarantine_id
    FROM unnest($1::uuid[]) AS looked_at (quarantine_id)
    JOIN talkmeter.quarantined AS q ON q.quarantine_id = looked_at.quarantine_id
    WHERE q.removal IS NULL AND q.mark_kind IS NULL AND q.reason <> 'key_too_long' AND EXISTS (
        SELECT FROM talkmeter.quarantined AS o
        WHERE o.source_id = q.source_id AND o.message_id = q.message_id AND o.removal IS NULL AND o.mark_kind IS NULL
            AND (o.source_id <> 0 OR (o.tenant = q.tenant AND o.conversation = q.conversation))
            AND hashtextextended(o.message_id, 0) = hashtextextended(q.message_id, 0)
            AND COALESCE(o.event, 0) = COALESCE(q.event, 0)
            AND (o.occurred_at IS NULL OR q.occurred_at IS NULL OR o.occurred_at = q.occurred_at)
            AND (o.quarantined_at, o.quarantine_id) > (q.quarantined_at, q.quarantine_id))";

/// Those of some entries whose rows have newer ones: they could not be taken out when those were written.
pub fn outdated(connection: &Connection, entries: Vec<Uuid>) -> HashSet<Uuid> {
    connection.run(OUTDATED, &[arg(entries)]).iter().map(|mut row| row.value()).collect()
}

/// What quarantine has to say of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// It is no event.
    Back,
    /// It is an event that no known policy could judge.
    Unjudged,
}

// A row that is refused as a whole has no events, of whatever time.
const HELD: &str = concat!(
    "SELECT row.ordinal, bool_or(q.reason <> 'unknown_policy') FROM ",
    named_rows!(),
    " JOIN talkmeter.quarantined AS q ON NOT q.counted AND ",
    has_id_of_row!(),
    " AND (q.event IS NULL AND row.event > 0 OR ",
    is_of_event!(),
    ") GROUP BY row.ordinal"
);

/// Of events that can be read, each with its conversation, those that are in quarantine, by their index.
pub fn held(connection: &Connection, events: &[(Key, &OrderKey)]) -> Vec<(usize, Held)> {
    /// Events looked up together: their names take more than their places.
    const TOGETHER: usize = 10_000;
    let mut all = Vec::new();
    for (batch, events) in events.chunks(TOGETHER).enumerate() {
        heed_cancel();
        let name = |((tenant, conversation), place): &(Key, &OrderKey)| RowName::at_place(tenant, conversation, place);
        let rows: Vec<RowName> = events.iter().map(name).collect();
        let held = |is_back: bool| if is_back { Held::Back } else { Held::Unjudged };
        let found = connection.run(HELD, &names(rows.iter()));
        all.extend(found.iter().map(|mut row| (batch * TOGETHER + row.ordinal(), held(row.value()))));
    }
    all
}

/// Raises the error that a strict source wants instead of an entry.
pub fn raise(entry: &Entry) -> ! {
    let code = match &*entry.reason {
        "null_key" => PgSqlErrorCode::ERRCODE_NOT_NULL_VIOLATION,
        "time_out_of_range" | "future" | TOO_OLD => PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW,
        "unknown_policy" => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        "mapping_broken" => PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        "key_too_long" => PgSqlErrorCode::ERRCODE_STRING_DATA_RIGHT_TRUNCATION,
        _ => PgSqlErrorCode::ERRCODE_CHECK_VIOLATION,
    };
    let message = entry.row.message.as_deref().unwrap_or("NULL");
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
