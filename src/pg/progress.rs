//! How far has long work come? Any other session sees it in `pg_stat_activity`, and so in `talkmeter.progress`.

use crate::pg::limit::heed_cancel;
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
    /// `what` is the function at work, `unit` what it counts; `total` may turn out to be too low.
    pub fn begin(what: &'static str, unit: &'static str, total: usize) -> Progress {
        prove();
        let progress = Progress { what, unit, done: 0, total, statement: statement() };
        progress.show();
        progress
    }

    /// The work goes on in another transaction.
    pub fn again(&self) {
        prove();
        self.show();
    }

    /// So many more are done.
    pub fn advance(&mut self, by: usize) {
        self.done += by;
        self.total = self.total.max(self.done);
        self.show();
        heed_cancel();
    }

    fn show(&self) {
        show(self.what, self.done as i64, self.total as i64, self.unit, &self.statement);
    }
}

/// Before the statement, because the server cuts off what is too long.
fn show(what: &str, done: i64, total: i64, unit: &str, statement: &CStr) {
    let head = format!("/* talkmeter.{what}: {done} of {total} {unit} */ ");
    let text = [head.as_bytes(), statement.to_bytes()].concat();
    report(&CString::new(text).expect("texts without zero bytes"));
}

/// Shows how far a statement of SQL alone has come; the server forgets it with the statement. Always true.
#[pg_extern(sql = false)]
fn show_progress(work: &str, done: i64, total: i64, unit: &str) -> bool {
    prove();
    show(work, done, total, unit, &statement());
    true
}

/// Locks the view that shows progress as nobody does who only reads it, until the transaction ends: a comment in a
/// statement proves nothing, and who has no rights on the view cannot lock it.
fn prove() {
    // SAFETY: look-ups in the server's cache of the catalog, of constant names; the lock is the transaction's.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"talkmeter".as_ptr(), false);
        let view = pg_sys::get_relname_relid(c"progress".as_ptr(), schema);
        if view != pg_sys::InvalidOid {
            pg_sys::LockRelationOid(view, pg_sys::RowShareLock as pg_sys::LOCKMODE);
        }
    }
}

/// The server's own text of the statement that is running, if there is one.
fn statement() -> CString {
    // SAFETY: a text of the server's that lives as long as the statement; copied.
    unsafe {
        match pg_sys::debug_query_string.is_null() {
            true => CString::default(),
            false => CStr::from_ptr(pg_sys::debug_query_string).to_owned(),
        }
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
