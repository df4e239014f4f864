//! What should the meter have made of all that was committed (rules 2, 3)?
//!
//! A conversation that has lost no event is folded from its start by [`Conversation::step`], whatever the order in
//! which its events came. One that has lost any has a memory of them: it is kept as a database keeps it, and folded
//! again by the engine's `refold`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::Arc;
use talkmeter_engine::event::{self, Event, Kind};
use talkmeter_engine::fold::{Conversation, Effect};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, MessageId, OrderKey, Position, Rank};
use talkmeter_engine::part::{Opener, Opening, Part, UnknownPolicy};
use talkmeter_engine::policy::Policy;
use talkmeter_engine::refold::{Before, Changes, Placed, refold, restart};
use talkmeter_engine::selector;

/// Tenant and conversation.
pub type Key = (String, String);
/// Source and message id.
pub type Name = (i32, String);
/// A row, and which of its events has a time of its own; 0 are those that have the time of the row.
type EventName = (Name, u16);

/// From here on every time is in the future.
pub const FUTURE: Instant = Instant(4_000_000_000_000_000);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Time {
    Null,
    Infinite,
    At(Instant),
}

/// A row of the application's.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub source: i32,
    pub id: MessageId,
    pub tenant: Option<String>,
    pub conversation: Option<String>,
    pub at: Time,
    /// The time of an answer that came with its question.
    pub heard: Time,
    /// What the column holds that orders the rows of one instant, if there is one.
    pub sequence: Option<i64>,
    pub kind: Option<&'static str>,
    pub excluded: bool,
}

/// How utterances are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mapping {
    First,
    /// Noise is a note, what is unheard of a system message, and an answer has the time of its question.
    Second,
}

/// The versions of the mapping of utterances, each with its since, the newest last (rule 2.11).
#[derive(Clone, Debug)]
pub struct Versions(Vec<(Instant, Mapping)>);

impl Default for Versions {
    fn default() -> Versions {
        Versions(vec![(Instant::BEGINNING, Mapping::First)])
    }
}

impl Versions {
    pub fn with(&self, since: Instant, mapping: Mapping) -> Versions {
        let earlier = self.0.iter().filter(|(from, _)| *from < since).copied();
        Versions(earlier.chain([(since, mapping)]).collect())
    }

    /// By the time of the row; a row that has none is read by the newest.
    fn of(&self, row: &Row) -> Mapping {
        let in_force = |(since, _): &&(Instant, Mapping)| !matches!(row.at, Time::At(at) if at < *since);
        self.0.iter().rfind(in_force).map_or(Mapping::First, |(_, mapping)| *mapping)
    }
}

/// What an event of a row is to the meter, or those that have the time of the row.
#[derive(Clone, Debug, PartialEq)]
enum Reading {
    Nothing,
    Refused(&'static str),
    Events(Key, Vec<Placed>),
}

/// A reading, with which event it is of, as the key of an order tells it, and its time.
#[derive(Clone, Debug, PartialEq)]
struct Read {
    event: u16,
    at: Time,
    reading: Reading,
}

impl Row {
    pub fn name(&self) -> Name {
        (self.source, self.id.text())
    }

    /// Whether all that it says can be metered.
    pub fn is_valid(&self, versions: &Versions) -> bool {
        self.readings(versions).iter().all(|read| !matches!(read.reading, Reading::Refused(_)))
    }

    /// Whether any event that can be metered would be none as the row is to become.
    pub fn loses(&self, to: &Row, versions: &Versions) -> bool {
        loses(&self.readings(versions), &to.readings(versions))
    }

    /// Whether it has keys and a time, or needs none.
    fn has_keys(&self, read: &Read) -> bool {
        let has_all = self.tenant.is_some() && self.conversation.is_some() && matches!(read.at, Time::At(_));
        has_all || read.reading == Reading::Nothing
    }

