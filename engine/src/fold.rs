//! Which parts do the events of one conversation make (SPEC 3.1)?
//!
//! [`Conversation::step`] is the whole rule: one event, in order, on the state that the events before it left.
//! [`Conversation::pass_time`] is the same rule for time alone.

use crate::event::{Event, Kind};
use crate::instant::Instant;
use crate::policy::{ChargeOn, Policy};
use crate::verdict::{Verdict, judge};
use std::sync::Arc;

/// Why a part ended: a kind in `ends_on`, or one of the three that no event names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    Idle,
    QuietReview,
    TurnLimit,
    Event(Kind),
}

impl EndReason {
    pub fn name(self) -> &'static str {
        match self {
            EndReason::Idle => "idle",
            EndReason::QuietReview => "quiet_review",
            EndReason::TurnLimit => "turn_limit",
            EndReason::Event(kind) => kind.name(),
        }
    }

    /// The reason of that name, if there is one.
    pub fn named(name: &str) -> Option<EndReason> {
        let by_rule = [EndReason::Idle, EndReason::QuietReview, EndReason::TurnLimit];
        by_rule.into_iter().find(|reason| reason.name() == name).or_else(|| Kind::named(name).map(EndReason::Event))
    }
}

/// The end of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub at: Instant,
    pub reason: EndReason,
}

/// When time alone will end an open part, if no activity comes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The first instant at which the part has ended.
    pub due: Instant,
    /// The end that will be recorded then.
    pub end: End,
}

/// One metered interaction inside a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its number within the conversation, counted from 1 in the order found.
    pub number: i32,
    /// The source whose row opened it; if a mark did, that of the part before.
    pub source: Option<i32>,
    /// The place of the event that opened it: the bytes of an [`crate::order::OrderKey`].
    pub first_event: Vec<u8>,
    /// The place of the last event that it counted.
    pub last_event: Vec<u8>,
    /// The version in force when it opened; it is judged by no other.
    pub policy: Arc<Policy>,
    pub started_at: Instant,
    pub first_ai_reply_at: Option<Instant>,
    /// The last activity, or the opening event if that was none (`reopen`): where the clocks start.
    pub last_activity_at: Instant,
    pub end: Option<End>,
    /// Events of any kind that it counted, so that a lost row can be noticed.
    pub event_count: i64,
    /// Activities that it counted.
    pub message_count: i64,
    pub turn_count: i32,
    pub ai_replies: i64,
    pub staff_replies: i64,
    /// A customer message waits for the AI reply that completes the turn.
    pub customer_waits: bool,
    pub excluded: bool,
    pub error_before_reply: bool,
    /// `None` until the part is judged.
    pub verdict: Option<Verdict>,
}

impl Part {
    fn open(number: i32, opening: Opening, place: &[u8], at: Instant) -> Part {
        Part {
            number,
            source: opening.source,
            first_event: place.to_vec(),
            last_event: place.to_vec(),
            policy: opening.policy,
            started_at: at,
            first_ai_reply_at: None,
            last_activity_at: at,
            end: None,
            event_count: 0,
            message_count: 0,
            turn_count: 0,
            ai_replies: 0,
            staff_replies: 0,
            customer_waits: false,
            excluded: false,
            error_before_reply: false,
            verdict: None,
        }
    }

    /// The end that an event at `at` finds: idle and quiet review, whichever is earlier, `idle` if equal (SPEC 3.1, 1).
    pub(crate) fn ended_by(&self, at: Instant) -> Option<End> {
        let gap = at.since(self.last_activity_at);
        let idle = self.policy.idle_timeout.filter(|timeout| gap > *timeout);
        let quiet = self.quiet_review_after().filter(|timeout| gap >= *timeout);
        match (idle, quiet) {
            (None, None) => None,
            (idle, Some(quiet)) if idle.is_none_or(|idle| quiet < idle) => {
                Some(self.end_after(quiet, EndReason::QuietReview))
            }
            (idle, quiet) => Some(self.end_after(idle.or(quiet)?, EndReason::Idle)),
        }
    }

    /// When time alone ends this part. Equal timeouts are due as idle, so that the end does not depend on the
    /// microsecond at which somebody looks.
    pub fn timeout(&self) -> Option<Timeout> {
        if self.end.is_some() {
            return None;
        }
        match (self.policy.idle_timeout, self.quiet_review_after()) {
            (None, None) => None,
            (idle, Some(quiet)) if idle.is_none_or(|idle| quiet < idle) => {
                let end = self.end_after(quiet, EndReason::QuietReview);
                Some(Timeout { due: end.at, end })
            }
            (idle, quiet) => {
                let end = self.end_after(idle.or(quiet)?, EndReason::Idle);
                Some(Timeout { due: end.at.plus(1), end })
            }
        }
    }

