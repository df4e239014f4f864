//! What happens where there is no memory left? The work ends with an error, and the server goes on.
//!
//! Rust ends the process if an allocation fails, and with it all sessions of the server. So a reserve is kept: it is
//! given back when an allocation fails, which then succeeds, and the next step of the work raises the error. What is
//! larger than the reserve is asked for in a way that can fail ([`room`]).

use crate::pg::error::failure;
use pgrx::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Bytes of the reserve. Nothing is written into it, so that it takes no memory but only the right to some.
const RESERVE: Layout = match Layout::from_size_align(8 << 20, 4096) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

static KEPT: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
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
    if !allocated.is_null() || !give_back() {
        return allocated;
    }
    IS_SHORT.store(true, Ordering::Relaxed);
    allocate()
}

/// Gives the reserve back, if there is one.
fn give_back() -> bool {
    let kept = KEPT.swap(ptr::null_mut(), Ordering::Relaxed);
    if kept.is_null() {
        return false;
    }
    // SAFETY: it was allocated with that layout, and nobody else has it any more.
    unsafe { System.dealloc(kept, RESERVE) };
    true
}

/// A work begins: the reserve is there, or an error is raised.
pub fn keep_reserve() {
    IS_SHORT.store(false, Ordering::Relaxed);
    if !KEPT.load(Ordering::Relaxed).is_null() {
        return;
    }
    // SAFETY: the layout is not of size zero.
    let kept = unsafe { System.alloc(RESERVE) };
    if kept.is_null() {
        out_of_memory();
    }
    KEPT.store(kept, Ordering::Relaxed);
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

fn out_of_memory() -> ! {
    failure(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory")
        .detail("The operating system gave this session no more.")
        .hint("Send the rows in smaller transactions, or give the server more.")
        .raise()
}
