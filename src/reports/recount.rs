//! What do the messages give if conversations are folded from their start? Nothing is written or locked.

use crate::capture::entry::Key;
use crate::catalog::Catalog;
use crate::catalog::reading::Patience;
use crate::meter::batch::Batch;
use crate::meter::history::{self, Conversations, Scanned, WantedEvents};
use crate::meter::part_table::{self, Metered};
use crate::meter::scan::{self, Scan};
use crate::pg::clock::{self, Timestamp};
use crate::pg::limit::heed_cancel;
use crate::pg::progress::Progress;
use crate::pg::sql::{Connection, arg, connected};
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::part::{Opening, Part, UnknownPolicy};
use talkmeter_engine::period::Period;
use talkmeter_engine::refold::{Before, Changes, Placed, lost_rows, opened_at, refold};

/// A conversation as its messages have it.
pub struct Recounted<'a> {
    pub key: Key<'a>,
    /// As folded, or as metered if that cannot be proved any more.
    pub parts: Vec<Part>,
    /// Rows that a part had counted are gone, or cannot be read.
    pub is_unprovable: bool,
}

/// Conversations folded together: a table that no index helps to read is read once for so many.
const TOGETHER: usize = 5_000;

const IN_SPAN: &str = "
    SELECT DISTINCT p.tenant, p.conversation
    FROM talkmeter.part AS p
    WHERE p.charged_at >= $1 AND p.charged_at < $2
    UNION
    SELECT m.tenant, m.conversation
    FROM talkmeter.marked AS m
    WHERE m.occurred_at >= $3 AND m.occurred_at < $2";

const LONGEST_TIMEOUT: &str = "
    SELECT COALESCE(max(extract(epoch FROM
        GREATEST(p.idle_timeout, p.quiet_review_after, p.max_duration)) * 1000000), 0)::int8
    FROM talkmeter.policy AS p";

/// Gives `each`, some at a time, the conversations of wanted tenants that may have a unit in a span: folded under a
/// policy, or under those that were in force. `work` is the function that shows its progress.
pub fn conversations(
    work: &'static str,
    span: Period,
    policy: Option<&str>,
    is_wanted: impl Fn(&str) -> bool,
    mut each: impl FnMut(&[Recounted]),
) {
    let (found, scans) = connected(|connection| in_span(connection, span));
    // Mostly they are the same ones.
    let about = scans.iter().map(Scan::most_conversations).fold(found.len(), usize::max);
    let mut progress = Progress::begin(work, "conversations", about);
    let mut merged = Merged {
        found: found.into_iter().peekable(),
        scanned: scans.iter().map(|scan| (scan.source, scan.conversations().peekable())).collect(),
    };
    loop {
        let all = std::iter::from_fn(|| merged.next()).filter(|own| is_wanted(&own.key.0));
        let mut some: Vec<Candidate> = all.take(TOGETHER).collect();
        if some.is_empty() {
            break;
        }
        let count = some.len();
        let found: Vec<FoundIn> = some.iter_mut().map(Candidate::found).collect();
        each(&connected(|connection| recounted(connection, found, policy)));
        progress.advance(count);
    }
    drop(merged);
    scans.into_iter().for_each(Scan::close);
}

/// A conversation with the tables in which it was found: some of them it may never have been metered by.
struct FoundIn<'a> {
    key: Key<'a>,
    sources: &'a BTreeSet<i32>,
    scanned: Vec<Scanned>,
}

/// A conversation that may have a unit in the span.
struct Candidate {
    key: (String, String),
    sources: BTreeSet<i32>,
    /// One of each table that was read as a whole.
    scanned: Vec<Scanned>,
}

impl Candidate {
    fn found(&mut self) -> FoundIn<'_> {
        FoundIn { key: (&self.key.0, &self.key.1), sources: &self.sources, scanned: std::mem::take(&mut self.scanned) }
    }
}

/// Conversations that were found by index, and those of tables that were read as a whole, in the order of their keys.
struct Merged<'s> {
    found: Peekable<<Conversations as IntoIterator>::IntoIter>,
    /// By the table.
    scanned: Vec<(i32, Peekable<scan::Conversations<'s>>)>,
}

impl Merged<'_> {
    fn next(&mut self) -> Option<Candidate> {
        loop {
            let found = self.found.peek().map(|(key, _)| key.clone());
            let scanned = self.scanned.iter_mut().filter_map(|(_, all)| all.peek()).map(|own| own.key.clone());
            let key = scanned.chain(found).min()?;
            let found = self.found.next_if(|(other, _)| *other == key);
            let is_found = found.is_some();
            let mut sources = found.map_or_else(BTreeSet::new, |(_, sources)| sources);
            let mut scanned = Vec::new();
            for (source, all) in &mut self.scanned {
                let own = all.next_if(|own| own.key == key);
                sources.extend(own.iter().filter(|own| own.is_within).map(|_| *source));
                let nothing = || Scanned { source: *source, ..Scanned::default() };
                scanned.push(own.map_or_else(nothing, |own| own.scanned));
            }
            if is_found || !sources.is_empty() {
                return Some(Candidate { key, sources, scanned });
            }
        }
    }
}

