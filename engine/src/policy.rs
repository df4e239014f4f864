//! What is a billable unit, by one vendor's definition (rule 3.3)? A policy is data: a new vendor is a new value.

use crate::definition::{DefinitionRow, Interval, Keys, Measure};
use crate::event::Kind;
use crate::flaw::Flaw;
use crate::mapping::LONGEST_KEY;
use crate::near;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// When a part is judged and, if billable, charged (rule 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeOn {
    /// At its first AI reply.
    FirstAiReply,
    /// At its end.
    Close,
}

impl ChargeOn {
    pub const ALL: [ChargeOn; 2] = [ChargeOn::FirstAiReply, ChargeOn::Close];

    pub fn name(self) -> &'static str {
        match self {
            ChargeOn::FirstAiReply => "first_ai_reply",
            ChargeOn::Close => "close",
        }
    }

    pub fn named(name: &str) -> Option<ChargeOn> {
        ChargeOn::ALL.into_iter().find(|on| on.name() == name)
    }
}

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    /// Counts within the name, from 1; 0 in a definition that has not been given one.
    pub version: i32,
    /// Kinds that open a part when none is open.
    pub starts_on: Vec<Kind>,
    /// Kinds that end the open part at their time.
    pub ends_on: Vec<Kind>,
    /// Microseconds without activity after which a part has ended; a gap of exactly this much continues it.
    pub idle_timeout: Option<i64>,
    /// Microseconds without activity after which a part that no staff answered has ended; exactly this much ends it.
    pub quiet_review_after: Option<i64>,
    /// Turns after which a part ends.
    pub turn_limit: Option<i32>,
    pub charge_on: ChargeOn,
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
        let starts_on = kinds(&mut keys, "starts_on");
        let ends_on = kinds(&mut keys, "ends_on");
        let idle_timeout = keys.optional_interval("idle_timeout");
        let quiet_review_after = keys.optional_interval("quiet_review_after");
        let turn_limit = keys.optional("turn_limit");
        let charge_on = charge_on(&mut keys, "charge_on");
        let staff_reply_blocks = keys.or_default("staff_reply_blocks");
        let error_before_reply_waives = keys.or_default("error_before_reply_waives");
        let exclude_prefixes = keys.or_default("exclude_prefixes");
        let row = keys.finish()?;
        let mut measured = |interval: Option<Interval>| interval.map(|interval| interval.micros(micros));
        let policy = Policy {
            name,
            version: 0,
            starts_on,
            ends_on,
            idle_timeout: measured(idle_timeout),
            quiet_review_after: measured(quiet_review_after),
            turn_limit,
            charge_on,
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
        if let Some(kind) = self.starts_on.iter().find(|kind| self.ends_on.contains(kind)) {
            return Some(format!("\"{}\" is in \"starts_on\" and in \"ends_on\"", kind.name()));
        }
        let not_positive = |value: Option<i64>| value.is_some_and(|value| value <= 0);
        for (key, value) in [
            ("idle_timeout", self.idle_timeout),
            ("quiet_review_after", self.quiet_review_after),
            ("turn_limit", self.turn_limit.map(i64::from)),
        ] {
            if not_positive(value) {
                return Some(format!("\"{key}\" is not positive"));
            }
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

fn kinds(keys: &mut Keys, key: &str) -> Vec<Kind> {
    let names: Vec<String> = keys.required(key);
    if let Some(name) = names.iter().find(|name| Kind::named(name).is_none()) {
        keys.refuse(
            Flaw::invalid(format!("unknown kind \"{name}\" in \"{key}\""))
                .hint(near::hint(name, Kind::ALL.map(Kind::name))),
        );
    }
    names.iter().filter_map(|name| Kind::named(name)).collect()
}

fn charge_on(keys: &mut Keys, key: &str) -> ChargeOn {
    let name: String = keys.required(key);
    ChargeOn::named(&name).unwrap_or_else(|| {
        keys.refuse(
            Flaw::invalid(format!("unknown \"{key}\": \"{name}\""))
                .hint(near::hint(&name, ChargeOn::ALL.map(ChargeOn::name))),
        );
        ChargeOn::Close
    })
}
