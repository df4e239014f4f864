//! How does a database use the engine for one conversation (rule 3.5)?
//!
//! What it keeps between two commits, and the little that it does itself: choose between going on and folding again,
//! and keep the charges in step with the verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use talkmeter_engine::event::Event;
use talkmeter_engine::fold::{Conversation, Effect};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::part::{Opener, Opening, Part, UnknownPolicy};
use talkmeter_engine::policy::Policy;
use talkmeter_engine::refold::{After, Before, Changes, Placed, refold, restart};
use talkmeter_engine::selector;

/// Which policy is in force: source, since when, policy; of those that apply the last.
#[derive(Clone, Debug)]
pub struct Terms(pub Vec<(i32, Instant, Arc<Policy>)>);

impl Terms {
    pub fn in_force(&self, place: &[u8], at: Instant) -> Option<&Arc<Policy>> {
        let source = order::source_of(place);
        self.0.iter().rev().find(|(of, since, _)| *of == source && *since <= at).map(|(_, _, policy)| policy)
    }

    fn opening(&self, placed: &Placed, previous: Option<&Opening>) -> Opener {
        if order::is_mark(&placed.place) {
            return match previous {
                None if !self.opens_on(&placed.event) => Ok(None),
                previous => previous.cloned().map(Some).ok_or(UnknownPolicy),
            };
        }
        let policy = Arc::clone(self.in_force(&placed.place, placed.event.at).ok_or(UnknownPolicy)?);
        Ok(Some(Opening { policy, source: Some(order::source_of(&placed.place)) }))
    }

    /// Whether any policy opens parts at that event.
    pub fn opens_on(&self, event: &Event) -> bool {
        self.0.iter().any(|(_, _, policy)| selector::hold(&policy.starts_on, event))
    }
}

/// What one statement does to one event.
#[derive(Clone, Debug)]
pub enum Change {
    Add(Placed),
    /// Half of an update; the other half is an addition.
    Remove(Vec<u8>),
    Delete(Vec<u8>),
    Touch(Vec<u8>),
}

/// What a commit reports beyond the state that it leaves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub refolded: bool,
    pub sealed: Vec<Vec<u8>>,
    pub retired: Vec<i32>,
}

/// Charges that are not reversed, by the number of their part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub standing: BTreeMap<i32, i64>,
    pub posted: i64,
    pub reversed: i64,
}

impl Ledger {
    fn post(&mut self, part: i32) {
        self.posted += 1;
        let before = self.standing.insert(part, self.posted);
        assert_eq!(before, None, "part {part} is charged twice");
    }

    fn reverse(&mut self, part: i32) {
        self.reversed += 1;
        self.standing.remove(&part).expect("a charge to reverse");
    }
}

/// One conversation in a database.
#[derive(Clone, Debug)]
pub struct Store {
    pub id: &'static str,
    pub terms: Terms,
    /// The events that are there, in order.
    pub log: Vec<Placed>,
    /// In the order of time; only the last may be open, or held.
    pub parts: Vec<Part>,
    pub highest: i32,
    /// The highest place ever folded, or the floor of the instant up to which time has ended a part.
    pub last_event: Vec<u8>,
    pub ledger: Ledger,
    /// Places of events that wait for a policy that can judge them.
    pub unjudged: BTreeSet<Vec<u8>>,
    /// Numbers that are used no more.
    pub retired: BTreeSet<i32>,
}

impl Store {
    pub fn new(id: &'static str, terms: Terms) -> Store {
        Store {
            id,
            terms,
            log: Vec::new(),
            parts: Vec::new(),
            highest: 0,
            last_event: Vec::new(),
            ledger: Ledger::default(),
            unjudged: BTreeSet::new(),
            retired: BTreeSet::new(),
        }
    }

    pub fn commit(&mut self, statements: &[Change]) -> Outcome {
        let highest = self.highest;
        let removed = self.removed(statements);
        statements.iter().for_each(|change| self.write(change));
        let later = |change: &Change| matches!(change, Change::Add(placed) if placed.place > self.last_event);
        let outcome = match statements.iter().all(later) {
            true => self.go_on(statements),
            false => self.fold_again(statements, &removed),
        };
        assert!(self.highest >= highest, "the highest number went down");
        self.check();
        outcome
    }

    /// Ends what time has ended, makes final what it has made so, and says whether it did any.
    pub fn sweep(&mut self, now: Instant) -> bool {
        let mut effects = Vec::new();
        let mut state = self.take_state();
        let passed = state.pass_time(self.id, now, &mut effects);
        self.put_state(state, effects);
        if let Some(due) = passed {
            self.last_event = OrderKey::floor(due).to_vec().max(std::mem::take(&mut self.last_event));
        }
        self.check();
        passed.is_some()
    }

