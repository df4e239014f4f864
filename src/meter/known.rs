//! What must be known of a whole commit before any of its events is folded? Which rows it took away, and which of them
//! quarantine held.

use crate::capture::entry::{Aside, Entry, RowName};
use crate::capture::quarantine::{self, Leaving};
use crate::capture::queue::{NotedEvent, Operation, Taken};
use crate::pg::sql::{Connection, connected};
use std::collections::HashSet;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};

/// What one commit did, as far as it concerns more than one of its events.
#[derive(Default)]
pub struct Known {
    /// Something other than inserts was noted.
    has_changes: bool,
    /// Sources all of whose rows were taken away.
    truncated: HashSet<i32>,
    /// Rows that were deleted after they were changed.
    deleted: HashSet<(i32, String)>,
    /// Rows that were in quarantine before they were changed: what they were before was no event.
    held_before: HashSet<(i32, String, Instant)>,
    /// Rows that this commit itself puts there.
    refused_now: HashSet<(i32, String)>,
    /// How many entries this commit puts there.
    refused_count: usize,
}

impl Known {
    /// Reads all that was noted, and writes what quarantine loses and gains.
    pub fn gather(taken: &Taken) -> Known {
        let known = Known::of_quarantine(taken, Leaving::Waits);
        Known { has_changes: taken.has_changes(), truncated: taken.truncated(), deleted: deleted(taken), ..known }
    }

    /// Writes what quarantine loses and gains, and knows no more than that.
    pub fn of_quarantine(taken: &Taken, leaving: Leaving) -> Known {
        let mut known = Known::default();
        taken.for_some_asides(|asides| connected(|connection| known.set_aside(connection, asides, leaving)));
        known
    }

    /// In the order of their calls: a row may have come and gone several times.
    fn set_aside(&mut self, connection: &Connection, asides: Vec<Aside>, leaving: Leaving) {
        let (mut refused, mut left) = (Vec::new(), Vec::new());
        for aside in asides {
            match aside {
                Aside::Refused(entry) => {
                    self.refused_count += 1;
                    self.leave(leaving, &mut left);
                    refused.extend(self.kept(entry));
                }
                Aside::Left(row) => {
                    quarantine::write_all(connection, &mut refused);
                    left.push(row);
                }
                Aside::Emptied(source) => {
                    quarantine::write_all(connection, &mut refused);
                    self.leave(leaving, &mut left);
                    quarantine::empty(source, leaving);
                }
            }
        }
        self.leave(leaving, &mut left);
        quarantine::write_all(connection, &mut refused);
    }

    /// The entry, unless it removes an event that was held in quarantine: that was no event.
    fn kept(&mut self, entry: Entry) -> Option<Entry> {
        match &entry.removal {
            Some(place) if self.was_held(place) => return None,
            Some(_) => {}
            None => self.refused_now.extend(entry.row.message.clone().map(|message| (entry.row.source, message))),
        }
        Some(entry)
    }

    fn leave(&mut self, leaving: Leaving, rows: &mut Vec<RowName>) {
        let rows = std::mem::take(rows);
        if rows.is_empty() {
            return;
        }
        for row in quarantine::leave(&rows, leaving) {
            let Some((message, at)) = row.message.zip(row.at) else { continue };
            if !self.refused_now.contains(&(row.source, message.clone())) {
                self.held_before.insert((row.source, message, at));
            }
        }
    }

    /// Whether anything but inserts was noted.
    pub fn has_changes(&self) -> bool {
        self.has_changes
    }

    /// How many rows and marks this commit puts into quarantine.
    pub fn refused_count(&self) -> usize {
        self.refused_count
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
        let name = || place.message().map(|message| (place.source(), message.text()));
        self.truncated.contains(&place.source())
            || !self.deleted.is_empty() && name().is_some_and(|name| self.deleted.contains(&name))
    }

    /// Whether the row of an event was in quarantine before this commit changed it.
    pub fn was_held(&self, place: &[u8]) -> bool {
        if self.held_before.is_empty() {
            return false;
        }
        let place = order::key(place);
        place.message().is_some_and(|message| self.held_before.contains(&(place.source(), message.text(), place.at())))
    }
}

/// Tenant, conversation and place.
type EventName = (String, String, Vec<u8>);

/// The rows that were deleted after they were changed: what they were before, in whichever conversation, stays as it
/// was metered.
fn deleted(taken: &Taken) -> HashSet<(i32, String)> {
    let mut rows = HashSet::new();
    if !taken.has_deletes() {
        return rows;
    }
    // An event is added before it is removed, and that before it is deleted.
    let (mut of, mut added) = (EventName::default(), 0);
    taken.events().all(|event| {
        if (of.0.as_str(), of.1.as_str(), of.2.as_slice()) != (event.tenant, event.conversation, event.place) {
            of = (event.tenant.to_owned(), event.conversation.to_owned(), event.place.to_vec());
            added = 0;
        }
        match event.operation {
            Operation::Add => added += 1,
            Operation::Remove => added -= 1,
            Operation::Delete if added > 0 => {
                let place = order::key(event.place);
                rows.extend(place.message().map(|message| (place.source(), message.text())));
            }
            _ => {}
        }
        true
    });
    rows
}
