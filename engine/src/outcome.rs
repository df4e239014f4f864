//! What came of a part, and does it count: the ordered rules of a policy (rule 3.8).

use crate::definition::only_known_keys;
use crate::event::{Event, Kind, LONGEST_TAG, Tag};
use crate::flaw::Flaw;
use crate::selector::{self, Selector};
use serde_json::{Map, Value as Json};
use std::sync::Arc;

/// Selectors that the outcomes of one policy may name: a part remembers in a bit each whether it saw one.
pub const MOST_SELECTORS: usize = 63;

/// Rules that a policy may have.
const MOST_RULES: usize = 100;

/// The outcome that is the tag of the event that opened the part.
const OF_TAG: &str = "@tag";

/// Words that say why a part is not billable whatever the outcomes say.
const RESERVED: [&str; 9] = [
    "voided",
    "already_charged",
    "excluded",
    "excluded_prefix",
    "staff_replied",
    "error_before_reply",
    "no_ai_reply",
    "not_reached",
    "credited",
];

/// What a rule may ask of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// It saw an event that a selector means, of [`Outcomes::watched`].
    Seen(u32),
    /// Its last customer message has no AI reply.
    Unanswered,
    /// An error came before its first AI reply.
    ErrorBeforeReply,
}

/// When a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// Any of the signs.
    When(Vec<Sign>),
    /// None of them.
    Unless(Vec<Sign>),
}

/// The name of an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Nothing,
    Word(Arc<str>),
    OfTag,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    condition: Condition,
    name: Named,
    counts: bool,
    /// Later events that take the unit back.
    voided_by: Vec<Selector>,
}

/// The rules by which a part is judged, in their order. None at all: a policy of old, which asks only for an AI reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    rules: Vec<Rule>,
    watched: Vec<Selector>,
}

/// What the rules may ask of a part.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'p> {
    /// Which of [`Outcomes::watched`] it saw, a bit each.
    pub seen: u64,
    /// Its last customer message has no AI reply.
    pub is_unanswered: bool,
    pub error_before_reply: bool,
    /// See [`Outcomes::ask_for_tag`].
    pub opening_tag: Option<&'p Tag>,
}

/// What a part is found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `None`: the rule that held names none.
    pub name: Option<Arc<str>>,
    /// One unit, or none.
    pub counts: bool,
}

impl Outcomes {
    /// The rules that a definition lists.
    pub(crate) fn read(listed: &Json) -> Result<Outcomes, Flaw> {
        let Some(listed) = listed.as_array().filter(|rules| (1..=MOST_RULES).contains(&rules.len())) else {
            return Err(Flaw::invalid(format!("\"outcomes\" is not a list of 1 to {MOST_RULES} rules")));
        };
        let mut outcomes = Outcomes::default();
        for (index, rule) in listed.iter().enumerate() {
            let place = format!("rule {} of \"outcomes\"", index + 1);
            let Some(rule) = rule.as_object() else {
                return Err(Flaw::invalid(format!("{place} is not an object")));
            };
            let rule = outcomes.rule(rule, &place)?;
            let (is_last, always) = (index + 1 == listed.len(), rule.condition == Condition::Always);
            if always && !is_last {
                return Err(Flaw::invalid(format!("{place} has no condition, so no rule after it is ever tried"))
                    .hint("Give it \"when\" or \"unless\", or make it the last one."));
            }
            if is_last && !always {
                return Err(Flaw::invalid(format!("{place} is the last one, and has a condition"))
                    .hint("Add a rule without one, for the parts of which no other holds."));
            }
            outcomes.rules.push(rule);
        }
        Ok(outcomes)
    }