    /// The parts as they are reported at `now`: time that has passed shows before any sweep.
    pub fn parts_at(&self, now: Instant) -> Vec<Part> {
        let mut swept = Store { log: Vec::new(), ledger: Ledger::default(), ..self.clone() };
        let mut effects = Vec::new();
        let mut state = swept.take_state();
        state.pass_time(swept.id, now, &mut effects);
        swept.put_state(state, effects);
        swept.parts
    }

    /// The events that are there and are changed away.
    fn removed(&self, statements: &[Change]) -> Vec<Placed> {
        let is_removed = |placed: &&Placed| {
            statements.iter().any(|change| matches!(change, Change::Remove(place) if *place == placed.place))
        };
        self.log.iter().filter(is_removed).cloned().collect()
    }

    fn write(&mut self, change: &Change) {
        let (Change::Add(Placed { place, .. }) | Change::Remove(place) | Change::Delete(place) | Change::Touch(place)) =
            change;
        match (self.log.binary_search_by(|placed| placed.place.cmp(place)), change) {
            (Err(index), Change::Add(placed)) => self.log.insert(index, placed.clone()),
            (Ok(index), Change::Remove(_) | Change::Delete(_)) => drop(self.log.remove(index)),
            (_, Change::Touch(_)) => {}
            (found, change) => panic!("{change:?} where the log has {found:?}"),
        }
    }

    fn go_on(&mut self, additions: &[Change]) -> Outcome {
        let first = self.log.len() - additions.len();
        let mut effects = Vec::new();
        let mut state = self.take_state();
        for placed in &self.log[first..] {
            let last = effects.iter().rev().find_map(Effect::as_final);
            let previous = match order::is_mark(&placed.place) {
                true => state.current.as_ref().or(last).or(self.parts.last()).map(Part::opening),
                false => None,
            };
            let opener = || self.terms.opening(placed, previous.as_ref());
            if state.step(self.id, &placed.place, &placed.event, opener, &mut effects).is_err() {
                self.unjudged.insert(placed.place.clone());
            }
        }
        self.put_state(state, effects);
        if let Some(last) = self.log.last().filter(|_| !additions.is_empty()) {
            self.last_event.clone_from(&last.place);
        }
        Outcome::default()
    }

    fn fold_again(&mut self, statements: &[Change], removed: &[Placed]) -> Outcome {
        // What has waited was counted by no part: it only has its place looked at.
        let of_counted = |change: &Change| match change {
            Change::Remove(place) | Change::Delete(place) if self.unjudged.contains(place) => {
                Change::Touch(place.clone())
            }
            change => change.clone(),
        };
        let mut changes = changes(&statements.iter().map(of_counted).collect::<Vec<_>>());
        let is_other = |old: &&Placed| self.log.iter().any(|now| now.place == old.place && now.event != old.event);
        removed.iter().filter(is_other).for_each(|old| changes.turn(&old.place));
        let Some(earliest) = changes.earliest() else { return Outcome::default() };
        let from = restart(&self.parts, earliest);
        let first = self.log.partition_point(|placed| placed.place < from.place);
        let before = Before {
            id: self.id,
            previous: from.part.checked_sub(1).map(|previous| &self.parts[previous]),
            parts: &self.parts[from.part..],
            highest: self.highest,
            last_event: &self.last_event,
        };
        let opener = |placed: &Placed, previous: Option<&Opening>| self.terms.opening(placed, previous);
        let standing = || self.ledger.standing.clone();
        let waits = |placed: &Placed| Placed { waits: self.unjudged.contains(&placed.place), ..placed.clone() };
        let log = self.log[first..].iter().map(waits).collect();
        let after = refold(&before, log, &changes, opener, standing, || ());
        if let Some(last) = self.log.last().filter(|last| last.place > self.last_event) {
            self.last_event.clone_from(&last.place);
        }
        drop(self.unjudged.split_off(&from.place));
        self.unjudged.extend(after.unjudged.iter().cloned());
        // Refused events are quarantined, which is to say no events.
        if !after.sealed.is_empty() {
            self.log.retain(|placed| !after.sealed.contains(&placed.place));
        }
        let stored = self.parts.split_off(from.part);
        check_numbers(&stored, &after, self.highest, &self.ledger.standing);
        self.highest = after.highest;
        self.charge(&after);
        self.retired.extend(after.retired.iter().map(|part| part.number));
        self.parts.extend(after.parts);
        let retired = after.retired.iter().map(|part| part.number).collect();
        Outcome { refolded: true, sealed: after.sealed, retired }
    }

    fn charge(&mut self, after: &After) {
        for part in &after.retired {
            if self.ledger.standing.contains_key(&part.number) {
                self.ledger.reverse(part.number);
            }
        }
        for part in &after.parts {
            match (part.charge_instant(), self.ledger.standing.contains_key(&part.number)) {
                (Some(_), false) => self.ledger.post(part.number),
                (None, true) => self.ledger.reverse(part.number),
                _ => {}
            }
        }
    }

    fn take_state(&mut self) -> Conversation {
        let state = Conversation::after(self.highest, self.parts.last());
        self.parts.pop_if(|part| !part.is_final());
        state
    }

