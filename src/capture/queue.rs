//! What has this transaction done to messages that is not yet folded?
//!
//! Records are appended in time, so those of a subtransaction are always the last ones: a rolled back savepoint takes
//! them with it.

use crate::capture::entry::{self, Aside, Key};
use crate::capture::records;
use crate::pg::groups::{Groups, Ordered};
use crate::pg::memory::room;
use crate::pg::spool::Spool;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use talkmeter_engine::event::{Kind, Name, Tag};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::OrderKey;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
    /// Counts marks, which are numbered in the order of their calls.
    static CALLS: Cell<i64> = const { Cell::new(0) };
}

/// Where the records of a subtransaction begin.
#[derive(Clone, Copy)]
struct Start {
    subtransaction: pg_sys::SubTransactionId,
    asides: u64,
    truncated: usize,
    events: u64,
}

#[derive(Clone)]
struct Queue {
    /// What concerns quarantine, in the order of its calls.
    asides: Spool,
    /// Sources all of whose rows were taken away.
    truncated: Vec<i32>,
    /// By their conversations.
    events: Groups,
    /// Something other than an insert was noted.
    has_changes: bool,
    /// A row was deleted.
    has_deletes: bool,
    /// An entry of quarantine may be out of date.
    takes_out: bool,
    /// Of each subtransaction that has records, the innermost last.
    starts: Vec<Start>,
    /// What was taken early, inside a subtransaction: if that is rolled back, so is the folding, but not the rows
    /// that were inserted before it.
    taken: Vec<(pg_sys::SubTransactionId, Rc<Queue>)>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            asides: Spool::of_transaction(),
            truncated: Vec::new(),
            events: Groups::of_transaction(),
            has_changes: false,
            has_deletes: false,
            takes_out: false,
            starts: Vec::new(),
            taken: Vec::new(),
        }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.asides.is_empty() && self.truncated.is_empty() && self.events.is_empty()
    }

    /// Records that follow belong to the current subtransaction.
    fn begin_record(&mut self) {
        // SAFETY: reads the transaction state; there is one, a row is being changed.
        let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
        if self.starts.last().is_none_or(|start| start.subtransaction != subtransaction) {
            let (asides, events) = (self.asides.end(), self.events.count());
            self.starts.push(Start { subtransaction, asides, truncated: self.truncated.len(), events });
        }
    }

    fn truncate(&mut self, start: Start) {
        self.asides.truncate(start.asides);
        self.truncated.truncate(start.truncated);
        self.events.truncate(start.events);
    }

    /// Gives temporary files back.
    fn close(&mut self) {
        self.asides.close();
        self.events.close();
    }

    fn is_of(&self, subtransaction: pg_sys::SubTransactionId) -> bool {
        self.starts.last().is_some_and(|start| start.subtransaction == subtransaction)
    }

    /// The records of a subtransaction become its parent's.
    fn relabel(&mut self, subtransaction: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
        let Some(start) = self.starts.pop_if(|start| start.subtransaction == subtransaction) else { return };
        if !self.is_of(parent) {
            self.starts.push(Start { subtransaction: parent, ..start });
        }
    }
}

/// What happened to an event. The order of these is that of the operations on one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Its row was inserted, or changed into this.
    Add,
    /// Its row was changed into something else.
    Remove,
    /// Its row was deleted.
    Delete,
    /// It is a mark, which has no number yet: that of its key is the order of the calls.
    Mark,
    /// It is such a mark, and made of the moment: an ending one comes after the messages of its transaction.
    Moment,
    /// It is a mark that has its number, or a row, to be looked at again.
    Touch,
    /// Its row is there, and may never have been counted.
    Backfill,
}

impl Operation {
    const ALL: [Operation; 7] = [
        Operation::Add,
        Operation::Remove,
        Operation::Delete,
        Operation::Mark,
        Operation::Moment,
        Operation::Touch,
        Operation::Backfill,
    ];

    /// Whether it is a mark that has no number yet.
    pub fn is_mark(self) -> bool {
        matches!(self, Operation::Mark | Operation::Moment)
    }
}

/// What every event of a row shares.
pub struct Message<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub excluded: bool,
}

/// Notes what happened to an event; it will be folded at commit.
///
/// Keys are ordered by their bytes as conversations are folded. Records begin with the order key and the operation, and
/// are ordered as events are.
pub fn push(message: &Message, place: &[u8], name: &Name, operation: Operation) {
    QUEUE.with_borrow_mut(|queue| {
        queue.begin_record();
        let key = (message.tenant, message.conversation);
        let flags = [operation as u8, name.kind as u8, message.excluded as u8];
        records::push(&mut queue.events, key, place, &flags, name.tag.as_ref());
        queue.has_changes |= !matches!(operation, Operation::Add | Operation::Backfill);
        queue.has_deletes |= operation == Operation::Delete;
    });
}

/// Notes a mark at an instant that somebody named: it stays there.
pub fn mark(tenant: &str, conversation: &str, name: &Name, at: Instant) {
    push_mark(tenant, conversation, name, at, Operation::Mark);
}

