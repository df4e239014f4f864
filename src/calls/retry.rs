//! Which rows in quarantine can be metered by now (rule 3.7)?

use crate::calls::journal;
use crate::capture::entry::{Entry, MOVED, RowName, TOO_OLD};
use crate::capture::ingest;
use crate::capture::quarantine;
use crate::capture::queue::{self, Message, Operation};
use crate::capture::status_rows;
use crate::catalog::Catalog;
use crate::catalog::away::Away;
use crate::catalog::reading;
use crate::catalog::sources::{Layout, Role, Source};
use crate::meter::{commit, reread};
use crate::pg::clock::{self, Timestamp};
use crate::pg::limit::heed_cancel;
use crate::pg::locks::{self, Conversations};
use crate::pg::progress::Progress;
use crate::pg::rights::as_owner;
use crate::pg::settings;
use crate::pg::sql::{Connection, Row, Rows, arg, connected};
use pgrx::datum::Uuid;
use pgrx::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;
use talkmeter_engine::event::{Kind, Name};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Reading, Refusal};
use talkmeter_engine::order::OrderKey;

/// Meters the rows of quarantine that can now be metered, and returns how many left it.
#[pg_extern(sql = false)]
fn retry_quarantine() -> i64 {
    commit::work();
    reading::begin();
    let before = count();
    let mut progress = Progress::begin("retry_quarantine", "rows", before as usize);
    let away = Away::by_now().names();
    let args = |after: &After| [arg(after.id), arg(BATCH), arg(away.clone())];
    retry(&|connection, after| connection.run(ALL, &args(after)), |looked_at| progress.advance(looked_at));
    commit::work();
    let left = before - count();
    if left > 0 {
        let note = |connection: &Connection| {
            journal::note(connection, "retry_quarantine", None, json!({"left": left}), None);
        };
        as_owner(|| connected(note));
    }
    left
}

/// Notes again what waits in quarantine of a source, to be folded by the caller.
pub fn of_source(source: i32) {
    reading::begin();
    let away = Away::by_now().names();
    let args = |after: &After| [arg(after.id), arg(BATCH), arg(away.clone()), arg(source)];
    retry(&|connection, after| connection.run(OF_SOURCE, &args(after)), |_| {});
}

/// Notes again the rows of a tenant whose time has come by `as_of`.
pub fn future(as_of: Instant, tenant: &str) {
    if !settings::ENABLED.get() {
        return;
    }
    let as_of = Timestamp::from(as_of);
    retry(&|connection, after| connection.run(FUTURE, &[arg(after.id), arg(BATCH), arg(as_of), arg(tenant)]), |_| {});
}

/// Notes again the rows of a tenant whose books were elsewhere, and are here now (rule 4.8.5).
pub fn of_tenant_that_came(tenant: &str) {
    if settings::ENABLED.get() {
        let args = |after: &After| [arg(after.id), arg(BATCH), arg(tenant), arg(after.at)];
        retry(&|connection, after| connection.run(CAME, &args(after)), |_| {});
    }
}

// There may be many entries of few tenants.
const TENANTS_THAT_CAME: &str = "
    WITH RECURSIVE waiting (tenant) AS (
        SELECT min(q.tenant) FROM talkmeter.quarantined AS q WHERE q.reason = 'moved'
        UNION ALL
        SELECT (SELECT min(q.tenant) FROM talkmeter.quarantined AS q WHERE q.reason = 'moved' AND q.tenant > w.tenant)
        FROM waiting AS w
        WHERE w.tenant IS NOT NULL
    )
    SELECT w.tenant FROM waiting AS w WHERE w.tenant IS NOT NULL AND NOT w.tenant = ANY ($1)";

/// The tenants whose books are here, and of which rows still wait for that.
pub fn tenants_that_came() -> BTreeSet<String> {
    let away = Away::by_now().names();
    let read = |connection: &Connection| {
        connection.run(TENANTS_THAT_CAME, &[arg(away)]).iter().map(|mut row| row.value()).collect()
    };
    as_owner(|| connected(read))
}

