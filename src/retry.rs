//! Which rows in quarantine can be metered by now (SPEC 3.7)?

use crate::cache::{self, Reading, Role, Source};
use crate::clock::{self, Timestamp};
use crate::commit;
use crate::entry::Entry;
use crate::history;
use crate::ingest::{self, push_row};
use crate::locks;
use crate::mark;
use crate::progress::Progress;
use crate::quarantine;
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
    let mut progress = Progress::begin("retry_quarantine", "rows", before as usize);
    retry(&|connection, after| connection.run(ALL, &[arg(after), arg(BATCH)]), |looked_at| progress.advance(looked_at));
    commit::work();
    before - count()
}

/// Notes again the rows whose time has come by `as_of`.
pub fn future(as_of: Instant) {
    retry(&|connection, after| connection.run(FUTURE, &[arg(after), arg(BATCH), arg(Timestamp::from(as_of))]), |_| {});
}

/// Entries looked at together.
const BATCH: i64 = 1_000;

macro_rules! select_entries {
    ($condition:literal) => {
        concat!(
            "SELECT q.quarantine_id, q.source_id, q.message_id, q.tenant, q.conversation, q.occurred_at, q.reason, q.mark_kind,
                q.removal, q.counted
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
    as_owner(|| {
        connected(|connection| {
            connection.run("SELECT count(*) FROM talkmeter.quarantined WHERE removal IS NULL", &[]).value(0, 1)
        })
    })
}

/// What is in quarantine.
struct Held {
    id: Uuid,
    source: i32,
    message: Option<String>,
    tenant: Option<String>,
    conversation: Option<String>,
    at: Option<Instant>,
    reason: String,
    mark: Option<Kind>,
    removal: Option<Vec<u8>>,
    counted: bool,
}

impl Held {
    /// The row is an event in spite of being here.
    fn is_event(&self) -> bool {
        self.counted || self.reason == "unknown_policy"
    }
}

fn read(rows: &Rows, row: usize) -> Held {
    Held {
        id: rows.value(row, 1),
        source: rows.value(row, 2),
        message: rows.get(row, 3),
        tenant: rows.get(row, 4),
        conversation: rows.get(row, 5),
        at: rows.get::<Timestamp>(row, 6).map(Timestamp::bound),
        reason: rows.value(row, 7),
        mark: rows.get::<String>(row, 8).and_then(|kind| Kind::named(&kind)),
        removal: rows.get(row, 9),
        counted: rows.value(row, 10),
    }
}

/// Notes the selected entries again; `looked_at` learns how many at a time.
fn retry(select: &dyn for<'c> Fn(&'c Connection, Uuid) -> Rows<'c>, mut looked_at: impl FnMut(usize)) {
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
        looked_at(entries.len());
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
            _ if entry.removal.is_some() => left.extend(removal_again(entry)),
            (Some(kind), _) => left.extend(mark_again(entry, kind, latest)),
            (None, 0) => left.extend(numbered_mark_again(connection, entry)),
            (None, source) => rows.entry(source).or_default().push(entry),
        }
    }
    let mut refused = Vec::new();
    for (source, entries) in &rows {
        if let Some(source) = cache::source(*source) {
            left.extend(rows_again(&source, entries, latest, &mut refused));
        }
    }
    quarantine::write(connection, &refused);
    if !left.is_empty() {
        locks::despite_conflicts(|connection| connection.run(LEAVE, &[arg(left.clone())]).count());
    }
}

/// A change that took an event away.
fn removal_again(entry: &Held) -> Option<Uuid> {
    let (tenant, conversation) = entry.tenant.as_deref().zip(entry.conversation.as_deref())?;
    let message = Message { tenant, conversation, excluded: false };
    // The kind of what is gone matters to nobody.
    queue::push(&message, entry.removal.as_deref()?, Kind::Note, Operation::Remove);
    Some(entry.id)
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
    let operation = if entry.is_event() { Operation::Touch } else { Operation::Add };
    queue::push(&message, OrderKey::mark(entry.at?, kind, number).as_bytes(), kind, operation);
    (entry.reason != "unknown_policy").then_some(entry.id)
}

/// Notes rows again that can be read, and returns the entries that need not be kept: of those, and of rows that are gone. A
/// row that cannot be metered for another reason by now gets a new entry.
fn rows_again(source: &Source, entries: &[&Held], latest: Instant, refused: &mut Vec<Entry>) -> Vec<Uuid> {
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
        let entry = named[index];
        match ingest::entry(source, mapping, row, latest) {
            _ if source.role == Role::Status => {
                mark::note(source, mapping, row, |_| true);
                left.push(entry.id);
            }
            Some(now) if now.reason != entry.reason => refused.push(now),
            Some(_) => {}
            None => {
                let operation = if entry.is_event() { Operation::Touch } else { Operation::Add };
                push_row(source, mapping, row, latest, operation);
                if entry.reason != "unknown_policy" {
                    left.push(entry.id);
                }
            }
        }
    });
    if can_be_read {
        left.extend(named.iter().zip(&found).filter(|(_, found)| !**found).map(|(entry, _)| entry.id));
    }
    left
}
