//! What are the parts of a conversation, said a second time and as plainly as possible (rules 3.1, 3.2)?
//!
//! It sees all events at once and keeps no running state: each question is answered by looking at a slice again. Slow,
//! and shaped unlike the engine on purpose, so that the two are unlikely to share a mistake.

use serde_json::Value as Json;
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{self, Verdict};
use talkmeter_engine::policy::{ChargeOn, Policy};
use talkmeter_engine::selector::Selector;

/// An event, the policy that is in force at it, and the outcomes of that policy as they are written.
pub type Happening = (Event, Arc<Policy>, Arc<Json>);
/// When and why a part ended.
type End = (Instant, String);

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
    pub verdict: Option<Result<Instant, String>>,
    pub outcome: Option<String>,
}

/// The parts of a conversation whose events are these, at the instant `now`.
pub fn parts(id: &str, mut rest: &[Happening], now: Instant) -> Vec<Part> {
    let mut parts = Vec::new();
    let starts = |happening: &Happening| means_any(&happening.1.starts_on, &happening.0);
    while let Some(opening) = rest.iter().position(starts) {
        let (_, policy, outcomes) = &rest[opening];
        let events: Vec<Event> = rest[opening..].iter().map(|(event, ..)| event.clone()).collect();
        let (taken, end) = extent(&events, policy, now);
        parts.push(describe((id, parts.len() + 1), &events[..taken], policy, outcomes, end));
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
        end: part.end.as_ref().map(|end| (end.at, end.reason.name().into_owned())),
        events: size(part.event_count),
        messages: size(part.message_count),
        turns: size(part.turn_count.into()),
        ai_replies: size(part.ai_replies),
        staff_replies: size(part.staff_replies),
        verdict: part.verdict.map(|verdict| match verdict {
            Verdict::Billable(at) => Ok(at),
            Verdict::NotBillable(_) => Err(part.not_billable_because().expect("a reason").to_owned()),
        }),
        outcome: part.outcome.as_deref().map(str::to_owned),
    }
}

/// Whether an event is one of those that a selector is written for.
fn means(selector: &str, event: &Event) -> bool {
    match selector.split_once(':') {
        Some((kind, tag)) => event.kind.name() == kind && event.tag.as_deref() == Some(tag),
        None if selector == "message" => event.kind.is_activity(),
        None => event.kind.name() == selector,
    }
}

fn means_any(selectors: &[Selector], event: &Event) -> bool {
    selectors.iter().any(|selector| means(&selector.to_string(), event))
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
    let end = ended_by_time(events, policy, now)
        .filter(|end| ended_by_time(events, policy, Instant::LATEST).as_ref() == Some(end));
    (events.len(), end)
}

fn ended_by_its_last_event(part: &[Event], policy: &Policy) -> Option<End> {
    let last = part.last()?;
    let limit = policy.turn_limit.map(|limit| usize::try_from(limit).expect("a positive limit"));
    if last.kind == Kind::AiReply && limit.is_some_and(|limit| turns(part) == limit) {
        return Some((last.at, "turn_limit".to_owned()));
    }
    means_any(&policy.ends_on, last).then(|| (last.at, last.name().to_string()))
}

fn ended_by_time(part: &[Event], policy: &Policy, at: Instant) -> Option<End> {
    let last = last_activity(part);
    let in_triage = count(part, Kind::StaffReply) == 0;
    let idle = policy.idle_timeout.map(|timeout| last.plus(timeout)).filter(|end| at > *end);
    let quiet = policy.quiet_review_after.map(|quiet| last.plus(quiet)).filter(|end| in_triage && at >= *end);
    let longest = policy.max_duration.map(|longest| part[0].at.plus(longest)).filter(|end| at >= *end);
    let ends = [(longest, "max_duration"), (idle, "idle"), (quiet, "quiet_review")];
    let earliest = ends.iter().filter_map(|(end, _)| *end).min()?;
    // Of equal ends the first of these.
    let (_, reason) = ends.into_iter().find(|(end, _)| *end == Some(earliest))?;
    Some((earliest, reason.to_owned()))
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

fn describe((id, number): (&str, usize), part: &[Event], policy: &Policy, outcomes: &Json, end: Option<End>) -> Part {
    let (verdict, outcome) = verdict(id, part, policy, outcomes, end.as_ref()).unzip();
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
        verdict,
        outcome: outcome.flatten(),
    }
}

