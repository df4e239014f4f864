//! What has this transaction inserted that is not yet folded?
//!
//! A log of packed records in memory. A rolled back savepoint takes its records with it: records are appended in time,
//! so those of a subtransaction are always the last ones.

use crate::quarantine::Entry;
use pgrx::prelude::*;
use std::cell::RefCell;
use talkmeter_engine::event::Kind;
use talkmeter_engine::order::OrderKey;

thread_local! {
    static QUEUE: RefCell<Queue> = RefCell::default();
}

#[derive(Clone, Default)]
struct Queue {
    /// Records of events: length of the key, key, kind, excluded. See [`Events`] for the key.
    log: Vec<u8>,
    refused: Vec<Entry>,
    /// For each subtransaction that has records: its id and where they begin.
    marks: Vec<Mark>,
    /// What was taken early, inside a subtransaction: if that is rolled back, so is the folding.
    taken: Vec<(pg_sys::SubTransactionId, Queue)>,
}

#[derive(Clone)]
struct Mark {
    subtransaction: pg_sys::SubTransactionId,
    log: usize,
    refused: usize,
}

impl Queue {
    /// Notes that what follows belongs to the current subtransaction.
    fn mark(&mut self) {
        // SAFETY: reads the transaction state; there is one, a row is being inserted.
        let subtransaction = unsafe { pg_sys::GetCurrentSubTransactionId() };
        if self.marks.last().is_none_or(|mark| mark.subtransaction != subtransaction) {
            self.marks.push(Mark { subtransaction, log: self.log.len(), refused: self.refused.len() });
        }
    }
}

/// The events of a row: what every event of it shares.
pub struct Message<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub excluded: bool,
}

/// Notes an event; it will be folded at commit.
pub fn push(message: &Message, order: &OrderKey, kind: Kind) {
    QUEUE.with_borrow_mut(|queue| {
        queue.mark();
        let order = order.as_bytes();
        let length = message.tenant.len() + message.conversation.len() + order.len() + 2;
        queue.log.extend_from_slice(&(length as u32).to_ne_bytes());
        queue.log.extend_from_slice(message.tenant.as_bytes());
        queue.log.push(0);
        queue.log.extend_from_slice(message.conversation.as_bytes());
        queue.log.push(0);
        queue.log.extend_from_slice(order);
        queue.log.extend_from_slice(&[kind as u8, message.excluded as u8]);
    });
}

/// Notes a row that goes to quarantine.
pub fn refuse(entry: Entry) {
    QUEUE.with_borrow_mut(|queue| {
        queue.mark();
        queue.refused.push(entry);
    });
}

/// A subtransaction was rolled back: its records never were, and what it took early is still to be folded.
pub fn forget(subtransaction: pg_sys::SubTransactionId) {
    QUEUE.with_borrow_mut(|queue| {
        while let Some((_, before)) = queue.taken.pop_if(|(taker, _)| *taker == subtransaction) {
            let taken = std::mem::take(&mut queue.taken);
            *queue = Queue { taken, ..before };
        }
        if let Some(mark) = queue.marks.pop_if(|mark| mark.subtransaction == subtransaction) {
            queue.log.truncate(mark.log);
            queue.refused.truncate(mark.refused);
        }
    });
}

/// A subtransaction was released: its records now are its parent's.
pub fn relabel(subtransaction: pg_sys::SubTransactionId, parent: pg_sys::SubTransactionId) {
    QUEUE.with_borrow_mut(|queue| {
        for (taker, _) in queue.taken.iter_mut().filter(|(taker, _)| *taker == subtransaction) {
            *taker = parent;
        }
        let Some(mut mark) = queue.marks.pop_if(|mark| mark.subtransaction == subtransaction) else { return };
        if queue.marks.last().is_none_or(|below| below.subtransaction != parent) {
            mark.subtransaction = parent;
            queue.marks.push(mark);
        }
    });
}

/// The transaction is over.
pub fn clear() {
    QUEUE.take();
}

/// Whether nothing was noted.
pub fn is_empty() -> bool {
    QUEUE.with_borrow(|queue| queue.log.is_empty() && queue.refused.is_empty())
}

/// Takes all that was noted; `None` if nothing was.
pub fn take() -> Option<(Events, Vec<Entry>)> {
    if is_empty() {
        return None;
    }
    // SAFETY: both read the transaction state; there is one, a row was inserted.
    let (level, subtransaction) =
        unsafe { (pg_sys::GetCurrentTransactionNestLevel(), pg_sys::GetCurrentSubTransactionId()) };
    let mut queue = QUEUE.take();
    let mut taken = std::mem::take(&mut queue.taken);
    // Outside of every savepoint nothing but the transaction's own end can undo the folding.
    if level > 1 {
        taken.push((subtransaction, queue.clone()));
    }
    QUEUE.with_borrow_mut(|emptied| emptied.taken = taken);
    Some((Events::sorted(queue.log), queue.refused))
}

/// Events in the order in which they are folded: by tenant, conversation and order key.
///
/// The three stand one behind the other in a record, the texts ended by a zero byte, which no text holds: so comparing
/// bytes compares all three.
pub struct Events {
    log: Vec<u8>,
    /// Where each record's key begins and ends.
    keys: Vec<(usize, usize)>,
}

/// An event as it is read back.
#[derive(Clone, Copy)]
pub struct Noted<'a> {
    pub tenant: &'a str,
    pub conversation: &'a str,
    pub order: &'a [u8],
    pub kind: Kind,
    pub excluded: bool,
}

impl Events {
    fn sorted(log: Vec<u8>) -> Events {
        let mut keys = Vec::new();
        let mut position = 0;
        while position < log.len() {
            let start = position + 4;
            let length = u32::from_ne_bytes(log[position..start].try_into().expect("four bytes")) as usize;
            keys.push((start, start + length));
            position = start + length + 2;
        }
        keys.sort_unstable_by(|a, b| log[a.0..a.1].cmp(&log[b.0..b.1]));
        Events { log, keys }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn get(&self, index: usize) -> Noted<'_> {
        let (start, end) = self.keys[index];
        let mut parts = self.log[start..end].splitn(3, |byte| *byte == 0);
        let mut part = || parts.next().expect("a key of three parts");
        let (tenant, conversation, order) = (part(), part(), part());
        let text = |bytes| std::str::from_utf8(bytes).expect("text was written");
        Noted {
            tenant: text(tenant),
            conversation: text(conversation),
            order,
            kind: Kind::numbered(self.log[end]).expect("a kind was written"),
            excluded: self.log[end + 1] != 0,
        }
    }
}
