//! What happens where there is no memory left? The work ends with an error, and the server goes on.
//!
//! Rust ends the process if an allocation fails, and with it all sessions of the server. So a reserve is kept: it is
//! given back when an allocation fails, which then succeeds, and the next step of the work raises the error. What is
//! larger than the reserve is asked for in a way that can fail ([`room`]). The server's own allocations raise errors,
//! and a second reserve is for these.

use crate::pg::error::failure;
use pgrx::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Memory that is kept back. Nothing is written into it, so that it takes none but only the right to some.
struct Reserve {
    layout: Layout,
    kept: AtomicPtr<u8>,
}

/// For what Rust asks for.
static OURS: Reserve = Reserve::of(8 << 20);
/// For the server, which copies an error before we learn of it. Where it has no room for the copy, that is an error,
/// which it copies, until it gives up with a PANIC. It asks for no less than 1 MB in a context that has grown, and the
/// system adds a page.
static OF_SERVER: Reserve = Reserve::of(2 << 20);
static IS_SHORT: AtomicBool = AtomicBool::new(false);

struct WithReserve;

#[global_allocator]
static ALLOCATOR: WithReserve = WithReserve;

// SAFETY: all memory is the system's, which keeps the contract; that a request is repeated after something else was
// given back changes nothing of it.
unsafe impl GlobalAlloc for WithReserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        again_if_null(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        again_if_null(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise; where it fails, what is there stays.
        again_if_null(|| unsafe { System.realloc(at, layout, size) })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

fn again_if_null(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let allocated = allocate();
    if !allocated.is_null() || !OURS.give_back() {
        return allocated;
    }
    IS_SHORT.store(true, Ordering::Relaxed);
    allocate()
}

impl Reserve {
    const fn of(bytes: usize) -> Reserve {
        let Ok(layout) = Layout::from_size_align(bytes, 4096) else { panic!("a power of two") };
        Reserve { layout, kept: AtomicPtr::new(ptr::null_mut()) }
    }

    /// It is there, or an error is raised.
    fn keep(&self) {
        if !self.kept.load(Ordering::Relaxed).is_null() {
            return;
        }
        // SAFETY: the layout is not of size zero.
        let kept = unsafe { System.alloc(self.layout) };
        if kept.is_null() {
            out_of_memory();
        }
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Gives it back to the system, if it is there.
    fn give_back(&self) -> bool {
        let kept = self.kept.swap(ptr::null_mut(), Ordering::Relaxed);
        if kept.is_null() {
            return false;
        }
        // SAFETY: it was allocated with that layout, and nobody else has it any more.
        unsafe { System.dealloc(kept, self.layout) };
        true
    }
}

/// A work begins: the reserves are there, or an error is raised.
pub fn keep_reserve() {
    IS_SHORT.store(false, Ordering::Relaxed);
    OURS.keep();
    OF_SERVER.keep();
}

/// Does `work`. If the server raises an error in it for want of memory, it is given its reserve.
pub fn with_room_for_errors<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: reads a variable of this session's.
    let previous = unsafe { pg_sys::error_context_stack };
    let mut entry = pg_sys::ErrorContextCallback { previous, callback: Some(make_room), arg: ptr::null_mut() };
    let _taken_off = TakenOff(previous);
    // SAFETY: the entry stays where it is, and is taken off before it ends, also by a panic, which is what an error of
    // the server's becomes.
    unsafe { pg_sys::error_context_stack = &raw mut entry };
    work()
}

/// Puts the server's stack back to what it was, when dropped.
struct TakenOff(*mut pg_sys::ErrorContextCallback);

impl Drop for TakenOff {
    fn drop(&mut self) {
        // SAFETY: what was there before outlives what was done on top of it.
        unsafe { pg_sys::error_context_stack = self.0 };
    }
}

/// Called by the server for each error and message, before an error is copied.
unsafe extern "C-unwind" fn make_room(_arg: *mut c_void) {
    // SAFETY: there is an error: the server asks only then.
    if unsafe { pg_sys::geterrcode() } == PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY as i32 {
        OF_SERVER.give_back();
    }
}

/// Raises an error if the reserve was needed.
pub fn heed_shortage() {
    // A look costs nothing, and a swap is one of the dearest instructions that there are.
    if IS_SHORT.load(Ordering::Relaxed) && IS_SHORT.swap(false, Ordering::Relaxed) {
        out_of_memory();
    }
}

/// Makes room for so many more, or raises an error.
pub fn room<T>(list: &mut Vec<T>, more: usize) {
    if list.try_reserve(more).is_err() {
        out_of_memory();
    }
}

/// What comes of an iterator that knows how many there are, or an error.
pub fn collected<T>(all: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut list = Vec::new();
    room(&mut list, all.len());
    list.extend(all);
    list
}

/// Raises the error.
pub fn out_of_memory() -> ! {
    failure(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
        .detail("The operating system gave this session no more.")
        .hint("Send the rows in smaller transactions, or give the server more.")
        .raise()
}
