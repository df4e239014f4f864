//! What are the parts of a conversation, said a second time and as plainly as possible (rules 3.1, 3.2)?
//!
//! It sees all events at once and keeps no running state: each question is answered by looking at a slice again. Slow,
//! and shaped unlike the engine on purpose, so that the two are unlikely to share a mistake.

use serde_json::Value as Json;
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{self, Verdict};
use talkmeter_engine::policy::{ChargeOn, FinalAfter, Policy};
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
    /// When nothing could change any more; nothing of a part that is final at its end.
    pub final_at: Option<Instant>,
    /// Events after its end, of `events`.
    pub held: usize,
}

/// The parts of a conversation whose events are these, at the instant `now`.
pub fn parts(id: &str, mut rest: &[Happening], now: Instant) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    while let Some(opening) = rest.iter().position(starts) {
        let (_, policy, outcomes) = &rest[opening];
        let events: Vec<Event> = rest[opening..].iter().map(|(event, ..)| event.clone()).collect();
        let (taken, end) = extent(&events, policy, now);
        let (own, later) = (&events[..taken], &rest[opening + taken..]);
        let holding = end.as_ref().map(|(end, _)| Holding::of(policy, *end, later, now)).unwrap_or_default();
        rest = &later[holding.passed..];
        let charged_before = parts.iter().any(|part| matches!(part.verdict, Some(Ok(_))));
        let told = Told { id, charged_before, own, holding: &holding, policy, outcomes, end: end.as_ref() };
        let (verdict, outcome) = told.verdict().unzip();
        let held = holding.counted.len();
        let part = describe(parts.len() + 1, own, held, policy, end);
        parts.push(Part { verdict, outcome: outcome.flatten(), final_at: holding.final_at, ..part });
    }
    parts
}

fn starts(happening: &Happening) -> bool {
    means_any(&happening.1.starts_on, &happening.0)
}

/// What comes after the end of a part while it is held.
#[derive(Default)]
struct Holding {
    /// How many events that is.
    passed: usize,
    /// Those of them that are counted.
    counted: Vec<Event>,
    /// When the part is final, if that is known.
    final_at: Option<Instant>,
    /// The event that opened another part, and so made it final.
    next: Option<Event>,
}

impl Holding {
    fn of(policy: &Policy, end: Instant, later: &[Happening], now: Instant) -> Holding {
        let due = match policy.final_after {
            FinalAfter::End => return Holding::default(),
            FinalAfter::Micros(micros) => Some(end.plus(micros)),
            FinalAfter::Never => None,
        };
        let mut holding = Holding::default();
        for happening in later {
            let (event, in_force, _) = happening;
            if due.is_some_and(|due| event.at >= due) {
                return Holding { final_at: due, ..holding };
            }
            if starts(happening) {
                return Holding { final_at: Some(event.at), next: Some(event.clone()), ..holding };
            }
            // What nobody can judge waits.
            let waits = in_force.starts_on.is_empty();
            holding.counted.extend((!waits).then(|| event.clone()));
            holding.passed += 1;
        }
        Holding { final_at: due.filter(|due| *due <= now), ..holding }
    }
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
        final_at: part.final_at,
        held: size(part.held_count),
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

fn describe(number: usize, part: &[Event], held: usize, policy: &Policy, end: Option<End>) -> Part {
    Part {
        number,
        policy_version: policy.version,
        started_at: part[0].at,
        first_ai_reply_at: part.iter().find(|event| event.kind == Kind::AiReply).map(|reply| reply.at),
        last_activity_at: last_activity(part),
        end,
        events: part.len() + held,
        messages: part.iter().filter(|event| event.kind.is_activity()).count(),
        turns: turns(part),
        ai_replies: count(part, Kind::AiReply),
        staff_replies: count(part, Kind::StaffReply),
        verdict: None,
        outcome: None,
        final_at: None,
        held,
    }
}

/// The charge instant or the reason against, and the outcome.
type Judgment = (Result<Instant, String>, Option<String>);

/// A part with what came after it.
struct Told<'a> {
    id: &'a str,
    charged_before: bool,
    own: &'a [Event],
    holding: &'a Holding,
    policy: &'a Policy,
    outcomes: &'a Json,
    end: Option<&'a End>,
}

