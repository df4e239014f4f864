//! What has this transaction done to messages that is not yet folded?
//!
//! Records are appended in time, so those of a subtransaction are always the last ones: a rolled back savepoint takes them
//! with it.

use crate::entry::Aside;
use crate::spool::{Sorted, Spool};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use talkmeter_engine::event::Kind;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::OrderKey;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
    /// Counts the records that must be taken in the order of their calls.
    static CALLS: Cell<i64> = const { Cell::new(0) };
}

/// A subtransaction, and where its records begin.
type Mark = (pg_sys::SubTransactionId, u64);

#[derive(Clone)]
struct Queue {
    records: Spool,
    /// Something other than an insert was noted.
    has_changes: bool,
    /// Something that concerns quarantine was noted.
    has_asides: bool,
    /// A row was deleted.
    has_deletes: bool,
    /// For each subtransaction that has records: its id and where they begin.
    marks: Vec<Mark>,
    /// What was taken early, inside a subtransaction: if that is rolled back, so is the folding, but not the rows that were
    /// inserted before it.
    taken: Vec<(pg_sys::SubTransactionId, Rc<Queue>)>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            records: Spool::of_transaction(),
            has_changes: false,
            has_asides: false,
            has_deletes: false,
            marks: Vec::new(),
            taken: Vec::new(),
        }
    }
}

/// The first byte of a record: what concerns quarantine comes first, in the order of its calls.
const ASIDE: u8 = 0;
const TRUNCATED: u8 = 1;
const EVENT: u8 = 2;

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
    /// It is a mark that has its number, or a row, to be looked at again.
    Touch,
}

impl Operation {
    const ALL: [Operation; 5] =
        [Operation::Add, Operation::Remove, Operation::Delete, Operation::Mark, Operation::Touch];
}

/// What every event of a row shares.
pub struct Message<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub excluded: bool,
}

/// Notes what happened to an event; it will be folded at commit.
///
/// Tenant, conversation and order key stand one behind the other, the texts ended by a zero byte, which no text holds: so
/// the bytes of records are ordered as their events are folded.
pub fn push(message: &Message, place: &[u8], kind: Kind, operation: Operation) {
    append(
        &[
            &[EVENT],
            message.tenant.as_bytes(),
            &[0],
            message.conversation.as_bytes(),
            &[0],
            place,
            &[operation as u8, kind as u8, message.excluded as u8],
        ],
        operation != Operation::Add,
    );
    if operation == Operation::Delete {
        QUEUE.with_borrow_mut(|queue| queue.has_deletes = true);
    }
}

/// Notes a mark.
pub fn mark(tenant: &str, conversation: &str, kind: Kind, at: Instant) {
    let message = Message { tenant, conversation, excluded: false };
    push(&message, OrderKey::mark(at, kind, next_call()).as_bytes(), kind, Operation::Mark);
}

/// Notes a row that goes to quarantine, or one that may leave it.
pub fn set_aside(aside: &Aside) {
    let call = next_call().to_be_bytes();
    append(&[&[ASIDE], &call, &serde_json::to_vec(aside).expect("plain data")], false);
}

/// Notes that all rows of a source were taken away.
pub fn truncated(source: i32) {
    append(&[&[TRUNCATED], &source.to_be_bytes()], true);
}

fn next_call() -> i64 {
    CALLS.replace(CALLS.get() + 1)
}

fn append(parts: &[&[u8]], is_change: bool) {
    // SAFETY: reads the transaction state; there is one, a row is being inserted.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    QUEUE.with_borrow_mut(|queue| {
        if queue.marks.last().is_none_or(|(marked, _)| *marked != subtransaction) {
            queue.marks.push((subtransaction, queue.records.end()));
        }
        queue.records.push(parts);
        queue.has_changes |= is_change;
        queue.has_asides |= parts[0][0] == ASIDE;
    });
}

/// A subtransaction was rolled back: its records never were, and what it took early is still to be folded.
pub fn forget(subtransaction: pg_sys::SubTransactionId) {
    QUEUE.with_borrow_mut(|queue| {
        while let Some((_, before)) = queue.taken.pop_if(|(taker, _)| *taker == subtransaction) {
            let taken = std::mem::take(&mut queue.taken);
            queue.records.close();
            *queue = Queue { taken, ..Rc::unwrap_or_clone(before) };
        }
        if let Some((_, start)) = queue.marks.pop_if(|(marked, _)| *marked == subtransaction) {
            queue.records.truncate(start);
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
            if taken.marks.last().is_some_and(|(marked, _)| *marked == subtransaction) {
                relabel_marks(&mut Rc::make_mut(taken).marks, subtransaction, parent);
            }
        }
        relabel_marks(&mut queue.marks, subtransaction, parent);
    });
}

fn relabel_marks(marks: &mut Vec<Mark>, subtransaction: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    let Some((_, start)) = marks.pop_if(|(marked, _)| *marked == subtransaction) else { return };
    if marks.last().is_none_or(|(below, _)| *below != parent) {
        marks.push((parent, start));
    }
}