const TENANTS_OF_FUTURE: &str = "
    SELECT DISTINCT COALESCE(q.tenant, '')
    FROM talkmeter.quarantined AS q
    WHERE q.reason = 'future' AND q.occurred_at <= $1 AND NOT COALESCE(q.tenant, '') = ANY ($2)";

/// The tenants, among those whose books are here, that have rows whose time has come by `as_of`.
pub fn tenants_of_future(as_of: Instant) -> BTreeSet<String> {
    let away = Away::by_now().names();
    let read = |connection: &Connection| {
        let rows = connection.run(TENANTS_OF_FUTURE, &[arg(Timestamp::from(as_of)), arg(away)]);
        rows.iter().map(|mut row| row.value()).collect()
    };
    as_owner(|| connected(read))
}

/// Entries that a sweep looks at again because what failed may not fail now, and how long it goes on with that.
const SOME: i64 = 100;
const TIME: Duration = Duration::from_secs(1);

// From anywhere on, so that what always fails keeps nothing else from its turn.
const FAILED: &str = "
    WITH start AS MATERIALIZED (SELECT gen_random_uuid() AS quarantine_id)
    (SELECT q.quarantine_id, q.tenant, q.conversation
    FROM talkmeter.quarantined AS q
    WHERE q.reason IN ('internal_error', 'source_unreadable') AND q.conversation IS NOT NULL
        AND NOT q.tenant = ANY ($2) AND q.quarantine_id > (SELECT s.quarantine_id FROM start AS s)
    ORDER BY q.quarantine_id
    LIMIT $1)
    UNION ALL
    (SELECT q.quarantine_id, q.tenant, q.conversation
    FROM talkmeter.quarantined AS q
    WHERE q.reason IN ('internal_error', 'source_unreadable') AND q.conversation IS NOT NULL
        AND NOT q.tenant = ANY ($2) AND q.quarantine_id <= (SELECT s.quarantine_id FROM start AS s)
    ORDER BY q.quarantine_id
    LIMIT $1)
    LIMIT $1";

/// Meters some of what could not be metered because something failed, or waits for a table, each conversation by an
/// attempt of its own: one that fails again is left as it is.
pub fn what_failed(attempt: impl Fn(&mut dyn FnMut())) {
    if !settings::ENABLED.get() {
        return;
    }
    // In no order that would be that of the next time.
    let mut found: HashMap<(String, String), Vec<Uuid>> = HashMap::new();
    attempt(&mut || {
        connected(|connection| {
            for mut row in connection.run(FAILED, &[arg(SOME), arg(Away::by_now().names())]).iter() {
                let id = row.value();
                found.entry((row.value(), row.value())).or_default().push(id);
            }
        });
    });
    let begun = std::time::Instant::now();
    for ids in found.values().take_while(|_| begun.elapsed() < TIME) {
        attempt(&mut || {
            retry(&|connection, after| connection.run(NAMED, &[arg(after.id), arg(BATCH), arg(ids.clone())]), |_| {});
            commit::work_or_fail();
        });
    }
}

/// Entries looked at together.
const BATCH: i64 = 1_000;

macro_rules! select_entries_after {
    ($after:literal, $order:literal, $($condition:expr),+ $(,)?) => {
        concat!(
            "SELECT q.quarantine_id, q.quarantined_at, q.source_id, q.message_id, q.tenant, q.conversation,
                q.occurred_at, q.event, q.reason, q.mark_kind, q.removal, q.counted
            FROM talkmeter.quarantined AS q
            WHERE ", $after, " AND ",
            $($condition,)+
            " ORDER BY ", $order, "
            LIMIT $2
            FOR UPDATE SKIP LOCKED"
        )
    };
}

macro_rules! select_entries {
    ($($condition:expr),+ $(,)?) => {
        select_entries_after!("q.quarantine_id > $1", "q.quarantine_id", $($condition),+)
    };
}

// The sweep waits for no conversation: see [`crate::calls::sweep`].
macro_rules! select_entries_of_free_conversations {
    ($condition:literal) => {
        select_entries!($condition, and_conversation_is_free!())
    };
}

macro_rules! and_conversation_is_free {
    () => {
        " AND (
            NOT EXISTS (
                SELECT FROM talkmeter.conversation AS l
                WHERE l.tenant = q.tenant AND l.conversation = q.conversation)
            OR EXISTS (
                SELECT FROM talkmeter.conversation AS l
                WHERE l.tenant = q.tenant AND l.conversation = q.conversation
                FOR UPDATE SKIP LOCKED))"
    };
}

