//! What are the parts of a conversation, said a second time and as plainly as possible (rules 3.1, 3.2)?
//!
//! It sees all events at once and keeps no running state: each question is answered by looking at a slice again. Slow,
//! and shaped unlike the engine on purpose, so that the two are unlikely to share a mistake.

use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{self, Verdict};
use talkmeter_engine::policy::{ChargeOn, Policy};

/// An event and the policy that is in force at it.
pub type Happening = (Event, Arc<Policy>);
/// When and why a part ended.
type End = (Instant, &'static str);

/// Everything that is reported of a part.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub number: usize,
    pub policy_version: i32,
    pub started_at: Instant,
    pub first_ai_reply_at: Option<Instant>,
    pub last_activity_at: Instant,
    pub end: Option<End>,
    pub events: usize,
    pub messages: usize,
    pub turns: usize,
    pub ai_replies: usize,
    pub staff_replies: usize,
    /// The charge instant, or the reason against; nothing while the part is not judged.
    pub verdict: Option<Result<Instant, &'static str>>,
}

/// The parts of a conversation whose events are these, at the instant `now`.
pub fn parts(id: &str, mut rest: &[Happening], now: Instant) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some(opening) = rest.iter().position(|(event, policy)| policy.starts_on.contains(&event.kind)) {
        let policy = &rest[opening].1;
        let events: Vec<Event> = rest[opening..].iter().map(|(event, _)| *event).collect();
        let (taken, end) = extent(&events, policy, now);
        parts.push(describe(id, parts.len() + 1, &events[..taken], policy, end));
        rest = &rest[opening + taken..];
    }
    parts
}

/// A part of the engine in the words of this implementation.
pub fn plainly(part: &part::Part) -> Part {
    let size = |count: i64| usize::try_from(count).expect("a count");
    Part {
        number: size(part.number.into()),
        policy_version: part.policy.version,
        started_at: part.started_at,
        first_ai_reply_at: part.first_ai_reply_at,
        last_activity_at: part.last_activity_at,
        end: part.end.map(|end| (end.at, end.reason.name())),
        events: size(part.event_count),
        messages: size(part.message_count),
        turns: size(part.turn_count.into()),
        ai_replies: size(part.ai_replies),
        staff_replies: size(part.staff_replies),
        verdict: part.verdict.map(|verdict| match verdict {
            Verdict::Billable(at) => Ok(at),
            Verdict::NotBillable(reason) => Err(reason.name()),
        }),
    }
}

/// How many of `events`, the first of which opens a part, belong to it, and its end.
fn extent(events: &[Event], policy: &Policy, now: Instant) -> (usize, Option<End>) {
    for taken in 1..=events.len() {
        let part = &events[..taken];
        let next = events.get(taken).and_then(|next| ended_by_time(part, policy, next.at));
        if let Some(end) = ended_by_its_last_event(part, policy).or(next) {
            return (taken, Some(end));
        }
    }
    // A sweep may end only what every later event would find ended in the same way (rule 3.6).
    let end =
        ended_by_time(events, policy, now).filter(|end| ended_by_time(events, policy, Instant::LATEST) == Some(*end));
    (events.len(), end)
}

fn ended_by_its_last_event(part: &[Event], policy: &Policy) -> Option<End> {
    let last = part.last()?;
    let limit = policy.turn_limit.map(|limit| usize::try_from(limit).expect("a positive limit"));
    if last.kind == Kind::AiReply && limit.is_some_and(|limit| turns(part) == limit) {
        return Some((last.at, "turn_limit"));
    }
    policy.ends_on.contains(&last.kind).then(|| (last.at, last.kind.name()))
}

fn ended_by_time(part: &[Event], policy: &Policy, at: Instant) -> Option<End> {
    let last = last_activity(part);
    let in_triage = count(part, Kind::StaffReply) == 0;
    let idle = policy.idle_timeout.map(|timeout| last.plus(timeout)).filter(|end| at > *end);
    let quiet = policy.quiet_review_after.map(|quiet| last.plus(quiet)).filter(|end| in_triage && at >= *end);
    // The alphabet happens to put `idle` first, as the rule for equal ends does.
    idle.map(|end| (end, "idle")).into_iter().chain(quiet.map(|end| (end, "quiet_review"))).min()
}

fn last_activity(part: &[Event]) -> Instant {
    let active = part.iter().rev().find(|event| event.kind.is_activity());
    active.unwrap_or(&part[0]).at
}

fn count(part: &[Event], kind: Kind) -> usize {
    part.iter().filter(|event| event.kind == kind).count()
}

/// An AI reply whose nearest predecessor among AI replies and customer messages is a customer message.
fn turns(part: &[Event]) -> usize {
    let dialogue = |kind: &Kind| matches!(kind, Kind::CustomerMessage | Kind::AiReply);
    let kinds: Vec<Kind> = part.iter().map(|event| event.kind).filter(dialogue).collect();
    kinds.windows(2).filter(|pair| *pair == [Kind::CustomerMessage, Kind::AiReply]).count()
}

fn describe(id: &str, number: usize, part: &[Event], policy: &Policy, end: Option<End>) -> Part {
    Part {
        number,
        policy_version: policy.version,
        started_at: part[0].at,
        first_ai_reply_at: part.iter().find(|event| event.kind == Kind::AiReply).map(|reply| reply.at),
        last_activity_at: last_activity(part),
        end,
        events: part.len(),
        messages: part.iter().filter(|event| event.kind.is_activity()).count(),
        turns: turns(part),
        ai_replies: count(part, Kind::AiReply),
        staff_replies: count(part, Kind::StaffReply),
        verdict: verdict(id, part, policy, end),
    }
}

fn verdict(id: &str, part: &[Event], policy: &Policy, end: Option<End>) -> Option<Result<Instant, &'static str>> {
    let first_reply = part.iter().position(|event| event.kind == Kind::AiReply);
    let at_end = end.map(|(at, _)| (part, at));
    let at_reply = first_reply.map(|reply| (&part[..=reply], part[reply].at));
    let (judged, charge_instant) = match policy.charge_on {
        ChargeOn::FirstAiReply => at_reply.or(at_end)?,
        ChargeOn::Close => at_end?,
    };
    let before_reply = &judged[..first_reply.unwrap_or(judged.len())];
    let against = [
        ("excluded_prefix", policy.exclude_prefixes.iter().any(|prefix| id.get(..prefix.len()) == Some(prefix))),
        ("excluded", judged.iter().any(|event| event.excluded)),
        ("staff_replied", policy.staff_reply_blocks && count(judged, Kind::StaffReply) > 0),
        ("error_before_reply", policy.error_before_reply_waives && count(before_reply, Kind::Error) > 0),
        ("no_ai_reply", first_reply.is_none()),
    ];
    Some(match against.into_iter().find(|(_, holds)| *holds) {
        Some((reason, _)) => Err(reason),
        None => Ok(charge_instant),
    })
}
