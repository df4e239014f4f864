//! What do the parts become when an event comes late, is changed or has gone (rule 3.5)?
//!
//! A conversation is folded again over the events that are there now, from a point before which nothing can have
//! changed ([`restart`]). [`refold`] keeps the parts that lost rows, refuses what is late for them, and lets each part
//! keep the number by which its charge is known.

use crate::event::Event;
use crate::fold::{Conversation, Effect};
use crate::instant::Instant;
use crate::order::{self, OrderKey};
use crate::part::{End, EndReason, Opener, Opening, Part};
use crate::policy::ChargeOn;
use std::collections::{BTreeMap, BTreeSet};

/// An event with its place among those of its conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The bytes of its [`OrderKey`].
    pub place: Vec<u8>,
    pub event: Event,
    /// No policy could judge it. Of a row of several events that waits nobody knows which of them were counted: they do
    /// not say so.
    pub waits: bool,
}

impl Placed {
    /// An event that does not wait.
    pub fn new(place: Vec<u8>, event: Event) -> Placed {
        Placed { place, event, waits: false }
    }
}

/// What one commit did to the events of a conversation, by their places.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Additions less removals; 0 where an event only became another one.
    net: BTreeMap<Vec<u8>, i64>,
    /// Events that became other ones where they are.
    turned: BTreeSet<Vec<u8>>,
}

impl Changes {
    /// An event that was not there before.
    pub fn add(&mut self, place: &[u8]) {
        *self.net.entry(place.to_vec()).or_default() += 1;
    }

    /// An event that was there before and was changed away.
    pub fn remove(&mut self, place: &[u8]) {
        *self.net.entry(place.to_vec()).or_default() -= 1;
    }

    /// An event that is to be looked at again.
    pub fn touch(&mut self, place: &[u8]) {
        self.net.entry(place.to_vec()).or_default();
    }

    /// An event that became another one at its place.
    pub fn turn(&mut self, place: &[u8]) {
        self.touch(place);
        self.turned.insert(place.to_vec());
    }

    /// An event whose row was deleted stays itself, but one that was also added never was. Returns whether that is so:
    /// then what its row was before, in whichever conversation, is to be kept. Call it after [`Changes::add`] and
    /// [`Changes::remove`].
    pub fn delete(&mut self, place: &[u8]) -> bool {
        let is_new = self.is_new(place);
        if is_new {
            self.remove(place);
        }
        is_new
    }

    /// Events that were changed away, but whose rows were then deleted, stay as they were metered.
    pub fn keep(&mut self, was_deleted: impl Fn(&OrderKey) -> bool) {
        for (place, net) in self.net.iter_mut().filter(|(_, net)| **net < 0) {
            if OrderKey::from_bytes(place).is_some_and(|key| was_deleted(&key)) {
                *net = 0;
            }
        }
    }

    /// The first place at which anything changed.
    pub fn earliest(&self) -> Option<&[u8]> {
        self.net.keys().next().map(Vec::as_slice)
    }

    /// The place of the change for which a part is not what it was: the first one within it, else the first of all.
    pub fn cause(&self, part: &Part) -> Option<&[u8]> {
        let mut within = self.net.range(part.first_event.clone()..).map(|(place, _)| place.as_slice());
        within.next().filter(|place| *place <= part.last_event.as_slice()).or(self.earliest())
    }

    /// Whether an event is there that was not before.
    pub fn is_new(&self, place: &[u8]) -> bool {
        self.net.get(place).is_some_and(|net| *net > 0)
    }

    /// Whether an event was not there before as it is now.
    fn is_other(&self, place: &[u8]) -> bool {
        self.is_new(place) || self.turned.contains(place)
    }

    /// How many events from `first` to `last` were changed away.
    fn gone(&self, first: &[u8], last: &[u8]) -> i64 {
        if first > last {
            return 0;
        }
        self.net.range(first.to_vec()..=last.to_vec()).filter(|(_, net)| **net < 0).count() as i64
    }
}