    /// An answer has a time of its own, a question with it that of the row.
    fn readings(&self, versions: &Versions) -> Vec<Read> {
        let is_first = versions.of(self) == Mapping::First;
        let of_row = |kinds| Read { event: 0, at: self.at, reading: self.read(self.at, kinds, 0) };
        let named = |name| event::Name::stored(name).map(|name| vec![name]);
        let some = |kinds: &[Kind]| Some(kinds.iter().map(|kind| (*kind).into()).collect());
        match self.kind {
            Some("noise") if self.source == 2 && is_first => {
                vec![Read { reading: Reading::Nothing, ..of_row(None) }]
            }
            Some("noise") if self.source == 2 => vec![of_row(some(&[Kind::Note]))],
            Some("unheard_of") if self.source == 2 && !is_first => vec![of_row(some(&[Kind::SystemMessage]))],
            Some("answered") if self.source == 2 && !is_first => {
                vec![of_row(some(&[Kind::CustomerMessage, Kind::AiReply]))]
            }
            Some("exchange") => vec![of_row(some(&[Kind::CustomerMessage, Kind::AiReply]))],
            Some("visit") => vec![of_row(some(&[Kind::CustomerMessage, Kind::AiReply, Kind::Close]))],
            Some("answered") if self.source == 2 => {
                let question = of_row(some(&[Kind::CustomerMessage]));
                if self.tenant.is_none() || self.conversation.is_none() {
                    return vec![question];
                }
                let answer = self.read(self.heard, some(&[Kind::AiReply]), 3);
                vec![question, Read { event: 2, at: self.heard, reading: answer }]
            }
            name => vec![of_row(name.and_then(named))],
        }
    }

    /// Events at a time. `own` is the position of one that has that time for itself, as the key of an order holds it.
    fn read(&self, at: Time, names: Option<Vec<event::Name>>, own: u16) -> Reading {
        let (Some(tenant), Some(conversation)) = (&self.tenant, &self.conversation) else {
            return Reading::Refused("null_key");
        };
        let at = match (at, names.is_some()) {
            (Time::Null, _) => return Reading::Refused("null_key"),
            (_, false) => return Reading::Refused("no_kind"),
            (Time::Infinite, _) => return Reading::Refused("time_out_of_range"),
            (Time::At(at), _) if at >= FUTURE => return Reading::Refused("future"),
            (Time::At(at), _) => at,
        };
        let names = names.unwrap_or_default();
        let rank = Rank { sequence: self.sequence, message: &self.id, first: names[0].kind };
        let event = |(index, name)| {
            let position = Position { index: own / 2 + index, has_own_time: own % 2 == 1 };
            let place = OrderKey::row(at, self.source, &rank, position);
            Placed::new(place.as_bytes().to_vec(), Event { excluded: self.excluded, ..Event::named(name, at) })
        };
        let events = (0..).zip(names.iter().cloned()).map(event).collect();
        Reading::Events((tenant.clone(), conversation.clone()), events)
    }

    /// A line in quarantine, as the test reads it.
    fn held(&self, at: Time, reason: &str) -> String {
        let at = match at {
            Time::At(at) => at.0.to_string(),
            _ => String::new(),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}|{}|{}|{}|{at}|{reason}", self.source, self.id.text(), text(&self.tenant), text(&self.conversation))
    }
}

fn loses(before: &[Read], after: &[Read]) -> bool {
    let is_refused = |read: &Read| matches!(read.reading, Reading::Refused(_));
    before.iter().filter(|was| !is_refused(was)).any(|was| is_refused(counterpart(after, was.event).1))
}

/// What an event is in other readings of its row, and what the row itself is if it is none.
fn counterpart(of: &[Read], event: u16) -> (Option<&Read>, &Read) {
    let own = of.iter().find(|read| read.event == event);
    (own, own.unwrap_or(&of[0]))
}

/// Which policy is in force.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The policies of the two sources.
    pub sources: [String; 2],
    /// Every version of every policy, and from when it is in force.
    pub versions: Vec<(Instant, Arc<Policy>)>,
    /// Policies that the subscriptions of tenants name.
    pub pins: BTreeMap<String, String>,
}

impl Terms {
    fn in_force(&self, name: &str, at: Instant) -> Option<&Arc<Policy>> {
        let (name, pinned) = match name.split_once('@') {
            Some((name, version)) => (name, version.parse::<i32>().ok()),
            None => (name, None),
        };
        let versions = self.versions.iter().filter(|(from, policy)| {
            policy.name == name && pinned.map_or(*from <= at, |version| policy.version == version)
        });
        versions.max_by_key(|(from, policy)| (*from, policy.version)).map(|(_, policy)| policy)
    }

