//! With whose rights, and under which settings, does talkmeter read and write its own tables?

use crate::pg::error::failure;
use crate::pg::majors;
use crate::pg::raw;
use crate::pg::version;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, CString};

/// Settings under which our statements run. The path is pinned so that no object of a caller's can stand in for one of
/// the system.
const PINNED: [(&CStr, &CStr); 4] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"quote_all_identifiers", c"off"),
    // In another style the sign of an interval's first field goes for all of them.
    (c"intervalstyle", c"postgres"),
    // Rows that a policy would hide are an error, not missing.
    (c"row_security", c"off"),
];

/// Settings under which statements are planned whose plans are kept. They are made when tables may be empty, so only
/// those that stay good are allowed: index look-ups in nested loops. The penalties that forbid the others would set off
/// the compiler of jit.
const PLANNED: [(&CStr, &CStr); 4] =
    [(c"enable_seqscan", c"off"), (c"enable_hashjoin", c"off"), (c"enable_mergejoin", c"off"), (c"jit", c"off")];

/// Defines the settings that weigh plans, as the server has them unless somebody changes them, and whether they are so
/// now. They are set only if they are not: that is read from the server's variables at no cost.
macro_rules! weights {
    ($($variable:ident $value:literal $name:literal $text:literal),+ $(,)?) => {
        const WEIGHTS: &[(&CStr, &CStr)] = &[$(($name, $text)),+];

        fn are_weights_usual() -> bool {
            // SAFETY: reads variables of this session's.
            unsafe { $(pg_sys::$variable == $value)&&+ }
        }
    };
}

weights! {
    seq_page_cost 1.0 c"seq_page_cost" c"1",
    random_page_cost 4.0 c"random_page_cost" c"4",
    cpu_tuple_cost 0.01 c"cpu_tuple_cost" c"0.01",
    cpu_index_tuple_cost 0.005 c"cpu_index_tuple_cost" c"0.005",
    cpu_operator_cost 0.0025 c"cpu_operator_cost" c"0.0025",
    enable_indexscan true c"enable_indexscan" c"on",
    enable_indexonlyscan true c"enable_indexonlyscan" c"on",
    enable_bitmapscan true c"enable_bitmapscan" c"on",
    enable_nestloop true c"enable_nestloop" c"on",
    from_collapse_limit 8 c"from_collapse_limit" c"8",
    join_collapse_limit 8 c"join_collapse_limit" c"8",
    plan_cache_mode 0 c"plan_cache_mode" c"auto",
}

thread_local! {
    /// The settings that the innermost work with other rights is to have, and that nothing has asked for so far.
    static UNSETTLED: Cell<Option<&'static [(&'static CStr, &'static CStr)]>> = const { Cell::new(None) };
}

/// Makes the settings of the innermost work with the owner's rights: whatever runs a statement, or calls code of
/// somebody's, asks for them first. A message in order needs none, and they would cost it more than its rules do. They
/// hold for the level at which they are made: so a subtransaction asks for those around it before it begins.
pub fn settle() {
    let Some(planned) = UNSETTLED.take() else { return };
    let weights = if planned.is_empty() || are_weights_usual() { &[] } else { WEIGHTS };
    for (name, value) in PINNED.iter().chain(planned).chain(weights) {
        set(name, value);
    }
}

/// Puts the caller's rights and settings back, also when an error passes by.
struct Restore {
    unsettled: Option<&'static [(&'static CStr, &'static CStr)]>,
    user: pg_sys::Oid,
    context: i32,
    nesting: i32,
    statement: *const std::ffi::c_char,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: all put back what `as_role` took from the same stack; on an error they run before the server's own
        // clean-up of the (sub)transaction, which would find nothing left to do.
        UNSETTLED.set(self.unsettled);
        unsafe {
            pg_sys::debug_query_string = self.statement;
            pg_sys::AtEOXact_GUC(!std::thread::panicking(), self.nesting);
            raw::SetUserIdAndSecContext(self.user, self.context);
        }
    }
}

