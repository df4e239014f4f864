//! Which parts do the events of one conversation make (rule 3.1)?
//!
//! [`Conversation::step`] is the whole rule: one event, in order, on the state that the events before it left.
//! [`Conversation::pass_time`] is the same rule for time alone.

use crate::event::{Event, Kind};
use crate::instant::Instant;
use crate::part::{End, EndReason, Opening, Part, REACHED};
use crate::policy::{ChargeOn, Policy};
use crate::selector;
use crate::verdict::{Judgment, Moment, judge};
use std::sync::Arc;

/// What a step did beyond moving the open part on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A part became billable: one unit, charged at this instant.
    Charged { part: i32, at: Instant, outcome: Option<Arc<str>>, policy: Arc<Policy>, source: Option<i32> },
    /// A part ended, and this is its final state.
    Ended(Part),
}

/// The state of one conversation between two events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The highest part number ever used, 0 before the first part.
    pub highest: i32,
    pub open: Option<Part>,
}

impl Conversation {
    /// Whether [`Conversation::step`] asks for an opener at an event of that instant: no part is open, or time has
    /// ended the one that is. When it says no, the opener is never called.
    pub fn may_open_at(&self, at: Instant) -> bool {
        self.open.as_ref().is_none_or(|part| part.ended_by(at).is_some())
    }

    /// Folds the next event, whose order key is `place`. `id` is the conversation's id, for the prefix rule; `opener`
    /// names the policy under which a part would open at this event, or none if under no policy it would, and is asked
    /// only if [`Conversation::may_open_at`] its time. If it fails, nothing has changed.
    pub fn step<E>(
        &mut self,
        id: &str,
        place: &[u8],
        event: &Event,
        opener: impl FnOnce() -> Result<Option<Opening>, E>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), E> {
        let opening = match self.may_open_at(event.at) {
            true => opener()?,
            false => None,
        };
        if let Some(end) = self.open.as_ref().and_then(|part| part.ended_by(event.at)) {
            self.finish(end, id, effects);
        }
        if let Some(opening) = opening {
            if !selector::hold(&opening.policy.starts_on, event) {
                return Ok(());
            }
            self.highest += 1;
            self.open = Some(Part::open(self.highest, opening, place, event));
        }
        self.count(event, place, id, effects);
        Ok(())
    }

    /// Ends the open part if time alone has ended it by `now`, and says whether it did (rule 3.6.3).
    pub fn pass_time(&mut self, id: &str, now: Instant, effects: &mut Vec<Effect>) -> bool {
        let timeout = self.open.as_ref().and_then(Part::timeout).filter(|timeout| timeout.due <= now);
        let Some(timeout) = timeout else { return false };
        self.finish(timeout.end, id, effects);
        true
    }

    fn count(&mut self, event: &Event, place: &[u8], id: &str, effects: &mut Vec<Effect>) {
        let Some(part) = self.open.as_mut() else { return };
        let judged = part.verdict.is_some();
        part.count(event, place, id);
        if !judged {
            effects.extend(charged(part));
        }
        let turns_used_up = part.policy.turn_limit.is_some_and(|limit| part.turn_count >= limit);
        let reason = match selector::hold(&part.policy.ends_on, event) {
            _ if turns_used_up => EndReason::TurnLimit,
            true => EndReason::Event(event.name()),
            false => return,
        };
        self.finish(End { at: event.at, reason }, id, effects);
    }

    fn finish(&mut self, end: End, id: &str, effects: &mut Vec<Effect>) {
        let Some(mut part) = self.open.take() else { return };
        let judged = part.verdict.is_some();
        part.finish(end, id);
        if !judged {
            effects.extend(charged(&part));
        }
        effects.push(Effect::Ended(part));
    }
}

impl Part {
    /// What is decided of this part if it ends now, on what it has counted.
    pub fn judgment_if_ended(&self, conversation: &str, at: Instant) -> Judgment {
        match self.verdict {
            Some(verdict) => (verdict, self.outcome.clone()),
            None => judge(self, conversation, Moment::End, at),
        }
    }

    fn count(&mut self, event: &Event, place: &[u8], conversation: &str) {
        self.event_count += 1;
        self.last_event.clear();
        self.last_event.extend_from_slice(place);
        self.excluded |= event.excluded;
        self.seen |= self.policy.outcomes.seen(event);
        if event.kind.is_activity() {
            self.message_count += 1;
            self.last_activity_at = event.at;
        }
        match event.kind {
            Kind::CustomerMessage => self.customer_waits = true,
            Kind::StaffReply => self.staff_replies += 1,
            Kind::AiReply => self.count_ai_reply(event.at),
            Kind::Error if self.first_ai_reply_at.is_none() => self.error_before_reply = true,
            _ => {}
        }
        if self.verdict.is_none() && self.policy.charge_on.is_at(event) {
            if matches!(self.policy.charge_on, ChargeOn::FirstOf(_)) {
                self.seen |= REACHED;
            }
            self.decide(judge(self, conversation, Moment::Reached, event.at));
        }
    }

    fn count_ai_reply(&mut self, at: Instant) {
        self.ai_replies += 1;
        if self.customer_waits {
            self.customer_waits = false;
            self.turn_count += 1;
        }
        if self.first_ai_reply_at.is_none() {
            self.first_ai_reply_at = Some(at);
        }
    }

    fn finish(&mut self, end: End, conversation: &str) {
        self.decide(self.judgment_if_ended(conversation, end.at));
        self.end = Some(end);
    }

    fn decide(&mut self, (verdict, outcome): Judgment) {
        self.verdict = Some(verdict);
        self.outcome = outcome;
    }
}

fn charged(part: &Part) -> Option<Effect> {
    let at = part.charge_instant()?;
    let (outcome, policy) = (part.outcome.clone(), Arc::clone(&part.policy));
    Some(Effect::Charged { part: part.number, at, outcome, policy, source: part.source })
}
