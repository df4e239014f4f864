//! What has this transaction inserted that is not yet folded?
//!
//! Records are appended in time, so those of a subtransaction are always the last ones: a rolled back savepoint takes them
//! with it.

use crate::quarantine::Entry;
use crate::spool::{Sorted, Spool};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;
use talkmeter_engine::event::Kind;
use talkmeter_engine::order::OrderKey;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

/// A subtransaction, and where its records begin.
type Mark = (pg_sys::SubTransactionId, u64);

#[derive(Clone)]
struct Queue {
    records: Spool,
    /// For each subtransaction that has records: its id and where they begin.
    marks: Vec<Mark>,
    /// What was taken early, inside a subtransaction: if that is rolled back, so is the folding, but not the rows that were
    /// inserted before it.
    taken: Vec<(pg_sys::SubTransactionId, Rc<Queue>)>,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue { records: Spool::of_transaction(), marks: Vec::new(), taken: Vec::new() }
    }
}

/// The first byte of a record: rows that go to quarantine come before events.
const REFUSED: u8 = 0;
const EVENT: u8 = 1;

/// What every event of a row shares.
pub struct Message<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub excluded: bool,
}

/// Notes an event; it will be folded at commit.
///
/// Tenant, conversation and order key stand one behind the other, the texts ended by a zero byte, which no text holds: so
/// the bytes of records are ordered as their events are folded.
pub fn push(message: &Message, order: &OrderKey, kind: Kind) {
    append(&[
        &[EVENT],
        message.tenant.as_bytes(),
        &[0],
        message.conversation.as_bytes(),
        &[0],
        order.as_bytes(),
        &[kind as u8, message.excluded as u8],
    ]);
}

/// Notes a row that goes to quarantine.
pub fn refuse(entry: &Entry) {
    append(&[&[REFUSED], &serde_json::to_vec(entry).expect("plain data")]);
}

fn append(parts: &[&[u8]]) {
    // SAFETY: reads the transaction state; there is one, a row is being inserted.
    let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
    QUEUE.with_borrow_mut(|queue| {
        if queue.marks.last().is_none_or(|(marked, _)| *marked != subtransaction) {
            queue.marks.push((subtransaction, queue.records.end()));
        }
        queue.records.push(parts);
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

    /// The records in the order in which they are folded, to be read with [`Chunk::next`].
    pub fn sorted(&self) -> Sorted<'_> {
        self.0.records.sorted()
    }
}

/// A record as it is read back.
pub enum Noted<'a> {
    Refused(Entry),
    Event(NotedEvent<'a>),
}

#[derive(Clone, Copy)]
pub struct NotedEvent<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub order: &'a [u8],
    pub kind: Kind,
    pub excluded: bool,
}

/// As many records as are folded at once.
#[derive(Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Chunk {
    const RECORDS: usize = 20_000;
    const BYTES: usize = 4 << 20;

    /// Reads the next records; `None` if there are no more.
    pub fn next(sorted: &mut Sorted) -> Option<Chunk> {
        let mut chunk = Chunk::default();
        while chunk.ends.len() < Self::RECORDS
            && chunk.bytes.len() < Self::BYTES
            && sorted.append_next(&mut chunk.bytes)
        {
            chunk.ends.push(chunk.bytes.len());
        }
        (!chunk.ends.is_empty()).then_some(chunk)
    }

    pub fn records(&self) -> impl Iterator<Item = Noted<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| read(&self.bytes[start..*end]))
    }
}

fn read(record: &[u8]) -> Noted<'_> {
    let (tag, body) = record.split_first().expect("a record has a tag");
    if *tag == REFUSED {
        return Noted::Refused(serde_json::from_slice(body).expect("an entry was written"));
    }
    let (key, flags) = body.split_last_chunk::<2>().expect("an event ends with two flags");
    let mut parts = key.splitn(3, |byte| *byte == 0);
    let mut part = || parts.next().expect("a key of three parts");
    let (tenant, conversation, order) = (part(), part(), part());
    let text = |bytes| std::str::from_utf8(bytes).expect("text was written");
    Noted::Event(NotedEvent {
        tenant: text(tenant),
        conversation: text(conversation),
        order,
        kind: Kind::numbered(flags[0]).expect("a kind was written"),
        excluded: flags[1] != 0,
    })
}
