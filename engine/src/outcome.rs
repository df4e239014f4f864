//! What came of a part, and does it count: the ordered rules of a policy (rule 3.8).

use crate::definition::only_known_keys;
use crate::event::{Event, LONGEST_TAG, Tag};
use crate::flaw::Flaw;
use crate::selector::Selector;
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
        only_known_keys(rule, place, &["when", "unless", "outcome", "units"])?;
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
        Ok(Rule { condition, name, counts })
    }

    fn signs(&mut self, written: &Json, place: &str) -> Result<Vec<Sign>, Flaw> {
        let words = match written {
            Json::Array(list) => list.as_slice(),
            word => std::slice::from_ref(word),
        };
        if words.is_empty() {
            return Err(Flaw::invalid(format!("{place} is an empty list")));
        }
        let sign = |word: &Json| match word.as_str() {
            Some("unanswered") => Ok(Sign::Unanswered),
            Some("error_before_reply") => Ok(Sign::ErrorBeforeReply),
            Some(word) => Ok(Sign::Seen(self.watch(Selector::read(word, place)?)?)),
            None => Err(Flaw::invalid(format!("{place} holds something that is not a string"))),
        };
        words.iter().map(sign).collect()
    }

    fn watch(&mut self, selector: Selector) -> Result<u32, Flaw> {
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

    /// Whether an outcome is the tag of the opening event.
    pub(crate) fn ask_for_tag(&self) -> bool {
        self.rules.iter().any(|rule| rule.name == Named::OfTag)
    }

    /// The bits of the selectors that mean an event.
    pub(crate) fn seen(&self, event: &Event) -> u64 {
        let bits = self.watched.iter().enumerate().filter(|(_, selector)| selector.holds(event));
        bits.fold(0, |seen, (place, _)| seen | 1 << place)
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

    /// The rule, counted from 1, by which a part has got its outcome. It may have counted more since.
    pub(crate) fn rule_of(&self, facts: Facts, got: Option<&Arc<str>>) -> usize {
        let (rule, outcome) = self.of(facts);
        let is_it = |rule: &Rule| matches!(&rule.name, Named::Word(word) if Some(word) == got);
        if outcome.name.as_ref() == got {
            return rule;
        }
        self.rules.iter().position(is_it).map_or(rule, |place| place + 1)
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
