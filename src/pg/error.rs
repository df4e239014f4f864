//! How does a user learn what went wrong? SQLSTATE, message, DETAIL and HINT.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use talkmeter_engine::flaw::{Flaw, FlawKind};
use talkmeter_engine::mapping::cut;

/// An error on its way to the user.
pub struct Failure(ErrorReport);

/// Bytes that a message may have: it may name what somebody gave us.
const LONGEST: usize = 2_000;

/// An error with its SQLSTATE and message; raise it with [`Failure::raise`].
pub fn failure(code: PgSqlErrorCode, message: impl Into<String>) -> Failure {
    let mut message = message.into();
    if message.len() > LONGEST {
        message = format!("{}...", cut(&message, LONGEST));
    }
    Failure(ErrorReport::new(code, message, "talkmeter"))
}

impl Failure {
    pub fn detail(self, detail: impl Into<String>) -> Failure {
        Failure(self.0.set_detail(detail))
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure(self.0.set_hint(hint))
    }

    /// Tells the user and goes on.
    pub fn warn(self) {
        self.0.report(PgLogLevel::WARNING);
    }

    /// Tells the log of the server, and no client.
    pub fn log(self) {
        self.0.report(PgLogLevel::LOG_SERVER_ONLY);
    }

    pub fn raise(self) -> ! {
        self.0.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }
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
