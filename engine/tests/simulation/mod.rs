//! Do the parts stay those of folding everything from the start, whatever comes in whatever order (rule 3.5)?
//!
//! Conversations by the million, each the child of one number: `TALKMETER_SEED=<number>` tells that one again.

use crate::common::dice::Dice;
use crate::naive::{self, Happening};
use crate::store::{Change, Outcome, Store, Terms, mark, row};
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::fmt::{self, Debug, Display, Formatter};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant as Clock};
use talkmeter_engine::event::{Event, Kind, Name, Tag};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::outcome::Outcomes;
use talkmeter_engine::part::{EndReason, Part, Reason, Verdict};
use talkmeter_engine::policy::{ChargeOn, FinalAfter, Policy};
use talkmeter_engine::refold::Placed;
use talkmeter_engine::selector::Selector;

/// Microseconds, and few of them: events that lie 0 to 9 apart often meet a timeout exactly, and often tie.
const TIMEOUTS: [i64; 3] = [3, 5, 8];
const LONGEST_GAP: u64 = 9;
const LONGEST_TALK: u64 = 40;
const IDS: [&str; 5] = ["c1", "test_1", "testX", "Test_1", "my_test_1"];
const PREFIXES: [&str; 3] = ["test_", "Test_", "c"];
/// A source for which no policy is known.
const STRANGER: i32 = 3;

/// A row of a source. It is one event or two.
#[derive(Clone, Copy, Debug)]
struct Row {
    source: i32,
    id: i64,
    at: Instant,
    kinds: [Option<Kind>; 2],
    /// Of its first event.
    tag: Option<&'static str>,
    excluded: bool,
}

impl Row {
    fn events(self) -> impl Iterator<Item = Placed> {
        self.kinds.into_iter().zip(0..).filter_map(move |(kind, position)| {
            let tag = self.tag.filter(|_| position == 0).map(Tag::from);
            let event = Event { at: self.at, kind: kind?, tag, excluded: self.excluded };
            Some(row(self.source, self.id, position, event))
        })
    }

    fn added(self) -> impl Iterator<Item = Change> {
        self.events().map(Change::Add)
    }

    fn removed(self) -> impl Iterator<Item = Change> {
        self.events().map(|placed| Change::Remove(placed.place))
    }

    fn deleted(self) -> impl Iterator<Item = Change> {
        self.events().map(|placed| Change::Delete(placed.place))
    }
}

#[derive(Clone, Copy, Debug)]
enum Arrival {
    Row(Row),
    Mark(i64, Instant, Kind, Option<&'static str>),
}

/// A conversation while it happens.
struct Life {
    dice: Dice,
    store: Store,
    /// Rows that are there; those that were deleted or refused are not.
    rows: Vec<Row>,
    now: Instant,
    /// The last instant of the timeline.
    end: u64,
    next_id: i64,
    policies: [Arc<Policy>; 2],
    /// The outcomes of these, as they are written.
    outcomes: [Arc<Json>; 2],
    /// Events have tags, and policies ask for them.
    wide: bool,
    /// Some rows no policy can judge. Such a row leaves a part open whose time is over, until that shows in another
    /// way.
    strangers: bool,
    trace: bool,
}

fn policy(dice: &mut Dice, version: i32, distinct: bool) -> Arc<Policy> {
    let mut starts_on = Vec::new();
    let mut ends_on = Vec::new();
    for kind in Kind::ALL {
        match dice.below(5) {
            3 => starts_on.push(kind),
            4 => ends_on.push(kind),
            _ => {}
        }
    }
    if starts_on.is_empty() {
        ends_on.retain(|kind| *kind != Kind::CustomerMessage);
        starts_on.push(Kind::CustomerMessage);
    }
    let mut timeout = || dice.percent(60).then(|| dice.one_of(&TIMEOUTS));
    let (idle_timeout, quiet_review_after) = (timeout(), timeout());
    let same = distinct && idle_timeout == quiet_review_after;
    let policy = Policy {
        name: "any".into(),
        version,
        starts_on: starts_on.into_iter().map(Selector::from).collect(),
        ends_on: ends_on.into_iter().map(Selector::from).collect(),
        idle_timeout,
        quiet_review_after: quiet_review_after.filter(|_| !same),
        max_duration: None,
        turn_limit: dice.percent(40).then(|| 1 + dice.below(4) as i32),
        charge_on: if dice.below(2) == 0 { ChargeOn::FirstAiReply } else { ChargeOn::Close },
        outcomes: Outcomes::default(),
        final_after: FinalAfter::End,
        once_per_conversation: false,
        staff_reply_blocks: dice.percent(50),
        error_before_reply_waives: dice.percent(50),
        exclude_prefixes: PREFIXES.iter().filter(|_| dice.percent(15)).map(|prefix| (*prefix).into()).collect(),
    };
    assert_eq!(policy.flaw(), None);
    Arc::new(policy)
}

const TAGS: [&str; 2] = ["a", "b"];

fn tag(dice: &mut Dice) -> Option<&'static str> {
    dice.percent(50).then(|| dice.one_of(&TAGS))
}

