//! What is the key of a row, which one column holds or several make (rule 2.5)?

use super::{LONGEST_KEY, Value, cut};
use crate::order::MessageId;
use std::borrow::Cow;

/// Columns of which a key can be made.
pub const MOST_COLUMNS: usize = 4;

/// Where a key comes from. Slots are places in [`Mapping::columns`](super::Mapping::columns).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    Constant(String),
    Slot(usize),
    /// All of them: see [`joined`].
    Joined(Vec<usize>),
    /// The first that is neither null nor empty.
    FirstOf(Vec<usize>),
}

/// A key as it was read.
pub(crate) struct Key<'a> {
    /// `None` if it is null. One that is too long is cut.
    pub(crate) text: Option<Cow<'a, str>>,
    /// How many bytes it has, if that is more than keys may have.
    pub(crate) too_long: Option<usize>,
}

const NULL: Key = Key { text: None, too_long: None };

impl KeyOrigin {
    pub fn slots(&self) -> &[usize] {
        match self {
            KeyOrigin::Constant(_) => &[],
            KeyOrigin::Slot(slot) => std::slice::from_ref(slot),
            KeyOrigin::Joined(slots) | KeyOrigin::FirstOf(slots) => slots,
        }
    }

    /// The same key, read from the values of its own slots alone.
    pub fn alone(&self) -> KeyOrigin {
        let own = || (0..self.slots().len()).collect();
        match self {
            KeyOrigin::Constant(text) => KeyOrigin::Constant(text.clone()),
            KeyOrigin::Slot(_) => KeyOrigin::Slot(0),
            KeyOrigin::Joined(_) => KeyOrigin::Joined(own()),
            KeyOrigin::FirstOf(_) => KeyOrigin::FirstOf(own()),
        }
    }

    pub(crate) fn read<'a>(&'a self, row: &'a [Value<'a>]) -> Key<'a> {
        match self {
            KeyOrigin::Slot(slot) => of(&row[*slot]),
            KeyOrigin::Constant(text) => Key { text: Some(Cow::Borrowed(text)), too_long: None },
            KeyOrigin::Joined(slots) => of_joined(slots.iter().map(|slot| of(&row[*slot]))),
            KeyOrigin::FirstOf(slots) => {
                let mut keys = slots.iter().map(|slot| of(&row[*slot]));
                keys.find(|key| key.text.as_ref().is_some_and(|text| !text.is_empty())).unwrap_or(NULL)
            }
        }
    }

    /// The message id of a row, if it has one; one that is too long is cut.
    pub fn message(&self, row: &[Value]) -> Option<MessageId> {
        self.message_and_length(row).0
    }

    pub(crate) fn message_and_length(&self, row: &[Value]) -> (Option<MessageId>, Option<usize>) {
        if let KeyOrigin::Slot(slot) = self
            && let Value::Integer(number) = row[*slot]
        {
            return (Some(MessageId::Integer(number)), None);
        }
        let key = self.read(row);
        (key.text.map(|text| MessageId::Text(text.into_owned())), key.too_long)
    }
}

fn of<'a>(value: &'a Value<'a>) -> Key<'a> {
    match value {
        Value::Text(text) if text.len() <= LONGEST_KEY => Key { text: Some(Cow::Borrowed(text)), too_long: None },
        Value::Text(text) => Key { text: Some(Cow::Borrowed(cut(text, LONGEST_KEY))), too_long: Some(text.len()) },
        Value::Long { start, bytes } => Key { text: Some(Cow::Borrowed(start)), too_long: Some(*bytes) },
        Value::Integer(number) => Key { text: Some(Cow::Owned(number.to_string())), too_long: None },
        _ => NULL,
    }
}

fn of_joined<'a>(parts: impl Iterator<Item = Key<'a>>) -> Key<'a> {
    let mut texts = Vec::new();
    let mut left_out = 0;
    for Key { text, too_long } in parts {
        let Some(text) = text else { return NULL };
        left_out += too_long.map_or(0, |bytes| bytes - text.len());
        texts.push(text);
    }
    let whole = joined(texts.iter().map(Cow::as_ref));
    let bytes = whole.len() + left_out;
    match bytes > LONGEST_KEY {
        true => Key { text: Some(Cow::Owned(cut(&whole, LONGEST_KEY).to_owned())), too_long: Some(bytes) },
        false => Key { text: Some(Cow::Owned(whole)), too_long: None },
    }
}

/// The key that values make together: by `/`, with `%25` for `%` and `%2F` for `/` in them (rule 2.5.8).
pub fn joined<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.map(|value| value.replace('%', "%25").replace('/', "%2F")).collect::<Vec<_>>().join("/")
}

/// The values that make a key together, if it is one of so many.
pub fn parted(key: &str, values: usize) -> Option<Vec<String>> {
    let parts: Vec<String> = key.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%")).collect();
    (parts.len() == values && joined(parts.iter().map(String::as_str)) == key).then_some(parts)
}
