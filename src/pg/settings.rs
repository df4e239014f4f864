//! Which settings does a superuser have? Rules of billing are no settings: they are rows, dumped and audited.

use pgrx::prelude::*;
use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};

/// Seconds that a message's time may be ahead of the clock (rule 3.5.16).
pub static MAX_FUTURE: GucSetting<i32> = GucSetting::<i32>::new(300);

/// Off stops metering at once; rows inserted meanwhile are listed for later (rule 4.4.7).
pub static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);

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
    // SAFETY: called once while the library is loaded, with a constant string.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"talkmeter".as_ptr()) };
}
