//! What is a part: what it has counted, how it ended, and when time alone will end it (rule 3.1)?

use crate::event::{Event, Kind, Name, Tag};
use crate::instant::Instant;
use crate::order;
use crate::outcome::{Facts, MOST_SELECTORS};
use crate::policy::{ChargeOn, FinalAfter, Policy};
use std::borrow::Cow;
use std::sync::Arc;

/// Why a part ended: an event that `ends_on` means, or one of the four that no event names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    Idle,
    QuietReview,
    MaxDuration,
    TurnLimit,
    Event(Name),
}

impl EndReason {
    /// The name as it is stored and shown: of an event `kind` or `kind:tag`.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            EndReason::Idle => "idle".into(),
            EndReason::QuietReview => "quiet_review".into(),
            EndReason::MaxDuration => "max_duration".into(),
            EndReason::TurnLimit => "turn_limit".into(),
            EndReason::Event(Name { kind, tag: None }) => kind.name().into(),
            EndReason::Event(name) => name.to_string().into(),
        }
    }

    /// The reason of that name, if there is one.
    pub fn named(name: &str) -> Option<EndReason> {
        match name {
            "idle" => Some(EndReason::Idle),
            "quiet_review" => Some(EndReason::QuietReview),
            "max_duration" => Some(EndReason::MaxDuration),
            "turn_limit" => Some(EndReason::TurnLimit),
            name => Name::stored(name).map(EndReason::Event),
        }
    }
}

/// The end of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub at: Instant,
    pub reason: EndReason,
}

/// When time alone will end an open part, if no activity comes before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeout {
    /// The first instant at which the part has ended.
    pub due: Instant,
    /// The end that will be recorded then.
    pub end: End,
}

/// The bit of [`Part::seen`] that says that the part has come to an event that a list in `charge_on` means.
pub const REACHED: u64 = 1 << MOST_SELECTORS;

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
    /// When it became final, if that was after its end: see [`Policy::final_after`].
    pub final_at: Option<Instant>,
    /// Events of any kind that it counted, so that a lost row can be noticed.
    pub event_count: i64,
    /// Those of them that came after its end, while it was held.
    pub held_count: i64,
    /// Activities that it counted.
    pub message_count: i64,
    pub turn_count: i32,
    pub ai_replies: i64,
    pub staff_replies: i64,
    /// A customer message waits for the AI reply that completes the turn.
    pub customer_waits: bool,
    pub excluded: bool,
    pub error_before_reply: bool,
    /// An earlier part of the conversation is charged.
    pub charged_before: bool,
    /// Which events that the policy's outcomes ask for it saw, a bit each, and [`REACHED`].
    pub seen: u64,
    /// The tag of the event that opened it, if an outcome asks for it.
    pub opening_tag: Option<Tag>,
    /// `None` until the part is judged.
    pub verdict: Option<Verdict>,
    /// The rule of its policy's outcomes that decided, counted from 1.
    pub rule: Option<i32>,
    /// What came of it, once it is judged by a rule that names an outcome.
    pub outcome: Option<Arc<str>>,
}

