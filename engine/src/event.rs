//! What can happen in a conversation (rule 2)?

use crate::flaw::Flaw;
use crate::instant::Instant;
use crate::near;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

/// What an event is beyond its kind, in the application's own words (rule 2.15).
pub type Tag = Arc<str>;

/// Bytes that a tag may have.
pub const LONGEST_TAG: usize = 128;

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

/// How an event is named: `kind` or `kind:tag` (rule 2.15).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    pub kind: Kind,
    pub tag: Option<Tag>,
}

impl Name {
    /// The event of that name, of one of the kinds that are `known`. In the flaw `what` says where the name stands, and
    /// `other` which word may stand there too.
    pub fn read(name: &str, known: &[Kind], other: Option<&str>, what: &str) -> Result<Name, Flaw> {
        let (kind, tag) = name.split_once(':').map_or((name, None), |(kind, tag)| (kind, Some(tag)));
        let Some(kind) = Kind::named(kind).filter(|kind| known.contains(kind)) else {
            return Err(Flaw::invalid(format!("unknown kind \"{kind}\" in {what}"))
                .hint(near::hint(kind, known.iter().map(|kind| kind.name()).chain(other))));
        };
        match tag {
            Some(tag) if tag.is_empty() || tag.len() > LONGEST_TAG => {
                Err(Flaw::invalid(format!("the tag of \"{name}\" in {what} is not of 1 to {LONGEST_TAG} bytes")))
            }
            tag => Ok(Name { kind, tag: tag.map(Tag::from) }),
        }
    }

    /// The event that was stored under that name, if it is one.
    pub fn stored(name: &str) -> Option<Name> {
        Name::read(name, &Kind::ALL, None, "a stored name").ok()
    }
}

impl From<Kind> for Name {
    fn from(kind: Kind) -> Name {
        Name { kind, tag: None }
    }
}

impl Display for Name {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        to.write_str(self.kind.name())?;
        self.tag.iter().try_for_each(|tag| write!(to, ":{tag}"))
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'d> Deserialize<'d> for Name {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Name, D::Error> {
        let name = String::deserialize(from)?;
        Name::stored(&name).ok_or_else(|| serde::de::Error::custom(format!("\"{name}\" names no event")))
    }
}

/// One thing that happened in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: Instant,
    pub kind: Kind,
    pub tag: Option<Tag>,
    /// An `excluded` rule of the mapping matched the row.
    pub excluded: bool,
}

impl Event {
    /// An event of that name that no `excluded` rule matched.
    pub fn named(name: Name, at: Instant) -> Event {
        Event { at, kind: name.kind, tag: name.tag, excluded: false }
    }

    pub fn name(&self) -> Name {
        Name { kind: self.kind, tag: self.tag.clone() }
    }
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

    #[test]
    fn a_name_is_split_at_its_first_colon() {
        let name = Name::stored("ai_reply:a:b").expect("a name");
        assert_eq!((name.kind, name.tag.as_deref()), (Kind::AiReply, Some("a:b")));
        assert_eq!(name.to_string(), "ai_reply:a:b");
        assert_eq!(Name::stored("note"), Some(Name::from(Kind::Note)));
        for wrong in ["", ":", ":a", "note:", "message", "note: ".repeat(40).as_str()] {
            assert_eq!(Name::stored(wrong), None, "{wrong}");
        }
    }
}