    /// What a part opens under at this place, after a part that opened under `previous`.
    fn opening(&self, tenant: &str, placed: &Placed, previous: Option<&Opening>) -> Opener {
        let Placed { place, event, .. } = placed;
        let own = |source: i32| self.sources[source as usize - 1].as_str();
        let (source, name) = match order::is_mark(place) {
            false => (Some(order::source_of(place)), Some(own(order::source_of(place)))),
            true => {
                let before = previous.map(|previous| previous.policy.name.as_str());
                let source = previous.and_then(|previous| previous.source);
                // The source may pin a version of the same policy.
                let of_source = source.map(own).filter(|name| name.split('@').next() == before);
                (source, of_source.or(before))
            }
        };
        let Some(name) = self.pins.get(tenant).map(String::as_str).or(name) else {
            let opens = self.sources.iter().any(|name| self.opens_on(name, event));
            return if opens { Err(UnknownPolicy) } else { Ok(None) };
        };
        let policy = self.in_force(name, event.at).ok_or(UnknownPolicy)?;
        Ok(Some(Opening { policy: Arc::clone(policy), source }))
    }

    fn opens_on(&self, name: &str, event: &Event) -> bool {
        let name = name.split('@').next();
        self.versions.iter().any(|(_, policy)| name == Some(&policy.name) && selector::hold(&policy.starts_on, event))
    }
}

/// A call that makes a mark.
#[derive(Clone, Debug)]
struct Called {
    key: Key,
    name: event::Name,
    at: Instant,
    /// Between which instants it was called, if it is to be of the moment.
    moment: Option<(Instant, Instant)>,
}

/// What happened to an event that may not be folded yet.
#[derive(Clone, Debug)]
struct Noted {
    how: How,
    event: Placed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Add,
    /// Its row was changed into something else.
    Remove,
    Delete,
    /// Its table was truncated: a row that is inserted after that is a new one, although it may be the same.
    Lose,
    Touch,
}

/// A conversation as a database keeps it.
#[derive(Clone, Debug, Default)]
struct Talk {
    marks: Vec<Placed>,
    /// In the order of time; only the last may be open.
    parts: Vec<Part>,
    highest: i32,
    last_event: Vec<u8>,
    /// Places of events that no known policy could judge.
    unjudged: BTreeSet<Vec<u8>>,
    /// Places of marks that came too late for a part that had lost rows.
    sealed: BTreeSet<Vec<u8>>,
    /// An event that a part had counted was deleted.
    lossy: bool,
}

/// The meter, and the tables that it watches, as a transaction sees them.
#[derive(Clone, Debug)]
pub struct Meter {
    pub terms: Terms,
    pub rows: BTreeMap<Name, Row>,
    pub versions: Versions,
    noted: BTreeMap<Key, Vec<Noted>>,
    /// Marks that have no number yet, in the order of their calls.
    called: Vec<Called>,
    talks: BTreeMap<Key, Talk>,
    /// Events that came too late for a part that had lost others.
    sealed: BTreeSet<EventName>,
    /// Lines of quarantine whose rows are gone: they may stay until somebody retries.
    stale: BTreeSet<String>,
    /// Rows without a key or a time that another mapping refuses: nothing has read them again, so they may not be listed.
    unread: BTreeSet<Name>,
    /// Sources that lost all their rows.
    truncated: BTreeSet<i32>,
    /// Events that were none by when their rows were deleted.
    deleted: BTreeSet<EventName>,
}

/// Events whose rows are there no more.
struct Gone {
    events: BTreeSet<EventName>,
    /// All that was in the tables of these sources.
    sources: BTreeSet<i32>,
}

impl Gone {
    fn holds(&self, event: &EventName) -> bool {
        self.sources.contains(&event.0.0) || self.events.contains(event)
    }
}

impl Meter {
    pub fn new(terms: Terms) -> Meter {
        Meter {
            terms,
            rows: BTreeMap::new(),
            versions: Versions::default(),
            noted: BTreeMap::new(),
            called: Vec::new(),
            talks: BTreeMap::new(),
            sealed: BTreeSet::new(),
            stale: BTreeSet::new(),
            unread: BTreeSet::new(),
            truncated: BTreeSet::new(),
            deleted: BTreeSet::new(),
        }
    }

    // What a transaction does

    pub fn insert(&mut self, row: Row) {
        row.readings(&self.versions).iter().for_each(|read| self.come(read));
        self.rows.insert(row.name(), row);
    }

    fn come(&mut self, read: &Read) {
        if let Reading::Events(key, events) = &read.reading {
            self.note(key, events.clone(), How::Add);
        }
    }

    /// A change is a removal and an addition; what has no keys or time of ours any more counts as deleted.
    pub fn update(&mut self, name: &Name, to: Row) {
        let Some(row) = self.rows.remove(name) else { return };
        let (before, after) = (row.readings(&self.versions), to.readings(&self.versions));
        if before != after || row.name() != to.name() {
            self.unread.remove(name);
        }
        self.turn(&row, &to, &before, &after);
        self.rows.insert(to.name(), to);
    }

