//! What does metering cost, and does it survive crashes? The tests that need the server for themselves.
//!
//! They measure times and memory, or kill the server, so each begins with [`alone`].

mod backfill;
mod bare_root;
mod bulk;
mod cancels;
mod cost;
mod crash;
mod few_locks;
mod full;
mod growth;
mod kills;
mod large;
mod memory;
mod report;
mod restore;
mod sessions;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The server, for as long as the guard lives. A test that failed has released it.
fn alone() -> MutexGuard<'static, ()> {
    static SERVER: Mutex<()> = Mutex::new(());
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}
