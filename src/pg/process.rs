//! How does a process of our own start, wait, work, and say what came of its work?

use crate::pg::majors;
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus};
use pgrx::bgworkers::{DynamicBackgroundWorker, SignalWakeFlags};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, PgTryBuilder};
use std::cell::Cell;
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

thread_local! {
    /// Whether settings were read anew since somebody asked.
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// A kind of process.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What `pg_stat_activity` shows as its type.
    pub name: &'static str,
    /// What it runs.
    pub function: &'static str,
    /// Whether the server starts it again if it ends with an error, or in a crash.
    pub comes_back: bool,
}

/// Seconds until the server starts a process again.
const BACK_AFTER: Duration = Duration::from_secs(5);

impl Kind {
    fn described(&self, told: &str) -> BackgroundWorkerBuilder {
        BackgroundWorkerBuilder::new(self.name)
            .set_type(self.name)
            .set_library("talkmeter")
            .set_function(self.function)
            .set_extra(told)
            // Not before recovery has ended: on a standby it waits for the promotion.
            .enable_spi_access()
            .set_restart_time(self.comes_back.then_some(BACK_AFTER))
    }

    /// Asks the server, which is just loading the library, to start one, and what to tell it.
    pub fn register(&self, told: &str) {
        self.described(told).load();
    }

    /// Starts one now; `None` if the server has no room for it.
    fn start(&self, told: &str) -> Option<DynamicBackgroundWorker> {
        // SAFETY: reads a variable of this process's.
        let own = unsafe { pg_sys::MyProcPid };
        self.described(told).set_notify_pid(own).load_dynamic().ok()
    }

    /// Starts one now, waits until it runs, and returns its process; `None` if the server has no room for it.
    pub fn started(&self, told: &str) -> Option<i32> {
        self.start(told)?.wait_for_startup().ok()
    }
}

/// Whether the server is just loading the libraries that all sessions share.
pub fn is_preloading() -> bool {
    // SAFETY: reads a variable of this process's.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// What this process was told when it was started.
pub fn told() -> &'static str {
    BackgroundWorker::get_extra()
}

/// A place in which this process has at most one other work for it.
pub struct Place {
    /// What the server keeps of the process that is there, or was.
    memory: PgMemoryContexts,
    child: Option<DynamicBackgroundWorker>,
}

impl Place {
    pub fn new() -> Place {
        Place { memory: PgMemoryContexts::new("talkmeter place"), child: None }
    }

    /// Starts a process, and says whether the server had room for it.
    pub fn start(&mut self, kind: &Kind, told: &str) -> bool {
        self.child = None;
        // SAFETY: what is allocated there is used by `child` alone, until the next reset.
        self.child = unsafe {
            self.memory.reset();
            self.memory.switch_to(|_| kind.start(told))
        };
        self.child.is_some()
    }

    /// Whether the process has ended.
    pub fn is_done(&self) -> bool {
        let ended = |error| matches!(error, BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied);
        self.child.as_ref().is_none_or(|child| child.pid().is_err_and(ended))
    }

    /// Ends the process, and waits for that.
    pub fn end(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = child.terminate().wait_for_shutdown();
        }
    }
}

/// Connects a process that starts others, and waits most of the time, to no database: it keeps none from being dropped.
pub fn begin_to_wait() {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(None, None);
}

