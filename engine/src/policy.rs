//! What is a billable unit, by one vendor's definition (rule 3.3)? A policy is data: a new vendor is a new value.

use crate::definition::{DefinitionRow, Interval, Keys, Measure};
use crate::event::{Event, Kind};
use crate::flaw::Flaw;
use crate::instant::Instant;
use crate::mapping::LONGEST_KEY;
use crate::near;
use crate::outcome::Outcomes;
use crate::selector::{self, Selector};
use serde_json::Value as Json;

/// When a part is judged and, if billable, charged (rule 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeOn {
    /// At the event that opens it.
    Start,
    /// At its first AI reply.
    FirstAiReply,
    /// At its first event that one of these means.
    FirstOf(Vec<Selector>),
    /// At its end.
    Close,
}

/// The word of a table for [`ChargeOn::FirstOf`], whose events are a list of their own there.
const FIRST_OF: &str = "first_of";
const CHARGE_EVENTS: &str = "charge_events";

impl ChargeOn {
    /// Those that a word names.
    fn words() -> [(&'static str, ChargeOn); 3] {
        [("start", ChargeOn::Start), ("first_ai_reply", ChargeOn::FirstAiReply), ("close", ChargeOn::Close)]
    }

    /// As a definition says it, in words.
    pub fn in_words(&self) -> String {
        match self {
            ChargeOn::Start => "start".to_owned(),
            ChargeOn::FirstAiReply => "first_ai_reply".to_owned(),
            ChargeOn::FirstOf(events) => events.iter().map(Selector::to_string).collect::<Vec<_>>().join(" or "),
            ChargeOn::Close => "close".to_owned(),
        }
    }

    /// Whether a part is judged at an event that it counts, if it was not before.
    pub(crate) fn is_at(&self, event: &Event) -> bool {
        match self {
            ChargeOn::Start => true,
            ChargeOn::FirstAiReply => event.kind == Kind::AiReply,
            ChargeOn::FirstOf(events) => selector::hold(events, event),
            ChargeOn::Close => false,
        }
    }
}

/// When a part that has ended is final: until then it is held, and an event may still change what is decided of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalAfter {
    /// At its end.
    End,
    /// So many microseconds after its end.
    Micros(i64),
    /// Not before another part opens.
    Never,
}

/// The word of a definition for [`FinalAfter::Never`], and the column of a table that says it.
const FOREVER: &str = "forever";
const NEVER_FINAL: &str = "never_final";

impl FinalAfter {
    /// The instant at which a part is final that ended at `end`, if time alone makes it so.
    pub fn of(self, end: Instant) -> Option<Instant> {
        match self {
            FinalAfter::End => Some(end),
            FinalAfter::Micros(micros) => Some(end.plus(micros)),
            FinalAfter::Never => None,
        }
    }

    fn micros(self) -> Option<i64> {
        match self {
            FinalAfter::Micros(micros) => Some(micros),
            FinalAfter::End | FinalAfter::Never => None,
        }
    }
}

/// What `once_per` may be.
const ONCE_PER: [&str; 1] = ["conversation"];

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// Counts within the name, from 1; 0 in a definition that has not been given one.
    pub version: i32,
    /// Events that open a part when none is open.
    pub starts_on: Vec<Selector>,
    /// Events that end the open part at their time; one that opens it too is a part of its own.
    pub ends_on: Vec<Selector>,
    /// Microseconds without activity after which a part has ended; a gap of exactly this much continues it.
    pub idle_timeout: Option<i64>,
    /// Microseconds without activity after which a part that no staff answered has ended; exactly this much ends it.
    pub quiet_review_after: Option<i64>,
    /// Microseconds from its start after which a part has ended: what comes at exactly that instant is not of it.
    pub max_duration: Option<i64>,
    /// Turns after which a part ends.
    pub turn_limit: Option<i32>,
    pub charge_on: ChargeOn,
    pub outcomes: Outcomes,
    pub final_after: FinalAfter,
    /// A part is not billable if an earlier one of its conversation is charged.
    pub once_per_conversation: bool,
    pub staff_reply_blocks: bool,
    pub error_before_reply_waives: bool,
    /// Conversation ids that start literally with one of these are recorded and never charged.
    pub exclude_prefixes: Vec<String>,
}

