//! What did each event do to its conversation, and which rule said so (rule 5.10)?
//!
//! [`retell`] folds a conversation from its start and tells each step; [`as_metered`] tells one that has lost rows,
//! whose parts stay what they were metered as.

use crate::event::{Event, Kind};
use crate::fold::{Conversation, Effect};
use crate::instant::{Instant, SECOND};
use crate::part::{End, EndReason, Opener, Opening, Part, Reason, Verdict};
use crate::policy::{ChargeOn, FinalAfter, Policy};
use crate::refold::{Placed, lost_rows, was_judged_before_its_end};
use crate::selector;
use std::convert::Infallible;

/// One thing that was found on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it happened; `None` for what is still to come.
    pub at: Option<Instant>,
    /// The event that did it, by its index in the log; `None` for time alone.
    pub event: Option<usize>,
    /// The part that it concerns, by its index among the parts that are told.
    pub part: Option<usize>,
    pub did: Did,
    /// The rule that said so, in words.
    pub rule: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Did {
    Opened,
    Counted,
    /// It was counted in a part that has ended and is held.
    Noted,
    /// It was no event to any part.
    Nothing,
    /// No policy can judge it.
    Waits,
    Ended(EndReason),
    /// With the outcome, if one is named.
    Billable(Option<String>),
    /// Why not.
    NotBillable(String),
    /// It is open still.
    Open,
    /// It has ended, and is not final yet.
    Held,
    Final,
}

impl Did {
    /// What happened, in a few words; `part` is the number of the part.
    pub fn words(&self, part: Option<i32>) -> String {
        let part = part.map_or("a part".to_owned(), |part| format!("part {part}"));
        match self {
            Did::Opened => format!("opened {part}"),
            Did::Counted => format!("counted in {part}"),
            Did::Noted => format!("noted for {part}"),
            Did::Nothing => "without effect".to_owned(),
            Did::Waits => "waits for a policy".to_owned(),
            Did::Ended(reason) => format!("{part} ended: {}", reason.name()),
            Did::Billable(None) => format!("{part} is billable"),
            Did::Billable(Some(outcome)) => format!("{part} is billable: {outcome}"),
            Did::NotBillable(because) => format!("{part} is not billable: {because}"),
            Did::Open => format!("{part} is open"),
            Did::Held => format!("{part} is held"),
            Did::Final => format!("{part} is final"),
        }
    }
}

/// What is told of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// The parts, in the order of time.
    pub parts: Vec<Part>,
    pub lines: Vec<Line>,
}

/// Folds a conversation from its start and tells each step. `log` holds all its events in order, `because` the reason
/// of an `excluded` rule that matched an event; `opener` answers as in [`crate::refold::refold`]; time passes until
/// `now`.
pub fn retell(
    id: &str,
    log: &[Placed],
    because: impl Fn(&Placed) -> Option<String>,
    mut opener: impl FnMut(&Placed, Option<&Opening>) -> Opener,
    now: Instant,
) -> Story {
    let mut story = Story::default();
    let mut state = Conversation::default();
    for (index, placed) in log.iter().enumerate() {
        let before = state.current.clone();
        let previous = before.as_ref().or(story.parts.last()).map(Part::opening);
        let asked = match state.may_open_at(placed.event.at).then(|| opener(placed, previous.as_ref())) {
            None => None,
            Some(Ok(asked)) => asked,
            Some(Err(_)) => {
                let rule = "no version of its policy was in force at its time".into();
                let at = Some(placed.event.at);
                story.lines.push(Line { at, event: Some(index), part: None, did: Did::Waits, rule });
                continue;
            }
        };
        let mut effects = Vec::new();
        state.come_to(placed.event.at, id, &mut effects);
        tell_time(&mut story, id, before.as_ref(), (effects, state.current.as_ref()), Some(placed.event.at));
        let (before, mut effects) = (state.current.clone(), Vec::new());
        let opening = asked.clone();
        let Ok(()) = state.step(id, &placed.place, &placed.event, || Ok::<_, Infallible>(opening), &mut effects);
        Step { id, index, placed, before, asked, excluded: because(placed) }.tell(
            &mut story,
            effects,
            state.current.as_ref(),
        );
    }
    let (before, mut effects) = (state.current.clone(), Vec::new());
    state.pass_time(id, now, &mut effects);
    tell_time(&mut story, id, before.as_ref(), (effects, state.current.as_ref()), None);
    if let Some(part) = state.current {
        story.lines.push(what_is_to_come(&part, story.parts.len()));
        story.parts.push(part);
    }
    story
}

