//! Who sweeps, and does it succeed? What `talkmeter.sweepers` and `talkmeter.health()` say of it.

use crate::pg::clock::Day;
use crate::pg::sql::{Connection, arg};
use crate::pg::tags;
use pgrx::pg_sys;

/// On whose behalf a sweep is made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sweeper {
    /// Somebody who calls it, by cron or by hand.
    Session,
    /// The worker.
    Worker,
}

impl Sweeper {
    fn name(self) -> &'static str {
        match self {
            Sweeper::Session => "session",
            Sweeper::Worker => "worker",
        }
    }
}

// What is noted often makes a server that does nothing else write its log.
const IS_NEWS: &str = "
    SELECT
    WHERE ($2 AND NOT EXISTS (
            SELECT FROM talkmeter.sweeper AS s
            WHERE s.sweeper = $1 AND s.role = CASE $1 WHEN 'worker' THEN '' ELSE session_user END
                AND s.swept_at > clock_timestamp() - interval '5 minutes' AND s.swept_at <= clock_timestamp()))
        OR EXISTS (SELECT FROM talkmeter.sweeper AS s WHERE $1 = 'worker' AND s.sweeper = $1 AND s.error IS NOT NULL)";

const SWEPT: &str = "
    INSERT INTO talkmeter.sweeper AS s (sweeper, role, swept_at)
    VALUES ($1, CASE $1 WHEN 'worker' THEN '' ELSE session_user END, clock_timestamp())
    ON CONFLICT (sweeper, role) DO UPDATE
    SET swept_at = excluded.swept_at, failed_since = NULL, error_code = NULL, error = NULL";

/// Notes that the database was swept, unless that was noted a moment ago. What the worker does is noted only where it
/// writes anyway: that it is there is seen without.
pub fn swept(connection: &Connection, sweeper: Sweeper) {
    // SAFETY: reads a variable of this session's.
    let has_written = unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::InvalidTransactionId;
    let is_told = sweeper == Sweeper::Session || has_written;
    let is_news = connection.run(IS_NEWS, &[arg(sweeper.name()), arg(is_told)]).count() > 0;
    if is_news && tags::may_note(sweeper as u32) {
        connection.run(SWEPT, &[arg(sweeper.name())]);
    }
}

const FAILED: &str = "
    INSERT INTO talkmeter.sweeper AS s (sweeper, role, failed_since, error_code, error)
    VALUES ('worker', '', clock_timestamp(), $1, $2)
    ON CONFLICT (sweeper, role) DO UPDATE
    SET failed_since = COALESCE(s.failed_since, excluded.failed_since), error_code = excluded.error_code,
        error = excluded.error
    WHERE (s.error_code, s.error) IS DISTINCT FROM (excluded.error_code, excluded.error)";

/// Notes that the worker has failed, with SQLSTATE and message.
pub fn failed(connection: &Connection, code: &str, message: &str) {
    connection.run(FAILED, &[arg(code), arg(message)]);
}

const RECONCILED: &str = "SELECT s.reconciled FROM talkmeter.sweeper AS s WHERE s.sweeper = 'worker'";

/// The day that the worker reconciled last.
pub fn last_reconciled(connection: &Connection) -> Option<Day> {
    connection.run(RECONCILED, &[]).first().and_then(|mut row| row.nullable())
}

const HAS_RECONCILED: &str = "
    INSERT INTO talkmeter.sweeper AS s (sweeper, role, reconciled) VALUES ('worker', '', $1)
    ON CONFLICT (sweeper, role) DO UPDATE SET reconciled = excluded.reconciled";

/// Notes that the worker has reconciled a day.
pub fn has_reconciled(connection: &Connection, day: Day) {
    connection.run(HAS_RECONCILED, &[arg(day)]);
}