/// Does `work` with the rights of the extension's owner and, from its first statement on, under settings that no caller
/// can bend: see [`settle`].
pub fn as_owner<R>(work: impl FnOnce() -> R) -> R {
    as_role(owner(), 0, &PLANNED, work)
}

/// Does `work` as [`as_owner`] does, and waits for no lock longer than so many milliseconds.
pub fn as_owner_in_haste<R>(lock_timeout: i32, work: impl FnOnce() -> R) -> R {
    as_role(owner(), 0, &PLANNED, || {
        settle();
        set_lock_timeout(lock_timeout);
        work()
    })
}

/// Does `work`, whose plans are made for one occasion, with the rights of the extension's owner. To compile such a plan
/// takes longer than to run it.
pub fn as_owner_reading<R>(work: impl FnOnce() -> R) -> R {
    as_role(owner(), 0, &[], || {
        settle();
        set(c"jit", c"off");
        work()
    })
}

/// Does `work`, which reads a table, with the rights of the table's owner: what the owner hung on the table, like
/// functions of its indexes, runs with no more rights than the owner's, and cannot change the session. It learns
/// neither the caller's statement nor what the caller's application keeps in settings of its own. `lock_timeout` is in
/// milliseconds, if it is not the session's.
pub fn as_table_owner<R>(owner: pg_sys::Oid, lock_timeout: Option<i32>, work: impl FnOnce() -> R) -> R {
    as_role(owner, pg_sys::SECURITY_RESTRICTED_OPERATION, &PLANNED, || {
        settle();
        // SAFETY: `as_role` puts the text back.
        unsafe { pg_sys::debug_query_string = std::ptr::null() };
        for name in application_settings() {
            set(&name, c"");
        }
        if let Some(milliseconds) = lock_timeout {
            set_lock_timeout(milliseconds);
        }
        work()
    })
}

/// The settings that no library has defined, such as `app.user`, by which applications tell their row policies who
/// asks.
fn application_settings() -> Vec<CString> {
    // SAFETY: reads the server's list of settings, whose entries and names live as long as the session; the names are
    // copied before any is set.
    unsafe {
        let is_placeholder =
            |setting: &&*mut pg_sys::config_generic| (***setting).flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as i32 != 0;
        majors::settings()
            .iter()
            .filter(is_placeholder)
            .map(|setting| CStr::from_ptr((**setting).name).to_owned())
            .collect()
    }
}

fn set_lock_timeout(milliseconds: i32) {
    let value = CString::new(milliseconds.to_string()).expect("digits");
    set(c"lock_timeout", &value);
}

/// Sets until the level of settings is closed that `as_role` opened.
fn set(name: &CStr, value: &CStr) {
    // SAFETY: the server copies both; whether it may be set is its own to judge.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

fn as_role<R>(
    role: pg_sys::Oid,
    restriction: u32,
    planned: &'static [(&'static CStr, &'static CStr)],
    work: impl FnOnce() -> R,
) -> R {
    let mut user = pg_sys::InvalidOid;
    let mut context = 0;
    // SAFETY: reads the current user, then opens a level of settings that `Restore` closes; every string is constant.
    let _restore = unsafe {
        raw::GetUserIdAndSecContext(&mut user, &mut context);
        let statement = pg_sys::debug_query_string;
        let unsettled = UNSETTLED.replace(Some(planned));
        let restore = Restore { unsettled, user, context, nesting: raw::NewGUCNestLevel(), statement };
        let context = context | (pg_sys::SECURITY_LOCAL_USERID_CHANGE | restriction) as i32;
        raw::SetUserIdAndSecContext(role, context);
        restore
    };
    work()
}

/// The role with whose rights the caller runs.
pub fn caller() -> pg_sys::Oid {
    // SAFETY: reads a variable of this session's.
    unsafe { pg_sys::GetUserId() }
}

/// Whether that role is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: asks the server about the current user.
    unsafe { pg_sys::superuser() }
}

