//! What must be known of a whole commit before any of its events is folded? Which rows it took away, and which of them
//! quarantine held.

use crate::capture::entry::{self, EventName};
use crate::capture::quarantine::Leaving;
use crate::capture::queue::{NotedEvent, Operation, Taken};
use crate::meter::asides::{self, Written};
use std::collections::HashSet;
use talkmeter_engine::order::{self, OrderKey};

/// What one commit did, as far as it concerns more than one of its events.
#[derive(Default)]
pub struct Known {
    /// Something other than inserts was noted.
    has_changes: bool,
    /// Sources all of whose rows were taken away.
    truncated: HashSet<i32>,
    /// Events whose rows were deleted after they were changed.
    deleted: HashSet<EventName>,
    /// What it took out of quarantine and put there.
    quarantined: Written,
}

impl Known {
    /// Reads all that was noted, and writes what quarantine loses and gains.
    pub fn gather(taken: &Taken) -> Known {
        let mut known = Known::of_quarantine(taken, Leaving::Waits);
        (known.has_changes, known.truncated) = (taken.has_changes(), taken.truncated());
        known.deleted = deleted(taken);
        known.deleted.extend(std::mem::take(&mut known.quarantined.deleted));
        known
    }

    /// Writes what quarantine loses and gains, and knows no more than that.
    pub fn of_quarantine(taken: &Taken, leaving: Leaving) -> Known {
        Known { quarantined: asides::write(taken, leaving), ..Known::default() }
    }

    /// Whether anything but inserts was noted.
    pub fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// How many rows and marks this commit puts into quarantine.
    pub fn refused_count(&self) -> usize {
        self.quarantined.refused
    }

    /// A row that is deleted rewrites no bill (rule 3.5.12), unless it comes back in the same commit or was in
    /// quarantine.
    pub fn has_effect(&self, event: &NotedEvent) -> bool {
        event.operation != Operation::Delete || self.was_held(event.place)
    }

    /// Whether all rows of the event's source were taken away.
    pub fn is_truncated(&self, place: &[u8]) -> bool {
        self.truncated.contains(&order::source_of(place))
    }

    /// Whether a row that was changed was then deleted.
    pub fn is_gone(&self, place: &OrderKey) -> bool {
        self.truncated.contains(&place.source())
            || !self.deleted.is_empty() && entry::event_at(place).is_some_and(|event| self.deleted.contains(&event))
    }

    /// Whether the row of an event was in quarantine before this commit changed it.
    pub fn was_held(&self, place: &[u8]) -> bool {
        self.quarantined.was_held(place)
    }
}

/// The events whose rows were deleted after they were changed: what they were before, in whichever conversation, stays
/// as it was metered.
fn deleted(taken: &Taken) -> HashSet<EventName> {
    let mut events = HashSet::new();
    if !taken.has_deletes() {
        return events;
    }
    // An event is added before it is removed, and that before it is deleted. Tenant, conversation, place:
    let (mut of, mut added) = (<(String, String, Vec<u8>)>::default(), 0);
    taken.events().all(|event| {
        if (of.0.as_str(), of.1.as_str(), of.2.as_slice()) != (event.tenant, event.conversation, event.place) {
            of = (event.tenant.to_owned(), event.conversation.to_owned(), event.place.to_vec());
            added = 0;
        }
        match event.operation {
            Operation::Add => added += 1,
            Operation::Remove => added -= 1,
            Operation::Delete if added > 0 => events.extend(entry::event_at(&order::key(event.place))),
            _ => {}
        }
        true
    });
    events
}
