//! What is known of a row that cannot be metered now, and what happens to it? The words of capture and quarantine.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::OrderKey;

/// The key of a conversation: tenant and the application's own id of it.
pub type Key<'a> = (&'a str, &'a str);

/// A row as quarantine knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowName {
    pub source: i32,
    pub message: Option<String>,
    pub tenant: Option<String>,
    pub conversation: Option<String>,
    pub at: Option<Instant>,
}

/// What concerns quarantine.
#[derive(Debug, Serialize, Deserialize)]
pub enum Aside {
    /// A row was changed: if it was in quarantine, it is as it was no more.
    Left(RowName),
    /// A row, or a mark, goes to quarantine.
    Refused(Entry),
    /// All rows of a source were taken away: those that are in quarantine are there no more.
    Emptied(i32),
}

/// A row that could not be metered, as far as it could be read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    /// The attached table; 0 for a mark that was made by function.
    pub source: i32,
    /// The id of the row, or the number of a mark that has one.
    pub message: Option<String>,
    pub tenant: Option<String>,
    pub conversation: Option<String>,
    pub at: Option<Instant>,
    pub reason: Cow<'static, str>,
    pub detail: Option<String>,
    /// The kind of a mark that is still to be made.
    pub mark: Option<Kind>,
    /// The place of an event that a change took away, which is still to be told.
    pub removal: Option<Vec<u8>>,
    /// The row was metered as it was before, and goes on to be an event until it is looked at again.
    pub counted: bool,
}

impl Entry {
    /// The entry of an event of which all is known.
    pub fn of(tenant: &str, conversation: &str, place: &OrderKey, reason: &'static str, detail: String) -> Entry {
        Entry {
            source: place.source(),
            message: place.message().map(|message| message.text()),
            tenant: Some(tenant.to_owned()),
            conversation: Some(conversation.to_owned()),
            at: Some(place.at()),
            reason: reason.into(),
            detail: Some(detail),
            ..Entry::default()
        }
    }

    /// Whether both are of one row.
    pub fn same_row(&self, other: &Entry) -> bool {
        let name = |entry: &Entry| (entry.source, entry.message.clone(), entry.at, entry.mark, entry.removal.is_some());
        // The number of a mark names it within its conversation only.
        name(self) == name(other) && (&self.tenant, &self.conversation) == (&other.tenant, &other.conversation)
    }
}