/// What a policy may ask of a part, or what it may name.
fn selector(dice: &mut Dice) -> String {
    let kind = kind(dice).name();
    match dice.below(10) {
        0 => "message".to_owned(),
        1..4 => kind.to_owned(),
        _ => format!("{kind}:{}", dice.one_of(&TAGS)),
    }
}

fn selectors(dice: &mut Dice, most: u64) -> Vec<String> {
    (0..=dice.below(most)).map(|_| selector(dice)).collect()
}

/// A policy with the keys that the published three do not have, and its outcomes as they are written.
fn wide_policy(dice: &mut Dice, version: i32, distinct: bool) -> (Arc<Policy>, Arc<Json>) {
    let plain = policy(dice, version, distinct);
    let charge_on = match dice.below(4) {
        0 => json!("start"),
        1 => json!("first_ai_reply"),
        2 => json!("close"),
        _ => json!(selectors(dice, 2)),
    };
    let final_after = dice.percent(60).then(|| dice.one_of(&["1", "4", "6", "10", "25", "forever"]));
    let may_void = final_after.is_some() || charge_on != "close";
    let outcomes = if dice.percent(75) { outcomes(dice, may_void) } else { Json::Null };
    let definition = json!({
        "name": "any", "starts_on": selectors(dice, 3), "ends_on": selectors(dice, 2), "charge_on": charge_on,
        "max_duration": dice.percent(50).then(|| dice.one_of(&["4", "6", "10"])), "outcomes": outcomes,
        "final_after": final_after, "once_per": dice.percent(30).then_some("conversation"),
    });
    let mut micros = |interval: &str, _: &str| interval.parse().expect("microseconds");
    let (wide, _) = Policy::read(&definition, &mut micros).expect("a policy");
    let wide = Policy {
        idle_timeout: plain.idle_timeout,
        quiet_review_after: plain.quiet_review_after,
        turn_limit: plain.turn_limit,
        staff_reply_blocks: plain.staff_reply_blocks && dice.percent(30),
        error_before_reply_waives: plain.error_before_reply_waives && dice.percent(30),
        exclude_prefixes: plain.exclude_prefixes.clone(),
        version,
        ..wide
    };
    (Arc::new(wide), Arc::new(outcomes))
}

fn outcomes(dice: &mut Dice, may_void: bool) -> Json {
    let mut rules = Vec::new();
    for _ in 0..dice.below(4) {
        let mut words = selectors(dice, 2);
        match dice.below(6) {
            0 => words.push("unanswered".into()),
            1 => words.push("error_before_reply".into()),
            _ => {}
        }
        let condition = if dice.percent(50) { "when" } else { "unless" };
        rules.push(json!({ (condition): words }));
    }
    rules.push(json!({}));
    for (place, rule) in rules.iter_mut().enumerate() {
        match dice.below(4) {
            0 => {}
            1 => rule["outcome"] = json!("@tag"),
            2 => rule["outcome"] = json!(format!("outcome {place}")),
            _ => {
                rule["outcome"] = json!(format!("none {place}"));
                rule["units"] = json!(0);
            }
        }
        if may_void && rule.get("units").is_none() && dice.percent(50) {
            rule["voided_by"] = json!(selectors(dice, 3));
        }
    }
    Json::Array(rules)
}

fn kind(dice: &mut Dice) -> Kind {
    match dice.below(10) {
        0..3 => Kind::CustomerMessage,
        3..6 => Kind::AiReply,
        6 => Kind::StaffReply,
        _ => dice.one_of(&Kind::ALL),
    }
}

