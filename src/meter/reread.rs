//! What do the rows of a source become when another mapping reads them (rule 2.11)? The difference is noted, as if the
//! rows had been changed.

use crate::capture::entry::Entry;
use crate::capture::ingest::{self, Told};
use crate::capture::quarantine::{self, Held};
use crate::capture::queue::Operation;
use crate::catalog::reading::{self, Patience, Unreadable};
use crate::catalog::source_query::SourceQuery;
use crate::catalog::sources::{Layout, Queries, Source};
use crate::meter::batch::BATCH;
use crate::meter::history::{self, Conversations, WantedEvents};
use crate::pg::clock;
use crate::pg::progress::Progress;
use crate::pg::sql::Connection;
use std::collections::{BTreeMap, HashSet};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::Readings;
use talkmeter_engine::mapping::versions::Versions;

/// A source as it was mapped before, and as it is mapped now for rows of an instant or later.
pub struct Remapped<'a> {
    pub before: &'a Source,
    pub after: &'a Source,
    pub since: Instant,
}

/// How rows were read before and are read now, and how many of how many conversations.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<(String, String), Count>,
}

#[derive(Default)]
struct Count {
    rows: i64,
    conversations: i64,
    /// The conversation that was counted last.
    last: Option<usize>,
}

impl Tally {
    fn add(&mut self, before: String, after: String, conversation: usize) {
        let count = self.counts.entry((before, after)).or_default();
        count.rows += 1;
        if count.last.replace(conversation) != Some(conversation) {
            count.conversations += 1;
        }
    }

    /// How many rows are read otherwise now.
    pub fn otherwise(&self) -> i64 {
        self.counts.iter().filter(|((before, after), _)| before != after).map(|(_, count)| count.rows).sum()
    }

    /// Before, now, rows, conversations.
    pub fn lines(self) -> impl Iterator<Item = (String, String, i64, i64)> {
        self.counts.into_iter().map(|((before, after), count)| (before, after, count.rows, count.conversations))
    }
}

/// A row, or an event of it, that is another one by the mapping of now: its events before, and what it is now.
struct Changed {
    before: Vec<Told>,
    after: After,
}

enum After {
    Events(Vec<Told>),
    /// It cannot be metered, and is an event no more.
    Lost(Entry),
    /// It counts as deleted: what it was metered as stays (rule 3.5.11). Why it cannot be metered, if it is there.
    Kept(Option<Entry>),
}

/// Notes the differences, some conversations at a time; rows in quarantine are left as they are. `tally` counts all
/// rows.
pub fn note(connection: &Connection, remapped: &Remapped, mut tally: Option<&mut Tally>) -> Result<(), Unreadable> {
    let mut found = Conversations::new();
    let sides = [remapped.before, remapped.after];
    for side in sides.into_iter().filter(|side| matches!(side.layout, Layout::Whole { .. })) {
        history::conversations_of(side, remapped.since, Instant::LATEST, &mut found)?;
    }
    let found: Vec<&(String, String)> = found.keys().collect();
    let mut progress = Progress::begin("remap", "conversations", found.len());
    for (batch, keys) in found.chunks(BATCH).enumerate() {
        let changed = changed(remapped, keys, batch * BATCH, tally.as_deref_mut())?;
        note_changed(connection, remapped.after, changed);
        progress.advance(keys.len());
    }
    Ok(())
}

fn note_changed(connection: &Connection, source: &Source, changed: Vec<Changed>) {
    let first = |changed: &Changed| changed.before.first().map(|told| told.place.clone());
    let places: Vec<_> = changed.iter().enumerate().filter_map(|(index, row)| Some((index, first(row)?))).collect();
    let key = |index: usize| (changed[index].before[0].tenant.as_str(), changed[index].before[0].conversation.as_str());
    let events: Vec<_> = places.iter().map(|(index, place)| (key(*index), place)).collect();
    let held = quarantine::held(connection, &events);
    let back: HashSet<usize> =
        held.into_iter().filter(|(_, held)| *held == Held::Back).map(|(event, _)| places[event].0).collect();
    let others = changed.into_iter().enumerate().filter(|(index, _)| !back.contains(index));
    for (_, Changed { before, after }) in others {
        if !matches!(after, After::Kept(_)) {
            before.iter().for_each(|told| told.push(Operation::Remove));
        }
        match after {
            After::Events(after) => after.iter().for_each(|told| told.push(Operation::Add)),
            After::Lost(entry) => ingest::refuse(source, entry),
            // Until another mapping reads it.
            After::Kept(Some(entry)) => ingest::refuse(source, Entry { counted: !before.is_empty(), ..entry }),
            After::Kept(None) => {}
        }
    }
}

