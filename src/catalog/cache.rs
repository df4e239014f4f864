//! When does this session forget what it remembers of sources and policies? When the server says that they changed.

use crate::pg::own_table;
use crate::pg::sql;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

thread_local! {
    /// Tables whose changes concern what is remembered.
    static WATCHED: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
    /// Counts what may have changed; what was remembered at a lower count is forgotten at its next use.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
}

/// What this session remembers until something changes.
#[derive(Default)]
pub struct Remembered<T> {
    as_of: Cell<u64>,
    kept: RefCell<T>,
}

impl<T: Default> Remembered<T> {
    /// What `find` finds in what is remembered, else what `read` reads. `keep` adds that, unless something changed
    /// while it was read.
    pub fn get<R: Clone>(
        &self,
        find: impl FnOnce(&T) -> Option<R>,
        read: impl FnOnce() -> R,
        keep: impl FnOnce(&mut T, R),
    ) -> R {
        let now = CHANGES.get();
        if self.as_of.replace(now) != now {
            self.kept.take();
        }
        if let Some(known) = find(&self.kept.borrow()) {
            return known;
        }
        let found = read();
        if CHANGES.get() == now {
            keep(&mut self.kept.borrow_mut(), found.clone());
        }
        found
    }
}

/// Asks the server to tell us of changes.
pub fn watch_catalog() {
    // SAFETY: registered once per session, while the library is loaded; the callbacks only count.
    unsafe {
        let nothing = pg_sys::Datum::from(0usize);
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_changed), nothing);
        let enums = pg_sys::SysCacheIdentifier::ENUMOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(enums, Some(on_name_changed), nothing);
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(on_name_changed), nothing);
    }
}

/// A label that a mapping names, or the schema of a table, may have another name now, of which the tables say nothing.
#[pg_guard]
unsafe extern "C-unwind" fn on_name_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    forget();
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    let watched = WATCHED.with(|watched| watched.try_borrow().map_or(true, |watched| watched.contains(&relation)));
    if watched || relation == pg_sys::InvalidOid {
        forget();
    }
}

fn forget() {
    sql::composed_are_outdated();
    CHANGES.set(CHANGES.get() + 1);
}

/// How much has changed so far, as far as this session has been told.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// As [`changes`], after it has listened once more.
pub fn changes_by_now() -> u64 {
    // SAFETY: takes what other sessions have sent; the callbacks only count.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    CHANGES.get()
}

/// From now on a change of the relation makes the session forget.
pub fn watch(relation: pg_sys::Oid) {
    WATCHED.with_borrow_mut(|watched| {
        watched.insert(relation);
    });
}

/// The table of ours whose changes stand for those of all that is remembered.
fn announcing() -> pg_sys::Oid {
    own_table::oid(c"source")
}

/// From now on what [`announce_change`] announces makes the session forget.
pub fn watch_announcements() {
    watch(announcing());
}

/// Tells every session, once this transaction commits, that sources or policies have changed.
pub fn announce_change() {
    // SAFETY: sends a message to the other sessions at commit, and to this one now.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(announcing()) };
    forget();
}
