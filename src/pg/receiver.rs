//! How are rows looked at as the executor makes them? Where there are very many, to copy each for the SQL interface takes
//! longer than to read it.

use crate::pg::sql::{Apart, Row};
use pgrx::prelude::*;

/// What the executor gives its rows to: the server's part of it first, as the server demands.
#[repr(C)]
pub struct Receiver<'e> {
    server: pg_sys::DestReceiver,
    each: &'e mut dyn FnMut(&mut Row) -> bool,
    /// Made for the first row.
    cells: Option<Apart>,
}

impl<'e> Receiver<'e> {
    /// Gives `each` the rows, as long as it says to go on.
    pub fn new(each: &'e mut dyn FnMut(&mut Row) -> bool) -> Receiver<'e> {
        let server = pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(begin),
            rShutdown: Some(end),
            rDestroy: Some(end),
            mydest: pg_sys::CommandDest::DestNone,
        };
        Receiver { server, each, cells: None }
    }

    /// The receiver as the server knows it, for as long as it is not moved.
    pub fn as_server(&mut self) -> *mut pg_sys::DestReceiver {
        (&raw mut *self).cast()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, receiver: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: the server gives back what `as_server` gave it, and a slot with a row, whose values and descriptor are
    // there until the next one.
    unsafe {
        let own = &mut *receiver.cast::<Receiver>();
        let columns = (*slot).tts_tupleDescriptor;
        if i32::from((*slot).tts_nvalid) < (*columns).natts {
            pg_sys::slot_getallattrs(slot);
        }
        let cells = own.cells.get_or_insert_with(|| Apart::of(columns));
        cells.copy((*slot).tts_values, (*slot).tts_isnull);
        (own.each)(&mut Row::taken_apart(cells, columns))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(_receiver: *mut pg_sys::DestReceiver, _operation: i32, _columns: pg_sys::TupleDesc) {}

#[pg_guard]
unsafe extern "C-unwind" fn end(_receiver: *mut pg_sys::DestReceiver) {}