/// The order in which things that happened one after the other arrive.
fn disorder<T>(dice: &mut Dice, all: &mut [T]) {
    let last = all.len();
    match dice.below(4) {
        0 => {}
        1 => {
            for _ in 0..=last / 4 {
                let at = dice.index(last);
                all.swap(at, (at + 1 + dice.index(3)).min(last - 1));
            }
        }
        2 => {
            // Stragglers: a few come after everything else.
            for _ in 0..=dice.below(3) {
                let from = dice.index(last);
                all[from..].rotate_left(1);
            }
        }
        _ => (1..last).for_each(|i| all.swap(i, dice.index(i + 1))),
    }
}

impl Life {
    fn begin(seed: u64, deletes: bool, wide: bool, trace: bool) -> (Life, Vec<Arrival>) {
        let mut dice = Dice::new(seed);
        let strangers = dice.percent(10);
        // An event that nobody can judge leaves open which of two equal timeouts ends a part, and so does a lost row.
        let distinct = strangers || deletes;
        let mut any = |version| match wide {
            true => wide_policy(&mut dice, version, distinct),
            false => (policy(&mut dice, version, distinct), Arc::default()),
        };
        let [(first, of_first), (second, of_second)] = [1, 2].map(&mut any);
        let (policies, outcomes) = ([first, second], [of_first, of_second]);
        let longest = if dice.percent(20) { 5 } else { LONGEST_TALK };
        let length = 1 + dice.below(longest);
        let change = Instant(dice.below(3 * length) as i64);
        let [first, second] = policies.clone();
        let beginning = Instant::BEGINNING;
        let terms = Terms(vec![(1, beginning, first), (2, beginning, second.clone()), (1, change, second)]);
        let store = Store::new(dice.one_of(&IDS), terms);
        let (rows, now) = (Vec::new(), Instant(0));
        let mut life = Life { dice, store, rows, now, end: 0, next_id: 0, policies, outcomes, wide, strangers, trace };
        let mut arrivals = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let gap = if life.dice.percent(50) { 0 } else { life.dice.below(LONGEST_GAP + 1) };
            life.end += gap;
            arrivals.push(life.arrival(Instant(life.end as i64)));
        }
        disorder(&mut life.dice, &mut arrivals);
        (life, arrivals)
    }

    fn arrival(&mut self, at: Instant) -> Arrival {
        let kind = kind(&mut self.dice);
        let excluded = self.dice.percent(5);
        if !kind.is_activity() && self.dice.percent(50) {
            self.next_id += 1;
            let tag = self.tag();
            return Arrival::Mark(self.next_id, at, kind, tag);
        }
        Arrival::Row(self.row(at, kind, excluded))
    }

    /// Unique, and in no order.
    fn id(&mut self) -> i64 {
        self.next_id += 1;
        self.dice.below(64) as i64 * 1_000_000 + self.next_id
    }

    fn row(&mut self, at: Instant, kind: Kind, excluded: bool) -> Row {
        let id = self.id();
        let second = self.dice.percent(10).then(|| self::kind(&mut self.dice));
        let source = if self.strangers && self.dice.percent(20) { STRANGER } else { 1 + self.dice.below(2) as i32 };
        Row { source, id, at, kinds: [Some(kind), second], tag: self.tag(), excluded }
    }

    fn tag(&mut self) -> Option<&'static str> {
        if self.wide { tag(&mut self.dice) } else { None }
    }

    /// Somewhere in the conversation, or near an instant of it.
    fn moment(&mut self, near: Instant) -> Instant {
        match self.dice.percent(50) {
            true => near.plus(self.dice.below(2 * LONGEST_GAP + 1) as i64 - LONGEST_GAP as i64),
            false => Instant(self.dice.below(self.end + 1) as i64),
        }
    }

    fn changed(&mut self, row: Row) -> Row {
        let mut changed = row;
        if self.wide && self.dice.percent(20) {
            changed.tag = self.tag();
            return changed;
        }
        match self.dice.below(6) {
            0 | 1 => changed.at = self.moment(row.at),
            2 => changed.kinds[0] = Some(kind(&mut self.dice)),
            3 => changed.excluded = !row.excluded,
            4 => changed.kinds[1] = changed.kinds[1].is_none().then(|| kind(&mut self.dice)),
            _ => changed.id = self.id(),
        }
        changed
    }

    fn arrive(&mut self, batch: &[Arrival], statements: &mut Vec<Change>) {
        for arrival in batch {
            match *arrival {
                Arrival::Row(row) => {
                    statements.extend(row.added());
                    self.rows.push(row);
                }
                Arrival::Mark(call, at, kind, tag) => {
                    let name = Name { kind, tag: tag.map(Tag::from) };
                    statements.push(Change::Add(mark(call, Event::named(name, at))));
                }
            }
        }
    }

    /// The statements of one transaction beside the rows that arrive with it.
    fn meddle(&mut self, statements: &mut Vec<Change>) {
        if !self.rows.is_empty() && self.dice.percent(15) {
            let index = self.dice.index(self.rows.len());
            let row = self.rows[index];
            let changed = self.changed(row);
            statements.extend(row.removed().chain(changed.added()));
            let back = self.dice.percent(20);
            if back {
                statements.extend(changed.removed().chain(row.added()));
            } else {
                self.rows[index] = changed;
            }
        }
        if self.dice.percent(3) {
            let at = self.moment(self.now);
            let kind = kind(&mut self.dice);
            let row = self.row(at, kind, false);
            statements.extend(row.added().chain(row.deleted()));
        }
        if !self.store.log.is_empty() && self.dice.percent(5) {
            let index = self.dice.index(self.store.log.len());
            statements.push(Change::Touch(self.store.log[index].place.clone()));
        }
    }

    /// Deletes rows; a row that this transaction has moved is spared.
    fn lose(&mut self, statements: &mut Vec<Change>) {
        for _ in 0..self.dice.below(8).saturating_sub(4) {
            if self.rows.is_empty() {
                return;
            }
            let index = self.dice.index(self.rows.len());
            let row = self.rows[index];
            let there = |placed: &Placed| self.store.log.iter().any(|old| old.place == placed.place);
            let moved = |statement: &Change| matches!(statement, Change::Remove(_));
            if !statements.iter().any(moved) && row.events().all(|placed| there(&placed)) {
                statements.extend(row.deleted());
                self.rows.swap_remove(index);
            }
        }
    }

    /// A transaction that changes rows and changes them back leaves everything as it is.
    fn nothing_happens(&mut self) {
        if self.rows.is_empty() || self.strangers {
            return;
        }
        let row = self.rows[self.dice.index(self.rows.len())];
        let changed = self.changed(row);
        let back = changed.removed().chain(row.added());
        let statements: Vec<Change> = row.removed().chain(changed.added()).chain(back).collect();
        let before = self.store.clone();
        let outcome = self.store.commit(&statements);
        self.say_state(&statements, &outcome);
        let all = |store: &Store| (store.parts.clone(), store.ledger.clone(), store.highest, store.unjudged.clone());
        assert_eq!(all(&self.store), all(&before), "nothing has happened");
    }

    fn sweep(&mut self) {
        self.now = self.now.plus(self.dice.below(LONGEST_GAP + 1) as i64);
        self.say(|life| format!("sweep at {}", life.now.0));
        self.store.sweep(self.now);
    }

    fn say(&self, line: impl FnOnce(&Life) -> String) {
        if self.trace {
            eprintln!("{}", line(self));
        }
    }

    fn say_state(&self, statements: &[Change], outcome: &Outcome) {
        self.say(|_| format!("commit {:#?}", statements.iter().map(Short).collect::<Vec<_>>()));
        self.say(|life| {
            let parts = life.store.parts.iter().map(|part| format!("    {:?}\n", naive::plainly(part)));
            format!("{outcome:?}, charges {:?}\n{}", life.store.ledger, parts.collect::<String>())
        });
    }

    /// What was just folded has happened.
    fn catch_up(&mut self, statements: &[Change]) {
        for statement in statements {
            if let Change::Add(placed) = statement {
                self.now = self.now.max(placed.event.at);
            }
        }
    }

    fn agree(&self, log: &[Placed]) {
        // The naive implementation numbers the parts from 1.
        let renumbered = |(i, part)| naive::Part { number: i + 1, ..naive::plainly(part) };
        let parts: Vec<naive::Part> = self.store.parts_at(self.now).iter().enumerate().map(renumbered).collect();
        assert_eq!(parts, self.naively(log), "log {:#?}", log.iter().map(Line).collect::<Vec<_>>());
    }

    /// The parts of that log by the naive implementation. A mark is under the policy of the part before, so it asks
    /// what that was.
    fn naively(&self, log: &[Placed]) -> Vec<naive::Part> {
        let mut happenings: Vec<Happening> = Vec::with_capacity(log.len());
        for placed in log {
            let Placed { place, event, .. } = placed;
            let policy = if !order::is_mark(place) {
                self.store.terms.in_force(place, event.at)
            } else if self.store.terms.opens_on(event) {
                let before = naive::parts(self.store.id, &happenings, event.at);
                before.last().map(|part| &self.policies[part.policy_version as usize - 1])
            } else {
                // Under whichever: it opens none.
                self.store.terms.0.first().map(|(_, _, policy)| policy)
            };
            let policy = policy.unwrap_or_else(|| nothing_starts());
            let outcomes = match self.policies.iter().position(|own| Arc::ptr_eq(own, policy)) {
                Some(place) => Arc::clone(&self.outcomes[place]),
                None => Arc::default(),
            };
            happenings.push((event.clone(), Arc::clone(policy), outcomes));
        }
        naive::parts(self.store.id, &happenings, self.now)
    }

    /// What the naive implementation does not know of.
    fn agree_otherwise(&self) {
        let parts = &self.store.parts;
        let mut at_once = Store::new(self.store.id, self.store.terms.clone());
        at_once.commit(&self.store.log.iter().cloned().map(Change::Add).collect::<Vec<_>>());
        assert_eq!(unnumbered(self.store.parts_at(self.now)), unnumbered(at_once.parts_at(self.now)));
        for (i, part) in parts.iter().enumerate() {
            match order::is_mark(&part.first_event) {
                false => assert_eq!(part.source, Some(order::source_of(&part.first_event))),
                true => assert_eq!(part.opening(), parts[i - 1].opening()),
            }
        }
        self.agree_on_what_waits();
    }

    /// Whether exactly the events that no known policy can judge wait for one.
    fn agree_on_what_waits(&self) {
        let parts = &self.store.parts;
        let within =
            |place: &[u8]| parts.iter().find(|part| (&part.first_event[..]..=&part.last_event).contains(&place));
        for placed in &self.store.log {
            let place = placed.place.as_slice();
            // Of an event at the very end of a held part the place does not tell which was first.
            let end = within(place).filter(|part| part.held_count > 0).and_then(|part| part.end.as_ref());
            if end.is_some_and(|end| end.at == placed.event.at) {
                continue;
            }
            let is_held_out = end.is_some_and(|end| end.at < placed.event.at);
            let unknown = match order::is_mark(place) {
                true => {
                    self.store.terms.opens_on(&placed.event)
                        && parts.first().is_none_or(|part| place < part.first_event.as_slice())
                }
                false => order::source_of(place) == STRANGER && (is_held_out || within(place).is_none()),
            };
            assert_eq!(self.store.unjudged.contains(place), unknown, "{placed:?}");
        }
    }
}