/// Those rows of conversations that are read otherwise now; `first` is the number of the first of these.
fn changed(
    remapped: &Remapped,
    keys: &[&(String, String)],
    first: usize,
    mut tally: Option<&mut Tally>,
) -> Result<Vec<Changed>, Unreadable> {
    let Remapped { before, after, since } = remapped;
    let after_queries = reading::queries(after)?;
    let Layout::Whole { mapping: reads, readers, .. } = &after.layout else { return Ok(Vec::new()) };
    let (mapped, queries, own) = match &before.layout {
        Layout::Whole { mapping, readers, .. } => (Some(&**mapping), reading::queries(before)?, readers.as_slice()),
        Layout::Broken { .. } => (None, after_queries, [].as_slice()),
    };
    let both: Vec<_> = own.iter().chain(readers).cloned().collect();
    let latest = clock::latest();
    let mut changed = Vec::new();
    for (index, query) in queries.all.iter().enumerate() {
        let since = if finds_as_now(queries, after_queries) { *since } else { Instant::EARLIEST };
        let wanted = wanted(query, keys, after.id, since);
        let wanted: Vec<(usize, &WantedEvents)> = wanted.iter().map(|(index, wanted)| (*index, wanted)).collect();
        if wanted.is_empty() {
            continue;
        }
        let statement = match mapped {
            Some(_) => query.by_conversation_with(&after_queries.all[0]),
            None => query.by_conversation.clone(),
        };
        let args = history::args(query, &wanted);
        reading::for_each_row(query, &statement, &args, &both, Patience::OfCaller, |ordinal, values, _| {
            let (conversation, wanted) = wanted[ordinal as usize - 1];
            let (old, new) = values.split_at(own.len());
            let now = reads.readings(new, latest);
            let Some(mapped) = mapped else {
                // What it was is not known: its conversation is folded again.
                now.iter().for_each(|now| ingest::push(after, now, Operation::Touch));
                return tell(&mut tally, remapped, None, &now, first + conversation);
            };
            let (version, was) = mapped.pick_all(old, latest);
            let same = was.row.tenant.as_deref() == Some(wanted.tenant)
                && was.row.conversation.as_deref() == Some(wanted.conversation);
            if !same || !queries.gives(index, version) {
                return;
            }
            tell(&mut tally, remapped, Some(&was), &now, first + conversation);
            let was_held_whole = was.row.event.is_none() && ingest::entry(before, &was.row).is_some();
            if was != now && !was_held_whole {
                changed.extend(changed_events(remapped, &was, &now));
            }
        })?;
    }
    Ok(changed)
}

