//! What does a json text hold where conditions look? Found without building what else it holds.

use super::{Asked, Value, exact_number};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::{self, Formatter};

/// A text of more bytes is not looked into.
pub const LONGEST_TEXT: usize = 16 << 20;

/// A string within json that has more bytes is not looked into: it is copied, and a copy must be easy to come by.
const LONGEST_STRING: usize = 2 << 20;

/// What nests deeper is not looked into: to pass over it takes memory for each level.
const DEEPEST: usize = 1_000;

/// What the json text holds at each of the paths.
pub fn at_paths(text: &str, asked: &Asked) -> Vec<Value<'static>> {
    asked.paths.iter().map(|path| at_path(text, path, asked.longest)).collect()
}

/// What a text that may be json holds at each of the paths: nothing, if it is none.
pub fn at_paths_of_any(text: &str, asked: &Asked) -> Vec<Value<'static>> {
    match can_be_looked_into(text, LONGEST_TEXT) {
        true => at_paths(text, asked),
        false => vec![Value::Null; asked.paths.len()],
    }
}

/// What a string within json holds at a path of at least one step: nothing, if it is no json.
pub fn at_path_of_string(text: &str, path: &[String], longest: usize) -> Value<'static> {
    match can_be_looked_into(text, LONGEST_STRING) {
        true => at_path(text, path, longest),
        false => Value::Null,
    }
}

/// A path that leads nowhere and a json null both are `null`. Objects, arrays, and texts longer than any that is asked
/// for equal no scalar. A string on the way is read as json: each is shorter than what it stands in, by half if it is a
/// string in a string.
fn at_path(text: &str, path: &[String], longest: usize) -> Value<'static> {
    let mut found = without_space(text);
    for (index, step) in path.iter().enumerate() {
        // A number would be given to a visitor as an object.
        let inner = match found.as_bytes().first() {
            Some(b'{' | b'[') => step_into(found, step),
            Some(b'"') if found.len() <= LONGEST_STRING => {
                let string = serde_json::from_str::<String>(found).unwrap_or_default();
                return at_path_of_string(&string, &path[index..], longest);
            }
            _ => None,
        };
        match inner {
            Some(inner) => found = inner.get(),
            None => return Value::Null,
        }
    }
    scalar(found, longest)
}

fn without_space(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

fn can_be_looked_into(text: &str, longest: usize) -> bool {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    let mut is_too_deep = |byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'{' | b'[' if !is_quoted => depth += 1,
            b'}' | b']' if !is_quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEEPEST
    };
    text.len() <= longest && !text.bytes().any(&mut is_too_deep)
}

/// What an object or an array holds under one step. A text that cannot be read holds nothing.
fn step_into<'a>(text: &'a str, step: &str) -> Option<&'a RawValue> {
    let mut document = serde_json::Deserializer::from_str(text);
    let found = document.deserialize_any(Step(step)).ok().flatten();
    document.end().ok().and(found)
}

fn scalar(text: &str, longest: usize) -> Value<'static> {
    /// The bytes of the longest way to write one.
    const ESCAPED: usize = 6;
    match text.as_bytes().first() {
        Some(b'n') => Value::Null,
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'"') if text.len() <= longest * ESCAPED + 2 => match serde_json::from_str::<String>(text) {
            Ok(text) => Value::Text(Cow::Owned(text)),
            Err(_) => Value::Present,
        },
        Some(b'-' | b'0'..=b'9') => exact_number(text).map_or(Value::Present, Value::Number),
        _ => Value::Present,
    }
}

struct Step<'s>(&'s str);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, formatter: &mut Formatter) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        // Of several values under one key the last one counts, as to the server.
        let mut found = None;
        while let Some(is_it) = object.next_key_seed(KeyIs(self.0))? {
            match is_it {
                true => found = Some(object.next_value()?),
                false => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let wanted: Option<usize> = self.0.parse().ok();
        let mut found = None;
        for index in 0.. {
            let value: Option<&RawValue> = array.next_element()?;
            match value {
                None => break,
                Some(value) if Some(index) == wanted => found = Some(value),
                Some(_) => {}
            }
        }
        Ok(found)
    }
}

/// Whether a key is that of a step.
struct KeyIs<'s>(&'s str);

impl<'de> DeserializeSeed<'de> for KeyIs<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyIs<'_> {
    type Value = bool;

    fn expecting(&self, formatter: &mut Formatter) -> fmt::Result {
        formatter.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}