// What waits for its tenant's books is looked at where they are.
const ALL: &str = select_entries!("(q.tenant IS NULL OR NOT q.tenant = ANY ($3))");
const OF_SOURCE: &str = select_entries!("(q.tenant IS NULL OR NOT q.tenant = ANY ($3)) AND q.source_id = $4");
// In the order in which they came: marks are numbered so.
const CAME: &str = select_entries_after!(
    "(q.quarantined_at, q.quarantine_id) > ($4, $1)",
    "q.quarantined_at, q.quarantine_id",
    "q.reason = 'moved' AND q.tenant = $3",
    and_conversation_is_free!()
);
const FUTURE: &str = select_entries_of_free_conversations!(
    "q.reason = 'future' AND q.occurred_at <= $3 AND COALESCE(q.tenant, '') = $4"
);
const NAMED: &str = select_entries_of_free_conversations!("q.quarantine_id = ANY ($3)");

fn count() -> i64 {
    as_owner(|| {
        connected(|connection| {
            connection.run("SELECT count(*) FROM talkmeter.quarantined WHERE removal IS NULL", &[]).only().value()
        })
    })
}

/// Where a look at quarantine has come to.
struct After {
    id: Uuid,
    at: Timestamp,
}

/// An entry that is in quarantine, with its id there, and when it was put there.
struct Waiting {
    id: Uuid,
    since: Timestamp,
    entry: Entry,
}

impl Waiting {
    fn read(mut row: Row) -> Waiting {
        let (id, since) = (row.value(), row.value());
        let name = RowName {
            source: row.value(),
            message: row.nullable(),
            tenant: row.nullable(),
            conversation: row.nullable(),
            at: row.nullable::<Timestamp>().map(Timestamp::bound),
            event: row.nullable().map(quarantine::event),
        };
        let entry = Entry {
            row: name,
            reason: row.value::<String>().into(),
            detail: None,
            mark: row.nullable::<String>().and_then(|name| Name::stored(&name)),
            removal: row.nullable(),
            counted: row.value(),
        };
        Waiting { id, since, entry }
    }

    /// The row is an event in spite of being here.
    fn is_event(&self) -> bool {
        self.entry.counted || self.waits_for_policy()
    }

    fn waits_for_policy(&self) -> bool {
        self.entry.reason == "unknown_policy"
    }

    /// A row that waited for its tenant's books may be in them already, and did not come late. But if a change took
    /// away what it was before, that is told, and it is new.
    fn operation(&self, has_removal: bool) -> Operation {
        match () {
            _ if self.entry.reason == MOVED && !has_removal => Operation::Backfill,
            _ if self.is_event() => Operation::Touch,
            _ => Operation::Add,
        }
    }

    /// Notes what the row has become, or those of its events that have that time. Returns whether the entry need not be
    /// kept.
    fn event_again(&self, source: &Source, reading: &Reading, operation: Operation, refused: &mut Vec<Entry>) -> bool {
        match ingest::entry(source, reading) {
            Some(now) if (&now.reason, now.row.event) != (&self.entry.reason, self.entry.row.event) => {
                refused.push(now);
                false
            }
            Some(_) => false,
            None if self.entry.reason == TOO_OLD && reading.at.is_some_and(clock::is_too_old) => false,
            None => {
                ingest::push(source, reading, operation);
                // Whoever folds its events says whether a policy is known by now.
                !self.waits_for_policy() || reading.ignored || reading.kinds.is_empty()
            }
        }
    }

    /// Tenant and conversation, if both are known.
    fn conversation(&self) -> Option<Message<'_>> {
        let RowName { tenant, conversation, .. } = &self.entry.row;
        Some(Message { tenant: tenant.as_deref()?, conversation: conversation.as_deref()?, excluded: false })
    }
}

