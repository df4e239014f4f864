//! What is a conversation on its way from one state to the next?

use crate::capture::entry::Key;
use crate::pg::own_table::Place;
use talkmeter_engine::fold::Conversation;
use talkmeter_engine::order;
use talkmeter_engine::part::Part;

/// A conversation on its way from one state to the next.
pub struct Folding<'a> {
    pub tenant: &'a str,
    pub id: &'a str,
    pub state: Conversation,
    /// The order key of the last event folded, or of the instant up to which time has ended its parts; empty before.
    pub last_event: Vec<u8>,
    pub last_mark: i64,
    /// The attached tables that have had events in it.
    pub sources: Vec<i32>,
    /// What there is of it in the tables.
    pub stored: Stored,
    /// Parts that are final or were changed by folding again.
    pub written: Vec<Part>,
    /// Part numbers that were retired.
    pub retired: Vec<i32>,
    pub changed: bool,
}

/// What there is of a conversation in the tables.
#[derive(Clone, Copy, Default)]
pub struct Stored {
    /// Where its row is; nowhere if there is none.
    pub place: Option<Place>,
    /// The number of its current part.
    pub current: Option<i32>,
    /// The highest part number ever used.
    pub highest: i32,
}

impl<'a> Folding<'a> {
    /// An event has its place in the conversation.
    pub fn saw(&mut self, place: &[u8]) {
        let source = order::source_of(place);
        if !order::is_mark(place) && !self.sources.contains(&source) {
            self.sources.push(source);
            self.changed = true;
        }
    }

    /// A conversation of which nothing is folded yet.
    pub fn new((tenant, id): Key<'a>) -> Folding<'a> {
        Folding {
            tenant,
            id,
            state: Conversation::default(),
            last_event: Vec::new(),
            last_mark: 0,
            sources: Vec::new(),
            stored: Stored::default(),
            written: Vec::new(),
            retired: Vec::new(),
            changed: false,
        }
    }
}
