//! Who may fold a conversation or draw for a tenant? Whoever holds its row in a lock table, until the transaction ends.
//!
//! Rows are locked in key order, inserted if they are missing, and never updated, all by one statement: an upsert
//! whose update never applies locks the row all the same. The statement takes its rows in the order of its
//! parameters, because a scan of `unnest` keeps it.

use crate::pg::sql::{Arg, Connection, OverRows, column, connected, insert_rows, over_rows};
use crate::pg::subtransaction::{attempt, code};
use pgrx::prelude::*;
use std::ffi::CStr;

const CONVERSATIONS: OverRows = insert_rows!(
    "talkmeter.conversation_lock",
    [1 tenant text, 2 conversation text],
    "ON CONFLICT (tenant, conversation) DO UPDATE SET tenant = excluded.tenant WHERE false"
);

// Whoever has a part has a row here.
const FREE_CONVERSATIONS: OverRows = over_rows!(
    "SELECT wanted.ordinal FROM",
    [1 tenant text, 2 conversation text],
    "CROSS JOIN LATERAL (
        SELECT own.tenant FROM talkmeter.conversation_lock AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation
        FOR UPDATE SKIP LOCKED
    ) AS l
    ORDER BY wanted.ordinal"
);

const TENANTS: OverRows = insert_rows!(
    "talkmeter.tenant_lock",
    [1 tenant text],
    "ON CONFLICT (tenant) DO UPDATE SET tenant = excluded.tenant WHERE false"
);

/// The tables that a work on conversations writes, in the order in which it locks them.
const TABLES_OF_CONVERSATIONS: [&CStr; 6] =
    [c"quarantined", c"conversation_lock", c"conversation", c"part", c"marked", c"subscription"];

/// Those that a work on tenants writes, which come after those of conversations.
const TABLES_OF_TENANTS: [&CStr; 11] = [
    c"tenant_lock",
    c"account",
    c"subscription",
    c"period",
    c"pack",
    c"charge",
    c"unplanned_unit",
    c"day_units",
    c"alert",
    c"dispute_filed",
    c"statement_line",
];

/// Locks tables of ours for writing, until the transaction ends. Whoever reads one first and then writes it waits, for
/// the stronger lock, for a REINDEX or a rewrite that waits for the weaker one: so the stronger comes first. And what
/// is locked cannot be rewritten between two statements of one work.
pub fn for_writing(tables: &[&CStr]) {
    lock_tables(tables, pg_sys::RowExclusiveLock);
}

fn lock_tables(tables: &[&CStr], mode: u32) {
    let schema = own_schema();
    for table in tables {
        // SAFETY: any oid may be locked.
        unsafe { pg_sys::LockRelationOid(own_table(table, schema), mode as i32) };
    }
}

fn own_schema() -> pg_sys::Oid {
    // SAFETY: a look-up in the server's cache of the catalog by a name that lives for ever.
    unsafe { pg_sys::get_namespace_oid(c"talkmeter".as_ptr(), false) }
}

/// The oid of a table or an index of ours; of nothing if there is none of that name.
pub fn table(name: &CStr) -> pg_sys::Oid {
    own_table(name, own_schema())
}

fn own_table(name: &CStr, schema: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: a look-up in the server's cache of the catalog by a name that lives as long as the call.
    unsafe { pg_sys::get_relname_relid(name.as_ptr(), schema) }
}

/// Locks a table of ours for writing, if that needs no waiting, and says whether it did.
pub fn for_writing_at_once(table: &CStr) -> bool {
    // SAFETY: any oid may be locked.
    unsafe { pg_sys::ConditionalLockRelationOid(self::table(table), pg_sys::RowExclusiveLock as i32) }
}

/// Locks the tables that a ledger is in: before they are read by a work that may write them.
pub fn ledger_for_writing() {
    for_writing(&TABLES_OF_TENANTS);
}

/// Locks the table of sources for whoever adds to it, until the transaction ends: one at a time, so that each gets a
/// number of its own. Nobody else waits for that.
pub fn sources_for_one() {
    lock_tables(&[c"source"], pg_sys::ShareUpdateExclusiveLock);
    for_writing(&[c"source"]);
}

/// How often we may lose a race against others before the error is passed on.
const TRIES: u32 = 100;

/// A work that may lock conversations. No tenant is locked by it yet: two works that lock in this order, and within
/// it in the order of the keys, never wait for each other in a circle.
pub struct Conversations(());

impl Conversations {
    /// A work begins. Its tables are locked before anything in them is read.
    pub fn begin() -> Conversations {
        for_writing(&TABLES_OF_CONVERSATIONS);
        Conversations(())
    }

    /// Locks conversations, given by tenant and id in key order, each once.
    pub fn lock(&mut self, connection: &Connection, keys: &[(&str, &str)]) {
        lock(connection, &CONVERSATIONS, keys.len(), || vec![column(keys, |key| key.0), column(keys, |key| key.1)]);
    }

    /// Locks those of the conversations that have parts which nobody else has locked, and returns their indexes. It
    /// never waits.
    pub fn lock_free(&mut self, connection: &Connection, keys: &[(&str, &str)]) -> Vec<usize> {
        let args = [column(keys, |key| key.0), column(keys, |key| key.1)];
        connection.run_over(&FREE_CONVERSATIONS, keys.len(), &args).iter().map(|mut row| row.ordinal()).collect()
    }

    /// No further conversation will be locked: tenants may be.
    pub fn then_tenants(self) -> Tenants {
        Tenants::begin()
    }
}

/// A work that may lock tenants, and no conversation any more.
pub struct Tenants {
    has_tables: bool,
}

impl Tenants {
    /// A work begins that concerns no conversation.
    pub fn begin() -> Tenants {
        Tenants { has_tables: false }
    }

    /// Locks tenants, given in key order, each once.
    pub fn lock(&mut self, connection: &Connection, tenants: &[&str]) {
        if !std::mem::replace(&mut self.has_tables, true) {
            ledger_for_writing();
        }
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
