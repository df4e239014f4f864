//! How is a definition read, the json object in which a user says what is to be?

use crate::flaw::Flaw;
use crate::near;
use serde_json::{Map, Value as Json};

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
