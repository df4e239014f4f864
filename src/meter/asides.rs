//! What does a commit put into quarantine, and take out of it (rule 3.7)?
//!
//! Statements may be nested, and the inner one is noted first, so the order of what was noted says nothing of a row
//! that was read: what it was, and what it is no more, are counted against each other.

use crate::capture::entry::{self, Aside, Entry, EventName, Left, RowName};
use crate::capture::quarantine::{self, Leaving, WasHeld};
use crate::capture::queue::Taken;
use crate::pg::sql::connected;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};

/// What was written.
#[derive(Default)]
pub struct Written {
    /// Events that were in quarantine before their rows were changed, by name and time: they were none.
    pub held_before: HashSet<(EventName, Instant)>,
    /// Events that could not be metered as they had become, and whose rows were then deleted.
    pub deleted: HashSet<EventName>,
    /// How many entries were put there.
    pub refused: usize,
}

impl Written {
    /// Whether the row of an event was in quarantine before this commit changed it.
    pub fn was_held(&self, place: &[u8]) -> bool {
        if self.held_before.is_empty() {
            return false;
        }
        let place: OrderKey = order::key(place);
        entry::event_at(&place).is_some_and(|event| self.held_before.contains(&(event, place.at())))
    }
}

/// Rows, or entries, handled together.
const TOGETHER: usize = 10_000;

/// Takes out of quarantine what is out of date, then writes what cannot be metered.
pub fn write(taken: &Taken, leaving: Leaving) -> Written {
    let mut balance = Balance::default();
    let mut written = Written::default();
    if taken.takes_out() {
        balance = Balance::of(taken);
        balance.take_out(taken, leaving, &mut written);
    }
    balance.put_in(taken, &mut written);
    written
}