/// Whether an event may leave a flag because the policy asks for it.
fn asks_for_events(policy: &Policy) -> bool {
    !policy.outcomes.is_empty() || matches!(policy.charge_on, ChargeOn::FirstOf(_))
}

/// A policy under which an event that finds no open part is without effect.
fn nothing_starts() -> &'static Arc<Policy> {
    static POLICY: OnceLock<Arc<Policy>> = OnceLock::new();
    POLICY.get_or_init(|| Arc::new(Policy { starts_on: Vec::new(), ..(*crate::common::lutingenie()).clone() }))
}

fn unnumbered(parts: Vec<Part>) -> Vec<Part> {
    parts.into_iter().map(|part| Part { number: 0, ..part }).collect()
}

struct Line<'a>(&'a Placed);

impl Debug for Line<'_> {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        let Placed { place, event, .. } = self.0;
        let key = OrderKey::from_bytes(place).expect("a key");
        let flag = if event.excluded { " excluded" } else { "" };
        let name = if order::is_mark(place) { "mark" } else { "row" };
        write!(to, "{} {}{flag} ({name} {} {:?})", event.at.0, event.name(), key.source(), key.message())
    }
}

struct Short<'a>(&'a Change);

impl Debug for Short<'_> {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        let (name, place) = match self.0 {
            Change::Add(placed) => return write!(to, "add {:?}", Line(placed)),
            Change::Remove(place) => ("remove", place),
            Change::Delete(place) => ("delete", place),
            Change::Touch(place) => ("touch", place),
        };
        let key = OrderKey::from_bytes(place).expect("a key");
        write!(to, "{name} {} ({} {:?})", key.at().0, key.source(), key.message())
    }
}

