//! Who may fold a conversation or draw for a tenant? Whoever holds its row in a lock table, until the transaction ends.
//!
//! Rows are locked in key order, inserted if they are missing, and never updated, all by one statement: an upsert
//! whose update never applies locks the row all the same. The statement takes its rows in the order of its
//! parameters, because a scan of `unnest` keeps it.

use crate::pg::sql::{Arg, Connection, OverRows, column, connected, insert_rows};
use crate::pg::subtransaction::{attempt, code};
use pgrx::prelude::*;

const CONVERSATIONS: OverRows = insert_rows!(
    "talkmeter.conversation_lock",
    [1 tenant text, 2 conversation text],
    "ON CONFLICT (tenant, conversation) DO UPDATE SET tenant = excluded.tenant WHERE false"
);

const TENANTS: OverRows = insert_rows!(
    "talkmeter.tenant_lock",
    [1 tenant text],
    "ON CONFLICT (tenant) DO UPDATE SET tenant = excluded.tenant WHERE false"
);

/// How often we may lose a race against others before the error is passed on.
const TRIES: u32 = 100;

/// A work that may lock conversations. No tenant is locked by it yet: two works that lock in this order, and within
/// it in the order of the keys, never wait for each other in a circle.
pub struct Conversations(());

impl Conversations {
    /// A work begins.
    pub fn begin() -> Conversations {
        Conversations(())
    }

    /// Locks conversations, given by tenant and id in key order, each once.
    pub fn lock(&mut self, connection: &Connection, keys: &[(&str, &str)]) {
        lock(connection, &CONVERSATIONS, keys.len(), || vec![column(keys, |key| key.0), column(keys, |key| key.1)]);
    }

    /// No further conversation will be locked: tenants may be.
    pub fn then_tenants(self) -> Tenants {
        Tenants(())
    }
}

/// A work that may lock tenants, and no conversation any more.
pub struct Tenants(());

impl Tenants {
    /// A work begins that concerns no conversation.
    pub fn begin() -> Tenants {
        Tenants(())
    }

    /// Locks tenants, given in key order, each once.
    pub fn lock(&mut self, connection: &Connection, tenants: &[&str]) {
        lock(connection, &TENANTS, tenants.len(), || vec![column(tenants, |tenant| *tenant)]);
    }
}

fn lock(connection: &Connection, statement: &OverRows, count: usize, args: impl Fn() -> Vec<Arg>) {
    if !at_repeatable_read() {
        connection.run_over(statement, count, &args());
        return;
    }
    despite_conflicts(|own| own.run_over(statement, count, &args()).count());
}

fn at_repeatable_read() -> bool {
    // SAFETY: reads a variable of this session's.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Does `work` again, with a newer snapshot, as long as somebody else is quicker: at REPEATABLE READ a row of ours
/// that was inserted or deleted after the snapshot fails a statement with 40001, although nothing of the
/// application's is in conflict.
pub fn despite_conflicts<R>(work: impl Fn(&Connection) -> R) -> R {
    if !at_repeatable_read() {
        return connected(work);
    }
    let mut attempts_left = TRIES;
    loop {
        attempts_left -= 1;
        match attempt(|| connected(&work)) {
            Ok(answer) => return answer,
            Err(error) => {
                if code(&error) != PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE || attempts_left == 0 {
                    error.rethrow();
                }
            }
        }
    }
}