/// The charge instant or the reason against, and the outcome.
type Judgment = (Result<Instant, String>, Option<String>);

fn verdict(id: &str, part: &[Event], policy: &Policy, outcomes: &Json, end: Option<&End>) -> Option<Judgment> {
    let at = |found: Option<usize>| found.map(|place| (&part[..=place], part[place].at));
    let first_reply = part.iter().position(|event| event.kind == Kind::AiReply);
    let reached = match &policy.charge_on {
        ChargeOn::Start => at(Some(0)),
        ChargeOn::FirstAiReply => at(first_reply),
        ChargeOn::FirstOf(events) => at(part.iter().position(|event| means_any(events, event))),
        ChargeOn::Close => None,
    };
    let (judged, charge_instant) = reached.or(end.map(|(at, _)| (part, *at)))?;
    let before_reply = &judged[..first_reply.unwrap_or(judged.len()).min(judged.len())];
    let has_rules = !outcomes.is_null();
    let against = [
        ("excluded_prefix", policy.exclude_prefixes.iter().any(|prefix| id.get(..prefix.len()) == Some(prefix))),
        ("excluded", judged.iter().any(|event| event.excluded)),
        ("staff_replied", policy.staff_reply_blocks && count(judged, Kind::StaffReply) > 0),
        ("error_before_reply", policy.error_before_reply_waives && count(before_reply, Kind::Error) > 0),
        ("not_reached", reached.is_none() && matches!(policy.charge_on, ChargeOn::Start | ChargeOn::FirstOf(_))),
        ("no_ai_reply", reached.is_none() && policy.charge_on == ChargeOn::FirstAiReply),
        ("no_ai_reply", !has_rules && count(judged, Kind::AiReply) == 0),
    ];
    if let Some((reason, _)) = against.into_iter().find(|(_, holds)| *holds) {
        return Some((Err(reason.to_owned()), None));
    }
    Some(if has_rules { by_rule(judged, outcomes, charge_instant) } else { (Ok(charge_instant), None) })
}

/// What the first rule says that holds of these events.
fn by_rule(judged: &[Event], outcomes: &Json, at: Instant) -> Judgment {
    let last = |kind: Kind| judged.iter().rposition(|event| event.kind == kind);
    let asked = last(Kind::CustomerMessage);
    let holds = |word: &Json| match word.as_str().expect("a word") {
        "unanswered" => asked.is_some() && last(Kind::AiReply) < asked,
        "error_before_reply" => {
            let reply = judged.iter().position(|event| event.kind == Kind::AiReply);
            count(&judged[..reply.unwrap_or(judged.len())], Kind::Error) > 0
        }
        selector => judged.iter().any(|event| means(selector, event)),
    };
    let any = |words: &Json| words.as_array().expect("a list").iter().any(holds);
    let rules = outcomes.as_array().expect("rules");
    let holds = |rule: &&Json| match (rule.get("when"), rule.get("unless")) {
        (Some(words), _) => any(words),
        (_, Some(words)) => !any(words),
        _ => true,
    };
    let rule = rules.iter().find(holds).expect("the last rule holds");
    let name = match rule.get("outcome").and_then(Json::as_str) {
        Some("@tag") => judged[0].tag.as_deref().map(str::to_owned),
        name => name.map(str::to_owned),
    };
    match rule.get("units").is_some_and(|units| units == 0) {
        true => (Err(name.clone().expect("a name")), name),
        false => (Ok(at), name),
    }
}
