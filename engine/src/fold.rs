//! Which parts do the events of one conversation make (rule 3.1)?
//!
//! [`Conversation::step`] is the whole rule: one event, in order, on the state that the events before it left.
//! [`Conversation::pass_time`] is the same rule for time alone.

use crate::event::{Event, Kind};
use crate::instant::Instant;
use crate::part::{End, EndReason, Judgment, Opening, Part, REACHED, Reason, Verdict};
use crate::policy::{ChargeOn, FinalAfter, Policy};
use crate::selector;
use crate::verdict::judge;
use std::sync::Arc;

/// What a step did beyond moving the current part on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A part became billable: one unit, charged at this instant.
    Charged { part: i32, at: Instant, outcome: Option<Arc<str>>, policy: Arc<Policy>, source: Option<i32> },
    /// The event at a place took back the unit of a part (rule 3.9.4).
    Voided { part: i32, by: Vec<u8> },
    /// A part is final, and this is what it stays.
    Final(Box<Part>),
}

impl Effect {
    /// The part that is final.
    pub fn into_final(self) -> Option<Part> {
        match self {
            Effect::Final(part) => Some(*part),
            Effect::Charged { .. } | Effect::Voided { .. } => None,
        }
    }

    /// As [`Effect::into_final`], by reference.
    pub fn as_final(&self) -> Option<&Part> {
        match self {
            Effect::Final(part) => Some(part),
            Effect::Charged { .. } | Effect::Voided { .. } => None,
        }
    }
}

/// The state of one conversation between two events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The highest part number ever used, 0 before the first part.
    pub highest: i32,
    /// A part before the current one, or any if there is none, is charged.
    pub charged_before: bool,
    /// The last part, until it is final: open, or ended and held.
    pub current: Option<Part>,
}

impl Conversation {
    /// The state in which its last part leaves a conversation, if it has any.
    pub fn after(highest: i32, last: Option<&Part>) -> Conversation {
        let current = last.filter(|part| !part.is_final()).cloned();
        let charged_before = match &current {
            Some(part) => part.charged_before,
            None => last.is_some_and(Part::charged_by_now),
        };
        Conversation { highest, charged_before, current }
    }

    /// Whether [`Conversation::step`] asks for an opener at an event of that instant: no part is open, or time has
    /// ended the one that is. When it says no, the opener is never called.
    pub fn may_open_at(&self, at: Instant) -> bool {
        self.current.as_ref().is_none_or(|part| part.end.is_some() || part.ended_by(at).is_some())
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
        let opening = opening.filter(|opening| selector::hold(&opening.policy.starts_on, event));
        self.come_to(event.at, id, effects);
        match (self.current.as_mut(), opening) {
            (Some(held), Some(opening)) => {
                effects.extend(held.void_by(event, place));
                self.be_final(Some(event.at), effects);
                self.open(opening, place, event);
            }
            (None, Some(opening)) => self.open(opening, place, event),
            (Some(held), None) if held.end.is_some() => {
                effects.extend(held.count_held(event, place, id));
                return Ok(());
            }
            (Some(_), None) => {}
            (None, None) => return Ok(()),
        }
        self.count(event, place, id, effects);
        Ok(())
    }

    /// Lets time pass until `now`: it ends the open part, makes final the one that is held, or both. Returns the last
    /// instant at which it did (rule 3.6.3).
    pub fn pass_time(&mut self, id: &str, now: Instant, effects: &mut Vec<Effect>) -> Option<Instant> {
        let timeout = self.current.as_ref().and_then(Part::timeout).filter(|timeout| timeout.due <= now);
        let due = timeout.as_ref().map(|timeout| timeout.due);
        if let Some(timeout) = timeout {
            self.finish(timeout.end, id, effects);
        }
        self.be_final_by(now, effects).or(due)
    }

    /// What time has done to the current part when an event of an instant comes, which counts before the event does.
    pub(crate) fn come_to(&mut self, at: Instant, id: &str, effects: &mut Vec<Effect>) {
        let open = self.current.as_ref().filter(|part| part.end.is_none());
        if let Some(end) = open.and_then(|part| part.ended_by(at)) {
            self.finish(end, id, effects);
        }
        self.be_final_by(at, effects);
    }

    fn open(&mut self, opening: Opening, place: &[u8], event: &Event) {
        self.highest += 1;
        self.current = Some(Part::open(self.highest, self.charged_before, opening, place, event));
    }