/// Has every conversation of a source folded again, because of some of its rows no more is known than that they are
/// there, and gives those that cannot be metered as they are.
pub fn whole(source: &Source) -> Result<Vec<Entry>, Unreadable> {
    let mut found = Conversations::new();
    history::conversations_of(source, Instant::EARLIEST, Instant::LATEST, &mut found)?;
    let queries = reading::queries(source)?;
    let Layout::Whole { mapping, readers, .. } = &source.layout else { return Ok(Vec::new()) };
    let latest = clock::latest();
    let mut refused = Vec::new();
    let keys: Vec<&(String, String)> = found.keys().collect();
    for keys in keys.chunks(BATCH) {
        let mut first: BTreeMap<(String, String), Told> = BTreeMap::new();
        for (index, query) in queries.all.iter().enumerate() {
            let wanted = wanted(query, keys, source.id, Instant::EARLIEST);
            let wanted: Vec<(usize, &WantedEvents)> = wanted.iter().map(|(index, wanted)| (*index, wanted)).collect();
            if wanted.is_empty() {
                continue;
            }
            let args = history::args(query, &wanted);
            reading::for_each_row(query, &query.by_conversation, &args, readers, Patience::OfCaller, |_, row, _| {
                let (version, readings) = mapping.pick_all(row, latest);
                if !queries.gives(index, version) {
                    return;
                }
                for reading in readings.iter().filter(|reading| !reading.at.is_some_and(|at| source.ignores(at))) {
                    refused.extend(ingest::entry(source, reading).filter(|entry| entry.row.message.is_some()));
                    for told in ingest::told(source, reading) {
                        let key = (told.tenant.clone(), told.conversation.clone());
                        if first.get(&key).is_none_or(|first| told.place.as_bytes() < first.place.as_bytes()) {
                            first.insert(key, told);
                        }
                    }
                }
            })?;
        }
        // What follows the first event is folded again with it.
        first.values().for_each(|told| told.push(Operation::Touch));
    }
    Ok(refused)
}

/// What becomes of the events of a row that was not held as a whole, those in quarantine left out.
fn changed_events<'a>(
    remapped: &'a Remapped,
    was: &'a Readings,
    now: &'a Readings,
) -> impl Iterator<Item = Changed> + 'a {
    let Remapped { before, after, .. } = *remapped;
    let new = now.own.iter().filter(|now| was.of(now.event).is_none());
    let others = was.iter().filter(|was| ingest::entry(before, was).is_none());
    let pairs = others.map(|was| (Some(was), now.of(was.event))).chain(new.map(|now| (None, Some(now))));
    pairs.filter(|(was, is)| was != is).map(move |(was, is)| {
        let read = is.unwrap_or(&now.row);
        let is_kept = !read.has_keys() || read.at.is_some_and(|at| after.ignores(at));
        let then = match is.and_then(|is| ingest::entry(after, is)) {
            Some(entry) if is_kept => After::Kept(Some(entry)),
            Some(entry) => After::Lost(entry),
            None if is_kept => After::Kept(None),
            None => After::Events(is.map_or_else(Vec::new, |is| ingest::told(after, is))),
        };
        Changed { before: was.map_or_else(Vec::new, |was| ingest::told(before, was)), after: then }
    })
}

/// Whether the rows are found by the same columns before and now.
fn finds_as_now(before: &Queries, after: &Queries) -> bool {
    before.all.iter().chain(&after.all).all(|query| query.keyed_as(&after.all[0]))
}

fn wanted<'a>(
    query: &SourceQuery,
    keys: &[&'a (String, String)],
    source: i32,
    since: Instant,
) -> Vec<(usize, WantedEvents<'a>)> {
    let possible = keys.iter().enumerate().filter(|(_, (tenant, conversation))| query.can_hold(tenant, conversation));
    let wanted = |(index, (tenant, conversation)): (usize, &&'a (String, String))| {
        (
            index,
            WantedEvents { tenant, conversation, since, sources: vec![source], has_marks: false, scanned: Vec::new() },
        )
    };
    possible.map(wanted).collect()
}

/// Counts a row, if it is of the time that is mapped anew.
fn tell(
    tally: &mut Option<&mut Tally>,
    remapped: &Remapped,
    was: Option<&Readings>,
    now: &Readings,
    conversation: usize,
) {
    let Some(tally) = tally else { return };
    let at = now.row.at.or(was.and_then(|was| was.row.at));
    if at.is_some_and(|at| at >= remapped.since && !remapped.after.ignores(at)) {
        let before = was.map_or("mapping_broken".to_owned(), Readings::in_words);
        tally.add(before, now.in_words(), conversation);
    }
}

/// The times of rows with these message ids, as far as the source can read them.
pub fn times(source: &Source, messages: &[&str]) -> Result<Vec<Instant>, Unreadable> {
    let Layout::Whole { mapping, .. } = &source.layout else { return Ok(Vec::new()) };
    let mut times = Vec::new();
    reading::for_each_message(source, messages, |_, row| {
        times.extend(Versions::read(mapping, row, Instant::LATEST).at)
    })?;
    Ok(times)
}