/// The part, of those in the order of time, that begins with the event at a place.
pub fn opened_at<'a>(parts: &'a [Part], place: &[u8]) -> Option<&'a Part> {
    parts.binary_search_by(|part| part.first_event.as_slice().cmp(place)).ok().map(|found| &parts[found])
}

/// Where to begin again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The first part, by index, that is folded again; those before it stay.
    pub part: usize,
    /// The place of the first event that is folded again.
    pub place: Vec<u8>,
}

impl Restart {
    /// The time of that place: no earlier event is needed.
    pub fn since(&self) -> Instant {
        order::time_of(&self.place)
    }
}

/// Where to begin again after a change at `earliest`: at the start of the first part that it may concern, or at the
/// change itself if no part was open there. A part that was active at that very instant is concerned even if it was
/// over: if it has lost rows, the change may come too late for it (rule 3.5.15). `parts` are in the order of time;
/// older ones may be left out if at least one of them begins before the instant of `earliest`.
pub fn restart(parts: &[Part], earliest: &[u8]) -> Restart {
    let instant = OrderKey::floor(order::time_of(earliest));
    let after = parts.partition_point(|part| part.first_event.as_slice() < instant.as_slice());
    let is_concerned = parts[..after].last().is_some_and(|part| !is_over(part, earliest));
    let part = if is_concerned { after - 1 } else { after };
    let first = parts.get(part).map(|part| part.first_event.as_slice()).filter(|first| *first < earliest);
    Restart { part, place: first.unwrap_or(earliest).to_vec() }
}

/// Whether a part was final before that place, and would have been whatever is there. What opened after it may have cut
/// short how long it was held, and may be what has gone: so it counts when it would be final by itself.
fn is_over(part: &Part, place: &[u8]) -> bool {
    let at = order::time_of(place);
    let Some(end) = part.end.as_ref().filter(|_| part.last_activity_at < at && part.last_event.as_slice() < place)
    else {
        return false;
    };
    // One that is held is still to be made final.
    if !part.is_final() || part.policy.final_after.of(end.at).is_none_or(|due| at < due) {
        return false;
    }
    match end.reason {
        EndReason::TurnLimit | EndReason::Event(_) => true,
        // Of equal timeouts an event at that very instant finds another than time alone.
        EndReason::Idle | EndReason::QuietReview | EndReason::MaxDuration => {
            [at, Instant::LATEST].into_iter().all(|at| part.ended_by(at).as_ref() == Some(end))
        }
    }
}

/// A conversation as it was folded before.
#[derive(Clone, Debug)]
pub struct Before<'a> {
    /// The conversation's id, for the prefix rule.
    pub id: &'a str,
    /// The part before those that are folded again.
    pub previous: Option<&'a Part>,
    /// The parts that are folded again, in the order of time.
    pub parts: &'a [Part],
    /// The highest part number ever used.
    pub highest: i32,
    /// The highest place ever folded, or the floor of the instant up to which time has ended a part; empty before the
    /// first event. What is after it is not late.
    pub last_event: &'a [u8],
}

/// A conversation as it is folded now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct After {
    /// The parts in the place of [`Before::parts`], in the order of time.
    pub parts: Vec<Part>,
    /// Parts whose numbers are retired.
    pub retired: Vec<Part>,
    pub highest: i32,
    /// Places of events that came, or became other ones, too late for a part that has lost rows.
    pub sealed: Vec<Vec<u8>>,
    /// Places of events that no known policy could judge.
    pub unjudged: Vec<Vec<u8>>,
    /// See [`Part::sealed_until`], of the last part that has lost rows: what has waited for a policy before then waits
    /// for ever.
    pub sealed_until: Option<Instant>,
    /// The places of events that took units back, by the places of the events that opened their parts.
    pub voided_by: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Folds again. `log` holds, in order, the events that are there now from the place of [`restart`] on; `opener` answers