impl Told<'_> {
    fn verdict(&self) -> Option<Judgment> {
        let (mut judged, at) = match self.reached(self.own) {
            Some(place) => (place + 1, self.own[place].at),
            None => (self.own.len(), self.end?.0),
        };
        let all: Vec<Event> = self.own.iter().chain(&self.holding.counted).cloned().collect();
        let mut found = self.judge(&all[..judged], at);
        while judged < all.len() {
            judged += 1;
            let (seen, event) = (&all[..judged], &all[judged - 1]);
            if found.0.is_ok() {
                if self.is_voided(&all, event) {
                    return Some(voided());
                }
            } else if self.policy.final_after != FinalAfter::End {
                found = self.judge(seen, event.at);
            }
        }
        let next = self.holding.next.as_ref();
        let is_voided = found.0.is_ok() && next.is_some_and(|next| self.is_voided(&all, next));
        Some(if is_voided { voided() } else { found })
    }

    /// The place of the first event at which it is charged.
    fn reached(&self, events: &[Event]) -> Option<usize> {
        match &self.policy.charge_on {
            ChargeOn::Start => Some(0),
            ChargeOn::FirstAiReply => events.iter().position(|event| event.kind == Kind::AiReply),
            ChargeOn::FirstOf(list) => events.iter().position(|event| means_any(list, event)),
            ChargeOn::Close => None,
        }
    }

    fn judge(&self, judged: &[Event], at: Instant) -> Judgment {
        let Told { id, policy, outcomes, .. } = self;
        let first_reply = judged.iter().position(|event| event.kind == Kind::AiReply);
        let before_reply = &judged[..first_reply.unwrap_or(judged.len())];
        let has_rules = !outcomes.is_null();
        let unreached = policy.charge_on != ChargeOn::Close && self.reached(judged).is_none();
        let is_of_list = matches!(policy.charge_on, ChargeOn::FirstOf(_));
        let against = [
            ("excluded_prefix", policy.exclude_prefixes.iter().any(|prefix| id.get(..prefix.len()) == Some(prefix))),
            ("excluded", judged.iter().any(|event| event.excluded)),
            ("already_charged", policy.once_per_conversation && self.charged_before),
            ("staff_replied", policy.staff_reply_blocks && count(judged, Kind::StaffReply) > 0),
            ("error_before_reply", policy.error_before_reply_waives && count(before_reply, Kind::Error) > 0),
            ("not_reached", unreached && is_of_list),
            ("no_ai_reply", unreached && !is_of_list),
            ("no_ai_reply", !has_rules && count(judged, Kind::AiReply) == 0),
        ];
        if let Some((reason, _)) = against.into_iter().find(|(_, holds)| *holds) {
            return (Err(reason.to_owned()), None);
        }
        match has_rules {
            true => by_rule(judged, outcomes, at),
            false => (Ok(at), None),
        }
    }

    /// Whether an event takes back the unit: if the rule says so that gave it, the first time that one did.
    fn is_voided(&self, all: &[Event], event: &Event) -> bool {
        let Some(rules) = self.outcomes.as_array() else { return false };
        let first = self.reached(self.own).map_or(self.own.len(), |place| place + 1);
        let gave = |judged: &usize| self.judge(&all[..*judged], Instant(0)).0.is_ok();
        let judged = (first..=all.len()).find(gave).expect("it is billable");
        let voided_by = rule_of(&all[..judged], rules).get("voided_by").and_then(Json::as_array);
        voided_by.is_some_and(|words| words.iter().any(|word| means(word.as_str().expect("a word"), event)))
    }
}

fn voided() -> Judgment {
    (Err("voided".to_owned()), None)
}

/// What the first rule says that holds of these events.
fn by_rule(judged: &[Event], outcomes: &Json, at: Instant) -> Judgment {
    let rule = rule_of(judged, outcomes.as_array().expect("rules"));
    let name = match rule.get("outcome").and_then(Json::as_str) {
        Some("@tag") => judged[0].tag.as_deref().map(str::to_owned),
        name => name.map(str::to_owned),
    };
    match rule.get("units").is_some_and(|units| units == 0) {
        true => (Err(name.clone().expect("a name")), name),
        false => (Ok(at), name),
    }
}

/// The first rule that holds of these events.
fn rule_of<'r>(judged: &[Event], rules: &'r [Json]) -> &'r Json {
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
    let holds = |rule: &&Json| match (rule.get("when"), rule.get("unless")) {
        (Some(words), _) => any(words),
        (_, Some(words)) => !any(words),
        _ => true,
    };
    rules.iter().find(holds).expect("the last rule holds")
}
