//! What is a conversation on its way from one state to the next?

use crate::capture::entry::Key;
use talkmeter_engine::fold::Conversation;
use talkmeter_engine::part::Part;

/// A conversation on its way from one state to the next.
pub struct Folding<'a> {
    pub tenant: &'a str,
    pub id: &'a str,
    pub state: Conversation,
    /// The order key of the last event folded, or of the instant up to which time has ended its parts; empty before.
    pub last_event: Vec<u8>,
    pub last_mark: i64,
    /// Parts to be written besides the open one.
    pub written: Vec<Part>,
    /// Part numbers that were retired.
    pub retired: Vec<i32>,
    pub changed: bool,
}

impl<'a> Folding<'a> {
    /// A conversation of which nothing is folded yet.
    pub fn new((tenant, id): Key<'a>) -> Folding<'a> {
        Folding {
            tenant,
            id,
            state: Conversation::default(),
            last_event: Vec::new(),
            last_mark: 0,
            written: Vec::new(),
            retired: Vec::new(),
            changed: false,
        }
    }
}