/// The transaction will commit, and everything is folded: files are given back.
pub fn close() {
    let mut queue = QUEUE.take();
    queue.records.close();
    for (_, taken) in queue.taken {
        Rc::unwrap_or_clone(taken).records.close();
    }
}

/// The transaction is over; the server has closed its files, or will.
pub fn clear() {
    QUEUE.take();
}

/// Whether nothing was noted since the queue was last taken.
pub fn is_empty() -> bool {
    QUEUE.with_borrow(|queue| queue.records.is_empty())
}

/// Whether a row may go to quarantine, or leave it, by what was noted since.
pub fn has_asides() -> bool {
    QUEUE.with_borrow(|queue| queue.has_asides)
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

/// Records that are being folded.
pub struct Taken(Rc<Queue>);

impl Taken {
    /// They are folded. Outside of every savepoint nothing can undo that, so their file is given back.
    pub fn done(self) {
        if let Ok(mut queue) = Rc::try_unwrap(self.0) {
            queue.records.close();
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

    /// The records in the order in which they are folded, to be read with [`Chunk::fill`].
    pub fn sorted(&self) -> Sorted<'_> {
        self.0.records.sorted()
    }
}

/// A record as it is read back.
pub enum Noted<'a> {
    Aside(Aside),
    /// All rows of this source were taken away.
    Truncated(i32),
    Event(NotedEvent<'a>),
}

#[derive(Clone, Copy)]
pub struct NotedEvent<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub place: &'a [u8],
    pub operation: Operation,
    pub kind: Kind,
    pub excluded: bool,
}

/// As many records as are folded at once.
#[derive(Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// There are no more records.
    last: bool,
}

impl Chunk {
    const RECORDS: usize = 20_000;
    const BYTES: usize = 4 << 20;

    /// Reads on until the chunk is full, and says whether it holds any record.
    pub fn fill(&mut self, sorted: &mut Sorted) -> bool {
        while self.ends.len() < Self::RECORDS && self.bytes.len() < Self::BYTES && self.read_one(sorted) {}
        !self.ends.is_empty()
    }

    /// Reads on until the conversation of the last record is complete, however long it is.
    pub fn complete(&mut self, sorted: &mut Sorted) {
        let Some(newest) = self.ends.len().checked_sub(1) else { return };
        let conversation = self.conversation(newest).to_vec();
        while self.conversation(self.ends.len() - 1) == conversation && self.read_one(sorted) {}
    }

    fn read_one(&mut self, sorted: &mut Sorted) -> bool {
        self.last = self.last || !sorted.append_next(&mut self.bytes);
        if !self.last {
            self.ends.push(self.bytes.len());
        }
        !self.last
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// How many records there are without those of a conversation that may go on after them.
    pub fn whole(&self) -> usize {
        let Some(newest) = self.ends.len().checked_sub(1).filter(|_| !self.last) else { return self.ends.len() };
        let conversation = self.conversation(newest);
        (0..newest).rev().find(|index| self.conversation(*index) != conversation).map_or(0, |index| index + 1)
    }

    /// The bytes that name the conversation of a record, or the whole record if it has none.
    fn conversation(&self, index: usize) -> &[u8] {
        let record = self.record(index);
        let mut zeros = record.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(place, _)| place);
        match (record[0], zeros.nth(1)) {
            (EVENT, Some(end)) => &record[..end],
            _ => record,
        }
    }

    fn record(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[index]]
    }

    pub fn records(&self, count: usize) -> impl Iterator<Item = Noted<'_>> {
        (0..count).map(|index| read(self.record(index)))
    }

    /// Forgets the first records.
    pub fn forget(&mut self, count: usize) {
        let Some(end) = count.checked_sub(1).map(|last| self.ends[last]) else { return };
        self.bytes.drain(..end);
        self.ends.drain(..count);
        self.ends.iter_mut().for_each(|other| *other -= end);
    }
}

fn read(record: &[u8]) -> Noted<'_> {
    let (tag, body) = record.split_first().expect("a record has a tag");
    match *tag {
        ASIDE => Noted::Aside(serde_json::from_slice(&body[size_of::<i64>()..]).expect("an aside was written")),
        TRUNCATED => Noted::Truncated(i32::from_be_bytes(body.try_into().expect("a source was written"))),
        _ => Noted::Event(read_event(body)),
    }
}

fn read_event(body: &[u8]) -> NotedEvent<'_> {
    let (key, flags) = body.split_last_chunk::<3>().expect("an event ends with three flags");
    let mut parts = key.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().expect("a key of three parts");
    let (tenant, conversation, place) = (part(), part(), part());
    let text = |bytes| std::str::from_utf8(bytes).expect("text was written");
    NotedEvent {
        tenant: text(tenant),
        conversation: text(conversation),
        place,
        operation: Operation::ALL[usize::from(flags[0])],
        kind: Kind::numbered(flags[1]).expect("a kind was written"),
        excluded: flags[2] != 0,
    }
}
