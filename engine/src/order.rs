//! Which of two events of one conversation comes first (rule 2.3)?
//!
//! The answer is a key of bytes: comparing two keys byte by byte compares the events. So the database can store it,
//! sort by it and spill it without knowing the rule.
//!
//! Layout, big-endian with flipped signs: instant (8), class (1), source (4), the number of the `order` column if there
//! is one (tag 1, 8), message id (tag 1; an integer in 8 bytes, or the turn of its row in 1 and text ended by a zero
//! byte), position (2): twice the index of the event in its row, and one more if it has a time of its own.

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
/// Rows that a sequence orders come before those that it leaves out.
const SEQUENCED: u8 = 0;
const INTEGER: u8 = 1;
const TEXT: u8 = 2;

/// Where a row stands among the rows of its source and instant.
#[derive(Clone, Copy, Debug)]
pub struct Rank<'a> {
    /// What the mapping's `order` column holds.
    pub sequence: Option<i64>,
    pub message: &'a MessageId,
    /// The kind of the row's first event.
    pub first: Kind,
}

/// Which event of its row one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub index: u16,
    /// Its time is not that of the row.
    pub has_own_time: bool,
}

impl Position {
    /// Of an event that has the time of its row.
    pub fn of_row(index: u16) -> Position {
        Position { index, has_own_time: false }
    }
}

/// Whose turn it is at an instant of which the ids say nothing: an answer comes after its question.
fn turn(kind: Kind) -> u8 {
    match kind {
        Kind::CustomerMessage => 0,
        Kind::AiReply => 2,
        Kind::StaffReply => 3,
        _ => 1,
    }
}

/// The place of an event among those of its conversation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderKey(Box<[u8]>);

impl OrderKey {
    /// The key of the event that a message row gives: `source` counts the sources in attach order.
    pub fn row(at: Instant, source: i32, rank: &Rank, position: Position) -> OrderKey {
        let position = position.index * 2 + u16::from(position.has_own_time);
        Self::build(at, ROW, source, rank, position)
    }

    /// The key of a mark: `new_topic` and `reopen` come before the rows of the same instant, all others after them, in
    /// the order of their calls.
    pub fn mark(at: Instant, kind: Kind, call: i64) -> OrderKey {
        let class = if matches!(kind, Kind::NewTopic | Kind::Reopen) { EARLY_MARK } else { LATE_MARK };
        let rank = Rank { sequence: None, message: &MessageId::Integer(call), first: kind };
        Self::build(at, class, 0, &rank, 0)
    }