/// One event and what was there before it, when time had come to it.
struct Step<'a> {
    id: &'a str,
    index: usize,
    placed: &'a Placed,
    before: Option<Part>,
    /// What a part would have opened under, if that was asked.
    asked: Option<Opening>,
    excluded: Option<String>,
}

impl Step<'_> {
    fn event(&self) -> &Event {
        &self.placed.event
    }

    fn push(&self, story: &mut Story, part: Option<usize>, did: Did, rule: String) {
        story.lines.push(Line { at: Some(self.event().at), event: Some(self.index), part, did, rule });
    }

    fn tell(&self, story: &mut Story, effects: Vec<Effect>, current: Option<&Part>) {
        let mut finals = effects.into_iter().filter_map(Effect::into_final).peekable();
        let held = self.before.as_ref().filter(|before| before.end.is_some());
        if let Some(held) = held
            && let Some(part) = finals.next_if(|part| part.first_event == held.first_event)
        {
            self.tell_verdict(story, Some(held), &part);
            let rule = "another part opens".to_owned();
            self.push(story, Some(story.parts.len()), Did::Final, rule);
            story.parts.push(part);
        }
        let last = finals.next();
        let counted_in = last.as_ref().or(current).filter(|part| part.last_event == self.placed.place);
        match counted_in {
            None => self.push(story, None, Did::Nothing, self.why_nothing()),
            Some(part) if self.before.as_ref().is_some_and(|before| before.end.is_some() && is_same(before, part)) => {
                self.tell_noted(story, part);
            }
            Some(part) => self.tell_counted(story, part),
        }
        story.parts.extend(last);
    }

    fn tell_noted(&self, story: &mut Story, part: &Part) {
        let place = story.parts.len();
        self.push(story, Some(place), Did::Noted, self.with_exclusion(until_final(part)));
        self.tell_verdict(story, self.before.as_ref(), part);
    }

    fn tell_counted(&self, story: &mut Story, part: &Part) {
        let place = story.parts.len();
        let opens = part.first_event == self.placed.place;
        let (did, rule) = match opens {
            true => (Did::Opened, held("starts_on", &part.policy, &part.policy.starts_on, self.event())),
            false => (Did::Counted, self.why_counted(part)),
        };
        self.push(story, Some(place), did, self.with_exclusion(rule));
        let before = self.before.as_ref().filter(|before| is_same(before, part));
        let judged_before = part.end.is_none() || was_judged_before_its_end(part);
        if judged_before {
            self.tell_verdict(story, before, part);
        }
        let Some(end) = &part.end else { return };
        let rule = match &end.reason {
            EndReason::Event(_) => held("ends_on", &part.policy, &part.policy.ends_on, self.event()),
            _ => why_ended(part, None),
        };
        self.push(story, Some(place), Did::Ended(end.reason.clone()), rule);
        if !judged_before {
            self.tell_verdict(story, before, part);
        }
    }

    fn with_exclusion(&self, rule: String) -> String {
        match self.event().excluded {
            true => rule + &excluding(self.excluded.as_deref()),
            false => rule,
        }
    }

    /// What the event decided of a part, if it was not decided so before.
    fn tell_verdict(&self, story: &mut Story, before: Option<&Part>, part: &Part) {
        if before.is_some_and(|before| before.judgment() == part.judgment()) {
            return;
        }
        let told = match before.filter(|_| part.verdict == Some(Verdict::NotBillable(Reason::Voided))) {
            Some(before) => Some((Did::NotBillable(Reason::Voided.name().to_owned()), self.why_voided(before))),
            None => verdict(self.id, part),
        };
        let Some((did, rule)) = told else { return };
        let at = part.charge_instant().unwrap_or(self.event().at);
        let part = Some(story.parts.len());
        story.lines.push(Line { at: Some(at), event: Some(self.index), part, did, rule });
    }

    fn why_voided(&self, before: &Part) -> String {
        let policy = title(&before.policy);
        let rule = before.rule.unwrap_or_default();
        let outcome = before.outcome.as_deref().map(|outcome| format!(", {outcome},")).unwrap_or_default();
        format!("voided_by of rule {rule}{outcome} of the outcomes of {policy} holds {}", self.event().name())
    }

    fn why_nothing(&self) -> String {
        let name = self.event().name();
        match &self.asked {
            Some(opening) => {
                format!("no part is open, and starts_on of {} does not hold {name}", title(&opening.policy))
            }
            None => format!("{name} belongs to no part"),
        }
    }

    fn why_counted(&self, part: &Part) -> String {
        let (kind, name) = (self.event().kind, self.event().name());
        let turns = self.before.as_ref().map_or(0, |before| before.turn_count);
        match kind {
            _ if part.turn_count > turns => {
                format!("{name} is activity, and completes turn {}", part.turn_count)
            }
            _ if kind.is_activity() => format!("{name} is activity: the clocks start again"),
            Kind::Error if part.first_ai_reply_at.is_none() => "error before the first AI reply".to_owned(),
            _ => format!("{name} is no activity: the clocks run on"),
        }
    }
}