/// Those with messages, marks or units in the span, or so little before it that time may end a part in it. A table of
/// which the span holds much is read as a whole.
fn in_span(connection: &Connection, span: Period) -> (Conversations, Vec<Scan>) {
    let timeout: i64 = connection.run(LONGEST_TIMEOUT, &[]).only().value();
    let since = span.start.plus(-timeout);
    let (mut found, mut scans) = (Conversations::new(), Vec::new());
    for source in Catalog::now().attached() {
        match Scan::of(source, Period { start: since, end: span.end }) {
            Ok(Some(scan)) => scans.push(scan),
            Ok(None) => history::conversations(source, since, span.end, &mut found),
            Err(because) => because.warn(),
        }
    }
    let rows = connection.run(IN_SPAN, &[span.start, span.end, since].map(|at| arg(Timestamp::from(at))));
    for mut row in rows.iter() {
        found.entry((row.value(), row.value())).or_default();
    }
    (found, scans)
}

fn recounted<'a>(connection: &Connection, found: Vec<FoundIn<'a>>, policy: Option<&str>) -> Vec<Recounted<'a>> {
    let recounted = |compared: Compared<'a>| {
        let Compared { key, stored, proof } = compared;
        match proof {
            Some((_, parts)) => Recounted { key, parts, is_unprovable: false },
            None => Recounted { key, parts: stored, is_unprovable: true },
        }
    };
    compared(connection, found, policy, Keeps::Nothing).into_iter().map(recounted).collect()
}

/// A conversation as it was metered, and as its messages have it.
pub struct Compared<'a> {
    pub key: Key<'a>,
    /// In the order of time.
    pub stored: Vec<Part>,
    /// The events and the parts that they give; `None` if rows that a part had counted are gone, or cannot be read.
    pub proof: Option<(Vec<Placed>, Vec<Part>)>,
}

/// Conversations of one source, compared as a recount compares them.
pub fn of_source<'a>(connection: &Connection, source: i32, keys: &'a [(String, String)]) -> Vec<Compared<'a>> {
    let sources = BTreeSet::from([source]);
    let found: Vec<FoundIn> =
        keys.iter().map(|(tenant, id)| FoundIn { key: (tenant, id), sources: &sources, scanned: Vec::new() }).collect();
    let compared = compared(connection, found, None, Keeps::Events);
    compared.into_iter().zip(keys).map(|(own, key)| Compared { key: (&key.0, &key.1), ..own }).collect()
}

/// Whether the events of a conversation are looked at after it was folded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeps {
    Events,
    Nothing,
}

fn compared<'a>(
    connection: &Connection,
    found: Vec<FoundIn<'a>>,
    policy: Option<&str>,
    keeps: Keeps,
) -> Vec<Compared<'a>> {
    let keys: Vec<Key> = found.iter().map(|found| found.key).collect();
    let mut batch = Batch::dry(connection, &keys);
    let metered = part_table::metered(&batch.catalog, &keys);
    let wanted = found.into_iter().zip(&metered).map(|(found, metered)| WantedEvents {
        tenant: found.key.0,
        conversation: found.key.1,
        since: Instant::EARLIEST,
        sources: found.sources.iter().chain(&metered.sources).copied().collect(),
        has_marks: metered.has_marks,
        scanned: found.scanned,
    });
    let logs = history::read(connection, &batch.catalog, &mut wanted.collect::<Vec<_>>(), Patience::OfCaller);
    let all = keys.iter().zip(logs).zip(metered).enumerate();
    all.map(|(index, ((key, log), Metered { parts: stored, .. }))| {
        let proof = log.ok().filter(|log| !stored.iter().any(|part| lost_rows(part, &log.events) > 0));
        let proof = proof.map(|log| {
            let kept = if keeps == Keeps::Events { log.events.clone() } else { Vec::new() };
            (kept, folded(&mut batch, index, log.events, &stored, policy))
        });
        Compared { key: *key, stored, proof }
    })
    .collect()
}

/// The parts of the conversation of that index, folded from its start: under a policy, or under those that were in
/// force.
fn folded(batch: &mut Batch, index: usize, log: Vec<Placed>, stored: &[Part], policy: Option<&str>) -> Vec<Part> {
    let id = batch.conversations[index].id;
    // Time has passed until now.
    let now = OrderKey::floor(clock::now());
    let before = Before { id, previous: None, parts: &[], highest: 0, last_event: &now };
    let opener = |placed: &Placed, previous: Option<&Opening>| {
        let really = batch.opening(index, (&placed.place, &placed.event), previous, None);
        let Some(policy) = policy else {
            return opened_under(stored, placed).map_or(really, |opening| Ok(Some(opening)));
        };
        // A mark opens a part where it would have opened one: after another, or for a tenant whose policy is named.
        if order::is_mark(&placed.place) && !matches!(really, Ok(Some(_))) {
            return really;
        }
        let source = really.ok().flatten().and_then(|opening| opening.source);
        let policy = batch.catalog.policies().tried(policy, placed.event.at).ok_or(UnknownPolicy)?;
        Ok(Some(Opening { policy, source }))
    };
    refold(&before, log, &Changes::default(), opener, BTreeMap::new, heed_cancel).parts
}

/// What the stored part, of those in the order of time, that begins at this event opened under: it stays with that,
/// whatever is in force by now.
pub fn opened_under(stored: &[Part], placed: &Placed) -> Option<Opening> {
    let part = opened_at(stored, &placed.place)?;
    Some(Opening { policy: part.policy.clone(), source: part.source })
}
