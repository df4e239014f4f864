//! How does a procedure commit between the pieces of its work?

use crate::pg::error::failure;
use pgrx::prelude::*;

/// Does `piece`, and commits, until it answers false. Refused where the caller's own transaction would be committed.
///
/// # Safety
/// The call information must be what the server gave to a procedure, and what `piece` keeps must not be the
/// transaction's.
pub unsafe fn in_pieces(call: pg_sys::FunctionCallInfo, name: &str, mut piece: impl FnMut() -> bool) {
    // SAFETY: a procedure is called with a context that says whether it may commit. The connection is such that its
    // memory outlives the transaction. There is no snapshot at a commit: it was pushed and is popped here; on an error
    // the transaction's abort drops it, and closes the connection.
    unsafe {
        let context = (*call).context;
        let may_commit = !context.is_null()
            && (*context).type_ == pg_sys::NodeTag::T_CallContext
            && !(*context.cast::<pg_sys::CallContext>()).atomic;
        if !may_commit {
            failure(
                PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_TERMINATION,
                format!("talkmeter.{name} commits as it goes, and cannot be called within a transaction"),
            )
            .hint("CALL it by itself, outside of BEGIN and of functions.")
            .raise();
        }
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        loop {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let goes_on = piece();
            pg_sys::PopActiveSnapshot();
            pg_sys::SPI_commit();
            if !goes_on {
                break;
            }
        }
        pg_sys::SPI_finish();
    }
}