    fn build(at: Instant, class: u8, source: i32, rank: &Rank, position: u16) -> OrderKey {
        let mut key = Vec::with_capacity(24);
        key.extend_from_slice(&flipped(at.0));
        key.push(class);
        key.extend_from_slice(&(source ^ i32::MIN).to_be_bytes());
        if let Some(sequence) = rank.sequence {
            key.push(SEQUENCED);
            key.extend_from_slice(&flipped(sequence));
        }
        match rank.message {
            MessageId::Integer(number) => {
                key.push(INTEGER);
                key.extend_from_slice(&flipped(*number));
            }
            MessageId::Text(text) => {
                key.extend_from_slice(&[TEXT, turn(rank.first)]);
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

    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_vec()
    }

    /// When the event happened.
    pub fn at(&self) -> Instant {
        time_of(&self.0)
    }

    /// The source of the row; 0 for a mark.
    pub fn source(&self) -> i32 {
        source_of(&self.0)
    }

    /// Of which event of its row it is, if that has a time of its own, from 1 on; 0 if its time is that of the row.
    pub fn event(&self) -> u16 {
        let end = self.0.len();
        let position = u16::from_be_bytes([self.0[end - 2], self.0[end - 1]]);
        if position % 2 == 1 { position / 2 + 1 } else { 0 }
    }

    /// The id of the message row, or the number of the call for a mark.
    pub fn message(&self) -> Option<MessageId> {
        let ranked = self.0.get(13..)?;
        let ranked = if ranked.first() == Some(&SEQUENCED) { ranked.get(9..)? } else { ranked };
        let (tag, rest) = ranked.split_first()?;
        let id = rest.get(..rest.len().checked_sub(2)?)?;
        match *tag {
            INTEGER => Some(MessageId::Integer(i64::from_be_bytes(id.try_into().ok()?) ^ i64::MIN)),
            TEXT => {
                let text = id.get(1..)?.strip_suffix(&[0])?;
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

/// The key of an event whose message is not to be known any more (rule 4.7.2): its time and source, and its number
/// among the keys of its conversation, which keeps their order. A floor names no message, and stays.
pub fn without_message(place: &[u8], number: i64) -> Vec<u8> {
    let Some(kept) = place.get(..13) else { return place.to_vec() };
    [kept, &[INTEGER], &flipped(number), &[0, 0]].concat()
}

/// Bytes of the shortest key, or floor: its time.
pub const SHORTEST: usize = 8;

/// The time of a key, or of a floor.
pub fn time_of(place: &[u8]) -> Instant {
    let bytes: [u8; 8] = place[..SHORTEST].try_into().expect("a key starts with eight bytes of time");
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

    fn ranked(sequence: Option<i64>, message: MessageId, first: Kind, position: u16) -> OrderKey {
        OrderKey::row(NOON, 1, &Rank { sequence, message: &message, first }, Position::of_row(position))
    }

    fn row(source: i32, id: i64, position: u16) -> OrderKey {
        let rank = Rank { sequence: None, message: &MessageId::Integer(id), first: Kind::Note };
        OrderKey::row(NOON, source, &rank, Position::of_row(position))
    }

    fn text(id: &str, first: Kind) -> OrderKey {
        ranked(None, MessageId::Text(id.into()), first, 0)
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
    fn integer_ids_are_ordered_numerically_whoever_wrote() {
        assert!(row(1, -1, 0) < row(1, 9, 0) && row(1, 9, 0) < row(1, 10, 0));
        let by = |id, kind| ranked(None, MessageId::Integer(id), kind, 0);
        assert!(by(1, Kind::AiReply) < by(2, Kind::CustomerMessage));
    }

    #[test]
    fn ids_of_text_say_nothing_so_the_customer_comes_first_then_what_is_no_activity_then_the_ai_then_staff() {
        let keys = [
            text("f", Kind::CustomerMessage),
            text("e", Kind::Note),
            text("d", Kind::AiReply),
            text("c", Kind::StaffReply),
        ];
        assert!(keys.is_sorted());
        let quiet = Kind::ALL.into_iter().filter(|kind| !kind.is_activity());
        quiet.for_each(|kind| assert!(text("z", kind) < text("a", Kind::AiReply), "{kind:?}"));
    }

    #[test]
    fn ids_of_text_are_ordered_by_bytes_within_one_turn() {
        let note = |id| text(id, Kind::Note);
        assert!(note("10") < note("9") && note("Z") < note("a") && note("a") < note("ab") && note("") < note("a"));
    }

    #[test]
    fn a_sequence_orders_before_ids_and_turns_and_what_it_leaves_out_comes_last() {
        let keys = [
            ranked(Some(-1), MessageId::Text("z".into()), Kind::AiReply, 0),
            ranked(Some(2), MessageId::Text("y".into()), Kind::StaffReply, 0),
            ranked(Some(10), MessageId::Text("b".into()), Kind::CustomerMessage, 0),
            ranked(Some(10), MessageId::Text("a".into()), Kind::AiReply, 0),
            ranked(None, MessageId::Text("a".into()), Kind::CustomerMessage, 0),
        ];
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_floor_lies_between_the_events_before_an_instant_and_those_at_it() {
        let floor = OrderKey::floor(NOON);
        assert!(OrderKey::mark(NOON.plus(-1), Kind::Close, i64::MAX).as_bytes() < floor.as_slice());
        assert!(floor.as_slice() < OrderKey::mark(NOON, Kind::Reopen, i64::MIN).as_bytes());
    }

    proptest! {
        #[test]
        fn a_key_gives_back_what_it_was_made_of(
            at: i64,
            source: i32,
            sequence: Option<i64>,
            id: i64,
            name in "[^\0]*",
            index in 0..i16::MAX as u16,
            has_own_time: bool,
        ) {
            for message in [MessageId::Integer(id), MessageId::Text(name.clone())] {
                let rank = Rank { sequence, message: &message, first: Kind::AiReply };
                let key = OrderKey::row(Instant(at), source, &rank, Position { index, has_own_time });
                prop_assert_eq!(key.event(), if has_own_time { index + 1 } else { 0 });
                prop_assert_eq!(OrderKey::from_bytes(key.as_bytes()), Some(key.clone()));
                prop_assert_eq!((key.at(), key.source(), key.message()), (Instant(at), source, Some(message)));
            }
        }

        #[test]
        fn keys_without_their_messages_are_in_the_same_order(
            rows in proptest::collection::vec((-3..3i64, 0..3i32, "[ab]{0,2}"), 2..8),
        ) {
            let mut keys: Vec<OrderKey> = rows
                .iter()
                .map(|(at, source, id)| {
                    let message = MessageId::Text(id.clone());
                    let rank = Rank { sequence: None, message: &message, first: Kind::AiReply };
                    OrderKey::row(Instant(*at), *source, &rank, Position::of_row(0))
                })
                .collect();
            keys.sort();
            keys.dedup();
            let bare: Vec<Vec<u8>> =
                (1..).zip(&keys).map(|(number, key)| without_message(key.as_bytes(), number)).collect();
            prop_assert!(bare.is_sorted_by(|a, b| a < b));
            for (bare, key) in bare.iter().zip(&keys) {
                prop_assert_eq!(time_of(bare), key.at());
                prop_assert_eq!(source_of(bare), key.source());
                prop_assert!(OrderKey::from_bytes(bare).is_some());
            }
        }

        #[test]
        fn keys_are_ordered_as_their_parts_are(
            a: (i64, i32, Option<i64>, i64, u8),
            b: (i64, i32, Option<i64>, i64, u8),
        ) {
            let parts = |(at, source, sequence, id, index): (i64, i32, Option<i64>, i64, u8)| {
                (at, source, sequence.is_none(), sequence, id, index)
            };
            let key = |(at, source, sequence, id, index)| {
                let rank = Rank { sequence, message: &MessageId::Integer(id), first: Kind::Note };
                OrderKey::row(Instant(at), source, &rank, Position::of_row(u16::from(index)))
            };
            prop_assert_eq!(key(a).cmp(&key(b)), parts(a).cmp(&parts(b)));
        }
    }
}
