//! Which of two events of one conversation comes first (rule 2.3)?
//!
//! The answer is a key of bytes: comparing two keys byte by byte compares the events. So the database can store it,
//! sort by it and spill it without knowing the rule.
//!
//! Layout, big-endian with flipped signs: instant (8), class (1), source (4), message id (tag 1; an integer in 8
//! bytes, or text ended by a zero byte), position (2).

use crate::event::Kind;
use crate::instant::Instant;

/// The id of a message row: integers are compared numerically, text and uuid by their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MessageId {
    Integer(i64),
    Text(String),
}

impl MessageId {
    /// The id as it is shown and kept in quarantine.
    pub fn text(&self) -> String {
        match self {
            MessageId::Integer(number) => number.to_string(),
            MessageId::Text(text) => text.clone(),
        }
    }
}

const EARLY_MARK: u8 = 0;
const ROW: u8 = 1;
const LATE_MARK: u8 = 2;
const INTEGER: u8 = 0;
const TEXT: u8 = 1;

/// The place of an event among those of its conversation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(Box<[u8]>);

impl OrderKey {
    /// The key of the event that a message row gives: `source` counts the sources in attach order, `position` the
    /// events of one row.
    pub fn row(at: Instant, source: i32, message: &MessageId, position: u16) -> OrderKey {
        Self::build(at, ROW, source, message, position)
    }

    /// The key of a mark: `new_topic` and `reopen` come before the rows of the same instant, all others after them, in
    /// the order of their calls.
    pub fn mark(at: Instant, kind: Kind, call: i64) -> OrderKey {
        let class = if matches!(kind, Kind::NewTopic | Kind::Reopen) { EARLY_MARK } else { LATE_MARK };
        Self::build(at, class, 0, &MessageId::Integer(call), 0)
    }

    fn build(at: Instant, class: u8, source: i32, message: &MessageId, position: u16) -> OrderKey {
        let mut key = Vec::with_capacity(24);
        key.extend_from_slice(&flipped(at.0));
        key.push(class);
        key.extend_from_slice(&(source ^ i32::MIN).to_be_bytes());
        match message {
            MessageId::Integer(number) => {
                key.push(INTEGER);
                key.extend_from_slice(&flipped(*number));
            }
            MessageId::Text(text) => {
                key.push(TEXT);
                key.extend_from_slice(text.as_bytes());
                key.push(0);
            }
        }
        key.extend_from_slice(&position.to_be_bytes());
        OrderKey(key.into_boxed_slice())
    }

    /// A key before that of every event at or after `at`, and after that of every earlier one.
    pub fn floor(at: Instant) -> [u8; 8] {
        flipped(at.0)
    }

    /// A key that was stored as bytes, or `None` if these bytes are no key.
    pub fn from_bytes(bytes: &[u8]) -> Option<OrderKey> {
        let key = OrderKey(bytes.into());
        key.message()?;
        Some(key)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// When the event happened.
    pub fn at(&self) -> Instant {
        time_of(&self.0)
    }

    /// The source of the row; 0 for a mark.
    pub fn source(&self) -> i32 {
        source_of(&self.0)
    }

    /// The id of the message row, or the number of the call for a mark.
    pub fn message(&self) -> Option<MessageId> {
        let (tag, rest) = self.0.get(13..)?.split_first()?;
        let id = rest.get(..rest.len().checked_sub(2)?)?;
        match *tag {
            INTEGER => Some(MessageId::Integer(i64::from_be_bytes(id.try_into().ok()?) ^ i64::MIN)),
            TEXT => {
                let text = id.strip_suffix(&[0])?;
                Some(MessageId::Text(String::from_utf8(text.to_vec()).ok()?))
            }
            _ => None,
        }
    }
}

/// The key that was stored as these bytes. Panics if they are no key: only keys are stored as places of events.
pub fn key(place: &[u8]) -> OrderKey {
    OrderKey::from_bytes(place).expect("the place of an event is an order key")
}

/// The time of a key, or of a floor.
pub fn time_of(place: &[u8]) -> Instant {
    let bytes: [u8; 8] = place[..8].try_into().expect("a key starts with eight bytes of time");
    Instant(i64::from_be_bytes(bytes) ^ i64::MIN)
}

/// The source of the row of a key; 0 for a mark.
pub fn source_of(place: &[u8]) -> i32 {
    let bytes: [u8; 4] = place[9..13].try_into().expect("four bytes of source follow the class");
    i32::from_be_bytes(bytes) ^ i32::MIN
}

/// Whether a key is that of a mark.
pub fn is_mark(place: &[u8]) -> bool {
    place.get(8).is_some_and(|class| *class != ROW)
}

fn flipped(number: i64) -> [u8; 8] {
    (number ^ i64::MIN).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOON: Instant = Instant(1_000_000);

    fn row(source: i32, id: i64, position: u16) -> OrderKey {
        OrderKey::row(NOON, source, &MessageId::Integer(id), position)
    }

    fn text(id: &str) -> OrderKey {
        OrderKey::row(NOON, 1, &MessageId::Text(id.into()), 0)
    }

    #[test]
    fn at_one_instant_new_topic_and_reopen_come_first_then_rows_then_other_marks() {
        let keys = [
            OrderKey::mark(NOON, Kind::NewTopic, 7),
            OrderKey::mark(NOON, Kind::Reopen, 8),
            row(1, 5, 0),
            row(1, 5, 1),
            row(1, 10, 0),
            row(2, 1, 0),
            OrderKey::mark(NOON, Kind::Close, 1),
            OrderKey::mark(NOON, Kind::Resolve, 2),
        ];
        assert!(keys.is_sorted());
    }

    #[test]
    fn integer_ids_are_ordered_numerically_and_text_by_bytes() {
        assert!(row(1, -1, 0) < row(1, 9, 0) && row(1, 9, 0) < row(1, 10, 0));
        assert!(text("10") < text("9") && text("Z") < text("a") && text("a") < text("ab") && text("") < text("a"));
    }

    #[test]
    fn a_floor_lies_between_the_events_before_an_instant_and_those_at_it() {
        let floor = OrderKey::floor(NOON);
        assert!(OrderKey::mark(NOON.plus(-1), Kind::Close, i64::MAX).as_bytes() < floor.as_slice());
        assert!(floor.as_slice() < OrderKey::mark(NOON, Kind::Reopen, i64::MIN).as_bytes());
    }

    proptest! {
        #[test]
        fn a_key_gives_back_what_it_was_made_of(at: i64, source: i32, id: i64, name in "[^\0]*", position: u16) {
            for message in [MessageId::Integer(id), MessageId::Text(name.clone())] {
                let key = OrderKey::row(Instant(at), source, &message, position);
                prop_assert_eq!((key.at(), key.source(), key.message()), (Instant(at), source, Some(message)));
                prop_assert_eq!(OrderKey::from_bytes(key.as_bytes()), Some(key));
            }
        }

        #[test]
        fn keys_are_ordered_as_their_parts_are(a: (i64, i32, i64, u16), b: (i64, i32, i64, u16)) {
            let key = |(at, source, id, position)| {
                OrderKey::row(Instant(at), source, &MessageId::Integer(id), position)
            };
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }
    }
}
