//! Where do the rules of `talkmeter-engine` meet tables, transactions and people? talkmeter in PostgreSQL.
//!
//! The folders are floors; each asks only those below it:
//!
//! - `calls`: what people call
//! - `reports`: what was billed, why, and what would have been
//! - `meter`: events become parts, at commit
//! - `capture` (what a transaction did to messages) and `billing` (who pays), which do not know each other
//! - `catalog`: attached tables, policies, plans and packs
//! - `pg`: the only door to PostgreSQL
//!
//! A message travels: `capture::ingest` (row to event) → `capture::queue` (until the commit) → `meter::work` →
//! `meter::batch` (fold) → `billing::post` (who pays). One that is late, changed or gone goes by `meter::refold`, which
//! reads the conversation's `meter::history`.

use pgrx::prelude::*;

mod billing;
mod calls;
mod capture;
mod catalog;
mod meter;
mod pg;
mod reports;

pgrx::pg_module_magic!(name, version);

/// Called by the server when it loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    calls::rehearsal::define();
    pg::settings::define();
    pg::own_table::watch_names();
    pg::rights::watch_owner();
    pg::version::watch_version();
    catalog::cache::watch_catalog();
    meter::commit::watch_transactions();
    calls::launcher::register();
}
