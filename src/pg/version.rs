//! Can this library read the tables that it meets? Those of its own version, and of earlier ones that it knows.
//!
//! A package installs the library for all databases at once, and each database's catalog follows by ALTER EXTENSION
//! UPDATE; a session goes on with the library that it began with. What is not known is neither read nor written.

use crate::pg::error::{Failure, failure};
use crate::pg::system;
use pgrx::prelude::*;
use std::cell::Cell;

/// The version of this library.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Earlier versions of the catalog whose tables it reads and writes as those of its own.
const EARLIER: [&str; 1] = ["0.2.0"];

thread_local! {
    /// Whether the catalog was found to be readable, and nothing has changed since.
    static IS_READABLE: Cell<bool> = const { Cell::new(false) };
    /// Counts what may have changed that.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// The table whose changes tell of another version: the last thing that an upgrade script does is to touch it.
    static ANNOUNCING: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    /// Whether this session was told.
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

/// Asks the server to tell us when the version may be another.
pub fn watch_version() {
    let nothing = pg_sys::Datum::from(0usize);
    // SAFETY: registered once per session, while the library is loaded; the callbacks only forget.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_changed), nothing);
        let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID as i32;
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(on_schema_changed), nothing);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == ANNOUNCING.get() || relation == pg_sys::InvalidOid {
        forget();
    }
}

/// The extension may have been dropped and created anew.
#[pg_guard]
unsafe extern "C-unwind" fn on_schema_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    forget();
}

fn forget() {
    IS_READABLE.set(false);
    CHANGES.set(CHANGES.get() + 1);
}

/// Whether the catalog can be read; says once per session why not.
pub fn is_readable() -> bool {
    if IS_READABLE.get() {
        return true;
    }
    let Some(found) = unknown() else { return true };
    if !WARNED.replace(true) {
        complaint(&found).warn();
    }
    false
}

/// An error, unless the catalog can be read.
pub fn must_be_readable() {
    if !IS_READABLE.get()
        && let Some(found) = unknown()
    {
        complaint(&found).raise();
    }
}

/// The version of the catalog, if this library cannot read it. Inside the scripts of CREATE and ALTER EXTENSION it is
/// on its way, and whoever wrote them knows.
#[cold]
fn unknown() -> Option<String> {
    // SAFETY: reads a variable of this session's.
    if unsafe { pg_sys::creating_extension } {
        return None;
    }
    // Before it is read: what is announced meanwhile must be heard.
    ANNOUNCING.set(system::relation_of_ours(c"source"));
    let before = CHANGES.get();
    // Without the extension there is nothing to be read.
    let unknown = system::version_of_ours().filter(|found| found != OWN && !EARLIER.contains(&found.as_str()));
    IS_READABLE.set(unknown.is_none() && CHANGES.get() == before);
    unknown
}

fn complaint(found: &str) -> Failure {
    let hint = match parts(found) > parts(OWN) {
        true => format!(
            "Begin a new session, as this one goes on with the library that it began with. If that does not help, install \
             talkmeter {found}."
        ),
        false => "Run: ALTER EXTENSION talkmeter UPDATE. Rows that come before that are found by talkmeter.gaps and \
                  metered by talkmeter.backfill."
            .to_owned(),
    };
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "talkmeter's library does not know the tables of this database's version of the extension",
    )
    .detail(format!("The library is of version {OWN}, the extension of version {found}. Nothing is metered."))
    .hint(hint)
}

/// The numbers of a version, in their order.
fn parts(version: &str) -> Vec<u64> {
    version.split(|letter: char| !letter.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}
