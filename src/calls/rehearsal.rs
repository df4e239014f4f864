//! May the clock of metering be set to that (rule 3.6.9)? In a rehearsal it is as far ahead of the server's as
//! `talkmeter.clock_offset` says, or behind it.

use crate::pg::clock::{self, Timestamp};
use crate::pg::error::failure;
use crate::pg::rights::{as_owner_reading, is_installed};
use crate::pg::settings;
use crate::pg::sql::connected;
use pgrx::prelude::*;
use std::ffi::{c_int, c_void};

/// Makes the setting known.
pub fn define() {
    // SAFETY: the hook is guarded, and lives as long as the library.
    unsafe { settings::define_clock_offset(Some(may_be)) };
}

const FROZEN: &str = "SELECT max(p.period_end) FROM talkmeter.period AS p WHERE p.finalization IS NOT NULL";

/// Refuses a clock that shows an instant before the end of a period that is finalized.
#[pg_guard]
unsafe extern "C-unwind" fn may_be(
    wanted: *mut c_int,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server gives the value that is wanted; the others are variables of this process's.
    let (wanted, can_look) = unsafe { (*wanted, pg_sys::IsTransactionState() && !pg_sys::InitializingParallelWorker) };
    if wanted == settings::clock_offset() || !can_look || !is_installed() {
        return true;
    }
    // SAFETY: statements need a snapshot to be planned; pushed and popped in pairs. On an error the transaction's abort
    // drops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let frozen: Option<Timestamp> =
        as_owner_reading(|| connected(|connection| connection.run(FROZEN, &[]).only().nullable()));
    // SAFETY: pops the snapshot pushed above.
    unsafe { pg_sys::PopActiveSnapshot() };
    let Some(end) = frozen.map(Timestamp::bound).filter(|end| clock::with_offset(wanted) < *end) else { return true };
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the clock cannot go back behind a period that is finalized",
    )
    .detail(format!("One ends at {}.", end.calendar().map(|end| end.to_rfc3339()).unwrap_or_default()))
    .hint("What was frozen stays. Rehearse in a database that you can drop.")
    .refuse()
}
