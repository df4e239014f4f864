//! How is a definition read, the json object in which a vendor says what is counted or sold?
//!
//! A reader asks `Keys` for each key once, by name and type. The keys asked for are then the keys that are known, in
//! messages and in the [`DefinitionRow`] that a table will hold.

use crate::flaw::Flaw;
use crate::near;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

/// A definition as a row of its table: every known key in the order asked for. A key that was left out has its default:
/// null, false or an empty list.
pub type DefinitionRow = Map<String, Json>;

/// The microseconds of an interval, given its text and the key that holds it. Only a database reads every form of an
/// interval, so this is its part; it raises errors of its own.
pub type Measure<'a> = dyn FnMut(&str, &str) -> i64 + 'a;

/// An interval that is yet to be measured.
pub(crate) struct Interval {
    key: &'static str,
    text: String,
}

impl Interval {
    /// As it is written.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn micros(&self, measure: &mut Measure) -> i64 {
        measure(&self.text, self.key)
    }
}

/// The keys of one definition while they are asked for. A key that is missing or ill-typed reads as the default of its
/// type, and [`Keys::finish`] says what is wrong.
pub(crate) struct Keys<'a> {
    /// Names the object in messages.
    place: String,
    given: &'a Map<String, Json>,
    /// A row of the table: it may hold more than is asked for, and what it holds as null was left out.
    stored: bool,
    row: DefinitionRow,
    unreadable: Option<String>,
    senseless: Option<Flaw>,
}

impl<'a> Keys<'a> {
    /// The keys of a definition as a vendor writes it; `what` is defined.
    pub(crate) fn of(definition: &'a Json, what: &str) -> Result<Keys<'a>, Flaw> {
        Keys::at(definition, format!("the definition of a {what}"), false)
    }

    /// The keys of a row that was stored.
    pub(crate) fn stored(row: &'a Json, what: &str) -> Result<Keys<'a>, Flaw> {
        Keys::at(row, format!("the stored definition of a {what}"), true)
    }

    fn at(json: &'a Json, place: String, stored: bool) -> Result<Keys<'a>, Flaw> {
        let given = object_of(json, &place)?;
        Ok(Keys { place, given, stored, row: DefinitionRow::new(), unreadable: None, senseless: None })
    }

    /// The value of a key that must be there.
    pub(crate) fn required<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        match self.given(key) {
            Some(value) => self.typed(key, value),
            None => {
                self.unreadable.get_or_insert_with(|| format!("missing field `{key}`"));
                self.row.insert(key.to_owned(), Json::Null);
                T::default()
            }
        }
    }

    /// The value of a key that may be null or left out.
    pub(crate) fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.given(key).unwrap_or(Json::Null);
        self.typed(key, value)
    }

    /// The value of a key that has the default of its type if it is left out.
    pub(crate) fn or_default<T: Serialize + DeserializeOwned + Default>(&mut self, key: &str) -> T {
        let value = self.given(key).unwrap_or_else(|| json!(T::default()));
        self.typed(key, value)
    }

    /// The interval that a key must hold.
    pub(crate) fn interval(&mut self, key: &'static str) -> Interval {
        Interval { key, text: self.required(key) }
    }

    /// The interval of a key that may be null or left out.
    pub(crate) fn optional_interval(&mut self, key: &'static str) -> Option<Interval> {
        self.optional(key).map(|text| Interval { key, text })
    }

    /// Whether they are of a row that was stored.
    pub(crate) fn are_stored(&self) -> bool {
        self.stored
    }

    /// Has the row hold `value`, where the definition writes the same in another way.
    pub(crate) fn store(&mut self, key: &str, value: Json) {
        self.row.insert(key.to_owned(), value);
    }

    /// Refuses what a key says. The first refusal counts, and only if all keys are known and of their types.
    pub(crate) fn refuse(&mut self, flaw: Flaw) {
        self.senseless.get_or_insert(flaw);
    }

    /// The row, once every key was asked for. Else the first flaw: an unknown key, then a key that is missing or
    /// ill-typed, then what was refused.
    pub(crate) fn finish(self) -> Result<DefinitionRow, Flaw> {
        let known: Vec<&str> = self.row.keys().map(String::as_str).collect();
        if !self.stored {
            only_known_keys(self.given, &self.place, &known)?;
        }
        if let Some(error) = self.unreadable {
            return Err(Flaw::invalid(format!("{} cannot be read: {error}", self.place))
                .hint(format!("Its keys are: {}.", known.join(", "))));
        }
        match self.senseless {
            Some(flaw) => Err(flaw),
            None => Ok(self.row),
        }
    }

    fn given(&self, key: &str) -> Option<Json> {
        self.given.get(key).filter(|value| !(self.stored && value.is_null())).cloned()
    }

    fn typed<T: DeserializeOwned + Default>(&mut self, key: &str, value: Json) -> T {
        let read = serde_json::from_value(value.clone());
        self.row.insert(key.to_owned(), value);
        read.unwrap_or_else(|error| {
            self.unreadable.get_or_insert_with(|| format!("\"{key}\": {error}"));
            T::default()
        })
    }
}

/// The object that `json` is; `what` names it in the flaw that it is none.
pub(crate) fn object_of<'a>(json: &'a Json, what: &str) -> Result<&'a Map<String, Json>, Flaw> {
    json.as_object().ok_or_else(|| Flaw::invalid(format!("{what} is not a json object")))
}

/// Refuses an object that holds a key beside the `known` ones; `what` names the object.
pub(crate) fn only_known_keys(object: &Map<String, Json>, what: &str, known: &[&str]) -> Result<(), Flaw> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            Err(Flaw::invalid(format!("unknown key \"{key}\" in {what}")).hint(near::hint(key, known.iter().copied())))
        }
        None => Ok(()),
    }
}
