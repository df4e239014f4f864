//! What does a json text hold where conditions look? Found without building what else it holds.

use super::{Asked, Value, exact_number};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt::{self, Formatter};

/// What the text holds at each of the paths.
pub fn at_paths(text: &str, asked: &Asked) -> Vec<Value<'static>> {
    asked.paths.iter().map(|path| at_path(text, path, asked.longest)).collect()
}

/// A path that leads nowhere and a json null both are `null`. Objects, arrays, and texts longer than any that is asked
/// for equal no scalar.
fn at_path(text: &str, path: &[String], longest: usize) -> Value<'static> {
    let mut found = text.trim_ascii();
    for step in path {
        // A number would be given to a visitor as an object.
        let inner = if found.starts_with(['{', '[']) { step_into(found, step) } else { None };
        match inner {
            Some(inner) => found = inner.get(),
            None => return Value::Null,
        }
    }
    scalar(found, longest)
}

/// What an object or an array holds under one step. A text that cannot be read holds nothing.
fn step_into<'a>(text: &'a str, step: &str) -> Option<&'a RawValue> {
    serde_json::Deserializer::from_str(text).deserialize_any(Step(step)).ok().flatten()
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
