//! Which events does a policy mean (rule 2.15)?

use crate::event::{Event, Kind, Name, Tag};
use crate::flaw::Flaw;
use std::fmt::{self, Display, Formatter};

/// The word for any activity.
const MESSAGE: &str = "message";

/// Events that a policy names: those of a kind, those of a kind that have one tag, or any activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    Kind(Kind),
    Tagged(Kind, Tag),
    Message,
}

impl Selector {
    /// The selector that is written so; `what` says in the flaw where it stands.
    pub fn read(written: &str, what: &str) -> Result<Selector, Flaw> {
        if written == MESSAGE {
            return Ok(Selector::Message);
        }
        if written.split_once(':').is_some_and(|(kind, _)| kind == MESSAGE) {
            return Err(Flaw::invalid(format!("\"{written}\" in {what}: {MESSAGE} is any activity, and has no tag"))
                .hint("Name a kind with its tag, such as \"customer_message:chat\"."));
        }
        Name::read(written, &Kind::ALL, Some(MESSAGE), what).map(|Name { kind, tag }| match tag {
            None => Selector::Kind(kind),
            Some(tag) => Selector::Tagged(kind, tag),
        })
    }

    /// Whether an event is one of those that are meant.
    pub fn holds(&self, event: &Event) -> bool {
        match self {
            Selector::Kind(kind) => *kind == event.kind,
            Selector::Tagged(kind, tag) => *kind == event.kind && event.tag.as_ref() == Some(tag),
            Selector::Message => event.kind.is_activity(),
        }
    }
}

impl From<Kind> for Selector {
    fn from(kind: Kind) -> Selector {
        Selector::Kind(kind)
    }
}

impl Display for Selector {
    fn fmt(&self, to: &mut Formatter) -> fmt::Result {
        match self {
            Selector::Kind(kind) => to.write_str(kind.name()),
            Selector::Tagged(kind, tag) => write!(to, "{}:{tag}", kind.name()),
            Selector::Message => to.write_str(MESSAGE),
        }
    }
}

/// The first of several selectors that means an event.
pub fn holding<'s>(selectors: &'s [Selector], event: &Event) -> Option<&'s Selector> {
    selectors.iter().find(|selector| selector.holds(event))
}

/// Whether any of several selectors means an event.
pub fn hold(selectors: &[Selector], event: &Event) -> bool {
    holding(selectors, event).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LONGEST_TAG;
    use crate::instant::Instant;

    fn event(name: &str) -> Event {
        Event::named(Name::stored(name).expect("a name"), Instant(0))
    }

    fn selector(written: &str) -> Selector {
        Selector::read(written, "a test").expect("a selector")
    }

    #[test]
    fn a_kind_means_any_tag_a_tag_only_itself_and_message_any_activity() {
        for (written, meant, others) in [
            ("ai_reply", ["ai_reply", "ai_reply:answer"], ["note", "note:answer"]),
            ("ai_reply:answer", ["ai_reply:answer", "ai_reply:answer"], ["ai_reply", "ai_reply:Answer"]),
            ("message", ["customer_message:x", "staff_reply"], ["note", "close"]),
        ] {
            let selector = selector(written);
            assert_eq!(selector.to_string(), written);
            meant.iter().for_each(|name| assert!(selector.holds(&event(name)), "{written} means {name}"));
            others.iter().for_each(|name| assert!(!selector.holds(&event(name)), "{written} does not mean {name}"));
        }
    }

    #[test]
    fn what_is_no_selector_is_named_with_what_is_near() {
        let flaw = Selector::read("ai_repyl:answer", "\"starts_on\"").expect_err("no kind");
        assert_eq!(flaw.message, "unknown kind \"ai_repyl\" in \"starts_on\"");
        assert!(flaw.hint.expect("a hint").starts_with("Perhaps you meant \"ai_reply\"."));
        let flaw = Selector::read("messages", "\"starts_on\"").expect_err("no kind");
        assert!(flaw.hint.expect("a hint").contains("message."));
        let flaw = Selector::read("message:x", "\"ends_on\"").expect_err("no selector");
        assert_eq!(flaw.message, "\"message:x\" in \"ends_on\": message is any activity, and has no tag");
        let long = format!("note:{}", "x".repeat(LONGEST_TAG + 1));
        for wrong in ["note:", long.as_str()] {
            Selector::read(wrong, "a test").expect_err(wrong);
        }
    }
}