/// Waits until something happens, at most so long; false if the process is to end. Settings that were changed are read.
pub fn wait(most: Duration) -> bool {
    let goes_on = BackgroundWorker::wait_latch(Some(most));
    if BackgroundWorker::sighup_received() {
        // SAFETY: between two transactions, as the server's own processes do it.
        unsafe {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        CHANGED.set(true);
    }
    goes_on
}

/// Whether settings were read anew since this was asked last.
pub fn have_settings_changed() -> bool {
    CHANGED.take()
}

/// Ends this process so that the server starts it again.
pub fn end_for_now() -> ! {
    // SAFETY: as the server's own processes end; nothing of ours is left to be dropped.
    unsafe { pg_sys::proc_exit(1) };
    #[allow(unreachable_code, reason = "the bindings of some majors do not say that it never comes back")]
    std::process::abort()
}

/// Connects a process that works, as the role that made the cluster, to a database. A request to end is heeded wherever
/// one to cancel is.
pub fn begin_to_work(database: pg_sys::Oid) {
    // SAFETY: the handler is that of the server's own sessions, and signals are let through once it is there.
    unsafe {
        majors::handle_request_to_end(end_at_next_chance);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
}

unsafe extern "C-unwind" fn end_at_next_chance(signal: i32) {
    // SAFETY: made to be a signal handler; it sets flags and the latch.
    unsafe { pg_sys::die(signal) }
}

/// Does `work` in a transaction of its own, and commits it. If it fails, it is rolled back and the error returned.
pub fn transaction<R>(work: impl FnOnce() -> R) -> Result<R, Box<CaughtError>> {
    // SAFETY: as the server's own processes do it, outside of any transaction; the snapshot is pushed and popped here,
    // and on an error the transaction's abort drops it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let work = AssertUnwindSafe(|| {
            let answer = work();
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            Ok(answer)
        });
        let caught = |error| Err(Box::new(error));
        let result = PgTryBuilder::new(work).catch_others(caught).catch_rust_panic(caught).execute();
        if result.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        result
    }
}

/// Shows in `pg_stat_activity` what this process does.
pub fn show(what: &CStr) {
    // SAFETY: copies the text into this process's own entry.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, what.as_ptr()) };
}

/// Bytes of a page of the board.
const PAGE: usize = 8_192;

/// Memory that a process shares with those that it starts: each writes on a page of its own what came of its work, and
/// who started it reads that when it has ended.
pub struct Board {
    start: *mut u8,
    handle: u32,
}

impl Board {
    /// A board with so many pages, which is there as long as this process.
    pub fn new(pages: usize) -> Board {
        // SAFETY: the segment is not tied to a transaction, and so stays mapped until the process ends.
        unsafe {
            let segment = pg_sys::dsm_create(pages * PAGE, 0);
            pg_sys::dsm_pin_mapping(segment);
            Board { start: pg_sys::dsm_segment_address(segment).cast(), handle: pg_sys::dsm_segment_handle(segment) }
        }
    }

    /// By what others know it.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// The board of that handle, if who made it is still there.
    pub fn of(handle: u32) -> Option<Board> {
        // SAFETY: as in `new`; a segment that is gone is null.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            (!segment.is_null()).then(|| {
                pg_sys::dsm_pin_mapping(segment);
                Board { start: pg_sys::dsm_segment_address(segment).cast(), handle }
            })
        }
    }

    /// A page, whose first two bytes say how long the text on it is.
    ///
    /// SAFETY: no other process may use the page meanwhile, and the board must have it.
    unsafe fn page(&mut self, number: usize) -> &mut [u8] {
        // SAFETY: as the caller promises; the memory is mapped as long as the process runs.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(number * PAGE), PAGE) }
    }

    /// Writes a text on a page, or nothing if it is too long.
    pub fn write(&mut self, number: usize, text: &str) {
        let bytes = if text.len() > PAGE - 2 { &[] } else { text.as_bytes() };
        // SAFETY: a page belongs to the process that works, from its start to its end, and then to who started it.
        let page = unsafe { self.page(number) };
        page[..2].copy_from_slice(&(bytes.len() as u16).to_le_bytes());
        page[2..2 + bytes.len()].copy_from_slice(bytes);
    }

    /// What was written on a page.
    pub fn read(&mut self, number: usize) -> String {
        // SAFETY: as of `write`.
        let page = unsafe { self.page(number) };
        let length = usize::from(u16::from_le_bytes([page[0], page[1]])).min(PAGE - 2);
        String::from_utf8_lossy(&page[2..2 + length]).into_owned()
    }
}
