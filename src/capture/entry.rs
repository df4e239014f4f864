//! What is known of a row that cannot be metered now, and what happens to it? The words of capture and quarantine.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use talkmeter_engine::event::Name;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{LONGEST_KEY, Reading};
use talkmeter_engine::order::OrderKey;

/// The key of a conversation: tenant and the application's own id of it.
pub type Key<'a> = (&'a str, &'a str);

/// The bytes of a key, in parts: with a zero byte between them, which no text holds, they are ordered as keys are.
pub fn key_bytes<'a>((tenant, conversation): Key<'a>) -> [&'a [u8]; 3] {
    [tenant.as_bytes(), &[0], conversation.as_bytes()]
}

/// The key of these bytes.
pub fn key_of_bytes(bytes: &[u8]) -> Key<'_> {
    let end = bytes.iter().position(|byte| *byte == 0).expect("a key of two parts");
    let text = |bytes| std::str::from_utf8(bytes).expect("text was written");
    (text(&bytes[..end]), text(&bytes[end + 1..]))
}

/// The reason of what came later than `talkmeter.max_past` admits (rule 3.7).
pub const TOO_OLD: &str = "too_old";

/// The reason of what came of a tenant whose books are not here (rule 4.8).
pub const MOVED: &str = "moved";

/// A row as quarantine knows it, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RowName {
    /// The attached table; 0 for a mark that was made by function.
    pub source: i32,
    /// The id of the row, or the number of a mark that has one.
    pub message: Option<String>,
    pub tenant: Option<String>,
    pub conversation: Option<String>,
    pub at: Option<Instant>,
    /// Which event of the row, as [`Reading::event`] tells it; `None` is the row as a whole.
    pub event: Option<u16>,
}

/// An event's row, by source and message id, and which event of it: those that have no time of their own are one.
pub type EventName = (i32, String, u16);

/// The name of the event at a place.
pub fn event_at(place: &OrderKey) -> Option<EventName> {
    Some((place.source(), place.message()?.text(), place.event()))
}

impl RowName {
    /// The name of a row that was read.
    pub fn of(source: i32, reading: &Reading) -> RowName {
        RowName {
            source,
            message: reading.message.as_ref().map(|message| message.text()),
            tenant: reading.tenant.as_deref().map(str::to_owned),
            conversation: reading.conversation.as_deref().map(str::to_owned),
            at: reading.at,
            event: reading.event,
        }
    }

    /// The name of the row, or the mark, that an event of a conversation comes from.
    pub fn at_place(tenant: &str, conversation: &str, place: &OrderKey) -> RowName {
        RowName {
            source: place.source(),
            message: place.message().map(|message| message.text()),
            tenant: Some(tenant.to_owned()),
            conversation: Some(conversation.to_owned()),
            at: Some(place.at()),
            event: Some(place.event()),
        }
    }

    /// By what its events are known, whatever else of it was read.
    pub fn event(&self) -> Option<EventName> {
        Some((self.source, self.message.clone()?, self.event.unwrap_or(0)))
    }
}

/// What concerns quarantine, on its way there.
#[derive(Debug, Serialize, Deserialize)]
pub enum Aside {
    /// A row was changed or deleted. Its entry in quarantine, if it has one, is out of date.
    Left(Left),
    /// A row, or a mark, goes to quarantine.
    Refused(Entry),
    /// A table was truncated: the entries of its rows are out of date.
    Emptied(i32),
}

/// A row that is no more what it was.
#[derive(Debug, Serialize, Deserialize)]
pub struct Left {
    pub row: RowName,
    /// Why it could not be metered as it was, if it could not.
    pub refused: Option<Cow<'static, str>>,
    /// It is there no more.
    pub is_deleted: bool,
}

/// A row that could not be metered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Entry {
    pub row: RowName,
    /// Why not (rule 3.7).
    pub reason: Cow<'static, str>,
    pub detail: Option<String>,
    /// A mark that is still to be made.
    pub mark: Option<Name>,
    /// The place of an event that a change removed. The removal is still to be folded.
    pub removal: Option<Vec<u8>>,
    /// The row was metered as it was before the change. It stays an event until a retry reads it again.
    pub counted: bool,
}

impl Entry {
    /// The entry of an event of which all is known.
    pub fn of(tenant: &str, conversation: &str, place: &OrderKey, reason: &'static str, detail: String) -> Entry {
        let row = RowName::at_place(tenant, conversation, place);
        Entry { row, reason: reason.into(), detail: Some(detail), ..Entry::default() }
    }

    /// Whether the id that names the row here may be only the beginning of its own: no row is found by it.
    pub fn may_be_cut(&self) -> bool {
        /// What a character may have more than one byte.
        const REST: usize = 3;
        self.row.message.as_ref().is_some_and(|message| message.len() + REST >= LONGEST_KEY)
    }

    /// Whether it is of a row of which all was read that names it: as it was, it left if a [`Left`] says so, whichever
    /// was noted first. Of nested statements the inner is noted first.
    pub fn is_of_image(&self) -> bool {
        self.mark.is_none() && self.removal.is_none() && !matches!(&*self.reason, "disabled" | "mapping_broken")
    }

    /// Whether both are of one row.
    pub fn same_row(&self, other: &Entry) -> bool {
        (&self.row, &self.mark, self.removal.is_some()) == (&other.row, &other.mark, other.removal.is_some())
    }
}

/// Adds an entry, but a row that is several events only once.
pub fn add(entries: &mut Vec<Entry>, entry: Entry) {
    if !entries.last().is_some_and(|last| last.same_row(&entry)) {
        entries.push(entry);
    }
}
