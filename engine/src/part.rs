//! What is a part: what it has counted, how it ended, and when time alone will end it (rule 3.1)?

use crate::event::Kind;
use crate::instant::Instant;
use crate::policy::Policy;
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
    pub(crate) fn open(number: i32, opening: Opening, place: &[u8], at: Instant) -> Part {
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

    /// What it opened under.
    pub fn opening(&self) -> Opening {
        Opening { policy: Arc::clone(&self.policy), source: self.source }
    }

    /// The end that an event at `at` finds: idle and quiet review, whichever is earlier, `idle` if equal (rule 3.1.7).
    pub(crate) fn ended_by(&self, at: Instant) -> Option<End> {
        earliest(self.time_ends().filter(|timeout| timeout.due <= at)).map(|timeout| timeout.end)
    }

    /// When time alone ends this part. Equal timeouts are due as idle, so that the end does not depend on the
    /// microsecond at which somebody looks.
    pub fn timeout(&self) -> Option<Timeout> {
        if self.end.is_some() {
            return None;
        }
        earliest(self.time_ends())
    }

    /// The ends that time brings if no activity comes, idle first. A gap of exactly `idle_timeout` continues the part,
    /// one of exactly `quiet_review_after` ends it.
    fn time_ends(&self) -> impl Iterator<Item = Timeout> {
        let end = |gap: i64, reason| End { at: self.last_activity_at.plus(gap), reason };
        let idle = self.policy.idle_timeout.map(|gap| end(gap, EndReason::Idle));
        let idle = idle.map(|end| Timeout { due: end.at.plus(1), end });
        // Quiet review concerns only a part in triage, one that no staff has answered (rule 3.1.6).
        let in_triage = self.staff_replies == 0;
        let quiet = self.policy.quiet_review_after.filter(|_| in_triage).map(|gap| end(gap, EndReason::QuietReview));
        let quiet = quiet.map(|end| Timeout { due: end.at, end });
        idle.into_iter().chain(quiet)
    }

    /// The instant at which it is charged, if it is judged billable.
    pub fn charge_instant(&self) -> Option<Instant> {
        match self.verdict {
            Some(Verdict::Billable(at)) => Some(at),
            _ => None,
        }
    }
}

/// The earlier end, and of equal ones the first.
fn earliest(ends: impl Iterator<Item = Timeout>) -> Option<Timeout> {
    ends.min_by_key(|timeout| timeout.end.at)
}

/// Nobody knows the policy under which a part would open at an event (rule 3.3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

/// What a part opens under at an event; `None` if its kind opens none, whatever the policy is.
pub type Opener = Result<Option<Opening>, UnknownPolicy>;

/// What a part opens under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    pub policy: Arc<Policy>,
    /// See [`Part::source`].
    pub source: Option<i32>,
}

/// Why a part is not billable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    ExcludedPrefix,
    Excluded,
    StaffReplied,
    ErrorBeforeReply,
    NoAiReply,
}

impl Reason {
    /// In the order in which they are tried: the first that holds is the reason.
    pub const ALL: [Reason; 5] =
        [Reason::ExcludedPrefix, Reason::Excluded, Reason::StaffReplied, Reason::ErrorBeforeReply, Reason::NoAiReply];

    pub fn name(self) -> &'static str {
        match self {
            Reason::ExcludedPrefix => "excluded_prefix",
            Reason::Excluded => "excluded",
            Reason::StaffReplied => "staff_replied",
            Reason::ErrorBeforeReply => "error_before_reply",
            Reason::NoAiReply => "no_ai_reply",
        }
    }

    pub fn named(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What was decided of a part, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Billable, charged at this instant.
    Billable(Instant),
    NotBillable(Reason),
}