    fn rule(&mut self, rule: &Map<String, Json>, place: &str) -> Result<Rule, Flaw> {
        only_known_keys(rule, place, &["when", "unless", "outcome", "units", "voided_by"])?;
        let condition = match (rule.get("when"), rule.get("unless")) {
            (None, None) => Condition::Always,
            (Some(when), None) => Condition::When(self.signs(when, &format!("\"when\" of {place}"))?),
            (None, Some(unless)) => Condition::Unless(self.signs(unless, &format!("\"unless\" of {place}"))?),
            _ => {
                return Err(Flaw::invalid(format!("{place} has both \"when\" and \"unless\""))
                    .hint("Write two rules: the first that holds decides."));
            }
        };
        let counts = match rule.get("units") {
            None => true,
            Some(Json::Number(units)) if units.as_u64().is_some_and(|units| units <= 1) => units.as_u64() == Some(1),
            Some(units) => {
                return Err(Flaw::invalid(format!("\"units\" of {place} is {units}")).hint("It is 0 or 1."));
            }
        };
        let name = named(rule.get("outcome"), counts, place)?;
        let voided_by = voided_by(rule.get("voided_by"), counts, place)?;
        Ok(Rule { condition, name, counts, voided_by })
    }

    fn signs(&mut self, written: &Json, place: &str) -> Result<Vec<Sign>, Flaw> {
        let sign = |word: &Json| match word.as_str() {
            Some("unanswered") => Ok(Sign::Unanswered),
            Some("error_before_reply") => Ok(Sign::ErrorBeforeReply),
            Some(word) => Ok(Sign::Seen(self.watch(Selector::read(word, place)?)?)),
            None => Err(no_string(place)),
        };
        listed(written, place)?.iter().map(sign).collect()
    }

    /// Has parts remember whether they saw an event that a selector means, and gives its bit.
    pub(crate) fn watch(&mut self, selector: Selector) -> Result<u32, Flaw> {
        let known = self.watched.iter().position(|watched| *watched == selector);
        let place = known.unwrap_or(self.watched.len());
        if place == MOST_SELECTORS {
            return Err(Flaw::invalid(format!("\"outcomes\" name more than {MOST_SELECTORS} different events")));
        }
        if known.is_none() {
            self.watched.push(selector);
        }
        Ok(place as u32)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule names events that take its unit back.
    pub(crate) fn can_void(&self) -> bool {
        self.rules.iter().any(|rule| !rule.voided_by.is_empty())
    }

    /// Whether an event takes back the unit that a rule, counted from 1, has given.
    pub(crate) fn is_voided(&self, rule: usize, event: &Event) -> bool {
        self.rules.get(rule - 1).is_some_and(|rule| selector::hold(&rule.voided_by, event))
    }

    /// Whether an outcome is the tag of the opening event.
    pub(crate) fn ask_for_tag(&self) -> bool {
        self.rules.iter().any(|rule| rule.name == Named::OfTag)
    }

    /// The bits of the selectors that mean an event.
    pub(crate) fn seen(&self, event: &Event) -> u64 {
        let bits = self.watched.iter().enumerate().filter(|(_, selector)| selector.holds(event));
        bits.fold(0, |seen, (place, _)| seen | 1 << place)
    }

    /// Whether an event of a kind, which is [watched](Outcomes::watch), is among those that were seen.
    pub(crate) fn saw(&self, seen: u64, kind: Kind) -> bool {
        let watched = self.watched.iter().position(|watched| *watched == Selector::Kind(kind));
        watched.is_some_and(|place| seen >> place & 1 == 1)
    }

    /// The rule, counted from 1, that decides of a part, and what it says: the first that holds. Panics if there are no
    /// rules.
    pub(crate) fn of(&self, facts: Facts) -> (usize, Outcome) {
        let found = self.rules.iter().position(|rule| rule.condition.holds(facts));
        let place = found.expect("the last rule always holds");
        let rule = &self.rules[place];
        let name = match &rule.name {
            Named::Nothing => None,
            Named::Word(word) => Some(Arc::clone(word)),
            Named::OfTag => facts.opening_tag.cloned(),
        };
        (place + 1, Outcome { name, counts: rule.counts })
    }

    /// The condition of a rule, counted from 1, in the words of the definition.
    pub(crate) fn in_words(&self, rule: usize) -> String {
        let words = |signs: &[Sign]| {
            let word = |sign: &Sign| match sign {
                Sign::Seen(place) => self.watched[*place as usize].to_string(),
                Sign::Unanswered => "unanswered".to_owned(),
                Sign::ErrorBeforeReply => "error_before_reply".to_owned(),
            };
            signs.iter().map(word).collect::<Vec<_>>().join(" or ")
        };
        match self.rules.get(rule - 1).map(|rule| &rule.condition) {
            Some(Condition::When(signs)) => format!("when {}", words(signs)),
            Some(Condition::Unless(signs)) => format!("unless {}", words(signs)),
            _ => "for all others".to_owned(),
        }
    }
}

/// The words of a list, or the only one.
fn listed<'j>(written: &'j Json, place: &str) -> Result<&'j [Json], Flaw> {
    let words = match written {
        Json::Array(list) => list.as_slice(),
        word => std::slice::from_ref(word),
    };
    if words.is_empty() {
        return Err(Flaw::invalid(format!("{place} is an empty list")));
    }
    Ok(words)
}

