//! What did each event do to its conversation, and which rule said so (rule 5.10)?
//!
//! [`retell`] folds a conversation from its start and tells each step; [`as_metered`] tells one that has lost rows,
//! whose parts stay what they were metered as.

use crate::event::{Event, Kind};
use crate::fold::{Conversation, Effect};
use crate::instant::{Instant, SECOND};
use crate::part::{End, EndReason, Opener, Opening, Part, Reason, UnknownPolicy, Verdict};
use crate::policy::{ChargeOn, Policy};
use crate::refold::{Placed, lost_rows, was_judged_before_its_end};
use crate::selector;

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
}

impl Did {
    /// What happened, in a few words; `part` is the number of the part.
    pub fn words(&self, part: Option<i32>) -> String {
        let part = part.map_or("a part".to_owned(), |part| format!("part {part}"));
        match self {
            Did::Opened => format!("opened {part}"),
            Did::Counted => format!("counted in {part}"),
            Did::Nothing => "without effect".to_owned(),
            Did::Waits => "waits for a policy".to_owned(),
            Did::Ended(reason) => format!("{part} ended: {}", reason.name()),
            Did::Billable(None) => format!("{part} is billable"),
            Did::Billable(Some(outcome)) => format!("{part} is billable: {outcome}"),
            Did::NotBillable(because) => format!("{part} is not billable: {because}"),
            Did::Open => format!("{part} is open"),
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
        let before = state.open.clone();
        let previous = before.as_ref().or(story.parts.last());
        let previous = previous.map(Part::opening);
        let mut asked = None;
        let mut effects = Vec::new();
        let stepped = state.step(
            id,
            &placed.place,
            &placed.event,
            || {
                let answer = opener(placed, previous.as_ref())?;
                asked.clone_from(&answer);
                Ok(answer)
            },
            &mut effects,
        );
        let excluded = because(placed);
        let step = Step { id, index, placed, before, asked, excluded };
        match stepped {
            Ok(()) => step.tell(&mut story, effects, state.open.as_ref()),
            Err(UnknownPolicy) => {
                step.push(&mut story, None, Did::Waits, "no version of its policy was in force at its time".into())
            }
        }
    }
    let mut effects = Vec::new();
    state.pass_time(id, now, &mut effects);
    for part in effects.into_iter().filter_map(ended) {
        tell_end(&mut story, id, &part, None);
        story.parts.push(part);
    }
    if let Some(part) = state.open {
        let rule = what_will_end(&part);
        let place = story.parts.len();
        story.lines.push(Line { at: None, event: None, part: Some(place), did: Did::Open, rule });
        story.parts.push(part);
    }
    story
}

fn ended(effect: Effect) -> Option<Part> {
    match effect {
        Effect::Ended(part) => Some(part),
        Effect::Charged { .. } => None,
    }
}

/// One event and what was there before it.
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

    fn tell(&self, story: &mut Story, effects: Vec<Effect>, open: Option<&Part>) {
        let mut ended: Vec<Part> = effects.into_iter().filter_map(ended).collect();
        let by_time = |part: &Part| part.last_event.as_slice() < self.placed.place.as_slice();
        if ended.first().is_some_and(by_time) {
            let part = ended.remove(0);
            tell_end(story, self.id, &part, Some(self.event().at));
            story.parts.push(part);
        }
        let place = story.parts.len();
        let counted_in = ended.first().or(open).filter(|part| part.last_event == self.placed.place);
        let Some(part) = counted_in else {
            return self.push(story, None, Did::Nothing, self.why_nothing());
        };
        let mut rule = match part.first_event == self.placed.place {
            true => held("starts_on", &part.policy, &part.policy.starts_on, self.event()),
            false => self.why_counted(part),
        };
        if self.event().excluded {
            rule += &excluding(self.excluded.as_deref());
        }
        let did = if part.first_event == self.placed.place { Did::Opened } else { Did::Counted };
        self.push(story, Some(place), did, rule);
        let before = self.before.as_ref().filter(|before| before.first_event == part.first_event);
        if part.end.is_none() {
            if before.is_none_or(|before| before.verdict.is_none()) {
                tell_verdict(story, self.id, part, Some(self.index));
            }
            return;
        }
        let part = ended.remove(0);
        let judged_before = was_judged_before_its_end(&part);
        if judged_before && before.is_none_or(|before| before.verdict.is_none()) {
            tell_verdict(story, self.id, &part, Some(self.index));
        }
        let rule = match &end_of(&part).reason {
            EndReason::Event(_) => held("ends_on", &part.policy, &part.policy.ends_on, self.event()),
            _ => why_ended(&part, None),
        };
        self.push(story, Some(place), Did::Ended(end_of(&part).reason.clone()), rule);
        if !judged_before {
            tell_verdict(story, self.id, &part, Some(self.index));
        }
        story.parts.push(part);
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

/// The end of a part by time; `next` is the event that found it, if one did.
fn tell_end(story: &mut Story, id: &str, part: &Part, next: Option<Instant>) {
    let end = end_of(part);
    let place = story.parts.len();
    let line = |did, rule| Line { at: Some(end.at), event: None, part: Some(place), did, rule };
    story.lines.push(line(Did::Ended(end.reason.clone()), why_ended(part, next)));
    if !was_judged_before_its_end(part) {
        story.lines.extend(verdict(id, part).map(|(did, rule)| line(did, rule)));
    }
}

fn tell_verdict(story: &mut Story, id: &str, part: &Part, event: Option<usize>) {
    let place = story.parts.len();
    let at = part.charge_instant().or(part.end.as_ref().map(|end| end.at)).or(part.first_ai_reply_at);
    story.lines.extend(verdict(id, part).map(|(did, rule)| Line { at, event, part: Some(place), did, rule }));
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
    let outcomes = &part.policy.outcomes;
    let rule = outcomes.rule_of(part.facts(), part.outcome.as_ref());
    format!("rule {rule} of its outcomes, {}", outcomes.in_words(rule))
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
        Reason::StaffReplied => format!("staff_reply_blocks, and it holds {} by staff", replies(part.staff_replies)),
        Reason::ErrorBeforeReply => "error_before_reply_waives, and an error came before the first AI reply".to_owned(),
        Reason::NoAiReply => "the AI never replied in it".to_owned(),
        Reason::NotReached => {
            format!("charge_on of {} is {}, and it ended without", title(policy), policy.charge_on.in_words())
        }
        Reason::Outcome => format!("{} of {}", by_outcome(part), title(policy)),
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

fn what_will_end(part: &Part) -> String {
    let events: Vec<String> = part.policy.ends_on.iter().map(|selector| selector.to_string()).collect();
    let by_event = match events.as_slice() {
        [] => "no event ends it".to_owned(),
        events => format!("{} ends it", events.join(" or ")),
    };
    match part.timeout() {
        Some(timeout) => {
            let at = timeout.end.at.calendar().map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
            let at = at.unwrap_or_else(|| "the end of time".to_owned());
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
        story.parts.push(part);
    }
    story.lines.extend(events.map(|(index, placed)| told(placed, index, None, Did::Nothing, BETWEEN)));
    story
}

/// The part as time has left it by now.
fn passed(id: &str, part: &Part, now: Instant) -> Part {
    let mut state = Conversation { highest: part.number, open: Some(part.clone()).filter(|part| part.end.is_none()) };
    let mut effects = Vec::new();
    state.pass_time(id, now, &mut effects);
    effects.into_iter().find_map(ended).unwrap_or_else(|| part.clone())
}