/// Tells one conversation to its end and returns how many events arrived in it.
fn a_talk_in_any_order(seed: u64, wide: bool, trace: bool) -> u64 {
    let (mut life, arrivals) = Life::begin(seed, false, wide, trace);
    let every_commit = life.dice.percent(25) || trace;
    let longest_batch = life.dice.one_of(&[1, 4, 12]);
    let mut arrived = 0;
    let mut rest = arrivals.as_slice();
    let mut statements = Vec::new();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rest.len().min(1 + life.dice.index(longest_batch)));
        rest = later;
        statements.clear();
        life.arrive(batch, &mut statements);
        arrived += statements.len() as u64;
        life.meddle(&mut statements);
        let outcome = life.store.commit(&statements);
        life.say_state(&statements, &outcome);
        assert_eq!(outcome.sealed, Vec::<Vec<u8>>::new(), "nothing was deleted");
        life.catch_up(&statements);
        if every_commit {
            life.agree(&life.store.log);
            life.agree_otherwise();
        }
        if life.dice.percent(20) {
            life.sweep();
        }
    }
    if life.dice.percent(50) {
        life.sweep();
    }
    life.agree(&life.store.log);
    life.agree_otherwise();
    life.nothing_happens();
    arrived
}

/// Tells a conversation that loses rows, and returns how many events arrived in it.
fn a_talk_with_losses(seed: u64, wide: bool, trace: bool) -> u64 {
    let (mut life, arrivals) = Life::begin(seed, true, wide, trace);
    let mut metered = Metered::default();
    let longest_batch = life.dice.one_of(&[1, 4, 12]);
    let mut arrived = 0;
    let mut rest = arrivals.as_slice();
    while !rest.is_empty() {
        let (batch, later) = rest.split_at(rest.len().min(1 + life.dice.index(longest_batch)));
        rest = later;
        let mut statements = Vec::new();
        life.arrive(batch, &mut statements);
        arrived += statements.len() as u64;
        life.meddle(&mut statements);
        if life.dice.percent(50) {
            metered.commit(&mut life, &statements);
            statements.clear();
        }
        life.lose(&mut statements);
        metered.commit(&mut life, &statements);
        if life.dice.percent(20) {
            life.sweep();
            metered.agree(&life);
        }
    }
    arrived
}