/// what a part opens under at an event, given the policy and source of the part before; `standing` gives the lowest
/// standing charge of each part number, and is asked only if numbers are in question. `pulse` is called for each event,
/// and may end it all.
pub fn refold(
    before: &Before,
    mut log: Vec<Placed>,
    changes: &Changes,
    mut opener: impl FnMut(&Placed, Option<&Opening>) -> Opener,
    standing: impl FnOnce() -> BTreeMap<i32, i64>,
    pulse: impl Fn(),
) -> After {
    let mut after = After { highest: before.highest, ..After::default() };
    let mut state = Conversation::default();
    let mut kept = 0;
    let mut gone_end = None;
    if let Some(last) = last_sealed(before.parts, &log, changes, &pulse) {
        let part = &before.parts[last];
        let sealed_until = part.sealed_until();
        after.sealed_until = Some(sealed_until);
        let next = before.parts.get(last + 1).map(|next| &next.first_event);
        // At that very instant only what the next part counted comes after, and what is not late: another place may be
        // that of a row which this part counted, and whose id is another since.
        let is_after = |placed: &Placed| {
            let (place, is_other) = (placed.place.as_slice(), changes.is_other(&placed.place));
            placed.event.at > sealed_until
                || (is_other && place > before.last_event)
                || (!is_other && next.is_some_and(|next| place >= next.as_slice()))
        };
        let before_it = log.iter().filter(|placed| !is_after(placed));
        let (late, kept_out): (Vec<_>, Vec<_>) = before_it.partition(|placed| changes.is_other(&placed.place));
        after.sealed = late.iter().map(|placed| placed.place.clone()).collect();
        after.unjudged = still_unjudged(before, last, &kept_out, &pulse, &mut opener);
        gone_end = insert_gone_end(part, &mut log, changes);
        state.current = reopened(part, &log, changes);
        kept = if state.current.is_some() { last } else { last + 1 };
        log.retain(is_after);
    }
    let mut effects = Vec::new();
    let previous = before.parts[..kept].last().or(before.previous);
    state.charged_before = previous.is_some_and(Part::charged_by_now);
    let previous = previous.map(Part::opening);
    for placed in &log {
        let latest = || state.current.as_ref().or_else(|| last_final(&effects)).map(Part::opening);
        let previous = order::is_mark(&placed.place).then(|| latest().or_else(|| previous.clone())).flatten();
        pulse();
        if gone_end.as_ref() == Some(&placed.place) && state.may_open_at(placed.event.at) {
            continue;
        }
        let opener = || opener(placed, previous.as_ref());
        if state.step(before.id, &placed.place, &placed.event, opener, &mut effects).is_err() {
            after.unjudged.push(placed.place.clone());
        }
    }
    if !before.last_event.is_empty() {
        state.pass_time(before.id, order::time_of(before.last_event), &mut effects);
    }
    after.voided_by = voided_by(&effects, state.current.as_ref());
    let mut parts: Vec<Part> = effects.into_iter().filter_map(Effect::into_final).chain(state.current).collect();
    after.retired = number(&before.parts[kept..], &mut parts, &mut after.highest, standing);
    after.parts = [before.parts[..kept].to_vec(), parts].concat();
    after
}

/// Of the events before a sealed part's last activity, which are not folded again, those that no part counted because
/// no policy is known for them.
fn still_unjudged(
    before: &Before,
    last: usize,
    kept_out: &[&Placed],
    pulse: impl Fn(),
    mut opener: impl FnMut(&Placed, Option<&Opening>) -> Opener,
) -> Vec<Vec<u8>> {
    let parts = &before.parts[..=last];
    let mut unjudged = Vec::new();
    for placed in kept_out {
        pulse();
        let begun = parts.partition_point(|part| part.first_event <= placed.place);
        let latest = parts[..begun].last();
        if latest.is_some_and(|part| placed.place <= part.last_event && !was_held_out(part, placed)) {
            continue;
        }
        let previous = latest.or(before.previous).filter(|_| order::is_mark(&placed.place)).map(Part::opening);
        if opener(placed, previous.as_ref()).is_err() {
            unjudged.push(placed.place.clone());
        }
    }
    unjudged
}

