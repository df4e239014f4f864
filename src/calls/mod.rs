//! What do people call: to attach a table, sell, correct, close a month? Each file answers one kind of call.

mod access;
mod alert_channel;
mod archive;
mod attach;
mod backfill;
mod backfill_run;
mod books;
mod conversation_key;
mod define;
mod dispute;
mod flush;
mod forget;
mod gaps;
mod journal;
pub mod launcher;
mod mark;
mod meanings;
mod moves;
mod own;
mod packs;
mod partitions;
mod reconcile;
pub mod rehearsal;
mod remap;
mod reset;
mod retry;
mod statement;
mod subscribe;
mod sweep;
mod sweep_failures;
mod sweepers;
mod worker;

use crate::catalog::away::must_be_here;
use crate::pg::locks::Tenants;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, connected};

/// Does `work`, with the owner's rights, while the tenant is locked, until the transaction ends. It is an error if the
/// tenant's books are not here.
fn locked<R>(tenant: &str, work: impl FnOnce(&Connection) -> R) -> R {
    let lock = |connection: &Connection| {
        Tenants::begin().lock(connection, &[tenant]);
        must_be_here(tenant);
    };
    under(lock, work)
}

/// Does `work`, with the owner's rights, once `lock` has locked what it needs.
fn under<R>(lock: impl FnOnce(&Connection), work: impl FnOnce(&Connection) -> R) -> R {
    as_owner(|| {
        connected(|connection| {
            lock(connection);
            work(connection)
        })
    })
}