    fn turn(&mut self, row: &Row, to: &Row, before: &[Read], after: &[Read]) {
        for was in before {
            let (is, now) = counterpart(after, was.event);
            if is != Some(was) || row.name() != to.name() {
                self.leave(row, was, if to.has_keys(now) { How::Remove } else { How::Delete });
                is.into_iter().for_each(|is| self.come(is));
            }
        }
        let new = after.iter().filter(|is| counterpart(before, is.event).0.is_none());
        new.for_each(|is| self.come(is));
    }

    /// Whether any event would be lost if utterances were read so.
    pub fn remap_loses(&self, versions: &Versions) -> bool {
        self.rows.values().any(|row| loses(&row.readings(&self.versions), &row.readings(versions)))
    }

    /// Rows that are read otherwise now count as changed; what waits of the table is tried again.
    pub fn remap(&mut self, since: Instant, mapping: Mapping) {
        self.settle();
        let versions = self.versions.with(since, mapping);
        for row in self.rows.values().cloned().collect::<Vec<_>>() {
            let (before, after) = (row.readings(&self.versions), row.readings(&versions));
            let is_found = matches!(row.at, Time::At(_)) && row.tenant.is_some() && row.conversation.is_some();
            if !is_found && before != after {
                self.unread.insert(row.name());
            }
            // No row was deleted, so none is known to be gone.
            let deleted = self.deleted.clone();
            self.turn(&row, &row, &before, &after);
            self.deleted = deleted;
        }
        self.versions = versions;
        self.note_waiting(|source| source == 2);
        self.settle();
    }

    pub fn delete(&mut self, name: &Name) {
        self.lose(name, How::Delete);
    }

    pub fn truncate(&mut self, source: i32) {
        let names: Vec<Name> = self.rows.keys().filter(|name| name.0 == source).cloned().collect();
        names.iter().for_each(|name| self.lose(name, How::Lose));
        self.truncated.insert(source);
    }

    fn lose(&mut self, name: &Name, how: How) {
        let Some(row) = self.rows.remove(name) else { return };
        self.unread.remove(name);
        self.stale.extend(self.held(&row));
        let readings = row.readings(&self.versions);
        readings.iter().for_each(|read| self.leave(&row, read, how));
    }

    /// `moment` tells between which instants a mark of the moment was made that was stored with this time.
    pub fn mark(&mut self, key: Key, name: event::Name, at: Instant, moment: Option<(Instant, Instant)>) {
        self.called.push(Called { key, name, at, moment });
    }

    /// Marks from an instant on, each with its number.
    pub fn marks_from(&self, from: Instant) -> impl Iterator<Item = (&Key, usize, Instant)> {
        self.talks.iter().flat_map(move |(key, talk)| {
            let marks = talk.marks.iter().enumerate().filter(move |(_, mark)| mark.event.at >= from);
            marks.map(move |(index, mark)| (key, index + 1, mark.event.at))
        })
    }

    fn leave(&mut self, row: &Row, was: &Read, how: How) {
        let name = (row.name(), was.event);
        let was_sealed = self.sealed.remove(&name);
        match &was.reading {
            // What was refused was no event, so nothing goes.
            Reading::Events(key, events) => self.note(key, events.clone(), if was_sealed { How::Touch } else { how }),
            Reading::Refused(_) if how == How::Delete => drop(self.deleted.insert(name)),
            _ => {}
        }
    }

    fn note(&mut self, key: &Key, events: Vec<Placed>, how: How) {
        let noted = self.noted.entry(key.clone()).or_default();
        noted.extend(events.into_iter().map(|event| Noted { how, event }));
    }

    /// Folds what was noted, as a commit does.
    pub fn settle(&mut self) {
        for Called { key, name, at, moment } in take(&mut self.called) {
            self.is_of_its_moment(&key, at, moment);
            let talk = self.talks.entry(key.clone()).or_default();
            let place = OrderKey::mark(at, name.kind, talk.marks.len() as i64 + 1).as_bytes().to_vec();
            let mark = Placed::new(place, Event::named(name, at));
            talk.marks.push(mark.clone());
            self.note(&key, vec![mark], How::Add);
        }
        let noted = take(&mut self.noted);
        let gone = self.gone(&noted);
        for (key, noted) in noted {
            let mut talk = self.talks.remove(&key).unwrap_or_default();
            let log = self.log(&key, &talk);
            let sealed = talk.fold(&self.terms, &key, &log, &noted, &gone);
            let there: Vec<Placed> = log.into_iter().filter(|placed| !sealed.contains(&placed.place)).collect();
            talk.unjudged = match talk.lossy {
                true => talk.waiting(&self.terms, &key.0, &there),
                false => Talk::default().go_on(&self.terms, &key, &there),
            };
            let (marks, rows): (Vec<_>, Vec<_>) = sealed.into_iter().partition(|place| order::is_mark(place));
            self.sealed.extend(rows.iter().map(|place| event_name(place)));
            talk.sealed.extend(marks);
            self.talks.insert(key, talk);
        }
    }