/// What was metered: the events that are there, and those that a part counts although they were deleted.
#[derive(Debug, Default)]
struct Metered {
    log: Vec<Placed>,
    /// Places of the latter.
    lost: BTreeSet<Vec<u8>>,
    /// A part is to be folded from a point of which only lost rows could tell how it stood there. No more can be said.
    vague: bool,
}

/// The last part that lost rows, as it was before a commit.
struct Seal {
    part: Part,
    index: usize,
    /// The first event of the next part.
    next: Option<Vec<u8>>,
}

impl Seal {
    /// `deleted` by the commit itself.
    fn of(store: &Store, deleted: &BTreeSet<Vec<u8>>) -> Option<Seal> {
        let lossy = |part: &Part| {
            let within = |place: &Vec<u8>| part.first_event <= *place && *place <= part.last_event;
            let counted =
                store.log.iter().filter(|placed| within(&placed.place) && !store.unjudged.contains(&placed.place));
            (counted.filter(|placed| !deleted.contains(&placed.place)).count() as i64) < part.event_count
        };
        let index = store.parts.iter().rposition(lossy)?;
        let next = store.parts.get(index + 1).map(|next| next.first_event.clone());
        Some(Seal { part: store.parts[index].clone(), index, next })
    }

    /// Whether what was metered at this place stays so.
    fn keeps(&self, place: &[u8]) -> bool {
        place <= self.part.last_event.as_slice() && order::time_of(place) <= self.until()
    }

