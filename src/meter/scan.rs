//! Which events do all rows of a source give, if its table is read once and as a whole?

use crate::capture::{entry, records};
use crate::catalog::reading::{self, Unreadable};
use crate::catalog::sources::{Layout, Source};
use crate::meter::history::Scanned;
use crate::pg::groups::{Groups, Ordered};
use crate::pg::memory::room;
use talkmeter_engine::event::{Event, Kind, Tag};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Reading, Refusal};
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::period::Period;
use talkmeter_engine::refold::Placed;

/// From this share of the rows on, reading them all once is cheaper than looking the others up by index.
const MUCH: f64 = 0.1;

/// The events of all rows of a source, by their conversations.
pub struct Scan {
    pub source: i32,
    /// Records whose flags are the kind of the event, or [`BROKEN`], and its [`flags`].
    events: Groups,
}

/// Instead of a kind: the row is read by a version of the mapping that cannot be read any more.
const BROKEN: u8 = u8::MAX;

/// Whether an event is excluded, and whether it is of the span.
mod flags {
    pub const EXCLUDED: u8 = 1;
    pub const WITHIN: u8 = 2;
}

impl Scan {
    /// Reads a source, if the span holds much of it.
    pub fn of(source: &Source, span: Period) -> Result<Option<Scan>, Unreadable> {
        let Layout::Whole { mapping, readers, .. } = &source.layout else { return Ok(None) };
        let queries = reading::queries(source)?;
        // Versions that find their rows by other columns each have a statement of their own.
        let [query] = queries.all.as_slice() else { return Ok(None) };
        if reading::expected_share(query, span.start, span.end)? < MUCH {
            return Ok(None);
        }
        let mut scan = Scan { source: source.id, events: Groups::of_transaction() };
        reading::for_each_of_all(query, readers, |values| {
            let (version, readings) = mapping.pick_all(values, Instant::LATEST);
            if queries.gives(0, version) && !readings.row.ignored {
                readings.iter().for_each(|reading| scan.add(source, span, reading));
            }
        })?;
        Ok(Some(scan))
    }

    fn add(&mut self, source: &Source, span: Period, reading: &Reading) {
        let (Some(tenant), Some(conversation)) = (&reading.tenant, &reading.conversation) else { return };
        let Some(at) = reading.at.filter(|at| !source.ignores(*at)) else { return };
        let key = (tenant.as_ref(), conversation.as_ref());
        let excluded = if reading.excluded.is_some() { flags::EXCLUDED } else { 0 };
        let within = if span.holds(at) { flags::WITHIN } else { 0 };
        match reading.refusal {
            None => reading.names().enumerate().for_each(|(index, name)| {
                let place = reading.place(source.id, index);
                let flags = [name.kind as u8, excluded | within];
                records::push(&mut self.events, key, place.as_bytes(), &flags, name.tag.as_ref());
            }),
            Some(Refusal::MappingBroken) => {
                records::push(&mut self.events, key, &OrderKey::floor(at), &[BROKEN, within], None);
            }
            Some(_) => {}
        }
    }

    /// How many conversations there are, or more.
    pub fn most_conversations(&self) -> usize {
        self.events.most_groups()
    }

    /// The conversations in the order of their keys.
    pub fn conversations(&self) -> Conversations<'_> {
        Conversations { source: self.source, ordered: self.events.ordered(), next: None, record: Vec::new() }
    }

    /// Gives the temporary file back.
    pub fn close(mut self) {
        self.events.close();
    }
}

/// A conversation of a scan.
pub struct Found {
    pub key: (String, String),
    /// An event of it is of the span.
    pub is_within: bool,
    pub scanned: Scanned,
}

/// Conversations in the order of their keys.
pub struct Conversations<'s> {
    source: i32,
    ordered: Ordered<'s>,
    /// The conversation whose first record was read already.
    next: Option<Found>,
    record: Vec<u8>,
}

impl Iterator for Conversations<'_> {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            self.record.clear();
            let Some(begins) = self.ordered.append_next(&mut self.record) else { return self.next.take() };
            let whole = if begins { self.next.take() } else { None };
            let source = self.source;
            let key = || {
                let (tenant, conversation) = entry::key_of_bytes(self.ordered.key());
                (tenant.to_owned(), conversation.to_owned())
            };
            let found = self.next.get_or_insert_with(|| {
                let scanned = Scanned { source, ..Scanned::default() };
                Found { key: key(), is_within: false, scanned }
            });
            found.take(&self.record);
            if whole.is_some() {
                return whole;
            }
        }
    }
}

impl Found {
    fn take(&mut self, record: &[u8]) {
        let (place, [kind, flags], tag) = records::read(record);
        self.is_within |= flags & flags::WITHIN != 0;
        let at = order::time_of(place);
        match Kind::numbered(*kind) {
            Some(kind) => {
                let excluded = flags & flags::EXCLUDED != 0;
                let event = Event { at, kind, tag: tag.map(Tag::from), excluded };
                room(&mut self.scanned.events, 1);
                self.scanned.events.push(Placed::new(place.to_vec(), event));
            }
            None => self.scanned.broken = Some(at),
        }
    }
}