/// What time did to a part: it ended it, made it final, or both. `next` is the time of the event that found it, if one
/// did.
fn tell_time(
    story: &mut Story,
    id: &str,
    before: Option<&Part>,
    (effects, current): (Vec<Effect>, Option<&Part>),
    next: Option<Instant>,
) {
    let Some(before) = before else { return };
    let last = effects.into_iter().find_map(Effect::into_final);
    let place = story.parts.len();
    if let Some(part) = last.as_ref().or(current).filter(|part| before.end.is_none() && part.end.is_some()) {
        tell_end(story, id, (before, part), next);
    }
    let Some(part) = last else { return };
    if part.final_at.is_some() {
        let rule = until_final(&part);
        story.lines.push(Line { at: part.final_at, event: None, part: Some(place), did: Did::Final, rule });
    }
    story.parts.push(part);
}

/// The end of a part by time, as it was before and after; `next` is the time of the event that found it, if one did.
fn tell_end(story: &mut Story, id: &str, (before, part): (&Part, &Part), next: Option<Instant>) {
    let end = end_of(part);
    let place = story.parts.len();
    let line = |did, rule| Line { at: Some(end.at), event: None, part: Some(place), did, rule };
    story.lines.push(line(Did::Ended(end.reason.clone()), why_ended(part, next)));
    if before.verdict.is_none() {
        story.lines.extend(verdict(id, part).map(|(did, rule)| line(did, rule)));
    }
}

fn is_same(a: &Part, b: &Part) -> bool {
    a.first_event == b.first_event
}

/// What was decided of a part, and by which rule.
fn verdict(id: &str, part: &Part) -> Option<(Did, String)> {
    let policy = &part.policy;
    let verdict = part.verdict?;
    let did = match part.not_billable_because() {
        Some(because) => Did::NotBillable(because.to_owned()),
        None => Did::Billable(part.outcome.as_deref().map(str::to_owned)),
    };
    let rule = match verdict {
        Verdict::Billable(_) if policy.outcomes.is_empty() => {
            format!("charge_on of {} is {}, and nothing is against it", title(policy), policy.charge_on.in_words())
        }
        Verdict::Billable(_) => {
            format!("charge_on of {} is {}; {}", title(policy), policy.charge_on.in_words(), by_outcome(part))
        }
        Verdict::NotBillable(reason) => why_not(id, part, reason),
    };
    Some((did, rule))
}

/// The rule of the outcomes that decided.
fn by_outcome(part: &Part) -> String {
    let rule = part.rule.unwrap_or_default();
    format!("rule {rule} of its outcomes, {}", part.policy.outcomes.in_words(rule as usize))
}