    /// A mark of the moment counts at the latest time of the rows that its transaction wrote into its conversation and
    /// left there, if that is later (rule 2.3.7).
    fn is_of_its_moment(&self, key: &Key, at: Instant, moment: Option<(Instant, Instant)>) {
        let Some((from, until)) = moment else { return };
        let mut left: BTreeMap<&[u8], i64> = BTreeMap::new();
        for Noted { how, event } in
            self.noted.get(key).into_iter().flatten().filter(|n| !order::is_mark(&n.event.place))
        {
            *left.entry(&event.place).or_default() += match how {
                How::Add => 1,
                How::Remove | How::Delete => -1,
                How::Lose | How::Touch => 0,
            };
        }
        let written = left.iter().filter(|(_, count)| **count > 0).map(|(place, _)| order::time_of(place)).max();
        let latest = written.unwrap_or(Instant::BEGINNING);
        assert!(from.max(latest) <= at && at <= until.max(latest), "{at:?} is not {latest:?}, {from:?} to {until:?}");
    }

    /// The events whose rows were deleted after they were changed: what they were before stays as it was metered.
    fn gone(&mut self, noted: &BTreeMap<Key, Vec<Noted>>) -> Gone {
        let mut events = take(&mut self.deleted);
        for noted in noted.values() {
            let mut changes = changes(noted);
            for Noted { event, .. } in noted.iter().filter(|noted| noted.how == How::Delete) {
                if changes.delete(&event.place) {
                    events.insert(event_name(&event.place));
                }
            }
        }
        Gone { events, sources: take(&mut self.truncated) }
    }

    /// The events of a conversation that are there, in order.
    fn log(&self, key: &Key, talk: &Talk) -> Vec<Placed> {
        let mut log = talk.marks.clone();
        log.retain(|mark| !talk.sealed.contains(&mark.place));
        for (name, row) in &self.rows {
            for read in row.readings(&self.versions) {
                match read.reading {
                    Reading::Events(of, events) if of == *key && !self.sealed.contains(&(name.clone(), read.event)) => {
                        log.extend(events);
                    }
                    _ => {}
                }
            }
        }
        log.sort_unstable_by(|a, b| a.place.cmp(&b.place));
        log
    }

    pub fn sweep(&mut self, as_of: Instant) {
        self.settle();
        for (key, talk) in &mut self.talks {
            talk.sweep(key, as_of);
        }
    }

    pub fn retry(&mut self) {
        self.settle();
        self.stale.clear();
        self.note_waiting(|_| true);
        self.settle();
    }

    /// What waits in quarantine of some sources is tried again; 0 is that of marks.
    fn note_waiting(&mut self, of: impl Fn(i32) -> bool) {
        let (again_now, rest) = take(&mut self.sealed).into_iter().partition(|((source, _), _)| of(*source));
        self.sealed = rest;
        let again_now: BTreeSet<EventName> = again_now;
        for (name, event) in again_now {
            let readings = self.rows[&name].readings(&self.versions);
            counterpart(&readings, event).0.into_iter().for_each(|read| self.come(read));
        }
        for (key, talk) in &mut self.talks {
            // Of these only the place matters.
            let noted = |how| move |place: Vec<u8>| Noted { how, event: again(place) };
            let unjudged = talk.unjudged.iter().filter(|place| of(name(place).0)).cloned().map(noted(How::Touch));
            let marks = if of(0) { take(&mut talk.sealed) } else { BTreeSet::new() };
            let sealed = marks.into_iter().map(noted(How::Add));
            self.noted.entry(key.clone()).or_default().extend(unjudged.chain(sealed));
        }
    }

    // What is there after it

    pub fn keys(&self) -> impl Iterator<Item = (&Key, bool)> {
        self.talks.iter().map(|(key, talk)| (key, talk.lossy))
    }

    /// The parts that a report of `now` shows.
    pub fn parts(&self, now: Instant) -> Vec<String> {
        let told = self.talks.iter().map(|(key, talk)| (key, if talk.lossy { talk.clone() } else { self.anew(key) }));
        shown(told, now)
    }

