//! How long may code that is not ours keep us? A limit in time that is not the caller's statement_timeout.

use crate::pg::memory;
use pgrx::prelude::*;
use std::cell::Cell;

/// `TimeoutId` of the server's timeout.h: the first that extensions may take, which its registration answers with one
/// of their own.
const USER_TIMEOUT: i32 = 12;

// Of the server's timeout.h, which has no bindings. None of them raises an error, but for a session that has registered
// ten limits already.
unsafe extern "C-unwind" {
    fn RegisterTimeout(id: i32, handler: unsafe extern "C-unwind" fn()) -> i32;
    fn enable_timeout_after(id: i32, delay_ms: i32);
    fn disable_timeout(id: i32, keep_indicator: bool);
}

thread_local! {
    /// Which of the server's limits is ours, once it is registered.
    static OWN: Cell<Option<i32>> = const { Cell::new(None) };
}

/// Whether the time was up since the limit was last set. Written by a signal handler of this very thread.
static FIRED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Called by the server within a signal handler: asks for a cancel, as the server's own limits do, unless somebody
/// else's is pending already.
unsafe extern "C-unwind" fn time_is_up() {
    // SAFETY: flags of this process, made to be set by signal handlers; so is its latch.
    unsafe {
        if pg_sys::QueryCancelPending == 0 {
            FIRED.store(true, std::sync::atomic::Ordering::Relaxed);
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
            pg_sys::SetLatch(pg_sys::MyLatch);
        }
    }
}

/// Takes the limit away, also when an error passes by.
struct Lifted(i32);

impl Drop for Lifted {
    fn drop(&mut self) {
        // SAFETY: the limit is registered; the flag is this process's own, and that it is set is our own doing.
        unsafe {
            disable_timeout(self.0, false);
            if FIRED.load(std::sync::atomic::Ordering::Relaxed) {
                pg_sys::QueryCancelPending = 0;
            }
        }
    }
}

/// Does `work`, which is cancelled (57014) if it takes longer than so many milliseconds; 0 is no limit. Ask [`was_up`]
/// whether it was.
pub fn within<R>(milliseconds: i32, work: impl FnOnce() -> R) -> R {
    FIRED.store(false, std::sync::atomic::Ordering::Relaxed);
    if milliseconds == 0 {
        return work();
    }
    // SAFETY: registered once per session, with a handler that lives as long as the library.
    let own = OWN.get().unwrap_or_else(|| unsafe { RegisterTimeout(USER_TIMEOUT, time_is_up) });
    OWN.set(Some(own));
    let _lifted = Lifted(own);
    // SAFETY: the limit is registered.
    unsafe { enable_timeout_after(own, milliseconds) };
    work()
}

/// Ends the work here, by an error, if a cancel or a shutdown is asked for, or memory has run out.
#[inline]
pub fn heed_cancel() {
    pgrx::check_for_interrupts!();
    memory::heed_shortage();
}

/// Whether the work that was limited last was cancelled for that.
pub fn was_up() -> bool {
    FIRED.load(std::sync::atomic::Ordering::Relaxed)
}