fn why_not(id: &str, part: &Part, reason: Reason) -> String {
    let policy = &part.policy;
    match reason {
        Reason::ExcludedPrefix => {
            let prefix = policy.exclude_prefixes.iter().find(|prefix| id.starts_with(prefix.as_str()));
            format!("exclude_prefixes holds \"{}\"", prefix.map_or("", String::as_str))
        }
        Reason::Excluded => {
            let until = match &policy.charge_on {
                ChargeOn::FirstAiReply => "up to its first AI reply".to_owned(),
                ChargeOn::Close => "up to its end".to_owned(),
                charge_on => format!("up to {}", charge_on.in_words()),
            };
            format!("an excluded rule of the mapping matched one of its events {until}")
        }
        Reason::AlreadyCharged => {
            format!("once_per of {} is conversation, and an earlier part of it is charged", title(policy))
        }
        Reason::StaffReplied if part.staff_replies == 0 => {
            "staff_reply_blocks, and staff replied after its end, before it was final".to_owned()
        }
        Reason::StaffReplied => format!("staff_reply_blocks, and it holds {} by staff", replies(part.staff_replies)),
        Reason::ErrorBeforeReply => "error_before_reply_waives, and an error came before the first AI reply".to_owned(),
        Reason::NoAiReply => "the AI never replied in it".to_owned(),
        Reason::NotReached => {
            format!("charge_on of {} is {}, and it ended without", title(policy), policy.charge_on.in_words())
        }
        Reason::Outcome => format!("{} of {}", by_outcome(part), title(policy)),
        Reason::Voided => "it was billable, and an event took that back".to_owned(),
    }
}

/// That a list of a policy holds an event, by a selector that is shown if it says less than the event's name.
fn held(key: &str, policy: &Policy, selectors: &[selector::Selector], event: &Event) -> String {
    let name = event.name().to_string();
    let by = selector::holding(selectors, event).map(|by| by.to_string()).filter(|by| *by != name);
    let by = by.map(|by| format!(", by {by}")).unwrap_or_default();
    format!("{key} of {} holds {name}{by}", title(policy))
}

fn end_of(part: &Part) -> &End {
    part.end.as_ref().expect("an ended part has an end")
}

fn why_ended(part: &Part, next: Option<Instant>) -> String {
    let policy = &part.policy;
    let quiet = next.map(|next| format!("; the next event came {} after it", span(next.since(part.last_activity_at))));
    let quiet = quiet.unwrap_or_default();
    let timeout = |timeout: Option<i64>| span(timeout.unwrap_or_default());
    match &end_of(part).reason {
        EndReason::Idle => format!(
            "idle_timeout of {}: {} after the last activity{quiet}",
            title(policy),
            timeout(policy.idle_timeout)
        ),
        EndReason::QuietReview => format!(
            "quiet_review_after of {}: {} after the last activity without a staff reply{quiet}",
            title(policy),
            timeout(policy.quiet_review_after)
        ),
        EndReason::MaxDuration => {
            format!("max_duration of {}: {} after its start", title(policy), timeout(policy.max_duration))
        }
        EndReason::TurnLimit => format!("turn_limit of {} is {}", title(policy), policy.turn_limit.unwrap_or_default()),
        EndReason::Event(name) => format!("ends_on of {} holds {name}", title(policy)),
    }
}

/// What may still become of the last part, which has that index.
fn what_is_to_come(part: &Part, place: usize) -> Line {
    let (did, rule) = match part.end {
        None => (Did::Open, what_will_end(part)),
        Some(_) => (Did::Held, until_final(part)),
    };
    Line { at: None, event: None, part: Some(place), did, rule }
}

/// Until when a part is held.
fn until_final(part: &Part) -> String {
    let policy = title(&part.policy);
    match part.policy.final_after {
        FinalAfter::Never => format!("final_after of {policy} is forever: it is held until another part opens"),
        FinalAfter::Micros(micros) => {
            let due = part.end.as_ref().and_then(|end| part.policy.final_after.of(end.at));
            format!("final_after of {policy} is {}: it is held until {}", span(micros), instant(due))
        }
        FinalAfter::End => format!("{policy} has no final_after: it is final at its end"),
    }
}

fn instant(at: Option<Instant>) -> String {
    let at = at.and_then(Instant::calendar).map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
    at.unwrap_or_else(|| "the end of time".to_owned())
}

