//! Is another session at a work that only one may do at a time?

use crate::pg::own_table;
use pgrx::prelude::*;
use std::ffi::CStr;

/// The turn of a session at a work on the object of that number, of those that a table of ours lists. It outlives
/// transactions; the server ends it with the session, and when a transaction fails.
pub struct Turn(pg_sys::LOCKTAG);

impl Turn {
    /// `None` if it is another session's.
    pub fn take(table: &'static CStr, object: i32) -> Option<Turn> {
        // SAFETY: reads a variable of this session's.
        let database = unsafe { pg_sys::MyDatabaseId };
        let tag = pg_sys::LOCKTAG {
            locktag_field1: database.to_u32(),
            locktag_field2: own_table::oid(table).to_u32(),
            locktag_field3: object as u32,
            locktag_field4: 0,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        // SAFETY: a lock of the server's on any object, for the session; it is not waited for.
        let got = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, true, true) };
        (got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL).then_some(Turn(tag))
    }

    /// The work is done.
    pub fn end(self) {
        // SAFETY: the lock is this session's.
        unsafe { pg_sys::LockRelease(&self.0, pg_sys::ExclusiveLock as i32, true) };
    }
}
