//! What can happen in a conversation (rule 2)?

use crate::instant::Instant;
use serde::{Deserialize, Serialize};

/// The kind of an event. `ignore` is no kind of event but a verdict on a row, so it lives in [`crate::mapping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    CustomerMessage,
    AiReply,
    StaffReply,
    Note,
    SystemMessage,
    Error,
    Close,
    Resolve,
    Escalate,
    NewTopic,
    Reopen,
}

impl Kind {
    /// Every kind, in the order of rule 2.
    pub const ALL: [Kind; 11] = [
        Kind::CustomerMessage,
        Kind::AiReply,
        Kind::StaffReply,
        Kind::Note,
        Kind::SystemMessage,
        Kind::Error,
        Kind::Close,
        Kind::Resolve,
        Kind::Escalate,
        Kind::NewTopic,
        Kind::Reopen,
    ];

    /// The name in mappings, policies and reports.
    pub fn name(self) -> &'static str {
        match self {
            Kind::CustomerMessage => "customer_message",
            Kind::AiReply => "ai_reply",
            Kind::StaffReply => "staff_reply",
            Kind::Note => "note",
            Kind::SystemMessage => "system_message",
            Kind::Error => "error",
            Kind::Close => "close",
            Kind::Resolve => "resolve",
            Kind::Escalate => "escalate",
            Kind::NewTopic => "new_topic",
            Kind::Reopen => "reopen",
        }
    }

    /// The kind of that name, if there is one.
    pub fn named(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind with that number in [`Kind::ALL`], the number that `kind as u8` gives.
    pub fn numbered(number: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(number)).copied()
    }

    /// Only activity moves the idle and quiet clocks and is counted as a message (rule 2).
    pub fn is_activity(self) -> bool {
        matches!(self, Kind::CustomerMessage | Kind::AiReply | Kind::StaffReply)
    }
}

/// One thing that happened in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Instant,
    pub kind: Kind,
    /// An `excluded` rule of the mapping matched the row.
    pub excluded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_the_kind() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
            assert_eq!(Kind::numbered(kind as u8), Some(kind));
        }
        assert_eq!(Kind::named("ignore"), None);
        assert_eq!(Kind::numbered(11), None);
    }

    #[test]
    fn only_what_customer_ai_and_staff_write_is_activity() {
        let active: Vec<_> = Kind::ALL.into_iter().filter(|kind| kind.is_activity()).map(Kind::name).collect();
        assert_eq!(active, ["customer_message", "ai_reply", "staff_reply"]);
    }
}