/// Whether an event that lies between those that a part counted was none of them: it came while the part was held, and
/// whether it opens another nobody knew (rule 3.9.8).
fn was_held_out(part: &Part, placed: &Placed) -> bool {
    let ended = part.end.as_ref().is_some_and(|end| end.at <= placed.event.at);
    placed.waits && part.held_count > 0 && ended
}

/// See [`After::voided_by`]. What takes a unit back comes before its part is final, and before another part has begun.
fn voided_by(effects: &[Effect], current: Option<&Part>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut voided = BTreeMap::new();
    let mut last = None;
    for effect in effects {
        match effect {
            Effect::Voided { by, .. } => last = Some(by),
            Effect::Final(part) => voided.extend(last.take().map(|by| (part.first_event.clone(), by.clone()))),
            Effect::Charged { .. } => {}
        }
    }
    voided.extend(current.zip(last).map(|(part, by)| (part.first_event.clone(), by.clone())));
    voided
}

fn last_final(effects: &[Effect]) -> Option<&Part> {
    effects.iter().rev().find_map(Effect::as_final)
}

/// How many of the rows that a part counted are not among the events that are there now, in order.
pub fn lost_rows(part: &Part, log: &[Placed]) -> i64 {
    part.event_count - found(part, &part.first_event, log, &Changes::default())
}

/// The last part, by index, that has lost rows.
fn last_sealed(parts: &[Part], log: &[Placed], changes: &Changes, pulse: &impl Fn()) -> Option<usize> {
    parts.iter().rposition(|part| {
        pulse();
        found(part, &part.first_event, log, changes) < part.event_count
    })
}

/// How many of the events that a part counted, from a place on, can still be accounted for.
fn found(part: &Part, from: &[u8], log: &[Placed], changes: &Changes) -> i64 {
    let begin = log.partition_point(|placed| placed.place.as_slice() < from);
    let end = log.partition_point(|placed| placed.place <= part.last_event).max(begin);
    let is_old = |placed: &&Placed| !was_held_out(part, placed) && !changes.is_new(&placed.place);
    let old = log[begin..end].iter().filter(is_old).count() as i64;
    old + changes.gone(from, &part.last_event)
}

/// The event that ended a part that has lost rows, put into the log if its own row is gone: the end stands although the
/// row may be deleted (rule 3.5.15). Returns its place. If the part ends before it by now, it is no event any more.
fn insert_gone_end(part: &Part, log: &mut Vec<Placed>, changes: &Changes) -> Option<Vec<u8>> {
    let End { reason: EndReason::Event(name), .. } = part.end.as_ref().filter(|_| !stays_ended(part))? else {
        return None;
    };
    let place = &part.last_event;
    let at = log.partition_point(|placed| placed.place < *place);
    let is_there = log.get(at).is_some_and(|placed| placed.place == *place);
    if is_there || changes.gone(place, place) > 0 {
        return None;
    }
    log.insert(at, Placed::new(place.clone(), Event::named(name.clone(), order::time_of(place))));
    Some(place.clone())
}

/// Whether a part that has lost rows stays as it is: it has counted something since its end, or ended at its last
/// activity.
fn stays_ended(part: &Part) -> bool {
    part.held_count > 0 || part.end.as_ref().is_some_and(|end| end.at <= part.last_activity_at)
}