fn no_string(place: &str) -> Flaw {
    Flaw::invalid(format!("{place} holds something that is not a string"))
}

fn voided_by(written: Option<&Json>, counts: bool, place: &str) -> Result<Vec<Selector>, Flaw> {
    let Some(written) = written else { return Ok(Vec::new()) };
    if !counts {
        return Err(Flaw::invalid(format!("{place} has \"voided_by\", and units 0"))
            .hint("There is nothing to take back: leave \"voided_by\" out."));
    }
    let place = format!("\"voided_by\" of {place}");
    let selector = |word: &Json| Selector::read(word.as_str().ok_or_else(|| no_string(&place))?, &place);
    listed(written, &place)?.iter().map(selector).collect()
}

fn named(outcome: Option<&Json>, counts: bool, place: &str) -> Result<Named, Flaw> {
    match outcome {
        None if counts => Ok(Named::Nothing),
        None => Err(Flaw::invalid(format!("{place} has no \"outcome\", and units 0"))
            .hint("Its outcome is why a part is not billable: name it.")),
        Some(Json::String(word)) if word == OF_TAG && counts => Ok(Named::OfTag),
        Some(Json::String(word)) if word == OF_TAG => {
            Err(Flaw::invalid(format!("\"outcome\" of {place} is {OF_TAG}, and its units are 0"))
                .hint("Name why such a part is not billable."))
        }
        Some(Json::String(word)) if word.is_empty() || word.len() > LONGEST_TAG => {
            Err(Flaw::invalid(format!("\"outcome\" of {place} is not of 1 to {LONGEST_TAG} bytes")))
        }
        Some(Json::String(word)) if counts && RESERVED.contains(&word.as_str()) => {
            Err(Flaw::invalid(format!("\"outcome\" of {place} is \"{word}\", and it counts"))
                .hint("That word says why a part is not billable: give the rule \"units\": 0, or another name."))
        }
        Some(Json::String(word)) => Ok(Named::Word(Arc::from(word.as_str()))),
        Some(_) => Err(Flaw::invalid(format!("\"outcome\" of {place} is not a string"))),
    }
}

impl Condition {
    fn holds(&self, facts: Facts) -> bool {
        let any = |signs: &[Sign]| signs.iter().any(|sign| sign.holds(facts));
        match self {
            Condition::Always => true,
            Condition::When(signs) => any(signs),
            Condition::Unless(signs) => !any(signs),
        }
    }
}

impl Sign {
    fn holds(self, facts: Facts) -> bool {
        match self {
            Sign::Seen(place) => facts.seen >> place & 1 == 1,
            Sign::Unanswered => facts.is_unanswered,
            Sign::ErrorBeforeReply => facts.error_before_reply,
        }
    }
}