/// Notes the selected entries again; `looked_at` learns how many at a time.
fn retry(select: &dyn for<'c> Fn(&'c Connection, &After) -> Rows<'c>, mut looked_at: impl FnMut(usize)) {
    // Read first and deleted then.
    Conversations::begin();
    let mut after = After { id: Uuid::from_bytes([0; 16]), at: Timestamp::from(Instant::BEGINNING) };
    let mut whole = Whole::new();
    loop {
        let entries: Vec<Waiting> = as_owner(|| {
            connected(|connection| {
                let rows = select(connection, &after);
                rows.iter().map(Waiting::read).collect()
            })
        });
        let Some(last) = entries.last() else { return };
        after = After { id: last.id, at: last.since };
        as_owner(|| connected(|connection| note_again(connection, &entries, &mut whole)));
        looked_at(entries.len());
        heed_cancel();
    }
}

const LEAVE: &str = "DELETE FROM talkmeter.quarantined AS q WHERE q.quarantine_id = ANY ($1)";

/// Sources that were read as a whole, and whether they could be.
type Whole = BTreeMap<i32, bool>;

fn note_again(connection: &Connection, entries: &[Waiting], whole: &mut Whole) {
    let latest = clock::latest();
    let catalog = Catalog::now();
    let mut left: Vec<Uuid> = Vec::new();
    let mut rows: BTreeMap<i32, Vec<&Waiting>> = BTreeMap::new();
    let outdated = quarantine::outdated(connection, entries.iter().map(|waiting| waiting.id).collect());
    for waiting in entries {
        match (&waiting.entry.mark, waiting.entry.row.source) {
            _ if outdated.contains(&waiting.id) => left.push(waiting.id),
            _ if waiting.entry.removal.is_some() => left.extend(removal_again(waiting)),
            (Some(name), _) => left.extend(mark_again(waiting, name, latest)),
            (None, 0) => left.extend(numbered_mark_again(connection, waiting)),
            (None, source) => rows.entry(source).or_default().push(waiting),
        }
    }
    let removal = |waiting: &Waiting| waiting.entry.removal.as_ref().and(waiting.entry.row.message.clone());
    let removed: HashSet<String> = entries.iter().filter_map(removal).collect();
    let mut refused = Vec::new();
    for (source, entries) in &rows {
        if let Some(source) = catalog.source(*source) {
            let (nameless, named) = entries.iter().copied().partition(|waiting| is_nameless(&source, &waiting.entry));
            left.extend(nameless_again(&source, nameless, whole, &mut refused));
            left.extend(rows_again(&source, named, latest, &removed, &mut refused));
        }
    }
    quarantine::write(connection, &refused);
    if !left.is_empty() {
        locks::despite_conflicts(|connection| connection.run(LEAVE, &[arg(left.clone())]).count());
    }
}

/// A change that took an event away. The kind of an event that is gone does not matter.
fn removal_again(waiting: &Waiting) -> Option<Uuid> {
    let (conversation, place) = (waiting.conversation()?, waiting.entry.removal.as_deref()?);
    OrderKey::from_bytes(place)?;
    queue::push(&conversation, place, &Kind::Note.into(), Operation::Remove);
    Some(waiting.id)
}

/// A mark that was never made.
fn mark_again(waiting: &Waiting, name: &Name, latest: Instant) -> Option<Uuid> {
    let Message { tenant, conversation, .. } = waiting.conversation()?;
    let came_in_time = |at: Instant| waiting.entry.reason == MOVED || !clock::is_too_old(at);
    let at = waiting.entry.row.at.filter(|at| *at <= latest && came_in_time(*at))?;
    queue::mark(tenant, conversation, name, at);
    Some(waiting.id)
}

const MARK: &str = "
    SELECT m.kind FROM talkmeter.marked AS m WHERE m.tenant = $1 AND m.conversation = $2 AND m.mark = $3";

/// A mark that has its number, but was not folded.
fn numbered_mark_again(connection: &Connection, waiting: &Waiting) -> Option<Uuid> {
    let message = waiting.conversation()?;
    let row = &waiting.entry.row;
    let number: i64 = row.message.as_ref()?.parse().ok()?;
    let rows = connection.run(MARK, &[arg(message.tenant), arg(message.conversation), arg(number)]);
    let name = Name::stored(&rows.first()?.value::<String>())?;
    let operation = waiting.operation(false);
    queue::push(&message, OrderKey::mark(row.at?, name.kind, number).as_bytes(), &name, operation);
    (!waiting.waits_for_policy()).then_some(waiting.id)
}