/// Who is to read what a function answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Readers {
    /// The role that called the function.
    pub caller: pg_sys::Oid,
    /// The role that is set in the session.
    pub session: pg_sys::Oid,
}

/// Who reads; nobody where the server runs what others wrote, in the session of whoever happens to be there.
pub fn readers() -> Option<Readers> {
    // SAFETY: each reads a variable of this session's.
    unsafe {
        let readers = Readers { caller: caller(), session: pg_sys::GetOuterUserId() };
        (!pg_sys::InSecurityRestrictedOperation()).then_some(readers)
    }
}

/// Refuses, as the server does, a call that writes only when the transaction commits.
pub fn must_write(function: &'static str) {
    // SAFETY: each reads a variable of this session's.
    let (read_only, in_recovery) = unsafe { (pg_sys::XactReadOnly, pg_sys::RecoveryInProgress()) };
    if read_only || in_recovery {
        let place = if in_recovery { "during recovery" } else { "in a read-only transaction" };
        failure(
            PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
            format!("cannot execute talkmeter.{function}() {place}"),
        )
        .hint("Call it on the primary server, in a transaction that may write.")
        .raise();
    }
    version::must_be_readable();
}

/// Does `work` although the transaction may have become read-only since it inserted its rows: what they cost belongs to
/// them.
pub fn writing<R>(work: impl FnOnce() -> R) -> R {
    struct ReadOnlyAgain(bool);
    impl Drop for ReadOnlyAgain {
        fn drop(&mut self) {
            // SAFETY: puts back this session's own variable.
            unsafe { pg_sys::XactReadOnly = self.0 };
        }
    }
    // SAFETY: reads and sets this session's own variable; a queue is filled only where writing was allowed.
    let _restore = unsafe {
        let restore = ReadOnlyAgain(pg_sys::XactReadOnly);
        pg_sys::XactReadOnly = false;
        restore
    };
    work()
}

/// Whether the extension is installed, as this transaction sees it.
pub fn is_installed() -> bool {
    schema_owner().is_some()
}

/// Who owns the schema `talkmeter`: the role that created the extension. Whoever asks is about to read or write our
/// tables.
fn owner() -> pg_sys::Oid {
    version::must_be_readable();
    schema_owner().unwrap_or_else(|| {
        failure(PgSqlErrorCode::ERRCODE_INVALID_SCHEMA_NAME, "schema \"talkmeter\" does not exist")
            .hint("Run CREATE EXTENSION talkmeter.")
            .raise()
    })
}

thread_local! {
    /// The owner of the schema, until any schema is made, changed or dropped.
    static OWNER: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// Asks the server to tell us when schemas change.
pub fn watch_owner() {
    let (cache, nothing) = (pg_sys::SysCacheIdentifier::NAMESPACEOID as i32, pg_sys::Datum::from(0usize));
    // SAFETY: registered once per session, while the library is loaded; the callback only forgets.
    unsafe { pg_sys::CacheRegisterSyscacheCallback(cache, Some(on_schema_changed), nothing) };
}

#[pg_guard]
unsafe extern "C-unwind" fn on_schema_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    OWNER.set(None);
}

/// Who owns the schema `talkmeter`, if there is one.
fn schema_owner() -> Option<pg_sys::Oid> {
    if OWNER.get().is_none() {
        // SAFETY: look-ups in the server's cache of the catalog; the tuple is read before it is released.
        let found = unsafe {
            let schema = pg_sys::get_namespace_oid(c"talkmeter".as_ptr(), true);
            let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::NAMESPACEOID as i32, schema.into());
            (!tuple.is_null()).then(|| {
                let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_namespace>()).nspowner;
                pg_sys::ReleaseSysCache(tuple);
                owner
            })
        };
        OWNER.set(found);
    }
    OWNER.get()
}