/// A part that has lost rows, as it was at its last activity: what came after can be folded on it. `None` if it stays
/// as it is and is final.
fn reopened(part: &Part, log: &[Placed], changes: &Changes) -> Option<Part> {
    if stays_ended(part) {
        return Some(Part { final_at: None, ..part.clone() }).filter(|part| !part.is_final());
    }
    let resume = OrderKey::floor(part.last_activity_at.plus(1)).to_vec();
    let folded_again = found(part, &resume, log, changes);
    let stays = was_judged_before_its_end(part);
    Some(Part {
        end: None,
        final_at: None,
        event_count: part.event_count - folded_again,
        last_event: resume.min(part.last_event.clone()),
        verdict: part.verdict.filter(|_| stays),
        rule: part.rule.filter(|_| stays),
        outcome: part.outcome.clone().filter(|_| stays),
        ..part.clone()
    })
}

/// Whether a part that has counted nothing since its end was judged at an event of `charge_on`.
pub(crate) fn was_judged_before_its_end(part: &Part) -> bool {
    part.policy.charge_on != ChargeOn::Close && part.is_reached()
}

/// Gives the parts their numbers and returns the stored ones whose number nobody took. In the order of time each takes
/// that of an untaken stored part which it overlaps: the one whose standing charge is the oldest, else the earliest;
/// else the next number never used.
fn number(
    stored: &[Part],
    parts: &mut [Part],
    highest: &mut i32,
    standing: impl FnOnce() -> BTreeMap<i32, i64>,
) -> Vec<Part> {
    let same_starts = stored.len() <= parts.len()
        && stored.iter().zip(parts.iter()).all(|(stored, part)| stored.first_event == part.first_event);
    if same_starts {
        for (index, part) in parts.iter_mut().enumerate() {
            part.number = stored.get(index).map_or_else(|| next(highest), |stored| stored.number);
        }
        return Vec::new();
    }
    let standing = standing();
    let mut untaken = Untaken { stored, begun: 0, near: BTreeSet::new(), is_taken: vec![false; stored.len()] };
    for part in parts.iter_mut() {
        part.number = untaken.take(part, &standing).map_or_else(|| next(highest), |stored| stored.number);
    }
    let Untaken { is_taken, .. } = untaken;
    stored.iter().zip(is_taken).filter(|(_, is_taken)| !is_taken).map(|(part, _)| part.clone()).collect()
}

/// Stored parts whose number nobody took, as the parts that take them go by in the order of time.
struct Untaken<'a> {
    stored: &'a [Part],
    /// How many of them have begun before a part that went by had ended.
    begun: usize,
    /// Those of them that may overlap the next part: by the oldest standing charge, then in the order of time.
    near: BTreeSet<(i64, usize)>,
    is_taken: Vec<bool>,
}

impl<'a> Untaken<'a> {
    /// Takes the first of those that overlap a part.
    fn take(&mut self, part: &Part, standing: &BTreeMap<i32, i64>) -> Option<&'a Part> {
        let stored = self.stored;
        let has_begun = |own: &Part| own.started_at == part.started_at || own.started_at < extent(part);
        while let Some(own) = stored.get(self.begun).filter(|own| has_begun(own)) {
            self.near.insert((standing.get(&own.number).copied().unwrap_or(i64::MAX), self.begun));
            self.begun += 1;
        }
        let is_over = |own: &Part| own.started_at < part.started_at && extent(own) <= part.started_at;
        while self.near.first().is_some_and(|(_, place)| is_over(&stored[*place])) {
            self.near.pop_first();
        }
        let best = self.near.iter().find(|(_, place)| overlap(&stored[*place], part)).copied()?;
        self.near.remove(&best);
        self.is_taken[best.1] = true;
        Some(&stored[best.1])
    }
}

fn next(highest: &mut i32) -> i32 {
    *highest += 1;
    *highest
}

/// Whether two parts share an instant; one that ends where the other begins does not.
fn overlap(a: &Part, b: &Part) -> bool {
    a.started_at == b.started_at || (a.started_at < extent(b) && b.started_at < extent(a))
}

/// Where a part ends, or will if nothing more happens.
fn extent(part: &Part) -> Instant {
    let end = part.end.as_ref().map(|end| end.at);
    end.or(part.timeout().map(|timeout| timeout.end.at)).unwrap_or(Instant::LATEST)
}