impl Policy {
    /// Reads the definition of a policy, whose version will be given by the table: it is 0 here. `micros` measures an
    /// interval and is asked only when nothing else is wrong but the sense of it all ([`Policy::flaw`]).
    pub fn read(definition: &Json, micros: &mut Measure) -> Result<(Policy, DefinitionRow), Flaw> {
        let (policy, row) = Policy::of(Keys::of(definition, "policy")?, micros)?;
        match policy.flaw() {
            Some(flaw) => Err(Flaw::invalid(format!("policy \"{}\" makes no sense: {flaw}", policy.name))),
            None => Ok((policy, row)),
        }
    }

    /// Reads the row of a policy as json. Columns that are no keys of a definition are passed over, but for `version`;
    /// null is as left out. Its sense was checked when it was defined.
    pub fn stored(row: &Json, micros: &mut Measure) -> Result<Policy, Flaw> {
        let mut keys = Keys::stored(row, "policy")?;
        let version = keys.required("version");
        let (policy, _) = Policy::of(keys, micros)?;
        Ok(Policy { version, ..policy })
    }

    /// Asks for each key of a policy. `label`, `effective_from`, `retroactive` and `note` belong to the row and not to
    /// the rule.
    fn of(mut keys: Keys, micros: &mut Measure) -> Result<(Policy, DefinitionRow), Flaw> {
        let name = name(&mut keys, "name");
        keys.optional::<String>("label");
        keys.optional::<String>("effective_from");
        keys.or_default::<bool>("retroactive");
        keys.optional::<String>("note");
        let starts_on = selectors(&mut keys, "starts_on");
        let ends_on = selectors(&mut keys, "ends_on");
        let idle_timeout = keys.optional_interval("idle_timeout");
        let quiet_review_after = keys.optional_interval("quiet_review_after");
        let max_duration = keys.optional_interval("max_duration");
        let turn_limit = keys.optional("turn_limit");
        let charge_on = charge_on(&mut keys);
        let mut outcomes = outcomes(&mut keys);
        let final_after = keys.optional_interval("final_after");
        let is_never_final = match keys.are_stored() {
            true => keys.or_default(NEVER_FINAL),
            false => final_after.as_ref().is_some_and(|interval| interval.text() == FOREVER),
        };
        if final_after.is_some() || is_never_final {
            watch_replies(&mut keys, &mut outcomes);
        }
        let once_per_conversation = once_per(&mut keys);
        let staff_reply_blocks = keys.or_default("staff_reply_blocks");
        let error_before_reply_waives = keys.or_default("error_before_reply_waives");
        let exclude_prefixes = keys.or_default("exclude_prefixes");
        let mut row = keys.finish()?;
        if let ChargeOn::FirstOf(events) = &charge_on {
            row.insert("charge_on".into(), FIRST_OF.into());
            row.insert(CHARGE_EVENTS.into(), events.iter().map(Selector::to_string).collect());
        }
        if is_never_final {
            row.insert("final_after".into(), Json::Null);
            row.insert(NEVER_FINAL.into(), true.into());
        }
        let mut measured = |interval: Option<Interval>| interval.map(|interval| interval.micros(micros));
        let policy = Policy {
            name,
            version: 0,
            starts_on,
            ends_on,
            idle_timeout: measured(idle_timeout),
            quiet_review_after: measured(quiet_review_after),
            max_duration: measured(max_duration),
            turn_limit,
            charge_on,
            outcomes,
            final_after: match final_after {
                _ if is_never_final => FinalAfter::Never,
                None => FinalAfter::End,
                Some(interval) => FinalAfter::Micros(interval.micros(micros)),
            },
            once_per_conversation,
            staff_reply_blocks,
            error_before_reply_waives,
            exclude_prefixes,
        };
        Ok((policy, row))
    }