    /// The same as the engine's own folding again has them.
    pub fn refolded_parts(&self, now: Instant) -> Vec<String> {
        shown(self.talks.iter().map(|(key, talk)| (key, talk.clone())), now)
    }

    /// What the parts of conversations that have lost nothing are kept with, so that more can be folded on them.
    pub fn states(&self) -> Vec<String> {
        let whole = self.talks.iter().filter(|(_, talk)| !talk.lossy);
        let lines = whole.flat_map(|(key, _)| self.anew(key).parts.into_iter().map(|part| state(key, &part)));
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines
    }

    /// Starts of the parts that must have been judged billable even if nobody has swept.
    pub fn billable_unswept(&self) -> Vec<String> {
        let whole = self.talks.iter().filter(|(_, talk)| !talk.lossy);
        let parts = whole.flat_map(|(key, _)| self.anew(key).parts.into_iter().map(move |part| (key, part)));
        let billable = parts.filter(|(_, part)| part.charge_instant().is_some());
        billable.map(|((tenant, id), part)| format!("{tenant}|{id}|{}", part.started_at.0)).collect()
    }

    fn anew(&self, key: &Key) -> Talk {
        let log = self.log(key, &self.talks[key]);
        let mut talk = Talk::default();
        talk.go_on(&self.terms, key, &log);
        talk
    }

    /// The lines that quarantine must hold, and those that it may hold besides.
    pub fn quarantine(&self) -> (Vec<String>, BTreeSet<String>) {
        let (unread, read): (Vec<&Row>, Vec<&Row>) =
            self.rows.values().partition(|row| self.unread.contains(&row.name()));
        let mut lines: Vec<String> = read.into_iter().flat_map(|row| self.held(row)).collect();
        let may_be: Vec<String> = unread.into_iter().flat_map(|row| self.held(row)).collect();
        for ((tenant, id), talk) in &self.talks {
            let unjudged = talk.unjudged.iter().filter(|place| order::is_mark(place));
            for (place, reason) in
                unjudged.map(|place| (place, "unknown_policy")).chain(talk.sealed.iter().map(|place| (place, "sealed")))
            {
                let (at, (source, number)) = (order::time_of(place), name(place));
                lines.push(format!("{source}|{number}|{tenant}|{id}|{}|{reason}", at.0));
            }
        }
        lines.sort_unstable();
        (lines, self.stale.iter().cloned().chain(may_be).collect())
    }

    fn held(&self, row: &Row) -> Vec<String> {
        let reason = |read: &Read| match &read.reading {
            Reading::Nothing => None,
            Reading::Refused(reason) => Some(*reason),
            Reading::Events(..) if self.sealed.contains(&(row.name(), read.event)) => Some("sealed"),
            Reading::Events(key, events) => {
                let unjudged = &self.talks.get(key)?.unjudged;
                events.iter().any(|placed| unjudged.contains(&placed.place)).then_some("unknown_policy")
            }
        };
        row.readings(&self.versions).iter().filter_map(|read| Some(row.held(read.at, reason(read)?))).collect()
    }
}

impl Talk {
    /// Folds what was noted into the conversation, whose events now are `log`; returns the places of those that came
    /// too late for a part that had lost others.
    fn fold(&mut self, terms: &Terms, key: &Key, log: &[Placed], noted: &[Noted], gone: &Gone) -> Vec<Vec<u8>> {
        let is_there = |place: &Vec<u8>| log.binary_search_by(|placed| placed.place.cmp(place)).is_ok();
        let within =
            |place: &Vec<u8>| self.parts.iter().any(|part| part.first_event <= *place && *place <= part.last_event);
        let counted = |place: &Vec<u8>| within(place) && !self.unjudged.contains(place);
        let deleted: BTreeSet<EventName> =
            noted.iter().filter(|noted| noted.how == How::Delete).map(|noted| event_name(&noted.event.place)).collect();
        // A row that was changed before it was deleted was deleted.
        let lost = |Noted { how, event: Placed { place, .. } }: &Noted| match how {
            How::Delete | How::Remove => {
                let name = event_name(place);
                (deleted.contains(&name) || gone.holds(&name)) && !is_there(place) && counted(place)
            }
            How::Lose => counted(place),
            How::Add | How::Touch => false,
        };
        self.lossy |= noted.iter().any(lost);
        let later = |noted: &Noted| noted.how == How::Add && noted.event.place > self.last_event;
        if noted.iter().all(later) {
            let first = log.partition_point(|placed| placed.place <= self.last_event);
            self.go_on(terms, key, &log[first..]);
            return Vec::new();
        }
        let mut changes = changes(noted);
        for noted in noted.iter().filter(|noted| noted.how == How::Delete) {
            changes.delete(&noted.event.place);
        }
        changes.keep(|key| gone.holds(&event_name(key.as_bytes())));
        self.fold_again(terms, key, log, &changes)
    }

