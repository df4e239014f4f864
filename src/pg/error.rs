//! How does a user learn what went wrong? SQLSTATE, message, DETAIL and HINT.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CString;
use std::fmt::Display;
use talkmeter_engine::flaw::{Flaw, FlawKind};
use talkmeter_engine::mapping::cut;

/// An error on its way to the user.
pub struct Failure(PgSqlErrorCode, ErrorReport);

/// Bytes that a message may have: it may name what somebody gave us.
const LONGEST: usize = 2_000;

/// An error with its SQLSTATE and message; raise it with [`Failure::raise`].
pub fn failure(code: PgSqlErrorCode, message: impl Into<String>) -> Failure {
    let mut message = message.into();
    if message.len() > LONGEST {
        message = format!("{}...", cut(&message, LONGEST));
    }
    Failure(code, ErrorReport::new(code, message, "talkmeter"))
}

thread_local! {
    /// What was told since somebody began to listen.
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Does `work`, and returns with its answer the warnings that it would have told.
pub fn heard<R>(work: impl FnOnce() -> R) -> (R, Vec<String>) {
    HEARD.set(Some(Vec::new()));
    let answer = work();
    (answer, HEARD.take().unwrap_or_default())
}

/// Raises the error that our own tables hold what no work of ours has written there.
pub fn damaged(what: impl Display) -> ! {
    failure(PgSqlErrorCode::ERRCODE_DATA_CORRUPTED, format!("a table of talkmeter's was edited: {what}"))
        .hint("SELECT * FROM talkmeter.verify() names what does not agree.")
        .raise()
}

impl Failure {
    pub fn detail(self, detail: impl Into<String>) -> Failure {
        Failure(self.0, self.1.set_detail(detail))
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure(self.0, self.1.set_hint(hint))
    }

    /// Tells the user and goes on, also if the client's encoding cannot hold the text: then in ASCII, since it would be
    /// an error that the text cannot be sent.
    pub fn warn(self) {
        let is_heard = HEARD.with_borrow_mut(|heard| match heard {
            Some(heard) => {
                heard.push(self.1.message().to_owned());
                true
            }
            None => false,
        });
        if is_heard {
            return;
        }
        let told = if client_may_hold_any_text() { self } else { self.in_ascii() };
        told.1.report(PgLogLevel::WARNING);
    }

    /// As [`Failure::warn`], of what is as it should be.
    pub fn notice(self) {
        let told = if client_may_hold_any_text() { self } else { self.in_ascii() };
        told.1.report(PgLogLevel::NOTICE);
    }

    fn in_ascii(&self) -> Failure {
        let Failure(code, report) = self;
        let ascii = |text: &str| text.replace(|letter: char| !letter.is_ascii(), "?");
        let mut told = failure(*code, ascii(report.message()));
        if let Some(detail) = report.detail() {
            told = told.detail(ascii(detail));
        }
        if let Some(hint) = report.hint() {
            told = told.hint(ascii(hint));
        }
        told
    }

    /// Says why a value of a setting is refused: false, which is what the server is to be answered.
    pub fn refuse(self) -> bool {
        let Failure(code, report) = self;
        let copied = |text: Option<&str>| {
            text.and_then(|text| CString::new(text).ok()).map_or(std::ptr::null_mut(), |text| {
                // SAFETY: the server copies the text, and reads its copy when the hook has returned.
                unsafe { pg_sys::pstrdup(text.as_ptr()) }
            })
        };
        // SAFETY: variables of this process's, made to be set by hooks of settings.
        unsafe {
            pg_sys::GUC_check_errcode(code as i32);
            pg_sys::GUC_check_errmsg_string = copied(Some(report.message()));
            pg_sys::GUC_check_errdetail_string = copied(report.detail());
            pg_sys::GUC_check_errhint_string = copied(report.hint());
        }
        false
    }

    /// Tells the log of the server, and no client.
    pub fn log(self) {
        self.1.report(PgLogLevel::LOG_SERVER_ONLY);
    }

    pub fn raise(self) -> ! {
        self.1.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
}

fn client_may_hold_any_text() -> bool {
    // SAFETY: reads a variable of this session's. What a client gets in the encoding of nothing is sent as it is.
    let encoding = unsafe { pg_sys::pg_get_client_encoding() };
    [pg_sys::pg_enc::PG_UTF8, pg_sys::pg_enc::PG_SQL_ASCII].iter().any(|holds| *holds as i32 == encoding)
}

impl From<Flaw> for Failure {
    fn from(flaw: Flaw) -> Failure {
        let code = match flaw.kind {
            FlawKind::Invalid => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            FlawKind::UnknownColumn => PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
            FlawKind::WrongType => PgSqlErrorCode::ERRCODE_DATATYPE_MISMATCH,
        };
        let mut failure = failure(code, flaw.message);
        if let Some(detail) = flaw.detail {
            failure = failure.detail(detail);
        }
        if let Some(hint) = flaw.hint {
            failure = failure.hint(hint);
        }
        failure
    }
}
