//! How is an error of our own undone without undoing the application's transaction?

use crate::pg::memory;
use crate::pg::rights;
use pgrx::pg_sys::panic::{CaughtError, ErrorReportWithLevel};
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Does `work` in a subtransaction. If it fails, the subtransaction is rolled back and the error returned; whether to
/// go on is the caller's decision.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, Box<CaughtError>> {
    within(work, true)
}

/// Does `work` and takes back all that it did to tables, to see what would come of it.
pub fn tried<R>(work: impl FnOnce() -> R) -> R {
    within(work, false).unwrap_or_else(|error| error.rethrow())
}

/// Does `work` in a subtransaction, which is kept if that is wanted and the work succeeds.
fn within<R>(work: impl FnOnce() -> R, is_kept: bool) -> Result<R, Box<CaughtError>> {
    rights::settle();
    // SAFETY: as in the server's own procedural languages: memory context and resource owner are put back after the
    // subtransaction ended either way. The server allows one to begin within a commit's callbacks.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let work = AssertUnwindSafe(|| Ok(memory::with_room_for_errors(work)));
        let caught = |error| Err(Box::new(error));
        let result = PgTryBuilder::new(work).catch_others(caught).catch_rust_panic(caught).execute();
        match result {
            Ok(_) if is_kept => pg_sys::ReleaseCurrentSubTransaction(),
            _ => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        // What goes on may fail for the same want.
        if result.as_ref().is_err_and(|error| code(error) == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY) {
            memory::keep_reserve();
        }
        result
    }
}

fn report(error: &CaughtError) -> &ErrorReportWithLevel {
    match error {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => report,
        CaughtError::RustPanic { ereport, .. } => ereport,
    }
}

/// Whether the server itself ended the work: it was asked to, or found a conflict of serializable transactions. Code of
/// somebody's may raise an error of any SQLSTATE, but not from there.
pub fn is_of_server(error: &CaughtError) -> bool {
    let report = report(error);
    let was_asked = report.function_name() == Some("ProcessInterrupts")
        && report.sql_error_code() != PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE;
    was_asked || report.file().ends_with("predicate.c")
}

/// The error's SQLSTATE.
pub fn code(error: &CaughtError) -> PgSqlErrorCode {
    report(error).sql_error_code()
}

/// The error's primary message.
pub fn message(error: &CaughtError) -> &str {
    report(error).message()
}

/// A SQLSTATE as its five characters.
pub fn sqlstate(code: PgSqlErrorCode) -> String {
    // Each character takes six bits, the first one the lowest.
    (0..5).map(|place| char::from(((code as u32 >> (6 * place)) & 0x3f) as u8 + b'0')).collect()
}
