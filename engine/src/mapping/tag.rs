//! Where does the tag of an event come from (rule 2.15)?

use super::check::Checker;
use super::key::MOST_COLUMNS;
use super::{Class, Found, Value};
use crate::event::{LONGEST_TAG, Tag};
use crate::flaw::Flaw;
use serde_json::Value as Json;
use std::borrow::Cow;

/// Where a tag comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum TagOrigin {
    #[default]
    Nowhere,
    Constant(Tag),
    /// All of these values, joined by `:`.
    Values(Vec<Found>),
}

impl TagOrigin {
    pub(crate) fn is_nowhere(&self) -> bool {
        *self == TagOrigin::Nowhere
    }

    /// The tag of an event of this row. What is null, empty, no scalar or too long gives none, nor does what no column
    /// of text can hold: json may have a NUL in a string.
    pub(crate) fn read(&self, row: &[Value]) -> Option<Tag> {
        match self {
            TagOrigin::Nowhere => None,
            TagOrigin::Constant(tag) => Some(Tag::clone(tag)),
            TagOrigin::Values(values) => {
                let texts = values.iter().map(|found| text(found.of(row))).collect::<Option<Vec<_>>>()?;
                let tag = texts.join(":");
                ((1..=LONGEST_TAG).contains(&tag.len()) && !tag.contains('\0')).then(|| Tag::from(tag))
            }
        }
    }
}

fn text<'r>(value: &'r Value<'r>) -> Option<Cow<'r, str>> {
    match value {
        Value::Text(text) => Some(Cow::Borrowed(text)),
        Value::Integer(number) => Some(number.to_string().into()),
        Value::Number(number) => Some(number.normalize().to_string().into()),
        Value::Boolean(truth) => Some(truth.to_string().into()),
        _ => None,
    }
}

impl Checker<'_> {
    /// What `"tag"` of a rule says: a column or a path, or a list of them.
    pub(crate) fn tag(&mut self, written: Option<&Json>, place: &str) -> Result<TagOrigin, Flaw> {
        let named = match written {
            None => return Ok(TagOrigin::Nowhere),
            Some(Json::Array(list)) => list.as_slice(),
            Some(one) => std::slice::from_ref(one),
        };
        if !(1..=MOST_COLUMNS).contains(&named.len()) {
            return Err(Flaw::invalid(format!("\"tag\" of {place} is not a column, or a list of 1 to {MOST_COLUMNS}")));
        }
        let found = named.iter().map(|name| match name {
            Json::String(name) => self.part_of_tag(name, place),
            _ => Err(Flaw::invalid(format!("\"tag\" of {place} holds something that is not the name of a column"))
                .hint("A tag that is always the same stands behind the kind: \"note:verified\".")),
        });
        found.collect::<Result<_, _>>().map(TagOrigin::Values)
    }

    fn part_of_tag(&mut self, name: &str, place: &str) -> Result<Found, Flaw> {
        let (index, path) = self.column_and_path(name, &format!("\"tag\" of {place}"))?;
        let column = &self.columns[index];
        if matches!(column.class, Class::Float | Class::Timestamptz | Class::Timestamp | Class::Other) {
            return Err(Flaw::wrong_type(format!("column \"{}\" cannot be a \"tag\"", column.name))
                .detail(format!("It is of type {}.", column.type_name))
                .hint("A tag is text, varchar, char, uuid, an integer, numeric, boolean, an enum, or a json scalar."));
        }
        Ok(self.found(index, path, 0))
    }
}