    /// Quiet review concerns only a part in triage, one that no staff has answered (decided in SPEC 3.1).
    fn quiet_review_after(&self) -> Option<i64> {
        self.policy.quiet_review_after.filter(|_| self.staff_replies == 0)
    }

    fn end_after(&self, timeout: i64, reason: EndReason) -> End {
        End { at: self.last_activity_at.plus(timeout), reason }
    }

    /// The instant at which it is charged, if it is judged billable.
    pub fn charge_instant(&self) -> Option<Instant> {
        match self.verdict {
            Some(Verdict::Billable(at)) => Some(at),
            _ => None,
        }
    }

    /// The verdict that this part gets if it ends now, on what it has counted.
    pub fn verdict_if_ended(&self, conversation: &str, at: Instant) -> Verdict {
        self.verdict.unwrap_or_else(|| judge(self, &self.policy, conversation, at))
    }

    fn count(&mut self, event: &Event, place: &[u8], conversation: &str) {
        self.event_count += 1;
        self.last_event.clear();
        self.last_event.extend_from_slice(place);
        self.excluded |= event.excluded;
        if event.kind.is_activity() {
            self.message_count += 1;
            self.last_activity_at = event.at;
        }
        match event.kind {
            Kind::CustomerMessage => self.customer_waits = true,
            Kind::StaffReply => self.staff_replies += 1,
            Kind::AiReply => self.count_ai_reply(event.at, conversation),
            Kind::Error if self.first_ai_reply_at.is_none() => self.error_before_reply = true,
            _ => {}
        }
    }

    fn count_ai_reply(&mut self, at: Instant, conversation: &str) {
        self.ai_replies += 1;
        if self.customer_waits {
            self.customer_waits = false;
            self.turn_count += 1;
        }
        if self.first_ai_reply_at.is_none() {
            self.first_ai_reply_at = Some(at);
            if self.policy.charge_on == ChargeOn::FirstAiReply {
                self.verdict = Some(judge(self, &self.policy, conversation, at));
            }
        }
    }

    fn finish(&mut self, end: End, conversation: &str) {
        self.verdict = Some(self.verdict_if_ended(conversation, end.at));
        self.end = Some(end);
    }
}

/// What a part opens under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub policy: Arc<Policy>,
    /// See [`Part::source`].
    pub source: Option<i32>,
}

/// What a step did beyond moving the open part on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A part became billable: one unit, charged at this instant.
    Charged { part: i32, at: Instant, policy: Arc<Policy>, source: Option<i32> },
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
    /// Folds the next event, whose order key is `place`. `id` is the conversation's id, for the prefix rule; `opener` names
    /// the policy under which a part would open at this event and is asked only while none is open. If it fails, nothing
    /// has changed.
    pub fn step<E>(
        &mut self,
        id: &str,
        place: &[u8],
        event: &Event,
        opener: impl FnOnce() -> Result<Opening, E>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), E> {
        let ended = self.open.as_ref().and_then(|part| part.ended_by(event.at));
        let opening = match (&self.open, ended) {
            (Some(_), None) => None,
            _ => Some(opener()?),
        };
        if let Some(end) = ended {
            self.finish(end, id, effects);
        }
        if let Some(opening) = opening {
            if !opening.policy.starts_on.contains(&event.kind) {
                return Ok(());
            }
            self.highest += 1;
            self.open = Some(Part::open(self.highest, opening, place, event.at));
        }
        self.count(event, place, id, effects);
        Ok(())
    }

    /// Ends the open part if time alone has ended it by `now`, and says whether it did (SPEC 3.6).
    pub fn pass_time(&mut self, id: &str, now: Instant, effects: &mut Vec<Effect>) -> bool {
        let timeout = self.open.as_ref().and_then(Part::timeout).filter(|timeout| timeout.due <= now);
        if let Some(timeout) = timeout {
            self.finish(timeout.end, id, effects);
        }
        timeout.is_some()
    }

    fn count(&mut self, event: &Event, place: &[u8], id: &str, effects: &mut Vec<Effect>) {
        let Some(part) = self.open.as_mut() else { return };
        let judged = part.verdict.is_some();
        part.count(event, place, id);
        if !judged {
            effects.extend(charged(part));
        }
        let turns_used_up = part.policy.turn_limit.is_some_and(|limit| part.turn_count >= limit);
        let reason = match part.policy.ends_on.contains(&event.kind) {
            _ if turns_used_up => EndReason::TurnLimit,
            true => EndReason::Event(event.kind),
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

fn charged(part: &Part) -> Option<Effect> {
    let at = part.charge_instant()?;
    Some(Effect::Charged { part: part.number, at, policy: Arc::clone(&part.policy), source: part.source })
}
