//! How does an attached table come by another mapping, without being detached (rule 2.11)?

use crate::calls::{journal, retry};
use crate::catalog::cache;
use crate::catalog::sources::{self, Layout, Source};
use crate::meter::commit;
use crate::meter::part_table::Footprint;
use crate::meter::reread::{self, Remapped, Tally};
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::damaged;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, arg, connected};
use crate::pg::subtransaction::tried;
use pgrx::JsonB;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::rc::Rc;
use talkmeter_engine::instant::Instant;

/// What an attached table is mapped by from now on.
pub struct Given<'a> {
    pub mapping: Json,
    /// The columns that it names, as they are recorded.
    pub columns: JsonB,
    pub policy: &'a str,
    pub default_plan: Option<&'a str>,
    pub strict: bool,
    /// From which time of rows on; `None`: see [`oldest_waiting`].
    pub since: Option<Instant>,
}

const EARLIER: &str = "
    INSERT INTO talkmeter.earlier_mapping (source_id, since, policy, mapping, columns)
    SELECT s.source_id, s.mapped_since, s.policy, s.mapping, s.columns
    FROM talkmeter.source AS s
    WHERE s.source_id = $1 AND s.mapped_since < $2 AND (s.mapping <> $3 OR s.policy <> $4)";

const FORGET_LATER: &str = "DELETE FROM talkmeter.earlier_mapping AS e WHERE e.source_id = $1 AND e.since >= $2";

// An id that another column held names no row by now.
const FORGET_IDS: &str = "
    UPDATE talkmeter.quarantined AS q SET message_id = NULL
    FROM talkmeter.source AS s
    WHERE s.source_id = $1 AND q.source_id = $1 AND q.reason = 'mapping_broken' AND q.occurred_at IS NULL
        AND q.removal IS NULL AND q.mark_kind IS NULL AND q.message_id IS NOT NULL
        AND s.mapping -> 'message_id' IS DISTINCT FROM $2 -> 'message_id'";

// What is the same goes on as it is.
const MAP: &str = "
    UPDATE talkmeter.source AS s
    SET mapping = $3, columns = $4, policy = $5, default_plan = $6, strict = $7,
        mapped_since = CASE WHEN s.mapping = $3 AND s.policy = $5 THEN LEAST(s.mapped_since, $2) ELSE $2 END
    WHERE s.source_id = $1";

/// Records the mapping, and notes what that makes of rows of its time that were metered. Those that wait in quarantine
/// are left there. The table is locked against writing.
pub fn give(connection: &Connection, before: &Source, given: &Given, tally: Option<&mut Tally>) -> Rc<Source> {
    let is_broken = matches!(before.layout, Layout::Broken { .. });
    let since = given.since.or_else(|| (!is_broken).then(|| oldest_waiting(connection, before)));
    // What cannot be read any more is replaced, and not only from then on.
    let mapped_since = match (is_broken, since) {
        (true, since) => before.mapped_since().min(since.unwrap_or(Instant::LATEST)),
        (false, since) => since.unwrap_or_else(clock::now),
    };
    let (id, from) = (before.id, || arg(Timestamp::from(mapped_since)));
    connection.run(FORGET_LATER, &[arg(id), from()]);
    let (JsonB(columns), mapping) = (&given.columns, || arg(JsonB(given.mapping.clone())));
    connection.run(FORGET_IDS, &[arg(id), mapping()]);
    connection.run(EARLIER, &[arg(id), from(), mapping(), arg(given.policy)]);
    connection.run(
        MAP,
        &[
            arg(id),
            from(),
            mapping(),
            arg(JsonB(columns.clone())),
            arg(given.policy),
            arg(given.default_plan),
            arg(given.strict),
        ],
    );
    cache::announce_change();
    let after = sources::source(id).unwrap_or_else(|| damaged(format!("source {id} is gone")));
    let since = since.unwrap_or_else(|| oldest_waiting(connection, &after));
    let remapped = Remapped { before, after: &after, since };
    reread::note(connection, &remapped, tally).unwrap_or_else(|unreadable| unreadable.raise());
    after
}

const WAITING_SINCE: &str = "
    SELECT min(q.occurred_at)
    FROM talkmeter.quarantined AS q
    WHERE q.source_id = $1 AND q.removal IS NULL AND q.reason IN ('no_kind', 'mapping_broken')";

// Of these no more was read than the id.
const OF_UNKNOWN_TIME: &str = "
    SELECT DISTINCT q.message_id
    FROM talkmeter.quarantined AS q
    WHERE q.source_id = $1 AND q.removal IS NULL AND q.reason = 'mapping_broken' AND q.occurred_at IS NULL
        AND q.message_id IS NOT NULL";

/// The time of the oldest row that waits in quarantine for a rule or a column, else now.
fn oldest_waiting(connection: &Connection, source: &Source) -> Instant {
    /// Rows looked up together.
    const TOGETHER: usize = 1_000;
    let known: Option<Timestamp> = connection.run(WAITING_SINCE, &[arg(source.id)]).only().nullable();
    let rows = connection.run(OF_UNKNOWN_TIME, &[arg(source.id)]);
    let messages: Vec<String> = rows.iter().map(|mut row| row.value()).collect();
    let read = |some: &[String]| {
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        reread::times(source, &some).unwrap_or_else(|unreadable| unreadable.raise())
    };
    let times = messages.chunks(TOGETHER).flat_map(read);
    known.map(Timestamp::bound).into_iter().chain(times).min().unwrap_or_else(clock::now)
}

/// A line of what a remap would do: how rows are read before and after, and how many of how many conversations; or,
/// with neither, how many parts and charges change.
pub type Line = (Option<String>, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);

/// Maps an attached table anew and meters what comes of it: rows that were metered, and those that waited for it.
pub fn remap(before: &Source, table: &str, given: &Given) {
    let after = as_owner(|| {
        connected(|connection| {
            journal_remap(connection, table, given);
            give(connection, before, given, None)
        })
    });
    retry::of_source(after.id);
    commit::work_or_fail();
}

/// What [`remap`] would do. It is done, looked at, and taken back.
pub fn dry(before: &Source, given: &Given) -> Vec<Line> {
    let (tally, [rows, conversations, parts, charges]) = tried(|| {
        let mut tally = Tally::default();
        let after = as_owner(|| connected(|connection| give(connection, before, given, Some(&mut tally))));
        retry::of_source(after.id);
        let mut keys = BTreeSet::new();
        let mut footprint = Footprint::default();
        let look = |keys: &BTreeSet<_>| as_owner(|| connected(|connection| Footprint::of(connection, keys)));
        commit::work_once_seen(|taken| {
            taken.for_each_event(|event| {
                keys.insert((event.tenant.to_owned(), event.conversation.to_owned()));
            });
            footprint = look(&keys);
        });
        let [parts, charges] = footprint.differs(&look(&keys));
        let otherwise = tally.otherwise();
        (tally, [otherwise, keys.len() as i64, parts, charges])
    });
    let line = |(was, is, rows, conversations)| (Some(was), Some(is), Some(rows), Some(conversations), None, None);
    let total = (None, None, Some(rows), Some(conversations), Some(parts), Some(charges));
    tally.lines().map(line).chain([total]).collect()
}

fn journal_remap(connection: &Connection, source: &str, given: &Given) {
    let since = given.since.map(Instant::shown);
    let arguments = json!({"source": source, "mapping": given.mapping, "policy": given.policy,
        "default_plan": given.default_plan, "strict": given.strict, "since": since});
    journal::note(connection, "remap", None, arguments, None);
}
