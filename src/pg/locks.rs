//! Who may fold a conversation or draw for a tenant? Whoever holds its row, until the transaction ends.
//!
//! Rows are locked in key order, and inserted if they are missing. Those that are there are locked one by one; from the
//! first that is not there on one statement does it: an upsert whose update never applies locks the row all the same.
//! The statement takes its rows in the order of its parameters, because a scan of `unnest` keeps it.
//!
//! A commit that only goes on with conversations does not lock them first: it writes their rows, in key order, if
//! nobody has changed them since it read them. Else it [gives up](lost_race), and is done again with locks.

use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::own_table::types::{INT8, TEXT};
use crate::pg::own_table::{self, Access, Index, OwnTable, Shape, with_newest};
use crate::pg::sql::{Arg, Connection, OverRows, arg, column, connected, insert_rows, over_rows};
use crate::pg::subtransaction::{attempt, code, is_of_server};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::ffi::CStr;

const CONVERSATIONS: OverRows = insert_rows!(
    "talkmeter.conversation",
    [1 tenant text, 2 conversation text],
    "ON CONFLICT (tenant, conversation) DO UPDATE SET tenant = excluded.tenant WHERE false"
);

// Whoever has a part has a row here.
const FREE_CONVERSATIONS: OverRows = over_rows!(
    "SELECT wanted.ordinal FROM",
    [1 tenant text, 2 conversation text],
    "CROSS JOIN LATERAL (
        SELECT own.tenant FROM talkmeter.conversation AS own
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

const DISPUTES: OverRows = insert_rows!(
    "talkmeter.dispute_count",
    [1 tenant text],
    "ON CONFLICT (tenant) DO UPDATE SET tenant = excluded.tenant WHERE false"
);

const CONVERSATION: Shape = Shape { name: c"conversation", types: &[TEXT, TEXT] };
const CONVERSATION_KEY: Index = Index { name: c"conversation_pkey", columns: &[1, 2] };
const TENANT_LOCK: Shape = Shape { name: c"tenant_lock", types: &[TEXT] };
const DISPUTE_COUNT: Shape = Shape { name: c"dispute_count", types: &[TEXT, INT8] };
const DISPUTES_KEY: Index = Index { name: c"dispute_count_pkey", columns: &[1] };
const TENANT_KEY: Index = Index { name: c"tenant_lock_pkey", columns: &[1] };

/// The tables that a work on conversations writes, in the order in which it locks them.
const TABLES_OF_CONVERSATIONS: [&CStr; 6] =
    [c"quarantined", c"conversation", c"ended_part", c"talkmeter_archive.ended_part", c"marked", c"subscription"];

/// Those that a work on tenants writes, which come after those of conversations.
const TABLES_OF_TENANTS: [&CStr; 11] = [
    c"tenant_lock",
    c"account",
    c"subscription",
    c"period",
    c"pack",
    c"charge",
    c"unplanned_unit",
    c"uncharged_unit",
    c"day_units",
    c"alert",
    c"statement_line",
];

/// Locks tables of ours for writing, until the transaction ends. Whoever reads one first and then writes it waits, for
/// the stronger lock, for a REINDEX or a rewrite that waits for the weaker one: so the stronger comes first. And what
/// is locked cannot be rewritten between two statements of one work.
pub fn for_writing(tables: &[&'static CStr]) {
    lock_tables(tables, pg_sys::RowExclusiveLock);
}

fn lock_tables(tables: &[&'static CStr], mode: u32) {
    for table in tables {
        // SAFETY: any oid may be locked.
        unsafe { pg_sys::LockRelationOid(own_table::oid(table), mode as i32) };
    }
}

/// Locks a table of ours for writing, if that needs no waiting, and says whether it did.
pub fn for_writing_at_once(table: &'static CStr) -> bool {
    let oid = own_table::oid(table);
    // SAFETY: any oid may be locked.
    unsafe { pg_sys::ConditionalLockRelationOid(oid, pg_sys::RowExclusiveLock as i32) }
}

/// Locks the tables that a ledger is in: before they are read by a work that may write them.
pub fn ledger_for_writing() {
    for_writing(&TABLES_OF_TENANTS);
}

/// As [`ledger_for_writing`], of a work that may move entries of it to the archive, or fetch them back.
pub fn ledger_and_archive_for_writing() {
    ledger_for_writing();
    for_writing(&[c"talkmeter_archive.charge"]);
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
pub struct Conversations {
    has_tables: bool,
}

impl Conversations {
    /// A work begins. Its tables are locked before anything in them is read.
    pub fn begin() -> Conversations {
        let mut conversations = Conversations::begin_unlocked();
        conversations.lock_tables();
        conversations
    }

    /// A work begins that may need no more than the rows of its conversations, whose table it locks when it opens it.
    pub fn begin_unlocked() -> Conversations {
        Conversations { has_tables: false }
    }

    /// Locks the tables of the work, if it has not done so.
    pub fn lock_tables(&mut self) {
        if !std::mem::replace(&mut self.has_tables, true) {
            for_writing(&TABLES_OF_CONVERSATIONS);
        }
    }

    /// Locks conversations, given by tenant and id in key order, each once.
    pub fn lock(&mut self, connection: &Connection, keys: &[(&str, &str)]) {
        self.lock_tables();
        let known = lock_present(&CONVERSATION, &CONVERSATION_KEY, keys, |key| vec![arg(key.0), arg(key.1)]);
        let rest = &keys[known..];
        lock(connection, &CONVERSATIONS, rest.len(), || vec![column(rest, |key| key.0), column(rest, |key| key.1)]);
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
        let known = lock_present(&TENANT_LOCK, &TENANT_KEY, tenants, |tenant| vec![arg(*tenant)]);
        let rest = &tenants[known..];
        lock(connection, &TENANTS, rest.len(), || vec![column(rest, |tenant| *tenant)]);
    }
}

/// Locks the disputes of a tenant, until the transaction ends: before the tenant itself, if a work locks both. A tenant
/// whose role stays idle in its transaction holds up who disputes and credits, and no message.
pub fn disputes(connection: &Connection, tenant: &str) {
    for_writing(&[c"dispute_count", c"dispute_filed"]);
    if lock_present(&DISPUTE_COUNT, &DISPUTES_KEY, &[tenant], |tenant| vec![arg(*tenant)]) == 0 {
        lock(connection, &DISPUTES, 1, || vec![arg(tenant)]);
    }
}

/// Locks the first rows of some that are there, up to one that is not, and says how many they are. No statement is
/// planned for what an application does most: to go on with a conversation that is known.
fn lock_present<K>(shape: &'static Shape, index: &Index, keys: &[K], key: impl Fn(&K) -> Vec<Arg>) -> usize {
    let table = OwnTable::open(shape, Access::Locking);
    with_newest(|newest| {
        let locked = |wanted: &&K| {
            heed_cancel();
            table.lock(newest, index, &key(wanted))
        };
        keys.iter().take_while(locked).count()
    })
}

fn lock(connection: &Connection, statement: &OverRows, count: usize, args: impl Fn() -> Vec<Arg>) {
    if count == 0 {
        return;
    }
    if !at_repeatable_read() {
        connection.run_over(statement, count, &args());
        return;
    }
    despite_conflicts(|own| own.run_over(statement, count, &args()).count());
}

/// Gives up a work that did not lock what it folds, because somebody else was quicker.
pub fn lost_race() -> ! {
    failure(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, "a conversation was changed while it was folded").raise()
}

/// Whether a work that did not lock what it folds may have failed for that reason: by [`lost_race`], or because
/// somebody else was quicker to insert the row of a conversation that was not there.
pub fn may_have_lost_race(error: &CaughtError) -> bool {
    use PgSqlErrorCode::{ERRCODE_T_R_SERIALIZATION_FAILURE, ERRCODE_UNIQUE_VIOLATION};
    matches!(code(error), ERRCODE_T_R_SERIALIZATION_FAILURE | ERRCODE_UNIQUE_VIOLATION) && !is_of_server(error)
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
