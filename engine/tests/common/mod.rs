//! What do the tests of the engine share: events to build, a way to fold them, and the published policies?

#![allow(dead_code, unused_imports, reason = "each test file is a crate of its own and uses only a part of this")]

pub mod data;
pub mod dice;
pub mod price;

use std::convert::Infallible;
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::fold::{Conversation, Effect};
use talkmeter_engine::instant::{Instant, SECOND};
use talkmeter_engine::order::{MessageId, OrderKey, Position, Rank};
use talkmeter_engine::part::{EndReason, Opening, Part};
use talkmeter_engine::policy::Policy;
pub use talkmeter_engine::presets::{agent_red, ai_resolution, all, lutingenie};

pub const MINUTE: i64 = 60 * SECOND;
pub const HOUR: i64 = 60 * MINUTE;

/// An event `at` microseconds: only differences matter to the rules of parts, so their tests begin at 0.
pub fn event(kind: Kind, at: i64) -> Event {
    Event::named(kind.into(), Instant(at))
}

/// The name of an end, which a test may keep.
pub fn word(reason: &EndReason) -> &'static str {
    reason.name().into_owned().leak()
}

pub fn customer(at: i64) -> Event {
    event(Kind::CustomerMessage, at)
}

pub fn ai(at: i64) -> Event {
    event(Kind::AiReply, at)
}

pub fn staff(at: i64) -> Event {
    event(Kind::StaffReply, at)
}

pub fn error(at: i64) -> Event {
    event(Kind::Error, at)
}

pub fn close(at: i64) -> Event {
    event(Kind::Close, at)
}

pub fn reopen(at: i64) -> Event {
    event(Kind::Reopen, at)
}

/// The same event from a row that an `excluded` rule matched.
pub fn flagged(event: Event) -> Event {
    Event { excluded: true, ..event }
}

/// A part that opens under a policy, whatever row opens it.
pub fn opening(policy: &Arc<Policy>) -> Opening {
    Opening { policy: Arc::clone(policy), source: None }
}

/// A place for an event among others, of which the rules of parts only want that it is there.
pub fn place(event: &Event) -> Vec<u8> {
    let rank = Rank { sequence: None, message: &MessageId::Integer(event.kind as i64), first: event.kind };
    OrderKey::row(event.at, 1, &rank, Position::of_row(0)).as_bytes().to_vec()
}

/// A conversation being folded, with all that folding it gave.
pub struct Folding<'a> {
    pub id: &'a str,
    pub state: Conversation,
    pub effects: Vec<Effect>,
}

impl<'a> Folding<'a> {
    pub fn new(id: &'a str) -> Folding<'a> {
        Folding { id, state: Conversation::default(), effects: Vec::new() }
    }

    /// `events` under one policy, in order.
    pub fn of<'e>(id: &'a str, policy: &Arc<Policy>, events: impl IntoIterator<Item = &'e Event>) -> Folding<'a> {
        let mut folding = Folding::new(id);
        for event in events {
            folding.step(event, policy);
        }
        folding
    }

    /// One event, at which `policy` is the one in force. Says whether the step asked for it.
    pub fn step(&mut self, event: &Event, policy: &Arc<Policy>) -> bool {
        let mut asked = false;
        let opener = || {
            asked = true;
            Ok::<_, Infallible>(Some(opening(policy)))
        };
        self.state.step(self.id, &place(event), event, opener, &mut self.effects).expect("the policy is known");
        asked
    }

    pub fn pass_time(&mut self, now: Instant) -> bool {
        self.state.pass_time(self.id, now, &mut self.effects).is_some()
    }

    /// The parts in order: those that are final, then the one that is open or held.
    pub fn parts(&self) -> Vec<Part> {
        self.effects.iter().filter_map(Effect::as_final).chain(&self.state.current).cloned().collect()
    }

    /// The part and the instant of each charge, in the order in which they came.
    pub fn charges(&self) -> Vec<(i32, Instant)> {
        let charged = self.effects.iter().filter_map(|effect| match effect {
            Effect::Charged { part, at, .. } => Some((*part, *at)),
            Effect::Voided { .. } | Effect::Final(_) => None,
        });
        charged.collect()
    }
}

/// Whether what is left to chance goes on for a minute: in a build whose speed means something, for `make test LONG=1`.
pub fn at_length() -> bool {
    !cfg!(debug_assertions) && std::env::var("TALKMETER_LONG").is_ok_and(|long| long == "1")
}

/// The long run begins elsewhere each time, the short one meets the same every time.
pub fn first_seed() -> u64 {
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_micros();
    if at_length() { clock as u64 } else { 0 }
}
