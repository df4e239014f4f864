//! How far has long work come? Any other session sees it in `pg_stat_activity`, and so in `talkmeter.progress`.

use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// Work that is going on; when it is dropped, the server shows the statement as it was.
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    done: usize,
    total: usize,
    /// The statement that does the work.
    statement: CString,
}

impl Progress {
    /// `what` is the function at work, `unit` what it counts.
    pub fn begin(what: &'static str, unit: &'static str, total: usize) -> Progress {
        // SAFETY: the server's own text of the statement, if there is one; copied.
        let statement = unsafe {
            match pg_sys::debug_query_string.is_null() {
                true => CString::default(),
                false => CStr::from_ptr(pg_sys::debug_query_string).to_owned(),
            }
        };
        let progress = Progress { what, unit, done: 0, total, statement };
        progress.show();
        progress
    }

    /// So many more are done.
    pub fn advance(&mut self, by: usize) {
        self.done += by;
        self.show();
        pgrx::check_for_interrupts!();
    }

    /// Before the statement, because the server cuts off what is too long.
    fn show(&self) {
        let head = format!("/* talkmeter.{}: {} of {} {} */ ", self.what, self.done, self.total, self.unit);
        let text = [head.as_bytes(), self.statement.as_bytes()].concat();
        report(&CString::new(text).expect("two texts without zero bytes"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        report(&self.statement);
    }
}

fn report(text: &CStr) {
    // SAFETY: copies the text into this session's own entry.
    unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) };
}
