//! When is a transaction metered? At its commit, in a subtransaction of its own; and what if that fails?

use crate::capture::queue::{self, Taken};
use crate::catalog::Catalog;
use crate::catalog::reading;
use crate::meter::work::{self, Manner, is_strict};
use crate::pg::error::failure;
use crate::pg::locks;
use crate::pg::rights::{self, as_owner, writing};
use crate::pg::settings;
use crate::pg::subtransaction::{attempt, code, message, sqlstate};
use crate::pg::version;
use pgrx::prelude::*;
use std::ffi::c_void;
use talkmeter_engine::order;

/// Asks the server to call us when transactions and subtransactions end.
pub fn watch_transactions() {
    // SAFETY: registered once per session, while the library is loaded; the callbacks live as long as the library.
    unsafe {
        pg_sys::RegisterXactCallback(Some(on_transaction), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(on_subtransaction), std::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_PRE_COMMIT | pg_sys::XactEvent::XACT_EVENT_PRE_PREPARE => work_at_commit(),
        pg_sys::XactEvent::XACT_EVENT_COMMIT
        | pg_sys::XactEvent::XACT_EVENT_PREPARE
        | pg_sys::XactEvent::XACT_EVENT_ABORT => queue::clear(),
        _ => {}
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_subtransaction(
    event: pg_sys::SubXactEvent::Type,
    subtransaction: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _arg: *mut c_void,
) {
    match event {
        pg_sys::SubXactEvent::SUBXACT_EVENT_COMMIT_SUB => queue::relabel(subtransaction, parent),
        pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB => queue::forget(subtransaction),
        _ => {}
    }
}

fn work_at_commit() {
    if !queue::is_empty() {
        // SAFETY: a commit has no active snapshot, and statements need one to be planned; pushed and popped in pairs.
        // On an error the transaction's abort drops it.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        reading::in_commit(work);
        // SAFETY: pops the snapshot pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
    }
    queue::close();
}

/// Folds all that was noted, draws the charges, and writes quarantine. An error of our own is not the application's:
/// its rows go to quarantine instead, unless one comes from a strict source (rule 4.4.6).
pub fn work() {
    // Dropped in the transaction that inserted the rows: there is nothing left to meter them for. Or of another version
    // since.
    if !queue::is_empty() && rights::is_installed() && version::is_readable() {
        let taken = queue::take();
        reading::begin();
        writing(|| meter_or_set_aside(&taken));
        taken.done();
    }
}

/// As [`work`], but an error is raised, and nothing set aside; a table that could not be read since the caller
/// [began](reading::begin) is not tried again.
pub fn work_or_fail() {
    work_once_seen(|_| ());
}

/// As [`work_or_fail`], after `see` has seen what was noted.
pub fn work_once_seen(see: impl FnOnce(&Taken)) {
    if !queue::is_empty() {
        let taken = queue::take();
        see(&taken);
        writing(|| as_owner(|| work::meter(&taken, Manner::Locked)));
        taken.done();
    }
}

fn meter_or_set_aside(taken: &Taken) {
    if !settings::ENABLED.get() {
        let off = "talkmeter.enabled was off when the transaction committed.";
        as_owner(|| work::set_aside(taken, "disabled", off));
        return;
    }
    let metered = |manner| attempt(|| as_owner(|| work::meter(taken, manner)));
    let result = match metered(Manner::Unlocked) {
        Err(error) if locks::may_have_lost_race(&error) => metered(Manner::Locked),
        result => result,
    };
    if let Err(error) = result {
        let passes = passes(code(&error));
        // Of another version since it began: there is no quarantine either that we could write to.
        if !passes && !version::is_readable() {
            return;
        }
        if passes || as_owner(|| any_strict(taken)) {
            error.rethrow();
        }
        let detail = format!("{}: {}", sqlstate(code(&error)), message(&error));
        let rows = as_owner(|| work::set_aside(taken, "internal_error", &detail));
        failure(code(&error), format!("talkmeter could not meter this transaction: {}", message(&error)))
            .detail(format!("{rows} rows were put into talkmeter.quarantine; the transaction itself is not affected."))
            .warn();
    }
}

/// Whether an error is for the application to see: it retries a conflict, and it or its DBA asked for an end.
fn passes(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_QUERY_CANCELED
            | PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN
            | PgSqlErrorCode::ERRCODE_CRASH_SHUTDOWN
            | PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW
    )
}

fn any_strict(taken: &Taken) -> bool {
    let catalog = Catalog::now();
    let mut found = false;
    taken.for_each_event(|event| found = found || is_strict(&catalog, order::source_of(event.place)));
    found
}