/// Whether no row is found by an entry of which no more was read than an id: that could not be read, or is none that
/// the column can hold by now.
fn is_nameless(source: &Source, entry: &Entry) -> bool {
    let RowName { message, at, .. } = &entry.row;
    let Ok(queries) = reading::queries(source) else { return false };
    let can_be_found = |id: &String| queries.all.iter().any(|query| query.can_hold_message(id));
    // The id of a row that came while metering was off may have been of another type too.
    let is_read_in_part = match &*entry.reason {
        "disabled" => message.is_some(),
        reason => reason == Refusal::MappingBroken.name(),
    };
    source.role == Role::Messages && is_read_in_part && at.is_none() && !message.as_ref().is_some_and(can_be_found)
}

/// Has the whole table read again instead of such rows, and returns their entries.
fn nameless_again(source: &Source, nameless: Vec<&Waiting>, whole: &mut Whole, refused: &mut Vec<Entry>) -> Vec<Uuid> {
    if nameless.is_empty() {
        return Vec::new();
    }
    let is_read = *whole.entry(source.id).or_insert_with(|| match reread::whole(source) {
        Ok(entries) => {
            refused.extend(entries);
            true
        }
        Err(_) => false,
    });
    nameless.iter().filter(|_| is_read).map(|waiting| waiting.id).collect()
}

/// Notes rows again that can be read, and returns the entries that need not be kept: of those, and of rows that are
/// gone. A row that cannot be metered for another reason by now gets a new entry.
/// `removed` are messages of which a change took something away.
fn rows_again(
    source: &Source,
    entries: Vec<&Waiting>,
    latest: Instant,
    removed: &HashSet<String>,
    refused: &mut Vec<Entry>,
) -> Vec<Uuid> {
    let Layout::Whole { mapping, .. } = &source.layout else { return Vec::new() };
    let too_long = Refusal::KeyTooLong.name();
    let can_be_found = |entry: &Entry| entry.row.message.is_some() && !(entry.reason == too_long && entry.may_be_cut());
    let named: Vec<&Waiting> = entries.into_iter().filter(|waiting| can_be_found(&waiting.entry)).collect();
    let messages: Vec<&str> = named.iter().filter_map(|waiting| waiting.entry.row.message.as_deref()).collect();
    let mut found = vec![false; named.len()];
    let mut left = Vec::new();
    let read = reading::for_each_message(source, &messages, |index, row| {
        let waiting = named[index];
        let readings = mapping.readings(row, latest);
        let Some(reading) = readings.of(waiting.entry.row.event) else {
            found[index] = true;
            // What else it would be is not known while the version of its time cannot be read.
            if readings.row.refusal != Some(Refusal::MappingBroken) {
                left.push(waiting.id);
            }
            return;
        };
        // A message id may be that of several rows, in partitions.
        if waiting.entry.row.at.is_some_and(|at| reading.at != Some(at)) {
            return;
        }
        found[index] = true;
        if source.role == Role::Status {
            status_rows::note(source, mapping.newest(), row, |_| true, queue::mark);
            return left.push(waiting.id);
        }
        let has_removal = waiting.entry.row.message.as_ref().is_some_and(|message| removed.contains(message));
        let operation = waiting.operation(has_removal);
        if waiting.event_again(source, reading, operation, refused) {
            left.push(waiting.id);
        }
        if waiting.entry.row.event.is_none() {
            for own in &readings.own {
                waiting.event_again(source, own, operation, refused);
            }
        }
    });
    if read.is_ok() {
        let not_found = named.iter().zip(&found).filter(|(_, found)| !**found).map(|(waiting, _)| waiting);
        let (cut, gone): (Vec<&Waiting>, Vec<&Waiting>) = not_found.partition(|waiting| waiting.entry.may_be_cut());
        left.extend(gone.iter().map(|waiting| waiting.id));
        // The row may be there under its whole id, which is too long.
        refused.extend(cut.iter().map(|cut| Entry { reason: too_long.into(), ..cut.entry.clone() }));
    }
    left
}