    /// Folds events that come after all others, and returns the places of those that no known policy can judge.
    fn go_on(&mut self, terms: &Terms, (tenant, id): &Key, log: &[Placed]) -> BTreeSet<Vec<u8>> {
        let mut unjudged = BTreeSet::new();
        let mut state = self.take_state();
        for placed in log {
            let previous = state.current.as_ref().or(self.parts.last()).map(opening_of);
            let opener = || terms.opening(tenant, placed, previous.as_ref());
            let mut effects = Vec::new();
            if state.step(id, &placed.place, &placed.event, opener, &mut effects).is_err() {
                unjudged.insert(placed.place.clone());
            }
            self.parts.extend(effects.into_iter().filter_map(Effect::into_final));
            self.last_event.clone_from(&placed.place);
        }
        self.highest = state.highest;
        self.parts.extend(state.current);
        unjudged
    }

    fn fold_again(&mut self, terms: &Terms, (tenant, id): &Key, log: &[Placed], changes: &Changes) -> Vec<Vec<u8>> {
        let Some(earliest) = changes.earliest() else { return Vec::new() };
        let from = restart(&self.parts, earliest);
        let first = log.partition_point(|placed| placed.place < from.place);
        let before = Before {
            id,
            previous: from.part.checked_sub(1).map(|previous| &self.parts[previous]),
            parts: &self.parts[from.part..],
            highest: self.highest,
            last_event: &self.last_event,
        };
        let opener = |placed: &Placed, previous: Option<&Opening>| terms.opening(tenant, placed, previous);
        // Which number a part takes is not compared, so neither is which charge is the older one.
        // Of a row of several events nobody knows which of them waits.
        let is_alone =
            |placed: &Placed| log.iter().filter(|other| name(&other.place) == name(&placed.place)).count() == 1;
        let waits = |placed: &Placed| Placed {
            waits: self.unjudged.contains(&placed.place) && is_alone(placed),
            ..placed.clone()
        };
        let there = log[first..].iter().map(waits).collect();
        let after = refold(&before, there, changes, opener, BTreeMap::new, || ());
        if let Some(last) = log.last().filter(|last| last.place > self.last_event) {
            self.last_event.clone_from(&last.place);
        }
        self.parts.truncate(from.part);
        self.parts.extend(after.parts);
        self.highest = after.highest;
        after.sealed
    }

    /// The places of events that wait for a policy in a conversation that has lost rows: those that no part counts, and at
    /// which none could open. What waits before the last part that has lost rows does so for ever.
    fn waiting(&self, terms: &Terms, tenant: &str, log: &[Placed]) -> BTreeSet<Vec<u8>> {
        let counts = |part: &Part, placed: &Placed| part.first_event <= placed.place && placed.place <= part.last_event;
        // While a part is held it counts nothing of which the policy is not known.
        let may_be_held_out =
            |part: &Part, placed: &Placed| part.end.as_ref().is_some_and(|end| end.at < placed.event.at);
        let is_there = |part: &Part, placed: &Placed| {
            counts(part, placed) && !(self.unjudged.contains(&placed.place) && may_be_held_out(part, placed))
        };
        let is_sealed =
            |part: &&Part| (log.iter().filter(|placed| is_there(part, placed)).count() as i64) < part.event_count;
        let sealed_until = self.parts.iter().rfind(is_sealed).map(Part::sealed_until);
        let waits = |placed: &&Placed| {
            let before = self.parts.partition_point(|part| part.first_event <= placed.place);
            let before = self.parts[..before].last();
            let is_counted = before.is_some_and(|part| counts(part, placed) && !may_be_held_out(part, placed));
            let for_ever = Some(placed.event.at) <= sealed_until && self.unjudged.contains(&placed.place);
            let opening = || terms.opening(tenant, placed, before.map(opening_of).as_ref());
            !is_counted && (for_ever || opening().is_err())
        };
        log.iter().filter(waits).map(|placed| placed.place.clone()).collect()
    }

