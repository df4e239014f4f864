//! Which settings does a superuser have? Rules of billing are no settings: they are rows, dumped and audited.

use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;
use std::time::Duration;

/// Seconds that a message's time may be ahead of the clock (rule 3.5.16).
pub static MAX_FUTURE: GucSetting<i32> = GucSetting::<i32>::new(300);

/// Seconds for which a message's time may be behind the clock when the row comes; -1 is without end (rule 3.5.17).
static MAX_PAST: GucSetting<i32> = GucSetting::<i32>::new(-1);

/// Seconds by which the clock of metering is ahead of the server's.
static CLOCK_OFFSET: GucSetting<i32> = GucSetting::<i32>::new(0);

/// Off stops metering at once; rows inserted meanwhile are listed for later (rule 4.4.7).
pub static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Whether `reset_for_tests` may remove what was metered. Not even a superuser's session turns it on again.
static ALLOW_RESET_FOR_TESTS: GucSetting<bool> = GucSetting::<bool>::new(true);

/// Milliseconds for which a commit waits for the lock of an attached table of which it needs older rows.
static SOURCE_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);

/// Milliseconds for which a commit waits for those rows.
static SOURCE_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);

/// Seconds from one sweep of a database by the worker to the next.
static SWEEP_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(30);

/// The databases that the worker serves, by their names; `*` is every one that has the extension.
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));

/// By how many seconds the clock of metering is ahead of the server's.
pub fn clock_offset() -> i32 {
    CLOCK_OFFSET.get()
}

/// Whether the server lets tests remove what was metered, as this session knows.
pub fn allows_reset_for_tests() -> bool {
    ALLOW_RESET_FOR_TESTS.get()
}

/// How long it is from one sweep of a database by the worker to the next.
pub fn sweep_interval() -> Duration {
    Duration::from_secs(SWEEP_INTERVAL.get().max(1) as u64)
}

/// Whether the worker serves a database of that name, if the extension is there. A template is served only if it is
/// named.
pub fn is_served(name: &str, is_template: bool) -> bool {
    let all = DATABASES.get().unwrap_or_default();
    let all = all.to_string_lossy();
    let mut listed = all.split(',').map(|listed| listed.trim());
    listed.any(|listed| listed == "*" && !is_template || listed.trim_matches('"') == name)
}

/// How many seconds a message's time may be behind the clock when the row comes, if that is limited.
pub fn max_past() -> Option<i32> {
    Some(MAX_PAST.get()).filter(|seconds| *seconds >= 0)
}

/// How long a commit waits for the lock of an attached table: no longer than the session waits for any. 0 is without
/// end.
pub fn source_lock_limit() -> i32 {
    // SAFETY: reads variables of this session's.
    let (lock, statement) = unsafe { (pg_sys::LockTimeout, pg_sys::StatementTimeout) };
    shortest([SOURCE_LOCK_TIMEOUT.get(), lock, statement])
}

/// How long a commit waits for rows of an attached table: no longer than a statement of the session's may take, and
/// no longer than `most` milliseconds if that is not 0.
pub fn source_limit(most: i32) -> i32 {
    // SAFETY: reads a variable of this session's.
    shortest([SOURCE_TIMEOUT.get(), unsafe { pg_sys::StatementTimeout }, most])
}

fn shortest(limits: [i32; 3]) -> i32 {
    limits.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0)
}

pub fn define() {
    GucRegistry::define_bool_guc(
        c"talkmeter.enabled",
        c"Meters the messages of attached tables.",
        c"While it is off, messages are inserted unmetered and listed in talkmeter.quarantine with the reason \"disabled\".",
        &ENABLED,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"talkmeter.max_future",
        c"How far ahead of the clock a message's time may be before the row is quarantined.",
        c"Such a row is kept in talkmeter.quarantine with the reason \"future\"; its insert succeeds.",
        &MAX_FUTURE,
        0,
        86_400,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"talkmeter.max_past",
        c"How far behind the clock a message's time may be when its row comes before the row is quarantined.",
        c"Such a row is kept in talkmeter.quarantine with the reason \"too_old\"; its insert succeeds. -1 is without end.",
        &MAX_PAST,
        -1,
        i32::MAX,
        GucContext::Suset,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_int_guc(
        c"talkmeter.source_lock_timeout",
        c"How long a commit waits for the lock of an attached table of which it needs older rows.",
        c"After that the late row goes to talkmeter.quarantine with the reason \"source_unreadable\". 0 is without end.",
        &SOURCE_LOCK_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"talkmeter.source_timeout",
        c"How long a commit waits for the older rows of a conversation in an attached table.",
        c"After that the late row goes to talkmeter.quarantine with the reason \"source_unreadable\". 0 is without end.",
        &SOURCE_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    define_those_of_the_whole_server();
    // SAFETY: called once while the library is loaded, with a constant string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"talkmeter".as_ptr()) };
}

/// Defines the setting of the clock, whose values `may_be` judges.
///
/// # Safety
/// The hook must turn its panics into errors of the server.
pub unsafe fn define_clock_offset(may_be: pg_sys::GucIntCheckHook) {
    // SAFETY: as the caller promises.
    unsafe {
        GucRegistry::define_int_guc_with_hooks(
            c"talkmeter.clock_offset",
            c"How far the clock of metering is ahead of the server's, for rehearsals.",
            c"Negative is behind it. It cannot go back behind a period that is finalized.",
            &CLOCK_OFFSET,
            -i32::MAX,
            i32::MAX,
            GucContext::Suset,
            GucFlags::UNIT_S,
            may_be,
            None,
            None,
        );
    }
}

fn define_those_of_the_whole_server() {
    GucRegistry::define_bool_guc(
        c"talkmeter.allow_reset_for_tests",
        c"Lets a superuser remove all that was metered with talkmeter.reset_for_tests().",
        c"Switch it off on a server whose databases hold books.",
        &ALLOW_RESET_FOR_TESTS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"talkmeter.sweep_interval",
        c"How long it is from one sweep of a database by the worker to the next.",
        c"Results do not depend on it: ends are stamped with their logical time.",
        &SWEEP_INTERVAL,
        1,
        86_400,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    GucRegistry::define_string_guc(
        c"talkmeter.databases",
        c"The databases that the worker serves, separated by commas.",
        c"* is every database that has the extension, and is no template; an empty text is none.",
        &DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
}