    /// Why this definition makes no sense, if it does not: checked when a policy is defined.
    pub fn flaw(&self) -> Option<String> {
        if self.starts_on.is_empty() {
            return Some("\"starts_on\" is empty, so no part would ever open".into());
        }
        let not_positive = |value: Option<i64>| value.is_some_and(|value| value <= 0);
        for (key, value) in [
            ("idle_timeout", self.idle_timeout),
            ("quiet_review_after", self.quiet_review_after),
            ("max_duration", self.max_duration),
            ("turn_limit", self.turn_limit.map(i64::from)),
            ("final_after", self.final_after.micros()),
        ] {
            if not_positive(value) {
                return Some(format!("\"{key}\" is not positive"));
            }
        }
        if self.outcomes.can_void() && self.charge_on == ChargeOn::Close && self.final_after == FinalAfter::End {
            return Some(
                "\"voided_by\" is never reached: a part is charged at its end, and final then; say \"final_after\""
                    .into(),
            );
        }
        if self.exclude_prefixes.iter().any(String::is_empty) {
            return Some("\"exclude_prefixes\" holds an empty prefix, which every conversation starts with".into());
        }
        None
    }

    /// Whether a conversation of this id is excluded by its prefix: literally, `_` is no wildcard and case counts.
    pub fn excludes(&self, conversation: &str) -> bool {
        self.exclude_prefixes.iter().any(|prefix| conversation.starts_with(prefix.as_str()))
    }
}

fn name(keys: &mut Keys, key: &str) -> String {
    let name: String = keys.required(key);
    if name.is_empty() || name.contains('@') || name.len() > LONGEST_KEY {
        keys.refuse(Flaw::invalid(format!("\"{name}\" is no name for a policy")).hint(
            "A name is not empty, has at most 512 bytes, and holds no @, which sets a version apart from a name.",
        ));
    }
    name
}

fn selectors(keys: &mut Keys, key: &str) -> Vec<Selector> {
    let written: Vec<String> = keys.required(key);
    read_selectors(keys, &written, key)
}

fn read_selectors(keys: &mut Keys, written: &[String], key: &str) -> Vec<Selector> {
    let read = |written: &String| match Selector::read(written, &format!("\"{key}\"")) {
        Ok(selector) => Some(selector),
        Err(flaw) => {
            keys.refuse(flaw);
            None
        }
    };
    written.iter().filter_map(read).collect()
}

/// A definition says a word, or a list of events; a table keeps the list in a column of its own.
fn charge_on(keys: &mut Keys) -> ChargeOn {
    const KEY: &str = "charge_on";
    let said: Json = keys.required(KEY);
    let listed = match &said {
        Json::Array(list) => Some(list.clone()),
        Json::String(word) if keys.are_stored() && word == FIRST_OF => Some(keys.required(CHARGE_EVENTS)),
        _ => None,
    };
    let Some(listed) = listed else {
        let word = said.as_str().unwrap_or_default();
        let known = ChargeOn::words();
        if let Some((_, charge_on)) = known.iter().find(|(known, _)| *known == word) {
            return charge_on.clone();
        }
        let hint = near::hint(word, known.iter().map(|(word, _)| *word));
        keys.refuse(Flaw::invalid(format!("unknown \"{KEY}\": {said}")).hint(format!("{hint} Or a list of events.")));
        return ChargeOn::Close;
    };
    let written: Vec<String> = listed.iter().filter_map(Json::as_str).map(str::to_owned).collect();
    if written.is_empty() || written.len() < listed.len() {
        keys.refuse(Flaw::invalid(format!("\"{KEY}\" is not a list of events")));
    }
    ChargeOn::FirstOf(read_selectors(keys, &written, KEY))
}

fn outcomes(keys: &mut Keys) -> Outcomes {
    let Some(listed) = keys.optional::<Json>("outcomes") else { return Outcomes::default() };
    Outcomes::read(&listed).unwrap_or_else(|flaw| {
        keys.refuse(flaw);
        Outcomes::default()
    })
}

/// What is decided of a part that is held may turn on replies after its end, which no count of it holds.
fn watch_replies(keys: &mut Keys, outcomes: &mut Outcomes) {
    for kind in [Kind::AiReply, Kind::StaffReply] {
        if let Err(flaw) = outcomes.watch(kind.into()) {
            keys.refuse(flaw);
        }
    }
}

fn once_per(keys: &mut Keys) -> bool {
    let Some(said) = keys.optional::<String>("once_per") else { return false };
    if !ONCE_PER.contains(&said.as_str()) {
        let hint = near::hint(&said, ONCE_PER);
        keys.refuse(Flaw::invalid(format!("unknown \"once_per\": \"{said}\"")).hint(hint));
    }
    true
}