    /// The last activity, or the last event that was counted after its end.
    fn until(&self) -> Instant {
        match self.part.held_count {
            0 => self.part.last_activity_at,
            _ => order::time_of(&self.part.last_event).max(self.part.last_activity_at),
        }
    }

    /// Whether this place lies after that, where the part can be folded again.
    fn trailing(&self, place: &[u8]) -> bool {
        order::time_of(place) > self.until() && self.next.as_deref().is_none_or(|next| place < next)
    }
}

impl Metered {
    fn commit(&mut self, life: &mut Life, statements: &[Change]) {
        let before = life.store.clone();
        let deleted = self.lose(&before, statements);
        let seal = Seal::of(&before, &deleted);
        let outcome = life.store.commit(statements);
        life.say_state(statements, &outcome);
        life.catch_up(statements);
        // A refused row is no longer a row of the conversation.
        life.rows.retain(|row| row.events().all(|placed| !outcome.sealed.contains(&placed.place)));
        for place in &outcome.sealed {
            let seal = seal.as_ref().expect("nothing is refused unless rows were lost");
            assert!(order::time_of(place) <= seal.until(), "{place:?} is not late");
        }
        let metered = self.log.clone();
        let changed = self.follow(&before.log, &life.store.log, &deleted, seal.as_ref());
        if let Some(seal) = &seal {
            let kept = &before.parts[..seal.index];
            assert_eq!(&life.store.parts[..seal.index], kept, "parts before one that lost rows");
            self.vague |= self.unclear(seal, &metered, &changed, &life.store);
        }
        life.agree_on_what_waits();
        if changed.is_empty() && !life.strangers && !self.vague {
            let index = seal.as_ref().map(|seal| seal.index);
            assert_eq!(unplaced(&life.store.parts, index), unplaced(&before.parts, index), "nothing has happened");
            assert_eq!(life.store.ledger, before.ledger);
        }
        self.agree(life);
    }

    /// The deletes among the statements.
    fn lose(&mut self, before: &Store, statements: &[Change]) -> BTreeSet<Vec<u8>> {
        let mut deleted = BTreeSet::new();
        for statement in statements {
            let Change::Delete(place) = statement else { continue };
            if !before.log.iter().any(|placed| placed.place == *place) {
                continue;
            }
            let counts = |part: &Part| part.first_event <= *place && *place <= part.last_event;
            match before.parts.iter().any(counts) && !before.unjudged.contains(place) {
                true => drop(self.lost.insert(place.clone())),
                false => self.log.retain(|placed| placed.place != *place),
            }
            deleted.insert(place.clone());
        }
        deleted
    }

    /// Takes over what was changed where it is not sealed, and returns the places.
    fn follow(
        &mut self,
        before: &[Placed],
        after: &[Placed],
        deleted: &BTreeSet<Vec<u8>>,
        seal: Option<&Seal>,
    ) -> Vec<Vec<u8>> {
        let mut changed = Vec::new();
        for placed in before.iter().filter(|placed| !deleted.contains(&placed.place)) {
            if after.contains(placed) || seal.is_some_and(|seal| seal.keeps(&placed.place)) {
                continue;
            }
            self.log.retain(|metered| metered.place != placed.place);
            changed.push(placed.place.clone());
        }
        for placed in after.iter().filter(|placed| !before.contains(placed)) {
            let known = before.iter().any(|old| old.place == placed.place);
            let sealed = seal.is_some_and(|seal| seal.keeps(&placed.place));
            if known && sealed {
                continue;
            }
            assert!(!sealed && seal.is_none_or(|seal| placed.event.at >= seal.until()), "{placed:?} is late");
            let index = self.log.binary_search_by(|metered| metered.place.cmp(&placed.place)).expect_err("one event");
            self.log.insert(index, placed.clone());
            changed.push(placed.place.clone());
        }
        changed
    }