impl Part {
    pub(crate) fn open(number: i32, charged_before: bool, opening: Opening, place: &[u8], event: &Event) -> Part {
        let at = event.at;
        let opening_tag = event.tag.clone().filter(|_| opening.policy.outcomes.ask_for_tag());
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
            final_at: None,
            event_count: 0,
            held_count: 0,
            message_count: 0,
            turn_count: 0,
            ai_replies: 0,
            staff_replies: 0,
            customer_waits: false,
            excluded: false,
            error_before_reply: false,
            charged_before,
            seen: 0,
            opening_tag,
            verdict: None,
            rule: None,
            outcome: None,
        }
    }

    /// What it opened under.
    pub fn opening(&self) -> Opening {
        Opening { policy: Arc::clone(&self.policy), source: self.source }
    }

    /// The end that an event at `at` finds: of what time brings the earliest, and of equal ones as rule 3.1.7 says.
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

    /// Whether nothing changes it any more, if no event comes late: it has ended, and is not held.
    pub fn is_final(&self) -> bool {
        self.end.is_some() && (self.final_at.is_some() || self.policy.final_after == FinalAfter::End)
    }

    /// When time alone makes it final, if it is held.
    pub fn final_due(&self) -> Option<Instant> {
        let end = self.end.as_ref().filter(|_| !self.is_final())?;
        self.policy.final_after.of(end.at)
    }

    /// If it has lost rows, what comes late is metered only after this instant (rule 3.5.15).
    pub fn sealed_until(&self) -> Instant {
        match self.held_count {
            0 => self.last_activity_at,
            _ => order::time_of(&self.last_event).max(self.last_activity_at),
        }
    }

    /// Whether it or an earlier part of the conversation is charged.
    pub(crate) fn charged_by_now(&self) -> bool {
        self.charged_before || self.charge_instant().is_some()
    }

    /// The ends that time brings if no activity comes, in the order in which equal ones count. A gap of exactly
    /// `idle_timeout` continues the part, one of exactly `quiet_review_after` ends it, as `max_duration` does.
    fn time_ends(&self) -> impl Iterator<Item = Timeout> {
        let at_most = self.policy.max_duration.map(|longest| {
            let at = self.started_at.plus(longest);
            Timeout { due: at, end: End { at, reason: EndReason::MaxDuration } }
        });
        let end = |gap: i64, reason| End { at: self.last_activity_at.plus(gap), reason };
        let idle = self.policy.idle_timeout.map(|gap| end(gap, EndReason::Idle));
        let idle = idle.map(|end| Timeout { due: end.at.plus(1), end });
        // Quiet review concerns only a part in triage, one that no staff has answered (rule 3.1.6).
        let in_triage = self.staff_replies == 0;
        let quiet = self.policy.quiet_review_after.filter(|_| in_triage).map(|gap| end(gap, EndReason::QuietReview));
        let quiet = quiet.map(|end| Timeout { due: end.at, end });
        at_most.into_iter().chain(idle).chain(quiet)
    }

    /// Whether it has come to what its policy charges on.
    pub(crate) fn is_reached(&self) -> bool {
        match self.policy.charge_on {
            ChargeOn::Start | ChargeOn::Close => true,
            ChargeOn::FirstAiReply => self.has_any(Kind::AiReply),
            ChargeOn::FirstOf(_) => self.seen & REACHED != 0,
        }
    }

    /// Whether it has counted any AI reply, or any of staff, be it after its end.
    pub(crate) fn has_any(&self, kind: Kind) -> bool {
        let before_its_end = match kind {
            Kind::AiReply => self.ai_replies,
            Kind::StaffReply => self.staff_replies,
            _ => 0,
        };
        before_its_end > 0 || self.policy.outcomes.saw(self.seen, kind)
    }

    /// What its policy's outcomes may ask of it.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            seen: self.seen,
            is_unanswered: self.customer_waits,
            error_before_reply: self.error_before_reply,
            opening_tag: self.opening_tag.as_ref(),
        }
    }

    /// What was decided of it, if it is judged.
    pub fn judgment(&self) -> Option<Judgment> {
        self.verdict.map(|verdict| Judgment { verdict, rule: self.rule, outcome: self.outcome.clone() })
    }

    /// Why it is not billable, if it is judged so: a reason of ours, or the outcome.
    pub fn not_billable_because(&self) -> Option<&str> {
        self.verdict.and_then(|verdict| because(verdict, self.outcome.as_deref()))
    }

    /// The instant at which it is charged, if it is judged billable.
    pub fn charge_instant(&self) -> Option<Instant> {
        match self.verdict {
            Some(Verdict::Billable(at)) => Some(at),
            _ => None,
        }
    }
}

/// Why a part of that verdict and outcome is not billable.
pub fn because(verdict: Verdict, outcome: Option<&str>) -> Option<&str> {
    match verdict {
        Verdict::Billable(_) => None,
        Verdict::NotBillable(Reason::Outcome) => outcome,
        Verdict::NotBillable(reason) => Some(reason.name()),
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
    /// Its policy charges a conversation once, and an earlier part is charged.
    AlreadyCharged,
    StaffReplied,
    ErrorBeforeReply,
    NoAiReply,
    /// It ended before any event of `charge_on`.
    NotReached,
    /// It was billable, and an event took that back.
    Voided,
    /// Its outcome counts no unit: see [`Part::outcome`].
    Outcome,
}

impl Reason {
    /// Those that have a name of ours, in the order in which they are tried.
    pub const NAMED: [Reason; 8] = [
        Reason::ExcludedPrefix,
        Reason::Excluded,
        Reason::AlreadyCharged,
        Reason::StaffReplied,
        Reason::ErrorBeforeReply,
        Reason::NoAiReply,
        Reason::NotReached,
        Reason::Voided,
    ];

    /// The name as it is stored and shown; in the place of [`Reason::Outcome`] that of the outcome is.
    pub fn name(self) -> &'static str {
        match self {
            Reason::ExcludedPrefix => "excluded_prefix",
            Reason::Excluded => "excluded",
            Reason::AlreadyCharged => "already_charged",
            Reason::StaffReplied => "staff_replied",
            Reason::ErrorBeforeReply => "error_before_reply",
            Reason::NoAiReply => "no_ai_reply",
            Reason::NotReached => "not_reached",
            Reason::Voided => "voided",
            Reason::Outcome => "outcome",
        }
    }

    /// The reason that is stored for a part without an outcome.
    pub fn named(name: &str) -> Option<Reason> {
        Reason::NAMED.into_iter().find(|reason| reason.name() == name)
    }
}

/// Whether a part is billable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Billable, charged at this instant.
    Billable(Instant),
    NotBillable(Reason),
}

/// What is decided of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgment {
    pub verdict: Verdict,
    /// The rule of the outcomes that decided, counted from 1.
    pub rule: Option<i32>,
    /// The outcome that it names.
    pub outcome: Option<Arc<str>>,
}

impl From<Verdict> for Judgment {
    fn from(verdict: Verdict) -> Judgment {
        Judgment { verdict, rule: None, outcome: None }
    }
}