fn what_will_end(part: &Part) -> String {
    let events: Vec<String> = part.policy.ends_on.iter().map(|selector| selector.to_string()).collect();
    let by_event = match events.as_slice() {
        [] => "no event ends it".to_owned(),
        events => format!("{} ends it", events.join(" or ")),
    };
    match part.timeout() {
        Some(timeout) => {
            let at = instant(Some(timeout.end.at));
            format!("{by_event}, or {} at {at} if no activity comes before", timeout.end.reason.name())
        }
        None => format!("{by_event}; time alone does not"),
    }
}

/// A policy as people name it.
fn title(policy: &Policy) -> String {
    format!("{}@{}", policy.name, policy.version)
}

/// Microseconds as hours, minutes and seconds.
fn span(micros: i64) -> String {
    let (seconds, rest) = (micros / SECOND, micros % SECOND);
    let whole = format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match rest {
        0 => whole,
        rest => format!("{whole}.{rest:06}"),
    }
}

/// What is added to the rule of an event that is excluded.
fn excluding(because: Option<&str>) -> String {
    format!("; an excluded rule matched: {}", because.unwrap_or("no reason given"))
}

fn replies(count: i64) -> String {
    match count {
        1 => "a reply".to_owned(),
        count => format!("{count} replies"),
    }
}

/// Tells a conversation of which rows are gone: its parts are `stored`, and stay. Arguments as of [`retell`].
pub fn as_metered(
    id: &str,
    stored: &[Part],
    log: &[Placed],
    because: impl Fn(&Placed) -> Option<String>,
    now: Instant,
) -> Story {
    let mut story = Story::default();
    let mut events = log.iter().enumerate().peekable();
    let told = |placed: &Placed, event, part, did, rule: &str| Line {
        at: Some(placed.event.at),
        event: Some(event),
        part,
        did,
        rule: match placed.event.excluded {
            true => format!("{rule}{}", excluding(because(placed).as_deref())),
            false => rule.to_owned(),
        },
    };
    const BETWEEN: &str = "no part counted it; rows of the conversation are gone, so it is not folded again";
    for part in stored.iter().map(|part| passed(id, part, now)) {
        let place = story.parts.len();
        while let Some((index, placed)) = events.next_if(|(_, placed)| placed.place < part.first_event) {
            story.lines.push(told(placed, index, None, Did::Nothing, BETWEEN));
        }
        let gone = lost_rows(&part, log);
        let line = |at, did, rule| Line { at, event: None, part: Some(place), did, rule };
        let mut missing =
            (gone > 0).then(|| format!("{gone} of its {} events are gone; what was metered stays", part.event_count));
        if log.binary_search_by(|placed| placed.place.cmp(&part.first_event)).is_err() {
            story.lines.extend(missing.take().map(|rule| line(Some(part.started_at), Did::Opened, rule)));
        }
        while let Some((index, placed)) = events.next_if(|(_, placed)| placed.place <= part.last_event) {
            let did = if placed.place == part.first_event { Did::Opened } else { Did::Counted };
            story.lines.push(told(placed, index, Some(place), did, "as it was metered"));
        }
        story.lines.extend(missing.map(|rule| line(Some(part.last_activity_at), Did::Counted, rule)));
        let at = part.charge_instant().or(part.end.as_ref().map(|end| end.at));
        let verdict = verdict(id, &part).map(|(did, rule)| line(at, did, rule));
        let end = match &part.end {
            Some(end) => line(Some(end.at), Did::Ended(end.reason.clone()), why_ended(&part, None)),
            None => line(None, Did::Open, what_will_end(&part)),
        };
        match was_judged_before_its_end(&part) {
            true => story.lines.extend(verdict.into_iter().chain([end])),
            false => story.lines.extend([end].into_iter().chain(verdict)),
        }
        if part.end.is_some() && !part.is_final() {
            story.lines.push(what_is_to_come(&part, place));
        }
        story.parts.push(part);
    }
    story.lines.extend(events.map(|(index, placed)| told(placed, index, None, Did::Nothing, BETWEEN)));
    story
}

/// The part as time has left it by now.
fn passed(id: &str, part: &Part, now: Instant) -> Part {
    let mut state = Conversation::after(part.number, Some(part));
    let mut effects = Vec::new();
    state.pass_time(id, now, &mut effects);
    effects.into_iter().find_map(Effect::into_final).or(state.current).unwrap_or_else(|| part.clone())
}
