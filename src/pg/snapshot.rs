//! Which state of the database does the statement see that is running?

use pgrx::prelude::*;

/// What a statement sees: two that are equal see the same, within one session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    xmin: pg_sys::TransactionId,
    xmax: pg_sys::TransactionId,
    in_progress: u32,
    command: pg_sys::CommandId,
    /// One that is rolled back takes back what its commands wrote, and not their number.
    subtransaction: pg_sys::SubTransactionId,
    statement: i64,
}

/// What the statement sees that is running; `None` if none is.
pub fn moment() -> Option<Moment> {
    // SAFETY: the active snapshot, where there is one, lives as long as the statement; the rest are variables of this
    // session's.
    unsafe {
        if !pg_sys::ActiveSnapshotSet() {
            return None;
        }
        let snapshot = &*pg_sys::GetActiveSnapshot();
        Some(Moment {
            xmin: snapshot.xmin,
            xmax: snapshot.xmax,
            in_progress: snapshot.xcnt,
            command: snapshot.curcid,
            subtransaction: pg_sys::GetCurrentSubTransactionId(),
            statement: pg_sys::GetCurrentStatementStartTimestamp(),
        })
    }
}
