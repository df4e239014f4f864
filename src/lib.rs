//! talkmeter in PostgreSQL: where the rules of `talkmeter-engine` meet tables, transactions and people.
//!
//! A message travels: `ingest` (row to event) → `queue` (until the commit) → `commit` → `parts` (fold) → `ledger`
//! (who pays). One that is late, changed or gone goes by `refold`, which reads the conversation's `history`. `attach`,
//! `mark`, `account`, `offers`, `retry` and `sweep` are what people call; the rest is how Postgres is spoken to.

use pgrx::prelude::*;

mod account;
mod alerts;
mod attach;
mod audit;
mod books;
mod cache;
mod clock;
mod commit;
mod dispute;
mod entry;
mod error;
mod explain;
mod history;
mod ingest;
mod ledger;
mod locks;
mod mark;
mod offers;
mod parts;
mod progress;
mod quarantine;
mod queue;
mod reconcile;
mod recount;
mod refold;
mod relation;
mod retry;
mod rights;
mod row;
mod settings;
mod simulate;
mod source_query;
mod spool;
mod sql;
mod statement;
mod subscription;
mod subtransaction;
mod sweep;
mod tenant;
mod trigger;

pgrx::pg_module_magic!(name, version);

/// Called by the server when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    settings::define();
    cache::watch_catalog();
    commit::watch_transactions();
}