    fn count(&mut self, event: &Event, place: &[u8], id: &str, effects: &mut Vec<Effect>) {
        let Some(part) = self.current.as_mut() else { return };
        effects.extend(part.count(event, place, id));
        let turns_used_up = part.policy.turn_limit.is_some_and(|limit| part.turn_count >= limit);
        let reason = match selector::hold(&part.policy.ends_on, event) {
            _ if turns_used_up => EndReason::TurnLimit,
            true => EndReason::Event(event.name()),
            false => return,
        };
        self.finish(End { at: event.at, reason }, id, effects);
    }

    /// Ends the open part: it is final, or held from now on.
    fn finish(&mut self, end: End, id: &str, effects: &mut Vec<Effect>) {
        let Some(part) = self.current.as_mut() else { return };
        effects.extend(part.finish(end, id));
        if part.policy.final_after == FinalAfter::End {
            self.be_final(None, effects);
        }
    }

    /// Makes the held part final if time has by an instant, and returns when that was.
    fn be_final_by(&mut self, at: Instant, effects: &mut Vec<Effect>) -> Option<Instant> {
        let due = self.current.as_ref().and_then(Part::final_due).filter(|due| *due <= at)?;
        self.be_final(Some(due), effects);
        Some(due)
    }

    fn be_final(&mut self, final_at: Option<Instant>, effects: &mut Vec<Effect>) {
        let Some(part) = self.current.take() else { return };
        self.charged_before = part.charged_by_now();
        effects.push(Effect::Final(Box::new(Part { final_at, ..part })));
    }
}

impl Part {
    /// What is decided of this part if it ends now, on what it has counted.
    pub fn judgment_if_ended(&self, conversation: &str, at: Instant) -> Judgment {
        self.judgment().unwrap_or_else(|| judge(self, conversation, at))
    }

    fn count(&mut self, event: &Event, place: &[u8], conversation: &str) -> Option<Effect> {
        self.note(event, place);
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
        match self.verdict {
            None if self.policy.charge_on.is_at(event) => self.decide(judge(self, conversation, event.at)),
            None => None,
            Some(_) => self.reconsider(event, place, conversation),
        }
    }

    /// Counts an event that comes while the part is held: it is no message of it (rule 3.9.2).
    fn count_held(&mut self, event: &Event, place: &[u8], conversation: &str) -> Option<Effect> {
        let was_answered = self.has_any(Kind::AiReply);
        self.note(event, place);
        self.held_count += 1;
        match event.kind {
            Kind::CustomerMessage => self.customer_waits = true,
            Kind::AiReply => self.customer_waits = false,
            Kind::Error if !was_answered => self.error_before_reply = true,
            _ => {}
        }
        self.reconsider(event, place, conversation)
    }

    fn note(&mut self, event: &Event, place: &[u8]) {
        self.event_count += 1;
        self.last_event.clear();
        self.last_event.extend_from_slice(place);
        self.excluded |= event.excluded;
        self.seen |= self.policy.outcomes.seen(event);
        if matches!(&self.policy.charge_on, ChargeOn::FirstOf(events) if selector::hold(events, event)) {
            self.seen |= REACHED;
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

    /// What an event changes of a verdict: it takes the unit back for good, or gives one to a part that is not final at
    /// its end (rules 3.9.3, 3.9.4).
    fn reconsider(&mut self, event: &Event, place: &[u8], conversation: &str) -> Option<Effect> {
        match self.verdict? {
            Verdict::Billable(_) => self.void_by(event, place),
            Verdict::NotBillable(Reason::Voided) => None,
            Verdict::NotBillable(_) if self.policy.final_after == FinalAfter::End => None,
            Verdict::NotBillable(_) => self.decide(judge(self, conversation, event.at)),
        }
    }

    /// Takes back the unit of a part that is billable, if the rule that gave it says that the event does.
    fn void_by(&mut self, event: &Event, place: &[u8]) -> Option<Effect> {
        let rule = self.rule.filter(|_| self.charge_instant().is_some())?;
        if !self.policy.outcomes.is_voided(rule as usize, event) {
            return None;
        }
        self.decide(Verdict::NotBillable(Reason::Voided).into());
        Some(Effect::Voided { part: self.number, by: place.to_vec() })
    }

    fn finish(&mut self, end: End, conversation: &str) -> Option<Effect> {
        let charged = match self.verdict {
            None => self.decide(judge(self, conversation, end.at)),
            Some(_) => None,
        };
        self.end = Some(end);
        charged
    }

    /// Takes over what was decided, and says if that is a unit.
    fn decide(&mut self, Judgment { verdict, rule, outcome }: Judgment) -> Option<Effect> {
        self.verdict = Some(verdict);
        self.rule = rule;
        self.outcome = outcome;
        let at = self.charge_instant()?;
        let (outcome, policy) = (self.outcome.clone(), Arc::clone(&self.policy));
        Some(Effect::Charged { part: self.number, at, outcome, policy, source: self.source })
    }
}
