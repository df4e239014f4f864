//! Who may fold a conversation or draw for a tenant? Whoever holds its row in a lock table, until the transaction ends.
//!
//! Rows are locked in key order, inserted if they are missing, and never updated, all by one statement: an upsert whose
//! update never applies locks the row all the same.

use crate::sql::{Arg, Connection};
use crate::subtransaction::{attempt, code};
use pgrx::prelude::*;

const CONVERSATIONS: &str = "
    INSERT INTO talkmeter.conversation_lock AS held (tenant, conversation)
    SELECT wanted.tenant, wanted.conversation
    FROM unnest($1::text[], $2::text[]) AS wanted (tenant, conversation)
    ON CONFLICT (tenant, conversation) DO UPDATE SET tenant = excluded.tenant WHERE false";

const TENANTS: &str = "
    INSERT INTO talkmeter.tenant_lock AS held (tenant)
    SELECT wanted.tenant
    FROM unnest($1::text[]) AS wanted (tenant)
    ON CONFLICT (tenant) DO UPDATE SET tenant = excluded.tenant WHERE false";

/// How often a first contact may lose the race against another before the error is passed on.
const TRIES: u32 = 100;

/// Locks conversations; tenants and ids are given in key order, each pair once.
pub fn conversations(connection: &Connection, tenants: &[&str], ids: &[&str]) {
    lock(connection, CONVERSATIONS, || vec![crate::sql::arg(tenants.to_vec()), crate::sql::arg(ids.to_vec())]);
}

/// Locks tenants, given in key order, each once.
pub fn tenants(connection: &Connection, tenants: &[&str]) {
    lock(connection, TENANTS, || vec![crate::sql::arg(tenants.to_vec())]);
}

/// At REPEATABLE READ a row that somebody else inserted after our snapshot fails the upsert with 40001, although nothing
/// of the application's is in conflict. It is there now, so a newer snapshot finds it.
fn lock(connection: &Connection, statement: &'static str, args: impl Fn() -> Vec<Arg>) {
    // SAFETY: reads a variable of this session's.
    let repeatable_read = unsafe { pg_sys::XactIsoLevel } == pg_sys::XACT_REPEATABLE_READ as i32;
    if !repeatable_read {
        connection.run(statement, &args());
        return;
    }
    for attempts_left in (0..TRIES).rev() {
        match attempt(|| crate::sql::connected(|own| own.run(statement, &args()).count())) {
            Ok(_) => return,
            Err(error) => {
                if code(&error) != PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE || attempts_left == 0 {
                    error.rethrow();
                }
            }
        }
    }
}
