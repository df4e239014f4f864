//! Which rows in quarantine can be metered by now (SPEC 3.7)?

use crate::cache::{self, Reading, Source};
use crate::clock::{self, Timestamp};
use crate::commit;
use crate::history;
use crate::ingest::{self, push_row};
use crate::queue::{self, Message, Operation};
use crate::rights::as_owner;
use crate::sql::{Connection, Rows, arg, connected};
use pgrx::datum::Uuid;
use pgrx::prelude::*;
use std::collections::BTreeMap;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::OrderKey;

/// Meters the rows of quarantine that can now be metered, and returns how many left it.
#[pg_extern(sql = false)]
fn retry_quarantine() -> i64 {
    commit::work();
    let before = count();
    retry(&|connection, after| connection.run(ALL, &[arg(after), arg(BATCH)]));
    commit::work();
    before - count()
}

/// Notes again the rows whose time has come by `as_of`.
pub fn future(as_of: Instant) {
    retry(&|connection, after| connection.run(FUTURE, &[arg(after), arg(BATCH), arg(Timestamp::from(as_of))]));
}

/// Entries looked at together.
const BATCH: i64 = 1_000;

macro_rules! select_entries {
    ($condition:literal) => {
        concat!(
            "SELECT q.quarantine_id, q.source_id, q.message_id, q.tenant, q.conversation, q.occurred_at, q.reason, q.mark_kind
            FROM talkmeter.quarantined AS q
            WHERE q.quarantine_id > $1 AND ",
            $condition,
            " ORDER BY q.quarantine_id
            LIMIT $2
            FOR UPDATE SKIP LOCKED"
        )
    };
}

const ALL: &str = select_entries!("true");
const FUTURE: &str = select_entries!("q.reason = 'future' AND q.occurred_at <= $3");

fn count() -> i64 {
    as_owner(|| connected(|connection| connection.run("SELECT count(*) FROM talkmeter.quarantined", &[]).value(0, 1)))
}

/// What is in quarantine.
struct Held {
    id: Uuid,
    source: i32,
    message: Option<String>,
    tenant: Option<String>,
    conversation: Option<String>,
    at: Option<Instant>,
    is_unjudged: bool,
    mark: Option<Kind>,
}

fn read(rows: &Rows, row: usize) -> Held {
    Held {
        id: rows.value(row, 1),
        source: rows.value(row, 2),
        message: rows.get(row, 3),
        tenant: rows.get(row, 4),
        conversation: rows.get(row, 5),
        at: rows.get::<Timestamp>(row, 6).map(Timestamp::bound),
        is_unjudged: rows.value::<String>(row, 7) == "unknown_policy",
        mark: rows.get::<String>(row, 8).and_then(|kind| Kind::named(&kind)),
    }
}

fn retry(select: &dyn for<'c> Fn(&'c Connection, Uuid) -> Rows<'c>) {
    let mut after = Uuid::from_bytes([0; 16]);
    loop {
        let entries: Vec<Held> = as_owner(|| {
            connected(|connection| {
                let rows = select(connection, after);
                (0..rows.count()).map(|row| read(&rows, row)).collect()
            })
        });
        let Some(last) = entries.last() else { return };
        after = last.id;
        as_owner(|| connected(|connection| note_again(connection, &entries)));
        pgrx::check_for_interrupts!();
    }
}

const LEAVE: &str = "DELETE FROM talkmeter.quarantined AS q WHERE q.quarantine_id = ANY ($1)";

fn note_again(connection: &Connection, entries: &[Held]) {
    let latest = clock::latest();
    let mut left: Vec<Uuid> = Vec::new();
    let mut rows: BTreeMap<i32, Vec<&Held>> = BTreeMap::new();
    for entry in entries {
        match (entry.mark, entry.source) {
            (Some(kind), _) => left.extend(mark_again(entry, kind, latest)),
            (None, 0) => left.extend(numbered_mark_again(connection, entry)),
            (None, source) => rows.entry(source).or_default().push(entry),
        }
    }
    for (source, entries) in &rows {
        if let Some(source) = cache::source(*source) {
            left.extend(rows_again(&source, entries, latest));
        }
    }
    if !left.is_empty() {
        connection.run(LEAVE, &[arg(left)]);
    }
}

/// A mark that was never made.
fn mark_again(entry: &Held, kind: Kind, latest: Instant) -> Option<Uuid> {
    let (tenant, conversation) = entry.tenant.as_deref().zip(entry.conversation.as_deref())?;
    let at = entry.at.filter(|at| *at <= latest)?;
    queue::mark(tenant, conversation, kind, at);
    Some(entry.id)
}

const MARK: &str = "
    SELECT m.kind FROM talkmeter.marked AS m WHERE m.tenant = $1 AND m.conversation = $2 AND m.mark = $3";

/// A mark that has its number, but was not folded.
fn numbered_mark_again(connection: &Connection, entry: &Held) -> Option<Uuid> {
    let (tenant, conversation) = entry.tenant.as_deref().zip(entry.conversation.as_deref())?;
    let number: i64 = entry.message.as_ref()?.parse().ok()?;
    let rows = connection.run(MARK, &[arg(tenant), arg(conversation), arg(number)]);
    let kind = (rows.count() > 0).then(|| Kind::named(&rows.value::<String>(0, 1))).flatten()?;
    let message = Message { tenant, conversation, excluded: false };
    let operation = if entry.is_unjudged { Operation::Touch } else { Operation::Add };
    queue::push(&message, OrderKey::mark(entry.at?, kind, number).as_bytes(), kind, operation);
    (!entry.is_unjudged).then_some(entry.id)
}

/// Notes rows again that can be read, and returns the entries that need not be kept: of those, and of rows that are gone.
fn rows_again(source: &Source, entries: &[&Held], latest: Instant) -> Vec<Uuid> {
    let Reading::Whole { mapping, .. } = &source.reading else { return Vec::new() };
    let named: Vec<&Held> = entries.iter().copied().filter(|entry| entry.message.is_some()).collect();
    let messages: Vec<&str> = named.iter().filter_map(|entry| entry.message.as_deref()).collect();
    let mut found = vec![false; named.len()];
    let mut left = Vec::new();
    let can_be_read = history::for_each_message(source, &messages, |index, row| {
        let reading = mapping.read(row, latest);
        // A message id may be that of several rows, in partitions.
        if named[index].at.is_some_and(|at| reading.at != Some(at)) {
            return;
        }
        found[index] = true;
        if ingest::entry(source, mapping, row, latest).is_none() {
            let operation = if named[index].is_unjudged { Operation::Touch } else { Operation::Add };
            push_row(source, mapping, row, latest, operation);
            if !named[index].is_unjudged {
                left.push(named[index].id);
            }
        }
    });
    if can_be_read {
        left.extend(named.iter().zip(&found).filter(|(_, found)| !**found).map(|(entry, _)| entry.id));
    }
    left
}