/// Notes a mark that is made together with what its transaction writes (rule 2.3.7).
pub fn mark_of_moment(tenant: &str, conversation: &str, name: &Name, at: Instant) {
    push_mark(tenant, conversation, name, at, Operation::Moment);
}

fn push_mark(tenant: &str, conversation: &str, name: &Name, at: Instant, operation: Operation) {
    let message = Message { tenant, conversation, excluded: false };
    let call = CALLS.replace(CALLS.get() + 1);
    push(&message, OrderKey::mark(at, name.kind, call).as_bytes(), name, operation);
}

/// Notes a row that goes to quarantine, or one that may leave it.
pub fn set_aside(aside: &Aside) {
    let record = serde_json::to_vec(aside).expect("plain data");
    QUEUE.with_borrow_mut(|queue| {
        queue.begin_record();
        queue.asides.push(&[&record]);
        queue.takes_out |= !matches!(aside, Aside::Refused(_));
    });
}

/// Notes that all rows of a source were taken away.
pub fn truncated(source: i32) {
    QUEUE.with_borrow_mut(|queue| {
        queue.begin_record();
        queue.truncated.push(source);
        queue.has_changes = true;
    });
}

/// A subtransaction was rolled back: its records never were, and what it took early is still to be folded.
pub fn forget(subtransaction: pg_sys::SubTransactionId) {
    QUEUE.with_borrow_mut(|queue| {
        while let Some((_, before)) = queue.taken.pop_if(|(taker, _)| *taker == subtransaction) {
            let taken = std::mem::take(&mut queue.taken);
            queue.close();
            *queue = Queue { taken, ..Rc::unwrap_or_clone(before) };
        }
        if let Some(start) = queue.starts.pop_if(|start| start.subtransaction == subtransaction) {
            queue.truncate(start);
        }
    });
}

/// A subtransaction was released: its records now are its parent's.
pub fn relabel(subtransaction: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    QUEUE.with_borrow_mut(|queue| {
        for (taker, taken) in &mut queue.taken {
            if *taker == subtransaction {
                *taker = parent;
            }
            // Not for every release: while the records are being folded, this copies them.
            if taken.is_of(subtransaction) {
                Rc::make_mut(taken).relabel(subtransaction, parent);
            }
        }
        queue.relabel(subtransaction, parent);
    });
}

/// The transaction will commit, and everything is folded: files are given back.
pub fn close() {
    let mut queue = QUEUE.take();
    queue.close();
    for (_, taken) in queue.taken {
        Rc::unwrap_or_clone(taken).close();
    }
}

/// The transaction is over; the server has closed its files, or will.
pub fn clear() {
    QUEUE.take();
}

/// Whether nothing was noted since the queue was last taken.
pub fn is_empty() -> bool {
    QUEUE.with_borrow(Queue::is_empty)
}

/// Whether a row may go to quarantine, or leave it, by what was noted since.
pub fn has_asides() -> bool {
    QUEUE.with_borrow(|queue| !queue.asides.is_empty())
}

/// Takes all that was noted, until the transaction ends or, inside a savepoint, that is rolled back.
pub fn take() -> Taken {
    // SAFETY: both read the transaction state; there is one.
    let (subtransaction, level) =
        unsafe { (pg_sys::GetCurrentSubTransactionId(), pg_sys::GetCurrentTransactionNestLevel()) };
    let mut queue = QUEUE.take();
    let mut taken = std::mem::take(&mut queue.taken);
    let queue = Rc::new(queue);
    if level > 1 {
        taken.push((subtransaction, Rc::clone(&queue)));
    }
    QUEUE.with_borrow_mut(|emptied| emptied.taken = taken);
    Taken(queue)
}

/// Records that are being folded, each kind by itself.
pub struct Taken(Rc<Queue>);

impl Taken {
    /// They are folded. Outside of every savepoint nothing can undo that, so their files are given back.
    pub fn done(self) {
        if let Ok(mut queue) = Rc::try_unwrap(self.0) {
            queue.close();
        }
    }

    /// Whether anything but inserts is among the records.
    pub fn has_changes(&self) -> bool {
        self.0.has_changes
    }

    /// Whether any row was deleted.
    pub fn has_deletes(&self) -> bool {
        self.0.has_deletes
    }

    /// Whether anything that was noted may be out of date in quarantine.
    pub fn takes_out(&self) -> bool {
        self.0.takes_out
    }

    /// Gives what concerns quarantine to `each`, numbered in the order of the calls.
    pub fn for_each_aside(&self, mut each: impl FnMut(usize, Aside)) {
        let mut index = 0..;
        self.0.asides.for_each(|record| {
            let aside = serde_json::from_slice(record).expect("an aside was written");
            each(index.next().unwrap_or(usize::MAX), aside);
        });
    }

    /// Gives each event to `each`, in the order in which they were noted: unlike [`Taken::events`], that takes no room.
    pub fn for_each_event(&self, mut each: impl FnMut(NotedEvent)) {
        self.0.events.for_each(|key, record| each(read_event(entry::key_of_bytes(key), record)));
    }