    fn put_state(&mut self, state: Conversation, effects: Vec<Effect>) {
        self.highest = state.highest;
        for effect in effects {
            match effect {
                Effect::Charged { part, .. } => self.ledger.post(part),
                Effect::Voided { part, .. } => self.ledger.reverse(part),
                Effect::Final(part) => self.parts.push(*part),
            }
        }
        self.parts.extend(state.current);
    }

    /// What holds after every commit, whatever it did.
    fn check(&self) {
        let mut numbers: Vec<i32> = self.parts.iter().map(|part| part.number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "a number twice: {numbers:?}");
        assert!(numbers.iter().all(|number| (1..=self.highest).contains(number)), "{numbers:?} {}", self.highest);
        assert!(numbers.iter().all(|number| !self.retired.contains(number)), "{numbers:?} {:?}", self.retired);
        for pair in self.parts.windows(2) {
            assert!(pair[0].last_event < pair[1].first_event, "{pair:#?}");
            assert!(pair[0].end.as_ref().is_some_and(|end| end.at <= pair[1].started_at), "{pair:#?}");
        }
        let mut billable: Vec<i32> =
            self.parts.iter().filter(|part| part.charge_instant().is_some()).map(|part| part.number).collect();
        billable.sort_unstable();
        assert!(self.ledger.standing.keys().eq(&billable), "charges {:?}, verdicts {billable:?}", self.ledger.standing);
        assert_eq!(self.ledger.posted - self.ledger.reversed, self.ledger.standing.len() as i64);
    }
}

/// Deletes come last, as [`Changes::delete`] asks.
pub fn changes(statements: &[Change]) -> Changes {
    let mut changes = Changes::default();
    for statement in statements {
        match statement {
            Change::Add(placed) => changes.add(&placed.place),
            Change::Remove(place) => changes.remove(place),
            Change::Touch(place) => changes.touch(place),
            Change::Delete(_) => {}
        }
    }
    let row = |key: &OrderKey| (key.source(), key.message());
    let mut deleted = Vec::new();
    for statement in statements {
        if let Change::Delete(place) = statement
            && changes.delete(place)
        {
            deleted.extend(OrderKey::from_bytes(place).as_ref().map(row));
        }
    }
    changes.keep(|key| deleted.contains(&row(key)));
    changes
}

/// Where a part ends or will, exclusive; a part of no length lasts a microsecond, so that it overlaps what holds it.
fn until(part: &Part) -> Instant {
    let end = part.end.as_ref().map(|end| end.at).or(part.timeout().map(|timeout| timeout.end.at));
    end.unwrap_or(Instant::LATEST).max(part.started_at.plus(1))
}

fn overlap(a: &Part, b: &Part) -> bool {
    a.started_at.max(b.started_at) < until(a).min(until(b))
}

/// Whether the numbers are those of the rule, said a second time: parts that begin at one instant are told apart by
/// their first events, which the rule does not speak of.
fn check_numbers(stored: &[Part], after: &After, highest: i32, standing: &BTreeMap<i32, i64>) {
    let old = |number: i32| stored.iter().find(|part| part.number == number);
    for part in &after.parts {
        assert!(old(part.number).is_none_or(|old| overlap(old, part)), "{part:?} took the number of a stranger");
    }
    let used = after.parts.iter().chain(&after.retired);
    let lost = stored.iter().find(|stored| used.clone().all(|part| part.number != stored.number));
    assert!(lost.is_none(), "{lost:?} is neither there nor retired");
    let tie = |parts: &[Part]| parts.windows(2).any(|pair| pair[0].started_at == pair[1].started_at);
    if tie(stored) || tie(&after.parts) {
        return;
    }
    let mut next = highest;
    let mut taken: Vec<i32> = Vec::new();
    for part in &after.parts {
        let mut choice: Vec<&Part> =
            stored.iter().filter(|stored| !taken.contains(&stored.number) && overlap(stored, part)).collect();
        choice.sort_by_key(|stored| (standing.get(&stored.number).copied().unwrap_or(i64::MAX), stored.started_at));
        let number = choice.first().map_or_else(
            || {
                next += 1;
                next
            },
            |stored| stored.number,
        );
        assert_eq!(part.number, number, "{part:?} of {stored:?} with {standing:?}");
        taken.push(number);
    }
    assert_eq!(after.highest, next, "numbers were skipped");
}

/// An event at a place that nobody needs to know.
pub fn row(source: i32, id: i64, position: u16, event: Event) -> Placed {
    let rank = order::Rank { sequence: None, message: &order::MessageId::Integer(id), first: event.kind };
    let key = OrderKey::row(event.at, source, &rank, order::Position::of_row(position));
    Placed::new(key.as_bytes().to_vec(), event)
}

pub fn mark(call: i64, event: Event) -> Placed {
    Placed::new(OrderKey::mark(event.at, event.kind, call).as_bytes().to_vec(), event)
}
