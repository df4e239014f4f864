//! What is a billable unit, by one vendor's definition (SPEC 3.3)? A policy is data: a new vendor is a new value.

use crate::event::Kind;
use serde::{Deserialize, Serialize};

/// When a part is judged and, if billable, charged (SPEC 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChargeOn {
    /// At its first AI reply.
    FirstAiReply,
    /// At its end.
    Close,
}

impl ChargeOn {
    pub fn name(self) -> &'static str {
        match self {
            ChargeOn::FirstAiReply => "first_ai_reply",
            ChargeOn::Close => "close",
        }
    }

    pub fn named(name: &str) -> Option<ChargeOn> {
        [ChargeOn::FirstAiReply, ChargeOn::Close].into_iter().find(|on| on.name() == name)
    }
}

/// One version of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
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