    /// Sources all of whose rows were taken away.
    pub fn truncated(&self) -> HashSet<i32> {
        self.0.truncated.iter().copied().collect()
    }

    /// The events in the order in which they are folded: by conversation in key order, then by place.
    pub fn events(&self) -> Events<'_> {
        Events { ordered: self.0.events.ordered(), chunk: Chunk::default() }
    }
}

/// What was noted of an event.
#[derive(Clone, Copy)]
pub struct NotedEvent<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub place: &'a [u8],
    pub operation: Operation,
    pub kind: Kind,
    pub tag: Option<&'a str>,
    pub excluded: bool,
}

impl NotedEvent<'_> {
    pub fn name(&self) -> Name {
        Name { kind: self.kind, tag: self.tag.map(Tag::from) }
    }
}

/// Events in their order, read back as many at a time as are folded at once.
pub struct Events<'a> {
    ordered: Ordered<'a>,
    chunk: Chunk,
}

impl Events<'_> {
    /// Reads on until the chunk is full, and returns it if it holds any event.
    pub fn fill(&mut self) -> Option<&Chunk> {
        while !self.chunk.is_full() && self.chunk.read_one(&mut self.ordered) {}
        (self.chunk.len() > 0).then_some(&self.chunk)
    }

    /// What was read last.
    pub fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// Reads on until the conversation of the last event is complete, however long it is.
    pub fn complete(&mut self) -> &Chunk {
        let conversations = self.chunk.conversations.len();
        while self.chunk.conversations.len() == conversations && self.chunk.read_one(&mut self.ordered) {}
        &self.chunk
    }

    /// Forgets the first events of the chunk.
    pub fn forget(&mut self, count: usize) {
        self.chunk.forget(count);
    }

    /// Gives every event to `each`, as long as that says to go on; false if it said to stop.
    pub fn all(mut self, mut each: impl FnMut(NotedEvent) -> bool) -> bool {
        while let Some(chunk) = self.fill() {
            if !chunk.events(chunk.len()).all(&mut each) {
                return false;
            }
            let read = chunk.len();
            self.forget(read);
        }
        true
    }
}

/// As many events as are folded at once.
#[derive(Default)]
pub struct Chunk {
    conversations: Vec<OfConversation>,
    bytes: Vec<u8>,
    /// Where the record of each event ends.
    ends: Vec<usize>,
    /// There are no more events.
    last: bool,
}

/// The events of a conversation in a chunk: those from the first one on, up to the first one of the next.
struct OfConversation {
    key: Vec<u8>,
    first: usize,
}

impl Chunk {
    const EVENTS: usize = 20_000;
    const BYTES: usize = 4 << 20;

    fn is_full(&self) -> bool {
        self.ends.len() >= Self::EVENTS || self.bytes.len() >= Self::BYTES
    }

    fn read_one(&mut self, ordered: &mut Ordered) -> bool {
        let Some(begins) = ordered.append_next(&mut self.bytes) else {
            self.last = true;
            return false;
        };
        if begins || self.conversations.is_empty() {
            let (key, first) = (ordered.key().to_vec(), self.len());
            self.conversations.push(OfConversation { key, first });
        }
        room(&mut self.ends, 1);
        self.ends.push(self.bytes.len());
        true
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many events there are without those of a conversation that may go on after them.
    pub fn whole(&self) -> usize {
        self.conversations.last().filter(|_| !self.last).map_or(self.len(), |last| last.first)
    }

    /// The first events.
    pub fn events(&self, count: usize) -> impl Iterator<Item = NotedEvent<'_>> {
        let ends = self.conversations.iter().skip(1).map(|next| next.first).chain([self.len()]);
        self.conversations.iter().zip(ends).flat_map(move |(own, end)| {
            let key = entry::key_of_bytes(&own.key);
            let record = |index: usize| &self.bytes[self.begin(index)..self.ends[index]];
            (own.first..end.min(count)).map(move |index| read_event(key, record(index)))
        })
    }

    fn begin(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn forget(&mut self, count: usize) {
        let begin = self.begin(count);
        self.bytes.drain(..begin);
        self.ends.drain(..count);
        self.ends.iter_mut().for_each(|other| *other -= begin);
        let gone = self.conversations.partition_point(|own| own.first < count);
        let goes_on = !self.ends.is_empty() && self.conversations.get(gone).is_none_or(|next| next.first > count);
        self.conversations.drain(..gone - usize::from(goes_on));
        self.conversations.iter_mut().for_each(|own| own.first = own.first.saturating_sub(count));
    }
}

fn read_event<'a>((tenant, conversation): Key<'a>, record: &'a [u8]) -> NotedEvent<'a> {
    let (place, [operation, kind, excluded], tag) = records::read(record);
    NotedEvent {
        tenant,
        conversation,
        place,
        operation: Operation::ALL[usize::from(*operation)],
        kind: Kind::numbered(*kind).expect("a kind was written"),
        tag,
        excluded: *excluded != 0,
    }
}