/// A row as it was at some moment, and why it could not be metered.
type Image = (RowName, Cow<'static, str>);

/// How often a row came to be so, less how often it ceased to.
#[derive(Clone, Copy, Default)]
struct Count {
    net: i64,
    /// Entries that are still to be taken out, or written.
    due: u64,
}

/// What came less what left.
#[derive(Default)]
struct Balance {
    /// Of rows as they were and are no more, if they could not be metered.
    images: HashMap<Image, Count>,
    /// Of rows of which not all was read, or whose entry is a mark: when they left last.
    left: HashMap<EventName, usize>,
    /// When the tables of sources were emptied last.
    emptied: HashMap<i32, usize>,
}

impl Balance {
    fn of(taken: &Taken) -> Balance {
        let mut balance = Balance::default();
        taken.for_each_aside(|now, aside| balance.note(now, aside));
        taken.for_each_aside(|now, aside| {
            if let Aside::Refused(entry) = aside
                && !balance.is_void(now, &entry)
                && let Some(images) = balance.images.get_mut(&image(&entry))
            {
                images.net += 1;
            }
        });
        balance.images.values_mut().for_each(|images| images.due = images.net.unsigned_abs());
        balance
    }

    fn note(&mut self, now: usize, aside: Aside) {
        match aside {
            Aside::Left(Left { row, refused: Some(reason), .. }) => {
                self.images.entry((row, reason)).or_default().net -= 1;
            }
            Aside::Left(Left { row, refused: None, .. }) => {
                if let Some(left) = row.event().and_then(|event| self.left.get_mut(&event)) {
                    *left = now;
                }
            }
            Aside::Refused(entry) if !entry.is_of_image() => {
                self.left.extend(entry.row.event().map(|event| (event, now)));
            }
            Aside::Refused(_) => {}
            Aside::Emptied(source) => {
                self.images.retain(|(row, _), _| row.source != source);
                self.emptied.insert(source, now);
            }
        }
    }

    /// Whether the row of an entry has left since then.
    fn is_void(&self, then: usize, entry: &Entry) -> bool {
        match () {
            _ if entry.removal.is_some() => false,
            _ if entry.mark.is_none() && self.was_emptied_after(then, &entry.row) => true,
            _ if entry.is_of_image() => false,
            _ => entry.row.event().and_then(|event| self.left.get(&event)).is_some_and(|left| *left > then),
        }
    }

    fn was_emptied_after(&self, then: usize, row: &RowName) -> bool {
        self.emptied.get(&row.source).is_some_and(|emptied| *emptied > then)
    }

    /// Takes out the entries of rows that are no more what they were.
    fn take_out(&mut self, taken: &Taken, leaving: Leaving, written: &mut Written) {
        let (mut rows, mut deleted) = (Vec::new(), Vec::new());
        taken.for_each_aside(|now, aside| {
            let Aside::Left(Left { row, refused, is_deleted }) = aside else { return };
            if is_deleted && row.message.is_some() {
                deleted.push(row.clone());
                if deleted.len() == TOGETHER {
                    quarantine::leave_removals(&deleted, leaving);
                    deleted.clear();
                }
            }
            let was_refused = refused.is_some();
            if was_refused && is_deleted {
                written.deleted.extend(row.event());
            }
            let image = refused.filter(|_| !self.was_emptied_after(now, &row)).map(|reason| (row.clone(), reason));
            match image.and_then(|image| self.images.get_mut(&image)) {
                Some(Count { net: ..0, due: due @ 1.. }) => {
                    *due -= 1;
                    rows.push(row);
                }
                // It was refused by this commit itself.
                Some(_) => {}
                None => rows.push(row),
            }
            if rows.len() == TOGETHER {
                self.leave(&mut rows, leaving, written);
            }
        });
        self.leave(&mut rows, leaving, written);
        quarantine::leave_removals(&deleted, leaving);
        for source in self.emptied.keys() {
            quarantine::empty(*source, leaving);
        }
    }

    fn leave(&mut self, rows: &mut Vec<RowName>, leaving: Leaving, written: &mut Written) {
        for WasHeld { row, held, reason } in quarantine::leave(rows, leaving) {
            match self.images.get_mut(&(held, reason.into())) {
                // It is again what it was: its entry went by the name that it had meanwhile.
                Some(Count { net: 0, due }) => *due = 1,
                _ => written.held_before.extend(row.event().zip(row.at)),
            }
        }
        rows.clear();
    }

    /// Writes the entries of what cannot be metered as it is.
    fn put_in(&mut self, taken: &Taken, written: &mut Written) {
        let mut entries = Vec::new();
        taken.for_each_aside(|now, aside| {
            let Aside::Refused(entry) = aside else { return };
            // What was held in quarantine was no event.
            let was_no_event = entry.removal.as_ref().is_some_and(|place| written.was_held(place));
            if was_no_event || self.is_void(now, &entry) || !self.stays(&entry) {
                return;
            }
            written.refused += 1;
            entries.push(entry);
            if entries.len() == TOGETHER {
                connected(|connection| quarantine::write_all(connection, &mut entries));
            }
        });
        if !entries.is_empty() {
            connected(|connection| quarantine::write_all(connection, &mut entries));
        }
    }

    /// Whether an entry is to be written; of rows that are the same, as many as are left.
    fn stays(&mut self, entry: &Entry) -> bool {
        if entry.mark.is_some() || entry.removal.is_some() {
            return true;
        }
        if !entry.is_of_image() {
            // Another that names the same row says no more.
            if let Some(left) = entry.row.event().and_then(|event| self.left.get_mut(&event)) {
                *left = usize::MAX;
            }
            return true;
        }
        match self.images.get_mut(&image(entry)) {
            Some(Count { net: 0.., due: due @ 1.. }) => {
                *due -= 1;
                true
            }
            Some(_) => false,
            None => true,
        }
    }
}

fn image(entry: &Entry) -> Image {
    (entry.row.clone(), entry.reason.clone())
}