    /// Whether the sealed part was folded again from before something that it counted, and of which it does not know
    /// whether it counted it before: a lost row, or one that leaves a flag.
    fn unclear(&self, seal: &Seal, metered: &[Placed], changed: &[Vec<u8>], store: &Store) -> bool {
        // What took its unit back may have been the event of the next part, before which something comes now.
        if seal.part.verdict == Some(Verdict::NotBillable(Reason::Voided)) && !changed.is_empty() {
            return true;
        }
        let Some(first) = changed.iter().filter(|place| seal.trailing(place)).min() else { return false };
        let ended_by_lost_row = matches!(seal.part.end.as_ref().map(|end| &end.reason), Some(EndReason::Event(_)))
            && self.lost.contains(&seal.part.last_event);
        if ended_by_lost_row && store.parts[seal.index].last_event != seal.part.last_event {
            return true;
        }
        let flag = |event: &Event| event.excluded || event.kind == Kind::Error || asks_for_events(&seal.part.policy);
        let end = |place: &[u8]| ended_by_lost_row && place == seal.part.last_event;
        let hidden = |placed: &&Placed| {
            seal.trailing(&placed.place)
                && placed.place >= *first
                && (flag(&placed.event) || self.lost.contains(&placed.place) && !end(&placed.place))
        };
        metered.iter().any(|placed| hidden(&placed))
    }

    fn agree(&self, life: &Life) {
        if !self.vague {
            life.agree(&self.log);
        }
    }
}

/// The part at that index may no longer know the place of its last event, if that is lost.
fn unplaced(parts: &[Part], index: Option<usize>) -> Vec<Part> {
    let mut parts = parts.to_vec();
    if let Some(index) = index {
        parts[index].last_event.clear();
    }
    parts
}

/// How much was simulated, and how fast.
pub struct Tally {
    pub conversations: u64,
    pub arrived: u64,
    pub took: Duration,
    /// The processor's time, of which others on the machine take nothing.
    pub worked: Duration,
}

impl Tally {
    pub fn per_minute(&self) -> f64 {
        self.arrived as f64 * 60.0 / self.worked.as_secs_f64()
    }
}

impl Display for Tally {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        let Tally { conversations, arrived, .. } = self;
        write!(to, "{arrived} events in {conversations} conversations, {:.0} events a minute", self.per_minute())
    }
}

/// How long this thread has had a processor, where the system tells.
fn worked() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(told.split(' ').next()?.parse().ok()?))
}

/// Tells conversations from one seed on until `enough` of their events have arrived, or only the one that is asked for.
fn tell(mut seed: u64, enough: impl Fn(&Tally) -> bool, story: impl Fn(u64, bool) -> u64) -> Tally {
    let asked = std::env::var("TALKMETER_SEED").ok().map(|seed| seed.parse().expect("TALKMETER_SEED is a number"));
    let (start, worked) = (Clock::now(), worked());
    let mut tally = Tally { conversations: 0, arrived: 0, took: Duration::ZERO, worked: Duration::ZERO };
    loop {
        let seed_now = asked.unwrap_or(seed);
        match catch_unwind(AssertUnwindSafe(|| story(seed_now, asked.is_some()))) {
            Ok(arrived) => tally.arrived += arrived,
            Err(panic) => {
                eprintln!("to see it again: TALKMETER_SEED={seed_now}");
                resume_unwind(panic);
            }
        }
        seed += 1;
        tally.conversations += 1;
        tally.took = start.elapsed();
        if asked.is_some() || enough(&tally) {
            tally.worked = self::worked().zip(worked).map_or(tally.took, |(now, then)| now - then);
            return tally;
        }
    }
}

pub fn in_any_order(seed: u64, enough: impl Fn(&Tally) -> bool) -> Tally {
    tell(seed, enough, |seed, trace| a_talk_in_any_order(seed, false, trace))
}

pub fn with_losses(seed: u64, enough: impl Fn(&Tally) -> bool) -> Tally {
    tell(seed, enough, |seed, trace| a_talk_with_losses(seed, false, trace))
}

/// As [`in_any_order`], with tags, and with policies that ask for them.
pub fn of_any_definition(seed: u64, enough: impl Fn(&Tally) -> bool) -> Tally {
    tell(seed, enough, |seed, trace| a_talk_in_any_order(seed, true, trace))
}

/// As [`with_losses`], with tags, and with policies that ask for them.
pub fn of_any_definition_with_losses(seed: u64, enough: impl Fn(&Tally) -> bool) -> Tally {
    tell(seed, enough, |seed, trace| a_talk_with_losses(seed, true, trace))
}
