//! Who wrote to a table before something became known, and may still go by what was known before?

use crate::pg::limit::heed_cancel;
use crate::pg::sql::{arg, connected};
use pgrx::prelude::*;
use std::thread::sleep;
use std::time::Duration;

// A prepared transaction has no process, and is waited for too. Autovacuum and readers are not.
const WRITING: &str = "
    SELECT DISTINCT l.virtualtransaction
    FROM pg_locks AS l
    WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1)
        AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
        AND ($2::text[] IS NULL OR l.virtualtransaction = ANY ($2))";

// As of others.
const WRITES: &str = "
    SELECT FROM pg_locks AS l
    WHERE l.locktype = 'relation' AND l.granted AND l.relation = ANY ($1) AND l.pid = pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')";

/// Whether this transaction has locked one of these tables for writing: then others may wait for it, and it must not
/// wait for them.
pub fn is_one(tables: &[pg_sys::Oid]) -> bool {
    connected(|connection| connection.run(WRITES, &[arg(tables.to_vec())]).count() > 0)
}

/// Waits for the transactions that have locked one of these tables for writing by now. Whoever locks one later has
/// heard of what was committed before, and is not held up. The caller must not have locked anything that they may wait
/// for.
pub fn wait_for(tables: &[pg_sys::Oid]) {
    const LONGEST: Duration = Duration::from_millis(100);
    let mut pause = Duration::from_millis(1);
    let mut writing = writing(tables, None);
    while !writing.is_empty() {
        heed_cancel();
        sleep(pause);
        pause = (pause * 2).min(LONGEST);
        writing = self::writing(tables, Some(writing));
    }
}

fn writing(tables: &[pg_sys::Oid], those: Option<Vec<String>>) -> Vec<String> {
    connected(|connection| {
        let rows = connection.run(WRITING, &[arg(tables.to_vec()), arg(those)]);
        rows.iter().map(|mut row| row.value()).collect()
    })
}