    fn sweep(&mut self, (_, id): &Key, as_of: Instant) {
        if let Some(due) = self.pass_time(id, as_of) {
            self.last_event = OrderKey::floor(due).to_vec().max(take(&mut self.last_event));
        }
    }

    fn pass_time(&mut self, id: &str, now: Instant) -> Option<Instant> {
        let mut state = self.take_state();
        let mut effects = Vec::new();
        let due = state.pass_time(id, now, &mut effects);
        self.parts.extend(effects.into_iter().filter_map(Effect::into_final).chain(state.current));
        due
    }

    fn take_state(&mut self) -> Conversation {
        let state = Conversation::after(self.highest, self.parts.last());
        self.parts.pop_if(|part| !part.is_final());
        state
    }
}

/// What an event is, and whether it is excluded.
type Is = (Kind, Option<event::Tag>, bool);

/// All but the deletes, which come last.
fn changes(noted: &[Noted]) -> Changes {
    let mut changes = Changes::default();
    // How often each event is there more than before.
    let mut net: BTreeMap<&[u8], BTreeMap<Is, i64>> = BTreeMap::new();
    for Noted { how, event: Placed { place, event, .. } } in noted {
        let by = match how {
            How::Add => 1,
            How::Remove => -1,
            How::Touch => 0,
            How::Delete | How::Lose => continue,
        };
        match by {
            1 => changes.add(place),
            0 => changes.touch(place),
            _ => changes.remove(place),
        }
        *net.entry(place).or_default().entry((event.kind, event.tag.clone(), event.excluded)).or_default() += by;
    }
    for (place, net) in net {
        if net.values().sum::<i64>() == 0 && net.values().any(|net| *net > 0) {
            changes.turn(place);
        }
    }
    changes
}

/// An event of which only the place is known.
fn again(place: Vec<u8>) -> Placed {
    let event = Event::named(Kind::Note.into(), order::time_of(&place));
    Placed::new(place, event)
}

/// The row, or the number of the mark, that an event is of.
fn name(place: &[u8]) -> Name {
    let place = OrderKey::from_bytes(place).expect("a key");
    (place.source(), place.message().expect("an id").text())
}

fn event_name(place: &[u8]) -> EventName {
    (name(place), OrderKey::from_bytes(place).expect("a key").event())
}

fn opening_of(part: &Part) -> Opening {
    Opening { policy: Arc::clone(&part.policy), source: part.source }
}

fn micros(time: Option<Instant>) -> String {
    time.map_or(String::new(), |instant| instant.0.to_string())
}

fn flag(truth: bool) -> &'static str {
    if truth { "t" } else { "f" }
}

/// The columns of `talkmeter.parts` but the number.
fn shown<'a>(talks: impl Iterator<Item = (&'a Key, Talk)>, now: Instant) -> Vec<String> {
    let mut lines = Vec::new();
    for ((tenant, id), mut talk) in talks {
        talk.pass_time(id, now);
        for part in &talk.parts {
            let because = part.not_billable_because().filter(|_| part.end.is_some()).unwrap_or_default();
            let (policy, charged, end) = (&part.policy, part.charge_instant(), part.end.as_ref().map(|end| end.at));
            let is_told = part.end.is_some() || charged.is_some();
            let outcome = part.outcome.as_deref().filter(|_| is_told).unwrap_or_default();
            let columns = [
                format!("{tenant}|{id}|{}|{}|{}", micros(Some(part.started_at)), policy.name, policy.version),
                if part.end.is_some() { "ended" } else { "open" }.to_owned(),
                micros(part.first_ai_reply_at),
                micros(Some(part.last_activity_at)),
                micros(end),
                part.end.as_ref().map_or(String::new(), |end| end.reason.name().into_owned()),
                format!("{}|{because}|{}|{outcome}", flag(charged.is_some()), micros(charged)),
                format!("{}|{}|{}|{}", part.message_count, part.turn_count, part.ai_replies, part.staff_replies),
                micros(if part.is_final() { part.final_at.or(end) } else { part.final_due() }),
            ];
            lines.push(columns.join("|"));
        }
    }
    lines.sort_unstable();
    lines
}

/// The columns of `talkmeter.part` that no report shows.
fn state((tenant, id): &Key, part: &Part) -> String {
    let hex = |place: &[u8]| place.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!(
        "{tenant}|{id}|{}|{}|{}|{}|{}|{}|{}",
        hex(&part.first_event),
        hex(&part.last_event),
        part.source.map_or(String::new(), |source| source.to_string()),
        part.event_count,
        flag(part.customer_waits),
        flag(part.excluded),
        flag(part.error_before_reply),
    )
}
